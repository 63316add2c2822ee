"""Engines whose workers are killed and whose nodes are removed, against the same work in a single process.

Many layers are diagnosed and a sweep is trained, on a local Ray cluster of three nodes with one core each and with
submitit's local executor. Meanwhile workers are killed (SIGKILL) at random moments, and from the cluster a node is
removed when half of the jobs are done. All numbers and weights are compared with those of a single process, and
with those of one that trains the SAEs one after the other. All result files are watched, to see whether a job that
was done is done again.

Run as `python -m benchmarks.cluster`, where `ray` and `submitit` are installed. It takes some minutes.
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file
from tests.processes import children, command_of

from autopsae.activations.shards import ShardWriter
from autopsae.activations.store import open_layers
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.cli.verbs import run
from autopsae.cluster.diagnose import survey_on
from autopsae.cluster.engine import open_engine
from autopsae.diagnosis.survey import Survey, survey
from benchmarks.harness import save

D_IN, TOKENS, SHARDS = 24, 2048, 2
ASKED: dict[str, Any] = {"d_sae": 128, "k": 4}
STEPS = 1000
ENGINES = ["ray", "slurm:cluster=local,jobs=2"]
WORKER = {"local": "spawn_main", "slurm": "submitit.core._submit", "ray": "ray::attempt"}
"""What the command of a worker contains, by the engine's name."""


