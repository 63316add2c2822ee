"""What a step reports of every member, and what is kept for it between steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose, isnan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.kernels.ranks import ALONE, ErrorOfAllRanks, Ranks
from autopsae.sae.death import Watch
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.training.config import Record
from autopsae.training.sources import Member

_OVERFLOWS = 1e16  # the square of a larger number, summed over a batch, is near the end of float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One step of training, of all members. views: what they saw, which several of them may share."""

    views: Float[Tensor, "views batch d_in"]
    loss: Float[Tensor, "members"]
    error: Float[Tensor, "members"]
    selection: Selection

    def columns(self, of_member: Int[Tensor, "members"], ranks: Ranks) -> dict[str, Sequence[float | None]]:
        """Loss, FVU, L0 and threshold of each member, as in `Record`. of_member: the view of each."""
        mean = self.views.mean(dim=1, keepdim=True)
        variance = (self.views - mean).square_().sum(dim=(1, 2)) / self.views.shape[1]
        spread, size = variance[of_member], mean.square().sum(dim=(1, 2))[of_member]
        # What is left of equal tokens are the rounding errors of their mean.
        differ = (spread > (4 * torch.finfo(spread.dtype).eps) ** 2 * size).tolist()
        fvu = [value if some else None for value, some in zip((self.error / spread).tolist(), differ, strict=True)]
        l0, threshold = self._l0_and_threshold(ranks)
        named = {"l0": l0, "threshold": threshold}
        return {"loss": self.loss.tolist(), "fvu": fvu, **{name: values.tolist() for name, values in named.items()}}

    def _l0_and_threshold(self, ranks: Ranks) -> tuple[Float[Tensor, "members"], Float[Tensor, "members"]]:
        """(latents that fired per token, the smallest value that fired, averaged over the tokens where any did)."""
        values, pairs = self.selection.values.detach(), self.selection.pairs
        fired = values > 0
        smallest = torch.segment_reduce(
            values.where(fired, torch.inf), "min", lengths=pairs.per_token_counts, initial=torch.inf
        )
        by_member = ranks.min(smallest, "records").view(pairs.members, -1)
        heard = by_member.isfinite()
        sums = torch.stack([by_member.where(heard, 0).sum(dim=1), heard.to(values).sum(dim=1)])
        summed, of_tokens = ranks.peers.sum(sums, "records")
        threshold = summed / of_tokens.clamp_min(1)
        fired_of_all = ranks.everyone.sum(pairs.sum_per_member(fired.to(values)), "records")
        return fired_of_all / self.views.shape[1], threshold


