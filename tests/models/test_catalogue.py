"""Laws of the catalogue: Table S1 is in it, a row is true, and docs/models.md shows it.

After a change on purpose: python -m tests.models.test_catalogue, which writes the table of the page anew.
"""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autopsae.activations import open_activations, open_layers, preset_names
from autopsae.models import CatalogueEntry, catalogue, find_entry
from autopsae.models.load import _WHEELS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
START, END = "<!-- the table of the catalogue -->\n", "<!-- end of the table -->\n"
# Table S1: layers swept, and the representative one.
TABLE_S1 = {
    "gpt2": (11, 6),
    "pythia-410m": (23, 12),
    "pythia-70m": (5, None),
    "modernbert-large": (27, 14),
    "modernbert-base": (21, None),
    "dinov2-large": (23, 12),
    "dinov2-base": (11, None),
    "dinov3-7b": (39, 20),
    "dinov3-base": (11, 6),
    "sd3.5-large": (37, 37),
    "esm2-3b": (35, 18),
    "esm2-650m": (32, 16),
    "esm2-35m": (11, None),
    "esm3": (47, 24),
    "progen2-large": (31, 15),
    "progen2-base": (26, None),
    "glm2-650m": (32, 15),
    "alphafold3": (1, 1),
    "evo1": (31, 14),
}


def papers() -> list[CatalogueEntry]:
    return [entry for entry in catalogue() if entry.swept is not None]


def test_the_papers_networks_are_those_of_table_s1_with_its_layers() -> None:
    assert [entry.name for entry in papers()] == list(TABLE_S1)
    for entry in papers():
        layers, at = TABLE_S1[entry.name]
        assert (entry.swept, len(entry.points)) == (layers, layers), entry.name
        assert entry.representative == (None if at is None else entry.points[at - 1]), entry.name
    assert sum(layers for layers, _ in TABLE_S1.values()) == 454


def test_names_are_told_apart_and_installable_ones_have_loaders() -> None:
    names = [entry.name for entry in catalogue()]
    assert len({*names}) == len(names)
    wheels = [entry for entry in catalogue() if entry.wheels]
    assert {entry.name for entry in wheels} == {*preset_names(), *_WHEELS}
    assert {entry.how for entry in wheels} == {"real"}
    assert all("==" in wheel for entry in wheels for wheel in entry.wheels)


def test_an_entry_is_known_by_both_of_its_names() -> None:
    assert find_entry("esm2-35m") is find_entry("facebook/esm2_t12_35M_UR50D")
    assert find_entry("nobody/nothing") is None


def test_make_installs_every_wheel_of_the_catalogue() -> None:
    makefile = (PAGE.parents[1] / "Makefile").read_text()
    listed = set(re.findall(r"[\w-]+==[\w.]+", makefile))
    for numbers, name, version in re.findall(r"foreach n,([\d ]+),([\w-]+)\$\(n\)==([\w.]+)", makefile):
        listed |= {f"{name}{number}=={version}" for number in numbers.split()}
    assert {wheel for entry in catalogue() for wheel in entry.wheels} <= listed


# The page


