"""Small SAEs and settings for tests of sweeps: quick, in float64, and all different."""

from typing import Any

import torch
from torch import Tensor

from autopsae.remedies.remedy import Remedy, untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, Sparsity, TopK
from autopsae.training.config import TrainConfig

D_IN, D_SAE, STEPS = 12, 32, 100


def tokens(n: int = 1500, seed: int = 5) -> Tensor:
    """Of a few directions and a mean, so that some latents die."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(n, D_IN, generator=generator, dtype=torch.float64)
    return spread * torch.logspace(0.3, -0.7, D_IN, dtype=torch.float64) + 0.7


def new_sae(seed: int = 0, sparsity: Sparsity | None = None, remedy: Remedy | None = None, **more: Any) -> SAE:
    """Another one for each seed; its decoder and biases have left the symmetric start."""
    sparsity = sparsity or TopK(k=3)
    settings: dict[str, Any] = {"encoder_bias": True, "dtype": torch.float64, "d_sae": D_SAE, **more}
    sae = born(
        remedy or untouched(D_IN),
        sparsity=sparsity,
        sample=tokens(),
        generator=torch.Generator().manual_seed(seed),
        firing_rate=0.15 if isinstance(sparsity, JumpReLU) else None,
        **settings,
    )
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        if sae.b_enc is not None:
            # A third is never positive and a third seldom: both kinds of death are there.
            sae.b_enc.add_(torch.linspace(-6, 0, len(sae.b_enc)).clamp_min(-3).to(sae.b_enc))
        sae.b_dec.add_(0.1 * torch.randn(sae.d_in, generator=generator, dtype=torch.float64).to(sae.b_dec))
    return sae


def settings(**changes: Any) -> TrainConfig:
    base = {"steps": STEPS, "lr": 3e-3, "batch_tokens": 64, "dead_after_tokens": 640, "buffer_tokens": 700}
    return TrainConfig(**{**base, **changes})
