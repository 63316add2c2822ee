r"""Train each SAE of the table once, and measure it for everything; then compare those of a layer in pairs.

    python -m experiments.trained.run FOLDER WORK [--scale quick|full] [--layers unirep,...] [--arms baseline,...]
        [--seeds 0,1] [--steps 5000] [--minutes 150] [--plan]

FOLDER: what `experiments.trained.harvest` wrote. WORK keeps checkpoints, the trained SAEs, prescriptions and
coverages; the rows alone are committed. First it prints what the SAEs that are left would take, from measured
seconds per step (--plan: nothing else). An SAE whose row is there is not trained again. After --minutes the
training is saved, and the same command goes on. Several processes may run at once on different layers. With --rows,
nothing is taken from the rows that are kept in this repository, and nothing is added to them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from experiments.trained import rows as kept
from experiments.trained.arms import ARMS, CONTROLS, LR, check_arms
from experiments.trained.compare import compare_layer
from experiments.trained.fit import OutOfTime, describe, fit
from experiments.trained.layers import Data, layer_of
from experiments.trained.measure import measure
from experiments.trained.plan import SCALES, Speeds, jobs
from experiments.trained.rows import CONCEPTS, Job, keep, keys_of_finished, read_rows

from autopsae.arrays import InputError

MOST_MINUTES = 150


def make(job: Job, data: Data, work: Path, deadline: Callable[[], bool]) -> None:
    """Train, measure, and write the rows of one SAE. Raises OutOfTime as `fit`."""
    sae, course = fit(job, data, work, deadline)
    began = time.monotonic()
    row, concepts = measure(job, sae, data, work)
    if concepts is not None:
        keep(concepts, CONCEPTS)
    seconds = float(f"{time.monotonic() - began:.4g}")
    # Last: with this row the SAE is finished.
    keep({**describe(job, data, course), "latents": sae.d_sae, **row, "seconds_measuring": seconds})
    end, said = row["end"], "" if concepts is None else f", {concepts['covered']} concepts"
    print(f"{job.key}: {end['dead']:.1%} dead, raw FVU {end['fvu_raw']:.4g}{said}", flush=True)


def estimate(left: Sequence[Job], folder: Path, work: Path) -> None:
    """Print the minutes of each layer."""
    speeds, total = Speeds(read_rows(), work), 0.0
    for layer, group in groupby(sorted(left, key=lambda job: job.layer), key=lambda job: job.layer):
        data, mine = Data.read(folder, layer), list(group)
        training = sum(speeds.of_step(job, data) * job.steps for job in mine)
        measuring = speeds.of_measuring(layer) * len(mine)
        total += training + measuring
        known = f", {measuring / 60:,.0f} min of measuring" if measuring else "; measuring comes on top"
        print(f"{layer}: {len(mine)} SAEs, {training / 60:,.1f} min of training{known}", flush=True)
    print(f"{len(left)} SAEs left: {total / 3600:.2f} h on this machine, as busy as it is now", flush=True)


def run(asked: Sequence[Job], folder: Path, work: Path, minutes: float) -> bool:
    """Make the rows that are missing; whether none is left."""
    until = time.monotonic() + 60 * minutes
    data: Data | None = None
    for job in asked:
        if job.key in keys_of_finished():
            continue
        if data is None or data.name != job.layer:
            data = None  # the layer before is let go of first
            data = Data.read(folder, job.layer)
        try:
            make(job, data, work, lambda: time.monotonic() > until)
        except OutOfTime as stop:
            print(f"{stop}; run the same command again", flush=True)
            return False
    return True


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument("--layers", default="", help="comma-separated; those of the scale if not given")
    parser.add_argument("--arms", default="", help="comma-separated; those of the scale if not given")
    parser.add_argument("--seeds", default="", help="comma-separated; those of the scale if not given")
    parser.add_argument("--steps", type=int, default=None, help="those of the scale if not given")
    parser.add_argument("--lr", type=float, default=LR)
    parser.add_argument("--minutes", type=float, default=MOST_MINUTES, help="at most 150")
    parser.add_argument(
        "--rows", type=Path, default=kept.FOLDER, help="folder of the rows, instead of the kept ones"
    )
    parser.add_argument("--plan", action="store_true", help="print what it would take, and train nothing")
    return parser.parse_args()


def main() -> None:
    asked = options()
    if not 0 < asked.minutes <= MOST_MINUTES:
        raise InputError(f"--minutes: expected more than 0 and at most {MOST_MINUTES}, got {asked.minutes:g}")
    kept.FOLDER, scale = asked.rows, SCALES[asked.scale]
    layers = asked.layers.split(",") if asked.layers else list(scale.layers)
    for layer in layers:
        layer_of(layer)
    wanted = jobs(
        layers=layers,
        arms=check_arms(asked.arms.split(",") if asked.arms else [*ARMS, *CONTROLS]),
        all_arms=layers if asked.arms else scale.all_arms,
        seeds=[int(seed) for seed in asked.seeds.split(",")] if asked.seeds else list(scale.seeds),
        steps=asked.steps or scale.steps,
        lr=asked.lr,
    )
    there = keys_of_finished()
    left = [job for job in wanted if job.key not in there]
    estimate(left, asked.folder, asked.work)
    if asked.plan or not run(left, asked.folder, asked.work, asked.minutes):
        return
    for layer in layers:
        for seed in dict.fromkeys(job.seed for job in wanted):
            compare_layer([job for job in wanted if (job.layer, job.seed) == (layer, seed)], asked.work)


if __name__ == "__main__":
    main()
