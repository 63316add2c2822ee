from dataclasses import astuple, replace

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.affine import Affine
from autopsae.sae.death import fates
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.survival.outlook import DeadForecast, numbers_of_forecast
from autopsae.survival.tails import observe_tails
from autopsae.survival.trained import SHRINKAGES, TrainedForecast, forecast_trained

D_IN, SAMPLE = 200, 1000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, D_IN, generator=generator(seed))


def with_rates(height: torch.Tensor) -> SAE:
    """A ReLU SAE whose latent i fires where coordinate i of a token is over height i: with a known probability."""
    W = torch.eye(len(height), D_IN)
    return SAE(W_enc=W, W_dec=W, b_dec=torch.zeros(D_IN), b_enc=-height, sparsity=ReLU()).eval()


def heights(mean: float = 3.0, spread: float = 0.6) -> torch.Tensor:
    return mean + spread * torch.randn(D_IN, generator=generator(7))


def true_dead(height: torch.Tensor, number: int) -> float:
    """The expected fraction of latents that fire on none of so many independent tokens."""
    return float(((1 - torch.special.ndtr(-height.double())) ** number).mean())


@pytest.mark.parametrize("number", [1500, 4000, 20_000])
def test_latents_of_known_rates_are_forecast(number: int) -> None:
    height = heights()
    found = forecast_trained(with_rates(height), tokens(SAMPLE))
    expected = found.dead(number)
    true = true_dead(height, number)
    assert found.silent_on_sample > true + 0.05  # the count on the sample is far off
    assert expected.low <= true <= expected.high
    assert abs(expected.value - true) < 0.04


def test_the_interval_holds_in_nine_cases_of_ten() -> None:
    sae, true = with_rates(heights()), true_dead(heights(), 5000)
    said = [forecast_trained(sae, tokens(600, seed)).dead(5000) for seed in range(10)]
    # 200 latents that are drawn: what happens to them on 5,000 tokens has a binomial error of its own.
    error = (true * (1 - true) / D_IN) ** 0.5
    assert sum(one.low - error <= true <= one.high + error for one in said) >= 9
    assert abs(sum(one.value for one in said) / 10 - true) < 0.03


