"""Other libraries' own training on a layer, default against cured: who is dead in the end, and what the error is.

    python -m experiments.interop.trained FOLDER [--layers smollm2.hs12,gemma3.hs2] [--seeds 0,1,2] [--kinds SAELens.topk]
    python -m experiments.interop.trained                                  # the table of the kept rows, a second

FOLDER is what `experiments.survival.layers` wrote; the environment is that of `make test`, which holds the
libraries. d_sae 2048, k or L0 32, batches of 1,024, Adam 3e-4 at a constant rate. Whole documents are held out, as
in `experiments.survival.policies`. Cured: what `diagnose` prescribes for the training tokens, by one call.

A row has `library, architecture, model, layer, seed, arm, remedy, steps, lr, d_sae, k, batch`, `tokens` (different
training tokens), `epochs`, `held_out`, and, on the held-out tokens, `dead, l0, fvu_raw, fvu_typical`. Rows in
results/trained.json stay. A run that was killed goes on from its checkpoint in `--cache`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.peers import versions
from experiments.interop.libraries import KINDS, LIBRARIES, Setting
from experiments.survival.policies import split
from torch import Tensor

from autopsae import Prescription, TopK, diagnose, evaluate
from autopsae.files import write_text

RESULTS = Path(__file__).parent / "results" / "trained.json"
D_SAE, K, BATCH, LR = 2048, 32, 1024, 3e-4
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


def batch_at(x: Tensor, seed: int, step: int) -> Tensor:
    """The same for every library and arm; a pass over all tokens before any comes again."""
    per_pass = len(x) // BATCH
    generator = torch.Generator().manual_seed(seed * 1000 + step // per_pass)
    order = torch.randperm(len(x), generator=generator)
    start = step % per_pass * BATCH
    return x[order[start : start + BATCH]]


def run(x: Tensor, held_out: Tensor, about: Row, cure: Prescription, at: Sequence[int], cache: Path) -> None:
    """Train one arm of one kind, and write its rows as they come."""
    there = [row["steps"] for row in read() if about.items() <= row.items()]
    wanted = [steps for steps in at if steps not in there]
    if not wanted:
        return
    weight = (cure.scale or 1.0) ** 2
    setting = Setting(d_in=x.shape[1], d_sae=D_SAE, k=K, batch=BATCH, lr=LR, weight=weight)
    torch.manual_seed(about["seed"])
    learner = LIBRARIES[about["library"]](setting, cure if about["arm"] == "cured" else None, about["architecture"])
    words = [about[name] for name in ("library", "architecture", "model", "layer", "seed", "arm")]
    checkpoint, done = cache / f"{'_'.join(map(str, words))}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        done = state["steps"]
        learner.load(state, done)
    for step in range(done, max(wanted)):
        learner.step(batch_at(x, about["seed"], step))
        if step + 1 in wanted:
            end = evaluate(learner.sae(), held_out)
            numbers = {"l0": end.l0, "fvu_raw": end.fvu_raw, "fvu_typical": end.fvu_typical}
            row = {**about, "steps": step + 1, "epochs": (step + 1) * BATCH / len(x)}
            keep({**row, "dead": end.fates.dead, **numbers})
            print(*words, step + 1, f"{end.fates.dead:.2%}", {n: f"{v:.4g}" for n, v in numbers.items()}, flush=True)
        if (step + 1) % KEPT_EVERY == 0 or step + 1 in wanted:
            torch.save({**learner.state(), "steps": step + 1}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)


def table(rows: Sequence[Row]) -> list[str]:
    """A line for each kind, layer and number of steps: means over seeds, default and cured side by side."""
    lines = [
        "| library | layer | steps | seeds | dead: default | cured | raw FVU: default | cured "
        "| FVU without strays: default | cured | L0: default | cured |",
        "|---" * 12 + "|",
    ]
    groups: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for row in rows:
        kind = KINDS.index((row["library"], row["architecture"]))
        group = groups.setdefault((row["model"] != "smollm2", row["layer"], row["steps"], kind), {})
        group.setdefault(row["arm"], []).append(row)
    for (_, layer, steps, kind), arms in sorted(groups.items()):
        if set(arms) != {"default", "cured"}:
            continue
        both = {row["seed"] for row in arms["default"]} & {row["seed"] for row in arms["cured"]}
        means = {
            (arm, name): sum(row[name] for row in arms[arm] if row["seed"] in both) / len(both)
            for arm in arms
            for name in NUMBERS
        }
        shown = {"dead": ".1%", "fvu_raw": ".4g", "fvu_typical": ".3f", "l0": ".1f"}
        cells = [f"{means[arm, name]:{form}}" for name, form in shown.items() for arm in ("default", "cured")]
        library, architecture = KINDS[kind]
        label = f"{library} {architecture}" if library == "SAELens" else library
        lines.append(
            f"| {label} | {arms['cured'][0]['model']} {layer} | {steps:,} | {len(both)} | {' | '.join(cells)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="none: the table of the rows that are kept")
    parser.add_argument("--layers", default="smollm2.hs12,gemma3.hs2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--kinds", default=",".join(map(".".join, KINDS)))
    parser.add_argument("--steps", default="200,500,1000,2000,5000", help="at which a row is written")
    parser.add_argument("--cache", type=Path, default=Path("trained-cache"))
    asked = parser.parse_args()
    if asked.folder is None:
        print("\n".join(table(read())))
        return
    asked.cache.mkdir(parents=True, exist_ok=True)
    at = sorted(map(int, asked.steps.split(",")))
    for seed in map(int, asked.seeds.split(",")):
        for name in asked.layers.split(","):
            x, held_out = split(asked.folder, name)
            cure = diagnose(x, d_sae=D_SAE, sparsity=TopK(k=K), exact=False).prescription
            model, _, layer = name.partition(".")
            for library, architecture in (kind.split(".") for kind in asked.kinds.split(",")):
                for arm in ("default", "cured"):
                    about = {
                        "library": library,
                        "architecture": architecture,
                        "model": model,
                        "layer": layer,
                        "seed": seed,
                        "arm": arm,
                        "remedy": cure.remedy.name if arm == "cured" else "none",
                        "lr": LR,
                        "d_sae": D_SAE,
                        "k": K,
                        "batch": BATCH,
                        "tokens": len(x),
                        "held_out": len(held_out),
                    }
                    run(x, held_out, about, cure, at, asked.cache)


if __name__ == "__main__":
    main()
