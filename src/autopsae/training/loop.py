"""The training loop: `for records in Training(members, tokens)` trains one SAE, or many of one shape at once.

Members may differ in learning rate, start, remedy, seed, coefficients, frozen parts and data. Each ends as if it
were trained alone; one whose loss is not finite stops, the others go on. The *place* of a member in the given list
is fixed; its *row* in the stack moves up when a member before it ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.ambient import outside_inference_mode, with_gradients
from autopsae.arrays import InputError, Tokens
from autopsae.kernels.ranks import ALONE, Ranks
from autopsae.kernels.screen import choose_path
from autopsae.kernels.workspace import Workspace
from autopsae.seeds import stream
from autopsae.training.checkpoint import State, complete_tensors, load_checkpoint, save_checkpoint
from autopsae.training.config import Record, TrainConfig
from autopsae.training.layouts import layouts_of
from autopsae.training.objective import penalty_losses, reconstruction_losses
from autopsae.training.optimizers import Optimizer
from autopsae.training.records import Account, Measured, against_divergence
from autopsae.training.revival import revival_losses
from autopsae.training.roster import End, Roster
from autopsae.training.sources import Member, Sources
from autopsae.training.together import apart, check_in_place, check_together, stack_for_training, weights_at
from autopsae.transfers import send


class Training:
    """Each iteration takes `record_every` steps and gives {place of a member: its Record}. It changes the SAEs that
    were given, and leaves them in evaluation mode. Saving and loading changes no bit. step: steps done so far.
    """

    def __init__(self, members: Sequence[Member], tokens: Tokens | None = None, *, ranks: Ranks = ALONE) -> None:
        """tokens: raw, for the members that have none of their own. ranks: the processes over which the latents of
        the one member are spread; its SAE has those of this process (`training.ranks.part_of`).

        Raises InputError for members that differ in shape, sparsity, type, device or a setting of
        `together.SHARED`, for a penalty or a frozen part that an SAE cannot have, for a member without tokens, and
        for a shift of another width than d_in.
        """
        check_together(members, ranks)
        self.members, self.config, self._tokens, self._ranks = list(members), members[0].config, tokens, ranks
        self._workspace = Workspace()
        self._begin()

    @outside_inference_mode()
    def _begin(self, *, is_screened: bool | None = None) -> None:
        """Set everything to the state before the first step, with the weights that the SAEs have now."""
        members, self.step = self.members, 0
        # Every screen gives the same bits, a whole product may not: a resumed run goes on as it began.
        self._products = choose_path(self.config.products, members[0].sae.W_enc, is_screened=is_screened)
        self._roster, self._sources = Roster(len(members)), Sources(members, self._tokens)
        self._weights = stack_for_training(members, self._products, self._ranks)
        self._optimizer = Optimizer(self._weights, [member.config for member in members])
        self._account = Account(members, self._ranks)
        self._last_resampling = torch.zeros(len(members), 2, dtype=torch.int64, device="cpu")
        self._layouts = layouts_of(self._tensors())

    def __iter__(self) -> Iterator[dict[int, Record]]:
        yield from (records for records in self.each_step() if records is not None)

    def each_step(self) -> Iterator[dict[int, Record] | None]:
        """Like iteration, but yields after every step: the records, or None for a step without records."""
        try:
            while self.step < self.config.steps and self._roster.going_on:
                yield self.advance()
        finally:
            self.close()

    def advance(self) -> dict[int, Record] | None:
        """Take one step with all members that go on. Returns their records, or None for a step without records.

        A member whose loss is not finite ends, with the weights from before this step. Raises InputError for tokens
        that are not finite, too few or of another width, if no step or member is left, or if weights were replaced.
        """
        self._check()
        views = next(self._sources)
        with with_gradients(views.device.type):
            # What was made in inference mode cannot be kept for a backward pass.
            return self._step(views.clone() if views.is_inference() else views)

    def _step(self, views: Float[Tensor, "views batch d_in"]) -> dict[int, Record] | None:
        """`advance` on the next batch. A view is a batch in an SAE's space; members that see the same share it."""
        weights, configs = weights_at(self.step, self._weights, self.config), self._configs()
        mine = self._ranks.share_of(views)  # what these ranks see
        y = mine[self._sources.of_member] if len(views) > 1 else mine.expand(len(configs), -1, -1)

        # The selection holds the codes of selected latents only, never [batch, d_sae]. centered: y to the encoder.
        selection, centered = weights.select(y, training=True, workspace=self._workspace)
        # BatchTopK updates its threshold here. It has no gradient, and only evaluation uses it.
        weights.learn(selection)
        target, nested = weights.decoder_target(y, centered), self.config.nested
        residual, error, loss = reconstruction_losses(weights, target, selection, nested, self._workspace)
        loss = loss + penalty_losses([c.penalty for c in configs], weights, selection, self.step)
        # Before `_account.see` counts this batch, because revival is for latents that were silent until this batch.
        loss = loss + revival_losses([c.revival for c in configs], weights, centered, residual, self._account.watch)

        # `tolist` waits for the device, once per step, because Python must know which losses are finite.
        finite = loss.isfinite()
        fine = finite.tolist()
        self._optimizer.forget_gradients()
        # Members share no parameter, so the sum of losses gives each member the gradient of its own loss. A loss
        # that is not finite is left out of the sum, and its member gets the learning rate 0.
        (loss if all(fine) else loss[finite]).sum().backward()
        rates = torch.tensor([c.rate(self.step) for c in configs], dtype=torch.float64, device="cpu")
        self._optimizer.step(send(rates, y.device) * finite)
        self.step += 1

        self._account.see(views, self._sources.of_member, selection)
        self._resample(y, residual, fine)
        is_due = self.step % self.config.record_every == 0 or self.step == self.config.steps
        measured = Measured(views=views, loss=loss.detach(), error=error, selection=selection)
        records = self._records(measured) if is_due else None
        # Last, because rows move up when a member ends, and all code above uses the rows of this step.
        if not all(fine):
            self._diverge(loss.detach(), largest=float(views.abs().max()))
        return {m: record for m, record in (records or {}).items() if m in self._roster.going_on} or None

    def _check(self) -> None:
        going_on = self._roster.going_on
        if self.step >= self.config.steps or not going_on:
            raise InputError(
                f"training: expected steps and members that are left, got {self.step} of {self.config.steps} steps "
                f"done and {len(going_on)} members; begin another training"
            )
        check_in_place(self._weights, {m: self.members[m] for m in going_on})

    def _configs(self) -> list[TrainConfig]:
        return [self.members[m].config for m in self._roster.going_on]

    def _resample(
        self,
        y: Float[Tensor, "members batch d_in"],
        residual: Float[Tensor, "members batch d_in"],
        fine: list[bool],
    ) -> None:
        """Draw dead latents afresh in each member that resamples at this step and has a finite loss."""
        for row, (config, is_fine) in enumerate(zip(self._configs(), fine, strict=True)):
            method = config.resampling
            if method is None or not (is_fine and config.resamples(self.step - 1)):
                continue
            # Each step has random numbers of its own, so that a resumed run draws the same rows.
            generator = stream(config.seed, f"resampling after step {self.step}")
            dead = self._account.watch.since_fired[row] >= method.dead_after_tokens
            redrawn = method.apply(self._weights, row, y[row], residual[row], dead, generator)
            # Adam's moments and the count of silent tokens belong to the old latents.
            self._optimizer.forget(row, redrawn)
            self._account.redraw(row, redrawn)
            if len(redrawn):
                last = self._last_resampling[self._roster.going_on[row]]
                last[0], last[1] = self.step, len(redrawn)

    def _records(self, measured: Measured) -> dict[int, Record]:
        """{place: Record} of every member that goes on. Counts in a record begin after the previous record."""
        saes = [self.members[m].sae for m in self._roster.going_on]
        records = self._account.records(measured, saes, self._sources.of_member, steps=self.step)
        self._account.restart_counts()
        return dict(zip(self._roster.going_on, records, strict=True))

    def _diverge(self, loss: Float[Tensor, "members"], *, largest: float) -> None:
        """End the members whose loss is not finite. largest: the largest absolute value in their tokens."""
        step, ends = self.step - 1, {}
        for m, value in zip(self._roster.going_on, loss.tolist(), strict=True):
            if not isfinite(value):
                advice = against_divergence(self.members[m].config.lr, largest)
                ends[m] = End(steps=step, diverged=f"step {step}: the loss is {value}; {advice}")
        self._end(ends)

    @property
    def diverged(self) -> dict[int, str]:
        """{place: message} of the members whose loss was not finite."""
        return self._roster.diverged

    @property
    def stopped(self) -> set[int]:
        """The places of the members that `stop` ended."""
        return self._roster.stopped

    def stop(self, members: Sequence[int]) -> None:
        """Stop the members at these places; the others go on. Raises InputError for a place outside the list."""
        if {*members} - {*range(len(self.members))}:
            raise InputError(f"stop: expected places from 0 to {len(self.members) - 1}, got {[*members]}")
        self._end({m: End(steps=self.step, diverged=None) for m in members})

    @outside_inference_mode()
    def _end(self, ends: Mapping[int, End]) -> None:
        """Go on without these members: copy their weights out of the stack, and build a smaller stack."""
        before = [self.members[m] for m in self._roster.going_on]
        rows = self._roster.end(ends)
        if len(rows) == len(before):
            return
        apart([member.sae for member in before])
        kept = torch.tensor(rows, dtype=torch.int64, device=self._weights.W_enc.device)
        self._account.keep(kept)
        if members := [before[row] for row in rows]:
            self._weights = stack_for_training(members, self._products, self._ranks)
            self._optimizer.keep(self._weights, kept)
            self._sources.keep(members, kept)

    def steps_of(self, member: int) -> int | None:
        """Number of steps of a member; None if it ended before the loaded checkpoint, which does not keep it."""
        return self._roster.ended[member].steps if member in self._roster.ended else self.step

    def last_resampling(self, member: int) -> tuple[int, int]:
        """(number of steps done when latents were last drawn afresh, number of these latents); (0, 0) if never."""
        return int(self._last_resampling[member, 0]), int(self._last_resampling[member, 1])

    def close(self) -> None:
        """Put the SAEs in evaluation mode. After the last step, also copy each SAE's weights out of the stack."""
        if self.step == self.config.steps and len(self._roster.going_on) > 1:
            apart([self.members[m].sae for m in self._roster.going_on])
        for member in self.members:
            member.sae.eval()

    def save(self, path: str | Path) -> None:
        """Write everything that the next step depends on into one file, whole or not at all."""
        state = State(
            step=self.step,
            diverged=self.diverged,
            stopped=self.stopped,
            is_screened=self._products is not None,
            places=self._sources.places if self._roster.going_on else [],
            stream_of_member=self._sources.stream_of_member if self._roster.going_on else [],
            tensors=self._tensors(),
        )
        save_checkpoint(path, state, self.members, self._ranks)

    def load(self, path: str | Path) -> None:
        """Go on from a checkpoint of the same members and tokens, as if training had not been interrupted. Raises
        InputError, and changes nothing, for a file that is no whole checkpoint or one of other members.
        """
        # All checks come first, so that nothing has changed if one of them fails.
        streams = Sources(self.members, self._tokens).stream_of_member
        state, saes = load_checkpoint(path, self.members, streams, self._layouts, self._ranks)
        tensors = complete_tensors(path, state, self.members)
        if state.step > self.config.steps:
            raise InputError(
                f"{path}: expected at least {state.step:,} steps, which are done, got --steps "
                f"{self.config.steps:,}; pass more"
            )
        self._begin(is_screened=state.is_screened)
        for member, (weights, scale) in zip(self.members, saes, strict=True):
            member.sae.load_state_dict(weights)
            member.sae.scale = scale
        self.step = self._optimizer.steps = state.step
        # Members that had ended leave first: the tensors of a checkpoint have rows for the others only.
        self._end({m: End(steps=None, diverged=state.diverged.get(m)) for m in {*state.diverged, *state.stopped}})
        for name, tensor in self._tensors().items():
            tensor.copy_(tensors[name])
        if going_on := self._roster.going_on:
            self._sources = Sources([self.members[m] for m in going_on], self._tokens, state.places)

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint keeps besides the SAEs; none if no member goes on."""
        if not self._roster.going_on:
            return {}
        return {**self._optimizer.tensors(), **self._account.tensors(), "last_resampling": self._last_resampling}
