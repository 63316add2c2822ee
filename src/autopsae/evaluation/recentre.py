"""Dead latents woken without training: each is given the tokens' centre, through its own bias.

Moving `b_dec` by delta changes a pre-activation by -w . delta, and at the decoder's end every reconstruction.
Compensating both for the living (b_enc += w . delta, and b_dec as it was at the decoder's end) leaves one change:
b_enc -= w . delta for the dead. So that is all that is done, and it is exact.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens
from autopsae.evaluation.reconstruction import evaluate
from autopsae.evaluation.space import shift_to
from autopsae.passes import same_passes
from autopsae.sae.model import SAE
from autopsae.tables import Result
from autopsae.vectors import Vector, truth_values


@dataclass(frozen=True, kw_only=True, repr=False)
class RecentringCost(Result):
    """What re-centring did, counted on tokens. The decoders of the woken latents learned little or nothing, so the
    error may rise.
    """

    tokens: int
    """Number of tokens."""
    n_dead: int
    """Latents that never fire before."""
    n_woken: int
    """Those of them that fire after."""
    n_displaced: int
    """Latents that fire before and not after: woken ones took their places."""
    fvu_before: float | None
    """Raw FVU before, as of `Evaluation`; None where the tokens do not differ."""
    fvu_after: float | None
    """The same after."""
    fvu_typical_before: float | None
    """Raw FVU without stray tokens before, as of `Evaluation`; None where the others do not differ."""
    fvu_typical_after: float | None
    """The same after."""
    l0_before: float
    """Latents that fire per token, before."""
    l0_after: float
    """The same after."""
    firings_of_woken: float
    """Share of all firings that are those of woken latents, in [0, 1]."""

    def to_dict(self) -> dict[str, Any]:
        """All of it for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        fvu = [f"{value:.4f}" if value is not None else "none" for value in (self.fvu_before, self.fvu_after)]
        return f"{self.n_woken:,} of {self.n_dead:,} dead latents wake; raw FVU {fvu[0]} before, {fvu[1]} after"


@torch.no_grad()
def recentre(sae: SAE, *, center: Float[Tensor, "d_in"], is_dead: Vector) -> SAE:
    """A copy of the SAE whose dead latents see tokens less `center`: b_enc -= w . (center - b_dec) for them, as
    far as b_enc has not done it already (`shift_to`), so that doing it twice is doing it once.

    center: in the SAE's space, such as `Autopsy.center`; is_dead: such as `Autopsy.is_dead`. The living keep
    their weights and so their pre-activations. Under ReLU, JumpReLU and a learned BatchTopK threshold their codes
    do not change; under TopK they do only where a woken latent takes a place among the k largest. b_dec stays, as
    it is also where reconstructions start from. The copy has encoder biases, also where the SAE had none.

    Raises InputError for a centre or a mask of another size, and for a mask of other values than booleans, 0 and 1.
    """
    if center.shape != sae.b_dec.shape:
        raise InputError(
            f"center: expected shape ({sae.d_in},), got {tuple(center.shape)}; pass one in the SAE's space"
        )
    dead = torch.tensor(
        truth_values("is_dead", is_dead, sae.d_sae, unit="latents"), dtype=torch.bool, device=sae.W_enc.device
    )
    W, b_enc = sae.W_enc, sae.W_enc.new_zeros(sae.d_sae) if sae.b_enc is None else sae.b_enc
    move = shift_to(sae, center).to(W)
    return SAE(
        W_enc=W,
        W_dec=sae.W_dec,
        b_dec=sae.b_dec,
        b_pre=sae.b_pre,
        b_enc=torch.where(dead, b_enc - move, b_enc),
        sparsity=sae.sparsity,
        threshold=sae.threshold,
        affine=sae.affine,
        layer_norm=sae.layer_norm,
    ).train(sae.training)


def cost_of_recentring(before: SAE, after: SAE, tokens: Tokens) -> RecentringCost:
    """Both SAEs evaluated on raw tokens; ask it on tokens that the autopsy has not seen.

    Raises InputError for tokens as `chunks` or of another width than the SAEs', for passes that differ, and for
    weights that are not finite.
    """
    tokens = same_passes(tokens)
    old, new = (evaluate(sae, tokens, at_tokens=None) for sae in (before, after))
    silent_before, silent_after = old.fates.fired == 0, new.fates.fired == 0
    return RecentringCost(
        tokens=old.tokens,
        n_dead=int(silent_before.sum()),
        n_woken=int((silent_before & ~silent_after).sum()),
        n_displaced=int((silent_after & ~silent_before).sum()),
        fvu_before=old.fvu_raw,
        fvu_after=new.fvu_raw,
        fvu_typical_before=old.fvu_typical,
        fvu_typical_after=new.fvu_typical,
        l0_before=old.l0,
        l0_after=new.l0,
        firings_of_woken=float(new.fates.fired[silent_before].sum() / new.fates.fired.sum().clamp_min(1)),
    )
