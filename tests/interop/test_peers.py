"""The libraries themselves say what is right: their SAEs through ours, and back to any of them."""

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from autopsae.interop.convert import load_sae, save_sae
from autopsae.remedies.remedy import whiten
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum

D_IN, D_SAE, K = 12, 40, 4
TOLERANCE = 1e-5


class Case(NamedTuple):
    """An SAE of one library: what makes it, and what ours must take it for."""

    library: str
    arguments: tuple[str, ...]
    settings: dict[str, Any]
    sparsity: type

    def __str__(self) -> str:
        return " ".join([self.library, *self.arguments, *(f"{k}={v}" for k, v in self.settings.items())])


def saelens(architecture: str, sparsity: type, **settings: Any) -> Case:
    return Case("saelens", (architecture,), settings, sparsity)


WAYS: list[dict[str, Any]] = [
    {},
    {"apply_b_dec_to_input": False},
    {"normalize_activations": "expected_average_only_in"},
    {"normalize_activations": "covariance_whitening"},
    {"normalize_activations": "layer_norm"},
    {"normalize_activations": "layer_norm", "apply_b_dec_to_input": False},
    {"dtype": "float64"},
]
CASES = [saelens(name, kind, **way) for name, kind in [("standard", ReLU), ("jumprelu", JumpReLU)] for way in WAYS]
CASES += [
    saelens("topk", TopK, k=K, rescale_acts_by_decoder_norm=by, **way) for by in (False, True) for way in WAYS
]
CASES += [
    Case("dictionary_learning", ("AutoEncoder",), {}, ReLU),
    Case("dictionary_learning", ("AutoEncoderTopK",), {"k": K}, TopK),
    Case("dictionary_learning", ("BatchTopKSAE",), {"k": K, "threshold": 0.4}, BatchTopK),
    Case("dictionary_learning", ("JumpReluAutoEncoder",), {}, JumpReLU),
    Case("sparsify", ("topk",), {"k": K}, TopK),
    Case("sparsify", ("groupmax",), {"k": K}, GroupMax),
]


