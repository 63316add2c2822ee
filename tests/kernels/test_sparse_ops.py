import pytest
import torch
from torch import Tensor

from autopsae.kernels import pairs as pairs_module
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.sparse_ops import decode, decode_between, encode, subtract_decoded
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from tests.ways import without_numba


@pytest.fixture(autouse=True, params=["compiled", "PyTorch", "dense"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sparse with either kind of kernels, or whole products, whatever share of the pairs is selected."""
    monkeypatch.setattr(pairs_module, "DENSE", -1.0 if request.param == "dense" else 2.0)
    if request.param == "PyTorch":
        without_numba(monkeypatch)
    return str(request.param)


def weights(d_sae: int, d_in: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)

    return {"W_enc": drawn(d_sae, d_in), "b_enc": drawn(d_sae), "W_dec": drawn(d_sae, d_in), "b_dec": drawn(d_in)}


def sparse_step(x: Tensor, w: dict[str, Tensor], k: int, target: Tensor) -> tuple[Tensor, Tensor]:
    centered = (x - w["b_dec"]).detach()
    with torch.no_grad():
        pre, latents = (centered @ w["W_enc"].T + w["b_enc"]).topk(k, dim=1)
    pairs, stack = Pairs.of_matrix(latents[None], len(w["W_enc"])), {name: t[None] for name, t in w.items()}
    values = encode(pre.flatten(), centered, pairs, stack["W_enc"], stack["b_enc"], stack["b_dec"]).relu()
    x_hat = decode(values, pairs, stack["W_dec"]) + w["b_dec"]
    return x_hat, (x_hat - target).square().sum()


def dense_step(x: Tensor, w: dict[str, Tensor], k: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """Autograd on dense matrices, with the same selection."""
    pre = (x - w["b_dec"]) @ w["W_enc"].T + w["b_enc"]
    latents = pre.detach().topk(k, dim=1).indices
    codes = torch.zeros_like(pre).scatter(1, latents, pre.gather(1, latents)).relu()
    x_hat = codes @ w["W_dec"] + w["b_dec"]
    return x_hat, (x_hat - target).square().sum()


CASES = {
    "plain": (40, 30, 7, 4),
    "all latents": (20, 12, 5, 12),
    "one latent": (9, 6, 5, 1),
    "empty latents": (3, 500, 8, 2),
    "one token": (1, 30, 4, 3),
    "over 65,536 latents": (5, 70_000, 3, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_dense_autograd(case: str) -> None:
    tokens, d_sae, d_in, k = CASES[case]
    x = torch.randn(tokens, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = x.flip(0) + 1
    results = []
    for step in (sparse_step, dense_step):
        w = weights(d_sae, d_in)
        x_hat, loss = step(x, w, k, target)
        loss.backward()
        results.append((x_hat.detach(), {name: value.grad for name, value in w.items()}))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-10, atol=1e-10)
    for name, grad in results[1][1].items():
        found = results[0][1][name]
        assert found is not None
        assert grad is not None
        assert torch.allclose(found, grad, rtol=1e-10, atol=1e-10), name


def test_ties_are_selected_once_each_and_share_no_gradient() -> None:
    w = weights(6, 3)
    with torch.no_grad():
        w["W_enc"][3] = w["W_enc"][1]
        w["b_enc"][3] = w["b_enc"][1]
    x = torch.randn(10, 3, dtype=torch.float64)
    outcomes = [step(x, w, 3, x)[1] for step in (sparse_step, dense_step)]
    assert torch.allclose(outcomes[0], outcomes[1], rtol=1e-12)


def test_with_fewer_than_k_positive_the_rest_has_no_value_and_no_gradient() -> None:
    w = weights(5, 2)
    with torch.no_grad():
        w["b_enc"].fill_(-100.0)
        w["b_enc"][2] = 100.0
    x = torch.randn(8, 2, dtype=torch.float64)
    sparse_step(x, w, 4, x)[1].backward()
    for name in ("W_enc", "W_dec", "b_enc"):
        grad = w[name].grad
        assert grad is not None
        touched = grad.reshape(5, -1).abs().sum(dim=1) > 0
        assert touched.tolist() == [False, False, True, False, False]


def test_frozen_parts_get_no_gradient_and_change_no_other() -> None:
    x = torch.randn(20, 4, dtype=torch.float64)
    grads = {}
    for frozen in ("none", "b_dec", "W_enc", "W_dec"):
        w = weights(9, 4)
        if frozen != "none":
            w[frozen].requires_grad_(False)
        sparse_step(x, w, 3, x)[1].backward()
        grads[frozen] = {name: value.grad for name, value in w.items()}
    for frozen in ("b_dec", "W_enc", "W_dec"):
        assert grads[frozen][frozen] is None
        for name, grad in grads[frozen].items():
            unfrozen = grads["none"][name]
            assert unfrozen is not None
            assert grad is None or torch.equal(grad, unfrozen), (frozen, name)


def test_pairs_sorted_by_latent_are_the_same_pairs() -> None:
    pairs = Pairs.of_matrix(torch.tensor([[[4, 0], [2, 4], [4, 1]]]), 6)
    assert pairs.counts.tolist() == [1, 1, 1, 0, 3, 0]
    assert pairs.tokens[pairs.order].tolist() == [0, 2, 1, 0, 1, 2]
    assert pairs.starts.tolist() == [0, 2, 4]


def test_tokens_may_select_different_numbers_of_latents_and_none() -> None:
    latents, tokens = torch.tensor([3, 1, 2, 3]), torch.tensor([0, 2, 2, 2])
    pairs = Pairs(latents=latents, per_token_counts=torch.tensor([1, 0, 3, 0]), d_sae=5)
    assert torch.equal(pairs.tokens, tokens)
    values = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    W_dec = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    codes = torch.zeros(4, 5, dtype=torch.float64).index_put((tokens, latents), values)
    weight = torch.randn(4, 6, dtype=torch.float64)
    dense = (codes @ W_dec * weight).sum()
    out = decode(values, pairs, W_dec[None])
    sparse = (out * weight).sum()
    assert torch.allclose(out, codes @ W_dec)
    wanted = torch.autograd.grad(dense, (values, W_dec))
    found = torch.autograd.grad(sparse, (values, W_dec))
    assert torch.allclose(found[0], wanted[0])
    assert torch.allclose(found[1], wanted[1])


def test_decoding_keeps_the_dtype() -> None:
    for dtype in (torch.float32, torch.float64):
        pairs = Pairs.of_matrix(torch.tensor([[[0, 1], [1, 2]]]), 4)
        out = decode(torch.ones(4, dtype=dtype), pairs, torch.eye(4, dtype=dtype)[None])
        assert out.dtype == dtype
        assert out.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]


RAGGED = {
    "some": [0, 3, 0, 6, 1, 0],
    "none": [0, 0, 0, 0, 0, 0],
    "all": [9, 9, 9, 9, 9, 9],
    "one token": [4],
}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("case", RAGGED)
def test_ragged_pairs_give_the_values_and_gradients_of_dense_autograd(case: str, with_bias: bool) -> None:
    d_sae, d_in, counts = 9, 5, RAGGED[case]
    generator = torch.Generator().manual_seed(2)
    # The last two latents are empty unless all are selected.
    chosen = [torch.randperm(9 if n == 9 else 7, generator=generator)[:n] for n in counts]
    pairs = Pairs(latents=torch.cat(chosen), per_token_counts=torch.tensor(counts), d_sae=d_sae)
    x = torch.randn(len(counts), d_in, dtype=torch.float64, generator=generator)
    w = weights(d_sae, d_in)
    stack = {name: t[None] for name, t in w.items()}
    b_enc = stack["b_enc"] if with_bias else None
    wanted = [value for name, value in w.items() if with_bias or name != "b_enc"]

    centered = (x - w["b_dec"]).detach()
    pre = (x - w["b_dec"]) @ w["W_enc"].T + (w["b_enc"] if with_bias else 0)
    picked = pre[pairs.tokens, pairs.latents]
    codes = torch.zeros_like(pre).index_put((pairs.tokens, pairs.latents), picked.tanh())
    dense = codes @ w["W_dec"] + w["b_dec"]
    expected = torch.autograd.grad((dense * x).sum() + dense.square().sum(), wanted)

    values = encode(picked.detach(), centered, pairs, stack["W_enc"], b_enc, stack["b_dec"]).tanh()
    found = decode(values, pairs, stack["W_dec"]) + w["b_dec"]
    assert torch.allclose(found, dense, rtol=1e-10, atol=1e-10)
    for mine, other in zip(
        torch.autograd.grad((found * x).sum() + found.square().sum(), wanted), expected, strict=True
    ):
        assert torch.allclose(mine, other, rtol=1e-10, atol=1e-10)


def test_sums_per_latent_equal_a_loop() -> None:
    pairs = Pairs(latents=torch.tensor([3, 1, 3]), per_token_counts=torch.tensor([2, 0, 1]), d_sae=5)
    assert pairs.sum_per_latent(torch.tensor([1.0, 2.0, 4.0])).tolist() == [[0, 2, 0, 5, 0]]


def test_tokens_that_want_a_gradient_get_the_dense_one() -> None:
    w = weights(60, 7)
    sae = SAE(
        W_enc=w["W_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"], b_enc=w["b_enc"], sparsity=TopK(k=4), affine=None
    )
    grads = []
    for through in (sae, lambda x: dense_step(x, w, 4, x.detach())[0]):
        x = torch.randn(30, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
        through(x).square().sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert torch.allclose(grads[0], grads[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("members", [1, 3])
def test_the_squared_errors_of_stacked_members_have_the_gradients_of_dense_autograd(
    members: int, with_bias: bool
) -> None:
    """Members that select different numbers of latents, one of them none; each error has its own weight."""
    batch, d_sae, d_in = 6, 9, 5
    generator = torch.Generator().manual_seed(4)
    stack = {
        name: torch.stack([weights(d_sae, d_in, seed=m)[name].detach() for m in range(members)]).requires_grad_()
        for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    }
    counts = torch.randint(0, 5, (members, batch), generator=generator)
    counts[-1] = torch.tensor([0, 3, 0, 0, 9, 0]) if members == 1 else 0
    chosen = [torch.randperm(d_sae, generator=generator)[:n] + d_sae * m for m in range(members) for n in counts[m]]
    pairs = Pairs(latents=torch.cat(chosen), per_token_counts=counts.flatten(), d_sae=d_sae, members=members)
    y = torch.randn(members, batch, d_in, dtype=torch.float64, generator=generator)
    weight = torch.tensor([0.5, 3.0, 2.0][:members], dtype=torch.float64)
    wanted = [value for name, value in stack.items() if with_bias or name != "b_enc"]

    pre = (y - stack["b_dec"][:, None]) @ stack["W_enc"].mT + (stack["b_enc"][:, None] if with_bias else 0)
    member, token = pairs.latents // d_sae, pairs.tokens % batch
    place = (member, token, pairs.latents % d_sae)
    codes = torch.zeros_like(pre).index_put(place, pre[place].tanh())
    left = y - codes @ stack["W_dec"] - stack["b_dec"][:, None]
    errors = left.square().sum(dim=(1, 2))
    expected = torch.autograd.grad((errors * weight).sum(), wanted)

    centered = (y - stack["b_dec"][:, None]).detach()
    b_enc = stack["b_enc"] if with_bias else None
    rows = centered.flatten(0, 1)
    values = encode(pre[place].detach(), rows, pairs, stack["W_enc"], b_enc, stack["b_dec"]).tanh()
    found_left, found = subtract_decoded(centered, values, pairs, stack["W_dec"], stack["b_dec"])
    assert torch.allclose(found_left, left, rtol=1e-10, atol=1e-10)
    assert torch.allclose(found, errors, rtol=1e-10, atol=1e-10)
    for mine, other in zip(torch.autograd.grad((found * weight).sum(), wanted), expected, strict=True):
        assert torch.allclose(mine, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("first", "last"), [(0, 9), (0, 1), (3, 7), (8, 9), (4, 5)])
def test_decoding_some_latents_is_decoding_with_zero_codes_for_the_others(
    members: int, first: int, last: int
) -> None:
    """Also its gradients; members select different numbers of latents, and one token none."""
    batch, d_sae, d_in = 6, 9, 5
    generator = torch.Generator().manual_seed(4)
    counts = torch.randint(0, 5, (members, batch), generator=generator)
    counts[-1, 2] = 0
    chosen = [torch.randperm(d_sae, generator=generator)[:n] + d_sae * m for m in range(members) for n in counts[m]]
    pairs = Pairs(latents=torch.cat(chosen), per_token_counts=counts.flatten(), d_sae=d_sae, members=members)
    values = torch.randn(len(pairs.latents), dtype=torch.float64, generator=generator, requires_grad=True)
    W_dec = torch.randn(members, d_sae, d_in, dtype=torch.float64, generator=generator, requires_grad=True)
    slope = torch.randn(members, batch, d_in, dtype=torch.float64, generator=generator)

    place = (pairs.latents // d_sae, pairs.tokens % batch, pairs.latents % d_sae)
    codes = torch.zeros(members, batch, d_sae, dtype=torch.float64).index_put(place, values)
    expected = codes[..., first:last] @ W_dec[:, first:last]
    found = decode_between(values, pairs, W_dec, first, last)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((out * slope).sum(), (values, W_dec)) for out in (found, expected)]
    for mine, other in zip(*gradients, strict=True):
        assert torch.allclose(mine, other, rtol=1e-10, atol=1e-12)
