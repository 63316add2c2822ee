"""Who dies in training and what the error is, under each remedy and way in which `b_dec` learns, at many settings.

    python -m experiments.survival.policies FOLDER [--layers smollm2.hs12,...] [--seeds 0,1] [--steps 200,1000,2000]
    python -m experiments.survival.policies FOLDER --rules                 # what the rules choose today, minutes
    python -m experiments.survival.policies                                # the tables of the kept rows, a second

FOLDER is what `experiments.survival.layers` wrote. All policies of a layer, seed, rate, d_sae and k are trained as
one sweep on the same batches. The rate is constant, so an SAE at 200 steps of a longer run is that of a run of 200
steps: one run gives the rows of all `--steps`. Some whole documents (20,480 tokens or a few more) are held out:
death, raw FVU and FVU without strays are measured on them. Rows in results/policies.json stay; a sweep that was
killed goes on from its checkpoint in `--cache`. `--device cuda` trains on a GPU.

A row has `model, layer, seed, steps, lr, d_sae, k`, `tokens` (different training tokens), `epochs` (times that each
was trained on), `held_out` (held-out tokens), `policy`, `chose`, `dead, fvu_raw, fvu_typical`. A policy is
the name of a candidate of a trial (`autopsae.trial.candidate`), such as median_frozen or whiten_0.15_fitted;
"_fast" behind it says that a fitted encoder learned at the full rate, not at that of its rows' length.
`rule` and `paper_rule` repeat the row of the policy that they chose before training, and name it in `chose`; the
first is told rate and steps. `--rules` makes their rows anew, without training. So
does `trial`, which chooses as `autopsae.trial` does among its usual candidates, by trainings of 1,000 steps
(`experiments.survival.ageing`). It sees the held-out tokens on which the row is measured.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.rows import Row
from experiments.survival.policy_rows import BATCH, HELD_OUT, grouped, keep, read, tables
from jaxtyping import Float
from torch import Tensor

from autopsae import Remedy, TopK, TrainConfig, born, diagnose, evaluate
from autopsae.run.start import start_from
from autopsae.statistics import collect
from autopsae.statistics.collect import Statistics
from autopsae.training import Member, Training
from autopsae.training.bias import BIASES
from autopsae.trial.candidate import Candidate, parts_of

CENTER = {"lr": 3e-4, "d_sae": 2048, "k": 32}
"""The point around which one setting at a time is changed."""

POLICIES = (
    *("none", "median", "median_frozen", "median_slow", "median_decoder"),
    *("whiten_0.05", "whiten_0.15", "whiten_0.3"),
)
FAST = "_fast"
"""Ends the name of a policy whose fitted encoder learns at the full rate."""
RULES = ("rule", "paper_rule")


def remedy_of(name: str, statistics: Statistics) -> Remedy:
    """none, mean, median, whiten, whiten_ALPHA or asi_RANK."""
    kind, _, number = name.partition("_")
    kind = "zero" if kind == "none" else kind
    return start_from(kind, statistics, alpha=float(number or 1), rank=int(float(number or 1)))


def split(folder: Path, name: str) -> tuple[Float[Tensor, "tokens d_in"], Float[Tensor, "held_out d_in"]]:
    """(training tokens, held-out tokens): whole documents, drawn once for all seeds, are held out."""
    x = torch.from_numpy(np.load(folder / f"{name}.npy"))
    documents = np.load(folder / f"{name.split('.')[0]}.documents.npy")
    order = np.random.default_rng(0).permutation(int(documents.max()) + 1)
    sizes = np.bincount(documents)[order]
    chosen = order[: int(np.searchsorted(sizes.cumsum(), HELD_OUT)) + 1]
    is_held_out = torch.from_numpy(np.isin(documents, chosen))
    return x[~is_held_out], x[is_held_out]


def choices(
    x: Float[Tensor, "tokens d_in"], *, d_sae: int, k: int, lr: float, steps: int, device: str = "cpu"
) -> dict[str, str]:
    """What each rule chooses from the training tokens, as a policy."""
    found = diagnose(x, d_sae=d_sae, sparsity=TopK(k=k), lr=lr, steps=steps, exact=False, device=device)
    prescribed = found.prescription
    candidate = Candidate(remedy=prescribed.remedy, fit_encoder=prescribed.encoder_scale != 1)
    return {"rule": candidate.name, "paper_rule": found.paper}


def renew_rules(folder: Path, name: str) -> None:
    """Make the rows of the rules anew from the kept rows of a layer."""
    x, _ = split(folder, name)
    model, _, layer = name.partition(".")
    about = {"model": model, "layer": layer, "tokens": len(x)}
    chosen: dict[tuple[float, int, int, int], dict[str, str]] = {}
    rows = []
    for group in grouped([row for row in read() if about.items() <= row.items()], "policy"):
        first, ends = group[0], {row["policy"]: row for row in group}
        settings = {name: first[name] for name in ("d_sae", "k", "lr", "steps")}
        key = (first["lr"], *(first[name] for name in ("d_sae", "k", "steps")))
        chosen[key] = chosen.get(key) or choices(x, **settings)
        rows += [{**ends[p], "policy": rule, "chose": p} for rule, p in chosen[key].items() if p in ends]
        print(name, *key, first["seed"], *(f"{p} {p in ends}" for p in chosen[key].values()), flush=True)
    keep(rows, without=[*RULES], of=about)


def measured(
    x: Tensor,
    held_out: Tensor,
    policies: Sequence[str],
    at: Sequence[int],
    *,
    seed: int,
    settings: Mapping[str, Any],
    checkpoint: Path,
    saes: Path | None = None,
    batch: int = BATCH,
    device: str = "cpu",
) -> Iterator[tuple[int, dict[str, Row]]]:
    """(number of steps, {policy: what held-out tokens say}) for each number of steps in `at`, one by one."""
    statistics = collect(x)
    config = {"steps": max(at), "lr": settings["lr"], "batch_tokens": batch, "record_every": max(at), "seed": seed}
    members = []
    for policy in policies:
        remedy, bias, fitted = parts_of(policy.removesuffix(FAST))
        relative = fitted and not policy.endswith(FAST)
        sae = born(
            remedy_of(remedy, statistics),
            d_sae=settings["d_sae"],
            sparsity=TopK(k=settings["k"]),
            sample=statistics.sample,
            generator=torch.Generator().manual_seed(seed),
            fit_encoder=fitted,
        ).to(device)
        own = TrainConfig(**config, bias=BIASES[bias], relative_encoder_lr=relative)
        members.append(Member(sae=sae, config=own, name=policy))
    training, held_out = Training(members, x.to(device)), held_out.to(device)
    if checkpoint.exists():
        training.load(checkpoint)
    for _ in training.each_step():
        if training.step in at:
            ends = {member.name: evaluate(member.sae, held_out) for member in members}
            if saes:
                for member in members:
                    member.sae.save(saes.with_name(f"{saes.name}_{member.name}_{training.step}"))
            yield (
                training.step,
                {
                    name: {"dead": end.fates.dead, "fvu_raw": end.fvu_raw, "fvu_typical": end.fvu_typical}
                    for name, end in ends.items()
                },
            )
        if training.step in at or training.step % 1000 == 0:
            training.save(checkpoint)


def run(
    folder: Path,
    name: str,
    policies: Sequence[str],
    at: Sequence[int],
    seed: int,
    settings: Row,
    cache: Path,
    saes: Path | None = None,
    device: str = "cpu",
) -> None:
    """Train one sweep, and write its rows as they come."""
    x, held_out = split(folder, name)
    model, _, layer = name.partition(".")
    about = {"model": model, "layer": layer, "seed": seed, **settings, "tokens": len(x), "held_out": len(held_out)}
    chosen = {steps: choices(x, **settings, steps=steps, device=device) for steps in at}
    there = {(row["steps"], row["policy"]) for row in read() if about.items() <= row.items()}
    asked = dict.fromkeys([*policies, *(policy for rules in chosen.values() for policy in rules.values())])
    policies = [policy for policy in asked if any((steps, policy) not in there for steps in at)]
    wanted = [steps for steps in at if any((steps, policy) not in there for policy in policies)]
    if not wanted:
        return
    words = [name, seed, *settings.values(), *policies, max(at)]
    checkpoint = cache / f"{'_'.join(map(str, words))}.safetensors"
    kept = saes / "_".join(map(str, [name, seed, *settings.values()])) if saes else None
    more: dict[str, Any] = {"seed": seed, "settings": settings, "checkpoint": checkpoint, "saes": kept}
    sweep = measured(x, held_out, policies, wanted, **more, device=device)
    for steps, ends in sweep:
        ran = {**about, "steps": steps, "epochs": steps * BATCH / len(x)}
        rows = [{**ran, "policy": policy, "chose": None, **end} for policy, end in ends.items()]
        # A policy that was measured before has these rows.
        named = {rule: policy for rule, policy in chosen[steps].items() if policy in ends}
        rows += [{**ran, "policy": rule, "chose": policy, **ends[policy]} for rule, policy in named.items()]
        keep(rows)
        for row in rows:
            said = f"{row['dead']:.2%} {row['fvu_raw']:.4g}"
            print(name, seed, steps, row["policy"], row["chose"] or "", said, flush=True)
    checkpoint.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="none: the tables of the rows that are kept")
    parser.add_argument("--layers", default="", help="such as smollm2.hs12; all if not given")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", default="200,500,1000,2000")
    parser.add_argument("--lr", type=float, default=CENTER["lr"])
    parser.add_argument("--d-sae", type=int, default=CENTER["d_sae"])
    parser.add_argument("--k", type=int, default=CENTER["k"])
    parser.add_argument("--cache", type=Path, default=Path("policies-cache"))
    parser.add_argument("--saes", type=Path, help="keep the trained SAEs there, for `trained_death`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rules", action="store_true", help="only make the rows of the rules anew")
    asked = parser.parse_args()
    if asked.folder is None:
        keep([])
        tables(read())
        return
    asked.cache.mkdir(parents=True, exist_ok=True)
    files = sorted(path.stem for path in asked.folder.glob("*.npy") if not path.stem.endswith(".documents"))
    settings = {"lr": asked.lr, "d_sae": asked.d_sae, "k": asked.k}
    at = sorted(map(int, asked.steps.split(",")))
    names = asked.layers.split(",") if asked.layers else files
    if asked.rules:
        for name in names:
            renew_rules(asked.folder, name)
        return
    for seed in map(int, asked.seeds.split(",")):
        for name in names:
            policies, kept = asked.policies.split(","), (asked.cache, asked.saes)
            run(asked.folder, name, policies, at, seed, settings, *kept, asked.device)


if __name__ == "__main__":
    main()
