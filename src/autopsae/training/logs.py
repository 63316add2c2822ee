"""Where records go: `with JsonLines(path) as log: for record in steps(sae, tokens, config): log(record)`.

A logger takes the records of one run in order and hands on each before the call returns, so that a run that is
killed keeps what was logged. A value that is not finite is absent: null in JSON, an empty cell in CSV,
no point in TensorBoard and Weights & Biases.

after: the steps already done, where a run resumes. Records of an earlier run with `step` < after stay, the others
go; with 0, all of them. every: the steps between two records at most; where it is given, records that are missing
among those that stay are an InputError. A full disk is DiskFull.
"""

import json
import operator
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from io import TextIOWrapper
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from autopsae.arrays import InputError
from autopsae.disk import name_full_disk
from autopsae.extras import package_error
from autopsae.files import is_regular, write_text
from autopsae.reading import input_errors, parse
from autopsae.training.config import RENAMED
from autopsae.words import show


@runtime_checkable
class Row(Protocol):
    """A dataclass of numbers, one of which is its step: a `Record`, or a measurement on held-out tokens."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def step(self) -> int:
        """Steps of training before it."""


class Logger(AbstractContextManager["Logger"]):
    """Takes records until it is closed; a context that closes it."""

    @abstractmethod
    def __call__(self, record: Row) -> None:
        """Hand a record on. Raises DiskFull."""

    @abstractmethod
    def close(self) -> None:
        """Take no more records. Raises DiskFull where the last ones cannot be written."""

    def __exit__(self, *_: object) -> None:
        self.close()


class JsonLines(Logger):
    """A JSON object per line; floats read back exactly.

    Raises InputError where it is to go on after a line without a step.
    """

    def __init__(self, path: str | Path, *, after: int = 0, every: int | None = None) -> None:
        self._path = Path(path)
        lines = [_with_names_of_now(line) for line in _whole_lines(self._path)] if after else []
        kept = _before(after, every, lines, lambda line: parse(line.encode())["step"], f"{path}")
        self._file = _rewritten(self._path, kept)

    def __call__(self, record: Row) -> None:
        _append(self._path, self._file, json.dumps(_values(record)))

    def close(self) -> None:
        with name_full_disk(self._path):
            self._file.close()


class Csv(Logger):
    """A line per record under a line of the fields' names; floats read back exactly.

    Raises InputError as `JsonLines`, and for records with other fields than those in the file.
    """

    def __init__(self, path: str | Path, *, after: int = 0, every: int | None = None) -> None:
        self._path = Path(path)
        head, *lines = (_whole_lines(self._path) if after else []) or [""]
        head = ",".join(RENAMED.get(name, name) for name in head.split(","))
        self._names = head

        def step(line: str) -> int:
            return int(dict(zip(head.split(","), line.split(","), strict=True))["step"])

        kept = _before(after, every, lines, step, f"{path} under {head!r}")
        self._file = _rewritten(self._path, [head, *kept] if head else [])

    def __call__(self, record: Row) -> None:
        values = _values(record)
        names = ",".join(values)
        if not self._names:
            _append(self._path, self._file, names)
            self._names = names
        if names != self._names:
            raise InputError(f"{self._path}: expected records of {self._names}, got {names}; pass another path")
        row = ",".join("" if value is None else str(value) for value in values.values())
        _append(self._path, self._file, row)

    def close(self) -> None:
        with name_full_disk(self._path):
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
            raise package_error("TensorBoard", "tensorboard", error, install="autopsae[tensorboard]") from error
        self._writer = SummaryWriter(str(folder), purge_step=after)

    def __call__(self, record: Row) -> None:
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

    def __call__(self, record: Row) -> None:
        self._run.log(_points(record), step=record.step)

    def close(self) -> None:
        pass


def _values(record: Row) -> dict[str, int | float | None]:
    """Every field; None where it is not finite, for which JSON has no number."""
    fields = asdict(record).items()
    return {name: value if value is not None and isfinite(value) else None for name, value in fields}


def _points(record: Row) -> dict[str, int | float]:
    """What there is to draw over steps."""
    return {name: value for name, value in _values(record).items() if value is not None and name != "step"}


def _whole_lines(path: Path) -> list[str]:
    """The lines that end as lines do: what follows the last newline was torn by a kill. None of a missing file."""
    if not path.exists():
        return []
    if not is_regular(path):
        raise InputError(
            f"{path}: expected a file, as records are to follow those in it, got none; pass another path"
        )
    # What is no UTF-8 is refused as the line that it stands in, unless that is the torn one.
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


def read_lines(path: Path, *, most: int) -> tuple[list[dict[str, Any]], int]:
    """(records of a JSON-lines file, how many it has): all of them, or `most` at equal steps, the first and the
    last among them. [] and 0 of a missing file.

    Raises InputError for a line that is no record.
    """
    lines = _whole_lines(path)
    if len(lines) > most:
        chosen = sorted({round(n * (len(lines) - 1) / (most - 1)) for n in range(most)})
    else:
        chosen = list(range(len(lines)))
    records = []
    for number in chosen:
        with input_errors(path, f"a record in line {number + 1:,}", "take an earlier copy, or leave the file out"):
            records.append(_as_record(parse(_with_names_of_now(lines[number]).encode())))
    return records, len(lines)


def _as_record(value: Any) -> dict[str, Any]:
    """A line's content; ValueError where it is no record."""
    if not isinstance(value, dict) or type(value.get("step")) is not int:
        raise ValueError(f"no step in {show(value, 60)}")
    if any(not (number is None or type(number) in (int, float)) for number in value.values()):
        raise ValueError("not only numbers in it")
    return value


def _with_names_of_now(line: str) -> str:
    """A line of JSON that an earlier version wrote, with the names that its numbers have now."""
    for old, new in RENAMED.items():
        line = line.replace(f'"{old}": ', f'"{new}": ')
    return line


def _before(after: int, every: int | None, lines: list[str], step: Callable[[str], Any], where: str) -> list[str]:
    """The lines whose step is less than `after`; InputError where one is no record, or where some are missing."""
    kept, last = [], -1
    for line in lines:
        try:
            number = operator.index(step(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where}: expected records with a step, got {line[:60]!r}; pass another path, or after=0 to "
                "replace it"
            ) from error
        if number < after:
            _check_gap(last, number, every, where)
            kept.append(line)
            last = number
    # The one that was due last is followed by fewer than `every` steps.
    if every is not None:
        _check_gap(last, after - after % every - 1 + every, every, where)
    return kept


def _check_gap(last: int, number: int, every: int | None, where: str) -> None:
    """InputError where a record was due after `last` and before `number`."""
    if every is not None and number - last > every:
        raise InputError(
            f"{where}: expected a record at least every {every} steps, got none between step {last} and {number}: "
            "the log is damaged, or of other settings; put back the whole one, or start afresh"
        )


def _append(path: Path, file: TextIOWrapper, line: str) -> None:
    with name_full_disk(path):
        file.write(line + "\n")


def _rewritten(path: Path, lines: list[str]) -> TextIOWrapper:
    """The file with these lines alone, open for more; the system has each line as soon as it ends."""
    # What is written through has nothing to be replaced, and a pipe would end before the first record.
    if lines or is_regular(path):
        write_text(path, "".join(line + "\n" for line in lines))
    return path.open("a", encoding="utf-8", newline="\n", buffering=1)
