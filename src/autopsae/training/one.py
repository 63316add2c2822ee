"""One SAE trained by itself: `train` to the last step, `steps` a record at a time."""

from collections.abc import Iterator

from autopsae.arrays import Tokens
from autopsae.progress import Progress
from autopsae.sae.model import SAE
from autopsae.training.config import Record, TrainConfig
from autopsae.training.history import Records
from autopsae.training.loop import Training
from autopsae.training.sources import Member


class Diverged(RuntimeError):
    """The loss is not finite. The message says at which step. The SAE has the weights from before that step."""


def steps(sae: SAE, tokens: Tokens, config: TrainConfig) -> Iterator[Record]:
    """Train `sae` in place on raw tokens, and yield a record every `record_every` steps. To stop, stop iterating.

    Raises InputError as `Training`, and Diverged if the loss is not finite; the weights are those before that step.
    """
    training = Training([Member(sae=sae, config=config)], tokens)
    yield from (records[0] for records in training)
    if training.diverged:
        raise Diverged(training.diverged[0])


def train(sae: SAE, tokens: Tokens, config: TrainConfig, *, progress: Progress | None = None) -> Records:
    """Train `sae` in place on raw tokens to the last step, and return its records. Raises as `steps`.

    progress: called with each record, as progress("training", steps done, all steps).
    """
    records = Records()
    for record in steps(sae, tokens, config):
        records.append(record)
        if progress:
            progress("training", record.step + 1, config.steps)
    return records
