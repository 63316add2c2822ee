import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.statistics import median
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from tests import oracles


def distance(x: torch.Tensor, m: torch.Tensor) -> float:
    return float((x - m).norm(dim=1).mean())


def tokens(n: int, d_in: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -2, d_in, dtype=torch.float64)
    return torch.randn(n, d_in, dtype=torch.float64, generator=generator).exp() * scale + 5


@pytest.mark.parametrize("d_in", [2, 17, 60])
def test_median_equals_a_general_purpose_minimiser(d_in: int) -> None:
    x = tokens(600, d_in)
    expected = torch.from_numpy(oracles.geometric_median(x.numpy()))
    found = geometric_median(x)
    assert float((found - expected).norm()) < 1e-5 * float(expected.norm())
    assert distance(x, found) <= distance(x, expected) * (1 + 1e-12)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.45])
def test_median_stays_near_while_up_to_45_percent_of_the_tokens_are_huge(share: float) -> None:
    x = tokens(1000, 12)
    clean = geometric_median(x)
    spread = distance(x, clean)
    huge = int(share * len(x))
    x[:huge] = 1e6 * torch.randn(huge, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = geometric_median(x)
    expected = torch.from_numpy(oracles.geometric_median(x.numpy()))
    assert distance(x, found) <= distance(x, expected) * (1 + 1e-9)
    assert float((found - clean).norm()) < 3 * spread
    assert float((x.mean(dim=0) - clean).norm()) > 30 * spread


def test_median_of_tokens_that_are_mostly_one_point_is_that_point() -> None:
    x = torch.cat([torch.full((60, 4), 2.0), tokens(40, 4).float()]).double()
    assert torch.allclose(geometric_median(x), x[0])


def test_median_that_is_a_repeated_token_without_a_majority_is_found() -> None:
    rays = torch.eye(3, dtype=torch.float64)
    x = torch.cat([torch.zeros(2, 3, dtype=torch.float64), rays, -rays])
    assert torch.allclose(geometric_median(x), torch.zeros(3, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("weight", [3, 7, 12])
def test_a_repeated_token_off_the_middle_is_found_or_left_as_the_minimiser_does(weight: int) -> None:
    # Asymmetric around the repeated token, which the iteration starts on; it is the median only if heavy enough.
    x = torch.cat([torch.zeros(weight, 2), torch.tensor([[1.0, 0], [0, 1], [2, 1], [1, 3], [4, 1], [-1, 5]])])
    x = torch.cat([x, -torch.eye(2)]).double()
    found = geometric_median(x)
    others = x[weight:]
    pull = float((others / others.norm(dim=1, keepdim=True)).sum(dim=0).norm())
    assert (float(found.norm()) < 1e-6) == (weight >= pull)
    grid = torch.cartesian_prod(torch.linspace(-1, 2, 301), torch.linspace(-1, 2, 301)).double()
    least = float(torch.cdist(grid, x).sum(dim=1).min())
    assert float((x - found).norm(dim=1).sum()) <= least + 1e-9


@pytest.mark.parametrize("separation", [1.0, 100.0, 1e4, 1e6])
@pytest.mark.parametrize("share", [2, 3])
def test_two_heaps_of_tokens_converge_to_the_least_distance(separation: float, share: int) -> None:
    generator = torch.Generator().manual_seed(0)
    heaps = separation * torch.randn(2, 16, generator=generator, dtype=torch.float64)
    x = torch.randn(1000, 16, generator=generator, dtype=torch.float64)
    x += heaps[(torch.arange(1000) % share == 0).long()]
    found = geometric_median(x)
    for other in (torch.from_numpy(oracles.geometric_median(x.numpy())), x.mean(dim=0), *heaps):
        assert distance(x, found) <= distance(x, other) * (1 + 3e-7)


def test_tokens_almost_on_a_line_converge() -> None:
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(1, 8, generator=generator) * torch.randn(40, 1, generator=generator)
    x = (line + 1e-4 * torch.randn(40, 8, generator=generator)).double()
    expected = torch.from_numpy(oracles.geometric_median(x.numpy()))
    assert distance(x, geometric_median(x)) <= distance(x, expected) * (1 + 3e-7)


def test_iterate_that_starts_on_a_token_leaves_it() -> None:
    # The coordinate-wise median, where the iteration starts, is the token (0, 0); the geometric median is not.
    x = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [8.0, 9.0], [-1.0, -1.0]], dtype=torch.float64)
    assert torch.equal(x.median(dim=0).values, torch.zeros(2, dtype=torch.float64))
    found = geometric_median(x)
    expected = torch.from_numpy(oracles.geometric_median(x.numpy() + 1e-13))
    assert distance(x, found) <= distance(x, expected) + 1e-9


def test_repeated_points_count_as_often_as_they_stand() -> None:
    x = tokens(30, 5)
    repeats = torch.arange(30) % 4 + 1
    repeated = x.repeat_interleave(repeats, dim=0)
    expected = torch.from_numpy(oracles.geometric_median(repeated.numpy()))
    assert torch.allclose(geometric_median(repeated), expected, rtol=1e-6)


def test_median_of_tokens_on_a_line_is_their_middle() -> None:
    line = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    x = torch.tensor([-7.0, 0.0, 1.0, 2.0, 50.0], dtype=torch.float64)[:, None] * line
    assert torch.allclose(geometric_median(x), line[0], atol=1e-5)


def test_equal_tokens_and_a_single_token_are_their_own_median() -> None:
    for n in (1, 5):
        assert torch.equal(geometric_median(torch.ones(n, 3)), torch.ones(3, dtype=torch.float64))


def test_median_moves_with_the_tokens() -> None:
    x = tokens(300, 8)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    moved = geometric_median(x @ rotation.T + 3)
    assert torch.allclose(moved, rotation @ geometric_median(x) + 3, rtol=1e-5, atol=1e-6)


def test_median_of_a_stream_equals_that_of_the_whole_matrix() -> None:
    x = tokens(9000, 20)
    x[::100] *= 1000
    batches = list(x.split(501))
    sample = collect(batches, sample_tokens=300).sample
    streamed = geometric_median(batches, sample=sample, tolerance=1e-10)
    whole = geometric_median(x, tolerance=1e-10)
    assert float((streamed - whole).norm()) < 1e-8 * float(whole.norm())
    assert float((geometric_median(sample) - whole).norm()) > 1e-4 * float(whole.norm())


def test_huge_offset_costs_the_median_no_precision() -> None:
    x = tokens(500, 6)
    offset = torch.full((6,), 1e6, dtype=torch.float64)
    assert torch.allclose(geometric_median(x + offset) - offset, geometric_median(x), atol=1e-6)


def test_a_stream_without_a_sample_is_refused() -> None:
    with pytest.raises(InputError, match="expected `sample` beside a stream"):
        geometric_median([torch.randn(4, 3)])


def test_tokens_with_nan_are_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        geometric_median(torch.from_numpy(np.full((4, 3), np.nan)))


def excess(x: torch.Tensor, m: torch.Tensor) -> float:
    """Length of the shortest subgradient of the mean distance at m; zero or less certifies the median."""
    away = x.double() - m
    away /= away.abs().max().clamp_min(1e-300)
    r = away.norm(dim=1, keepdim=True)
    units = torch.where(r > 0, away / r, 0)
    return float(units.mean(dim=0).norm()) - float((r == 0).double().mean())


@pytest.mark.parametrize("d_in", [1, 2, 24, 64])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.45, 0.49, 0.5, 0.51, 0.9])
@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_any_share_of_identical_tokens_has_a_median(d_in: int, share: float, constant: float) -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((800, d_in)) * np.linspace(0.5, 2, d_in) + rng.standard_normal(d_in))
    x[: int(800 * share)] = constant
    found = geometric_median(x)
    assert excess(x, found) <= 1e-7
    expected = torch.from_numpy(oracles.geometric_median(x.numpy()))
    assert distance(x, found) <= min(distance(x, expected), distance(x, x[0])) * (1 + 1e-9)


