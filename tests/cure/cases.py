"""Tokens far from the origin, and prescriptions for them."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.bias import BIASES, Bias

D_IN, D_SAE, K, TOKENS = 24, 96, 4, 4000
X = gaussian_tokens(TOKENS, D_IN, 12.0, spectrum=1.0, generator=torch.Generator().manual_seed(0))
STATISTICS = collect(X)
MEDIAN = geometric_median(STATISTICS.sample)
SPECTRUM = Spectrum.of(STATISTICS.raw.covariance)


def prescribed(remedy: Remedy, *, bias: Bias = BIASES["learned"]) -> Prescription:
    """As `diagnose` does: with the scale of the layer."""
    scale = remedy.enters(STATISTICS.sample).scale
    return Prescription(
        remedy=remedy, reason="", layer="hs1", d_sae=D_SAE, sparsity=TopK(k=K), scale=scale, bias=bias
    )


CENTERED = prescribed(center(MEDIAN, "median"))
WHITENED = prescribed(whiten(SPECTRUM, MEDIAN, alpha=0.3))
NARROW = prescribed(active_subspace(SPECTRUM, MEDIAN, rank=3))
UNTOUCHED = prescribed(untouched(D_IN))
UNSCALED = replace(CENTERED, scale=None)


def mapped(prescription: Prescription, x: torch.Tensor = X) -> torch.Tensor:
    """scale A (x - center), in float64."""
    return prescription.remedy.affine(x.double()) * (prescription.scale or 1)


def batches(x: torch.Tensor = X, size: int = 256) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield x[torch.randint(len(x), (size,), generator=generator)]


def silent(codes: torch.Tensor) -> float:
    return float((codes == 0).all(dim=0).float().mean())


def fvu(reconstructed: torch.Tensor, x: torch.Tensor = X) -> float:
    return float((reconstructed.detach() - x).square().sum() / (x - x.mean(dim=0)).square().sum())
