"""What `recovery` expects of the recovery experiments, beside what happened in them.

    python -m experiments.survival.revival          # compare with the runs that are kept, under a minute
    python -m experiments.survival.revival --train  # train the runs with a mean in several dimensions again

The runs of experiments/outliers_2605_31518 at both scales (their mean is in one dimension), and of `spread.json`:
the same features at the quick scale with the mean evenly in 5 or 50 dimensions, and at a third of the rate. The
model's constants were fitted to the quick runs without AuxK and to these; the full scale is held out. The bound
is held against every record of every run.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from experiments.outliers_2605_31518.curves import unpacked
from experiments.outliers_2605_31518.dynamics import SETTINGS, Setting, Watched, born_plain, offset, stream
from torch import Tensor

from autopsae import TrainConfig, fates
from autopsae.arrays import InputError
from autopsae.files import write_text
from autopsae.survival.recovery import recovery
from autopsae.training import Member, Training

HERE = Path(__file__).parent
DYNAMICS = HERE.parent / "outliers_2605_31518" / "results"
FROZEN = {"frozen": ("b_dec",), "alone": ("W_enc", "W_dec")}
SPREAD = ((5.0, 5), (5.0, 50), (15.0, 5), (15.0, 50), (40.0, 5), (40.0, 50))
SLOW = (15.0, 40.0)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is kept: its name there, its tokens' offset, and its curves."""

    scale: str
    name: str
    setting: Setting
    lr: float
    frozen: tuple[str, ...]
    offset: Tensor
    curves: dict[str, list[float]]


def kept() -> Iterator[Run]:
    """Every run, scale by scale."""
    for scale, setting in SETTINGS.items():
        data = json.loads((DYNAMICS / scale / "dynamics.json").read_text())["data"]
        for name, curves in data["runs"].items():
            condition, gamma = name.split()
            yield Run(
                scale=scale,
                name=name,
                setting=setting,
                lr=setting.lr / 2 if condition == "slower" else setting.lr,
                frozen=FROZEN.get(condition, ()),
                offset=offset(setting, float(gamma)),
                curves={key: unpacked(text) for key, text in curves.items()},
            )
    runs = json.loads((HERE / "results" / "spread.json").read_text())
    for member in spread_members(SETTINGS["quick"]):
        assert member.shift is not None
        yield Run(
            scale="spread",
            name=member.name,
            setting=SETTINGS["quick"],
            lr=member.config.lr,
            frozen=(),
            offset=member.shift,
            curves={key: unpacked(text) for key, text in runs[member.name].items()},
        )


def spread_members(setting: Setting) -> list[Member]:
    """Baselines whose mean is in several dimensions, and slow ones."""
    plain = TrainConfig(steps=setting.steps, lr=setting.lr, batch_tokens=setting.batch_tokens, record_every=1000)
    heads = torch.rand(setting.d_in, generator=torch.Generator().manual_seed(3)) < 0.5
    members = []
    for gamma, dimensions in SPREAD:
        shift = torch.where(heads, -1.0, 1.0) * offset(setting, gamma).norm() / sqrt(dimensions)
        shift[dimensions:] = 0
        members.append(
            Member(sae=born_plain(setting), config=plain, shift=shift, name=f"{dimensions}-dim {gamma:g}")
        )
    slow = replace(plain, lr=setting.lr / 3)
    return members + [
        Member(sae=born_plain(setting), config=slow, shift=offset(setting, gamma), name=f"slow {gamma:g}")
        for gamma in SLOW
    ]


def train_spread() -> None:
    """Train them and keep their curves."""
    setting = SETTINGS["quick"]
    training, held_out = stream(setting)
    members = spread_members(setting)
    watched = [Watched(member, held_out, training) for member in members]
    for record in Training(members, training):
        for place in record:
            watched[place].look()
    runs = {member.name: each.packed() for member, each in zip(members, watched, strict=True)}
    write_text(HERE / "results" / "spread.json", json.dumps(runs, indent=1) + "\n")


