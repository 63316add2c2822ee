"""`Folder`: the files that a run writes for one SAE.

birth.json (the measurements before training), records.jsonl, held_out.jsonl (the measurements during training), sae
(the trained SAE) and summary.json. docs/outputs.md describes them.
"""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError, Tokens
from autopsae.diagnosis.prescription import Prescription
from autopsae.evaluation.reconstruction import evaluate
from autopsae.files import tensors_digest
from autopsae.passes import known_tokens, same_passes, source_documents
from autopsae.run.data import ON_THE_WAY, at_most
from autopsae.run.finished import BIRTH, SUMMARY, Settings, load_begun, name_kinds
from autopsae.run.measured import HeldOut, numbers_of
from autopsae.run.same_data import check_described, digests_of
from autopsae.run.verdict import Resampled, divergence, idle_resampling, warnings_of
from autopsae.saved import as_json, save_object
from autopsae.survival.outlook import numbers_of_forecast
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import JsonLines, Logger
from autopsae.training.sources import Member, shift_tokens


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does besides training. Steps are counted from the beginning of the run, also after a resume.

    Raises InputError for a number that is not over zero, and for `target_fvu` without `evaluate_every`.
    """

    checkpoint_every: int | None = None
    """Number of steps from one checkpoint to the next. Each replaces the one before it. None for no checkpoints."""
    evaluate_every: int | None = None
    """Number of steps from one measurement on held-out tokens to the next. A measurement uses at most 4,096 tokens,
    spread over all that are held out, and is written to held_out.jsonl. None for no measurements."""
    target_fvu: float | None = None
    """Stop training at the first of these measurements with a raw FVU of at most this. None to train to the end."""

    def __post_init__(self) -> None:
        whole_fields(self, "checkpoint_every", "evaluate_every")
        if any(every is not None and every < 1 for every in (self.checkpoint_every, self.evaluate_every)):
            raise InputError(f"expected checkpoint_every and evaluate_every of at least 1 step, got {self}")
        if self.target_fvu is not None and not (isfinite(self.target_fvu) and self.target_fvu > 0):
            raise InputError(f"expected target_fvu > 0, got {self.target_fvu}")
        if self.target_fvu is not None and self.evaluate_every is None:
            raise InputError("target_fvu: expected evaluate_every too, as the target is one on held-out tokens")

    def check(self, config: TrainConfig) -> None:
        """Raises InputError if a checkpoint or a measurement would fall between two records."""
        for name in ("checkpoint_every", "evaluate_every"):
            every = getattr(self, name)
            if every is not None and every % config.record_every:
                raise InputError(
                    f"{name}: expected a multiple of record_every = {config.record_every}, got {every}"
                )

    def saves(self, done: int) -> bool:
        """Whether a checkpoint is due after `done` steps."""
        return self.checkpoint_every is not None and done % self.checkpoint_every == 0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One SAE of a run or a sweep: how it is trained, how it is measured, and what its summary says about it."""

    member: Member
    """The SAE and its training."""
    about: dict[str, Any]
    """More keys and values for summary.json, such as {"layer": "hs12", "start": "median"}, in JSON types. They also
    identify the run: a run can only be resumed with the same `about`."""
    held_out: Tokens | None = None
    """Raw held-out tokens of this SAE, on which it is measured. None for those of the run. In both cases the
    member's `shift` is added to them."""
    data: str = ""
    """Name of the tokens that the SAE is trained on, such as the name of the layer. A sweep names one best SAE for
    each such name, because errors on different tokens cannot be compared. "" for tokens without a name."""
    prescription: Prescription | None = None
    """The prescription that the SAE was born from. The summary then says for which layer and SAE it was made, and
    in what this run differs from that. None if the SAE was born from something else."""

    @property
    def name(self) -> str:
        """Name of the member. In a sweep, its folder is called by it."""
        return self.member.name

    @property
    def settings(self) -> Settings:
        """What identifies the run before any token is read: `about`, and the settings of the training."""
        return Settings(about=self.about, config=self.member.config)

    def differences(self) -> list[str]:
        """In what this run is not what its prescription was made for (`Prescription.differences`)."""
        if self.prescription is None:
            return []
        config = self.member.config
        return self.prescription.differences(self.member.sae, layer=self.data, lr_steps=config.lr * config.steps)


