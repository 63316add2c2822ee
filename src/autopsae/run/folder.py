"""The folder of one SAE: what it was at birth, its records, what held-out tokens said, the SAE, and a summary."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError, Tokens
from autopsae.diagnosis.prescribe import Prescription
from autopsae.evaluation.reconstruction import evaluate
from autopsae.files import tensors_digest
from autopsae.passes import known_tokens, same_passes
from autopsae.run.data import ON_THE_WAY, at_most
from autopsae.run.finished import BIRTH, SUMMARY, Settings, load_begun, name_kinds
from autopsae.run.measured import HeldOut, numbers_of
from autopsae.run.same_data import check_described, digests_of
from autopsae.run.verdict import Resampled, divergence, idle_resampling, warnings_of
from autopsae.saved import as_json, save_object
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import JsonLines, Logger
from autopsae.training.sources import Member, shift_tokens


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does besides training. Steps are counted from its beginning."""

    checkpoint_every: int | None = None
    """Steps between checkpoints, each of which replaces the one before."""
    evaluate_every: int | None = None
    """Steps between measurements on held-out tokens (held_out.jsonl), on 4,096 of them at most, spread over all."""
    target_fvu: float | None = None
    """Stop at the first of those measurements whose raw FVU is no greater."""

    def __post_init__(self) -> None:
        whole_fields(self, "checkpoint_every", "evaluate_every")
        if any(every is not None and every < 1 for every in (self.checkpoint_every, self.evaluate_every)):
            raise InputError(f"expected checkpoint_every and evaluate_every of at least 1 step, got {self}")
        if self.target_fvu is not None and not (isfinite(self.target_fvu) and self.target_fvu > 0):
            raise InputError(f"expected target_fvu > 0, got {self.target_fvu}")
        if self.target_fvu is not None and self.evaluate_every is None:
            raise InputError("target_fvu: expected evaluate_every too, as the target is one on held-out tokens")

    def check(self, config: TrainConfig) -> None:
        """InputError where a step that is due falls between two records."""
        for name in ("checkpoint_every", "evaluate_every"):
            every = getattr(self, name)
            if every is not None and every % config.record_every:
                raise InputError(
                    f"{name}: expected a multiple of record_every = {config.record_every}, got {every}"
                )

    def saves(self, done: int) -> bool:
        """Is a checkpoint due, after so many steps?"""
        return self.checkpoint_every is not None and done % self.checkpoint_every == 0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A member by its name, after which its folder is called."""

    member: Member
    """The SAE, and how it is trained."""
    about: dict[str, Any]
    """What else its summary should say."""
    held_out: Tokens | None = None
    """Raw tokens on which it is measured; None for those of the run. The member's shift is added to either."""
    data: str = ""
    """What it is trained on: the best is sought among members of the same."""
    prescription: Prescription | None = None
    """What the SAE was born from: the summary says what it was made for, and in what this run differs from that."""

    @property
    def name(self) -> str:
        """Name of the member, which is that of its folder."""
        return self.member.name

    @property
    def settings(self) -> Settings:
        """What tells it from others before a token is read."""
        return Settings(about=self.about, config=self.member.config)


class Folder(AbstractContextManager["Folder"]):
    """What a run keeps of one member; a context that closes its logs."""

    def __init__(self, out: Path, entry: Entry, training: Tokens, held_out: Tokens) -> None:
        self.out, self._entry, self._member = out, entry, entry.member
        own = entry.member.tokens
        self._training = training if own is None else own
        raw = self._raw = same_passes(held_out if entry.held_out is None else entry.held_out)
        self._held_out, self._few = (self._tokens_of_member(tokens) for tokens in (raw, at_most(raw, ON_THE_WAY)))
        self._about = as_json(entry.about)
        self._open = ExitStack()
        self._logs: list[Logger] = []
        self._held_out_log: JsonLines | None = None
        self._plan = Plan()

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def be_born(self, *, resumed: bool) -> None:
        """Measure the SAE before training, once, on all held-out tokens, so that the end compares with it;
        InputError where what is resumed began with other settings or tokens.
        """
        path = self.out / "birth.json"
        if not resumed:
            birth = numbers_of(evaluate(self._member.sae, self._held_out))
            content = {"about": self._about, "birth": birth, "digests": digests_of(self._training, self._raw)}
            self.birth = save_object(path, format=BIRTH, content=content)["birth"]
            return
        before = load_begun(self.out, self._about)
        self.birth = before["birth"]
        # A run that an earlier version began does not say what it was trained on.
        check_described(before.get("digests", {}), self._training, self._raw)

    def log(self, plan: Plan, loggers: list[Logger], *, after: int) -> None:
        """Open the logs, after so many steps."""
        self._plan = plan
        every = self._member.config.record_every
        self._logs = [JsonLines(self.out / "records.jsonl", after=after, every=every), *loggers]
        for logger in self._logs:
            self._open.enter_context(logger)
        if plan.evaluate_every:
            self._held_out_log = JsonLines(self.out / "held_out.jsonl", after=after, every=plan.evaluate_every)
            self._open.enter_context(self._held_out_log)

    def take(self, record: Record) -> bool:
        """Log a record, and measure on held-out tokens if it is time; true where the target is reached."""
        for logger in self._logs:
            logger(record)
        every, target = self._plan.evaluate_every, self._plan.target_fvu
        if self._held_out_log is None or every is None or (record.step + 1) % every:
            return False
        if self._member.sae.not_finite():
            return False  # the next step, or the end, says so
        held_out = HeldOut(step=record.step, **numbers_of(evaluate(self._member.sae, self._few)))
        self._held_out_log(held_out)
        return target is not None and held_out.fvu_raw is not None and held_out.fvu_raw <= target

    def finish(
        self, steps: int, *, diverged: str | None = None, last_resampling: tuple[int, int] = (0, 0)
    ) -> dict[str, Any]:
        """Write the SAE and the summary, and return it; of a member that diverged, the summary alone.

        diverged: what befell it in training; last_resampling: as of `Training`.
        """
        sae, config = self._member.sae, self._member.config
        if diverged is None and (bad := sae.not_finite()):
            diverged = f"step {steps - 1}: {', '.join(bad)} not finite; lower the learning rate ({config.lr:g})"
        evaluation = evaluate(sae, self._held_out) if diverged is None else None
        if evaluation:
            diverged = divergence(evaluation, self.birth, steps=steps, lr=config.lr)
        summary: dict[str, Any] = {
            **self._about,
            "prescription": self._prescription(),
            "training_tokens": known_tokens(self._training),
            "held_out_tokens": self.birth["tokens"],
            # A run that an earlier version began did not write it.
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
                "firing_rates": evaluation.fates.by_rate(),
                "resampled_at_end": resampled and asdict(resampled),
                "warnings": [
                    *warnings_of(evaluation, self.birth, resampled, lr=config.lr),
                    *idle_resampling(config.resampling, steps=steps),
                ],
            }
        digests = digests_of(self._training, self._raw)
        content = {**summary, "steps": steps, "training": name_kinds(config), "digests": digests}
        return save_object(self.out / "summary.json", format=SUMMARY, content=content)

    def _tokens_of_member(self, raw: Tokens) -> Tokens:
        """Tokens as the member gets them."""
        return raw if self._member.shift is None else shift_tokens(raw, self._member.shift)

    def _prescription(self) -> dict[str, Any] | None:
        """What the SAE was born from, and what it is used for else."""
        prescription, sae = self._entry.prescription, self._member.sae
        if prescription is None:
            return None
        return {**prescription.made_for(), "differs": prescription.differences(sae, layer=self._entry.data)}
