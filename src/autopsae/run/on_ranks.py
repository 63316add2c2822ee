"""One run on several ranks, from activations to a folder: each rank trains the latents that it owns."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError, Tokens
from autopsae.disk import LOCK, hold_lock
from autopsae.kernels.ranks import Ranks
from autopsae.passes import same_passes
from autopsae.run.driver import checkpoint_left, say_where
from autopsae.run.finished import is_present, load_finished
from autopsae.run.folder import Entry, Folder, Plan
from autopsae.run.observer import Observer
from autopsae.run.one import CHECKPOINT, RANKS_CHECKPOINT, check_out
from autopsae.training.loop import Training
from autopsae.training.one import Diverged
from autopsae.training.rank_files import all_or_none, remove_on_ranks
from autopsae.training.ranks import drop_rows, part_of, unite


def run_on_ranks(
    entry: Entry,
    training: Tokens,
    held_out: Tokens,
    out: str | Path,
    *,
    ranks: Ranks,
    plan: Plan | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """As `run.one.run`, on several ranks; all call it, with the same tokens and an SAE as `part_of` takes it. The
    first rank writes what `run` writes, and its memory has to hold the whole SAE at birth and at the end; then its
    SAE is the trained one. On other ranks the SAE loses its rows. device: where this rank trains its latents.
    Returns the summary, on all ranks.

    Checkpoints are those of `training.rank_files`, and may be resumed on another number of ranks. Raises InputError
    as `run`, as `Training` on several ranks, and for measurements on held-out tokens during training.
    """
    job = _Job(
        entry, same_passes(training), held_out, Path(out), ranks, plan or Plan(), observer or Observer(), device
    )
    with ExitStack() as stack:
        with all_or_none(ranks.everyone):
            job.check(resume=resume)
            if ranks.everyone.is_first:
                stack.enter_context(hold_lock(job.out / LOCK, what=job.out))
                check_out(job.out, resume=resume, on_ranks=True)  # another process may have ended since
        summary = job.summary_of_first()
        if summary is None:
            job.train(stack, resumed=ranks.everyone.gather_words(str(is_present(job.checkpoint)))[0] == "True")
            summary = job.summary_of_first()
        assert summary is not None
        if summary["diverged"]:
            raise Diverged(summary["diverged"] + checkpoint_left(job.checkpoint, "last"))
        if ranks.everyone.is_first:
            remove_on_ranks(job.checkpoint)
        return summary


class _Job:
    """A run on one of the ranks."""

    def __init__(
        self,
        entry: Entry,
        tokens: Tokens,
        held_out: Tokens,
        out: Path,
        ranks: Ranks,
        plan: Plan,
        observer: Observer,
        device: str | None,
    ) -> None:
        self.out, self.checkpoint = out, out / RANKS_CHECKPOINT
        self._entry, self._tokens, self._held_out = entry, tokens, held_out
        self._ranks, self._plan, self._observer, self._device = ranks, plan, observer, device

    def check(self, *, resume: bool) -> None:
        """Raises InputError for what cannot be written, or not be measured on several ranks."""
        self._plan.check(self._entry.member.config)
        if self._plan.evaluate_every is not None:
            raise InputError(
                "evaluate_every: expected no measurements during a training on several ranks, as none has the "
                f"whole SAE then, got one every {self._plan.evaluate_every} steps; leave it out"
            )
        check_out(self.out, resume=resume, on_ranks=True)
        if is_present(self.out / CHECKPOINT):
            raise InputError(
                f"{self.out}: holds the checkpoint of a run on one process, got {self._ranks.everyone.size} ranks; "
                "go on with one process, or pass another name"
            )

    def summary_of_first(self) -> dict[str, Any] | None:
        """The summary that the first rank reads from the folder; None where the run is not finished."""
        with all_or_none(self._ranks.everyone):
            mine = load_finished(self.out, self._entry.settings) if self._ranks.everyone.is_first else None
        summary: dict[str, Any] | None = json.loads(self._ranks.everyone.gather_words(json.dumps(mine))[0])
        return summary

    def train(self, stack: ExitStack, *, resumed: bool) -> None:
        """Run from birth, or from the checkpoint, to the last step, and write the SAE and the summary."""
        ranks, member, plan = self._ranks, self._entry.member, self._plan
        with all_or_none(ranks.everyone):
            if ranks.everyone.is_first:
                folder = stack.enter_context(Folder(self.out, self._entry, self._tokens, self._held_out))
                folder.be_born(resumed=resumed)
                self._observer.at_birth({self._entry.name: folder.birth})
        part = part_of(member.sae, ranks).to(self._device)
        if not ranks.everyone.is_first:
            drop_rows(member.sae)
        training = Training([replace(member, sae=part)], self._tokens, ranks=ranks)
        if resumed:
            training.load(self.checkpoint)
        if ranks.everyone.is_first:
            folder.log(plan, self._observer.loggers(self.out, training.step), after=training.step)
        with say_where(training, self.checkpoint):
            for records in training.each_step():
                if ranks.everyone.is_first and records:
                    folder.take(records[0])
                    self._observer.on_records({self._entry.name: records[0]})
                if training.diverged:
                    raise Diverged(training.diverged[0])
                if plan.saves(training.step):
                    training.save(self.checkpoint)
        whole = unite(part, ranks)
        with all_or_none(ranks.everyone):
            if whole is not None:
                if whole.b_pre is not None:
                    member.sae.fix_encoder_center()  # so that it has a place for it
                member.sae.load_state_dict(whole.state_dict())
                member.sae.eval()
                folder.finish(training.step)