def table() -> str:
    """The rows of the catalogue in Markdown."""
    head = ["name", "reads", "loaded from", "class", "`d_in`", "points", "Table S1", "other tokens", "licence", ""]
    rows = [head, ["---"] * len(head)]
    rows += [row(entry) for entry in catalogue()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def row(entry: CatalogueEntry) -> list[str]:
    place = (
        f"`{entry.hub}`"
        if entry.hub
        else ", ".join(f"`{wheel}`" for wheel in shorten(entry.wheels)) or "its own page"
    )
    of_paper = "" if entry.swept is None else f"{entry.swept} layers" if entry.swept > 1 else "1 layer"
    of_paper += "" if entry.representative is None else f", `{entry.representative}`"
    reads = entry.modality if entry.swept is None else f"{entry.modality} ({entry.inputs})"
    cells = [f"`{entry.name}`", reads, place, entry.model_class, str(entry.d_in)]
    return [*cells, points(entry), of_paper, entry.special, entry.licence, entry.how]


def shorten(wheels: tuple[str, ...]) -> list[str]:
    """The wheels, of more than two the first and the last."""
    return list(wheels) if len(wheels) < 3 else [f"{wheels[0]}` to `{wheels[-1]}"]


def points(entry: CatalogueEntry) -> str:
    """Runs of points that differ in their number, by their first and last."""
    runs: dict[str, list[str]] = {}
    for point in entry.points:
        runs.setdefault(re.sub(r"\d+", "", point), []).append(point)
    ends = [list(dict.fromkeys((run[0], run[-1]))) for run in runs.values()]
    return ", ".join(" to ".join(f"`{end}`" for end in run) for run in ends)


def page_with(new: str) -> str:
    text = PAGE.read_text()
    before, rest = text.split(START)
    return before + START + new + END + rest.split(END)[1]


def test_the_page_shows_the_catalogue() -> None:
    assert PAGE.read_text() == page_with(table()), "python -m tests.models.test_catalogue"


# The lines for networks that are only described, on stand-ins


class Block(nn.Module):
    """Gives a tuple, as blocks of language models do."""

    def __init__(self, d: int, pair: bool) -> None:
        super().__init__()
        self.linear, self.pair = nn.Linear(d, d), pair

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.linear(x)
        return (x, None) if self.pair else x


class StandIn(nn.Module):
    """Blocks under the names of a real network, reading ids by its argument."""

    def __init__(self, path: str, count: int, *, pair: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 8)
        at: nn.Module = self
        *folders, last = path.split(".")
        for name in folders:
            at.add_module(name, nn.Module())
            at = at.get_submodule(name)
        self.blocks_of = nn.ModuleList(Block(8, pair) for _ in range(count))
        at.add_module(last, self.blocks_of)

    @classmethod
    def from_pretrained(cls, name: str, **_: Any) -> "StandIn":
        return cls(*LAYOUTS[name][:2], pair=LAYOUTS[name][2])

    def forward(self, input_ids: Any = None, sequence_tokens: Any = None) -> Any:
        x = self.embedding(input_ids if sequence_tokens is None else sequence_tokens)
        for block in self.blocks_of:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


LAYOUTS = {
    "esm3_sm_open_v1": ("transformer.blocks", 48, False),
    "checkpoints/progen2-base": ("transformer.h", 27, True),
    "tattabio/gLM2_650M": ("encoder.layers", 33, False),
    "togethercomputer/evo-1-131k-base": ("backbone.blocks", 32, True),
}


class Tokenizer:
    """Bytes are ids."""

    @classmethod
    def from_pretrained(cls, name: str, **_: Any) -> "Tokenizer":
        return cls()

    from_file = from_pretrained

    def encode(self, text: str) -> Any:
        return Ids(text.encode())

    def __call__(self, text: str, **_: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([list(text.encode())])}


class Ids(list[int]):
    @property
    def ids(self) -> list[int]:
        return list(self)


class Pairformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pairformer_stack = PairformerStack()

    def forward(self, features: torch.Tensor) -> Any:
        return self.pairformer_stack(features)[1]


class PairformerStack(nn.Module):
    def forward(self, single: torch.Tensor) -> Any:
        return 2 * single, single[:, None] + single[None]


def module(**names: Any) -> ModuleType:
    made = ModuleType("stand-in")
    vars(made).update(names)
    return made


MODULES = {
    "esm.models.esm3": module(ESM3=StandIn),
    "esm.tokenization.sequence_tokenizer": module(EsmSequenceTokenizer=Tokenizer),
    "models.progen.modeling_progen": module(ProGenForCausalLM=StandIn),
    "tokenizers": module(Tokenizer=Tokenizer),
    "transformers": module(AutoModel=StandIn, AutoModelForCausalLM=StandIn, AutoTokenizer=Tokenizer),
    "port": module(model=Pairformer(), inputs=[torch.randn(4, 384), torch.randn(3, 384)]),
}
MODULES |= {name: ModuleType(name) for name in ("esm", "esm.models", "esm.tokenization", "models", "models.progen")}


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    pytest.importorskip("Bio", reason="needs the extra [bio]")
    for name, made in MODULES.items():
        monkeypatch.setitem(sys.modules, name, made)
    (tmp_path / "proteins.fasta").write_text(">one\nMKTAYIAKQR\n>two\nMSHHWGYG\n")
    (tmp_path / "genome.fasta").write_text(f">one\n{'ACGT' * 10}\n")
    folder = tmp_path / "af_output" / "fold" / "seed-1_embeddings"
    folder.mkdir(parents=True)
    single = np.random.default_rng(0).standard_normal((5, 384)).astype(np.float16)
    np.savez(folder / "fold_seed-1_embeddings.npz", single_embeddings=single, pair_embeddings=np.zeros((5, 5, 2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks_of_code() -> dict[str, str]:
    """The Python of each section of the page about a network that is only described."""
    return dict(re.findall(r"\n### (.*?)\n.*?```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize(
    ("title", "name", "tokens", "folder"),
    [
        ("ESM3", "esm3", 18, "OUT/esm3"),
        ("ProGen2", "progen2-base", 22, "OUT/progen2"),
        ("gLM2", "glm2-650m", 24, "OUT/glm2"),
        ("Evo 1", "evo1", 40, "OUT/evo1"),
    ],
)
def test_the_lines_of_a_described_network_store_the_papers_layers(
    title: str, name: str, tokens: int, folder: str, stand_ins: Path
) -> None:
    code = blocks_of_code()[title]
    assert len(code.strip().splitlines()) <= 14
    exec(code, {})
    layers = open_layers(stand_ins / folder)
    entry = find_entry(name)
    assert entry is not None
    assert list(layers) == list(entry.points)
    assert {layer.tokens for layer in layers.values()} == {tokens}


def test_the_lines_of_alphafold_3_store_its_single_representation(stand_ins: Path) -> None:
    exec(blocks_of_code()["AlphaFold 3"], {})
    assert open_activations(stand_ins / "alphafold3.npy").tokens == 5
    exec(blocks_of_code()["AlphaFold 3 in a port to PyTorch"], {})
    assert open_activations(stand_ins / "pairformer.npy").tokens == 7


def test_there_is_a_section_for_each_network_that_is_only_described() -> None:
    assert list(blocks_of_code()) == [
        "ESM3",
        "ProGen2",
        "gLM2",
        "Evo 1",
        "AlphaFold 3",
        "AlphaFold 3 in a port to PyTorch",
    ]


def test_importing_the_catalogue_imports_no_model_library() -> None:
    code = "import sys, autopsae.models.load; print({'transformers', 'diffusers', 'PIL', 'Bio'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


if __name__ == "__main__":
    PAGE.write_text(page_with(table()))
