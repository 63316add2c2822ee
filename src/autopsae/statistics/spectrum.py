"""One eigendecomposition of a covariance serves effective rank, whitening and the active subspace."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.memory import check_memory
from autopsae.statistics.room import bytes_of_spectrum


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Principal variances, largest first, and directions.

    eigenvalues: of the covariance, clamped at zero; directions: orthonormal, row j belongs to eigenvalue j.
    """

    eigenvalues: Float[Tensor, "d_in"]
    directions: Float[Tensor, "d_in d_in"]

    @staticmethod
    def of(covariance: Float[Tensor, "d_in d_in"]) -> "Spectrum":
        """Spectrum of a symmetric positive semi-definite matrix. Raises InputError where that would not fit."""
        d_in = len(covariance)
        what, needed = f"for the principal directions of d_in = {d_in:,}", bytes_of_spectrum(d_in)
        check_memory(needed, covariance.device, what, "use a machine with more, or a narrower layer")
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        return Spectrum(eigenvalues=eigenvalues.flip(0).clamp_min(0), directions=vectors.flip(1).T)


def effective_rank(eigenvalues: Float[Tensor, "d_in"]) -> float:
    """exp of the entropy of the normalised eigenvalues, in [1, d_in] (Roy and Vetterli 2007; paper App. E)."""
    p = eigenvalues.clamp_min(0) / eigenvalues.clamp_min(0).sum()
    return float(torch.special.entr(p).sum().exp())
