"""What can be changed before an SAE is trained on a layer: its centre, its metric, or where its rows begin.

Every remedy is one `Affine` for the tokens and, for active subspace initialisation, a subspace for the rows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.remedies.affine import Affine, check_inverse
from autopsae.remedies.view import View
from autopsae.statistics.spectrum import Spectrum
from autopsae.tables import Result

_FLOOR = 1e-12  # of the largest eigenvalue: a million times finer, in amplitude, than the largest direction


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Remedy(Result):
    """A change made before training."""

    name: str
    """As in results: "none", "median", "whiten_0.3", ..."""
    instruction: str
    """What to do, to be followed: "center by the median"."""
    affine: Affine
    """The map that the tokens pass through."""
    subspace: Float[Tensor, "rank d_in"] | None = None
    """Orthonormal rows onto which the SAE's rows are projected at birth; None for the whole space."""

    def __post_init__(self) -> None:
        """Raises InputError for a map or a subspace with values that are not finite, and for an inverse that does
        not undo its matrix.
        """
        parts = {name: getattr(self.affine, name) for name in ("center", "linear", "inverse")}
        parts["subspace"] = self.subspace
        bad = [name for name, part in parts.items() if part is not None and not bool(part.isfinite().all())]
        if bad:
            raise InputError(
                f"remedy {self.name!r}: expected finite numbers, got NaN or infinite values in {', '.join(bad)}; "
                "check the tokens that it was made from"
            )
        check_inverse(self.affine.linear, self.affine.inverse, f"remedy {self.name!r}")

    def enters(self, sample: Float[Tensor, "sample d_in"] | None = None) -> View:
        """What an SAE drawn under this remedy sees of raw tokens. sample: some of them, which tell its scale;
        without them it is 1.
        """
        return View.of(self.affine, self.subspace, sample)

    def __str__(self) -> str:
        return f"{self.name}: {self.instruction}"


def untouched(d_in: int) -> Remedy:
    """No remedy: raw tokens, b_dec = 0 (the paper's baseline)."""
    return Remedy(name="none", instruction="change nothing", affine=Affine.identity(d_in))


def center(point: Float[Tensor, "d_in"], name: str) -> Remedy:
    """Subtract a centre of the tokens, "mean" or "median" by name: the start of `b_dec` (paper Sec. 6). It costs
    nothing at run time.
    """
    return Remedy(name=name, instruction=f"center by the {name}", affine=Affine(center=point))


def z_score(std: Float[Tensor, "d_in"], point: Float[Tensor, "d_in"]) -> Remedy:
    """Center, then divide each dimension by its standard deviation; constant dimensions are left as they are."""
    gain = torch.where(std > 0, 1 / std, 1)
    return Remedy(
        name="zscore",
        instruction="center by the median and divide each dimension by its standard deviation",
        affine=Affine(center=point, linear=gain.diag(), inverse=(1 / gain).diag()),
    )


@whole_arguments("rank")
def whiten(
    spectrum: Spectrum, point: Float[Tensor, "d_in"], *, alpha: float = 1.0, rank: int | None = None
) -> Remedy:
    """Center, then shrink each principal direction so that its variance lambda becomes lambda^(1 - alpha).

    A = V diag(lambda^(-alpha / 2)) V^T: alpha = 0 only centers, alpha = 1 is full (ZCA) whitening (paper App. E,
    Fig. S20). Directions past `rank`, or with less than 1e-12 of the largest variance, get the gain of the last one
    before them: they carry rounding errors or were never seen, and must not be blown up. The bound is that low
    because stray tokens may own the largest variance.

    Raises InputError for alpha outside [0, 1] or rank outside [1, d_in].
    """
    d_in = len(spectrum.eigenvalues)
    if not 0 <= alpha <= 1:
        raise InputError(f"whiten: expected alpha in [0, 1], got {alpha}; 0 centers only, 1 whitens fully")
    rank = _take_rank("whiten", rank if rank is not None else d_in, d_in)
    eigenvalues = spectrum.eigenvalues
    kept = max(1, min(rank, int((eigenvalues > _FLOOR * eigenvalues[0]).sum())))
    gain = eigenvalues.clamp_min(eigenvalues[kept - 1]).pow(-alpha / 2)
    V = spectrum.directions
    return Remedy(
        name=name_of_whitening(alpha) + (f"_rank_{rank}" if rank < d_in else ""),
        instruction=f"center by the median and whiten with alpha {alpha:g}",
        affine=Affine(center=point, linear=(V.T * gain) @ V, inverse=(V.T / gain) @ V),
    )


def name_of_whitening(alpha: float) -> str:
    """The name of whitening with this exponent: "whiten_0.3", or "whiten" for 1."""
    return "whiten" if alpha == 1 else f"whiten_{alpha:g}"


@whole_arguments("rank")
def active_subspace(spectrum: Spectrum, point: Float[Tensor, "d_in"], *, rank: int) -> Remedy:
    """Center, and project the SAE's rows at birth onto the top `rank` principal directions (Wang et al. 2025,
    arXiv:2508.16929; paper App. E). The tokens and the loss stay as they are.

    Raises InputError for rank outside [1, d_in].
    """
    rank = _take_rank("active_subspace", rank, len(spectrum.eigenvalues))
    return Remedy(
        name=f"asi_{rank}",
        instruction=f"center by the median and let the rows begin in the top {rank} principal directions",
        affine=Affine(center=point),
        subspace=spectrum.directions[:rank],
    )


def _take_rank(who: str, rank: int, d_in: int) -> int:
    if not 1 <= rank <= d_in:
        raise InputError(f"{who}: rank {rank} is not in 1 ... d_in = {d_in}; pass a rank in that range")
    return rank