class Account:
    """What the steps so far say of the members that go on.

    watch: for how long each latent has been silent; sum: of all tokens that a member saw, in its SAE's space;
    resampled: latents that were drawn afresh since the last records.
    """

    def __init__(self, members: Sequence[Member], ranks: Ranks = ALONE) -> None:
        """ranks: those that account for the other latents of the SAE."""
        self._ranks = ranks
        sae, after = members[0].sae, [member.config.dead_after_tokens for member in members]
        device = sae.W_enc.device
        self.watch = Watch(sae.d_sae, dead_after_tokens=after, device=device)
        # float64, as it is added to at every step.
        self.sum = torch.zeros(len(members), sae.d_in, dtype=torch.float64, device=device)
        self.resampled = torch.zeros(len(members), dtype=torch.int64, device=device)

    def see(
        self, views: Float[Tensor, "views batch d_in"], of_member: Int[Tensor, "members"], selection: Selection
    ) -> None:
        """Account for one step. views: of the whole batch; of_member: the view of each."""
        self.sum += views.sum(dim=1, dtype=torch.float64)[of_member]
        self.watch.see(selection, self._ranks.peers)

    def redraw(self, row: int, latents: Int[Tensor, "some"]) -> None:
        """Account for latents of a member that were drawn afresh."""
        self.watch.forget(row, latents)
        self.resampled[row] += len(latents)

    def records(
        self, measured: Measured, saes: Sequence[SAE], of_member: Int[Tensor, "members"], *, steps: int
    ) -> list[Record]:
        """A record of each member after its last step. steps: how many it took; of_member: the view of each."""
        if not self._ranks.everyone.is_alone:
            self._check_agreement(measured, saes[0])
        tokens = steps * measured.views.shape[1]
        columns = {
            **measured.columns(of_member, self._ranks),
            **self.watch.columns(tokens, self._ranks),
            "bias_captured": bias_captured(saes, self.sum / tokens),
            "resampled": self.resampled.tolist(),
        }
        rows = zip(*columns.values(), strict=True)
        return [Record(step=steps - 1, tokens=tokens, **dict(zip(columns, row, strict=True))) for row in rows]

    def _check_agreement(self, measured: Measured, sae: SAE) -> None:
        """Raises ErrorOfAllRanks where ranks have another loss, other tokens or another `b_dec`, and where peers
        have other weights, to the bit.
        """
        groups = self._ranks.peers.size
        mine = [measured.loss.double().sum(), self.sum.sum(), sae.b_dec.detach().double().sum()]
        numbers = torch.stack(mine).view(torch.int64)
        if groups > 1:
            numbers = torch.cat([numbers, torch.stack([_sum_of_bits(sae.W_enc), _sum_of_bits(sae.W_dec)])])
        every = self._ranks.everyone.gather(numbers, "records")
        columns = every[:, :3].contiguous().view(torch.float64).T.tolist()
        # Each place of a group adds up the losses of all groups for itself, perhaps in another order.
        rounding = 8 * groups * torch.finfo(measured.loss.dtype).eps if groups > 1 else 0.0
        for name, values in zip(("loss", "sum of all tokens", "sum of b_dec"), columns, strict=True):
            close = rounding if name == "loss" else 0.0
            if not all(_are_same(value, values[0], close) for value in values):
                raise ErrorOfAllRanks(
                    f"ranks: expected the same {name} on all ranks, got {', '.join(f'{v:.17g}' for v in values)}; "
                    "give all the same tokens, and the same SAE before it is divided"
                )
        if groups > 1:
            _check_groups(every[:, 3:].unflatten(0, (groups, self._ranks.size)))

    def restart_counts(self) -> None:
        """Count anew what records count since the last ones."""
        self.watch.restart_counts()
        self.resampled.zero_()

    def keep(self, rows: Int[Tensor, "some"]) -> None:
        """Go on for these members alone."""
        self.sum, self.resampled = self.sum[rows], self.resampled[rows]
        self.watch.keep(rows)

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept, by its name in a checkpoint."""
        watch = {name: getattr(self.watch, name) for name in ("since_positive", "since_fired", "ever_fired")}
        return {**watch, "changes": self.watch.counted, "sum": self.sum, "resampled": self.resampled}


def _are_same(one: float, other: float, rounding: float) -> bool:
    return isclose(one, other, rel_tol=rounding, abs_tol=0) or (isnan(one) and isnan(other))


def _check_groups(sums: Int[Tensor, "groups places 2"]) -> None:
    """Raises ErrorOfAllRanks where a group has other weights than the first. sums: of the bits of both weights."""
    for number, name in enumerate(("W_enc", "W_dec")):
        for group in range(1, len(sums)):
            if not torch.equal(sums[group, :, number], sums[0, :, number]):
                raise ErrorOfAllRanks(
                    f"ranks: expected the same {name} in all groups, got another one in group {group} than in "
                    "group 0; go on from the last checkpoint, on devices of one kind"
                )


def _sum_of_bits(weights: Float[Tensor, "rows columns"]) -> Int[Tensor, ""]:
    """The sum of the numbers' bits, read as integers: the same in every order, another if one bit differs."""
    bits = weights.detach().view(torch.int64 if weights.element_size() == 8 else torch.int32)
    # In pieces, as a sum in int64 may copy what it sums.
    return torch.stack([rows.sum(dtype=torch.int64) for rows in bits.split(4096)]).sum()


@torch.no_grad()
def bias_captured(saes: Sequence[SAE], means: Float[Tensor, "members d_in"]) -> list[float]:
    """`SAE.bias_captured` of each, where they only scale and center all at once."""
    if any(sae.inverse is not None for sae in saes):
        return [sae.bias_captured(mean) for sae, mean in zip(saes, means, strict=True)]
    center, b_dec = (torch.stack([getattr(sae, name) for sae in saes]).to(means) for name in ("center", "b_dec"))
    scale = means.new_tensor([sae.scale for sae in saes])[:, None]
    mu, b = means / scale + center, b_dec / scale + center
    square = mu.square().sum(dim=1)
    return torch.where(square > 0, (b * mu).sum(dim=1) / square, 1.0).tolist()


def against_divergence(lr: float, largest: float) -> str:
    """What to do about a loss that is not finite. largest: of the numbers that the SAE saw in that step."""
    if largest <= _OVERFLOWS:
        return f"lower the learning rate ({lr:g})"
    return (
        f"tokens of the batch have values up to {largest:.2g} in the SAE's unit: leave stray tokens out (--strays "
        "leave_out), or give `born` a sample to scale them by"
    )
