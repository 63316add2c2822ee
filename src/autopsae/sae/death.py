"""Who is alive, by pathway: on held-out tokens, and over the course of training.

Fired means selected and greater than zero. A latent is dead-by-ReLU if it was never positive, dead-by-TopK if it
was positive but never fired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from autopsae.arrays import Tokens, chunks
from autopsae.kernels.sums import mark_fired
from autopsae.modules import evaluation_mode
from autopsae.passes import known_tokens
from autopsae.progress import Progress, tell_progress
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.tables import Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Fates(Result):
    """What each latent did on some tokens: how often it fired, and whether it was ever positive."""

    tokens: int
    """Number of tokens."""
    fired: Int[Tensor, "d_sae"]
    """On how many of them each latent fired: it was selected and greater than zero."""
    positive: Bool[Tensor, "d_sae"]
    """Whether each latent was positive on any of them."""

    @property
    def dead(self) -> float:
        """Fraction that never fired = dead_by_relu + dead_by_topk."""
        return float((self.fired == 0).double().mean())

    @property
    def dead_by_relu(self) -> float:
        """Fraction that was never positive."""
        return float((~self.positive).double().mean())

    @property
    def dead_by_topk(self) -> float:
        """Fraction that was positive but never fired (never selected)."""
        return self.dead - self.dead_by_relu

    def by_rate(self, edges: Sequence[float] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)) -> dict[str, int]:
        """How many latents fire on what share of the tokens: a count for never, then for each interval up to and
        with an edge, such as "<= 0.001".
        """
        rates = self.fired.double() / self.tokens
        up_to = [int((rates <= edge).sum()) for edge in edges]
        return {f"<= {edge:g}": n - before for edge, n, before in zip(edges, up_to, [0, *up_to], strict=False)}

    def __str__(self) -> str:
        parts = f"{self.dead_by_relu:.1%} by ReLU, {self.dead_by_topk:.1%} by TopK"
        return f"{self.dead:.1%} of {len(self.fired):,} latents are dead ({parts}), on {self.tokens:,} tokens"


@torch.no_grad()
def fates(sae: SAE, tokens: Tokens, *, progress: Progress | None = None) -> Fates:
    """Count every latent of `sae` on held-out raw tokens. progress: told the tokens read, as "fates".

    Raises InputError as `chunks`, and for weights that are not finite.
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
    """Counts, batch by batch, what each latent does."""

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
        """What was counted so far."""
        return Fates(tokens=self._tokens, fired=self._fired.clone(), positive=self._positive.clone())


def firings(selection: Selection) -> Int[Tensor, "latents"]:
    """How often each latent fired: selected and greater than zero."""
    pairs, fired = selection.pairs, selection.values > 0
    if fired.device.type != "cpu":
        # Neither asks for a size nor for a truth value, for which a GPU would be waited for.
        return pairs.latents.new_zeros(pairs.n_latents).index_add_(0, pairs.latents, fired.to(pairs.latents.dtype))
    if bool(fired.all()):
        return pairs.counts
    return torch.bincount(pairs.latents[fired], minlength=pairs.n_latents)


class Watch:
    """Death during training: tokens since each latent was last positive and since it last fired, and whether it has
    ever fired.

    A latent is dead once it has been silent for its member's `dead_after_tokens`; dead-by-ReLU if it has not been
    positive in them either. Until so many tokens have passed nobody knows who is dead, and the dead fractions are
    None. `ever_fired` is known from the first batch on.
    """

    def __init__(self, d_sae: int, *, dead_after_tokens: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._after = torch.tensor(dead_after_tokens, device=device)
        shape = (len(dead_after_tokens), d_sae)
        self.since_positive = torch.zeros(shape, dtype=torch.int64, device=device)
        self.since_fired = torch.zeros(shape, dtype=torch.int64, device=device)
        self.ever_fired = torch.zeros(shape, dtype=torch.bool, device=device)
        self.counted = torch.zeros(3, shape[0], dtype=torch.int64, device=device)

    def see(self, selection: Selection) -> None:
        """Account for one batch of training."""
        dead_before, by_relu_before = self.is_dead, self.is_dead_by_relu
        shape, pairs = self.since_fired.shape, selection.pairs
        heard = mark_fired(selection.values.detach(), pairs.latents, pairs.n_latents).view(shape)
        self.since_positive.add_(selection.tokens).masked_fill_(selection.positive.view(shape), 0)
        self.since_fired.add_(selection.tokens).masked_fill_(heard, 0)
        self.ever_fired |= heard
        died, revived = self.is_dead & ~dead_before, dead_before & (self.since_fired == 0)
        from_relu = revived & by_relu_before
        self.counted += torch.stack([died, from_relu, revived & ~from_relu]).sum(dim=2)

    def columns(self, tokens: int) -> dict[str, Sequence[int | float | None]]:
        """Of every member, as in `Record`: the fraction of its latents that has never fired; the fraction that is
        dead, its two parts, and on how many tokens; how many died since `restart_counts`, and how many came back,
        by what had kept them dead. tokens: how many have passed since training began.
        """
        silent = torch.stack([~self.ever_fired, self.is_dead, self.is_dead_by_relu])
        never_fired, dead, by_relu = silent.double().mean(dim=2).tolist()
        after: list[int] = self._after.tolist()
        # A latent cannot have been silent for longer than training lasts: 0 dead before that would be no finding.
        known = [tokens >= n for n in after]
        died, from_relu, from_topk = self.counted.tolist()
        return {
            "never_fired": never_fired,
            "dead": _where(known, dead),
            "dead_by_relu": _where(known, by_relu),
            "dead_by_topk": _where(known, [d - r for d, r in zip(dead, by_relu, strict=True)]),
            "dead_tokens": _where(known, after),
            "died": died,
            "revived_from_relu": from_relu,
            "revived_from_topk": from_topk,
        }

    def restart_counts(self) -> None:
        """Count anew who dies and who comes back, after a record has told the numbers so far."""
        self.counted.zero_()

    @property
    def is_dead(self) -> Bool[Tensor, "members d_sae"]:
        """Silent for at least `dead_after_tokens`."""
        return self.silent(self._after)

    @property
    def is_dead_by_relu(self) -> Bool[Tensor, "members d_sae"]:
        """Not positive for at least `dead_after_tokens`."""
        return self.since_positive >= self._after[:, None]

    def forget(self, member: int, latents: Int[Tensor, "some"]) -> None:
        """Give latents a new life: they count as just seen. `ever_fired` stays: to be drawn is not to fire."""
        self.since_positive[member, latents], self.since_fired[member, latents] = 0, 0

    def silent(self, for_tokens: Int[Tensor, "members"]) -> Bool[Tensor, "members d_sae"]:
        """Has not fired for at least so many tokens."""
        return self.since_fired >= for_tokens[:, None]

    def keep(self, members: Int[Tensor, "some"]) -> None:
        """Watch these alone from now on."""
        self._after, self.counted = self._after[members], self.counted[:, members]
        self.since_positive, self.since_fired = self.since_positive[members], self.since_fired[members]
        self.ever_fired = self.ever_fired[members]


def _where(known: list[bool], values: Sequence[int | float]) -> list[int | float | None]:
    return [value if is_known else None for is_known, value in zip(known, values, strict=True)]
