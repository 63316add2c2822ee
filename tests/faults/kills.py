"""python -m tests.faults.kills --kills 200: whoever is killed, and runs again, ends as if nothing had happened.

Each verb runs once undisturbed. Then it is started, and killed at a random moment (SIGKILL; SIGTERM and SIGINT in a
share), maybe several times in a row, and run again to its end. The laws: the end is that of the undisturbed run,
bit for bit, with no file more; and SIGTERM and SIGINT print no traceback.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.faults.verbs import DONE, PARTIAL, VERBS, Bench, Ran, contents, differing, prepare, start, wait

AGAIN = 0.3
"""How often a run that was killed is killed again before it may end."""
SIGNALS = [signal.SIGKILL] * 3 + [signal.SIGTERM, signal.SIGINT]


def chain_of(bench: Bench, name: str, random: Random, most: int) -> tuple[int, int, list[str]]:
    """(kills, those that met work, what was wrong) of a run that is killed, maybe several times, and ends."""
    expected, seconds = bench.undisturbed(name)
    verb, wrong, kills, met = VERBS[name], list[str](), 0, 0
    bench.clear()
    words = verb.words(bench.here)
    while kills < most and (not kills or random.random() < AGAIN):
        moment, sent = random.uniform(0, seconds), random.choice(SIGNALS)
        left_before = {*contents(bench.work)}
        process, since = start(words, bench.work)
        time.sleep(moment)
        os.kill(process, sent)
        ran = wait(process, since, bench.work)
        kills, met, words = kills + 1, met + (ran.code != 0), [*verb.words(bench.here), *verb.again]
        wrong += [
            f"{name} after {sent.name} at {moment:.3f} s: {what}"
            for what in _at_once(bench, ran, sent, left_before)
        ]
    ran = wait(*start(words, bench.work), bench.work)
    found = contents(bench.work / "out")
    if ran.code != 0 and not (ran.code == 2 and DONE in ran.errors):
        wrong.append(f"{name} after {kills} kills, the last {sent.name} at {moment:.3f} s: {ran.errors}")
    if found != expected:
        names = differing(found, expected)
        wrong.append(f"{name} after {kills} kills, the last {sent.name} at {moment:.3f} s: other {names}")
    return kills, met, wrong


def _at_once(bench: Bench, ran: Ran, sent: signal.Signals, left_before: set[str]) -> list[str]:
    """What is wrong right after a signal. left_before: files of runs that were killed before."""
    if sent is signal.SIGKILL:
        return [] if ran.code in (0, -sent) or DONE in ran.errors else [f"code {ran.code}: {ran.errors}"]
    wrong = [f"a traceback: {ran.errors[-800:]}"] if "Traceback" in ran.errors else []
    if ran.code not in (0, 128 + sent, -sent) and DONE not in ran.errors:
        wrong.append(f"code {ran.code}: {ran.errors[-800:]}")
    if ran.code == 128 + sent:  # it was handled, so it has tidied up
        left = {*contents(bench.work)} - left_before
        wrong += [f"left {name}" for name in left if PARTIAL.fullmatch(Path(name).name)]
    return wrong


def kill(
    kills: int, *, seed: int = 0, names: list[str] | None = None
) -> tuple[Counter[str], Counter[str], list[str]]:
    """(kills of each verb, those that met work, what was wrong)."""
    prepare()
    names, random = names or [*VERBS], Random(seed)
    done, met, wrong, chain = Counter[str](), Counter[str](), list[str](), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as here:
        bench = Bench(Path(here))
        while done.total() < kills:
            name = names[chain % len(names)]
            count, at_work, faults = chain_of(bench, name, random, kills - done.total())
            done[name] += count
            met[name] += at_work
            wrong += faults
            chain += 1
            for fault in faults:
                print(fault, flush=True)
    return done, met, wrong


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
