"""How far a learned `b_dec` wanders on real layers, whom it kills, and whether putting it back wakes them.

    python -m experiments.training.wander FOLDER [--layers unirep64.hs4,...] [--lr 1e-3] [--out results/wander.json]

FOLDER is what `experiments.survival.layers` wrote; split and settings are those of `experiments.survival.policies`:
TopK SAEs centered by the median, 2,000 steps, every way in which `b_dec` learns, without and with encoder biases.
Kept, per layer and way, on held-out tokens: dead latents; raw FVU; `moved`, the distance from the median to where
the encoder's centre is, over the tokens' spread; `shift_of_dead` and `shift_of_living`, what that move added to the
pre-activations of a latent (mean over the latents) in units of their own standard deviation; `woken`, the share of
the dead latents that fire if the encoder alone subtracts the median again.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import torch
from experiments.rows import read_rows, write_rows
from experiments.survival.policies import CENTER, remedy_of, split
from experiments.survival.policy_rows import BATCH
from jaxtyping import Float
from torch import Tensor

from autopsae import SAE, TopK, TrainConfig, born, evaluate
from autopsae.statistics import collect
from autopsae.training import Member, Training
from autopsae.training.bias import BIASES

HERE = Path(__file__).parent
STEPS = 2000


@torch.no_grad()
def row_of(sae: SAE, start: Float[Tensor, "d_in"], held_out: Tensor) -> dict[str, Any]:
    """What the move of the encoder's centre did to the latents."""
    end = evaluate(sae, held_out)
    y, is_dead = sae.enter(held_out)[0], end.fates.fired == 0
    moved = sae.encoder_center - start
    signal = ((y - y.mean(dim=0)) @ sae.W_enc.T).std(dim=0)
    shift = -(sae.W_enc @ moved) / signal
    back = SAE(
        W_enc=sae.W_enc,
        W_dec=sae.W_dec,
        b_dec=sae.b_dec,
        b_enc=sae.b_enc,
        b_pre=start,
        sparsity=sae.sparsity,
        affine=sae.affine,
    )
    fires = evaluate(back.eval(), held_out).fates.fired > 0
    return {
        "dead": end.fates.dead,
        "fvu_raw": end.fvu_raw,
        "moved": float(moved.norm() / y.std(dim=0).norm()),
        "shift_of_dead": float(shift[is_dead].mean()) if bool(is_dead.any()) else None,
        "shift_of_living": float(shift[~is_dead].mean()),
        "woken": float(fires[is_dead].float().mean()) if bool(is_dead.any()) else None,
    }


def rows_of(folder: Path, layer: str, lr: float, *, encoder_bias: bool) -> list[dict[str, Any]]:
    """A row per way in which `b_dec` learns."""
    x, held_out = split(folder, layer)
    statistics = collect(x)
    members = [
        Member(
            sae=born(
                remedy_of("median", statistics),
                d_sae=int(CENTER["d_sae"]),
                sparsity=TopK(k=int(CENTER["k"])),
                sample=statistics.sample,
                encoder_bias=encoder_bias,
                generator=torch.Generator().manual_seed(0),
            ),
            config=TrainConfig(steps=STEPS, lr=lr, batch_tokens=BATCH, record_every=STEPS, bias=bias),
            name=way,
        )
        for way, bias in BIASES.items()
    ]
    start = members[0].sae.b_dec.detach().clone()
    for _ in Training(members, x):
        pass
    about = {"layer": layer, "lr": lr, "steps": STEPS, "encoder_bias": encoder_bias}
    return [{**about, "bias": member.name, **row_of(member.sae, start, held_out)} for member in members]


def table(rows: list[dict[str, Any]]) -> None:
    """The rows of one layer as a table."""
    print("| bias | encoder biases | dead | raw FVU | moved | shift of the living | shift of the dead | woken |")
    print("|---" * 8 + "|")
    for row in rows:
        cells = [row["bias"], "yes" if row["encoder_bias"] else "no", f"{row['dead']:.1%}", f"{row['fvu_raw']:.4f}"]
        cells += [f"{row['moved']:.2f}", f"{row['shift_of_living']:.2f}"]
        cells.append("" if row["shift_of_dead"] is None else f"{row['shift_of_dead']:.2f}")
        cells.append("" if row["woken"] is None else f"{row['woken']:.0%}")
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", default="unirep64.hs4,unirep256.hs4")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "wander.json")
    asked = parser.parse_args()
    rows = read_rows(asked.out)
    for layer, encoder_bias in product(asked.layers.split(","), (False, True)):
        about = {"layer": layer, "lr": asked.lr, "encoder_bias": encoder_bias}
        rows = [row for row in rows if not about.items() <= row.items()]
        rows += rows_of(asked.folder, layer, asked.lr, encoder_bias=encoder_bias)
        write_rows(asked.out, rows)
        for row in rows[-len(BIASES) :]:
            print(row, flush=True)


if __name__ == "__main__":
    main()
