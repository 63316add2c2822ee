"""Many SAEs of one shape trained at once: for records in Sweep(members, tokens). The loop is a page to read.

Members differ in learning rate, start, remedy, seed, coefficients, what is frozen, and their data; each is trained
as it would be alone (tested), is watched on its own, and stops on its own where it diverges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens
from autopsae.kernels.workspace import Workspace
from autopsae.sae.death import Watch
from autopsae.sae.weights import Weights, apart, stacked
from autopsae.seeds import stream
from autopsae.training.checkpoint import State, layouts_of, load_checkpoint, save_checkpoint
from autopsae.training.config import Record, TrainConfig
from autopsae.training.objective import penalty_losses, reconstruction_losses
from autopsae.training.optimizers import Optimizer
from autopsae.training.records import Measured, against_divergence, bias_captured
from autopsae.training.revival import revival_losses
from autopsae.training.sources import Member, Sources
from autopsae.training.together import check_together


class Sweep:
    """Iterate for the records of every `record_every`-th step, by the member's place in the list. Stop at any time,
    save it and resume it bit by bit.

    step: the number of the next one; diverged: what befell members whose loss was not finite, by place; stopped:
    those that were told to stop. The members' SAEs are trained in place, and left in evaluation mode. tokens: raw,
    for members that have none of their own.
    """

    def __init__(self, members: Sequence[Member], tokens: Tokens | None = None) -> None:
        """Raises InputError for members that cannot be trained together (other shapes, sparsities, types, devices,
        or settings of `together.SHARED`), for a penalty that an SAE cannot have, and as `Optimizer` and `Sources`.
        """
        check_together(members)
        self.members, self.config, self._tokens = list(members), members[0].config, tokens
        self._products = getattr(torch, self.config.products) if self.config.products else None
        self._workspace = Workspace()
        self._begin()

    def _begin(self) -> None:
        """Before the first step, with the weights that the SAEs have now."""
        members = self.members
        self.step, self.diverged, self.stopped = 0, dict[int, str](), set[int]()
        self._alive, self._ended = list(range(len(members))), dict[int, int]()
        self._sources = Sources(members, self._tokens)
        self._weights = stacked([member.sae for member in members])
        self._optimizer = Optimizer(self._weights, [member.config for member in members])
        n_members, d_sae, d_in = self._weights.shape
        device = self._weights.W_enc.device
        after = [member.config.dead_after_tokens for member in members]
        self._watch = Watch(d_sae, dead_after_tokens=after, device=device)
        self._sum = torch.zeros(n_members, d_in, dtype=torch.float64, device=device)
        self._resampled = torch.zeros(n_members, dtype=torch.int64, device=device)
        self._last_resampling = torch.zeros(n_members, 2, dtype=torch.int64)
        self._layouts = layouts_of(self._tensors())

    def __iter__(self) -> Iterator[dict[int, Record]]:
        yield from (records for records in self.each_step() if records is not None)

    def each_step(self) -> Iterator[dict[int, Record] | None]:
        """As iteration, but after every step, with None where it is not time for records."""
        try:
            while self.step < self.config.steps and self._alive:
                yield self.advance()
        finally:
            self.close()

    def advance(self) -> dict[int, Record] | None:
        """One step of training of all members that have not diverged; their records, where it is time for them.

        A member whose loss is not finite stops before the step is taken. Raises InputError as `Sources`, where no
        step or no member is left, and where an SAE got other weights meanwhile.
        """
        self._check()
        weights, step = self._weights_now(), self.step
        configs = [self.members[m].config for m in self._alive]
        views = next(self._sources)
        y = views[self._sources.of_member] if len(views) > 1 else views.expand(len(configs), -1, -1)
        selection, centered = weights.select(y, training=True, products=self._products, workspace=self._workspace)
        weights.learn(selection)
        left, error, loss = reconstruction_losses(weights, centered, selection, self.config.nested, self._workspace)
        loss = loss + penalty_losses([c.penalty for c in configs], weights, selection, step)
        loss = loss + revival_losses([c.revival for c in configs], weights, centered, left, self._watch)
        finite = loss.isfinite()
        fine = finite.tolist()
        for parameter in weights.parameters.values():
            parameter.grad = None
        (loss if all(fine) else loss[finite]).sum().backward()
        rates = torch.tensor([config.rate(step) for config in configs], dtype=torch.float64, device=y.device)
        self._optimizer.step(rates * finite)
        self.step += 1
        self._sum += views.sum(dim=1, dtype=torch.float64)[self._sources.of_member]
        self._watch.see(selection)
        self._resample(configs, y, left, fine)
        found = None
        if self.step % self.config.record_every == 0 or self.step == self.config.steps:
            found = self._records(Measured(views=views, loss=loss.detach(), error=error, selection=selection))
        if not all(fine):
            self._stop(loss.detach(), fine, largest=float(views.abs().max()))
        return {m: record for m, record in (found or {}).items() if m in self._alive} or None

    def _check(self) -> None:
        if self.step >= self.config.steps or not self._alive:
            raise InputError(
                f"sweep: expected steps and members that are left, got {self.step} of {self.config.steps} steps "
                f"done and {len(self._alive)} members; begin another sweep"
            )
        stack = self._weights.W_enc
        size = stack.element_size() * stack.stride(0)
        for place, m in enumerate(self._alive):
            if self.members[m].sae.W_enc.data_ptr() != stack.data_ptr() + place * size:
                raise InputError(
                    f"member {m} {self.members[m].name!r}: expected the SAE's weights where this sweep put them, "
                    "but another sweep or a conversion has moved them; train an SAE in one sweep at a time"
                )

    def _weights_now(self) -> Weights:
        """With the k of this step."""
        sparsity, config = self._weights.sparsity, self.config
        if config.k_start is None or sparsity.l0 is None:
            return self._weights
        return replace(self._weights, sparsity=sparsity.with_k(config.k(self.step, sparsity.l0)))

    def stop(self, members: Sequence[int]) -> None:
        """Train these no further; the others go on. Raises InputError for a place that there is not."""
        if {*members} - {*range(len(self.members))}:
            raise InputError(f"stop: expected places from 0 to {len(self.members) - 1}, got {[*members]}")
        self.stopped |= {*members}
        self._keep([m for m in self._alive if m not in self.stopped])

    def steps_of(self, member: int) -> int:
        """How many steps a member took."""
        return self._ended.get(member, self.step)

    def last_resampling(self, member: int) -> tuple[int, int]:
        """(steps done when latents of a member were last drawn afresh, how many were); (0, 0) for never."""
        steps, latents = self._last_resampling[member].tolist()
        return steps, latents

    def close(self) -> None:
        """Leave the SAEs in evaluation mode and, once trained, with weights of their own."""
        if self.step == self.config.steps and len(self._alive) > 1:
            apart([self.members[m].sae for m in self._alive])
        for member in self.members:
            member.sae.eval()

    def save(self, path: str | Path) -> None:
        """Write one checkpoint file, whole or not at all, with all that the next step depends on."""
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
        """Go on from a checkpoint of the same members and tokens, as if there had been no break. Raises InputError
        for a file that is no whole checkpoint, or one of other members; nothing has changed then.
        """
        streams = Sources(self.members, self._tokens).stream_of_member
        state, saes = load_checkpoint(path, self.members, streams, self._layouts)
        tensors = self._completed(path, state)
        self._begin()
        for member, (weights, scale) in zip(self.members, saes, strict=True):
            member.sae.load_state_dict(weights)
            member.sae.scale = scale
        self.step, self.diverged, self.stopped = state.step, state.diverged, state.stopped
        self._keep([m for m in self._alive if m not in {*self.diverged, *self.stopped}])
        self._optimizer.steps = state.step
        for name, tensor in self._tensors().items():
            tensor.copy_(tensors[name])
        if self._alive:
            self._sources = Sources([self.members[m] for m in self._alive], self._tokens, state.places)

    def _tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides the SAEs; nothing, where no member goes on."""
        if not self._alive:
            return {}
        moments = {f"moments.{name}": moments for name, moments in self._optimizer.moments.items()}
        watch = {name: getattr(self._watch, name) for name in ("since_positive", "since_fired", "ever_fired")}
        sums = {"changes": self._watch.counted, "sum": self._sum, "resampled": self._resampled}
        return {**moments, **watch, **sums, "last_resampling": self._last_resampling}

    def _completed(self, path: str | Path, state: State) -> dict[str, Tensor]:
        """The tensors of a checkpoint, and what was not written at first but can be told from the rest. Raises
        InputError where latents may have been drawn afresh, as it cannot be told then who has ever fired.
        """
        tensors = dict(state.tensors)
        if tensors and "ever_fired" not in tensors:
            if any(member.config.resampling for member in self.members):
                raise InputError(
                    f"{path}: expected a checkpoint that says which latents have ever fired, got one of an earlier "
                    "version of autopsae, in which they are resampled; go on with that version, or start afresh"
                )
            # Without resampling only firing sets the count back.
            tensors["ever_fired"] = tensors["since_fired"] < state.step * self.config.batch_tokens
            tensors["last_resampling"] = torch.zeros(len(self.members), 2, dtype=torch.int64)
        return tensors

    def _stop(self, loss: Float[Tensor, "members"], finite: list[bool], *, largest: float) -> None:
        """Let those go whose loss is not finite. largest: of the numbers that the members saw."""
        for m, value, fine in zip(self._alive, loss.tolist(), finite, strict=True):
            if not fine:
                advice = against_divergence(self.members[m].config.lr, largest)
                self.diverged[m] = f"step {self.step - 1}: the loss is {value}; {advice}"
        self._keep([m for m in self._alive if m not in self.diverged])

    def _keep(self, alive: list[int]) -> None:
        """Go on with these members alone."""
        if alive == self._alive:
            return
        kept = torch.tensor([self._alive.index(m) for m in alive], dtype=torch.int64, device=self._sum.device)
        apart([self.members[m].sae for m in self._alive])
        for m in {*self._alive} - {*alive}:
            self._ended[m] = self.step - (m in self.diverged)
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
        finite: list[bool],
    ) -> None:
        """Redraw dead latents of the members whose time it is, unless their loss is not finite."""
        for m, (config, fine) in enumerate(zip(configs, finite, strict=True)):
            method = config.resampling
            if method is None or not method.due(self.step - 1) or not fine:
                continue
            # A stream for each step, so that a resumed run draws the same.
            generator = stream(config.seed, f"resampling after step {self.step}")
            dead = self._watch.since_fired[m] >= method.dead_after_tokens
            redrawn = method.apply(self._weights, m, y[m], left[m], dead, generator)
            self._optimizer.forget(m, redrawn)
            self._watch.forget(m, redrawn)
            self._resampled[m] += len(redrawn)
            if len(redrawn):
                self._last_resampling[self._alive[m]] = torch.tensor([self.step, len(redrawn)])

    def _records(self, measured: Measured) -> dict[int, Record]:
        """Of every member, since the last ones."""
        of_member, tokens = self._sources.of_member, self.step * measured.selection.tokens
        means = self._sum / tokens
        columns = {
            **measured.columns(of_member),
            **self._watch.columns(tokens),
            "bias_captured": bias_captured([self.members[m].sae for m in self._alive], means),
            "resampled": self._resampled.tolist(),
        }
        self._watch.restart_counts()
        self._resampled.zero_()
        rows = zip(*columns.values(), strict=True)
        return {
            m: Record(step=self.step - 1, tokens=tokens, **dict(zip(columns, row, strict=True)))
            for m, row in zip(self._alive, rows, strict=True)
        }
