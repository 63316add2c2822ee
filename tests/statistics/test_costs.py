"""The cost of a pass of statistics: both sides of wide, and its limits."""

from autopsae.costs import Work
from autopsae.statistics.costs import work_of_statistics
from autopsae.statistics.wide import PER_DIMENSION, WIDE


def test_a_layer_has_two_products_of_all_its_tokens() -> None:
    work = work_of_statistics(64, 1000)
    multiplications = sum(1 for _ in range(64) for _ in range(64)) * 1000
    assert work == Work(float64=2 * multiplications, float32=2 * multiplications, counted=64_000)


def test_a_wide_layer_has_products_of_its_sample_alone() -> None:
    d_in = WIDE + 1
    few, many = (work_of_statistics(d_in, tokens) for tokens in (10**5, 10**6))
    assert few.float64 == many.float64 == 2 * 2 * PER_DIMENSION * d_in * d_in**2
    assert few.float32 == 0
    assert many.counted == 10 * few.counted
    assert work_of_statistics(d_in, 10**5, wide=None).float32 == 2 * 10**5 * d_in**2
    assert work_of_statistics(d_in, 100).float64 == 2 * 2 * 100 * d_in**2


def test_a_store_is_read_once() -> None:
    assert work_of_statistics(64, 1000, stored=2).stored == 128_000