def test_latents_that_never_fire_stay_dead_and_the_others_do_not() -> None:
    height = heights(mean=2.5, spread=0.4)
    height[: D_IN // 4] = 40.0
    expected = forecast_trained(with_rates(height), tokens(2 * SAMPLE)).dead(10**6)
    assert expected.value == pytest.approx(0.25, abs=0.03)


def test_where_every_latent_fires_none_is_expected_dead() -> None:
    found = forecast_trained(with_rates(heights(mean=0.0)), tokens(SAMPLE))
    assert astuple(found.dead(10**6)) == (0.0, 0.0, 0.0)
    assert found.shrinkage == 1.0


def test_the_more_tokens_the_fewer_dead_and_no_more_than_were_counted() -> None:
    found = forecast_trained(with_rates(heights()), tokens(SAMPLE))
    said = [found.dead(number) for number in (SAMPLE, 2000, 10_000, 10**6)]
    assert said[0].value == pytest.approx(found.silent_on_sample)
    assert [one.value for one in said] == sorted((one.value for one in said), reverse=True)
    assert all(0 <= one.low <= one.value <= one.high <= found.silent_on_sample for one in said)


def test_a_count_on_more_tokens_than_the_sample_is_where_the_forecast_starts() -> None:
    height, x = heights(), tokens(8000)
    sae = with_rates(height)
    found, counted = forecast_trained(sae, x[::8], stream_tokens=len(x)), fates(sae, x).dead
    assert found.dead_after(8000, counted=counted, counted_tokens=8000).value == counted
    expected = found.dead_after(40_000, counted=counted, counted_tokens=8000)
    assert abs(expected.value - true_dead(height, 40_000)) < 0.03
    assert expected.high - expected.low < found.dead(40_000).high - found.dead(40_000).low


@pytest.mark.parametrize(("number", "counted"), [(900, 1000), (2000, 999), (2000, 2001)])
def test_the_sample_is_among_the_counted_tokens_and_these_among_all(number: int, counted: int) -> None:
    found = forecast_trained(with_rates(heights()), tokens(SAMPLE))
    with pytest.raises(InputError, match=f"got {number:,} tokens, of which {counted:,} were counted"):
        found.dead_after(number, counted=0.5, counted_tokens=counted)


CASES: dict[str, tuple[Sparsity, torch.Tensor | None]] = {
    "topk": (TopK(k=3), None),
    "batch_topk": (BatchTopK(k=3), torch.tensor(9.0)),
    "relu": (ReLU(), None),
    "jumprelu": (JumpReLU(), torch.linspace(3, 12, 96)),
    "groupmax": (GroupMax(k=12), None),
}


def trained(name: str, *, layer_norm: bool = False, b_pre: bool = False) -> SAE:
    """An SAE with all that a trained one may have: rows of any length, biases, a scale and a centre."""
    sparsity, threshold = CASES[name]
    chance = generator(3)
    W = torch.randn(96, 24, generator=chance) * torch.linspace(0.2, 2, 96)[:, None]
    return SAE(
        W_enc=W,
        W_dec=W.flip(0),
        b_dec=torch.randn(24, generator=chance),
        b_enc=-torch.rand(96, generator=chance) * 40,
        b_pre=torch.randn(24, generator=chance) if b_pre else None,
        sparsity=sparsity,
        threshold=threshold,
        affine=Affine(center=torch.ones(24).double(), linear=None, inverse=None, scale=1.5),
        layer_norm=layer_norm,
    ).eval()


@pytest.mark.parametrize("more", [{}, {"layer_norm": True}, {"b_pre": True}])
@pytest.mark.parametrize("name", CASES)
def test_the_latents_that_are_silent_on_the_sample_are_those_that_the_sae_leaves_silent(
    name: str, more: dict[str, bool]
) -> None:
    x = 2 * torch.randn(300, 24, generator=generator(5))
    sae = trained(name, **more)
    found = forecast_trained(sae, x)
    counted = fates(sae, x)
    assert 0 < counted.dead < 1
    assert found.silent_on_sample == counted.dead
    some = forecast_trained(sae, x, followed=40)
    assert some.silent_on_sample == counted.dead
    # 40 of 96 latents, in whole groups, spread over all.
    size = sae.sparsity.block_size(96)
    followed = torch.arange(96).view(-1, size)[torch.arange(40 // size) * (96 // size) // (40 // size)].flatten()
    assert torch.equal(some.whole.fired, counted.fired[followed])


def test_the_latents_that_are_followed_stand_for_all_wherever_the_dead_are() -> None:
    height = heights().sort().values  # those that fire first, as in a Matryoshka SAE
    all_of_them, some = (forecast_trained(with_rates(height), tokens(SAMPLE), followed=n) for n in (D_IN, 50))
    assert len(some.whole.fired) == 50
    assert some.dead(10_000).value == pytest.approx(all_of_them.dead(10_000).value, abs=0.06)
    first = forecast_trained(with_rates(height.flip(0)), tokens(SAMPLE).flip(1), followed=50)  # the other end first
    assert first.dead(10_000).value == pytest.approx(all_of_them.dead(10_000).value, abs=0.06)


def test_an_interval_of_few_documents_is_wider() -> None:
    # The first coordinates are large in one document of eight alone, so that few documents decide the forecast.
    x, document = tokens(SAMPLE), torch.arange(SAMPLE) // 125
    x[document == 0, :60] *= 1.6
    sae = with_rates(heights())
    known = forecast_trained(sae, x, documents=document)
    spread = forecast_trained(sae, x, documents=torch.arange(SAMPLE) % 125)
    widths = [one.dead(10_000).high - one.dead(10_000).low for one in (known, spread)]
    assert widths[0] > widths[1]
    assert known.effective_tokens < spread.effective_tokens


def test_a_shrunk_tail_still_explains_the_sample_and_latents_differ_less() -> None:
    margins = torch.randn(500, 800, generator=generator(1)) - heights(4.0, 0.5).repeat(3)[:500, None]
    plain = observe_tails(margins, torch.arange(800) // 50)
    shrunk = replace(plain, shrinkage=0.7)
    spreads = []
    for tail in (plain.tail(), shrunk.tail()):
        assert float((-tail.chance * 800).exp().mean()) == pytest.approx(
            float((tail.fired == 0).double().mean()), abs=1e-3
        )
        spreads.append(float(tail.chance[(tail.fired == 0) & (tail.chance > 0)].log().std()))
    assert spreads[1] < 0.9 * spreads[0]
    assert shrunk.tail().silent(100_000) < plain.tail().silent(100_000)


def test_the_shrinkage_is_that_under_which_the_curve_within_the_sample_is_met() -> None:
    found: TrainedForecast = forecast_trained(with_rates(heights()), tokens(SAMPLE))
    assert SHRINKAGES[0] < found.shrinkage < SHRINKAGES[1]
    for part in (SAMPLE // 2, SAMPLE // 4):
        assert float((-found.whole.chance * part).exp().mean()) == pytest.approx(found.whole.silent(part), abs=0.02)


def test_evaluate_forecasts_for_more_tokens_than_it_counted_and_for_no_others() -> None:
    sae, x = with_rates(heights()), tokens(SAMPLE)
    at, more, usual = (evaluate(sae, x, at_tokens=number).dead_forecast for number in (SAMPLE, SAMPLE + 1, 10**6))
    assert at is None
    assert evaluate(sae, x, at_tokens=None).dead_forecast is None
    assert more is not None
    assert more.tokens == SAMPLE + 1
    assert evaluate(sae, x).dead_forecast == usual
    assert usual is not None
    assert usual.value < more.value <= fates(sae, x).dead
    assert str(usual).endswith("expected dead on 1,000,000 tokens")
    assert str(evaluate(sae, x)).endswith(str(usual))
    assert evaluate(sae, x[:39]).dead_forecast is None
    assert evaluate(sae, x[:40]).dead_forecast is not None


def test_where_no_latent_is_dead_none_is_expected_to_be() -> None:
    sae = with_rates(heights(mean=0.0))
    assert evaluate(sae, tokens(SAMPLE)).dead_forecast == DeadForecast(0.0, 0.0, 0.0, 10**6)


def test_evaluate_and_autopsy_say_the_same_of_the_same_tokens() -> None:
    sae, x = with_rates(heights()), tokens(SAMPLE)
    document = torch.arange(SAMPLE).numpy() // 20
    said = evaluate(sae, x, documents=document).dead_forecast
    result = autopsy(sae, x, documents=document)
    assert result.dead_forecast == said is not None
    written = result.to_dict()
    assert {name: written[name] for name in numbers_of_forecast(None)} == numbers_of_forecast(said)
    assert str(result).endswith(str(said))
    assert autopsy(sae, x, at_tokens=SAMPLE).dead_forecast is None


def test_a_number_of_tokens_under_one_and_documents_of_other_tokens_are_refused() -> None:
    sae, x = with_rates(heights()), tokens(100)
    with pytest.raises(InputError, match="evaluate: at_tokens: expected a whole number from 1 to "):
        evaluate(sae, x, at_tokens=0)
    with pytest.raises(InputError, match="autopsy: at_tokens: expected a whole number from 1 to "):
        autopsy(sae, x, at_tokens=0)
    for examine in (evaluate, autopsy):
        with pytest.raises(
            InputError, match="documents: expected a whole number for each of 100 tokens, got int64 of shape"
        ):
            examine(sae, x, documents=[1, 2])


def test_a_forecast_that_was_not_made_is_none_under_every_name() -> None:
    assert set(numbers_of_forecast(None).values()) == {None}
    assert numbers_of_forecast(DeadForecast(0.2, 0.1, 0.3, 50)) == {
        "dead_forecast": 0.2,
        "dead_forecast_interval": (0.1, 0.3),
        "dead_forecast_tokens": 50,
    }
