"""python -m tests.faults.fuzz --cases 10000: damaged files of every kind are refused in one line, or read as whole.

The laws. For what has checksums (our own pairs, checkpoints, runs and harvests): InputError, or the undamaged
answer. For what has none: no other exception than InputError, and no number that is not finite comes out. A
message is one line without control characters. Nothing takes over 20 s or 2 GiB.

A case is a function of the seed, the kind and its number, so that `--replay 'KIND:NUMBER'` runs it again.
"""

import argparse
import errno
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

SECONDS = 20
"""A case may take at most."""
BYTES = 2 << 30
"""A process that reads may take at most: its resident memory, and what it asks for besides what it has."""
LONGEST_MESSAGE = 1500
REFUSED, UNDAMAGED, OTHER = "refused", "undamaged", "other"


class Hang(BaseException):
    """A case takes too long; no `except Exception` holds it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case."""

    kind: str
    number: int
    told: str
    """How it was damaged."""
    answer: str
    """refused, undamaged, other; or how a law was broken."""
    detail: str = ""
    seconds: float = 0.0
    peak: int = 0
    """Bytes of resident memory of the process at most."""

    @property
    def failed(self) -> bool:
        return self.answer not in (REFUSED, UNDAMAGED, OTHER)


@dataclass
class Bench:
    """What a process keeps between its cases: each kind made whole once, and what is read from it."""

    seed: int
    root: Path
    wholes: dict[str, tuple[Path, Any]] = field(default_factory=dict)

    def whole(self, kind: str) -> tuple[Path, Any]:
        """(the folder of the undamaged files, what is read from them)."""
        from tests.faults.subjects import SUBJECTS

        if kind not in self.wholes:
            made, read = self.root / "whole" / kind, self.root / "case"
            made.mkdir(parents=True)
            SUBJECTS[kind].make(made)
            # Read from a copy, as reading may go on with a run.
            shutil.copytree(made, read)
            try:
                self.wholes[kind] = made, SUBJECTS[kind].read(read)
            finally:
                shutil.rmtree(read)
        return self.wholes[kind]

    def case(self, kind: str, number: int) -> Outcome:
        """One case, from its damage to its outcome."""
        from tests.faults.mutate import damage
        from tests.faults.subjects import SUBJECTS

        subject, (made, answer) = SUBJECTS[kind], self.whole(kind)
        folder, random = self.root / "case", Random(f"{self.seed} {kind} {number}")
        shutil.copytree(made, folder, symlinks=True)
        try:
            damaged = []
            for _ in range(random.choice([1, 1, 1, 2])):
                files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
                if files:
                    path, how = damage(random, files)
                    damaged.append(f"{path.relative_to(folder)}: {how}")
            if subject.seal is not None:
                subject.seal(folder)
            Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is counted from here
            begin = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                found, detail = _outcome(subject, folder, answer)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            seconds, peak = time.monotonic() - begin, _peak()
            if peak > BYTES:
                found, detail = "memory", f"{peak / 1e9:.1f} GB"
            told = "; ".join(damaged)
            return Outcome(
                kind=kind, number=number, told=told, answer=found, detail=detail, seconds=seconds, peak=peak
            )
        finally:
            shutil.rmtree(folder)


def _outcome(subject: Any, folder: Path, answer: Any) -> tuple[str, str]:
    """(what became of reading what was damaged, more of it)."""
    from tests.faults.subjects import InputError, NotFinite

    try:
        if subject.read(folder) == answer:
            return UNDAMAGED, ""
        if subject.checked:
            return "another answer", "under a checksum"
        subject.check(folder)
    except InputError as error:
        return _message(error)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a result cannot be written through a link to itself: the system says so
            return _message(error)
        return type(error).__name__, traceback.format_exc()[-1500:]
    except NotFinite as error:
        return "not finite", str(error)
    except Hang:
        return "hang", traceback.format_exc()[-1500:]
    except Exception as error:
        return type(error).__name__, traceback.format_exc()[-1500:]
    return OTHER, ""


def _message(error: Exception) -> tuple[str, str]:
    """Refused; unless the message is none, or the memory was asked for before it was refused."""
    if any(isinstance(cause, MemoryError) or "allocate" in str(cause) for cause in _causes(error)):
        return "memory", traceback.format_exc()[-1500:]
    if not str(error).isprintable() or len(str(error)) > LONGEST_MESSAGE:
        return "message", repr(str(error))[:600]
    return REFUSED, str(error)


