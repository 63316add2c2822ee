import numpy as np
import pytest
import torch
from scipy import stats

from autopsae.arrays import InputError
from autopsae.statistics.collect import collect
from autopsae.statistics.norms import NormHistogram
from autopsae.statistics.sample import Reservoir, Rows


def places(reservoir: Reservoir) -> set[int]:
    return {int(row[0]) for row in reservoir.tokens()}


def numbered(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.float64)[:, None].expand(n, 2).contiguous()


def test_every_token_is_as_likely_to_be_sampled() -> None:
    counts = np.zeros(60)
    for seed in range(2000):
        reservoir = Reservoir(10, seed=seed)
        for start in range(0, 60, 7):
            reservoir.add(numbered(60)[start : start + 7], start)
        for place in places(reservoir):
            counts[place] += 1
    assert counts.sum() == 20_000
    assert stats.chisquare(counts).pvalue > 1e-4


def test_every_token_of_files_without_a_place_is_as_likely_to_be_sampled() -> None:
    counts = np.zeros(60)
    for seed in range(2000):
        reservoir = Reservoir(10, seed=seed)
        for start, file in ((0, "a"), (20, "b"), (40, "c")):
            reservoir.add(numbered(60)[start : start + 20], start, rows=Rows(file, 0))
        for place in places(reservoir):
            counts[place] += 1
    assert counts.sum() == 20_000
    assert stats.chisquare(counts).pvalue > 1e-4


def test_what_is_sampled_of_a_file_without_a_place_does_not_depend_on_where_it_is_put() -> None:
    first, second = Reservoir(10), Reservoir(10)
    first.add(numbered(40), 0, rows=Rows("a", 0))
    for start in (0, 17):
        second.add(numbered(40)[start : start + 17 if start == 0 else 40], 100 + start, rows=Rows("a", start))
    assert torch.equal(first.tokens(), second.tokens())
    assert (second.places - first.places == 100).all()
    assert second.move({100: 0}).places.tolist() == first.places.tolist()


@pytest.mark.parametrize("size", [1, 9, 100, 1000])
def test_sample_is_the_same_however_the_stream_is_cut(size: int) -> None:
    whole = Reservoir(100)
    whole.add(numbered(500), 0)
    pieces = Reservoir(100)
    for start in range(0, 500, size):
        pieces.add(numbered(500)[start : start + size], start)
    assert torch.equal(whole.tokens(), pieces.tokens())
    assert len(whole.tokens()) == 100


def test_sample_of_a_short_stream_is_all_of_it_in_order() -> None:
    reservoir = Reservoir(100)
    reservoir.add(numbered(30), 0)
    assert torch.equal(reservoir.tokens(), numbered(30))


def test_places_are_those_of_the_samples_tokens_in_the_order_of_the_stream() -> None:
    reservoir = Reservoir(100)
    for start in range(0, 500, 37):
        reservoir.add(numbered(500)[start : start + 37], start)
    assert reservoir.places.tolist() == reservoir.tokens()[:, 0].long().tolist()


def test_another_seed_is_another_sample() -> None:
    samples = []
    for seed in (0, 1):
        reservoir = Reservoir(50, seed=seed)
        reservoir.add(numbered(500), 0)
        samples.append(places(reservoir))
    assert samples[0] != samples[1]


def test_samples_of_two_sizes_do_not_merge() -> None:
    with pytest.raises(InputError, match="one size and seed"):
        Reservoir(3).merge(Reservoir(4))


def test_quantiles_are_right_to_a_third_of_a_percent() -> None:
    norms = np.random.default_rng(0).lognormal(sigma=3, size=20_001)
    x = torch.from_numpy(norms)[:, None] * torch.nn.functional.normalize(torch.randn(1, 6, dtype=torch.float64))
    histogram = NormHistogram.of(x)
    for q in (0.01, 0.5, 0.99):
        assert histogram.quantile(q) == pytest.approx(np.quantile(norms, q), rel=4e-3)
    assert histogram.quantile(1.0) == pytest.approx(norms.max(), rel=4e-3)
    assert histogram.largest == pytest.approx(norms.max(), rel=1e-12)


