"""Ctrl-C and SIGTERM: one line, the code of the signal, and a checkpoint from which the same result is reached."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autopsae.cli import interrupts

RUN = [sys.executable, "-m", "autopsae"]
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32) + 1)
    return tmp_path / "a.npy"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("number", "code", "more"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, ["--seed", "0,1"])],
    ids=["run", "sweep"],
)
def test_an_interrupted_training_saves_a_checkpoint_from_which_it_ends_as_if_whole(
    tmp_path: Path, source: Path, number: int, code: int, more: list[str]
) -> None:
    sizes = ["--d-sae", "32", "--k", "4", "--steps", "300", "--batch-tokens", "50", "--checkpoint-every", "100000"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    train = [*RUN, "train", str(source), *sizes, *more]
    with subprocess.Popen([*train, "--out", str(broken)], stderr=subprocess.PIPE, text=True) as process:
        while not any(path.stat().st_size for path in broken.rglob("records.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    [checkpoint] = broken.glob("checkpoint*.safetensors")
    [line] = [line for line in stderr.splitlines() if line.startswith("interrupted after ")]
    assert f" of 300 steps; the checkpoint is {checkpoint}; resume (run the same with --resume) to go on" in line
    assert "Traceback" not in stderr
    for words in (["--out", str(broken), "--resume"], ["--out", str(whole)]):
        done = subprocess.run([*train, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert files(broken) == files(whole)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_modules_are_imported_is_one_line(tmp_path: Path, number: int, code: int) -> None:
    # A module of PyTorch's name that waits: the signal comes while it is imported.
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(30)\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(
        [*RUN, "diagnose", "a.npy"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (code, "interrupted\n")


CHILD = """
import sys, time
from autopsae.cli import interrupts
interrupts.install()
with interrupts.raise_signals(), interrupts.delay_signals() as waiting:
    print("ready", flush=True)
    while not waiting():
        time.sleep(0.01)
    print("waiting", flush=True)
    time.sleep(30)
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", CHILD], text=True, **words) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 143
    assert stderr.splitlines()[-1] == "interrupted again; ended at once"


@pytest.fixture
def handlers() -> object:
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_signal_waits_while_steps_are_taken_and_raises_elsewhere() -> None:
    waited: list[bool] = []

    def interrupted() -> None:
        interrupts.install()
        with interrupts.raise_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    def interrupted_in_a_step() -> None:
        interrupts.install()
        with interrupts.raise_signals(), interrupts.delay_signals() as waiting:
            waited.append(waiting())
            os.kill(os.getpid(), signal.SIGINT)
            waited.append(waiting())

    for act, code in ((interrupted, 143), (interrupted_in_a_step, 130)):
        with pytest.raises(KeyboardInterrupt):
            act()
        assert interrupts.exit_code() == code
    assert waited == [False, True]


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_the_process_was_told_to_ignore_is_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.install()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_library_handles_no_signal() -> None:
    code = (
        "import signal, autopsae; autopsae.train, autopsae.survey; import autopsae.run.many; "
        "print(signal.getsignal(2) is signal.default_int_handler, signal.getsignal(15) is signal.SIG_DFL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


def test_objects_that_an_interruption_left_half_made_say_nothing() -> None:
    program = """
import os, signal, sys
from autopsae.cli import interrupts
from autopsae.cli.main import _unraisable

class HalfMade:
    def __del__(self):
        raise AttributeError("half made")

sys.unraisablehook = _unraisable
interrupts.install()
HalfMade()
try:
    with interrupts.raise_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
HalfMade()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = done.stderr.split("interrupted\n")
    assert "AttributeError: half made" in before
    assert after == ""
