"""Before any library: a look at a stream that takes nothing from it, and tokens mapped as prescribed."""

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.cure.stream import map_tokens, peek, unmap_sae
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from tests.cure.cases import D_IN, D_SAE, WHITENED, K, X

pytestmark = pytest.mark.quick


def test_a_look_takes_nothing_from_the_stream() -> None:
    stream = iter([torch.arange(12.0).reshape(2, 3, 2), torch.arange(8.0).reshape(4, 2), torch.ones(1, 2)])
    looked_at, whole = peek(stream, 8)
    assert looked_at.tolist() == [*torch.arange(12.0).reshape(6, 2).tolist(), [0, 1], [2, 3]]
    assert [tuple(batch.shape) for batch in whole] == [(2, 3, 2), (4, 2), (1, 2)]


def test_a_stream_that_ends_too_soon_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least 9 tokens, the stream ended after 4"):
        peek([torch.ones(4, 2)], 9)


def test_what_is_no_stream_of_finite_batches_is_refused_by_the_map() -> None:
    flat = WHITENED.remedy.affine(X)
    torch.testing.assert_close(next(iter(map_tokens(WHITENED, [X[None]])))[0], flat)
    for wrong in (X, [X[:, :-1]], [X[0]]):
        with pytest.raises(InputError, match=rf"expected batches \[tokens, d_in = {D_IN}\], got one of shape"):
            [*map_tokens(WHITENED, wrong)]
    for value in (torch.nan, torch.inf):
        bad = X.clone()
        bad[3, 1] = value
        with pytest.raises(InputError, match="map_tokens: expected finite tokens"):
            [*map_tokens(WHITENED, [X, bad])]


def test_an_sae_of_mapped_tokens_is_made_one_of_raw_tokens() -> None:
    [y] = map_tokens(WHITENED, [X])
    generator = torch.Generator().manual_seed(0)
    inner = born(untouched(D_IN), d_sae=D_SAE, sparsity=TopK(k=K), scaled=False, generator=generator).eval()
    whole = unmap_sae(inner, WHITENED)
    torch.testing.assert_close(whole.encode(X), inner.encode(y), rtol=1e-3, atol=1e-4)
    raw = WHITENED.remedy.affine.invert(inner(y).double()).float()
    torch.testing.assert_close(whole(X), raw, rtol=1e-3, atol=1e-2)
    with pytest.raises(InputError, match="expected an SAE of plain weights"):
        unmap_sae(born(WHITENED, d_sae=D_SAE, sparsity=TopK(k=K), sample=X, generator=generator), WHITENED)
