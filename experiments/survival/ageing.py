"""Does a short training at a higher rate and with smaller batches say who dies in a long one?

    python -m experiments.survival.ageing FOLDER [--layers unirep64.hs4,...] [--ages 10] [--batches 256]
    python -m experiments.survival.ageing                                    # the table of the kept rows, a second

A training of `steps` at `age` times the rate stands for one of age * steps at the rate itself: Adam moves a weight
by about the rate in each step, whatever the batch is. Rows in results/ageing.json have `model, layer, seed, lr,
d_sae, k`, `age`, `batch` (tokens of a step), `steps`, `policy` and `dead, fvu_raw, fvu_typical` on the held-out
documents of `experiments.survival.policies`, with whose longer trainings they are compared.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.rows import Row, write_rows
from experiments.survival.policies import CENTER, POLICIES, measured, split
from experiments.survival.policy_rows import AGEING, read, read_ageing

AT = (50, 100, 200, 300, 500, 700, 1000, 1400, 2000)
"""Numbers of steps after which it is measured."""
STEPS = 2000
"""Steps of the trainings that the table compares with."""
AGED = 700
"""Steps at three times the rate that stand for them."""
SHOWN = ("median", "median_slow", "median_frozen", "whiten_0.05", "whiten_0.15", "whiten_0.3")
"""Policies of the table."""


def run(
    folder: Path,
    name: str,
    policies: list[str],
    seed: int,
    age: float,
    batch: int,
    cache: Path,
    most: int,
    device: str,
) -> None:
    """Train one sweep, and write its rows as they come."""
    model, _, layer = name.partition(".")
    about = {"model": model, "layer": layer, "seed": seed, **CENTER, "age": age, "batch": batch}
    there = {(row["steps"], row["policy"]) for row in read_ageing() if about.items() <= row.items()}
    at = [steps for steps in AT if steps <= most]
    policies = [policy for policy in policies if any((steps, policy) not in there for steps in at)]
    wanted = [steps for steps in at if any((steps, policy) not in there for policy in policies)]
    if not wanted:
        return
    x, held_out = split(folder, name)
    settings = {**CENTER, "lr": age * CENTER["lr"]}
    checkpoint = cache / f"{name}_{seed}_{age:g}_{batch}_{'_'.join(policies)}.safetensors"
    more: dict[str, Any] = {"seed": seed, "settings": settings, "checkpoint": checkpoint, "batch": batch}
    for steps, ends in measured(x, held_out, policies, wanted, **more, device=device):
        rows = [{**about, "steps": steps, "policy": policy, **end} for policy, end in ends.items()]
        write_rows(AGEING, [*read_ageing(), *rows])
        for row in rows:
            print(
                name, seed, age, batch, steps, row["policy"], f"{row['dead']:.2%} {row['fvu_raw']:.4g}", flush=True
            )
    checkpoint.unlink(missing_ok=True)


def table() -> None:
    """Dead latents after STEPS steps of each layer's training, and as old ones at three times the rate."""
    itself, aged = _dead(read(), steps=STEPS, chose=None), _dead(read_ageing(), steps=AGED, age=3, batch=256)
    print(f"| layer | training | {' | '.join(f'`{policy}`' for policy in SHOWN)} |")
    print("|---" * (2 + len(SHOWN)) + "|")
    layers = dict.fromkeys((model, layer) for model, layer, _ in aged)
    for model, layer in (one for one in layers if all((*one, policy) in aged for policy in SHOWN)):
        for name, dead in (("itself", itself), ("aged", aged)):
            cells = [f"{dead[model, layer, policy]:.1%}" for policy in SHOWN]
            print(f"| {model} {layer} | {name} | {' | '.join(cells)} |")


def _dead(rows: Sequence[Row], **about: Any) -> dict[tuple[str, str, str], float]:
    """{(model, layer, policy): dead fraction} of the rows at the centre point, of seed 0, that say this."""
    asked = {**CENTER, "seed": 0, **about}
    return {
        (row["model"], row["layer"], row["policy"]): row["dead"] for row in rows if asked.items() <= row.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="none: the table of the rows that are kept")
    parser.add_argument("--layers", default="", help="such as smollm2.hs12")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ages", default="10")
    parser.add_argument("--batches", default="256")
    parser.add_argument("--most", type=int, default=AT[-1], help="steps after which it ends")
    parser.add_argument("--cache", type=Path, default=Path("ageing-cache"))
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if asked.folder is None:
        table()
        return
    asked.cache.mkdir(parents=True, exist_ok=True)
    for name in asked.layers.split(","):
        for seed in map(int, asked.seeds.split(",")):
            for age in map(float, asked.ages.split(",")):
                for batch in map(int, asked.batches.split(",")):
                    policies, rest = asked.policies.split(","), (asked.cache, asked.most, asked.device)
                    run(asked.folder, name, policies, seed, age, batch, *rest)


if __name__ == "__main__":
    main()
