"""What a trial found: the curve of each candidate, the one that is prescribed, and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autopsae.defaults import Prefer
from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.prescription import Prescription
from autopsae.saved import save_object
from autopsae.tables import Result, html_table
from autopsae.trial.budget import Budget
from autopsae.words import fvu_text, printable

FORMAT = "autopsae-trial"


@dataclass(frozen=True, kw_only=True, repr=False)
class Point(Result):
    """What held-out tokens say of a candidate after some steps."""

    step: int
    """Number of steps done."""
    tokens: int
    """Number of held-out tokens that it was measured on: all at birth and at the end, some of them in between."""
    dead: float
    """Fraction of the latents that fired on no held-out token, in [0, 1]."""
    fvu_raw: float | None
    """Squared error over the variance, both in raw space (`Evaluation.fvu_raw`). None where the tokens do not
    differ."""
    fvu_typical: float | None
    """The same without stray tokens (`Evaluation.fvu_typical`). None where the others do not differ."""

    def __str__(self) -> str:
        return f"step {self.step:,}: {self.dead:.1%} dead, raw FVU {fvu_text(self.fvu_raw)}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Outcome(Result):
    """How a candidate did."""

    name: str
    """The candidate's name."""
    points: tuple[Point, ...]
    """At birth, and after each number of steps at which it was measured; the last one is compared."""
    later: Point | None = None
    """What is expected at the end of the training that the trial is made for; None where it diverged."""
    diverged: str | None = None
    """Why its training ended early; None where it did not. Such a candidate is not chosen."""

    @property
    def end(self) -> Point:
        """The last point."""
        return self.points[-1]

    def __str__(self) -> str:
        if self.diverged or self.later is None:
            return f"{self.name}: diverged"
        return f"{self.name}: {self.end}; expected at {self.later}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trial(Result):
    """The candidates side by side, and what is prescribed after it."""

    outcomes: tuple[Outcome, ...]
    """One for each candidate, in the order in which they were given."""
    chosen: str
    """The name of the candidate that is prescribed."""
    prescription: Prescription
    """The remedy, the bias and the reason."""
    findings: tuple[Finding, ...]
    """What the user should know of the choice: () where nothing is wrong."""
    budget: Budget
    """What it cost."""
    lr: float
    """Learning rate of the trial: `budget.age` times that of the training."""
    seed: int
    """Seed of the rows and of the order of the tokens."""
    acceptable: float
    """Fraction of dead latents that is accepted."""
    prefer: Prefer | None
    """What was preferred: "life" (few dead), "error" (a low error) or None for both."""
    tokens: int
    """Number of different training tokens."""
    held_out: int
    """Number of held-out tokens, on which dead latents and errors are measured."""
    by_document: bool
    """Whether whole documents were held out. False where it is not known which document a token is from."""

    @property
    def epochs(self) -> float:
        """How often each training token was seen."""
        return self.budget.steps * self.budget.batch_tokens / self.tokens

    def __getitem__(self, name: str) -> Outcome:
        for outcome in self.outcomes:
            if outcome.name == name:
                return outcome
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; fractions in [0, 1]."""
        settings = {name: getattr(self, name) for name in ("lr", "seed", "acceptable", "prefer")}
        seen = {name: getattr(self, name) for name in ("tokens", "epochs", "held_out", "by_document")}
        return {
            **self.prescription.made_for(),
            "chosen": self.chosen,
            "reason": self.prescription.reason,
            **settings,
            **asdict(self.budget),
            **seen,
            "candidates": [asdict(outcome) for outcome in self.outcomes],
            "findings": [{**asdict(finding), "text": str(finding)} for finding in self.findings],
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, whole or not at all."""
        save_object(path, format=FORMAT, content=self.to_dict())

    def __str__(self) -> str:
        lines: Sequence[object] = [f"{self.prescription.layer}: {self.chosen}: {self.prescription.reason}"]
        return "\n".join(printable(str(line)) for line in [*lines, *self.outcomes, *self.findings])

    def _html_table(self) -> str:
        # A candidate that diverged has no point but that at birth.
        steps = [point.step for point in max((outcome.points for outcome in self.outcomes), key=len)]
        rows = [
            [outcome.name, *map(str, outcome.points), *["diverged"] * (len(steps) - len(outcome.points))]
            for outcome in self.outcomes
        ]
        said = [f"{self.prescription.layer}: the trial prescribes {self.chosen}: {self.prescription.reason}"]
        header = ["candidate", *(f"after {step:,} steps" for step in steps)]
        return html_table(header, rows, [*map(str, self.findings)], said)
