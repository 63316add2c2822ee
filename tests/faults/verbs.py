"""The verbs of the command line on small sources, run in forks of this process, to be disturbed at their work.

This process has imported what they need: what befalls a fork then befalls the work of a verb, and not the seconds
in which PyTorch is imported.
"""

import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

PATIENCE = 120.0
"""Seconds after which a run hangs."""
PARTIAL = re.compile(r".*\.partial|.*\.lock")
ON_AN_ENGINE = "harvest on an engine"
"""The verb that starts processes of its own, each of which imports PyTorch: seconds for each disturbance."""
DONE = "expected a new name, got one that is taken"
"""What is said to whoever runs again what had come to its very end."""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A command that writes into `out`."""

    words: Callable[[Path], list[str]]
    """The command, given the folder of the sources; it runs in the folder of its results."""
    again: tuple[str, ...] = ()
    """What is added to go on."""


def _train(*more: str) -> Callable[[Path], list[str]]:
    sizes = ["--d-sae", "64", "--k", "4", "--batch-tokens", "200", "--held-out", "300", "--checkpoint-every", "10"]
    return lambda here: [
        "train",
        str(here / "x.npy"),
        "--out",
        "out",
        *sizes,
        *(word.format(here=here) for word in more),
    ]


def _harvest(here: Path) -> list[str]:
    sizes = ["--tokens", "20000", "--context", "32", "--batch-size", "64"]
    return ["harvest", f"{here}/model", "out", "--text", f"{here}/t.txt", *sizes]


def _harvest_on(here: Path) -> list[str]:
    text = ["--text", f"{here}/t.txt", "--tokens", "20000", "--context", "32", "--batch-size", "64"]
    return ["harvest", f"{here}/model", "out", *text, "--on", "local:2", "--work", "out-work", "--jobs", "3"]


def _diagnose(here: Path) -> list[str]:
    files = ["--json", "out/d.json", "--figure", "out/d.png", "--prescriptions", "out/p", "--report", "out/d.html"]
    return ["diagnose", f"{here}/x.npy", "--d-sae", "256", "--k", "4", *files]


def _merge(here: Path) -> list[str]:
    files = ["--json", "out/d.json", "--figure", "out/d.png", "--prescriptions", "out/p"]
    return ["merge", f"{here}/part.safetensors", "--d-sae", "256", "--k", "4", *files]


def _autopsy(here: Path) -> list[str]:
    files = ["--json", "out/a.json", "--table", "out/a.csv", "--figure", "out/a.png", "--report", "out/a.html"]
    return [
        "autopsy",
        f"{here}/sae",
        f"{here}/x.npy",
        *files,
        "--recentre",
        "out/revived",
        "--prescription",
        "out/next",
    ]


def _features(here: Path) -> list[str]:
    files = ["--json", "out/f.json", "--table", "out/f.csv", "--figure", "out/f.png", "--report", "out/f.html"]
    tables = ["--annotations", f"{here}/annotations.csv", "--token-table", f"{here}/tokens.csv"]
    return ["features", f"{here}/sae", f"{here}/x.npy", *tables, "--latent", "3", *files]


VERBS: dict[str, Verb] = {
    "harvest": Verb(words=_harvest),
    ON_AN_ENGINE: Verb(words=_harvest_on),
    "diagnose": Verb(words=_diagnose),
    "train": Verb(
        words=_train("--steps", "300", "--report", "out/run.html", "--config", "{here}/records.json"),
        again=("--resume",),
    ),
    "sweep": Verb(
        words=_train("--steps", "60", "--lr", "1e-3,3e-3", "--init", "zero,mean", "--config", "{here}/memory.json"),
        again=("--resume",),
    ),
    "stats": Verb(words=lambda here: ["stats", f"{here}/x.npy", "--out", "out/part.safetensors"]),
    "stats to a URL": Verb(
        words=lambda here: ["stats", f"{here}/x.npy", "--out", f"file://{here}/work/out/part.safetensors"]
    ),
    "merge": Verb(words=_merge),
    "convert": Verb(words=lambda here: ["convert", f"{here}/sae", "out/new", "--to", "autopsae"]),
    "convert to saelens": Verb(words=lambda here: ["convert", f"{here}/sae.json", "out/new", "--to", "saelens"]),
    "autopsy": Verb(words=_autopsy),
    "features": Verb(words=_features),
}


def make_sources(here: Path) -> None:
    """A network, a text, tokens with a mean, and an SAE of which many latents are dead on them."""
    import numpy as np
    import torch

    from autopsae.diagnosis.parts import collect_part
    from autopsae.sae.model import SAE
    from autopsae.sae.sparsity import TopK
    from tests.activations.test_presets import WORDS, gpt2_folder

    gpt2_folder(here / "model")
    (here / "records.json").write_text('{"evaluate_every": 10, "csv": true}')
    (here / "memory.json").write_text('{"memory": 1e-4}')
    random = Random(0)
    (here / "t.txt").write_text("\n\n".join(" ".join(random.choices(WORDS[3:], k=50)) for _ in range(600)))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 24, generator=generator) + 3 * torch.randn(24, generator=generator)
    np.save(here / "x.npy", x.numpy())
    collect_part([here / "x.npy"], here / "part.safetensors")
    places = [(n // 50, n % 50) for n in range(4000)]
    table = "".join(f"{document},{place},{place + 1},x\n" for document, place in places)
    (here / "tokens.csv").write_text(f"document,start,end,text\n{table}")
    spans = "".join(f"{document},{document % 40},{document % 40 + 5},concept\n" for document in range(80))
    (here / "annotations.csv").write_text(f"document,start,end,concept\n{spans}")
    rows = torch.randn(64, 24, generator=generator)
    SAE(W_enc=rows, W_dec=rows, b_dec=torch.zeros(24), sparsity=TopK(k=4)).save(here / "sae")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a run ended."""

    code: int
    """As the system tells it: below 0, the signal that ended it."""
    seconds: float
    errors: str


