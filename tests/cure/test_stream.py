"""A look at a stream of activations that takes nothing from it."""

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.cure.stream import peek

pytestmark = pytest.mark.quick


def test_a_look_takes_nothing_from_the_stream() -> None:
    stream = iter([torch.arange(12.0).reshape(2, 3, 2), torch.arange(8.0).reshape(4, 2), torch.ones(1, 2)])
    looked_at, whole = peek(stream, 8)
    assert looked_at.tolist() == [*torch.arange(12.0).reshape(6, 2).tolist(), [0, 1], [2, 3]]
    assert [tuple(batch.shape) for batch in whole] == [(2, 3, 2), (4, 2), (1, 2)]


def test_a_stream_that_ends_too_soon_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least 9 tokens, the stream ended after 4"):
        peek([torch.ones(4, 2)], 9)
