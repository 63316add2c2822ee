"""Every layout of docs/files.md gives the same tokens, again and again, in pieces, without its padding."""

import re
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch

import autopsae
from autopsae.activations.spread import spread
from autopsae.activations.store import open_activations, open_layers
from autopsae.arrays import CHUNK_TOKENS
from tests.activations.layouts import BATCHED, D_IN, LAYOUTS, LENGTH, SEQUENCES, TOKENS, WITH_SEQUENCES, X

Layout = Callable[[Path], Path]


def name(layout: Layout) -> str:
    return layout.__name__


@pytest.fixture(scope="module")
def plain() -> autopsae.Diagnosis:
    return autopsae.diagnose(X, d_sae=64, k=4)


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_the_same_tokens_are_read_from_every_layout(tmp_path: Path, layout: Layout) -> None:
    layer = open_activations(layout(tmp_path), "x")
    assert (layer.layer, layer.tokens, layer.d_in, layer.dtype) == ("x", TOKENS, D_IN, torch.float32)
    for _ in range(2):
        assert torch.equal(torch.cat(list(layer)), X)
    thinned = torch.cat(list(layer.take(37)))
    assert torch.equal(thinned, X[spread(0, TOKENS, chosen=37, of=TOKENS)])


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_every_layout_gives_the_same_diagnosis(tmp_path: Path, layout: Layout, plain: autopsae.Diagnosis) -> None:
    read = autopsae.diagnose(open_activations(layout(tmp_path), "x"), d_sae=64, k=4)
    assert {name: birth.dead for name, birth in read.birth.items()} == {
        name: birth.dead for name, birth in plain.birth.items()
    }
    assert read.severity.gamma == pytest.approx(plain.severity.gamma, rel=1e-12)
    assert read.prescription.remedy.name == plain.prescription.remedy.name


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_passes_at_the_same_time_do_not_disturb_each_other(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autopsae.activations.store.CHUNK_TOKENS", 64)
    training, held_out = open_activations(layout(tmp_path), "x").split(100)
    passes = zip_longest(training, held_out, training, fillvalue=X[:0])
    first, second, third = (torch.cat(batches) for batches in zip(*passes, strict=True))
    assert torch.equal(first, third)
    places = spread(0, TOKENS, chosen=100, of=TOKENS)
    assert torch.equal(second, X[places])
    assert torch.equal(first, X[[t for t in range(TOKENS) if t not in places]])


@pytest.mark.parametrize("layout", WITH_SEQUENCES, ids=name)
@pytest.mark.parametrize("how", ["lengths", "mask", "flat mask", "0 and 1", "tensor"])
def test_padding_is_left_out(tmp_path: Path, layout: Layout, how: str) -> None:
    lengths = np.random.default_rng(0).integers(0, LENGTH + 1, SEQUENCES)
    mask = np.arange(LENGTH) < lengths[:, None]
    given = {
        "lengths": {"lengths": lengths},
        "mask": {"mask": mask},
        "flat mask": {"mask": mask.reshape(-1)},
        "0 and 1": {"mask": mask.astype(np.int64)},
        "tensor": {"mask": torch.from_numpy(mask)},
    }[how]
    (tmp_path / "data").mkdir()
    layer = open_activations(layout(tmp_path / "data"), "x", **given)  # type: ignore[arg-type]
    assert layer.tokens == lengths.sum()
    assert torch.equal(torch.cat(list(layer)), BATCHED[torch.from_numpy(mask)])
    assert torch.equal(
        torch.cat(list(layer.take(50))),
        BATCHED[torch.from_numpy(mask)][spread(0, layer.tokens, chosen=50, of=layer.tokens)],
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=name)
def test_a_mask_goes_with_every_layout(tmp_path: Path, layout: Layout) -> None:
    mask = torch.rand(TOKENS, generator=torch.Generator().manual_seed(0)) < 0.3
    (tmp_path / "data").mkdir()
    torch.save(mask, tmp_path / "mask.pt")
    layers = open_layers(layout(tmp_path / "data"), ["x"], mask=tmp_path / "mask.pt")
    assert torch.equal(torch.cat(list(layers["x"])), X[mask])


def test_every_layout_stands_in_the_table_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    [table] = re.findall(r"\| file or folder \|.*?\n\n", page, flags=re.DOTALL)
    tests = {test for row in table.strip().splitlines() for test in re.findall(r"`(\w+)`", row.split("|")[-2])}
    assert {name(layout) for layout in LAYOUTS} == {test for test in tests if not test.startswith("test_")}


def test_a_large_source_is_read_in_chunks(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3 * CHUNK_TOKENS + 5, 3)).astype("f4")
    np.savez_compressed(tmp_path / "x.npz", x=rows)
    assert [len(batch) for batch in open_activations(tmp_path / "x.npz")] == [CHUNK_TOKENS] * 3 + [5]
    mask = np.zeros(len(rows), dtype=bool)
    mask[[0, CHUNK_TOKENS - 1, CHUNK_TOKENS, 3 * CHUNK_TOKENS + 4]] = True
    assert torch.equal(
        torch.cat(list(open_activations(tmp_path / "x.npz", mask=mask))), torch.from_numpy(rows[mask])
    )
