"""What cannot be printed costs no result: closed, full and narrow outputs, and names that are no text."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO, cast

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from autopsae.arrays import InputError
from autopsae.cli.printing import print_error, print_line, print_note, write_all
from autopsae.cli.streams import Guarded, guard_streams, harmless, unwritten
from autopsae.cli.terminal import progress_bar, progress_on
from tests import processes

SMALL = ["--d-sae", "32", "--k", "4", "--json"]


def command(folder: Path, redirected: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A diagnosis with its standard streams redirected by a shell, which leaves the code of the first command."""
    np.save(folder / "a.npy", np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32) + 1)
    words = [sys.executable, "-m", "autopsae", "diagnose", "a.npy", *SMALL, "d.json", "--prescriptions", "p"]
    line = " ".join([*words, redirected, "; exit ${PIPESTATUS[0]}"])
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("redirected", "environment", "code", "said"),
    [
        ("| true", {}, 0, b""),
        (">&-", {}, 0, b""),
        (">&- 2>&-", {}, 0, b""),
        ("2>/dev/full", {}, 0, b""),
        (">/dev/full", {}, 2, b"error: standard output: cannot be written (No space left on device); files that"),
        ("", {"PYTHONIOENCODING": "ascii"}, 0, b""),
    ],
    ids=["pipe", "closed", "both closed", "full stderr", "full", "ascii"],
)
def test_a_standard_stream_that_takes_nothing_costs_no_file(
    tmp_path: Path, redirected: str, environment: dict[str, str], code: int, said: bytes
) -> None:
    done = command(tmp_path, redirected, **environment)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception ignored" not in done.stderr
    assert said in done.stderr
    assert (tmp_path / "d.json").read_text().startswith("{")
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"a.json", "a.safetensors"}


def test_a_result_on_a_closed_standard_output_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32))
    words = [sys.executable, "-m", "autopsae", "diagnose", "a.npy", *SMALL, "/dev/stdout", ">&-"]
    line = ["bash", "-c", " ".join(words)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


class Failing(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def write(self, text: str) -> int:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"), [(BrokenPipeError(32, "Broken pipe"), False), (OSError(28, "No space"), True)]
)
def test_a_guarded_stream_goes_silent_at_its_first_failure(error: OSError, told: bool) -> None:
    failing = Failing(error)
    stream = Guarded(failing)
    for _ in range(3):
        assert stream.write("word") == 4
        stream.flush()
    assert failing.calls == 1
    assert unwritten(stream) is (error if told else None)


@pytest.mark.quick
def test_characters_that_the_terminal_lacks_become_question_marks() -> None:
    held = io.BytesIO()
    stream = Guarded(io.TextIOWrapper(held, encoding="cp1252"))
    stream.write("層 é\n")
    stream.flush()
    assert held.getvalue() == "? é\n".encode("cp1252")


@pytest.mark.quick
def test_only_colours_and_progress_bars_control_the_terminal() -> None:
    bar = "\x1b[2K\x1b[1A\r\x1b[?25l\x1b[1;31mred\x1b[0m\n\tword"
    assert harmless(bar) == bar
    for hostile in ("\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\x08", "\x1bc", "\u202e", "\udcff"):
        assert harmless(f"a{hostile}b").isprintable()


@pytest.mark.quick
def test_streams_are_as_before_when_the_command_is_done() -> None:
    before = sys.stdout, sys.stderr
    with guard_streams():
        assert isinstance(sys.stdout, Guarded)
        assert isinstance(sys.stderr, Guarded)
    assert (sys.stdout, sys.stderr) == before


NAME = "[red]a[/]\nerror: forged\x1b[2J"
SHOWN = r"[red]a[/]\nerror: forged\x1b[2J"


@pytest.mark.quick
def test_a_line_is_one_line_whatever_a_name_in_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(NAME)
    print_note(NAME)
    print_error(NAME)
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\n"
    assert err == f"{SHOWN}\nerror: {SHOWN}\n"


def test_a_progress_bar_shows_a_name_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("begin") as (bar, task):
        bar.console.width = 200
        bar.update(task, description=NAME)
    assert SHOWN in capsys.readouterr().err


@pytest.mark.quick
def test_a_training_is_counted_in_steps_and_all_else_in_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    for stage, said in (("training", "training: 1,200 steps"), ("birth", "birth: 1,200 tokens")):
        with progress_bar("begin") as (bar, task):
            bar.console.width = 200
            progress_on(bar, task)(stage, 1200, 2400)
        assert said in capsys.readouterr().err


@pytest.mark.quick
def test_names_of_layers_reach_the_terminal_as_words(tmp_path: Path) -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    save_file({NAME: x, "b": x.clone()}, tmp_path / "h.safetensors")
    words = ["diagnose", "h.safetensors", "--d-sae", "32", "--k", "4"]
    for more, code in (([], 0), (["--layers", "nope"], 2)):
        done = processes.run(processes.command, *words, *more, folder=tmp_path)
        assert done.returncode == code, done.stderr
        shown = "".join((done.stdout + done.stderr).replace(" ", "").split("\n"))
        assert SHOWN.replace(" ", "") in shown
        assert "\x1b" not in done.stdout + done.stderr
        assert not any(line.startswith("error: forged") for line in (done.stdout + done.stderr).splitlines())


def test_an_output_that_fails_costs_no_other_and_a_closed_pipe_is_no_error() -> None:
    written: list[str] = []

    def fail(error: Exception) -> None:
        raise error

    write_all([lambda: fail(BrokenPipeError()), lambda: written.append("a")])
    with pytest.raises(InputError, match="first"):
        write_all([lambda: fail(InputError("first")), lambda: fail(OSError()), lambda: written.append("b")])
    assert written == ["a", "b"]


def test_a_console_of_rich_can_write_on_a_guarded_stream() -> None:
    page = io.StringIO()
    Console(file=cast(TextIO, Guarded(page)), width=20).print("word")
    assert page.getvalue() == "word\n"
