"""One eigendecomposition of a covariance serves effective rank, whitening and the active subspace."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.memory import check_memory
from autopsae.statistics.room import bytes_of_spectrum
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Spectrum(Result):
    """Principal variances, largest first, and directions."""

    eigenvalues: Float[Tensor, "d_in"]
    """Of the covariance, clamped at zero."""
    directions: Float[Tensor, "d_in d_in"]
    """Orthonormal; row j belongs to eigenvalue j."""

    @staticmethod
    def of(covariance: Float[Tensor, "d_in d_in"]) -> "Spectrum":
        """Spectrum of a symmetric positive semi-definite matrix. Raises InputError where that would not fit."""
        d_in = len(covariance)
        what, needed = f"for the principal directions of d_in = {d_in:,}", bytes_of_spectrum(d_in)
        check_memory(needed, covariance.device, what, "use a machine with more, or a narrower layer")
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        return Spectrum(eigenvalues=eigenvalues.flip(0).clamp_min(0), directions=vectors.flip(1).T)

    def __str__(self) -> str:
        return f"{len(self.eigenvalues):,} principal variances, the largest {float(self.eigenvalues[0]):.4g}"


def effective_rank(eigenvalues: Float[Tensor, "d_in"]) -> float:
    """exp of the entropy of the normalised eigenvalues, in [1, d_in] (Roy and Vetterli 2007; paper App. E)."""
    p = eigenvalues.clamp_min(0) / eigenvalues.clamp_min(0).sum()
    return float(torch.special.entr(p).sum().exp())