def write_store(folder: Path, layers: int) -> Path:
    """Layers with means, spectra and stray tokens from harmless to severe."""
    writer = ShardWriter(folder, request={"layers": layers}, shard_tokens=TOKENS // SHARDS)
    tokens = {
        f"hs{number}": gaussian_tokens(
            TOKENS,
            D_IN,
            gamma=(0.2, 1.0, 4.0, 16.0)[number % 4],
            spectrum=(0.0, 0.5, 1.5, 4.0)[number // 4 % 4],
            outlier_fraction=0.02 * (number % 3 == 2),
            generator=torch.Generator().manual_seed(number),
        )
        for number in range(layers)
    }
    for place in range(0, TOKENS, TOKENS // SHARDS):
        part = slice(place, place + TOKENS // SHARDS)
        labels = {"document": torch.arange(TOKENS)[part] // 64}
        writer.add({name: x[part] for name, x in tokens.items()}, labels, inputs="")
    writer.finish()
    return folder


class Trouble:
    """What happens to the workers of an engine while it runs."""

    def __init__(self, kills: int, results: Callable[[], list[Path]], *, seed: int) -> None:
        self.kills, self.killed, self.written_twice = kills, 0, 0
        self._results, self._random, self._over = results, Random(seed), threading.Event()
        self._first = dict[Path, tuple[int, int]]()

    @contextmanager
    def made_for(self, on: str, *, at_half: tuple[int, Callable[[], object]] | None = None) -> Iterator[None]:
        """In this context workers are killed. at_half: (results that are half of all, what happens then)."""
        mark = WORKER[on.partition(":")[0]]
        threads = [threading.Thread(target=self._kill, args=(mark,)), threading.Thread(target=self._watch)]
        if at_half:
            threads.append(threading.Thread(target=self._wait_for, args=at_half))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
            self._look()

    def _kill(self, mark: str) -> None:
        while self.killed < self.kills and not self._over.wait(self._random.uniform(1.0, 6.0)):
            workers = sorted(pid for pid in children(os.getpid()) if mark in command_of(pid))
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(workers), signal.SIGKILL)
                    self.killed += 1

    def _wait_for(self, half: int, happens: Callable[[], object]) -> None:
        while not self._over.wait(0.1):
            if len(self._results()) >= half:
                happens()
                return

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._look()

    def _look(self) -> None:
        """A result that is written again is another file of the same name."""
        for path in self._results():
            stat = path.stat()
            now = (stat.st_ino, stat.st_mtime_ns)
            if self._first.setdefault(path, now) != now:
                self.written_twice += 1
                self._first[path] = now


def furthest(one: Any, other: Any) -> float:
    """The largest difference of two results, of the size of the number; inf where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((furthest(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max((furthest(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float) and one != other:
        return abs(one - other) / max(abs(one), abs(other))
    return 0.0 if one == other else float("inf")


def train(store: Path, out: Path, members: int, *more: str) -> Path:
    """A sweep of so many small SAEs on the first layer."""
    rates = ",".join(f"{1e-3 * (number + 1):g}" for number in range(members))
    sizes = [
        "--d-sae",
        "64",
        "--k",
        "4",
        "--steps",
        str(STEPS),
        "--batch-tokens",
        "64",
        "--checkpoint-every",
        "100",
    ]
    code = run(["train", str(store), "--layer", "hs0", "--out", str(out), *sizes, "--lr", rates, *more])
    if code:
        raise SystemExit(code)
    return out


def members_of(sweep: Path) -> dict[str, Path]:
    """The folder of each SAE by its name."""
    members = json.loads((sweep / "sweep.json").read_text())["members"]
    return {member["name"]: sweep / member["folder"] for member in members}


def weights_apart(one: Path, other: Path) -> float:
    """The largest difference of two weights in two sweeps; inf where their SAEs are not the same ones."""
    mine, theirs = members_of(one), members_of(other)
    if [*mine] != [*theirs]:
        return float("inf")
    pairs = [
        (load_file(mine[name] / "sae.safetensors"), load_file(theirs[name] / "sae.safetensors")) for name in mine
    ]
    return max(float((a[name] - b[name]).abs().max()) for a, b in pairs for name in a)


def same_bytes(one: Path, other: Path) -> bool:
    """Whether weights, records and births of two sweeps are the same bytes."""
    files = ("sae.safetensors", "records.jsonl")
    theirs = members_of(other)
    return all(
        (path / f).read_bytes() == (theirs[name] / f).read_bytes()
        for name, path in members_of(one).items()
        for f in files
    )


def steps_recorded(sweep: Path) -> bool:
    """Whether each SAE has one record of each step, in their order: none was lost, and none counted twice."""
    wanted = [*range(STEPS)]
    lines = [(path / "records.jsonl").read_text().splitlines() for path in members_of(sweep).values()]
    return all([json.loads(line)["step"] for line in of_one] == wanted for of_one in lines)


class Bench:
    """The work, and what a single process makes of it."""

    def __init__(self, folder: Path, *, layers: int, members: int) -> None:
        self.folder, self.layers, self.members = folder, layers, members
        self.store = write_store(folder / "store", layers)
        self.alone: Survey = survey(open_layers(self.store), exact=False, **ASKED)
        self.together = train(self.store, folder / "together", members)
        self.in_turn = train(self.store, folder / "in-turn", members, "--memory", "1e-4")

    def diagnose(self, name: str, on: str, kills: int, remove: Callable[[], object] | None) -> dict[str, Any]:
        """The diagnosis of all layers on an engine."""
        work = self.folder / f"{name}-diagnose"
        trouble = Trouble(
            kills, lambda: [path for path in work.glob("layers/*.json") if "%" not in path.name], seed=len(name)
        )
        since = time.monotonic()
        with trouble.made_for(on, at_half=remove and (self.layers // 2, remove)):
            spread = survey_on(partial(open_engine, on, work), self.store, work, **ASKED)
        biases = zip(spread, self.alone, strict=True)
        return {
            **self._figures("diagnosis", name, work, trouble, remove, self.layers, since),
            "largest_difference": furthest([d.to_dict() for d in spread], [d.to_dict() for d in self.alone]),
            "equal": all(
                one.to_dict() == other.to_dict() and torch.equal(one.prescription.b_dec, other.prescription.b_dec)
                for one, other in biases
            ),
        }

    def train(self, name: str, on: str, kills: int, remove: Callable[[], object] | None) -> dict[str, Any]:
        """The sweep on an engine."""
        out = self.folder / f"{name}-sweep"
        trouble = Trouble(kills, lambda: [*out.glob("*/summary.json")], seed=len(name) + 1)
        since = time.monotonic()
        with trouble.made_for(on, at_half=remove and (self.members // 2, remove)):
            train(self.store, out, self.members, "--on", on)
        return {
            **self._figures("sweep", name, out / "jobs", trouble, remove, self.members, since),
            "largest_difference": weights_apart(out, self.together),
            "equal": same_bytes(out, self.in_turn),
            "each_step_recorded_once": steps_recorded(out),
        }

    def _figures(
        self,
        work: str,
        name: str,
        folder: Path,
        trouble: Trouble,
        remove: Callable[[], object] | None,
        jobs: int,
        since: float,
    ) -> dict[str, Any]:
        done = json.loads((folder / "manifest.json").read_text())["done"]
        return {
            "engine": name,
            "work": work,
            "jobs": jobs,
            "kills": trouble.killed,
            "nodes_removed": int(remove is not None),
            "seconds": round(time.monotonic() - since, 1),
            "jobs_done": sum(done.values()),
            "done_twice": trouble.written_twice,
        }


@contextmanager
def ray_cluster() -> Iterator[tuple[str, Callable[[], object]]]:
    """(--on for a local cluster of three nodes with one core each, what removes one of them)."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        yield f"ray:{cluster.address}", lambda: cluster.remove_node(nodes.pop(), allow_graceful=False)
    finally:
        cluster.shutdown()


def measure(folder: Path, engines: list[str], *, layers: int, members: int, kills: int) -> dict[str, Any]:
    """The figures of each run. engines: "ray" for a cluster of its own for each run, others as `--on` names them.
    kills: in all runs together, at least.
    """
    bench, runs = Bench(folder, layers=layers, members=members), list[dict[str, Any]]()
    each = -(-kills // (2 * len(engines)))
    for engine in engines:
        for work in (bench.diagnose, bench.train):
            with ray_cluster() if engine == "ray" else nullcontext((engine, None)) as (on, remove):
                runs.append(work(engine.partition(":")[0], on, each, remove))
    verdicts = {finding.name for diagnosis in bench.alone for finding in diagnosis.findings}
    return {
        "layers": layers,
        "members": members,
        "steps": STEPS,
        "findings": sorted(verdicts),
        "prescribed": sorted({d.prescription.remedy.name for d in bench.alone}),
        "in_turn_to_together": weights_apart(bench.in_turn, bench.together),
        "kills": sum(one["kills"] for one in runs),
        "nodes_removed": sum(one["nodes_removed"] for one in runs),
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cluster-") as here:
        save("cluster", measure(Path(here), ENGINES, layers=24, members=12, kills=given.kills))


if __name__ == "__main__":
    main()
