r"""Other libraries' own training on a layer, default against cured: who is dead in the end, and what the error is.

    python -m experiments.interop.trained FOLDER [--layers smollm2.hs12,gemma3.hs2] [--seeds 0,1,2]
    python -m experiments.interop.trained                                  # the table of the kept rows, a second

FOLDER is what `experiments.survival.layers` wrote; the environment is that of `make test`, which holds the
libraries. d_sae 2048, k or L0 32, batches of 1,024, Adam 3e-4 at a constant rate. Whole documents are held out, as
in `experiments.survival.policies`. Cured: what `diagnose` prescribes for the training tokens, by one call. Parts of
the cure, in a small setting, say why SAELens' latents die:

    python -m experiments.interop.trained FOLDER --layers smollm2.hs12 --seeds 0 --kinds SAELens.topk --steps 300 \
        --d-sae 1024 --batch 256 --arms default,centred,mapped,long_rows,centred_long_rows,cured

A row has `library, architecture, model, layer, seed, arm, remedy, steps, lr, d_sae, k, batch`, `tokens` (different
training tokens), `epochs`, `held_out`, and, on the held-out tokens, `dead, l0, fvu_raw, fvu_typical`. Rows in
results/trained.json stay. A run that was killed goes on from its checkpoint in `--cache`.
"""

import argparse
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from benchmarks.peers import versions
from experiments.interop.libraries import KINDS, LIBRARIES, Setting
from experiments.survival.policies import split
from torch import Tensor

from autopsae import Prescription, TopK, diagnose, evaluate
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.files import write_text

RESULTS = Path(__file__).parent / "results" / "trained.json"
K, LR = 32, 3e-4
KEPT_EVERY = 250
"""Steps between checkpoints."""

Row = dict[str, Any]
NUMBERS = ("dead", "l0", "fvu_raw", "fvu_typical")


def read() -> list[Row]:
    """The rows that are kept."""
    rows: list[Row] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    return rows


def keep(row: Row) -> None:
    """Add a row to the file."""
    rows = [other for other in read() if _about(other) != _about(row)]
    lines = ",\n".join(json.dumps(row) for row in [*rows, row])
    write_text(RESULTS, f'{{"versions": {json.dumps(versions())},\n"rows": [\n{lines}\n]}}\n')


def _about(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in NUMBERS}


def batch_at(x: Tensor, size: int, seed: int, step: int) -> Tensor:
    """The same for every library and arm; a pass over all tokens before any comes again."""
    per_pass = len(x) // size
    start = step % per_pass * size
    return x[order_of(len(x), seed * 1000 + step // per_pass)[start : start + size].to(x.device)]


@lru_cache(maxsize=1)
def order_of(tokens: int, seed: int) -> Tensor:
    """A permutation of so many tokens."""
    return torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))


def run(
    x: Tensor, held_out: Tensor, about: Row, cure: Prescription, at: Sequence[int], cache: Path, device: str
) -> None:
    """Train one arm of one kind, and write its rows as they come."""
    there = [row["steps"] for row in read() if about.items() <= row.items()]
    wanted = [steps for steps in at if steps not in there]
    if not wanted:
        return
    size, seed, arm = about["batch"], about["seed"], about["arm"]
    weight = (cure.scale or 1.0) ** 2
    setting = Setting(
        d_in=x.shape[1],
        d_sae=about["d_sae"],
        k=K,
        batch=size,
        lr=LR,
        weight=weight,
        sample=x[order_of(len(x), seed)[:SAMPLE_TOKENS]].to(device),
        device=device,
    )
    torch.manual_seed(seed)
    learner = LIBRARIES[about["library"]](setting, cure, about["architecture"], arm)
    words = [about[n] for n in ("library", "architecture", "model", "layer", "seed", "arm", "d_sae", "batch")]
    checkpoint, done = cache / f"{'_'.join(map(str, words))}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        done = state["steps"]
        learner.load(state, done)
    x, held_out = x.to(device), held_out.to(device)
    for step in range(done, max(wanted)):
        learner.step(batch_at(x, size, seed, step))
        if step + 1 in wanted:
            end = evaluate(learner.sae().to(device), held_out)
            numbers = {"l0": end.l0, "fvu_raw": end.fvu_raw, "fvu_typical": end.fvu_typical}
            row = {**about, "steps": step + 1, "epochs": (step + 1) * size / len(x)}
            keep({**row, "dead": end.fates.dead, **numbers})
            print(
                *words, step + 1, f"{end.fates.dead:.2%}", {n: f"{v:.4g}" for n, v in numbers.items()}, flush=True
            )
        if (step + 1) % KEPT_EVERY == 0 or step + 1 in wanted:
            torch.save({**learner.state(), "steps": step + 1}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)


