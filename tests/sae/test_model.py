import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.screen import PRODUCTS
from autopsae.modules import evaluation_mode
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.sae.death import Watch, fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth
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


@pytest.mark.parametrize("sparsity", [TopK(k=K), GroupMax(k=K), BatchTopK(k=K), ReLU(), JumpReLU()], ids=str)
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
    sae = born(remedies(x)[1], d_sae=D_SAE, sparsity=TopK(k=K), scaled=False, generator=generator())
    assert sae.scale == 1.0
    assert torch.allclose(sae.b_dec, x.mean(dim=0).float())


def test_a_born_sae_dies_as_the_diagnosis_measured(x: torch.Tensor) -> None:
    measured = measure_birth(x, remedies(x), d_sae=D_SAE, k=K, generator=generator(4))
    for remedy in remedies(x):
        sae = born(remedy, d_sae=D_SAE, sparsity=TopK(k=K), sample=x, generator=generator(4))
        found, expected = fates(sae, x), measured[remedy.name]
        assert found.dead == pytest.approx(expected.dead, abs=1.5 / D_SAE), remedy.name
        assert found.dead_by_relu == pytest.approx(expected.dead_by_relu, abs=1.5 / D_SAE), remedy.name


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
    assert found.dead == pytest.approx(found.dead_by_relu + found.dead_by_topk)


def test_selected_zeros_do_not_fire() -> None:
    sae = SAE(W_enc=torch.eye(4), W_dec=torch.eye(4), b_dec=torch.zeros(4), sparsity=TopK(k=3))
    found = fates(sae, torch.tensor([[1.0, 0.0, 0.0, -1.0], [2.0, 0.0, 0.0, -1.0]]))
    assert found.fired.tolist() == [2, 0, 0, 0]
    assert found.positive.tolist() == [True, False, False, False]


def test_the_watch_counts_tokens_since_each_event() -> None:
    sae = SAE(W_enc=torch.eye(3), W_dec=torch.eye(3), b_dec=torch.zeros(3), sparsity=TopK(k=1))
    watch = Watch(3, dead_after_tokens=[6])
    for row in ([3.0, 1.0, -1.0], [2.0, -1.0, -1.0], [1.0, -1.0, -1.0]):
        watch.see(sae.select(torch.tensor([row, row])))
    assert watch.since_fired.tolist() == [[0, 6, 6]]
    assert watch.since_positive.tolist() == [[0, 4, 6]]
    assert watch.is_dead.tolist() == [[False, True, True]]
    assert watch.is_dead_by_relu.tolist() == [[False, False, True]]
    assert watch.silent(for_tokens=torch.tensor([7])).tolist() == [[False, False, False]]
    columns = watch.columns(6)
    assert [*columns["dead"], *columns["dead_by_relu"], *columns["dead_by_topk"]] == pytest.approx(
        [2 / 3, 1 / 3, 1 / 3]
    )
    assert columns["never_fired"] == pytest.approx([2 / 3])
    early = watch.columns(5)
    assert [early[name] for name in ("dead", "dead_by_relu", "dead_by_topk", "dead_tokens")] == [[None]] * 4
    assert early["never_fired"] == columns["never_fired"]


def test_the_watch_tells_who_died_and_who_came_back_from_what() -> None:
    sae = SAE(W_enc=torch.eye(4), W_dec=torch.eye(4), b_dec=torch.zeros(4), sparsity=TopK(k=1))
    each, summed = Watch(4, dead_after_tokens=[2]), Watch(4, dead_after_tokens=[2])
    history = []
    for row in (
        [3.0, 1.0, -1.0, -1.0],  # 1 loses, 2 and 3 are negative
        [3.0, 1.0, -1.0, -1.0],  # now all three are dead
        [3.0, 4.0, -1.0, -1.0],  # 1 comes back from TopK
        [3.0, -1.0, 4.0, -1.0],  # 2 comes back from ReLU, and 0 dies
        [3.0, 1.0, 1.0, 1.0],  # 0 comes back from TopK, 1 dies
    ):
        for watch in (each, summed):
            watch.see(sae.select(torch.tensor([row])))
        history.append(told(each))
        each.restart_counts()
    assert history == [[0, 0, 0], [3, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1]]
    assert told(summed) == [5, 1, 2]
    assert told(summed) == [5, 1, 2]  # to be asked changes nothing
    summed.restart_counts()
    assert told(summed) == [0, 0, 0]


