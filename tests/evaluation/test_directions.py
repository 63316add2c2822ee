"""Mean max cosine similarity: a loop in NumPy, cases computed by hand, limits, messages."""

import numpy as np
import pytest
import torch

from autopsae import InputError
from autopsae.evaluation import mmcs
from autopsae.evaluation.directions import unit_rows

pytestmark = pytest.mark.quick


def test_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    W_dec, features = rng.normal(size=(7, 5)), rng.normal(size=(11, 5))
    best = [max(float(w @ f) / float(np.sqrt(w @ w) * np.sqrt(f @ f)) for w in W_dec) for f in features]
    expected = sum(best) / len(best)
    assert mmcs(torch.tensor(W_dec), torch.tensor(features)) == pytest.approx(expected, rel=1e-12)
    assert mmcs(torch.tensor(W_dec).float(), torch.tensor(features)) == pytest.approx(expected, rel=1e-6)


def test_a_case_by_hand() -> None:
    # Cosines with (1, 0): 0.6 and 0; with (0, 2): 0.8 and -1.
    rows = torch.tensor([[3.0, 4.0], [0.0, -1.0]])
    assert mmcs(rows, torch.tensor([[1.0, 0.0], [0.0, 2.0]])) == pytest.approx(0.7)


def test_is_one_where_every_feature_has_a_row_and_knows_no_order_and_no_length() -> None:
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([3 * features.flip(0), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))])
    assert mmcs(rows, features) == pytest.approx(1.0)
    assert mmcs(features, rows) < 0.999


def test_the_opposite_of_a_feature_does_not_count() -> None:
    assert mmcs(torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])) == -1.0


def test_a_zero_row_is_at_cosine_zero() -> None:
    assert mmcs(torch.tensor([[-1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0]])) == 0.0


@pytest.mark.parametrize("shape", [(3, 5), (0, 4)])
def test_matrices_that_do_not_fit_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="of one width, neither empty, got"):
        mmcs(torch.ones(2, 4), torch.ones(shape))


@pytest.mark.parametrize("length", [1e-30, 1e-13, 1e30])
def test_no_row_is_too_short_or_too_long(length: float) -> None:
    rows, features = (torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = mmcs(rows, features)
    assert mmcs(rows * length, features) == pytest.approx(expected, rel=1e-5)
    assert mmcs(rows, features * length) == pytest.approx(expected, rel=1e-5)
    lengths = unit_rows(torch.cat([rows * length, torch.zeros(1, 4)])).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0] * 6 + [0.0]))
