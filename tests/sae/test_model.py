import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.diagnosis.birth import measure_birth
from autopsae.diagnosis.diagnose import diagnose
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.sae.death import Watch, fates, firings
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum
from tests import oracles

D_IN, D_SAE, K = 12, 80, 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> torch.Tensor:
    spread = torch.randn(1500, D_IN, generator=generator(9), dtype=torch.float64)
    return spread * torch.logspace(0.5, -1.5, D_IN, dtype=torch.float64) + 3


def remedies(x: torch.Tensor) -> list[Remedy]:
    statistics = collect(x)
    spectrum, mean = Spectrum.of(statistics.raw.covariance), statistics.raw.mean
    return [
        untouched(D_IN),
        center(mean, "mean"),
        z_score(statistics.raw.std, mean),
        whiten(spectrum, mean, alpha=0.3),
        active_subspace(spectrum, mean, rank=3),
    ]


def make(x: torch.Tensor, remedy: Remedy, sparsity: Sparsity, *, bias: bool = False) -> SAE:
    sae = born(
        remedy,
        d_sae=D_SAE,
        sparsity=sparsity,
        sample=x,
        generator=generator(),
        encoder_bias=bias,
        dtype=torch.float64,
    )
    with torch.no_grad():  # leave the symmetric start: a trained SAE's decoder is not its encoder
        sae.W_dec.add_(0.3 * torch.randn(D_SAE, D_IN, generator=generator(1), dtype=torch.float64))
        sae.b_dec.add_(0.1)
        if sae.b_enc is not None:
            sae.b_enc.add_(0.05 * torch.randn(D_SAE, generator=generator(2), dtype=torch.float64))
    return sae


