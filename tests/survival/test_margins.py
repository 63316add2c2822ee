import pytest
import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.init import draw_rows
from autopsae.sae.shared_product import SharedProduct
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.survival.forecast import forecast_births
from autopsae.survival.margins import Sampled, margins, margins_if_silent, margins_of_centered

SPARSITIES = [
    TopK(k=8),
    TopK(k=1024),  # over an eighth of the latents: nothing is screened
    TopK(k=2048),
    BatchTopK(k=8),
    BatchTopK(k=2048),
    JumpReLU(start=15.0),
    ReLU(),
    GroupMax(k=32),
]
D_IN, D_SAE = 128, 2048  # behind a screen where there is one


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows() -> torch.Tensor:
    return draw_rows(D_SAE, D_IN, generator=generator())


@pytest.mark.parametrize("first", [64, 100, D_SAE])
@pytest.mark.parametrize("sparsity", SPARSITIES, ids=str)
def test_the_margins_of_the_first_latents_are_those_among_all(sparsity: Sparsity, first: int) -> None:
    W, b_enc = rows(), torch.randn(D_SAE, generator=generator(1))
    x = gaussian_tokens(200, D_IN, 2.0, generator=generator(2)).float()
    x[50] = 0
    pre = x @ W.T + b_enc
    expected = sparsity.margins(pre)
    product = SharedProduct(W)
    product.multiply(x)
    of_all = product.with_bias(b_enc)
    found, fired = sparsity.margins_of_first(of_all, pre[:, :first].T.contiguous())
    torch.testing.assert_close(found, expected[:, :first].T, rtol=1e-4, atol=1e-4)
    assert torch.equal(fired, (expected > 0).any(dim=0))
    assert torch.equal(of_all.positive[0], (pre > 0).any(dim=0))
    if not sparsity.judges_batches:  # whose smallest margin is zero but for rounding
        assert torch.equal(found > 0, expected[:, :first].T > 0)


def test_latents_that_tie_for_the_last_place_do_not_fire() -> None:
    W = rows()
    W[:20] = W[0]  # twenty that are equal, of which eight would be selected
    x = 10 * W[:1] + 0.01
    product = SharedProduct(W)
    product.multiply(x)
    margin, fired = TopK(k=8).margins_of_first(product.with_bias(torch.zeros(D_SAE)), (x @ W.T).T)
    assert not bool(fired.any())
    assert float(margin.max()) == 0


@pytest.mark.parametrize("offset", [3.0, 3e4])
@pytest.mark.parametrize("sparsity", [TopK(k=8), JumpReLU(start=15.0), GroupMax(k=32)], ids=lambda s: s.name)
def test_one_product_for_all_centres_gives_the_margins_of_each_alone(sparsity: Sparsity, offset: float) -> None:
    sample = gaussian_tokens(600, D_IN, offset, generator=generator(1)).double()
    mean = sample.mean(dim=0)
    sample[:7] = 0  # at the centre of the first, and far from that of the others
    sample[7:10] = mean
    remedies = [untouched(D_IN), center(1.1 * mean, "mean"), center(mean, "median")]
    views = [remedy.enters(sample) for remedy in remedies]
    W = rows()
    together = margins_of_centered(views, [view.seen for view in views], W, sparsity, followed=256)
    for view, found in zip(views, together, strict=True):
        assert found is not None
        alone = margins(view.seen, W, sparsity, followed=256)
        assert torch.equal(found.order, alone.order)
        torch.testing.assert_close(found.pre, alone.pre, rtol=0, atol=2e-5)
        torch.testing.assert_close(found.over, alone.over, rtol=0, atol=2e-5)
        assert found.silent == pytest.approx(alone.silent, abs=1.5 / D_SAE)
        assert found.never_positive == pytest.approx(alone.never_positive, abs=1.5 / D_SAE)


@pytest.mark.parametrize("sparsity", [TopK(k=8), ReLU()], ids=lambda s: s.name)
def test_asked_only_if_some_are_silent_the_margins_are_the_same_or_none(sparsity: Sparsity) -> None:
    W, mean = rows(), 40 * torch.ones(D_IN).double()
    for offset, all_fire in ((0.0, True), (40.0, False)):
        sample = torch.randn(4000, D_IN, generator=generator(1)).double() + offset
        views = [untouched(D_IN).enters(sample), center(mean, "mean").enters(sample)]
        seen = [view.seen for view in views]
        alone = [margins(y, W, sparsity, followed=256) for y in seen]
        assert (alone[0].silent == 0) == all_fire
        for y, whole in zip(seen, alone, strict=True):
            _assert_same(margins_if_silent(y, W, sparsity, followed=256), whole)
        asked = margins_of_centered(views, seen, W, sparsity, followed=256, if_silent={0})
        in_any_case = margins_of_centered(views, seen, W, sparsity, followed=256)
        assert in_any_case[0] is not None
        _assert_same(asked[0], in_any_case[0])
        assert asked[1] is not None
        assert in_any_case[1] is not None
        assert torch.equal(asked[1].over, in_any_case[1].over)


def _assert_same(found: Sampled | None, whole: Sampled) -> None:
    if whole.silent == 0:
        assert found is None
        return
    assert found is not None
    assert torch.equal(found.over, whole.over)
    assert (found.silent, found.never_positive) == (whole.silent, whole.never_positive)


def test_a_token_at_a_centre_makes_no_latent_positive_there() -> None:
    sample = 5 + torch.randn(100, D_IN, generator=generator(1)).double()
    sample[:50] = 0
    W = rows()
    views = [untouched(D_IN).enters(sample), center(sample[50:].mean(dim=0), "mean").enters(sample)]
    at_zero, _ = margins_of_centered(views, [view.seen for view in views], W, TopK(k=8), followed=D_SAE)
    assert at_zero is not None
    assert bool((at_zero.pre[:, at_zero.order < 50] == 0).all())


def test_a_forecast_is_the_same_whatever_else_is_forecast_beside_it() -> None:
    x = gaussian_tokens(4000, D_IN, 3.0, generator=generator(3))
    remedies = [untouched(D_IN), center(0.5 * x.double().mean(dim=0), "mean")]
    together = forecast_births(x, remedies, TopK(k=8), d_sae=D_SAE, generator=generator())
    for remedy in remedies:
        alone = forecast_births(x, [remedy], TopK(k=8), d_sae=D_SAE, generator=generator())[remedy.name]
        assert together[remedy.name].dead(10**6).value == pytest.approx(alone.dead(10**6).value, abs=1e-4)
        assert together[remedy.name].dominance == pytest.approx(alone.dominance, rel=1e-5)
