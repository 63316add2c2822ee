"""Runs the verbs of one tree: a process for each, forked from one that has imported the heavy libraries but nothing
of the tree. It is told what to run in a JSON file: [{"name", "words", "interrupt", "copied"}, ...].
"""

import importlib.util
import json
import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

HEAVY = ("torch", "numpy", "numba", "tyro", "rich.progress", "safetensors.torch", "pandas")
PATIENCE = 120
"""Seconds after which a verb is killed."""


def main() -> None:
    """serve.py PLAN: writes `verbs.json`, the exit code of each verb, and `printed/NAME.txt` into this folder."""
    for name in HEAVY:
        if importlib.util.find_spec(name.split(".")[0]):
            importlib.import_module(name)
    codes = {}
    for verb in json.loads(Path(sys.argv[1]).read_text()):
        if verb["copied"]:
            source, target = verb["copied"]
            shutil.copytree(source, target, dirs_exist_ok=True)
        codes[verb["name"]] = _run(verb)
    Path("verbs.json").write_text(json.dumps(codes, indent=2))


def _run(verb: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        _be_verb(verb)
    begun, told = time.monotonic(), verb["interrupt"] is None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if not told and any(Path().glob(verb["interrupt"])):
            os.kill(child, signal.SIGINT)
            told = True
        if time.monotonic() - begun > PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _be_verb(verb: dict[str, Any]) -> None:
    """The child: what `python -m autopsae WORDS` does, with its output in a file. It does not return."""
    place = Path("printed") / f"{verb['name']}.txt"
    place.parent.mkdir(exist_ok=True)
    printed = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(printed, stream)
    sys.argv = ["autopsae", *verb["words"]]
    code: Any = 1
    try:
        runpy.run_module("autopsae", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
