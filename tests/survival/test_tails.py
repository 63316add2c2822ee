from itertools import combinations

import pytest
import torch
from scipy import stats

from autopsae.arrays import InputError
from autopsae.survival.tails import Margins, Tail, observe_tails

PARTS = 8


def parts(tokens: int) -> torch.Tensor:
    return torch.arange(tokens) * PARTS // tokens


def pareto(shape: float, chance: torch.Tensor, tokens: int) -> torch.Tensor:
    """Margins whose tails are generalised Pareto, shifted so that each latent's exceed zero with its `chance`."""
    tail = stats.genpareto(shape)
    margins = torch.from_numpy(tail.rvs(size=(len(chance), tokens), random_state=1))
    return (margins - torch.from_numpy(tail.isf(chance.numpy()))[:, None]).float()


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_death_far_beyond_the_sample_is_that_of_the_true_chances(shape: float) -> None:
    chance = torch.logspace(-7, -2, 3000, dtype=torch.float64)
    tail = observe_tails(pareto(shape, chance, 4096), parts(4096)).tail()
    # Where tails end (shape under zero), what lies 250 samples ahead hangs on where each latent's does.
    for tokens, tolerance in ((10_000, 0.01), (100_000, 0.03), (1_000_000, 0.1)):
        true = float(((1 - chance) ** tokens).mean())
        assert tail.silent(tokens) == pytest.approx(true, abs=tolerance), tokens
    assert tail.shape is not None
    # The common part; each latent adds a fifth of its own.
    assert 1.25 * tail.shape == pytest.approx(shape, abs=0.12)


def test_up_to_the_sample_death_is_the_mean_over_all_choices_of_tokens() -> None:
    fires = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)
    fired = fires.sum(dim=1)
    tail = Tail(
        fired=fired, chance=torch.zeros(3, dtype=torch.float64), tokens=6, fired_in=fired, groups=6, shape=0.0
    )
    for tokens in range(1, 7):
        chosen = [(~fires[:, list(c)].any(dim=1)).double().mean() for c in combinations(range(6), tokens)]
        assert tail.silent(tokens) == pytest.approx(float(torch.stack(chosen).mean()))


def test_the_chances_explain_how_many_were_silent_on_the_sample() -> None:
    found = observe_tails(pareto(0.1, torch.logspace(-6, -2, 1000, dtype=torch.float64), 2000), parts(2000))
    tail = found.tail()
    explained = float((-tail.chance * tail.tokens).exp().mean())
    assert explained == pytest.approx(float((tail.fired == 0).double().mean()), abs=1e-3)


def test_a_latent_that_fires_in_one_group_alone_does_not_change_the_fit_without_it() -> None:
    margins = pareto(0.0, torch.logspace(-6, -2, 300, dtype=torch.float64), 1600)
    margins[0] = -5
    margins[0, :100] = 1 + torch.rand(100, generator=torch.Generator().manual_seed(0))  # fires in the first group
    without = observe_tails(margins, parts(1600)).tails_without()[0]
    others = observe_tails(margins[1:], parts(1600)).tails_without()[0]
    # It is silent without its group, as is expected of a latent without a tail: one more on both sides.
    assert without.shape == pytest.approx(others.shape, abs=1e-6)
    assert without.chance[0] == 0


def test_death_only_falls_with_tokens_and_reaches_the_count_at_the_sample() -> None:
    margins = pareto(0.0, torch.logspace(-6, -2, 500, dtype=torch.float64), 1000)
    tail = observe_tails(margins, parts(1000)).tail()
    curve = [tail.silent(round(10**power)) for power in (0, 1, 2, 2.9, 3, 3.1, 4, 6, 8)]
    assert curve == sorted(curve, reverse=True)
    assert tail.silent(1000) == pytest.approx(float((margins <= 0).all(dim=1).double().mean()))


def test_the_unit_of_each_latents_margins_is_of_no_matter() -> None:
    margins = pareto(0.1, torch.logspace(-6, -2, 300, dtype=torch.float64), 1000)
    unit = torch.logspace(-6, 6, 300)[:, None]
    one, other = (observe_tails(m, parts(1000)).tail().silent(50_000) for m in (margins, margins * unit))
    assert one == pytest.approx(other, abs=1e-5)


def test_where_all_fire_nothing_is_extrapolated() -> None:
    tail = observe_tails(torch.rand(10, 200) + 0.1, parts(200)).tail()
    assert tail.shape is None
    assert tail.silent(200) == tail.silent(10**8) == 0


def test_where_nothing_comes_near_firing_all_stay_dead() -> None:
    tail = observe_tails(torch.rand(10, 200) - 1e9, parts(200)).tail()
    assert tail.silent(10**8) == 1


def test_without_a_part_the_tail_is_that_of_the_other_tokens() -> None:
    margins = pareto(0.1, torch.logspace(-4, -2, 200, dtype=torch.float64), 800)
    found = observe_tails(margins, parts(800))
    tail = found.tails_without()[3]
    left = margins[:, parts(800) != 3]
    assert tail.tokens == left.shape[1]
    assert torch.equal(tail.fired, (left > 0).sum(dim=1))
    # Fitted afresh the levels would lie a little lower; the forecast is nearly the same.
    assert tail.silent(20_000) == pytest.approx(observe_tails(left, parts(700)).tail().silent(20_000), abs=0.02)


def test_independent_tokens_do_not_clump_and_copies_do() -> None:
    def clumping(margins: torch.Tensor) -> float:
        found: Margins = observe_tails(margins, parts(margins.shape[1]))
        return found.clumping

    margins = pareto(0.0, torch.full((2000,), 0.01, dtype=torch.float64), 800)
    assert clumping(margins) == pytest.approx(1, abs=0.05)
    # Each token four times in a row: four firings come at once.
    assert clumping(margins.repeat_interleave(4, dim=1)) == pytest.approx(4, rel=0.05)


def test_a_sample_without_a_tail_is_refused() -> None:
    with pytest.raises(InputError, match="sample of at least 40 tokens, got 39"):
        observe_tails(torch.rand(3, 39), parts(39))
