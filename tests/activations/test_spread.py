import numpy as np
import pytest
from scipy.stats import binomtest

from autopsae.activations.spread import spread

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("chosen", "of"), [(1, 1), (1, 9), (7, 100), (50, 100), (99, 100), (100, 100), (333, 10_007)]
)
def test_one_place_comes_from_each_equal_stretch(chosen: int, of: int) -> None:
    places = spread(0, of, chosen=chosen, of=of)
    bounds = np.arange(chosen + 1) * of // chosen
    assert len(places) == chosen
    assert ((places >= bounds[:-1]) & (places < bounds[1:])).all()


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
@pytest.mark.parametrize(("chosen", "of"), [(1, 777), (70, 777), (776, 777), (777, 777)])
def test_the_places_do_not_depend_on_how_they_are_asked_for(chosen: int, of: int, size: int) -> None:
    parts = [spread(first, min(first + size, of), chosen=chosen, of=of) for first in range(0, of, size)]
    assert np.array_equal(np.concatenate(parts), spread(0, of, chosen=chosen, of=of))


@pytest.mark.parametrize("context", [10, 20, 100, 128, 1000])
def test_first_tokens_of_contexts_are_chosen_as_often_as_others(context: int) -> None:
    """Every tenth token would be a first one in contexts of 10, and in one of ten of contexts of 100."""
    places = spread(0, 1_000_000, chosen=100_000, of=1_000_000)
    firsts = int((places % context == 0).sum())
    assert binomtest(firsts, len(places), 1 / context).pvalue > 1e-3