def told(watch: Watch) -> list[float | None]:
    columns = watch.columns(10**6)
    return [columns[name][0] for name in ("died", "revived_from_relu", "revived_from_topk")]


def test_the_watch_keeps_members_apart_each_with_its_own_patience() -> None:
    """Two members over the same three latents: what one does, and how long it waits, is nothing to the other."""
    watch = Watch(3, dead_after_tokens=[1, 2])
    for of_first, of_second in (([0], [2]), ([1], [2]), ([1], [0])):
        latents = torch.tensor([*of_first, *(3 + i for i in of_second)])
        pairs = Pairs(latents=latents, per_token_counts=torch.tensor([1, 1]), d_sae=3, members=2)
        positive = torch.zeros(6, dtype=torch.bool)
        positive[latents] = True
        positive[5] = True  # latent 2 of the second member is positive all along
        watch.see(Selection(values=torch.ones(2), pairs=pairs, positive=positive))
    assert watch.since_fired.tolist() == [[2, 0, 3], [0, 3, 1]]
    assert watch.is_dead.tolist() == [[True, False, True], [False, True, False]]
    assert watch.is_dead_by_relu.tolist() == [[True, False, True], [False, True, False]]
    columns = watch.columns(3)
    assert columns["dead"] == columns["dead_by_relu"] == pytest.approx([2 / 3, 1 / 3])
    assert columns["dead_tokens"] == [1, 2]
    assert columns["never_fired"] == pytest.approx([1 / 3, 1 / 3])
    # First: 1 and 2 at once, then 0; 1 returned. Second: 0 and 1 in the second step; 0 returned.
    assert (columns["died"], columns["revived_from_relu"], columns["revived_from_topk"]) == ([3, 2], [1, 1], [0, 0])
    watch.forget(1, torch.tensor([1]))
    assert watch.since_fired.tolist() == [[2, 0, 3], [0, 0, 1]]
    assert watch.ever_fired.tolist() == [[True, True, False], [True, False, True]]  # drawn afresh is not fired
    watch.keep(torch.tensor([1]))
    assert watch.since_fired.tolist() == [[0, 0, 1]]
    assert watch.ever_fired.tolist() == [[True, False, True]]
    assert watch.is_dead.tolist() == [[False] * 3]


@pytest.mark.parametrize("k", [1, K, 30, D_SAE])
def test_batch_topk_takes_the_largest_of_the_batch_that_are_positive(x: torch.Tensor, k: int) -> None:
    sae = make(x, remedies(x)[1], BatchTopK(k=k))
    y, _ = sae.enter(x)
    pre = sae.pre_activations(y).detach()
    best = torch.zeros(pre.numel(), dtype=torch.bool)
    best[pre.flatten().topk(k * len(x)).indices] = True
    expected = pre.where(best.view_as(pre), 0).relu()
    assert torch.allclose(sae.encode(x), expected, atol=1e-12)


def test_batch_topk_takes_the_largest_even_if_a_few_huge_tokens_hold_them(x: torch.Tensor) -> None:
    x = torch.cat([x, 1000 * x[:24]])[torch.randperm(len(x) + 24, generator=generator())]
    test_batch_topk_takes_the_largest_of_the_batch_that_are_positive(x, K)


def test_batch_topk_learns_in_training_the_threshold_by_which_evaluation_judges_a_token_alone(
    x: torch.Tensor,
) -> None:
    def smallest_that_fires(tokens: torch.Tensor) -> float:
        selection = sae.select(sae.enter(tokens)[0])
        sae.learn(selection)
        values = selection.values.detach()
        return float(values[values > 0].min())

    def threshold() -> float:
        assert sae.threshold is not None
        return float(sae.threshold)

    sae = make(x, remedies(x)[1], BatchTopK(k=K))
    assert sae.threshold is None
    first = smallest_that_fires(x)
    assert threshold() == first
    with evaluation_mode(sae):
        codes = sae.encode(x).detach()
        assert torch.allclose(codes[:3], sae.encode(x[:3]))
        assert float(codes[codes > 0].min()) > first
    second = smallest_that_fires(x[:200])
    assert threshold() == pytest.approx(first + 0.01 * (second - first))


