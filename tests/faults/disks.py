"""python -m tests.faults.disks: a verb that cannot write says so in one line, and ends as usual once it can.

Each verb runs under a limit on the size of its files that some of them exceed, or, with --mount (as root, in mounts
of one's own: `unshare --mount`), on a disk that is too small. The laws: code 2, one line that names a path, no
traceback, no partial file; and run again with enough room it ends, bit for bit, as the undisturbed run.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from tests.faults.verbs import DONE, PARTIAL, VERBS, Bench, Ran, contents, differing, prepare, start, wait

PAGE = 4096
"""Bytes by which a disk in memory grows."""


def limited(bench: Bench, name: str, random: Random) -> tuple[bool, list[str]]:
    """(did the verb meet the limit?, what was wrong), for files of at most so many bytes."""
    expected, _ = bench.undisturbed(name)
    most = random.randrange(1, max(map(len, expected.values())))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    bench.clear()
    ran = wait(*start(VERBS[name].words(bench.here), bench.work, limit), bench.work)
    wrong = _what_is_wrong(bench, name, ran, "File too large")
    return ran.code != 0, [f"{name}, files of {most} bytes: {what}" for what in wrong]


def full(bench: Bench, name: str, random: Random) -> tuple[bool, list[str]]:
    """(did the verb fill the disk?, what was wrong), for a disk of so many bytes."""
    expected, _ = bench.undisturbed(name)
    size = PAGE * random.randrange(1, 2 + sum(map(len, expected.values())) // PAGE)
    bench.clear()
    out = bench.work / "out"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", out], check=True)
    try:
        ran = wait(*start(VERBS[name].words(bench.here), bench.work), bench.work)
        subprocess.run(["mount", "-o", "remount,size=64m", out], check=True)
        wrong = _what_is_wrong(bench, name, ran, "the disk is full")
        return ran.code != 0, [f"{name}, a disk of {size} bytes: {what}" for what in wrong]
    finally:
        subprocess.run(["umount", out], check=True)


def _what_is_wrong(bench: Bench, name: str, ran: Ran, words: str) -> list[str]:
    """What is wrong with a run that could not write, and with its end once it can."""
    wrong, verb = [], VERBS[name]
    if ran.code != 0:
        lines = [line for line in ran.errors.splitlines() if line.startswith("error:")]
        if ran.code != 2 or "Traceback" in ran.errors or len(lines) != 1:
            wrong.append(f"code {ran.code}: {ran.errors[-1500:]}")
        elif "out" not in lines[0] or words not in lines[0]:
            wrong.append(f"expected a path and {words!r}, got {lines[0]}")
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
    given = parser.parse_args()
    prepare()
    random, met, wrong = Random(given.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="disks-") as here:
        bench = Bench(Path(here))
        for name in [*VERBS] * given.rounds:
            hit, faults = (full if given.mount else limited)(bench, name, random)
            met[name] += hit
            wrong += faults
    print("\n".join([*wrong, *(f"{name:20}{met[name]:>5} of {given.rounds} met the limit" for name in VERBS)]))
    sys.exit(int(bool(wrong)))


if __name__ == "__main__":
    main()
