r"""How long the learning rate should fall at the end: constant, or to zero over a part of the steps.

    python -m experiments.training.decay FOLDER [--layers smollm2.hs12,...] [--seeds 0,1,2] [--steps 1000]
    python -m experiments.training.decay                        # the table of docs/training.md, from the kept rows

FOLDER is what `experiments.survival.layers` wrote, and whole documents are held out as in
`experiments.survival.policies`. TopK SAEs (d_sae 1024, k 32, batches of 512) start at the median, and those of a
layer and seed are trained side by side on the same tokens in the same order. A row of results/decay.json has
`layer, seed, steps, lr, d_sae, k, batch, decay` (the last share of the steps, over which the rate falls to zero),
`tokens, held_out`, and of the held-out tokens `dead, fvu_raw, fvu_typical, strays`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from experiments.outliers_2605_31518.table import mean_and_range, write_between
from experiments.rows import Row, read_rows, write_rows
from experiments.survival.policies import split

from autopsae import TopK, TrainConfig, born, evaluate
from autopsae.remedies import center
from autopsae.statistics import geometric_median
from autopsae.training import Member, Training

RESULTS = Path(__file__).parent / "results" / "decay.json"
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- decay: written by experiments.training.decay -->", "<!-- end of decay -->"
DECAYS = (0.0, 0.1, 0.2, 0.5)
LRS = (3e-4, 1e-3)
D_SAE, K, BATCH = 1024, 32, 512


def read() -> list[Row]:
    """The rows that are kept."""
    return read_rows(RESULTS)


def keep(rows: Sequence[Row]) -> None:
    """Add rows to the file."""
    write_rows(RESULTS, [*read(), *rows])


def run(folder: Path, name: str, *, seed: int, steps: int) -> None:
    """Train all arms of a layer and a seed side by side, and keep their rows."""
    about = {"layer": name, "seed": seed, "steps": steps, "d_sae": D_SAE, "k": K, "batch": BATCH}
    if any(about.items() <= row.items() for row in read()):
        return
    x, held_out = split(folder, name)
    start = center(geometric_median(x), "median")
    arms = [{"lr": lr, "decay": decay} for lr in LRS for decay in DECAYS]
    members = [
        Member(
            sae=born(
                start,
                d_sae=D_SAE,
                sparsity=TopK(k=K),
                sample=x,
                generator=torch.Generator().manual_seed(seed),
            ),
            config=TrainConfig(
                steps=steps, lr=arm["lr"], batch_tokens=BATCH, decay_steps=round(arm["decay"] * steps), seed=seed
            ),
        )
        for arm in arms
    ]
    for _ in Training(members, x):
        pass
    ends = [evaluate(member.sae, held_out) for member in members]
    rows = []
    for arm, end in zip(arms, ends, strict=True):
        numbers = {"fvu_raw": end.fvu_raw, "fvu_typical": end.fvu_typical, "strays": end.strays}
        rows.append(
            {**about, **arm, "tokens": len(x), "held_out": len(held_out), "dead": end.fates.dead, **numbers}
        )
    keep(rows)
    print(name, seed, steps, [f"{row['fvu_raw']:.4g}" for row in rows], flush=True)


def ratios(rows: Sequence[Row], decay: float, name: str = "fvu_raw") -> list[float]:
    """Of each seed, the error under a decay over that at a constant rate. rows: of one layer, rate and steps."""
    of = {(row["decay"], row["seed"]): row[name] for row in rows}
    return [of[decay, seed] / of[0.0, seed] for share, seed in of if share == 0]


def groups(rows: Sequence[Row]) -> dict[tuple[int, str, float], list[Row]]:
    """The rows by (steps, layer, lr)."""
    grouped: dict[tuple[int, str, float], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["steps"], row["layer"], row["lr"]), []).append(row)
    return dict(sorted(grouped.items()))


def table(rows: Sequence[Row]) -> str:
    """A line for each layer, rate and number of steps: the error at a constant rate, and that under each decay over
    it.
    """
    heads = " | ".join(f"last {decay:.0%}" for decay in DECAYS[1:])
    lines = [f"| layer | strays | steps | rate | seeds | raw FVU: constant | times, {heads} |", "|---" * 9 + "|"]
    for (steps, layer, lr), of in groups(rows).items():
        constant = [row for row in of if row["decay"] == 0]
        pairs = [ratios(of, decay) for decay in DECAYS[1:]]
        cells = " | ".join(mean_and_range(some, lambda value: f"{value:.2f}") for some in pairs)
        lines.append(
            f"| {layer.replace('.', ' ')} | {constant[0]['strays']:.1%} | {steps:,} | {lr:g} | {len(constant)} "
            f"| {mean(row['fvu_raw'] for row in constant):.3g} | {cells} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="none: the table of the rows that are kept")
    parser.add_argument("--layers", default="smollm2.hs12,smollm2.hs29,unirep64.hs4,spliceai.add_20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=1000)
    asked = parser.parse_args()
    if asked.folder is None:
        write_between(PAGE, BEGIN, END, table(read()))
        return
    for seed in map(int, asked.seeds.split(",")):
        for name in asked.layers.split(","):
            run(asked.folder, name, seed=seed, steps=asked.steps)


if __name__ == "__main__":
    main()
