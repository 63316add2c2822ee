"""Whether the numbers of a device are right: against float64 on the CPU, or against the same on the CPU."""

from collections.abc import Callable
from typing import Any

import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.diagnose import diagnose
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training.config import TrainConfig
from autopsae.training.one import train


def new_sae(*, d_in: int, d_sae: int, k: int, dtype: torch.dtype = torch.float32) -> SAE:
    drawn = torch.Generator().manual_seed(0)
    more: dict[str, Any] = {"sparsity": TopK(k=k), "scaled": False, "encoder_bias": True}
    return born(untouched(d_in), d_sae=d_sae, generator=drawn, dtype=dtype, **more)


def selection_errors(sizes: dict[str, int], device: torch.device) -> dict[str, Any]:
    """The latents that are selected in float32 on the device, against float64 on the CPU.

    largest_gap: of a latent that one selects and the other does not, how far its exact pre-activation is from the
    exact k-th largest, over the norms of row and token, in units of float32's rounding.
    """
    k = sizes["k"]
    sae = new_sae(d_in=sizes["d_in"], d_sae=sizes["d_sae"], k=k)
    x = torch.randn(sizes["tokens"], sizes["d_in"], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = x.double() @ sae.W_enc.double().T
        codes = sae.to(device).encode(x.to(device)).cpu()
    bar = exact.topk(k, dim=1).values[:, -1:]
    differs = (codes > 0) != ((exact >= bar) & (exact > 0))
    size = torch.finfo(torch.float32).eps * x.double().norm(dim=1, keepdim=True)
    gap = ((exact - bar.clamp_min(0)).abs() / size)[differs]
    value = ((codes.double() - exact).abs() / size)[codes > 0]
    return {
        "pairs": int((codes > 0).sum()),
        "selected_otherwise": int(differs.sum()),
        "largest_gap": round(float(gap.max()), 2) if len(gap) else 0.0,
        "largest_error_of_a_value": round(float(value.max()), 2),
    }


def training_errors(sizes: dict[str, int], device: torch.device) -> dict[str, float]:
    """Ten steps in float64 on the device against the same on the CPU, from the same start on the same tokens."""
    x = torch.randn(sizes["tokens"], sizes["d_in"], generator=torch.Generator().manual_seed(3)).double()
    config = TrainConfig(steps=10, lr=1e-3, batch_tokens=sizes["tokens"] // 8, record_every=1)
    saes = [
        new_sae(d_in=sizes["d_in"], d_sae=sizes["d_sae"], k=sizes["k"], dtype=torch.float64).to(where)
        for where in (device, "cpu")
    ]
    theirs, ours = ([record.loss for record in train(sae, x, config)] for sae in saes)
    error = max(abs(a - b) / b for a, b in zip(theirs, ours, strict=True))
    moved = (saes[0].W_dec.detach().cpu() - saes[1].W_dec.detach()).abs().max()
    return {"largest_relative_error_of_a_loss": error, "largest_difference_of_a_weight": float(moved)}


def diagnosis_errors(sizes: dict[str, int], device: torch.device) -> dict[str, Any]:
    """The diagnosis on the device against that on the CPU, both of which count in float32."""
    x = gaussian_tokens(sizes["tokens"], sizes["d_in"], 6.0, generator=torch.Generator().manual_seed(4))
    there, here = (diagnose(x, d_sae=sizes["d_sae"], k=sizes["k"], device=where) for where in (device, "cpu"))
    births = [abs(there.birth[name].dead - here.birth[name].dead) for name in here.birth]
    return {
        "largest_difference_of_a_dead_fraction": max(births),
        "same_prescription": there.prescription.remedy.name == here.prescription.remedy.name,
    }


CHECKS: dict[str, Callable[[dict[str, int], torch.device], dict[str, Any]]] = {
    "selection": selection_errors,
    "training": training_errors,
    "diagnosis": diagnosis_errors,
}
"""Each takes tokens, d_in, d_sae and k by name, and the device."""
