"""Laws of the loggers: what is read back is what was logged, in one run or several, closed or killed."""

import csv
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from autopsae.arrays import InputError
from autopsae.training.config import Record
from autopsae.training.logs import Csv, JsonLines, Logger, TensorBoard, WandB
from tests import processes

Value = int | float | None
Points = dict[str, dict[int, Any]]


@dataclass(frozen=True, kw_only=True)
class More(Record):
    """Records may come to have other fields, and values that are absent."""

    lr: float | None = None
    """Absent in some steps."""


def record(step: int, **changes: Any) -> More:
    values: dict[str, Any] = {field.name: 0.1 + 1e-17 * step for field in fields(Record)}
    values |= dict.fromkeys(
        ("tokens", "dead_tokens", "died", "revived_from_relu", "revived_from_topk", "resampled"), 2**53 + step
    )
    return More(**{**values, "step": step, "loss": 1 / (step + 3), "lr": 1e-300, **changes})


def log(logger: Logger, steps: Iterable[int], **changes: Any) -> list[More]:
    records = [record(step, **changes) for step in steps]
    with logger:
        for one in records:
            logger(one)
    return records


def read_json(path: Path) -> list[dict[str, Value]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def read_csv(path: Path) -> list[dict[str, Value]]:
    def number(text: str) -> Value:
        return None if not text else int(text) if text.isdecimal() else float(text)

    with path.open(newline="") as file:
        return [{name: number(text) for name, text in row.items()} for row in csv.DictReader(file)]


FILES = pytest.mark.parametrize(("kind", "read"), [(JsonLines, read_json), (Csv, read_csv)], ids=["json", "csv"])
Kind = Callable[..., Logger]
Read = Callable[[Path], list[dict[str, Value]]]


# Files


@FILES
def test_what_is_read_back_equals_the_records(tmp_path: Path, kind: Kind, read: Read) -> None:
    path = tmp_path / "new folder" / "records"
    records = log(kind(path), range(5))
    assert read(path) == [asdict(one) for one in records]


@FILES
@pytest.mark.parametrize("value", [nan, inf, -inf, None])
def test_what_is_not_finite_reads_back_as_absent(
    tmp_path: Path, kind: Kind, read: Read, value: float | None
) -> None:
    log(kind(tmp_path / "records"), range(2), lr=value)
    assert read(tmp_path / "records") == [asdict(record(step, lr=None)) for step in range(2)]


@FILES
def test_each_record_is_on_disk_before_the_next(tmp_path: Path, kind: Kind, read: Read) -> None:
    with kind(tmp_path / "records") as logger:
        for step in range(3):
            logger(record(step))
            assert read(tmp_path / "records")[-1] == asdict(record(step))


@FILES
@pytest.mark.parametrize("after", [0, 1, 3, 5, 9])
def test_a_resumed_file_holds_the_steps_before_and_those_since(
    tmp_path: Path, kind: Kind, read: Read, after: int
) -> None:
    log(kind(tmp_path / "records"), range(5), loss=7.0)
    log(kind(tmp_path / "records", after=after), range(after, 10))
    kept = [asdict(record(step, loss=7.0)) for step in range(min(after, 5))]
    assert read(tmp_path / "records") == kept + [asdict(record(step)) for step in range(after, 10)]


@FILES
def test_a_file_resumed_from_nothing_is_a_new_one(tmp_path: Path, kind: Kind, read: Read) -> None:
    log(kind(tmp_path / "records", after=3), range(3, 5))
    assert read(tmp_path / "records") == [asdict(record(step)) for step in range(3, 5)]


@FILES
@pytest.mark.parametrize("lost", [range(0), range(2), range(4, 6), range(8, 10), range(10)], ids=str)
def test_where_the_steps_between_records_are_known_lost_records_are_told(
    tmp_path: Path, kind: Kind, read: Read, lost: range
) -> None:
    path = tmp_path / "records"
    log(kind(path), [step for step in range(1, 10, 2) if step not in lost])
    before = path.read_bytes()
    if not lost:
        kind(path, after=11, every=2).close()  # the next record is due after 12 steps
        return
    with pytest.raises(
        InputError, match=r"records.*: expected a record at least every 2 steps, got none between step"
    ):
        kind(path, after=10, every=2)
    assert path.read_bytes() == before


@FILES
@pytest.mark.parametrize("after", [1, 3, 4])
def test_wherever_a_kill_cuts_the_file_it_resumes_to_the_whole_one(
    tmp_path: Path, kind: Kind, read: Read, after: int
) -> None:
    log(kind(tmp_path / "whole"), range(6))
    whole = (tmp_path / "whole").read_bytes()
    lines = whole.splitlines(keepends=True)
    head = len(lines) - 6
    # A checkpoint is made after its records were logged, so the cut is beyond the line before step `after`.
    for cut in range(len(b"".join(lines[: head + after])), len(whole) + 1, 7):
        (tmp_path / "cut").write_bytes(whole[:cut])
        log(kind(tmp_path / "cut", after=after), range(after, 6))
        assert (tmp_path / "cut").read_bytes() == whole


@FILES
@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"3,4", b"\x00\x00", b"\xff\xfe"])
def test_a_torn_last_line_goes_silently(tmp_path: Path, kind: Kind, read: Read, torn: bytes) -> None:
    path = tmp_path / "records"
    log(kind(path), range(3))
    before = path.read_bytes()
    path.write_bytes(before + torn)
    kind(path, after=3).close()
    assert path.read_bytes() == before


