"""Every block of Python and of the shell in README and docs/ is run as it is written, page by page.

Only sizes are smaller than on the page. A model that a command names is a tiny one with random weights, in
a folder of that name. A block that cannot be run here is named in ELSEWHERE, with who runs it or why nobody does.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autopsae.cli.parsing import VERBS, parse_options
from autopsae.interop.convert import load_sae
from autopsae.sae.death import fates
from tests import processes
from tests.activations.test_presets import gpt2_folder
from tests.diagnosis.test_parts import write_store
from tests.features.sources import small_sae
from tests.hub.stand_in import environment, running_hub
from tests.interop.formats import written

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh|make)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

ELSEWHERE = {
    "README.md": "tests/test_docs.py",
    "models.md": "tests/models/test_catalogue.py",
    "features.md": "tests/features/test_page.py",
    "training.md": "tests/test_docs.py",
    "interop.md": "tests/test_docs.py",
    "ranks.md": "tests/run/test_torchrun.py",
}
"""Pages whose Python another module runs."""

SMALLER = {"16384": "64", "8192": "64", "32": "4", "64": "4", "100000": "1000", "24576": "1000", "10000": "5"}
SMALLER_ON = {
    "trial.md": {"100000": "300"},
    "README.md": {"3,12": "1,2", "12": "2", "p/hs12": "p/hs2"},  # the tiny model has two layers
}
DEFAULTS = {
    "diagnose": {"--d-sae": "64", "--k": "4", "--tokens": "1500"},
    "train": {"--d-sae": "64", "--k": "4", "--steps": "5", "--batch-tokens": "64"},
}
"""By verb: what makes it smaller where the page leaves a default."""
AS_WRITTEN = ("start.md", "cure.md")
"""Pages that are run with their own sizes."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def lines(block: str) -> list[list[str]]:
    """The commands of a shell block, word by word."""
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


# What a page takes for granted.


def _trained(folder: Path) -> None:
    """A run in sae12, the prescription p/hs12, its diagnosis d.json, and the activations OUT."""
    made = torch.Generator().manual_seed(0)
    (folder / "OUT").mkdir()
    layers = {f"hs{n}": torch.randn(1500, 16, generator=made) + 3 for n in (3, 12)}
    tokens = {"token.document": torch.arange(1500) // 50, "token.position": torch.arange(1500) % 50}
    save_file(layers | tokens, folder / "OUT" / "0.safetensors")
    command(["diagnose", "OUT", "--layers", "12", "--d-sae", "64", "--k", "4", "--json", "d.json"], folder)
    command(["diagnose", "OUT", "--layers", "12", "--d-sae", "64", "--k", "4", "--prescriptions", "p"], folder)
    sizes = ["--d-sae", "64", "--k", "4", "--steps", "5", "--batch-tokens", "200"]
    command(["train", "OUT", "--layer", "12", "--prescription", "p/hs12", *sizes, "--out", "sae12"], folder)


def _model(name: str) -> Callable[[Path], None]:
    return lambda folder: (gpt2_folder(folder / name, n_positions=128), None)[1]


def _tokens(folder: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4000, 16)) * np.logspace(0, -1, 16) + 2
    np.save(folder / "activations.npy", x.astype(np.float32))


def _tokens_and_model(folder: Path) -> None:
    _tokens(folder)
    _model("smollm2")(folder)


def _features(folder: Path) -> None:
    _trained(folder)
    (folder / "other").mkdir()
    small_sae(d_in=16).save(folder / "other" / "sae")
    spans = "".join(f"{document},{document % 40},{document % 40 + 5},edge\n" for document in range(30))
    (folder / "labels.csv").write_text(f"document,start,end,concept\n{spans}")
    places = "".join(f"{n // 50},{n % 50},{n % 50 + 1},x\n" for n in range(1500))
    (folder / "tokens.csv").write_text(f"document,start,end,text\n{places}")


