"""Laws of the counts of latents against concepts: loops and NumPy agree for any number of threads."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autopsae.kernels import concepts, numba_concepts
from tests.ways import without_numba

pytestmark = pytest.mark.quick

TOKENS, D_SAE, CONCEPTS, LEVELS = 6000, 50, 9, 3


def counted() -> list[NDArray[np.int32]]:
    """(fired, both, hit) of many pairs, so that two threads are used where there are two."""
    chance = np.random.default_rng(0)
    each = chance.integers(0, 25, TOKENS)
    ends = np.append(0, np.cumsum(each))
    latents = chance.integers(0, D_SAE, ends[-1]).astype(np.int32)
    reached = chance.integers(-1, LEVELS, ends[-1]).astype(np.int8)
    concept_ends = np.append(0, np.cumsum(chance.integers(0, 4, TOKENS)))
    numbers = chance.integers(0, CONCEPTS, concept_ends[-1]).astype(np.int32)
    splits = chance.integers(0, 2, TOKENS).astype(np.int8)
    fired, both = np.zeros((2, D_SAE, LEVELS), np.int32), np.zeros((2, D_SAE, LEVELS, CONCEPTS), np.int32)
    hit = np.zeros_like(both)
    concepts.count_tokens(latents, reached, ends, numbers, concept_ends, splits, fired, both)
    firsts = chance.integers(0, TOKENS - 40, 500)
    lasts = firsts + chance.integers(1, 40, 500)
    of = chance.integers(0, CONCEPTS, 500).astype(np.int32)
    concepts.count_domains(latents, reached, ends, firsts, lasts, of, splits[firsts], hit)
    return [fired, both, hit]


def test_two_threads_and_numpy_count_as_one_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    one, before = counted(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = counted()
    finally:
        torch.set_num_threads(before)
    without_numba(monkeypatch)
    for a, b, c in zip(one, two, counted(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        assert a.sum() > 0


def test_without_numba_no_compiled_loop_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    without_numba(monkeypatch)
    for loop in ("levels", "count_tokens", "count_domains"):
        monkeypatch.setattr(numba_concepts, loop, None)
    counted()
    concepts.levels(np.ones(1, np.float32), np.zeros(1, np.int32), np.ones(1, np.float32), np.array([0.5]))


def test_a_level_counts_the_thresholds_that_are_exceeded_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([1.0, 0.5, 0.50000006, 0.1, 0.3], np.float32)
    latents, maxima = np.array([0, 0, 0, 0, 1], np.int32), np.array([1.0, 0.3], np.float32)
    thresholds = np.array([0.0, 0.5, 0.8])
    expected = [2, 0, 1, 0, 2]
    assert concepts.levels(values, latents, maxima, thresholds).tolist() == expected
    without_numba(monkeypatch)
    assert concepts.levels(values, latents, maxima, thresholds).tolist() == expected