def test_a_torn_head_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("step,tok")
    log(Csv(tmp_path / "records", after=1), range(1, 2))
    assert read_csv(tmp_path / "records") == [asdict(record(1))]


@FILES
@pytest.mark.parametrize("wrong", [b"hello\n", b"[1]\n", b'{"loss": 1}\n', b"\xff\n", b"\n", b"a,b\n1,2\n"])
def test_lines_without_a_step_are_refused_and_left(tmp_path: Path, kind: Kind, read: Read, wrong: bytes) -> None:
    path = tmp_path / "records"
    content = wrong + b"more\n"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"records.*: expected records with a step, got '.*'; pass another path"):
        kind(path, after=1)
    assert path.read_bytes() == content
    log(kind(path), range(1))
    assert read(path) == [asdict(record(0))]


def test_csv_refuses_records_of_other_fields(tmp_path: Path) -> None:
    log(Csv(tmp_path / "records"), range(2))
    plain = Record(**{field.name: getattr(record(2), field.name) for field in fields(Record)})
    with (
        Csv(tmp_path / "records", after=2) as logger,
        pytest.raises(
            InputError, match=r"records: expected records of step,.*,lr, got step,.*,resampled; pass another"
        ),
    ):
        logger(plain)
    assert len(read_csv(tmp_path / "records")) == 2


# TensorBoard and Weights & Biases


def tensorboard_points(folder: Path) -> Points:
    accumulators: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: {event.step: event.value for event in found.Scalars(tag)} for tag in found.Tags()["scalars"]}


def expected_points(records: list[More]) -> Points:
    names = [field.name for field in fields(More) if field.name != "step"]
    return {name: {one.step: pytest.approx(getattr(one, name), rel=1e-6) for one in records} for name in names}


def test_tensorboard_reads_back_a_point_per_field_and_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    records = log(TensorBoard(tmp_path / "run"), range(4))
    assert tensorboard_points(tmp_path / "run") == expected_points(records)


@pytest.mark.parametrize("after", [0, 2, 4])
def test_tensorboard_resumes_as_the_files_do(tmp_path: Path, after: int) -> None:
    pytest.importorskip("tensorboard")
    first = log(TensorBoard(tmp_path), range(4), loss=7.0)
    second = log(TensorBoard(tmp_path, after=after), range(after, 6))
    assert tensorboard_points(tmp_path) == expected_points(first[:after] + second)


def test_tensorboard_has_no_point_where_a_value_is_absent(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with TensorBoard(tmp_path) as logger:
        for step, lr in enumerate([0.5, None, nan, inf]):
            logger(record(step, lr=lr))
    found = tensorboard_points(tmp_path)
    assert found["lr"] == {0: 0.5}
    assert len(found["loss"]) == 4


def test_without_tensorboard_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"expected the package tensorboard .*; pip install 'autopsae\[tensorb"):
        TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())


def test_wandb_s_run_is_given_each_step_and_stays_open() -> None:
    class Run:
        """What of wandb's run is used: its other methods are missed here."""

        def __init__(self) -> None:
            self.logged: list[tuple[int, dict[str, float]]] = []

        def log(self, data: dict[str, float], step: int) -> None:
            self.logged.append((step, data))

    run = Run()
    with WandB(run) as logger:
        for step, lr in [(3, 0.5), (4, None), (5, nan)]:
            logger(record(step, lr=lr))
    expected = [asdict(record(step)) for step in (3, 4, 5)]
    for values in expected:
        del values["step"], values["lr"]
    expected[0]["lr"] = 0.5
    assert run.logged == list(zip((3, 4, 5), expected, strict=True))


# All


KILLED = """
import os, sys
from pathlib import Path
from tests.training.test_logs import Csv, JsonLines, TensorBoard, record
folder = Path(sys.argv[1])
loggers = [JsonLines(folder / "json"), Csv(folder / "csv"), TensorBoard(folder / "events")]
for step in range(5):
    for logger in loggers:
        logger(record(step))
os._exit(9)
"""


def test_a_killed_process_leaves_every_record(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    killed = processes.run(processes.code, KILLED, tmp_path)
    assert killed.returncode == 9
    records = [record(step) for step in range(5)]
    assert read_json(tmp_path / "json") == read_csv(tmp_path / "csv") == [asdict(one) for one in records]
    assert tensorboard_points(tmp_path / "events") == expected_points(records)


@pytest.mark.parametrize("kind", [JsonLines, Csv, TensorBoard])
def test_an_exception_closes_the_logger(tmp_path: Path, kind: Kind) -> None:
    if kind is TensorBoard:
        pytest.importorskip("tensorboard")
    closed: list[None] = []
    logger = kind(tmp_path / "records")
    close = logger.close
    logger.close = lambda: closed.append(close())  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), logger:
        raise KeyboardInterrupt
    assert closed == [None]
