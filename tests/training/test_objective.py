"""Where gradients arrive: a revival method must reach exactly the latents that it claims to reach."""

import pytest
import torch
from torch import Tensor

from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training.objective import squared_error
from autopsae.training.revival import AuxK

ALIVE, BY_TOPK, BY_RELU = range(6), range(6, 9), range(9, 12)
D_IN = 8


def sae_with_known_fates() -> tuple[SAE, Tensor]:
    """An SAE and tokens on which latents 0-5 fire, 6-8 are positive but never win, and 9-11 are never positive."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, D_IN, generator=generator, dtype=torch.float64) + 0.1
    W = torch.rand(12, D_IN, generator=generator, dtype=torch.float64)
    W[list(BY_TOPK)] *= 1e-3
    W[list(BY_RELU)] *= -1
    sae = SAE(W_enc=W, W_dec=W / W.norm(dim=1, keepdim=True), b_dec=torch.zeros(D_IN).double(), sparsity=TopK(k=3))
    with torch.no_grad():  # each of the six wins somewhere
        for latent in ALIVE:
            sae.W_enc[latent] = x[latent] * 3 / x[latent].norm()
    return sae, x


def reached(gradient: Tensor | None) -> list[int]:
    assert gradient is not None
    return [int(row) for row in (gradient.abs().sum(dim=1) > 0).nonzero()[:, 0]]


def gradients(*, error: bool, auxk: AuxK | None, dead: list[int]) -> tuple[list[int], list[int]]:
    """The latents whose encoder and decoder rows the loss reaches."""
    sae, x = sae_with_known_fates()
    y_hat = sae.reconstruct(sae.select(x))
    mask = torch.zeros(12, dtype=torch.bool)
    mask[dead] = True
    loss = squared_error(x, y_hat) if error else torch.zeros(())
    loss = loss + (auxk.loss(sae, x, y_hat, mask) if auxk else 0)
    loss.backward()
    return reached(sae.W_enc.grad), reached(sae.W_dec.grad)


def test_the_latents_of_this_file_have_the_fates_they_should() -> None:
    sae, x = sae_with_known_fates()
    codes, pre = sae.encode(x), sae.pre_activations(x)
    assert reached(codes.T) == list(ALIVE)
    assert (pre[:, list(BY_TOPK)] > 0).any(dim=0).all()
    assert (pre[:, list(BY_RELU)] <= 0).all()


def test_reconstruction_reaches_the_latents_that_fire_and_no_other() -> None:
    assert gradients(error=True, auxk=None, dead=[]) == (list(ALIVE), list(ALIVE))


def test_auxk_reaches_dead_by_topk_latents_and_not_dead_by_relu_ones() -> None:
    silent = [*BY_TOPK, *BY_RELU]
    assert gradients(error=False, auxk=AuxK(k_aux=6), dead=silent) == (list(BY_TOPK), list(BY_TOPK))


def test_auxk_leaves_the_living_alone() -> None:
    assert gradients(error=False, auxk=AuxK(k_aux=6), dead=[7]) == ([7], [7])


def test_auxk_is_the_residuals_unexplained_share_and_trains_no_residual() -> None:
    sae, x = sae_with_known_fates()
    y_hat = sae.reconstruct(sae.select(x))
    dead = torch.zeros(12, dtype=torch.bool)
    dead[list(BY_TOPK)] = True
    loss = AuxK(coefficient=0.25, k_aux=2).loss(sae, x, y_hat, dead)
    residual = x - y_hat.detach()
    pre = sae.pre_activations(x).detach()
    codes = torch.zeros_like(pre)
    for token, row in enumerate(pre):
        for latent in sorted(BY_TOPK, key=lambda i: -float(row[i]))[:2]:
            codes[token, latent] = row[latent].clamp_min(0)
    error = (residual - codes @ sae.W_dec).square().sum()
    expected = 0.25 * error / (residual - residual.mean(dim=0)).square().sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    loss.backward()
    assert reached(sae.W_dec.grad) == list(BY_TOPK)


def test_auxk_without_a_silent_latent_is_zero() -> None:
    sae, x = sae_with_known_fates()
    loss = AuxK().loss(sae, x, sae.reconstruct(sae.select(x)), torch.zeros(12, dtype=torch.bool))
    assert float(loss) == 0.0