def _two_shards(folder: Path) -> None:
    write_store(folder / "OUT", shards=2, each=700)
    (folder / "parts").mkdir()


PREPARE: dict[str, Callable[[Path], None]] = {
    "README.md": _model("smollm2"),
    "autopsy.md": _trained,
    "cluster.md": _two_shards,
    "features.md": _features,
    "gemma3.md": _model("gemma3"),
    "hub.md": _trained,
    "page.md": _model("smollm2"),
    "trial.md": _tokens,
    "trouble.md": _tokens_and_model,
}


# What is there at the end.


def _check_start(folder: Path) -> None:
    """From a .npy of one's own to a page, to a trained SAE, to a folder for SAELens."""
    page = (folder / "report.html").read_text()
    assert "<!doctype html>" in page[:100].lower()
    assert "activations" in page
    trained, carried = load_sae(folder / "run" / "sae"), load_sae(folder / "for-saelens")
    x = torch.from_numpy(np.load(folder / "activations.npy"))[:2000]
    assert (trained(x) - carried(x)).abs().median() < 1e-4
    born_dead = json.loads((folder / "diagnosis.json").read_text())["layers"][0]["birth"]["none"]["dead"]
    assert fates(trained, x).dead < born_dead


def _check_cure(folder: Path) -> None:
    """From an SAE of SAELens full of dead latents to trainings in which they live."""
    x = torch.from_numpy(np.load(folder / "tokens.npy"))
    names = ("dead", "cured", "cured-for-saelens")
    dead, cured, here = (fates(load_sae(folder / name), x).dead for name in names)
    assert dead > 0.5
    assert cured < 0.1
    assert here < 0.1


def _check_readme(folder: Path) -> None:
    names = {"OUT", "d.json", "d.png", "p", "sae12", "a.png", "report.html", "sae12-saelens"}
    assert names <= {path.name for path in folder.iterdir()}


def _check_cluster(folder: Path) -> None:
    """A part of each shard, and one of the first by the array's line."""
    names = {path.name for path in (folder / "parts").iterdir()}
    assert names == {"0.safetensors", "shard-00000.safetensors", "shard-00001.safetensors"}


def _check_autopsy(folder: Path) -> None:
    assert {"a.json", "a.parquet", "a.png", "cure.json"} <= {path.name for path in folder.iterdir()}


CHECK = {
    "README.md": _check_readme,
    "autopsy.md": _check_autopsy,
    "cluster.md": _check_cluster,
    "cure.md": _check_cure,
    "start.md": _check_start,
}
PARSED = {
    ("cluster.md", "slurm:slurm_partition=cpu,timeout_min=60"): "tests/cluster, where submitit is installed",
    ("cluster.md", "ray:auto"): "a cluster of Ray",
    ("cluster.md", "smollm2"): "tests/cluster/test_harvest.py, with a model that needs no wheel",
    ("stores.md", "s3://lab/acts/store"): "a bucket; tests/cli/test_stores.py has one of moto's",
    ("stores.md", "s3://lab/acts/store/shard-00000.safetensors"): "the same",
    ("features.md", "--probes"): "the embeddings of images of one's own",
    ("features.md", "programs.jsonl"): "tests/features/test_verb_of_model.py runs a model",
    ("features.md", "--tasks"): "the texts of the package sae-probes",
}
"""Commands that are only parsed: (page, a word of the command) and what they would need."""


def command(words: list[str], folder: Path) -> str:
    done = processes.run(processes.command, *words, folder=folder)
    assert done.returncode == 0, f"autopsae {shlex.join(words)}\n{done.stderr}"
    return done.stdout


