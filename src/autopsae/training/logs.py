"""Where records go: `with JsonLines(path) as log: for record in steps(sae, tokens, config): log(record)`.

A logger takes the records of one run in order and hands on each before the call returns, so that a run that is
killed keeps what was logged. A value that is not finite is absent: null in JSON, an empty cell in CSV,
no point in TensorBoard and Weights & Biases.

after: the steps already done, where a run resumes. Records of an earlier run with `step` < after stay, the others
go; with 0, all of them.
"""

import json
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

from autopsae.arrays import InputError
from autopsae.files import write_text
from autopsae.training.loop import Record


class Logger(AbstractContextManager["Logger"]):
    """Takes records until it is closed; a context that closes it."""

    @abstractmethod
    def __call__(self, record: Record) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.close()


class JsonLines(Logger):
    """A JSON object per line; floats read back exactly.

    Raises InputError where it is to go on after a line without a step.
    """

    def __init__(self, path: str | Path, *, after: int = 0) -> None:
        lines = _whole_lines(path) if after else []
        self._file = _rewritten(path, _before(after, lines, lambda line: json.loads(line)["step"], f"{path}"))

    def __call__(self, record: Record) -> None:
        self._file.write(json.dumps(_values(record)) + "\n")

    def close(self) -> None:
        self._file.close()


class Csv(Logger):
    """A line per record under a line of the fields' names; floats read back exactly.

    Raises InputError as `JsonLines`, and for records with other fields than those in the file.
    """

    def __init__(self, path: str | Path, *, after: int = 0) -> None:
        self._path = path
        head, *lines = (_whole_lines(path) if after else []) or [""]
        self._names = head

        def step(line: str) -> str:
            return dict(zip(head.split(","), line.split(","), strict=True))["step"]

        kept = _before(after, lines, step, f"{path} under {head!r}")
        self._file = _rewritten(path, [head, *kept] if head else [])

    def __call__(self, record: Record) -> None:
        values = _values(record)
        names = ",".join(values)
        if not self._names:
            self._file.write(names + "\n")
            self._names = names
        if names != self._names:
            raise InputError(f"{self._path}: expected records of {self._names}, got {names}; pass another path")
        self._file.write(",".join("" if value is None else str(value) for value in values.values()) + "\n")

    def close(self) -> None:
        self._file.close()


class TensorBoard(Logger):
    """A scalar per field, over steps, in a folder for TensorBoard; it keeps them as float32.

    Records of an earlier run that should go are hidden by TensorBoard, not deleted.

    Raises InputError where tensorboard is not installed.
    """

    def __init__(self, folder: str | Path, *, after: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"TensorBoard: expected the package tensorboard ({error}); pip install 'autopsae[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=after)

    def __call__(self, record: Record) -> None:
        for name, value in _points(record).items():
            self._writer.add_scalar(name, value, record.step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB(Logger):
    """A run of Weights & Biases, as `wandb.init(...)` returns it, or anything with its `log(values, step=...)`.

    The run stays its maker's: where it resumes is for `wandb.init` to say, and closing does not finish it.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def __call__(self, record: Record) -> None:
        self._run.log(_points(record), step=record.step)

    def close(self) -> None:
        pass


def _values(record: Record) -> dict[str, int | float | None]:
    """Every field; None where it is not finite, for which JSON has no number."""
    fields = asdict(record).items()
    return {name: value if value is not None and isfinite(value) else None for name, value in fields}


def _points(record: Record) -> dict[str, int | float]:
    """What there is to draw over steps."""
    return {name: value for name, value in _values(record).items() if value is not None and name != "step"}


def _whole_lines(path: str | Path) -> list[str]:
    """The lines that end as lines do: what follows the last newline was torn by a kill. None of a missing file."""
    if not Path(path).exists():
        return []
    # What is no UTF-8 is refused as the line that it stands in, unless that is the torn one.
    return Path(path).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def _before(after: int, lines: list[str], step: Callable[[str], Any], where: str) -> list[str]:
    """The lines whose step is less than `after`."""
    kept = []
    for line in lines:
        try:
            if int(step(line)) < after:
                kept.append(line)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where}: expected records with a step, got {line[:60]!r}; pass another path, or after=0 to "
                "replace it"
            ) from error
    return kept


def _rewritten(path: str | Path, lines: list[str]) -> TextIO:
    """The file with these lines alone, open for more; the system has each line as soon as it ends."""
    write_text(path, "".join(line + "\n" for line in lines))
    return Path(path).open("a", encoding="utf-8", buffering=1)