def test_a_selection_changes_nothing_in_training_mode_either(x: torch.Tensor) -> None:
    sae = make(x, remedies(x)[1], BatchTopK(k=K))
    sae.learn(sae.select(sae.enter(x)[0]))
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    for training in (True, False):
        sae.train(training)
        sae.select(sae.enter(x[:100])[0])
        sae.encode(x[:100])
        sae(x[:100])
        assert all(torch.equal(tensor, before[name]) for name, tensor in sae.state_dict().items())


def test_relu_fires_where_positive_and_jumprelu_over_its_thresholds_with_full_values(x: torch.Tensor) -> None:
    for remedy in remedies(x):
        sae = make(x, remedy, ReLU(), bias=True)
        pre = sae.pre_activations(sae.enter(x)[0])
        assert torch.allclose(sae.encode(x), pre.relu(), atol=1e-12)
        jump = make(x, remedy, JumpReLU(bandwidth=0.5), bias=True)
        with torch.no_grad():
            assert jump.owned["log_threshold"] is not None
            jump.owned["log_threshold"].uniform_(-3, 1, generator=generator())
        pre = jump.pre_activations(jump.enter(x)[0])
        assert jump.threshold is not None
        assert torch.allclose(jump.encode(x), pre.where(pre > jump.threshold, 0), atol=1e-12)


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("sparsity", [ReLU(), JumpReLU(), TopK(k=K)], ids=str)
def test_a_firing_rate_is_met_by_every_latent_at_birth(x: torch.Tensor, rate: float, sparsity: Sparsity) -> None:
    for remedy in remedies(x):
        drawn = {"generator": generator(), "sample": x, "dtype": torch.float64}
        sae = born(remedy, d_sae=D_SAE, sparsity=sparsity, firing_rate=rate, **drawn)  # type: ignore[arg-type]
        found = fates(sae, x)
        fired = found.fired if sparsity != TopK(k=K) else (sae.pre_activations(sae.enter(x)[0]) > 0).sum(dim=0)
        assert torch.allclose(fired.double() / len(x), torch.full((D_SAE,), rate).double(), atol=1.5 / len(x)), (
            remedy.name
        )


def test_layer_norm_is_undone_on_the_way_out_and_cannot_be_folded(x: torch.Tensor) -> None:
    normed = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, unbiased=False)
    seen = born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=K), sample=normed, generator=generator())
    sae = born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=K), sample=x, generator=generator(), layer_norm=True)
    assert torch.allclose(sae.encode(x), seen.encode(normed), atol=1e-5)
    back = seen(normed) * x.std(dim=1, keepdim=True, unbiased=False) + x.mean(dim=1, keepdim=True)
    assert torch.allclose(sae(x).double(), back, atol=1e-4)
    assert torch.allclose(sae.encode(7 * x + 5), sae.encode(x), atol=1e-4)
    with pytest.raises(InputError, match="fold: expected an affine SAE"):
        sae.fold()
    with pytest.raises(InputError, match="decode: expected an SAE without layer_norm"):
        sae.decode(sae.encode(x))


@pytest.mark.parametrize("sparsity", [TopK(k=K), GroupMax(k=K), BatchTopK(k=K), ReLU(), JumpReLU()], ids=str)
def test_what_is_selected_does_not_depend_on_the_products(x: torch.Tensor, sparsity: Sparsity) -> None:
    sae = make(x, remedies(x)[1], sparsity, bias=True).float()
    y, _ = sae.enter(x.float())
    first, *others = [sae.select(y, products=products) for products in PRODUCTS[1:]]
    for other in others:
        assert torch.equal(other.pairs.latents, first.pairs.latents)
        assert torch.equal(other.values, first.values)
        assert torch.equal(other.positive, first.positive)
    pre = sae.pre_activations(y).detach()
    fired = first.values > 0
    assert torch.allclose(first.values[fired], pre[first.pairs.tokens, first.pairs.latents][fired], rtol=1e-5)


