"""Many SAEs of one shape trained at once: for records in Sweep(members, tokens). The loop is a page to read.

Members differ in learning rate, start, remedy, seed, coefficients, what is frozen, and their data; each is trained
as it would be alone (tested), is watched on its own, and stops on its own where it diverges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens
from autopsae.sae.death import Watch
from autopsae.sae.selection import Workspace
from autopsae.sae.sparse_ops import unexplained
from autopsae.sae.sparsity import BatchTopK, TopK
from autopsae.sae.weights import Weights, apart, stacked
from autopsae.training.checkpoint import State, load_checkpoint, save_checkpoint
from autopsae.training.config import Record, TrainConfig
from autopsae.training.objective import penalty_losses
from autopsae.training.optimizers import Optimizer
from autopsae.training.records import Measured
from autopsae.training.revival import revival_losses
from autopsae.training.sources import Member, Sources

SHARED = ("steps", "batch_tokens", "optimizer", "unit_decoder", "products", "record_every", "k_start", "k_steps")
"""Settings in which members may not differ."""


class Sweep:
    """Iterate for the records of every `record_every`-th step, by the member's place in the list. Stop at any time,
    save it and resume it bit by bit.

    step: the number of the next one; diverged: what befell members whose loss was not finite, by place; stopped:
    those that were told to stop. The members' SAEs are trained in place, and left in evaluation mode. tokens: raw,
    for members that have none of their own.
    """

    def __init__(self, members: Sequence[Member], tokens: Tokens | None = None) -> None:
        """Raises InputError for members that cannot be trained together (other shapes, sparsities, types, devices,
        or settings of `SHARED`), for a penalty that an SAE cannot have, and as `Optimizer` and `Sources`.
        """
        check_together(members)
        self.members, self.step, self.diverged, self.stopped = list(members), 0, dict[int, str](), set[int]()
        self.config = members[0].config
        self._tokens, self._alive = tokens, list(range(len(members)))
        self._products = getattr(torch, self.config.products) if self.config.products else None
        self._workspace = Workspace()
        self._weights = stacked([member.sae for member in members])
        self._optimizer = Optimizer(self._weights, [member.config for member in members])
        after = [member.config.dead_after_tokens for member in members]
        n_members, d_sae, d_in = self._weights.shape
        device = self._weights.W_enc.device
        self._watch = Watch(d_sae, dead_after_tokens=after, device=device)
        self._sum = torch.zeros(n_members, d_in, dtype=torch.float64, device=device)
        self._resampled = torch.zeros(n_members, dtype=torch.int64, device=device)
        self._sources = Sources(members, tokens)

    def __iter__(self) -> Iterator[dict[int, Record]]:
        try:
            while self.step < self.config.steps and self._alive:
                records = self.advance()
                if records is not None:
                    yield records
        finally:
            self.close()

    def advance(self) -> dict[int, Record] | None:
        """One step of training of all members that have not diverged; their records, where it is time for them.

        A member whose loss is not finite stops before the step is taken. Raises InputError as `Shuffled`.
        """
        weights, step = self._weights_now(), self.step
        configs = [self.members[m].config for m in self._alive]
        views = next(self._sources)
        y = views[self._sources.of_member] if len(views) > 1 else views.expand(len(configs), -1, -1)
        selection, centered = weights.select(y, training=True, products=self._products, workspace=self._workspace)
        left, error = unexplained(centered, selection.values, selection.pairs, weights.W_dec, weights.b_dec)
        error = error / selection.tokens
        loss = error + penalty_losses([c.penalty for c in configs], weights, selection, step)
        loss = loss + revival_losses([c.revival for c in configs], weights, centered, left, self._watch)
        finite = loss.isfinite()
        for parameter in weights.parameters.values():
            parameter.grad = None
        loss[finite].sum().backward()
        rates = torch.tensor([config.rate(step) for config in configs], dtype=torch.float64, device=y.device)
        self._optimizer.step(rates * finite)
        self.step += 1
        self._sum += views.sum(dim=1, dtype=torch.float64)[self._sources.of_member]
        self._watch.see(selection)
        self._resample(configs, y, left, finite)
        found = None
        if self.step % self.config.record_every == 0 or self.step == self.config.steps:
            found = self._records(
                Measured(views=views, loss=loss.detach(), error=error.detach(), selection=selection)
            )
        self._stop(loss.detach(), finite)
        return {m: record for m, record in found.items() if m in self._alive} or None if found else None

    def _weights_now(self) -> Weights:
        """With the k of this step."""
        sparsity, config = self._weights.sparsity, self.config
        if config.k_start is None or not isinstance(sparsity, TopK | BatchTopK):
            return self._weights
        return replace(self._weights, sparsity=replace(sparsity, k=config.k(self.step, sparsity.k)))

    def stop(self, members: Sequence[int]) -> None:
        """Train these no further; the others go on."""
        self.stopped |= {*members}
        self._keep([m for m in self._alive if m not in self.stopped])

    def close(self) -> None:
        """Leave the SAEs in evaluation mode and, once trained, with weights of their own."""
        if self.step == self.config.steps and len(self._alive) > 1:
            apart([self.members[m].sae for m in self._alive])
        for member in self.members:
            member.sae.eval()

    def save(self, path: str | Path) -> None:
        """Write one checkpoint file, whole or not at all: weights, moments, who is silent since when, and the
        places in the shuffled streams.
        """
        state = State(
            step=self.step,
            diverged=self.diverged,
            stopped=self.stopped,
            places=self._sources.places if self._alive else [],
            stream_of_member=self._sources.stream_of_member if self._alive else [],
            tensors=self._tensors(),
        )
        save_checkpoint(path, state, self.members)

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint of the same members and tokens, as if there had been no break; into a sweep that
        has not begun.

        Raises InputError for a file that is no whole checkpoint, or one of other members.
        """
        state = load_checkpoint(path, self.members, {*self._tensors()}, self._sources.stream_of_member)
        self.step, self.diverged, self.stopped = state.step, state.diverged, state.stopped
        self._keep([m for m in self._alive if m not in {*self.diverged, *self.stopped}])
        self._optimizer.steps = state.step
        for name, tensor in self._tensors().items():
            tensor.copy_(state.tensors[name])
        alive = [self.members[m] for m in self._alive]
        self._sources = Sources(alive, self._tokens, state.places) if alive else self._sources

    def _tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides the SAEs."""
        moments = {f"moments.{name}": moments for name, moments in self._optimizer.moments.items()}
        watch = {"since_positive": self._watch.since_positive, "since_fired": self._watch.since_fired}
        return {**moments, **watch, "changes": self._watch.counted, "sum": self._sum, "resampled": self._resampled}

    def _stop(self, loss: Float[Tensor, "members"], finite: Bool[Tensor, "members"]) -> None:
        """Let those go whose loss is not finite."""
        if bool(finite.all()):
            return
        for m, value, fine in zip(self._alive, loss.tolist(), finite.tolist(), strict=True):
            if not fine:
                lr = self.members[m].config.lr
                self.diverged[m] = f"step {self.step - 1}: the loss is {value}; lower the learning rate ({lr:g})"
        self._keep([m for m in self._alive if m not in self.diverged])

    def _keep(self, alive: list[int]) -> None:
        """Go on with these members alone."""
        if alive == self._alive:
            return
        kept = torch.tensor([self._alive.index(m) for m in alive], dtype=torch.int64, device=self._sum.device)
        apart([self.members[m].sae for m in self._alive])
        self._alive = alive
        self._sum, self._resampled = self._sum[kept], self._resampled[kept]
        self._watch.keep(kept)
        if alive:
            members = [self.members[m] for m in alive]
            self._weights = stacked([member.sae for member in members])
            self._optimizer.keep(self._weights, kept)
            self._sources.keep(members, kept)

    def _resample(
        self,
        configs: list[TrainConfig],
        y: Float[Tensor, "members batch d_in"],
        left: Float[Tensor, "..."],
        finite: Bool[Tensor, "members"],
    ) -> None:
        """Redraw dead latents of the members whose time it is, unless their loss is not finite."""
        for m, (config, fine) in enumerate(zip(configs, finite.tolist(), strict=True)):
            method = config.resampling
            if method is None or not method.due(self.step - 1) or not fine:
                continue
            # Seeded by the step, so that a resumed run draws the same.
            generator = torch.Generator().manual_seed(config.seed + self.step)
            dead = self._watch.since_fired[m] >= method.dead_after_tokens
            redrawn = method.apply(self._weights, m, y[m], left[m], dead, generator)
            self._optimizer.forget(m, redrawn)
            self._watch.forget(m, redrawn)
            self._resampled[m] += len(redrawn)

    def _records(self, measured: Measured) -> dict[int, Record]:
        """Of every member, since the last ones."""
        of_member, tokens = self._sources.of_member, self.step * measured.selection.tokens
        means = self._sum / tokens
        columns = {
            **measured.columns(of_member),
            **self._watch.columns(),
            "bias_captured": [
                self.members[m].sae.bias_captured(mean) for m, mean in zip(self._alive, means, strict=True)
            ],
            "resampled": self._resampled.tolist(),
        }
        self._resampled.zero_()
        rows = zip(*columns.values(), strict=True)
        return {
            m: Record(step=self.step - 1, tokens=tokens, **dict(zip(columns, row, strict=True)))
            for m, row in zip(self._alive, rows, strict=True)
        }


def check_together(members: Sequence[Member]) -> None:
    """InputError for members that cannot be trained as one, and for a penalty that an SAE cannot have."""
    if not members:
        raise InputError("sweep: expected at least one member, got none")
    first = _described(members[0])
    for number, member in enumerate(members):
        if member.config.penalty:
            member.config.penalty.check(member.sae)
        mine = _described(member)
        if member.config.k_start is not None:
            _check_k_start(member)
        differing = [f"{name} {first[name]}, got {mine[name]}" for name in first if first[name] != mine[name]]
        if differing:
            raise InputError(
                f"sweep: expected members to agree, but member {number} {member.name!r} differs from the first: "
                f"{'; '.join(differing)}; train them in sweeps of their own"
            )


def _check_k_start(member: Member) -> None:
    sae, k_start = member.sae, member.config.k_start
    if not (isinstance(sae.sparsity, TopK | BatchTopK) and sae.sparsity.k <= (k_start or 0) <= sae.d_sae):
        raise InputError(
            f"k_start: expected a TopK or BatchTopK SAE and k_start from its k to d_sae = {sae.d_sae}, got "
            f"{sae.sparsity} and {k_start}"
        )


def _described(member: Member) -> dict[str, object]:
    """What members must have in common."""
    sae, config = member.sae, member.config
    return {
        **{name: getattr(config, name) for name in SHARED},
        "d_sae, d_in": (sae.d_sae, sae.d_in),
        "sparsity": sae.sparsity,
        "dtype": sae.W_enc.dtype,
        "device": sae.W_enc.device,
        "an encoder bias": sae.b_enc is not None,
    }
