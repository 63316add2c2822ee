"""Training one SAE: for record in steps(sae, tokens, config). It is a sweep of one (`sweep`, where the loop is)."""

from collections.abc import Iterator
from pathlib import Path

from autopsae.arrays import Tokens
from autopsae.progress import Progress
from autopsae.sae.model import SAE
from autopsae.training.config import Record, TrainConfig
from autopsae.training.sources import Member
from autopsae.training.sweep import Sweep


class Diverged(RuntimeError):
    """The loss is no longer finite. The message says at which step; the weights are as they were before it."""


class Training:
    """A training run: iterate for its records, stop at any time, save it and resume it bit by bit.

    sae: trained in place, and left in evaluation mode; tokens: raw; step: the number of the next one.
    """

    def __init__(self, sae: SAE, tokens: Tokens, config: TrainConfig) -> None:
        """Raises InputError for a penalty or a frozen part that the SAE cannot have."""
        self.sae, self.config = sae, config
        self._sweep = Sweep([Member(sae=sae, config=config)], tokens)

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self._sweep.step

    @property
    def last_resampling(self) -> tuple[int, int]:
        """As `Sweep.last_resampling`."""
        return self._sweep.last_resampling(0)

    def __iter__(self) -> Iterator[Record]:
        yield from (record for record in self.each_step() if record is not None)

    def each_step(self) -> Iterator[Record | None]:
        """As iteration, but after every step, with None where it is not time for a record."""
        try:
            while self.step < self.config.steps:
                yield self.advance()
        finally:
            self._sweep.close()

    def advance(self) -> Record | None:
        """One step of training; a record, where it is time for one.

        Raises InputError as `Shuffled`, and Diverged where the loss is not finite, before the step is taken.
        """
        records = self._sweep.advance()
        if 0 in self._sweep.diverged:
            raise Diverged(self._sweep.diverged[0])
        return records[0] if records else None

    def save(self, path: str | Path) -> None:
        """As `Sweep.save`."""
        self._sweep.save(path)

    def load(self, path: str | Path) -> None:
        """As `Sweep.load`."""
        self._sweep.load(path)


def steps(sae: SAE, tokens: Tokens, config: TrainConfig) -> Iterator[Record]:
    """Train `sae` in place on raw tokens, one record per `record_every` steps. Stop iterating to stop training.

    Raises InputError as `Training` and `Shuffled`, and Diverged where the loss is not finite, before that step.
    """
    yield from Training(sae, tokens, config)


def train(sae: SAE, tokens: Tokens, config: TrainConfig, *, progress: Progress | None = None) -> list[Record]:
    """`steps` to the end: the SAE is trained in place, and its records are returned. Raises as `steps`.

    progress: told the steps taken with each record, as "training".
    """
    records = []
    for record in steps(sae, tokens, config):
        records.append(record)
        if progress:
            progress("training", record.step + 1, config.steps)
    return records
