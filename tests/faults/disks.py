"""python -m tests.faults.disks: a verb that cannot write says so in one line, and ends as usual once it can.

Each verb runs under a limit on the size of its files that some of them exceed, and into a folder in which it may
not write. With --mount (as root, in mounts of one's own: `unshare --mount`) it runs on a disk that is too small and
on one that is read-only. The laws: code 2, one line that names a path, no traceback, no partial file; and run again
where it can write, it ends bit for bit as the undisturbed run.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.faults.verbs import DONE, PARTIAL, VERBS, Bench, Ran, contents, differing, prepare, start, wait

PLACE = re.compile(r"\bout\b")
NOBODY = 65534
"""The user of that name."""
PAGE = 4096
"""Bytes by which a disk in memory grows."""


def limited(bench: Bench, name: str, random: Random) -> tuple[bool, list[str]]:
    """(did the verb meet the limit?, what was wrong), for files of at most so many bytes."""
    most = random.randrange(1, max(map(len, bench.undisturbed(name)[0].values())))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    bench.clear()
    ran = wait(*start(VERBS[name].words(bench.here), bench.work, limit), bench.work)
    return _judged(bench, name, ran, ("File too large",))


def forbidden(bench: Bench, name: str, random: Random) -> tuple[bool, list[str]]:
    """The same for a folder in which it may not write, which root may: it then runs as nobody."""
    bench.undisturbed(name)
    bench.clear()
    out = bench.work / "out"
    out.mkdir()
    out.chmod(0o555)
    bench.here.chmod(0o755)
    for file in (bench.here / "model").iterdir():  # transformers gives them to their owner alone
        file.chmod(0o644)

    def be_nobody() -> None:
        if os.geteuid() == 0:
            os.setuid(NOBODY)

    ran = wait(*start(VERBS[name].words(bench.here), bench.work, be_nobody), bench.work)
    out.chmod(0o755)
    return _judged(bench, name, ran, ("Permission denied: '", "cannot be written there"))


@contextmanager
def mounted(out: Path, options: str) -> Iterator[None]:
    """A disk in memory."""
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", out], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", out], check=True)


def full(bench: Bench, name: str, random: Random) -> tuple[bool, list[str]]:
    """The same for a disk of so many bytes."""
    needed = sum(map(len, bench.undisturbed(name)[0].values()))
    bench.clear()
    with mounted(bench.work / "out", f"size={PAGE * random.randrange(1, 2 + needed // PAGE)}"):
        ran = wait(*start(VERBS[name].words(bench.here), bench.work), bench.work)
        subprocess.run(["mount", "-o", "remount,size=64m", bench.work / "out"], check=True)
        return _judged(bench, name, ran, ("the disk is full", "free on the disk"))


def read_only(bench: Bench, name: str, random: Random) -> tuple[bool, list[str]]:
    """The same for a disk that is read-only."""
    bench.undisturbed(name)
    bench.clear()
    with mounted(bench.work / "out", "ro"):
        ran = wait(*start(VERBS[name].words(bench.here), bench.work), bench.work)
        subprocess.run(["mount", "-o", "remount,rw", bench.work / "out"], check=True)
        return _judged(bench, name, ran, ("Read-only file system: '", "cannot be written there"))


def _judged(bench: Bench, name: str, ran: Ran, words: tuple[str, ...]) -> tuple[bool, list[str]]:
    """(could the verb not write?, what was wrong with that and with its end once it can)."""
    return ran.code != 0, [f"{name}: {what}" for what in _what_is_wrong(bench, name, ran, words)]


def _what_is_wrong(bench: Bench, name: str, ran: Ran, words: tuple[str, ...]) -> list[str]:
    wrong, verb = [], VERBS[name]
    if ran.code != 0:
        lines = [line for line in ran.errors.splitlines() if line.startswith("error:")]
        if ran.code != 2 or "Traceback" in ran.errors or len(lines) != 1:
            wrong.append(f"code {ran.code}: {ran.errors[-1500:]}")
        elif not PLACE.search(lines[0]) or not any(one in lines[0] for one in words):
            wrong.append(f"expected a path and {' or '.join(words)}, got {lines[0]}")
        wrong += [f"left {file}" for file in contents(bench.work) if PARTIAL.fullmatch(Path(file).name)]
        ran = wait(*start([*verb.words(bench.here), *verb.again], bench.work), bench.work)
    found, (expected, _) = contents(bench.work / "out"), bench.undisturbed(name)
    if ran.code != 0 and not (ran.code == 2 and DONE in ran.errors):
        wrong.append(f"run again: {ran.errors[-1500:]}")
    if found != expected:
        wrong.append(f"run again: other {differing(found, expected)}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mount", action="store_true")
    parser.add_argument("--verb", action="append", choices=[*VERBS])
    given = parser.parse_args()
    prepare()
    random, met, wrong = Random(given.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="disks-") as here:
        bench = Bench(Path(here))
        for name in (given.verb or [*VERBS]) * given.rounds:
            for way in (full, read_only) if given.mount else (limited, forbidden):
                hit, faults = way(bench, name, random)
                met[f"{name}, {way.__name__}"] += hit
                wrong += [f"{way.__name__}: {fault}" for fault in faults]
    print(
        "\n".join(
            [*wrong, *(f"{name:30}{count:>4} of {given.rounds} could not write" for name, count in met.items())]
        )
    )
    sys.exit(int(bool(wrong)))


if __name__ == "__main__":
    main()