def judged(run: Run, training: Tensor, held_out: Tensor) -> dict[str, Any]:
    """What is said and what happened: at the end, and for the bound at each record.

    Born dead: dead-by-ReLU on the training tokens too, as in the curve `born_dead`; `slack` is the least of
    (still dead) - (bound) over the records, in latents. Raises InputError for a run of other draws than these.
    """
    sae = born_plain(run.setting)
    tokens = sae.affine(held_out + run.offset)
    everything = sae.affine(torch.cat([training, held_out]) + run.offset)
    lost = ~fates(sae, torch.cat([training, held_out]) + run.offset).positive
    highest = sae.pre_activations(tokens).amax(dim=0)
    said = recovery(tokens, sae.W_enc, lr=run.lr, steps=run.setting.steps, frozen=run.frozen)
    still, shares = run.curves["born_dead"], run.curves["bias"]
    if round(float(lost.float().mean()), 4) != still[0]:
        raise InputError(
            f"{run.scale} {run.name}: expected {still[0]:.2%} born dead-by-ReLU as in the kept run, got "
            f"{float(lost.float().mean()):.2%}: it has other draws; train it again (reproduce, or --train)"
        )
    mean, slack, over = tokens.mean(dim=0), 1.0, -1.0
    for place, (dead, captured) in enumerate(zip(still, shares, strict=True)):
        travel = 0.0 if "b_dec" in run.frozen else run.lr * run.setting.steps * place / (len(still) - 1)
        beyond = lost & (highest + travel * sae.W_enc.abs().sum(dim=1) <= 0)
        slack = min(slack, dead - float(beyond.float().mean()))
        over = max(over, captured - travel * float(mean.abs().sum() / mean.square().sum()))
    return {
        "scale": run.scale,
        "run": run.name,
        "tokens": len(everything),
        **asdict(said),
        "relu": said.dead_by_relu,
        "relu_end": run.curves["relu"][-1],
        "born_dead_end": still[-1],
        "captured_end": shares[-1],
        "slack": round(slack * sae.d_sae),
        "captured_over_bound": over,
    }


def untreated() -> str:
    """What became of the dead-by-ReLU and of the bias on the layers of `training.json` that got no remedy."""
    rows = [r for r in json.loads((HERE / "results" / "training.json").read_text()) if r["remedy"] == "none"]
    moved = max(abs(row["relu_end"] - row["relu_birth"]) for row in rows)
    most = max(rows, key=lambda row: row["relu_birth"])
    return (
        f"{len(rows)} real layers without a remedy: dead-by-ReLU moved by at most {moved:.1%}, the bias took over "
        f"at most {max(row['bias_captured'] for row in rows):.1%} of the mean; most at birth: {most['model']} "
        f"{most['layer']}, {most['relu_birth']:.1%} -> {most['relu_end']:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train the runs of spread.json again")
    if parser.parse_args().train:
        train_spread()
    streams = {setting.steps: stream(setting) for setting in SETTINGS.values()}
    rows = [judged(run, *streams[run.setting.steps]) for run in kept()]
    write_text(HERE / "results" / "revival.json", json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['scale']:7s}{row['run']:12s} dead-by-ReLU {row['born']:.2f} -> {row['relu_end']:.2f}, said "
            f"{row['relu']:.2f}; of the born {row['born_dead_end']:.2f}, said {row['unrevived']:.2f}; bias "
            f"{row['captured_end']:.2f}, said {row['captured']:.2f}; slack {row['slack']}"
        )
    for scale in (*SETTINGS, "spread"):
        for auxk in (False, True):
            some = [row for row in rows if row["scale"] == scale and ("auxk" in row["run"]) == auxk]
            off = [abs(row["relu"] - row["relu_end"]) for row in some]
            if off:
                near = f"{sum(o <= 0.1 for o in off)} of {len(off)} within 10 points, worst {max(off):.2f}"
                print(f"{scale}, {'with' if auxk else 'without'} AuxK: {near}")
    over = max(row["captured_over_bound"] for row in rows)
    print(f"least slack {min(row['slack'] for row in rows)} latents, bias over its bound {over:.4f}")
    spread = [row["captured_end"] / row["captured"] for row in rows if "-dim" in row["run"]]
    print(
        f"mean in 5 or 50 dimensions: the bias's share is {min(spread):.1f} to {max(spread):.1f} times what is said"
    )
    print(untreated())


if __name__ == "__main__":
    main()