@pytest.mark.parametrize("sparsity", [TopK(k=K), BatchTopK(k=K), ReLU(), JumpReLU(bandwidth=0.3)], ids=str)
def test_a_saved_sae_is_the_same_when_loaded(tmp_path: Path, x: torch.Tensor, sparsity: Sparsity) -> None:
    for remedy in remedies(x):
        sae = make(x, remedy, sparsity, bias=remedy.name == "mean")
        sae.learn(sae.select(sae.enter(x)[0]))  # BatchTopK's threshold
        sae.save(tmp_path / remedy.name)
        loaded = SAE.load(tmp_path / remedy.name)
        assert loaded.sparsity == sparsity
        assert not loaded.training
        with evaluation_mode(sae):
            assert torch.equal(loaded.encode(x), sae.encode(x))
            assert torch.equal(loaded(x), sae(x))
        assert all(torch.equal(loaded.state_dict()[name], value) for name, value in sae.state_dict().items())


def test_files_that_are_no_sae_are_refused(tmp_path: Path, x: torch.Tensor) -> None:
    make(x, remedies(x)[0], TopK(k=K)).save(tmp_path / "s")
    text = json.loads((tmp_path / "s.json").read_text())
    (tmp_path / "s.json").write_text(json.dumps({**text, "d_sae": 7}))
    with pytest.raises(InputError, match="other content than its checksum says"):
        SAE.load(tmp_path / "s")
    (tmp_path / "s.json").write_text(json.dumps({**text, "sparsity": {"name": "topq", "k": 1}}))
    with pytest.raises(
        InputError, match=r"sparsity\.name: expected batch_topk or groupmax or jumprelu or relu or topk, got 'topq'"
    ):
        SAE.load(tmp_path / "s")
    with pytest.raises(InputError, match="expected a saved autopsae-sae, could not read it"):
        SAE.load(tmp_path / "nothing")


def test_bad_sizes_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected 1 <= k <= d_sae = 80, got k = 81"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=81), sample=x, generator=generator())
    with pytest.raises(InputError, match=r"expected a sample \[tokens, d_in = 12\], got shape \(4, 3\)"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=1), sample=torch.zeros(4, 3), generator=generator())
    with pytest.raises(InputError, match=r"expected a firing_rate between 0 and 1 and a sample .*, got no sample"):
        born(untouched(4), d_sae=9, sparsity=ReLU(), scaled=False, generator=generator(), firing_rate=0.1)
    with pytest.raises(InputError, match=r"expected bandwidth > 0, got 0.0"):
        born(untouched(4), d_sae=9, sparsity=JumpReLU(bandwidth=0.0), scaled=False, generator=generator())
    with pytest.raises(InputError, match="whose median token is not zero"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=1), sample=torch.zeros(4, 12), generator=generator())


def test_what_fires_counts_as_positive_even_if_bfloat16_did_not_see_it() -> None:
    W = torch.tensor([[1.001, -1.0]])
    sae = SAE(W_enc=W, W_dec=W, b_dec=torch.zeros(2), sparsity=TopK(k=1))
    selection = sae.select(torch.ones(3, 2), products="bfloat16")
    assert bool((selection.values > 0).all())
    assert selection.positive.tolist() == [True]


def test_weights_that_do_not_fit_together_are_refused() -> None:
    weights = {"W_enc": torch.eye(4), "W_dec": torch.eye(4), "b_dec": torch.zeros(4)}
    with pytest.raises(InputError, match=r"expected threshold as a tensor of floats \[\] or \[4\], .*, got \[3\] "):
        SAE(**weights, sparsity=JumpReLU(), threshold=torch.ones(3))  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"expected a firing_rate of at least one token of the sample, got 0.001 of 5"
    ):
        born(
            untouched(4),
            d_sae=9,
            sparsity=ReLU(),
            sample=torch.randn(500, 4),
            generator=generator(),
            firing_rate=1e-3,
        )


@pytest.mark.parametrize("edges", [(1.0, 0.0), (0.1, 0.1), (0.0, 1.0, 0.5)])
def test_edges_of_firing_rates_that_do_not_rise_are_refused(edges: tuple[float, ...]) -> None:
    sae = born(untouched(4), d_sae=9, sparsity=TopK(k=2), scaled=False, generator=generator())
    with pytest.raises(InputError, match="by_rate: expected edges in rising order"):
        fates(sae, torch.randn(50, 4)).by_rate(edges)
