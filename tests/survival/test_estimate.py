from dataclasses import astuple

import pytest
import torch

from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import TopK
from autopsae.survival.estimate import Curve
from autopsae.survival.forecast import Forecast, forecast
from autopsae.survival.tails import Tail, observe_tails

D_IN, D_SAE, K = 48, 256, 8
STREAM = 40_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stream(documents: int, tokens: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, their documents): a mean, and a spread of which documents share two thirds."""
    chance = generator(seed)
    shared = torch.randn(documents, D_IN, generator=chance)
    document = torch.arange(documents).repeat_interleave(tokens // documents)
    own = torch.randn(len(document), D_IN, generator=chance)
    return 1.5 + (2 / 3) ** 0.5 * shared[document] + (1 / 3) ** 0.5 * own, document


def rows(seed: int = 5) -> torch.Tensor:
    return draw_rows(D_SAE, D_IN, generator=generator(seed))


def fires(x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
    return torch.cat([TopK(k=K).margins(y @ W.T) > 0 for y in x.split(2000)])


def shuffle(*listed: torch.Tensor) -> list[torch.Tensor]:
    order = torch.randperm(len(listed[0]), generator=generator(3))
    return [x[order] for x in listed]


def width(found: Forecast, tokens: int = STREAM) -> float:
    return found.dead(tokens).high - found.dead(tokens).low


def test_shuffling_changes_nothing_where_documents_are_known() -> None:
    x, documents = stream(40, 2000)
    W = rows()
    ordered = forecast(x, W, TopK(k=K), documents=documents)
    y, other = shuffle(x, documents)
    shuffled = forecast(y, W, TopK(k=K), documents=other)
    assert astuple(shuffled.dead(STREAM)) == pytest.approx(astuple(ordered.dead(STREAM)), abs=2e-3)
    assert shuffled.effective_tokens == pytest.approx(ordered.effective_tokens, rel=1e-3)


def test_shuffling_does_not_narrow_the_interval_where_near_duplicates_tell_the_documents() -> None:
    # Three tokens of each document, which are nearly the same.
    chance = generator(0)
    x = (1 + torch.randn(600, D_IN, generator=chance)).repeat_interleave(3, dim=0)
    x += 0.2 * torch.randn(x.shape, generator=chance)
    ordered, shuffled = (forecast(y, rows(), TopK(k=K), stream_tokens=10**6) for y in (x, *shuffle(x)))
    assert width(shuffled) > 0.8 * width(ordered)
    assert shuffled.effective_tokens == pytest.approx(ordered.effective_tokens, rel=0.25)
    assert shuffled.effective_tokens < 900


def test_documents_say_what_a_sample_is_worth_in_any_order() -> None:
    x, documents = shuffle(*stream(40, 2000))
    known = forecast(x, rows(), TopK(k=K), documents=documents, stream_tokens=10**6)
    unknown = forecast(x, rows(), TopK(k=K), stream_tokens=10**6)
    assert known.effective_tokens < 200
    assert unknown.effective_tokens > 3 * known.effective_tokens


def test_the_interval_of_a_shuffled_sample_is_as_wide_as_documents_of_512_tokens_would_make_it() -> None:
    x, _ = shuffle(*stream(40, 2000))
    spans = (10**7, 60_000, 8000)  # one token of ten documents, 17 and 128 tokens of each
    said = [forecast(x, rows(), TopK(k=K), stream_tokens=span) for span in spans]
    independent, some, few = (found.effective_tokens for found in said)
    assert independent > 800
    assert some == pytest.approx(2000 / (1 + 0.1 * (2000 * 512 / 60_000 - 1)))
    assert few == pytest.approx(2000 / (1 + 0.1 * 127))
    assert width(said[0]) < width(said[1]) < width(said[2])


def test_the_interval_holds_in_nine_cases_of_ten_for_streams_of_few_documents() -> None:
    # A sample has 800 tokens of 40 documents, the stream 800 documents: nineteen in twenty are new.
    x, documents = stream(8000, 160_000)
    W = rows()
    fired = fires(x, W)
    true = [float((~some.any(dim=0)).double().mean()) for some in fired.split(16_000)]
    mean = sum(true) / len(true)
    said = [
        forecast(x[some], W, TopK(k=K), documents=documents[some]).dead(16_000)
        for some in torch.arange(160_000).split(800)[::10]
    ]
    assert 0.1 < mean < 0.9
    assert sum(found.low <= mean <= found.high for found in said) >= 17
    assert abs(sum(found.value for found in said) / len(said) - mean) < 0.03


def gaussian_tail(tokens: int, *, groups: int = 16) -> tuple[Tail, torch.Tensor]:
    """(the tail of latents whose margins are Gaussian around Gaussian means, their true chances)."""
    means = -3.0 - 0.8 * torch.randn(4000, generator=generator(0), dtype=torch.float64)
    margins = means[:, None] + torch.randn(4000, tokens, generator=generator(1), dtype=torch.float64)
    chance = torch.special.ndtr(means)
    return observe_tails(margins.float(), torch.arange(tokens) * groups // tokens).tail(), chance


def test_the_curve_of_gaussian_margins_is_continued_as_it_goes_on() -> None:
    tail, chance = gaussian_tail(2048)
    for tokens in (4096, 20_000, 200_000):
        true = float(((1 - chance) ** tokens).mean())
        assert Curve.of(tail).silent(tokens, tokens) == pytest.approx(true, abs=0.01)
        # Where tokens are independent, new documents are as the old.
        assert Curve.of(tail).silent(tokens, 2048) == pytest.approx(true, abs=0.02)


def test_within_the_sample_the_curve_is_the_count_and_it_only_falls() -> None:
    tail, _ = gaussian_tail(1024)
    numbers = [1, 100, 1024, 1025, 3000, 10**5, 10**9]
    curve = [Curve.of(tail).silent(tokens, 3000) for tokens in numbers]
    assert curve == sorted(curve, reverse=True)
    assert curve[:3] == [tail.silent(tokens) for tokens in numbers[:3]]


@pytest.mark.parametrize(("margin", "silent"), [(1.0, 0.0), (-1.0, 1.0)])
def test_where_all_or_none_fire_the_curve_stays(margin: float, silent: float) -> None:
    tail = observe_tails(torch.full((5, 80), margin), torch.arange(80) // 20).tail()
    assert Curve.of(tail).silent(10**6, 80) == silent