def run_line(words: list[str], page: str, folder: Path) -> None:
    """One command of a page: run, or looked up where it installs or takes a checkout."""
    if words[:2] == ["pip", "install"]:
        check_installs(words[2:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}\b.*:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif words[0] == "torchrun":  # tests/run/test_torchrun.py runs it
        verb = words.index("autopsae") + 1
        assert isinstance(parse_options(words[verb], words[verb + 1 :]), VERBS[words[verb]])
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]), words
    else:
        assert words[0] == "autopsae", words
        asked = words[1:] if page in AS_WRITTEN else make_smaller(words[1:], page)
        asked = [name for word in asked for name in names_of(word.replace("out/LAYER", "out/activations"), folder)]
        if any((page, word) in PARSED for word in asked):
            assert isinstance(parse_options(asked[0], asked[1:]), VERBS[asked[0]])
            return
        command(asked, folder)


def run_script(kind: str, block: str, folder: Path) -> None:
    """Lines of another program that calls autopsae: rules of make, or what only a shell can read."""
    words = ["bash", "-c", f"set -eu\n{block}"]
    if kind == "make":
        (folder / "Makefile").write_text(block)
        shards = sorted(path.relative_to(folder) for path in (folder / "OUT").glob("shard-*"))
        words = ["make", "d.json", f"SHARDS={' '.join(map(str, shards))}"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{block}\n{done.stderr}"


def names_of(word: str, folder: Path) -> list[str]:
    """As a shell does with a star."""
    return [str(path.relative_to(folder)) for path in sorted(folder.glob(word))] if "*" in word else [word]


def make_smaller(words: list[str], page: str) -> list[str]:
    """The same command with smaller numbers."""
    small = SMALLER | SMALLER_ON.get(page, {})
    added = {name: value for name, value in DEFAULTS.get(words[0], {}).items() if name not in words}
    return [*(small.get(word, word) for word in words), *(word for pair in added.items() for word in pair)]


def check_installs(words: list[str]) -> None:
    """The extras are those of the project; a wheel is one that the library knows."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        if named := re.fullmatch(r"(?:\.|autopsae)\[([\w,]+)\]", word):
            assert {*named[1].split(",")} <= extras.keys(), word
        elif not word.startswith("-"):
            assert "==" in word, f"{word}: expected an extra of ours, or a pinned package"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in of the Hub, for the commands that ask it."""
    with running_hub() as hub:
        for name, value in environment(hub, tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        folder = written(tmp_path / "published", "saelens")
        files = {f"layer_8/{path.name}": path.read_bytes() for path in folder.iterdir()}
        hub.add("jbloom/GPT2-Small-SAEs-Reformatted").files = {
            name.replace("layer_8", "blocks.8.hook_resid_pre"): content for name, content in files.items()
        }
        yield


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
@pytest.mark.usefixtures("hub")
def test_every_block_of_a_page_runs_after_those_before_it(page: Path, tmp_path: Path) -> None:
    if re.search(r"sae_lens|saelens:", page.read_text()) and page.name in ("start.md", "cure.md", "hub.md"):
        pytest.importorskip("sae_lens")
    folder = tmp_path / "work"
    folder.mkdir()
    PREPARE.get(page.name, lambda _: None)(folder)
    for kind, block in blocks(page):
        if kind == "make" or (kind == "sh" and "$" in block):
            run_script(kind, block, folder)
        elif kind == "sh":
            for words in lines(block):
                run_line(words, page.name, folder)
        elif page.name not in ELSEWHERE:
            done = processes.run(processes.code, block, folder=folder)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
    CHECK.get(page.name, lambda _: None)(folder)


def test_a_page_whose_python_is_run_elsewhere_is_named_there() -> None:
    for page, module in ELSEWHERE.items():
        text = (ROOT / module).read_text()
        assert page in text, f"{module} does not read docs/{page}"


def test_there_is_no_other_kind_of_code_block() -> None:
    for page in PAGES:
        kinds = {*re.findall(r"^```(\w+)", page.read_text(), re.MULTILINE)}
        assert kinds <= {"python", "sh", "make", "json"}, page.name


def test_what_is_only_parsed_is_on_its_page() -> None:
    for page, word in PARSED:
        assert word in (ROOT / "docs" / page).read_text()
