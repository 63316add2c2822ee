"""How silent latents come back: by a gradient (AuxK, ghost gradients), or drawn afresh (resampling).

AuxK reaches latents that are dead-by-TopK alone, ghost gradients reach all silent ones; tests hold them to that.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.arrays import InputError
from autopsae.sae.model import SAE
from autopsae.sae.selection import Product
from autopsae.sae.sparse_ops import Pairs, decode, encode
from autopsae.sae.sparsity import TopK


@dataclass(frozen=True, kw_only=True)
class AuxK:
    """Let the silent latents explain what the others left over (Gao et al. 2024; paper A.2).

    Of the latents that have been silent for `dead_after_tokens`, each token takes the `k_aux` with the largest
    pre-activations, ReLU'd, and the loss is their error on the residual, over the residual's variance. The residual
    carries no gradient. As the codes pass a ReLU, dead-by-ReLU latents get no gradient: AuxK cannot revive them.
    """

    coefficient: float = 1 / 32
    dead_after_tokens: int = 256_000
    k_aux: int | None = None
    """Latents per token; None for d_in / 2."""

    def __post_init__(self) -> None:
        if not self.coefficient >= 0 or self.dead_after_tokens < 1 or (self.k_aux is not None and self.k_aux < 1):
            raise InputError(f"AuxK: expected coefficient >= 0, dead_after_tokens >= 1, k_aux >= 1, got {self}")

    def loss(
        self,
        sae: SAE,
        y: Float[Tensor, "tokens d_in"],
        y_hat: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, "d_sae"],
    ) -> Float[Tensor, ""]:
        """coefficient * ||residual - explained||^2 / ||residual - its mean||^2; 0 where no latent is silent, or
        the residual does not vary.
        """
        silent = dead.nonzero()[:, 0]
        if not len(silent):
            return y.new_zeros(())
        residual = (y - y_hat).detach()
        variance = (residual - residual.mean(dim=0)).square().sum()
        if not float(variance) > 0:  # nothing is left to explain
            return y.new_zeros(())
        centered = (y - sae.b_dec).detach()
        with torch.no_grad():
            b_enc = None if sae.b_enc is None else sae.b_enc[silent]
            product = Product(centered, sae.W_enc[silent], b_enc)
            k_aux = min(self.k_aux or max(1, sae.d_in // 2), len(silent))
            pre, among_silent = TopK(k=k_aux).select(product, None)
            pairs = Pairs.of(silent[among_silent.latents], among_silent.per_token_counts, d_sae=sae.d_sae)
        codes = encode(pre, centered, pairs, sae.W_enc, sae.b_enc, sae.b_dec).relu()
        explained = decode(codes, pairs, sae.W_dec)
        return self.coefficient * (residual - explained).square().sum() / variance


@dataclass(frozen=True, kw_only=True)
class GhostGradients:
    """Let the silent latents explain half of the residual through an exponential, whose slope is never zero (Jermyn
    and Templeton 2024).

    Each token's ghost reconstruction, exp(pre) W_dec over the silent latents, is brought to half the residual's
    norm, and its squared error to the size of the reconstruction's; residual, both factors and the living carry no
    gradient. So dead-by-ReLU latents are reached too, at the price of dense products over the silent ones.
    """

    coefficient: float = 1.0
    dead_after_tokens: int = 256_000

    def __post_init__(self) -> None:
        if not self.coefficient >= 0 or self.dead_after_tokens < 1:
            raise InputError(f"GhostGradients: expected coefficient >= 0, dead_after_tokens >= 1, got {self}")

    def loss(
        self,
        sae: SAE,
        y: Float[Tensor, "tokens d_in"],
        y_hat: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, "d_sae"],
    ) -> Float[Tensor, ""]:
        """coefficient * the rescaled error of the ghosts; 0 where no latent is silent."""
        silent = dead.nonzero()[:, 0]
        if not len(silent):
            return y.new_zeros(())
        residual = (y - y_hat).detach()
        pre = (y - sae.b_dec).detach() @ sae.W_enc.index_select(0, silent).T
        pre = pre if sae.b_enc is None else pre + sae.b_enc[silent]
        # The norm is set below, so any factor per token is free: the largest exponential may be 1.
        codes = (pre - pre.detach().amax(dim=1, keepdim=True)).exp()
        ghost = codes @ sae.W_dec.index_select(0, silent)
        tiny = torch.finfo(y.dtype).tiny
        half = residual.norm(dim=1, keepdim=True) / (2 * ghost.detach().norm(dim=1, keepdim=True)).clamp_min(tiny)
        error = (residual - ghost * half).square().sum() / len(y)
        like_the_error = residual.square().sum() / len(y) / error.detach().clamp_min(tiny)
        loss: Tensor = self.coefficient * like_the_error * error
        return loss


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Draw silent latents afresh, in the directions of badly reconstructed tokens (Bricken et al. 2023).

    Every `every_steps` steps, as long as no more than `until_step` are done, each latent silent for
    `dead_after_tokens` is given to a token of the batch, drawn with probability proportional to its squared error
    squared: its decoder row becomes the token's direction from b_dec, its encoder row the same at `encoder_norm`
    times the mean norm of the living (JumpReLU: its threshold too, times the mean of theirs), its bias 0; what the
    optimizer remembers is forgotten.
    """

    every_steps: int
    until_step: int | None = None
    dead_after_tokens: int = 256_000
    encoder_norm: float = 0.2

    def __post_init__(self) -> None:
        if min(self.every_steps, self.dead_after_tokens) < 1 or not self.encoder_norm > 0:
            raise InputError(
                f"Resampling: expected every_steps >= 1, dead_after_tokens >= 1, encoder_norm > 0, got {self}"
            )

    def due(self, step: int) -> bool:
        """Is it time, after step number `step` (from 0)?"""
        return (step + 1) % self.every_steps == 0 and (self.until_step is None or step < self.until_step)

    @torch.no_grad()
    def apply(
        self,
        sae: SAE,
        y: Float[Tensor, "tokens d_in"],
        y_hat: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, "d_sae"],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Int[Tensor, "resampled"]:
        """Redraw the `dead` latents and return which they were; none where every token is perfect."""
        silent = dead.nonzero()[:, 0]
        weight = (y - y_hat).square().sum(dim=1).double().square().cpu()
        if not len(silent) or not float(weight.sum()) > 0:
            return silent[:0]
        drawn = torch.multinomial(weight, len(silent), replacement=True, generator=generator)
        # A token at b_dec itself has no direction: such a latent keeps its own.
        away = y[drawn.to(y.device)] - sae.b_dec
        rows = normalize(torch.where(away.any(dim=1, keepdim=True), away, sae.W_dec[silent]), dim=1)
        alive = sae.W_enc[~dead]
        norm = alive.norm(dim=1).mean() if len(alive) else sae.W_enc.new_ones(())
        sae.W_dec[silent], sae.W_enc[silent] = rows, rows * norm * self.encoder_norm
        if sae.b_enc is not None:
            sae.b_enc[silent] = 0
        if sae.log_threshold is not None and len(alive):
            living = sae.log_threshold[~dead].exp().mean()
            sae.log_threshold[silent] = (living * self.encoder_norm).log()
        touched = (sae.W_enc, sae.W_dec, sae.b_enc, sae.log_threshold)
        for parameter in (p for p in touched if p is not None):
            remembered: dict[str, Any] = optimizer.state.get(parameter, {})
            for name in ("exp_avg", "exp_avg_sq"):
                if name in remembered:
                    remembered[name][silent] = 0
        return silent
