"""The slopes that are lent to a step: those of the formulas, and none outside the band."""

import pytest
import torch
from torch import Tensor

from autopsae.kernels.straight_through import jump, step
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU
from autopsae.training.objective import L0Target
from tests.ways import squared_error

BANDWIDTH = 0.4


def drawn(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(pre-activations, thresholds, weights of a sum), some pairs on either side of both edges of the band."""
    generator = torch.Generator().manual_seed(seed)
    threshold = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    pre = threshold + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64)
    weight = torch.randn(n, generator=generator, dtype=torch.float64)
    return pre.requires_grad_(), threshold.requires_grad_(), weight


def test_a_jump_is_the_value_where_over_the_threshold_with_the_slopes_of_the_formula() -> None:
    pre, threshold, weight = drawn(200, 0)
    out = jump(pre, threshold, BANDWIDTH)
    of_pre, of_threshold = torch.autograd.grad((out * weight).sum(), (pre, threshold))
    for i in range(200):
        p, t, w = pre[i].item(), threshold[i].item(), weight[i].item()
        inside = abs((p - t) / BANDWIDTH) < 1 / 2
        assert out[i].item() == (p if p > t else 0)
        assert of_pre[i].item() == (w if p > t else 0)
        assert of_threshold[i].item() == pytest.approx(-t / BANDWIDTH * w if inside else 0.0, rel=1e-12)


def test_a_step_is_one_over_the_threshold_with_the_slopes_of_the_formula() -> None:
    pre, threshold, weight = drawn(200, 1)
    out = step(pre, threshold, BANDWIDTH)
    (out * weight).sum().backward()
    assert pre.grad is None
    of_threshold = threshold.grad
    assert of_threshold is not None
    for i in range(200):
        p, t, w = pre[i].item(), threshold[i].item(), weight[i].item()
        inside = abs((p - t) / BANDWIDTH) < 1 / 2
        assert out[i].item() == (1 if p > t else 0)
        assert of_threshold[i].item() == pytest.approx(-w / BANDWIDTH if inside else 0.0, rel=1e-12)


def test_on_the_threshold_nothing_fires_and_at_the_edge_of_the_band_nothing_moves() -> None:
    threshold = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    pre = torch.tensor([1.0, 1.25, 0.75], dtype=torch.float64)
    out = jump(pre, threshold, 0.5) + step(pre, threshold, 0.5)
    assert out.tolist() == [0.0, 2.25, 0.0]
    assert torch.autograd.grad(out.sum(), threshold)[0].tolist() == [-4.0, 0.0, 0.0]


def test_the_lent_slope_is_that_of_the_mean_over_many_pre_activations() -> None:
    """The limit that the estimator is made for: d/dt E[1(pre > t)] = -density(t), d/dt E[jump] = -t density(t)."""
    pre = torch.linspace(0, 2, 20_001, dtype=torch.float64)  # density 1/2
    threshold = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    for kind in (jump, step):
        mean = kind(pre, threshold.expand(len(pre)), 0.1).mean()
        assert torch.autograd.grad(mean, threshold)[0].item() == pytest.approx(-0.5, rel=1e-2)


def test_nan_stays_nan() -> None:
    assert jump(torch.tensor([torch.nan]), torch.tensor([0.5]), 0.1).isnan().all()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_jumprelu_saes_gradients_equal_those_of_dense_matrices_by_hand(with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    tokens, d_sae, d_in, target = 60, 30, 5, L0Target(l0=2.0, coefficient=3.0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # Some thresholds are under half a bandwidth: their band reaches below zero.
    threshold = torch.linspace(0.05, 1.5, d_sae, dtype=torch.float64)
    W_dec = normal(d_sae, d_in)
    sae = SAE(
        W_enc=normal(d_sae, d_in) / 2,
        W_dec=W_dec,
        b_dec=normal(d_in) / 5,
        b_enc=normal(d_sae) / 5 if with_bias else None,
        sparsity=JumpReLU(bandwidth=BANDWIDTH),
        threshold=threshold,
    )
    y = normal(tokens, d_in)
    selection = sae.select(y)
    (squared_error(sae, y, selection) + L0Target.losses([target], sae.weights, selection)[0]).backward()

    with torch.no_grad():
        pre = sae.pre_activations(y)
        fires = (pre > threshold).double()
        codes = pre * fires
        grad_y_hat = 2 * (codes @ W_dec + sae.b_dec - y) / tokens
        grad_codes = grad_y_hat @ W_dec.T
        grad_gate = 2 * target.coefficient * d_in * (fires.sum() / tokens / target.l0 - 1) / target.l0 / tokens
        # Only positive pre-activations move a threshold.
        band = ((pre - threshold).abs() < BANDWIDTH / 2) & (pre > 0)
        slope = -band.double() / BANDWIDTH * (grad_codes * threshold + grad_gate)
        grad_pre = grad_codes * fires
        expected = {
            "log_threshold": slope.sum(dim=0) * threshold,
            "W_dec": codes.T @ grad_y_hat,
            "W_enc": grad_pre.T @ (y - sae.b_dec),
            "b_enc": grad_pre.sum(dim=0),
            "b_dec": grad_y_hat.sum(dim=0) - grad_pre.sum(dim=0) @ sae.W_enc,
        }
    assert ((pre - threshold).abs() < BANDWIDTH / 2).sum() > band.sum()
    for name, parameter in sae.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, expected[name], rtol=1e-10, atol=1e-10), name