def _causes(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status(name: str) -> int:
    """Bytes that the system tells of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


def _peak() -> int:
    return _status("VmHWM")


def work(connection: Connection, seed: int) -> None:
    """A process that answers (kind, number) with an Outcome, until it gets None."""
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)

    def alarm(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, alarm)
    import torch

    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    bench = Bench(seed, root)
    try:
        while (case := connection.recv()) is not None:
            try:
                connection.send(_limited(bench, *case))
            except Exception:
                detail = traceback.format_exc()[-1500:]
                told = "the fuzz itself failed"
                connection.send(Outcome(kind=case[0], number=case[1], told=told, answer="fault", detail=detail))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _limited(bench: Bench, kind: str, number: int) -> Outcome:
    """A case in a process that gets no more memory than the law allows."""
    bench.whole(kind)  # outside the limit, with what it imports
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + BYTES, resource.RLIM_INFINITY))
    try:
        return bench.case(kind, number)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Worker:
    """A process that runs cases, and another where that one dies or does not answer."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._seed), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, kind: str, number: int) -> Outcome:
        """A case; the death of the process is an outcome."""
        try:
            self._connection.send((kind, number))
            # Twice the limit, and the time in which a kind is made and imported: then it hangs in other code.
            if self._connection.poll(2 * SECONDS + 20):
                found: Outcome = self._connection.recv()
                return found
            self._process.kill()
            how = "hang"
        except (EOFError, ConnectionError):
            how = "crash"
        self._process.join()
        code = self._process.exitcode
        self._connection.close()
        self._start()
        return Outcome(kind=kind, number=number, told="replay it to see", answer=how, detail=f"exit code {code}")

    def close(self) -> None:
        self._connection.send(None)
        self._process.join(30)


def fuzz(cases: int, *, seed: int = 0, kinds: list[str] | None = None, verbose: bool = False) -> list[Outcome]:
    """The outcomes of so many cases, spread evenly over the kinds."""
    from tests.faults.subjects import SUBJECTS

    names = [name for name in SUBJECTS if kinds is None or any(kind in name for kind in kinds)]
    worker, outcomes = Worker(seed), []
    for case in range(cases):
        outcome = worker.run(names[case % len(names)], case // len(names))
        outcomes.append(outcome)
        if verbose and outcome.failed:
            print(told(outcome), flush=True)
        if verbose and (case + 1) % 500 == 0:
            failed = sum(one.failed for one in outcomes)
            print(f"{case + 1:,} cases, {failed} failures", file=sys.stderr, flush=True)
    worker.close()
    return outcomes


def told(outcome: Outcome) -> str:
    """A failure, with what is needed to see it again."""
    return (
        f"{outcome.answer}: --replay '{outcome.kind}:{outcome.number}' ({outcome.told}; {outcome.seconds:.1f} s)\n"
        f"{outcome.detail}"
    )


def table(outcomes: list[Outcome]) -> str:
    """A row for each kind: cases, what became of them, the slowest, the peak of memory."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    by_kind["all"] = outcomes
    rows = [
        f"{'kind':38}{'cases':>7}{'refused':>9}{'undamaged':>11}{'other':>7}{'failed':>8}{'slowest':>9}{'peak':>9}"
    ]
    for kind, some in by_kind.items():
        count = Counter(one.answer for one in some)
        failed = sum(one.failed for one in some)
        slowest, peak = max(one.seconds for one in some), max(one.peak for one in some) / 1e6
        rows.append(
            f"{kind:38}{len(some):>7,}{count[REFUSED]:>9,}{count[UNDAMAGED]:>11,}{count[OTHER]:>7,}{failed:>8,}"
            f"{slowest:>7.2f} s{peak:>6,.0f} MB"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="part of the name of a kind; may be given several times")
    parser.add_argument("--replay", help="KIND:NUMBER of one case")
    given = parser.parse_args()
    if given.replay:
        kind, number = given.replay.rsplit(":", 1)
        worker = Worker(given.seed)
        outcome = worker.run(kind, int(number))
        worker.close()
        print(told(outcome))
        sys.exit(int(outcome.failed))
    outcomes = fuzz(given.cases, seed=given.seed, kinds=given.kind, verbose=True)
    print(table(outcomes))
    sys.exit(int(any(outcome.failed for outcome in outcomes)))


if __name__ == "__main__":
    main()
