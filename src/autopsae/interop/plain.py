"""What every library stores, each in its own way: two matrices and two biases, all else multiplied in."""

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.remedies.affine import Affine
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, Sparsity

SMALLEST_THRESHOLD = 1e-30
"""Stands for JumpReLU thresholds of zero or less, under which all positive latents fire."""
LARGEST_THRESHOLD = 1e30
"""Stands for JumpReLU thresholds over it, under which no latent fires."""


def scale_map(d_in: int, factor: float) -> Affine:
    """x -> factor x."""
    return Affine(center=torch.zeros(d_in, dtype=torch.float64, device="cpu"), scale=factor)


def unbias_map(d_in: int) -> Affine:
    """What turns tokens that were divided by the biased standard deviation into those divided by the unbiased."""
    return scale_map(d_in, float(((d_in - 1) / d_in) ** 0.5))


@dataclass(frozen=True, kw_only=True, eq=False)
class Plain:
    """In float64: pre-activations W_enc (y - b_dec) + b_enc, reconstruction z W_dec + b_dec."""

    W_enc: Float[Tensor, "d_sae d_in"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_enc: Float[Tensor, "d_sae"]
    b_dec: Float[Tensor, "d_in"]
    threshold: Float[Tensor, "..."] | None = None
    """JumpReLU's, of each latent; BatchTopK's, if it has learned one."""

    @staticmethod
    @torch.no_grad()
    def of(sae: SAE, before: Affine | None = None) -> "Plain":
        """An SAE with its affine map multiplied in. before: one more map, from what the plain weights shall take to
        what the SAE takes.
        """
        sae = deepcopy(sae).double()
        affine = sae.affine if before is None else before.then(sae.affine)
        whole = SAE(
            W_enc=sae.W_enc,
            W_dec=sae.W_dec,
            b_enc=sae.W_enc.new_zeros(sae.d_sae) if sae.b_enc is None else sae.b_enc,
            b_dec=sae.b_dec,
            b_pre=sae.b_pre,
            sparsity=sae.sparsity,
            threshold=sae.threshold,
            affine=affine,
        ).fold()
        assert whole.b_enc is not None
        return Plain(
            W_enc=whole.W_enc.detach(),
            W_dec=whole.W_dec.detach(),
            b_enc=whole.b_enc.detach(),
            b_dec=whole.b_dec.detach(),
            threshold=None if sae.threshold is None else sae.threshold.detach(),
        )

    def unit(self) -> "Plain":
        """The norms of the decoder rows moved to the encoder: the same reconstructions from codes that are larger
        by those norms, and selected so. A latent whose decoder row is zero gets another, and never fires.
        """
        norms = self.W_dec.norm(dim=1, keepdim=True)
        any_row = torch.zeros_like(self.W_dec)
        any_row[:, 0] = 1
        W_dec = torch.where(norms > 0, self.W_dec / norms.where(norms > 0, 1), any_row)
        return replace(self, W_enc=self.W_enc * norms, W_dec=W_dec, b_enc=self.b_enc * norms[:, 0])

    def by_norm(self) -> "Plain":
        """For weights whose pre-activations are compared with thresholds after they are multiplied by the norms of
        the decoder rows, and whose codes are not: the thresholds are divided by these norms instead.
        """
        assert self.threshold is not None
        norms = self.W_dec.norm(dim=1)
        return replace(self, threshold=self.threshold / norms.clamp_min(SMALLEST_THRESHOLD))

    def add_centering(self) -> "Plain":
        """From weights whose encoder takes tokens without subtracting b_dec: b_enc + W_enc b_dec."""
        return replace(self, b_enc=self.b_enc + self.W_enc @ self.b_dec)

    def remove_centering(self) -> "Plain":
        """Weights whose encoder takes tokens without subtracting b_dec: b_enc - W_enc b_dec."""
        return replace(self, b_enc=self.b_enc - self.W_enc @ self.b_dec)

    def sae(
        self, *, sparsity: Sparsity, dtype: torch.dtype, affine: Affine | None = None, layer_norm: bool = False
    ) -> SAE:
        """Our SAE of these weights, in evaluation mode."""
        threshold = self.threshold
        if threshold is not None and isinstance(sparsity, JumpReLU):
            threshold = threshold.clamp(SMALLEST_THRESHOLD, LARGEST_THRESHOLD)
        return SAE(
            W_enc=self.W_enc.to(dtype),
            W_dec=self.W_dec.to(dtype),
            b_enc=self.b_enc.to(dtype),
            b_dec=self.b_dec.to(dtype),
            sparsity=sparsity,
            threshold=threshold,
            affine=affine,
            layer_norm=layer_norm,
        ).eval()
