"""Products, with a screen or without, choose what the whole matrix of pre-activations says."""

import pytest
import torch
from torch import Tensor

from autopsae.kernels.screen import Products
from autopsae.sae.product import Product, WholeProduct
from autopsae.sae.shared_product import SharedProduct
from tests.ways import without_numba

MEMBERS, TOKENS, D_IN, D_SAE, K = 2, 70, 130, 1056, 12


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parts() -> tuple[Tensor, Tensor, Tensor]:
    x, W = normal(MEMBERS, TOKENS, D_IN, seed=0), normal(MEMBERS, D_SAE, D_IN, seed=1) / D_IN**0.5
    return x, W, normal(MEMBERS, D_SAE, seed=2) - 1


def exact(x: Tensor, W: Tensor, b_enc: Tensor) -> Tensor:
    return x.double() @ W.double().mT + b_enc.double()[..., None, :]


@pytest.mark.parametrize("products", ["auto", "float32", "bfloat16", "int8", None])
def test_members_choose_the_largest_of_their_own(products: Products | None) -> None:
    x, W, b_enc = parts()
    product = Product(x, W, b_enc, products=products)
    values, latents = product.largest(K)
    expected = exact(x, W, b_enc).topk(K, dim=2)
    assert torch.equal(latents.sort(dim=2).values, expected.indices.sort(dim=2).values)
    assert torch.allclose(values.sort(dim=2).values.double(), expected.values.sort(dim=2).values, atol=1e-5)
    assert torch.equal(product.positive, (exact(x, W, b_enc) > 0).any(dim=1))


@pytest.mark.parametrize("products", ["auto", "bfloat16", None])
def test_pairs_above_are_numbered_through_all_members(products: Products | None) -> None:
    x, W, b_enc = parts()
    product = Product(x, W, b_enc, products=products)
    values, pairs = product.pairs_above(torch.full((MEMBERS, D_SAE), 0.5))
    over = exact(x, W, b_enc) > 0.5
    assert pairs.per_token_counts.tolist() == over.sum(dim=2).flatten().tolist()
    assert torch.equal(pairs.latents, over.nonzero()[:, 2] + D_SAE * over.nonzero()[:, 0])
    assert (values > 0.5).all()


def test_a_member_whose_weights_have_no_bound_is_multiplied_whole() -> None:
    x, W, b_enc = parts()
    b_enc[1, 7] = 1e33
    values, latents = Product(x, W, b_enc, products="bfloat16").largest(K)
    assert (latents[1] == 7).any(dim=1).all()
    first, _ = Product(x[:1], W[:1], b_enc[:1], products="bfloat16").largest(K)
    assert torch.equal(values[:1], first)


@pytest.mark.parametrize("with_numba", [True, False])
@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_a_shared_product_gives_each_bias_its_own_pre_activations(
    monkeypatch: pytest.MonkeyPatch, with_numba: bool, some: bool, wide: bool
) -> None:
    if not with_numba:
        without_numba(monkeypatch)
    d_sae, d_in = (D_SAE, D_IN) if wide else (60, 9)
    W, x = normal(d_sae, d_in, seed=3) / d_in**0.5, normal(TOKENS, d_in, seed=4)
    shared = SharedProduct(W)
    kept = torch.arange(TOKENS) % 3 > 0 if some else None
    asked = torch.arange(d_sae) % 2 == 0
    for block in (x, 2 * x):
        shared.multiply(block)
        for seed in (5, 6):
            b_enc = normal(d_sae, seed=seed) - 2
            pre = exact(block if kept is None else block[kept], W, b_enc)
            largest = torch.zeros_like(pre, dtype=torch.bool).scatter(1, pre.topk(4, dim=1).indices, True)
            product = shared.with_bias(b_enc, kept)
            assert torch.equal(product.which_reach(4, asked), ((pre > 0) & largest).any(dim=0) & asked)
            assert torch.equal(product.positive[0], (pre > 0).any(dim=0))
            over = shared.with_bias(b_enc, kept).any_above(torch.full((1, d_sae), 0.7))
            assert torch.equal(over[0], (pre > 0.7).any(dim=0))
            again, _ = shared.with_bias(b_enc, kept).largest_of_groups(3)
            assert torch.allclose(again[0].double(), pre.unflatten(1, (3, -1)).amax(dim=2), atol=1e-5)


def test_whoever_iterates_sees_all_rows() -> None:
    x, W, b_enc = parts()
    for product in (Product(x, W, b_enc), WholeProduct(x, W, b_enc)):
        rows = torch.cat([block.rows.clone() for block in product])
        assert torch.allclose(rows.double() + b_enc.double()[:, None], exact(x, W, b_enc), atol=1e-4)
