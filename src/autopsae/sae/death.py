"""Which latents are dead: counted on held-out tokens (`fates`), and during training (`Watch`).

A latent *fires* on a token if it is selected and its pre-activation is greater than zero. On given tokens, a latent
that never fires is *dead*. There are two ways to be dead: a latent that is never positive is *dead-by-ReLU*, and a
latent that is positive on some token but never fires is *dead-by-TopK*.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks
from autopsae.kernels.ranks import ALONE, Ranks
from autopsae.kernels.sums import mark_fired
from autopsae.modules import evaluation_mode
from autopsae.passes import known_tokens
from autopsae.progress import Progress, tell_progress
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Fates(Result):
    """How often each latent fired on some tokens, and whether it was ever positive."""

    tokens: int
    """Number of tokens on which the latents were counted."""
    fired: Int[Tensor, "d_sae"]
    """For each latent, the number of tokens on which it fired."""
    positive: Bool[Tensor, "d_sae"]
    """Mask of the latents whose pre-activation was positive on at least one token."""

    @property
    def dead(self) -> float:
        """Fraction of the latents that never fired: dead_by_relu + dead_by_topk."""
        return float((self.fired == 0).double().mean())

    @property
    def dead_by_relu(self) -> float:
        """Fraction of the latents that were never positive."""
        return float((~self.positive).double().mean())

    @property
    def dead_by_topk(self) -> float:
        """Fraction of the latents that were positive on some token but never fired."""
        return self.dead - self.dead_by_relu

    def by_rate(self, edges: Sequence[float] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)) -> dict[str, int]:
        """A histogram of firing rates: {"<= edge": number of latents}.

        A firing rate is the share of the tokens on which a latent fires. The first count is of the rates up to the
        first edge (with the default edges: the dead latents). Every other count is of the rates over the edge
        before it and up to its own edge. edges: in rising order; else InputError.
        """
        if [*edges] != sorted({*edges}):
            raise InputError(f"by_rate: expected edges in rising order, got {', '.join(map(str, edges))}")
        rates = self.fired.double() / self.tokens
        up_to = [int((rates <= edge).sum()) for edge in edges]
        return {f"<= {edge:g}": n - before for edge, n, before in zip(edges, up_to, [0, *up_to], strict=False)}

    def __str__(self) -> str:
        parts = f"{self.dead_by_relu:.1%} never positive, {self.dead_by_topk:.1%} positive but never selected"
        return f"{self.dead:.1%} of {len(self.fired):,} latents are dead ({parts}), on {self.tokens:,} tokens"


@torch.no_grad()
def fates(sae: SAE, tokens: Tokens, *, progress: Progress | None = None) -> Fates:
    """Count on raw tokens how often each latent of `sae` fires, and which latents are ever positive.

    tokens: [tokens, d_in], raw: the SAE applies its own scale and map. Use tokens that it was not trained on.
    progress: called as progress("fates", tokens read, all tokens or None).

    Raises InputError for weights that are not finite, and as `chunks` for the tokens.
    """
    weight = sae.W_enc
    sae.check_finite("fates")
    census = Census(sae.d_sae, weight.device)
    batches = chunks(tokens, dtype=weight.dtype, device=weight.device)
    with evaluation_mode(sae):
        for x in tell_progress(batches, progress, "fates", known_tokens(tokens)):
            census.see(sae.select(sae.enter(x)[0]))
    return census.fates()


class Census:
    """Counts, batch by batch, on how many tokens each latent fires and which latents are ever positive."""

    def __init__(self, d_sae: int, device: torch.device | str = "cpu") -> None:
        self._fired = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self._positive = torch.zeros(d_sae, dtype=torch.bool, device=device)
        self._tokens = 0

    def see(self, selection: Selection) -> None:
        """Count one batch."""
        self._fired += firings(selection)
        self._positive |= selection.positive
        self._tokens += selection.tokens

    def fates(self) -> Fates:
        """The counts so far, as a copy."""
        return Fates(tokens=self._tokens, fired=self._fired.clone(), positive=self._positive.clone())


def firings(selection: Selection) -> Int[Tensor, "latents"]:
    """For each latent of all members, the number of tokens of the batch on which it fired."""
    # value > 0: TopK also selects latents that are not positive if fewer than k are positive.
    pairs, fired = selection.pairs, selection.values > 0
    if fired.device.type != "cpu":
        # Neither asks for a size nor for a truth value, for which a GPU would be waited for.
        return pairs.latents.new_zeros(pairs.n_latents).index_add_(0, pairs.latents, fired.to(pairs.latents.dtype))
    # Usually all selected pairs fire. Then the counts of selected pairs, which are already known, are the answer.
    if bool(fired.all()):
        return pairs.counts
    return torch.bincount(pairs.latents[fired], minlength=pairs.n_latents)


class Watch:
    """Which latents are dead during training. For each latent of each member of a sweep, it counts the tokens
    since the latent last fired, and since it was last positive.

    A latent is dead if it has not fired on the last `dead_after_tokens` tokens, and dead-by-ReLU if it has also not
    been positive on them. Before training has seen that many tokens, no latent can be dead; the dead fractions are
    then None, not 0. `ever_fired` is known from the first batch on.

    since_positive, since_fired: [members, d_sae], in tokens; ever_fired: a mask [members, d_sae]; counted:
    [3, members], the latents since the last record that died, that revived from dead-by-ReLU, and that revived from
    dead-by-TopK.
    """

    def __init__(self, d_sae: int, *, dead_after_tokens: Sequence[int], device: torch.device | str = "cpu") -> None:
        """dead_after_tokens: one number for each member."""
        self._after = torch.tensor(dead_after_tokens, device=device)
        shape = (len(dead_after_tokens), d_sae)
        self.since_positive = torch.zeros(shape, dtype=torch.int64, device=device)
        self.since_fired = torch.zeros(shape, dtype=torch.int64, device=device)
        self.ever_fired = torch.zeros(shape, dtype=torch.bool, device=device)
        self.counted = torch.zeros(3, shape[0], dtype=torch.int64, device=device)

    def see(self, selection: Selection, peers: Ranks = ALONE) -> None:
        """Update the counts with one training batch. peers: those that see the other tokens of the batch, with the
        same latents.
        """
        # Taken before the counters move: a latent revives if it was dead before this batch and fires in it.
        dead_before, by_relu_before = self.is_dead, self.is_dead_by_relu
        shape, pairs = self.since_fired.shape, selection.pairs
        fires = mark_fired(selection.values.detach(), pairs.latents, pairs.n_latents).view(shape)
        positive, tokens = selection.positive.view(shape), selection.tokens * peers.size
        if not peers.is_alone:
            fires, positive = peers.any(torch.stack([fires, positive]), "firings")
        self.since_positive.add_(tokens).masked_fill_(positive, 0)
        self.since_fired.add_(tokens).masked_fill_(fires, 0)
        self.ever_fired |= fires
        died, revived = self.is_dead & ~dead_before, dead_before & (self.since_fired == 0)
        from_relu = revived & by_relu_before
        self.counted += torch.stack([died, from_relu, revived & ~from_relu]).sum(dim=2)

    def columns(self, tokens: int, ranks: Ranks = ALONE) -> dict[str, Sequence[int | float | None]]:
        """{name of a field of `Record`: its value for each member}, for the fields about dead latents. `died`,
        `revived_from_relu` and `revived_from_topk` count since `restart_counts`.

        tokens: the number of tokens that training has seen. ranks: those that watch the other latents.
        """
        silent = torch.stack([~self.ever_fired, self.is_dead, self.is_dead_by_relu])
        watched = torch.full_like(self.counted[:1], self.since_fired.shape[1])
        counts = ranks.sum(torch.cat([silent.sum(dim=2), self.counted, watched]), "records")
        never_fired, dead, by_relu = (counts[:3].double() / counts[-1]).tolist()
        after: list[int] = self._after.tolist()
        # Before `dead_after_tokens` tokens, no latent can be dead. A 0 would look like a result, so it is None.
        known = [tokens >= n for n in after]
        died, from_relu, from_topk = counts[3:-1].tolist()
        return {
            "never_fired": never_fired,
            "dead": _none_unless(known, dead),
            "dead_by_relu": _none_unless(known, by_relu),
            "dead_by_topk": _none_unless(known, [d - r for d, r in zip(dead, by_relu, strict=True)]),
            "dead_tokens": _none_unless(known, after),
            "died": died,
            "revived_from_relu": from_relu,
            "revived_from_topk": from_topk,
        }

    def restart_counts(self) -> None:
        """Set the counts of latents that died and revived to zero. Called after each record."""
        self.counted.zero_()

    @property
    def is_dead(self) -> Bool[Tensor, "members d_sae"]:
        """Mask of the latents that have not fired on the last `dead_after_tokens` tokens."""
        return self.silent(self._after)

    @property
    def is_dead_by_relu(self) -> Bool[Tensor, "members d_sae"]:
        """Mask of the latents that have not been positive on the last `dead_after_tokens` tokens."""
        return self.since_positive >= self._after[:, None]

    def forget(self, member: int, latents: Int[Tensor, "some"]) -> None:
        """Start the counts of silent tokens again at 0 for latents of a member that were resampled. `ever_fired`
        does not change, because a resampled latent has not fired yet.
        """
        self.since_positive[member, latents], self.since_fired[member, latents] = 0, 0

    def silent(self, for_tokens: Int[Tensor, "members"]) -> Bool[Tensor, "members d_sae"]:
        """Mask of the latents that have not fired on the last `for_tokens` tokens, a number for each member."""
        return self.since_fired >= for_tokens[:, None]

    def keep(self, members: Int[Tensor, "some"]) -> None:
        """From now on, watch only these members. members: their indices, in the order they are to have."""
        self._after, self.counted = self._after[members], self.counted[:, members]
        self.since_positive, self.since_fired = self.since_positive[members], self.since_fired[members]
        self.ever_fired = self.ever_fired[members]


def _none_unless(known: list[bool], values: Sequence[int | float]) -> list[int | float | None]:
    """The values, with None where `known` is False."""
    return [value if is_known else None for is_known, value in zip(known, values, strict=True)]
