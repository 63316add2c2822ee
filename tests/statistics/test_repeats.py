from itertools import permutations

import numpy as np
import pytest
import torch

from autopsae.statistics import repeats
from autopsae.statistics.collect import collect
from autopsae.statistics.repeats import OneOfEach, Repeats, RowCounts, count_repeats, row_hashes


def tokens(n: int, d_in: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))


def plain(x: torch.Tensor) -> Repeats:
    """The slow, obvious version."""
    distinct, counts = np.unique(x.double().numpy() + 0.0, axis=0, return_counts=True)
    return Repeats(
        tokens=len(x),
        distinct=len(distinct),
        distinct_estimate=len(distinct),
        zero_rows=int((x == 0).all(dim=1).sum()),
        largest_share=counts.max() / len(x),
    )


def padded() -> torch.Tensor:
    x = tokens(900)
    x[::3] = 0
    return x


LAYERS = {
    "all differ": tokens(500),
    "a third padded": padded(),
    "a constant in every second row": torch.where(torch.arange(600)[:, None] % 2 == 0, torch.ones(6), tokens(600)),
    "50 vectors": tokens(50)[torch.arange(700) % 50],
    "one vector": torch.ones(40, 6),
    "half precision": (tokens(3000) * 3).to(torch.bfloat16).float().round(),
    "float64": tokens(300).double() / 3,
    "one number of a row differs": torch.eye(6).repeat(50, 1) * torch.arange(300)[:, None],
}


@pytest.mark.parametrize("name", LAYERS)
def test_counts_equal_the_plain_way_and_do_not_depend_on_the_batches(name: str) -> None:
    x = LAYERS[name]
    for size in (1, 37, 4096):
        batches = list(x.split(size))
        assert count_repeats(batches) == plain(x)
        assert collect(batches).rows.repeats() == plain(x)


def test_negative_zero_is_zero() -> None:
    x = torch.tensor([[0.0, -0.0], [-0.0, 0.0], [0.0, 1.0], [-0.0, 1.0]])
    assert count_repeats(x) == plain(x) == Repeats(4, 2, 2, 2, 0.5)


def counts(x: torch.Tensor) -> RowCounts:
    return RowCounts.of(row_hashes(x.double()), zero_rows=int((x == 0).all(dim=1).sum()))


@pytest.mark.parametrize("bound", [8, 64, 10_000])
def test_parts_merge_in_any_order_to_the_same_counts(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "COUNTED", bound)
    monkeypatch.setattr(repeats, "_KEPT", bound + 1)
    parts = [padded(), tokens(200, seed=1), padded(), LAYERS["50 vectors"]]
    results = []
    for order in permutations(range(4)):
        merged = counts(parts[order[0]])
        for part in order[1:]:
            merged = merged.merge(counts(parts[part]))
        results.append(merged)
    first, whole = results[0], counts(torch.cat(parts))
    for merged in [*results, whole]:
        assert merged.repeats() == first.repeats()
        assert np.array_equal(merged.hashes, first.hashes)
        assert np.array_equal(merged.counts, first.counts)
        assert np.array_equal(merged.counters, first.counters)


def test_over_the_bound_the_number_of_distinct_vectors_is_estimated_and_the_share_hardly_too_high(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeats, "COUNTED", 1000)
    monkeypatch.setattr(repeats, "_KEPT", 1001)
    x = tokens(20_000)
    x[::4] = 3
    found = count_repeats(x)
    assert found.distinct is None
    assert found.distinct_estimate == pytest.approx(15_001, rel=4 / 1000**0.5)
    assert 0.25 <= found.largest_share < 0.25 + 0.001


@pytest.mark.parametrize("bound", [2, 3])
def test_as_many_distinct_vectors_as_the_bound_are_still_exact(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "COUNTED", bound)
    monkeypatch.setattr(repeats, "_KEPT", bound + 1)
    assert count_repeats(tokens(3)).distinct == (3 if bound == 3 else None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_of_any_precision_hash_apart(dtype: torch.dtype) -> None:
    # Each row differs from another in one number, by the last digit that its type has.
    x = torch.ones(2000, 3, dtype=dtype)
    x[:, 1] = 1 + (torch.arange(2000) % 100).to(dtype) * torch.finfo(dtype).eps
    x[:, 2] = torch.arange(2000) // 100
    assert len(np.unique(row_hashes(x.double()))) == 2000


def test_hashes_are_uniform() -> None:
    leading = (row_hashes(torch.eye(4000, dtype=torch.float64)) >> np.uint64(60)).astype(int)
    assert np.bincount(leading, minlength=16).min() > 190


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_one_of_each_keeps_the_first_of_each_vector_in_order_on_every_pass(size: int) -> None:
    x = torch.cat([padded(), LAYERS["50 vectors"], padded(), tokens(300, seed=5)]).double()
    _, first = np.unique(x.numpy(), axis=0, return_index=True)
    expected = x[torch.from_numpy(np.sort(first))]
    stream = OneOfEach(list(x.split(size)))
    for _ in range(2):
        assert torch.equal(torch.cat(list(stream)), expected)
    assert count_repeats(stream).largest_share == 1 / len(expected)


def test_one_of_each_of_many_chunks_equals_a_set() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 40, (30_000, 3), generator=generator).double()
    kept = torch.cat(list(OneOfEach(list(x.split(997)))))
    assert len(kept) == len({tuple(row) for row in x.tolist()})