@pytest.mark.parametrize("sparsity", [TopK(k=K), BatchTopK(k=K), BatchTopK(k=K, threshold=0.8)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_fold_gives_the_same_codes_and_reconstructions_on_raw_activations(
    x: torch.Tensor, sparsity: Sparsity, bias: bool
) -> None:
    for remedy in remedies(x):
        sae = make(x, remedy, sparsity, bias=bias)
        folded = sae.fold()
        assert folded.scale == 1.0
        assert folded.linear is None
        assert torch.allclose(folded.encode(x), sae.encode(x), atol=1e-10), remedy.name
        assert torch.allclose(folded(x), sae(x), atol=1e-10), remedy.name


def test_forward_is_decode_of_encode_and_the_definition(x: torch.Tensor) -> None:
    sae = make(x, remedies(x)[3], TopK(k=K), bias=True)
    assert torch.allclose(sae(x), sae.decode(sae.encode(x)))
    y = sae.affine(x)
    assert sae.b_enc is not None
    pre = (y - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    kth = pre.topk(K, dim=1).values[:, -1:]
    codes = torch.where(pre >= kth, pre, 0).relu()
    assert torch.allclose(sae.encode(x), codes)
    assert torch.allclose(sae(x), sae.affine.invert(codes @ sae.W_dec + sae.b_dec))


def test_the_scale_makes_the_median_norm_the_root_of_the_width(x: torch.Tensor) -> None:
    for remedy in remedies(x):
        for factor in (1e-3, 1.0, 1e3):
            larger = replace(remedy, affine=Affine(center=remedy.affine.center * factor)) if factor != 1 else remedy
            if remedy.affine.linear is not None and factor != 1:
                continue
            sae = make(x * factor, larger, TopK(k=K))
            assert float(sae.affine(x * factor).norm(dim=1).median()) == pytest.approx(D_IN**0.5)


def test_without_a_sample_nothing_is_scaled(x: torch.Tensor) -> None:
    sae = born(remedies(x)[1], d_sae=D_SAE, sparsity=TopK(k=K), sample=None, generator=generator())
    assert sae.scale == 1.0
    assert torch.allclose(sae.b_dec, x.mean(dim=0).float())


def test_a_born_sae_dies_as_the_diagnosis_measured(x: torch.Tensor) -> None:
    measured = measure_birth(x, remedies(x), d_sae=D_SAE, k=K, generator=generator(4))
    for remedy in remedies(x):
        sae = born(remedy, d_sae=D_SAE, sparsity=TopK(k=K), sample=x, generator=generator(4))
        found, expected = fates(sae, x), measured[remedy.name]
        assert found.dead == pytest.approx(expected.dead, abs=1.5 / D_SAE), remedy.name
        assert found.relu == pytest.approx(expected.relu, abs=1.5 / D_SAE), remedy.name


def test_an_sae_is_born_from_a_saved_prescription(tmp_path: Path, x: torch.Tensor) -> None:
    diagnosis = diagnose(x, d_sae=D_SAE, k=K)
    diagnosis.prescription.save(tmp_path / "layer")
    loaded = type(diagnosis.prescription).load(tmp_path / "layer")
    saes = [
        born(p, d_sae=D_SAE, sparsity=TopK(k=K), sample=x, generator=generator())
        for p in (diagnosis.prescription, loaded)
    ]
    assert torch.equal(saes[0](x.float()), saes[1](x.float()))


def test_fates_equal_a_loop_over_tokens(x: torch.Tensor) -> None:
    sae = make(x, remedies(x)[0], TopK(k=K), bias=True)
    found = fates(sae, list(x.split(400)))
    assert sae.b_enc is not None
    pre = (sae.affine(x) - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    positive, fired = oracles.fates(pre.detach().numpy(), K)
    assert found.tokens == len(x)
    assert found.positive.tolist() == positive.tolist()
    assert (found.fired > 0).tolist() == fired.tolist()
    assert int(found.fired.sum()) == int((sae.encode(x) > 0).sum())
    assert found.dead == pytest.approx(found.relu + found.topk)


def test_selected_zeros_do_not_fire() -> None:
    sae = SAE(W_enc=torch.eye(4), W_dec=torch.eye(4), b_dec=torch.zeros(4), sparsity=TopK(k=3))
    found = fates(sae, torch.tensor([[1.0, 0.0, 0.0, -1.0], [2.0, 0.0, 0.0, -1.0]]))
    assert found.fired.tolist() == [2, 0, 0, 0]
    assert found.positive.tolist() == [True, False, False, False]


def test_the_watch_counts_tokens_since_each_event() -> None:
    sae = SAE(W_enc=torch.eye(3), W_dec=torch.eye(3), b_dec=torch.zeros(3), sparsity=TopK(k=1))
    watch = Watch(3, dead_after_tokens=6)
    for row in ([3.0, 1.0, -1.0], [2.0, -1.0, -1.0], [1.0, -1.0, -1.0]):
        watch.see(*sae.select(torch.tensor([row, row])))
    assert watch.since_fired.tolist() == [0, 6, 6]
    assert watch.since_positive.tolist() == [0, 4, 6]
    assert watch.dead.tolist() == [False, True, True]
    assert watch.dead_by_relu.tolist() == [False, False, True]
    assert watch.silent(for_tokens=7).tolist() == [False, False, False]


def test_the_watch_tells_who_died_and_who_came_back_from_what() -> None:
    sae = SAE(W_enc=torch.eye(4), W_dec=torch.eye(4), b_dec=torch.zeros(4), sparsity=TopK(k=1))
    watch = Watch(4, dead_after_tokens=2)
    history = []
    for row in (
        [3.0, 1.0, -1.0, -1.0],  # 1 loses, 2 and 3 are negative
        [3.0, 1.0, -1.0, -1.0],  # now all three are dead
        [3.0, 4.0, -1.0, -1.0],  # 1 comes back from TopK
        [3.0, -1.0, 4.0, -1.0],  # 2 comes back from ReLU, and 0 dies
        [3.0, 1.0, 1.0, 1.0],  # 0 comes back from TopK, 1 dies
    ):
        changes = watch.see(*sae.select(torch.tensor([row])))
        history.append((changes.died, changes.revived_from_relu, changes.revived_from_topk))
    assert history == [(0, 0, 0), (3, 0, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)]


def test_batch_topk_selects_k_per_token_on_average_and_by_threshold_alone(x: torch.Tensor) -> None:
    sae = make(x, remedies(x)[1], BatchTopK(k=K))
    values, pairs, pre = sae.select(sae.affine(x))
    assert len(pairs.latents) == K * len(x)
    smallest = float(pre[pairs.tokens, pairs.latents].min())
    assert int((pre > smallest).sum()) == K * len(x) - 1
    assert int(firings(values, pairs).sum()) == int((values > 0).sum())
    sae.sparsity = BatchTopK(k=K, threshold=smallest)
    assert torch.allclose(sae.encode(x)[:1], sae.encode(x[:1]))


@pytest.mark.parametrize("sparsity", [TopK(k=K), BatchTopK(k=K, threshold=0.8)], ids=str)
def test_a_saved_sae_is_the_same_when_loaded(tmp_path: Path, x: torch.Tensor, sparsity: Sparsity) -> None:
    for remedy in remedies(x):
        sae = make(x, remedy, sparsity, bias=remedy.name == "mean")
        sae.save(tmp_path / remedy.name)
        loaded = SAE.load(tmp_path / remedy.name)
        assert loaded.sparsity == sparsity
        assert torch.equal(loaded.encode(x), sae.encode(x))
        assert torch.equal(loaded(x), sae(x))


def test_files_that_are_no_sae_are_refused(tmp_path: Path, x: torch.Tensor) -> None:
    make(x, remedies(x)[0], TopK(k=K)).save(tmp_path / "s")
    text = json.loads((tmp_path / "s.json").read_text())
    (tmp_path / "s.json").write_text(json.dumps({**text, "d_sae": 7}))
    with pytest.raises(InputError, match=r"expected weights of shape \(7, 12\), got \(80, 12\)"):
        SAE.load(tmp_path / "s")
    with pytest.raises(InputError, match="expected a saved autopsae-sae, could not read it"):
        SAE.load(tmp_path / "nothing")


def test_bad_sizes_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected 1 <= k <= d_sae = 80, got k = 81"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=81), sample=x, generator=generator())
    with pytest.raises(InputError, match=r"expected a sample \[tokens, d_in = 12\], got shape \(4, 3\)"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=1), sample=torch.zeros(4, 3), generator=generator())
    with pytest.raises(InputError, match="whose median token is not zero"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=1), sample=torch.zeros(4, 12), generator=generator())