def test_share_above_a_norm_counts_tokens_and_squares() -> None:
    x = torch.zeros(100, 4)
    x[:, 0] = 1.0
    x[:5, 0] = 100.0
    tokens, square = NormHistogram.of(x).above(10.0)
    assert tokens == pytest.approx(0.05)
    assert square == pytest.approx(5e4 / (5e4 + 95))
    assert NormHistogram.of(x).above(1000.0) == (0.0, 0.0)


def test_zero_tokens_have_norm_zero() -> None:
    histogram = NormHistogram.of(torch.zeros(3, 4))
    assert histogram.quantile(0.5) == 0.0
    assert int(histogram.counts.sum()) == 3


@pytest.mark.parametrize("zeros", [0, 20, 80])
def test_the_typical_norm_is_the_median_of_those_that_are_not_zero(zeros: int) -> None:
    x = torch.zeros(100 + zeros, 3)
    x[:100, 0] = torch.arange(1, 101).float()
    x[99] *= 1e3
    histogram = NormHistogram.of(x)
    assert histogram.typical == pytest.approx(50, rel=4e-3)
    assert histogram.above(10 * histogram.typical)[0] == pytest.approx(1 / (100 + zeros))
    assert histogram.quantile(0.1) == (0.0 if zeros >= 20 else pytest.approx(10, rel=4e-3))


@pytest.mark.parametrize("exponent", [-100, -1, 1, 100])
def test_a_power_of_two_moves_every_norm_by_whole_octaves(exponent: int) -> None:
    x = torch.randn(500, 4, dtype=torch.float64).exp()
    x[0] = torch.tensor([1.0, 0, 0, 0])  # on the edge of a bin
    x[::50] *= 100
    one, other = NormHistogram.of(x), NormHistogram.of(x * 2.0**exponent)
    assert torch.equal(one.counts.roll(128 * exponent), other.counts)
    assert other.typical == one.typical * 2.0**exponent
    assert other.above(10 * other.typical) == pytest.approx(one.above(10 * one.typical), rel=1e-12)


@pytest.mark.parametrize("largest", [1e150, 1e200, 4e144])
def test_norms_whose_powers_overflow_are_refused_with_what_to_do(largest: float) -> None:
    x = torch.ones(5, 2, dtype=torch.float64)
    x[3, 1] = largest
    with pytest.raises(InputError, match=r"norms of at most 3\.1e\+144, got values up to .*divide all tokens by a"):
        collect(x)


def test_the_largest_float32_is_no_such_norm() -> None:
    assert collect(torch.full((3, 4096), torch.finfo(torch.float32).max)).norms.largest > 2.0**128


@pytest.mark.parametrize("scale", [1e-145, 1e-150, 1e-200, 5e-324])
def test_tokens_that_are_all_too_small_are_refused_with_what_to_do(scale: float) -> None:
    x = torch.randn(5, 2, dtype=torch.float64).sign() * scale
    with pytest.raises(InputError, match=r"norms over 3\.2e-145, got .* at most, .*multiply all tokens by a"):
        collect(x)
    # Beside one ordinary token they count as zero.
    x[0] = 1
    norms = collect(x).norms
    assert norms.quantile(0.5) == 0.0
    assert norms.typical == pytest.approx(2**0.5, rel=4e-3)


def test_a_part_of_a_sample_is_what_a_smaller_reservoir_keeps() -> None:
    large, small = Reservoir(100, seed=3), Reservoir(30, seed=3)
    for start in range(0, 500, 37):
        for reservoir in (large, small):
            reservoir.add(numbered(500)[start : start + 37], start)
    assert torch.equal(large.part(30).tokens(), small.tokens())
    assert large.part(30).places.tolist() == small.places.tolist()
    assert torch.equal(large.part(200).tokens(), large.tokens())


def test_a_sample_holds_tokens_as_they_come_and_gives_them_in_float64() -> None:
    reservoir = Reservoir(50)
    reservoir.add(torch.full((40, 2), 0.1), 0)
    assert reservoir.tokens().dtype == torch.float64
    assert float(reservoir.tokens()[0, 0]) == float(torch.tensor(0.1))
    # Wider numbers that come later lose none of their digits.
    reservoir.add(torch.full((500, 2), 0.1, dtype=torch.float64), 40)
    assert {float(row[0]) for row in reservoir.tokens()} == {0.1, float(torch.tensor(0.1))}