def test_a_token_that_outweighs_the_pull_of_all_others_is_the_median_exactly() -> None:
    x = tokens(600, 8) - 5
    pull = int(torch.nn.functional.normalize(x, dim=1).sum(dim=0).norm())
    copies = torch.zeros(pull + 1, 8, dtype=torch.float64)
    held, free = torch.cat([copies, x]), torch.cat([copies[1:], x])
    assert torch.equal(geometric_median(held), torch.zeros(8, dtype=torch.float64))
    # One copy less no longer holds it.
    assert float(geometric_median(free).norm()) > 0
    assert excess(free, geometric_median(free)) <= 1e-7


@pytest.mark.parametrize("distinct", [2, 3, 5, 50])
@pytest.mark.parametrize("d_in", [1, 3, 16])
def test_tokens_of_few_distinct_vectors_have_a_median(distinct: int, d_in: int) -> None:
    generator = torch.Generator().manual_seed(distinct)
    vectors = torch.randn(distinct, d_in, generator=generator, dtype=torch.float64)
    x = vectors[torch.randint(distinct, (1500,), generator=generator)]
    found = geometric_median(x)
    assert excess(x, found) <= 1e-7
    assert distance(x, found) <= min(distance(x, vector) for vector in vectors) + 1e-12


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 40, 41, 1000, 1001])
@pytest.mark.parametrize("d_in", [1, 2, 16])
def test_tokens_on_a_line_have_their_middle_or_a_point_between_the_two_middle_ones(n: int, d_in: int) -> None:
    generator = torch.Generator().manual_seed(n)
    line = torch.randn(1, d_in, generator=generator, dtype=torch.float64)
    place = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x = place * line + 1
    middle = place.flatten().sort().values[[(n - 1) // 2, n // 2]]
    found = ((geometric_median(x) - 1) @ line[0]) / line.square().sum()
    assert float(middle[0]) - 1e-7 <= float(found) <= float(middle[1]) + 1e-7


def test_two_heavy_vectors_among_others_are_weighed_against_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(300, 6, generator=generator, dtype=torch.float64)
    heavy = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    for one, other in ((400, 350), (350, 400), (100, 90)):
        x = torch.cat([heavy[:1].expand(one, 6), heavy[1:].expand(other, 6), others])
        found = geometric_median(x)
        assert excess(x, found) <= 1e-7
        assert distance(x, found) <= min(distance(x, heavy[0]), distance(x, heavy[1])) + 1e-12


@pytest.mark.parametrize("exponent", [-996, -498, -100, 100, 498, 996])
@pytest.mark.parametrize("zeros", [0, 150])
def test_a_power_of_two_scales_the_median_exactly(exponent: int, zeros: int) -> None:
    x = tokens(400, 6)
    x[:zeros] = 0
    assert torch.equal(geometric_median(x * 2.0**exponent), geometric_median(x) * 2.0**exponent)


def test_one_huge_token_among_ordinary_ones_moves_the_median_no_further_than_any_other_would() -> None:
    x = tokens(500, 7).float()
    medians = []
    for stray in (1e6, 1e20, 3e38):
        x[0] = stray
        medians.append(geometric_median(x))
        assert excess(x[1:], medians[-1]) <= 1 / 499
    assert torch.allclose(medians[0], medians[2], atol=1e-4)


def test_tokens_of_all_magnitudes_at_once_have_a_median() -> None:
    x = torch.cat([tokens(50, 4) * 1e-200, tokens(30, 4), tokens(20, 4) * 1e250])
    found = geometric_median(x)
    assert 0 <= float(found.abs().max()) < 1e-190


def test_where_float64_is_too_coarse_the_best_point_is_returned() -> None:
    generator = torch.Generator().manual_seed(0)
    heaps = 1e12 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    x += heaps[(torch.arange(300) % 3 == 0).long()]
    found = geometric_median(x)
    for other in (heaps[0], heaps[1], x.mean(dim=0), x.median(dim=0).values):
        assert distance(x, found) <= distance(x, other) * (1 + 1e-12)


@pytest.mark.parametrize("share", [0.3, 0.45])
def test_median_of_a_stream_with_many_identical_tokens_equals_that_of_the_whole_matrix(share: float) -> None:
    x = tokens(6000, 10)
    x[torch.rand(6000, generator=torch.Generator().manual_seed(2)) < share] = 4.9
    batches = list(x.split(701))
    streamed = geometric_median(batches, sample=collect(batches, sample_tokens=300).sample)
    assert excess(x, streamed) <= 1e-7
    assert torch.allclose(streamed, geometric_median(x), atol=1e-6)


def test_ordinary_tokens_take_a_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    pull = median._Cloud.pull

    def counted(cloud: median._Cloud, point: torch.Tensor) -> median._Pull:
        passes.append(1)
        return pull(cloud, point)

    monkeypatch.setattr(median._Cloud, "pull", counted)
    geometric_median(tokens(4000, 60))
    assert len(passes) <= 5
