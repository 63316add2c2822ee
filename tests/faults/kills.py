"""python -m tests.faults.kills --kills 200: whoever is killed, and runs again, ends as if nothing had happened.

Each verb runs once undisturbed. Then it is started, and killed at a random moment (SIGKILL; SIGTERM and SIGINT in a
share), maybe several times in a row, and run again to its end. The laws: the end is that of the undisturbed run,
bit for bit, with no file more; and SIGTERM and SIGINT print no traceback.

The verbs run in forks of this process, which has imported what they need: a kill then meets the work of a verb, and
not the three seconds in which PyTorch is imported.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

AGAIN = 0.3
"""How often a run that was killed is killed again before it may end."""
SIGNALS = [signal.SIGKILL] * 3 + [signal.SIGTERM, signal.SIGINT]
PATIENCE = 120.0
"""Seconds after which a run hangs."""
PARTIAL = re.compile(r".*\.partial|.*\.lock")
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
    return lambda here: ["train", str(here / "x.npy"), "--out", "out", *sizes, *more]


VERBS: dict[str, Verb] = {
    "harvest": Verb(
        words=lambda here: ["harvest", str(here / "model"), "out", "--text", str(here / "t.txt"), "--tokens", "20000",
                            "--context", "32", "--batch-size", "64"],
    ),
    "diagnose": Verb(
        words=lambda here: ["diagnose", str(here / "x.npy"), "--d-sae", "256", "--k", "4", "--json", "out/d.json",
                            "--figure", "out/d.png", "--prescriptions", "out/p"],
    ),
    "train": Verb(words=_train("--steps", "300", "--evaluate-every", "10", "--csv"), again=("--resume",)),
    "sweep": Verb(
        words=_train("--steps", "60", "--lr", "1e-3,3e-3", "--init", "zero,mean", "--memory", "1e-4"),
        again=("--resume",),
    ),
    "convert": Verb(words=lambda here: ["convert", str(here / "sae"), "out/new", "--to", "autopsae"]),
    "convert to saelens": Verb(words=lambda here: ["convert", str(here / "sae.json"), "out/new", "--to", "saelens"]),
    "autopsy": Verb(
        words=lambda here: ["autopsy", str(here / "sae"), str(here / "x.npy"), "--json", "out/a.json", "--table",
                            "out/a.csv", "--figure", "out/a.png", "--revive", "out/revived", "--prescription",
                            "out/next"],
    ),
}  # fmt: skip


def make_sources(here: Path) -> None:
    """A network, a text, tokens with a mean, and an SAE of which many latents are dead on them."""
    import numpy as np
    import torch

    from autopsae.sae.model import SAE
    from autopsae.sae.sparsity import TopK
    from tests.activations.test_presets import WORDS, gpt2_folder

    gpt2_folder(here / "model")
    random = Random(0)
    (here / "t.txt").write_text("\n\n".join(" ".join(random.choices(WORDS[3:], k=50)) for _ in range(600)))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 24, generator=generator) + 3 * torch.randn(24, generator=generator)
    np.save(here / "x.npy", x.numpy())
    rows = torch.randn(64, 24, generator=generator)
    SAE(W_enc=rows, W_dec=rows, b_dec=torch.zeros(24), sparsity=TopK(k=4)).save(here / "sae")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a run ended."""

    code: int
    """As the system tells it: below 0, the signal that ended it."""
    seconds: float
    errors: str


def start(words: list[str], folder: Path) -> tuple[int, float]:
    """(the process that runs a command in a folder, when it began)."""
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
            from autopsae.cli.main import main

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
                self._clear()
                ran = wait(*start(VERBS[name].words(self.here), self.work), self.work)
                if ran.code != 0:
                    raise RuntimeError(f"{name}: {ran.errors}")
                found.append(contents(self.work / "out"))
            if found[0] != found[1]:
                raise RuntimeError(f"{name}: two runs differ in {differing(*found)}")
            self.ends[name] = found[1], ran.seconds
        return self.ends[name]

    def _clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def chain(self, name: str, random: Random, most: int) -> tuple[int, int, list[str]]:
        """(kills, those that met work, what was wrong) of a run that is killed, maybe several times, and ends."""
        expected, seconds = self.undisturbed(name)
        verb, wrong, kills, met = VERBS[name], list[str](), 0, 0
        self._clear()
        words = verb.words(self.here)
        while kills < most and (not kills or random.random() < AGAIN):
            moment, sent = random.uniform(0, seconds), random.choice(SIGNALS)
            process, since = start(words, self.work)
            time.sleep(moment)
            os.kill(process, sent)
            ran = wait(process, since, self.work)
            kills, met, words = kills + 1, met + (ran.code != 0), [*verb.words(self.here), *verb.again]
            wrong += [f"{name} after {sent.name} at {moment:.3f} s: {what}" for what in self._at_once(ran, sent)]
        ran = wait(*start(words, self.work), self.work)
        found = contents(self.work / "out")
        if ran.code != 0 and not (ran.code == 2 and DONE in ran.errors):
            wrong.append(f"{name} after {kills} kills, the last {sent.name} at {moment:.3f} s: {ran.errors}")
        if found != expected:
            names = differing(found, expected)
            wrong.append(f"{name} after {kills} kills, the last {sent.name} at {moment:.3f} s: other {names}")
        return kills, met, wrong

    def _at_once(self, ran: Ran, sent: signal.Signals) -> list[str]:
        """What is wrong right after a signal."""
        if sent is signal.SIGKILL:
            return [] if ran.code in (0, -sent) or DONE in ran.errors else [f"code {ran.code}: {ran.errors}"]
        wrong = [f"a traceback: {ran.errors[-800:]}"] if "Traceback" in ran.errors else []
        if ran.code not in (0, 128 + sent, -sent) and DONE not in ran.errors:
            wrong.append(f"code {ran.code}: {ran.errors[-800:]}")
        if ran.code == 128 + sent:  # it was handled, so it has tidied up
            wrong += [f"left {name}" for name in contents(self.work) if PARTIAL.fullmatch(Path(name).name)]
        return wrong


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """The names of the files that differ."""
    return [name for name in {**found, **expected} if found.get(name) != expected.get(name)]


def kill(
    kills: int, *, seed: int = 0, names: list[str] | None = None
) -> tuple[Counter[str], Counter[str], list[str]]:
    """(kills of each verb, those that met work, what was wrong)."""
    import torch

    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    _import()
    names, random = names or [*VERBS], Random(seed)
    done, met, wrong, chain = Counter[str](), Counter[str](), list[str](), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as here:
        bench = Bench(Path(here))
        while done.total() < kills:
            name = names[chain % len(names)]
            count, at_work, faults = bench.chain(name, random, kills - done.total())
            done[name] += count
            met[name] += at_work
            wrong += faults
            chain += 1
            for fault in faults:
                print(fault, flush=True)
    return done, met, wrong


def _import() -> None:
    """What the verbs import while they work."""
    import matplotlib.pyplot
    import numba
    import pandas
    import transformers

    import autopsae.cli.main

    assert all((matplotlib.pyplot, numba, pandas, transformers, autopsae.cli.main))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", action="append", choices=[*VERBS])
    given = parser.parse_args()
    begin = time.monotonic()
    done, met, wrong = kill(given.kills, seed=given.seed, names=given.verb)
    for name in done:
        print(f"{name:20}{done[name]:>5} kills, {met[name]:>4} of them met work")
    print(f"{done.total()} kills in {time.monotonic() - begin:.0f} s, {len(wrong)} faults")
    sys.exit(int(bool(wrong)))


if __name__ == "__main__":
    main()