def start(words: list[str], folder: Path, before: Callable[[], None] = lambda: None) -> tuple[int, float]:
    """(the process that runs a command in a folder, when it began). before: called in that process."""
    ready, begun = os.pipe()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.close(ready)
            os.chdir(folder)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["autopsae", *words]
            from autopsae.cli.interrupts import install
            from autopsae.cli.main import main

            install()  # as `main` does first: a signal may come at once
            before()
            os.write(begun, b".")
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(begun)
    os.read(ready, 1)
    os.close(ready)
    return process, time.monotonic()


def wait(process: int, since: float, folder: Path) -> Ran:
    """The end of a process; one that hangs is killed."""
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        if time.monotonic() > since + PATIENCE:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    errors = (folder / "stderr").read_text(errors="replace")
    return Ran(code=os.waitstatus_to_exitcode(status), seconds=time.monotonic() - since, errors=errors)


def contents(out: Path) -> dict[str, bytes]:
    """All files that a run has left."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@dataclass
class Bench:
    """The sources, and for each verb the end of an undisturbed run and the time that it took."""

    here: Path

    def __post_init__(self) -> None:
        make_sources(self.here)
        self.work = self.here / "work"
        self.ends: dict[str, tuple[dict[str, bytes], float]] = {}

    def undisturbed(self, name: str) -> tuple[dict[str, bytes], float]:
        """(the files of a run that nobody disturbs, its seconds)."""
        if name not in self.ends:
            found = []
            for _ in range(2):  # the second finds every cache filled, as those that are killed do
                self.clear()
                ran = wait(*start(VERBS[name].words(self.here), self.work), self.work)
                if ran.code != 0:
                    raise RuntimeError(f"{name}: {ran.errors}")
                found.append(contents(self.work / "out"))
            if found[0] != found[1]:
                raise RuntimeError(f"{name}: two runs differ in {differing(*found)}")
            self.ends[name] = found[1], ran.seconds
        return self.ends[name]

    def clear(self) -> None:
        """An empty folder to run in."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """The names of the files that differ."""
    return [name for name in {**found, **expected} if found.get(name) != expected.get(name)]


def prepare() -> None:
    """Import what the verbs import while they work, and set what they are told by the environment."""
    import matplotlib.pyplot
    import numba
    import pandas
    import torch
    import transformers

    import autopsae.cli.work

    for verb in ("autopsy", "convert", "diagnose", "harvest", "train"):
        import_module(f"autopsae.cli.{verb}")
    torch.set_num_threads(1)
    os.environ |= {"SOURCE_DATE_EPOCH": "1700000000", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    assert all((matplotlib.pyplot, numba, pandas, transformers, autopsae.cli.work))