class Folder(AbstractContextManager["Folder"]):
    """The files of one SAE, in the folder `out`. As a context manager it closes the logs at the end.

    A driver calls `be_born`, then `log`, then `take` with each record, and `finish` at the end.
    """

    def __init__(self, out: Path, entry: Entry, training: Tokens, held_out: Tokens) -> None:
        """training, held_out: the raw tokens of the run, for an entry that has none of its own."""
        self.out, self._entry, self._member = out, entry, entry.member
        own = entry.member.tokens
        self._training = training if own is None else own
        # Checked to be the same tokens in every pass, so that measurements can be compared.
        raw = self._raw_held_out = same_passes(held_out if entry.held_out is None else entry.held_out)
        # All of them for birth and end, some of them for the measurements during training.
        self._held_out, self._some_held_out = (
            self._tokens_of_member(tokens) for tokens in (raw, at_most(raw, ON_THE_WAY))
        )
        self._about = as_json(entry.about)
        self._open = ExitStack()
        self._logs: list[Logger] = []
        self._held_out_log: JsonLines | None = None
        self._plan = Plan()

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def be_born(self, *, resumed: bool) -> None:
        """Measure the SAE before training on all held-out tokens, and write birth.json. The result of the training
        is compared with it. A resumed run reads birth.json instead.

        Raises InputError if the resumed run began with other settings or other tokens.
        """
        path = self.out / "birth.json"
        if not resumed:
            birth = numbers_of(evaluate(self._member.sae, self._held_out, at_tokens=None))
            content = {
                "about": self._about,
                "birth": birth,
                "digests": digests_of(self._training, self._raw_held_out),
            }
            self.birth = save_object(path, format=BIRTH, content=content)["birth"]
            return
        before = load_begun(self.out, self._about)
        self.birth = before["birth"]
        # An earlier version wrote no digests of the tokens.
        check_described(before.get("digests", {}), self._training, self._raw_held_out)

    def log(self, plan: Plan, loggers: list[Logger], *, after: int) -> None:
        """Open the logs. loggers: those besides records.jsonl; after: the number of steps that are done. Records of
        later steps, which an interrupted run may have left, are removed from the logs opened here.
        """
        self._plan = plan
        every = self._member.config.record_every
        self._logs = [JsonLines(self.out / "records.jsonl", after=after, every=every), *loggers]
        for logger in self._logs:
            self._open.enter_context(logger)
        if plan.evaluate_every:
            self._held_out_log = JsonLines(self.out / "held_out.jsonl", after=after, every=plan.evaluate_every)
            self._open.enter_context(self._held_out_log)

    def take(self, record: Record) -> bool:
        """Log a record, and measure on held-out tokens if it is due. Returns whether the target FVU is reached."""
        for logger in self._logs:
            logger(record)
        every, target = self._plan.evaluate_every, self._plan.target_fvu
        if self._held_out_log is None or every is None or (record.step + 1) % every:
            return False
        if self._member.sae.not_finite():
            return False  # not measured: the next step, or `finish`, reports that the weights are not finite
        measured = evaluate(self._member.sae, self._some_held_out, at_tokens=None)
        held_out = HeldOut(step=record.step, **numbers_of(measured))
        self._held_out_log(held_out)
        return target is not None and held_out.fvu_raw is not None and held_out.fvu_raw <= target

    def finish(
        self, steps: int, *, diverged: str | None = None, last_resampling: tuple[int, int] = (0, 0)
    ) -> dict[str, Any]:
        """Measure the SAE on all held-out tokens, write it and its summary, and return the summary. If training has
        diverged, only the summary is written.

        steps: the number of steps that are done. diverged: the message if the loss was not finite, else None; a
        result with an absurdly large error (`divergence`) counts as diverged too. last_resampling: (steps done when
        latents were last drawn afresh, how many latents), as from `Training.last_resampling`.
        """
        sae, config = self._member.sae, self._member.config
        if diverged is None and (bad := sae.not_finite()):
            diverged = f"step {steps - 1}: {', '.join(bad)} not finite; lower the learning rate ({config.lr:g})"
        evaluation = None
        if diverged is None:
            documents = source_documents(self._raw_held_out)
            evaluation = evaluate(sae, self._held_out, documents=documents)
            diverged = divergence(evaluation, self.birth, steps=steps, lr=config.lr)
        summary: dict[str, Any] = {
            **self._about,
            "prescription": self._prescription(),
            "training_tokens": known_tokens(self._training),
            "held_out_tokens": self.birth["tokens"],
            # `dead_tokens` is missing in the birth.json of an earlier version.
            "birth": {**self.birth, "dead_tokens": self.birth["tokens"]},
            "scale": sae.scale,
            "diverged": diverged,
        }
        if evaluation and diverged is None:
            sae.save(self.out / "sae")
            resampled = Resampled.of(last_resampling, steps=steps)
            summary |= {
                "sae_sha256": tensors_digest(sae.state_dict()),
                **numbers_of(evaluation),
                **numbers_of_forecast(evaluation.dead_forecast),
                "firing_rates": evaluation.fates.by_rate(),
                "resampled_at_end": resampled and asdict(resampled),
                "warnings": [
                    *warnings_of(evaluation, self.birth, resampled, lr=config.lr),
                    *idle_resampling(config, steps=steps),
                ],
            }
        digests = digests_of(self._training, self._raw_held_out)
        content = {**summary, "steps": steps, "training": name_kinds(config), "digests": digests}
        return save_object(self.out / "summary.json", format=SUMMARY, content=content)

    def _tokens_of_member(self, raw: Tokens) -> Tokens:
        """Raw tokens with the shift of the member."""
        return raw if self._member.shift is None else shift_tokens(raw, self._member.shift)

    def _prescription(self) -> dict[str, Any] | None:
        """What the prescription was made for, and in what this SAE `differs` from that. None if there is none."""
        prescription = self._entry.prescription
        return None if prescription is None else {**prescription.made_for(), "differs": self._entry.differences()}