@pytest.fixture(scope="module")
def peers() -> Any:
    """The libraries, imported when a test wants them: it takes a while."""
    for name in ("sae_lens", "sparsify", "dictionary_learning", "zstandard"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; make test installs it")
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # read at import: Triton cannot decode CPU tensors
    return importlib.import_module("tests.interop.peers")


def tokens(dtype: torch.dtype = torch.float32, d_in: int = D_IN) -> Tensor:
    """With a mean that dominates, as real layers have it, and every token of a norm of its own."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(50, d_in, generator=generator) + torch.randn(d_in, generator=generator)
    return (x * (1 + torch.rand(50, 1, generator=generator))).to(dtype)


def assert_same(found: Tensor, expected: Tensor) -> None:
    """To `TOLERANCE`, of the largest value where that is over 1."""
    largest = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= TOLERANCE * largest
    assert bool(expected.any())


def make(peers: Any, case: Case, folder: Path, *, d_sae: int = D_SAE) -> Any:
    return getattr(peers, f"make_{case.library}")(folder, D_IN, d_sae, *case.arguments, **case.settings)


def dtype_of(case: Case) -> torch.dtype:
    return torch.float64 if case.settings.get("dtype") == "float64" else torch.float32


def tokens_for(case: Case) -> Tensor:
    # Where SAELens adds 1e-5 to the spread of a token, it must be large for that not to be seen.
    is_normed = case.settings.get("normalize_activations") == "layer_norm"
    return tokens(dtype_of(case)) * (10 if is_normed else 1)


def targets(sae: SAE) -> list[str]:
    if sae.layer_norm:
        return [] if isinstance(sae.sparsity, GroupMax) else ["saelens"]
    return {GroupMax: ["sparsify"], TopK: ["saelens", "dictionary_learning", "sparsify"]}.get(
        type(sae.sparsity), ["saelens", "dictionary_learning"]
    )


@torch.no_grad()
@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_sae_of_one_library_is_the_same_in_ours_and_in_all_that_can_express_it(
    tmp_path: Path, peers: Any, case: Case, square: bool
) -> None:
    x = tokens_for(case)
    codes, reconstructions = make(peers, case, tmp_path / "made", d_sae=D_IN if square else D_SAE)(x)
    ours = load_sae(tmp_path / "made")
    assert isinstance(ours.sparsity, case.sparsity)
    assert ours.W_enc.dtype == dtype_of(case)
    assert_same(ours.encode(x), codes)
    assert_same(ours(x), reconstructions)
    for to in targets(ours):
        save_sae(ours, tmp_path / to, to=to)
        again, there = peers.LOADERS[to](tmp_path / to)(x.to(torch.float32) if to == "dictionary_learning" else x)
        # dictionary_learning normalises the decoder of a ReLU SAE when it loads it.
        factor = ours.W_dec.norm(dim=1) if (to, case.sparsity) == ("dictionary_learning", ReLU) else 1
        assert_same(again, codes * factor)
        assert_same(there, reconstructions)
        returned = load_sae(tmp_path / to)
        assert_same(returned.encode(x), codes * factor)
        assert_same(returned(x), reconstructions)


@torch.no_grad()
@pytest.mark.parametrize(
    "normalization", ["none", "expected_average_only_in", "covariance_whitening", "layer_norm"]
)
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("topk", {"k": K}),
        ("topk", {"k": K, "rescale_acts_by_decoder_norm": False}),
        ("batchtopk", {"k": float(K)}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("jumprelu", {}),
    ],
    ids=str,
)
def test_checkpoints_of_saelens_training_take_raw_tokens_before_and_after_folding(
    tmp_path: Path, peers: Any, architecture: str, settings: dict[str, Any], normalization: str
) -> None:
    x = tokens() * 10
    with torch.enable_grad():
        folders = peers.train_saelens(
            tmp_path / "run", x, D_SAE, architecture, normalize_activations=normalization, **settings
        )
    for folder in folders:
        codes, reconstructions = peers.load_checkpoint(folder, tmp_path / f"inference {folder.name}")(x)
        ours = load_sae(folder)
        assert ours.sparsity.name == {"batchtopk": "batch_topk", "standard": "relu"}.get(architecture, architecture)
        assert_same(ours.encode(x), codes)
        assert_same(ours(x), reconstructions)
        save_sae(ours, tmp_path / f"out {folder.name}", to="saelens", hook_name="blocks.0")
        codes, reconstructions = peers.load_saelens(tmp_path / f"out {folder.name}")(x)
        assert_same(ours.encode(x), codes)
        assert_same(ours(x), reconstructions)
    folded = load_sae(folders[1])
    assert (folded.scale == 1 and folded.linear is None) or normalization == "layer_norm"


@torch.no_grad()
@pytest.mark.parametrize("layer_norm", [False, True], ids=["raw", "layer_norm"])
@pytest.mark.parametrize("sparsity", [TopK(k=K), BatchTopK(k=K), GroupMax(k=K), ReLU(), JumpReLU()], ids=str)
def test_an_sae_of_ours_with_everything_on_is_the_same_in_all_that_can_express_it(
    tmp_path: Path, peers: Any, sparsity: Sparsity, layer_norm: bool
) -> None:
    """A whitening, a scale, no encoder bias: what other libraries do not store is in the weights."""
    x = tokens() * 10
    statistics = collect(x)
    remedy = whiten(Spectrum.of(statistics.raw.covariance), statistics.raw.mean, alpha=0.5)
    drawn = torch.Generator().manual_seed(0)
    sae = born(
        remedy, d_sae=D_SAE, sparsity=sparsity, sample=x, generator=drawn, layer_norm=layer_norm, encoder_bias=False
    )
    sae.W_dec.add_(0.3 * torch.randn(D_SAE, D_IN, generator=drawn))
    sae.b_dec.add_(0.1)
    if isinstance(sparsity, BatchTopK):
        # A threshold that is no token's own value.
        sae.learn(sae.select(sae.enter(0.9 * x)[0]))
    sae.eval()
    for to in targets(sae):
        save_sae(sae, tmp_path / to, to=to)
        codes, reconstructions = peers.LOADERS[to](tmp_path / to)(x)
        norms = sae.fold().W_dec.norm(dim=1) if (to, sparsity) == ("dictionary_learning", ReLU()) else 1
        assert_same(codes, sae.encode(x) * norms)
        assert_same(reconstructions, sae(x))