PARTS = {
    "default": "nothing",
    "long_rows": "rows of length 1",
    "centred": "`b_dec` at the median",
    "centred_long_rows": "`b_dec` at the median, rows of length 1",
    "mapped": "scale, centre and whitening",
    "cured": "all: scale, centre, whitening and rows of length 1",
}
"""Arms of SAELens' TopK, and what of the cure each has."""


def parts_table(rows: Sequence[Row]) -> str:
    """A line for each part of the cure, in the small setting."""
    lines = ["| of the cure | dead | raw FVU | FVU without strays |", "|---" * 4 + "|"]
    small = [r for r in rows if (r["library"], r["architecture"], r["d_sae"]) == ("SAELens", "topk", 1024)]
    for arm, label in PARTS.items():
        for row in small:
            if row["arm"] == arm:
                lines.append(f"| {label} | {row['dead']:.1%} | {row['fvu_raw']:.5f} | {row['fvu_typical']:.3f} |")
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> str:
    """A line for each kind, layer and setting with both arms: means over the seeds, default and cured."""
    lines = [
        "| library | layer | d_sae, batch, steps | seeds | dead: default | cured | raw FVU: default | cured "
        "| FVU without strays: default | cured | L0: default | cured |",
        "|---" * 12 + "|",
    ]
    groups: dict[tuple[Any, ...], dict[str, dict[int, Row]]] = {}
    for row in rows:
        where = (-row["d_sae"], row["model"] != "smollm2", row["layer"], row["steps"])
        kind = KINDS.index((row["library"], row["architecture"]))
        groups.setdefault((*where, kind), {}).setdefault(row["arm"], {})[row["seed"]] = row
    shown = {"dead": ".1%", "fvu_raw": ".5f", "fvu_typical": ".3f", "l0": ".1f"}
    for (*_, kind), arms in sorted(groups.items()):
        seeds = arms.get("default", {}).keys() & arms.get("cured", {}).keys()
        if not seeds:
            continue
        row = arms["cured"][min(seeds)]
        setting = f"{row['d_sae']:,}, {row['batch']:,}, {row['steps']:,}"
        cells = [
            f"{sum(arms[arm][seed][name] for seed in seeds) / len(seeds):{form}}"
            for name, form in shown.items()
            for arm in ("default", "cured")
        ]
        library, architecture = KINDS[kind]
        named = architecture.replace("_at_l0", ", at L0").replace("_held", ", held")
        label = f"{library} {named}" if library == "SAELens" else library
        lines.append(
            f"| {label} | {row['model']} {row['layer']} | {setting} | {len(seeds)} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="none: the table of the rows that are kept")
    parser.add_argument("--layers", default="smollm2.hs12,gemma3.hs2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--kinds", default=",".join(map(".".join, KINDS)))
    parser.add_argument("--arms", default="default,cured")
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", default="200,500,1000,2000,5000", help="at which a row is written")
    parser.add_argument("--cache", type=Path, default=Path("trained-cache"))
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if asked.folder is None:
        print(parts_table(read()), table(read()), sep="\n\n")
        return
    asked.cache.mkdir(parents=True, exist_ok=True)
    at = sorted(map(int, asked.steps.split(",")))
    for name in asked.layers.split(","):
        x, held_out = split(asked.folder, name)
        cure = diagnose(x, d_sae=asked.d_sae, sparsity=TopK(k=K), exact=False).prescription
        model, _, layer = name.partition(".")
        for seed in map(int, asked.seeds.split(",")):
            for library, architecture in (kind.split(".") for kind in asked.kinds.split(",")):
                for arm in asked.arms.split(","):
                    about = {
                        "library": library,
                        "architecture": architecture,
                        "model": model,
                        "layer": layer,
                        "seed": seed,
                        "arm": arm,
                        "remedy": cure.remedy.name,
                        "lr": LR,
                        "d_sae": asked.d_sae,
                        "k": K,
                        "batch": asked.batch,
                        "tokens": len(x),
                        "held_out": len(held_out),
                    }
                    run(x, held_out, about, cure, at, asked.cache, asked.device)


if __name__ == "__main__":
    main()
