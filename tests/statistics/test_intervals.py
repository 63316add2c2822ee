import numpy as np
import pytest
import torch
from scipy import stats

from autopsae.statistics.groups import Groups
from autopsae.statistics.intervals import (
    gamma_influence,
    jackknife,
    precision,
    rank_influence,
    rank_without_bias,
)
from autopsae.statistics.moments import Moments
from autopsae.statistics.spectrum import Spectrum, effective_rank

D_IN = 12
SPREAD = torch.logspace(0, -1, D_IN, dtype=torch.float64)


def tokens(n: int, seed: int = 0, *, per_document: int = 1) -> torch.Tensor:
    """Tokens of gamma about 1; those of a document share half of their variance."""
    chance = torch.Generator().manual_seed(seed)
    own, shared = (torch.randn(m, D_IN, generator=chance, dtype=torch.float64) for m in (n, n // per_document))
    noise = (own + shared.repeat_interleave(per_document, dim=0)) / 2**0.5 if per_document > 1 else own
    return SPREAD * (noise + 0.7)


def gamma(x: torch.Tensor) -> float:
    moments = Moments.of(x)
    return float(moments.mean.norm() / moments.std.norm())


def rank(x: torch.Tensor) -> float:
    return effective_rank(torch.linalg.eigvalsh(Moments.of(x).covariance))


def influences(x: torch.Tensor) -> dict[str, torch.Tensor]:
    moments = Moments.of(x)
    spectrum = Spectrum.of(moments.covariance)
    return {
        "gamma": gamma_influence(x, moments.mean, float(moments.std.norm())),
        "rank": rank_influence(x, moments.mean, spectrum.eigenvalues, spectrum.directions),
    }


@pytest.mark.parametrize(("name", "number"), [("gamma", gamma), ("rank", rank)])
def test_an_influence_is_how_far_a_token_moves_the_number(name: str, number: object) -> None:
    x = tokens(4000)
    of = influences(x)[name]
    assert float(of.mean()) == pytest.approx(0, abs=1e-9)
    for place in (0, 17, 1234):
        without = torch.cat([x[:place], x[place + 1 :]])
        moved = number(x) - number(without)  # type: ignore[operator]
        assert moved * 3999 == pytest.approx(float(of[place]), abs=2e-2 * float(of.std()))


@pytest.mark.parametrize("per_document", [1, 25])
@pytest.mark.parametrize(("name", "number"), [("gamma", gamma), ("rank", rank)])
def test_intervals_hold_in_nine_cases_of_ten(name: str, number: object, per_document: int) -> None:
    true = number(tokens(200_000, 999, per_document=per_document))  # type: ignore[operator]
    group, held = torch.arange(1000) * 16 // 1000, 0
    for seed in range(200):
        x = tokens(1000, seed, per_document=per_document)
        found = precision(influences(x)[name], Groups(guesses=(group,)), 1000)
        value = number(x)  # type: ignore[operator]
        ends = [value]
        if name == "rank":
            ends.append(
                rank_without_bias(value, torch.linalg.eigvalsh(Moments.of(x).covariance), found.effective_tokens)
            )
        low, high = found.interval(*ends)
        held += low <= true <= high
    assert 0.86 <= held / 200 <= 0.99


def test_shuffled_documents_that_are_known_leave_the_interval_as_it_is() -> None:
    x = tokens(1000, per_document=25)
    of, group = influences(x)["gamma"], torch.arange(1000) * 16 // 1000
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert precision(of[order], Groups(guesses=(group[order],)), 1000).half == pytest.approx(
        precision(of, Groups(guesses=(group,)), 1000).half
    )
    # As if they were unknown, it would be far too narrow.
    assert (
        precision(of[order], Groups(guesses=(group,)), 1000).half
        < 0.6 * precision(of, Groups(guesses=(group,)), 1000).half
    )


def test_the_least_favourable_guess_counts() -> None:
    of, group = influences(tokens(1000, per_document=25))["gamma"], torch.arange(1000) * 16 // 1000
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert precision(of, Groups(guesses=(group[order], group)), 1000) == precision(
        of, Groups(guesses=(group,)), 1000
    )


def test_an_assumed_design_effect_counts_where_it_is_larger_than_that_of_the_groups() -> None:
    of, group = influences(tokens(1000))["gamma"], torch.arange(1000) * 16 // 1000
    plain, little, much = (precision(of, Groups(guesses=(group,), least_effect=e), 1000) for e in (1.0, 1.0, 25.0))
    assert little == plain
    assert much.effective_tokens == pytest.approx(40)
    assert much.half == pytest.approx(plain.half * (25 * plain.effective_tokens / 1000) ** 0.5)


def test_numbers_of_all_tokens_of_a_stream_are_more_precise_but_not_than_its_documents() -> None:
    group = torch.arange(1000) * 16 // 1000
    for per_document, least in ((1, 0.1), (25, 0.9)):
        of = influences(tokens(1000, per_document=per_document))["gamma"]
        sample, stream = (
            precision(of, Groups(guesses=(group,)), 1000),
            precision(of, Groups(guesses=(group,)), 100_000),
        )
        assert least <= stream.half / sample.half < 1


@pytest.mark.parametrize("n", [100, 400])
def test_without_its_bias_the_rank_of_few_tokens_is_that_of_many(n: int) -> None:
    true = rank(tokens(200_000, 999))
    said = [torch.linalg.eigvalsh(Moments.of(tokens(n, seed)).covariance) for seed in range(200)]
    raw = np.mean([effective_rank(values) for values in said])
    corrected = np.mean([rank_without_bias(effective_rank(values), values, n) for values in said])
    assert abs(corrected - true) < 0.3 * abs(raw - true)


def test_the_rank_without_its_bias_is_at_most_d_in() -> None:
    assert rank_without_bias(5.0, torch.ones(5), 4) == 5


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    variance, errors = jackknife((values.sum() - values) / 15)
    assert variance == pytest.approx(stats.sem(values.numpy()) ** 2)
    assert errors >= stats.t.ppf(0.95, 15) - 1e-3


def test_where_one_group_decides_the_standard_errors_are_those_of_few_degrees_of_freedom() -> None:
    alone, even = torch.zeros(16), torch.tensor([1.0, -1.0] * 8)
    alone[3] = 1
    assert jackknife(even)[1] == pytest.approx(stats.t.ppf(0.95, 15), abs=2e-3)
    assert jackknife(alone)[1] > 2.7
    variance, errors = jackknife(torch.ones(16))
    assert variance == 0.0
    assert errors == pytest.approx(stats.t.ppf(0.95, 15), abs=2e-3)
