"""The rows of `experiments.survival.policies`: kept, with those of the trial, and compared."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.rows import Row, read_rows, write_rows

from autopsae.defaults import ACCEPTABLE
from autopsae.training.bias import SLOW
from autopsae.training.config import TrainConfig
from autopsae.trial.budget import Budget
from autopsae.trial.candidate import USUAL
from autopsae.trial.choose import NEAR, choose
from autopsae.trial.later import Curve, Slower, expect_later
from autopsae.trial.result import Outcome, Point

RESULTS = Path(__file__).parent / "results" / "policies.json"
AGEING = Path(__file__).parent / "results" / "ageing.json"
"""Rows of `experiments.survival.ageing`."""
BATCH = 1024
HELD_OUT = 20_480
TRIED = 1000
"""Steps of the trial whose choice is compared."""
COMPARED = (
    *("trial", "rule", "paper_rule", "none", "median", "median_frozen", "median_slow", "whiten_0.15", "whiten_0.3"),
    *("whiten_0.05_slow", "whiten_0.15_frozen", "median_frozen_fitted"),
    *("whiten_0.15_fitted", "whiten_0.15_frozen_fitted", "whiten_0.3_fitted"),
)
"""Policies whose shares are compared, on layers that have all of them."""
NUMBERS = ("dead", "fvu_raw", "fvu_typical")


def read() -> list[Row]:
    """The rows that are kept."""
    return read_rows(RESULTS)


def read_ageing() -> list[Row]:
    """The rows of trainings at other rates and with other batches."""
    return read_rows(AGEING)


def keep(rows: Sequence[Row], *, without: Sequence[str] = (), of: Row | None = None) -> None:
    """Add rows to the file, in place of those that say the same of other numbers, and of all of these policies
    (`without`) on what `of` names.
    """
    about = [_about(row) for row in rows]
    kept = [row for row in read() if _about(row) not in about]
    kept = [row for row in kept if row["policy"] not in without or not (of or {}).items() <= row.items()]
    write_rows(RESULTS, with_trials([*kept, *rows]))


def _about(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("chose", *NUMBERS)}


def with_trials(rows: Sequence[Row]) -> list[Row]:
    """The rows, with those of the trial made anew: at each number of steps of a sweep of which the usual candidates
    were trained as a trial of 1,000 steps trains them, if the sweep has the one that the trial chooses.
    """
    others = [row for row in rows if row["policy"] != "trial"]
    trials = []
    for sweep in grouped(others, "epochs", "policy"):
        ends = {row["policy"]: row for row in sweep}
        outcomes = outcomes_of_trial(sweep[0])
        chosen = choose(outcomes, acceptable=ACCEPTABLE)[0].name if outcomes else ""
        if chosen in ends:
            trials.append({**ends[chosen], "policy": "trial", "chose": chosen})
    return [*others, *trials]


def outcomes_of_trial(row: Row) -> list[Outcome]:
    """What a trial for the training of this row found; [] where not all candidates were tried."""
    config = TrainConfig(steps=row["steps"], lr=row["lr"], batch_tokens=BATCH)
    budget = Budget.of(len(USUAL), config, steps=min(TRIED, row["steps"]))
    about = {name: row[name] for name in ("model", "layer", "seed", "lr", "d_sae", "k")}
    about |= {"age": budget.age, "batch": budget.batch_tokens}
    points: dict[str, list[Point]] = {}
    for one in read_ageing():
        if about.items() <= one.items() and one["steps"] <= budget.steps:
            numbers = {name: one[name] for name in NUMBERS}
            points.setdefault(one["policy"], []).append(Point(step=one["steps"], tokens=HELD_OUT, **numbers))
    of_usual = {name: sorted(points.get(name, []), key=lambda point: point.step) for name in USUAL}
    if not all(of_one and of_one[-1].step == budget.steps for of_one in of_usual.values()):
        return []
    curves = {name: Curve(points=tuple(of_one), end=of_one[-1]) for name, of_one in of_usual.items()}
    # Its rate is all that a slow bias differs in, and the remedy's name goes before it.
    slower = {name: Slower(than=name.replace("_slow", ""), fraction=SLOW) for name in USUAL if "_slow" in name}
    later = expect_later(curves, slower, budget)
    return [Outcome(name=name, points=curve.points, later=later[name]) for name, curve in curves.items()]


def grouped(rows: Sequence[Row], *but: str) -> list[list[Row]]:
    """Rows that agree in all that they are about but these names, in the order of the rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        about = {name: value for name, value in _about(row).items() if name not in but}
        groups.setdefault(json.dumps(about), []).append(row)
    return [*groups.values()]


def shares(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Of each policy: on how many layers (a layer and a seed) it was measured, and the share on which at most 1 %
    are dead, the raw FVU is within 2 % of the lowest of all policies of the layer, both, and the raw FVU is within
    2 % of the lowest of those that leave few dead, and few are dead. rows: of one number of steps, rate, d_sae, k.
    """
    layers = [{row["policy"]: row for row in group} for group in grouped(rows, "policy")]
    said = {}
    for policy in dict.fromkeys(row["policy"] for row in rows):
        measured = [layer for layer in layers if policy in layer]
        few = [layer[policy]["dead"] <= ACCEPTABLE for layer in measured]
        low = [
            layer[policy]["fvu_raw"] <= NEAR * min(row["fvu_raw"] for row in layer.values()) for layer in measured
        ]
        counted = {"few_dead": few, "low_error": low, "both": [a and b for a, b in zip(few, low, strict=True)]}
        lowest = [
            min((r["fvu_raw"] for r in layer.values() if r["dead"] <= ACCEPTABLE), default=0) for layer in measured
        ]
        counted["best_of_few"] = [
            a and layer[policy]["fvu_raw"] <= NEAR * best
            for a, layer, best in zip(few, measured, lowest, strict=True)
        ]
        said[policy] = {"layers": len(measured)} | {name: sum(c) / len(measured) for name, c in counted.items()}
    return said


def _cell(row: Row, *, digits: int = 3) -> str:
    """Dead latents and raw FVU."""
    return f"{row['dead']:.1%}, {row['fvu_raw']:.{digits}g}"


def over_time(rows: Sequence[Row], model: str, layer: str, *, fitted: bool = False) -> None:
    """A line per policy with dead latents and raw FVU after each number of steps from 1,000 on; seed 0, lr 3e-4.
    fitted: those whose encoder was fitted at birth, else the others.
    """
    about = {"model": model, "layer": layer, "seed": 0, "lr": 3e-4, "d_sae": 2048, "k": 32, "chose": None}
    of_layer = [row for row in rows if about.items() <= row.items() and ("_fitted" in row["policy"]) == fitted]
    ends = {(row["policy"], row["steps"]): row for row in of_layer}
    at = sorted({steps for _, steps in ends if steps >= 1000})
    print(f"| policy | {' | '.join(f'{steps:,}' for steps in at)} |\n" + "|---" * (1 + len(at)) + "|")
    for policy in sorted({policy for policy, steps in ends if steps == at[-1]}):
        cells = [_cell(ends[policy, steps]) for steps in at]
        print(f"| `{policy}` | {' | '.join(cells)} |")


def compared(rows: Sequence[Row], steps: int) -> list[Row]:
    """The rows of `COMPARED` at the centre point after so many steps, of layers and seeds that have all of them."""
    about = {"steps": steps, "lr": 3e-4, "d_sae": 2048, "k": 32}
    named = [row for row in rows if about.items() <= row.items() and row["policy"] in COMPARED]
    layers = grouped(named, "tokens", "epochs", "held_out", "policy")
    return [row for layer in layers if {row["policy"] for row in layer} == {*COMPARED} for row in layer]


def print_compared(rows: Sequence[Row], steps: int) -> None:
    """A line per policy with its shares of these layers."""
    said = shares(compared(rows, steps))
    print("| policy | few dead | low error | both | best of few |\n|---|---|---|---|---|")
    for policy in COMPARED:
        cells = [f"{said[policy][name]:.0%}" for name in ("few_dead", "low_error", "both", "best_of_few")]
        print(f"| `{policy}` | {' | '.join(cells)} |")


CENTRE: Row = {"lr": 3e-4, "k": 32, "d_sae": 2048}
"""The settings around which one is changed at a time, at 1,000 steps."""
FACTORS: tuple[Row, ...] = (
    *({"lr": lr} for lr in (1e-4, 1e-3)),
    *({"k": k} for k in (16, 64, 256)),
    {"d_sae": 8192},
)
AT_FACTORS = ("none", "median", "median_frozen", "median_slow", "whiten_0.15", "whiten_0.3", "whiten_0.15_fitted")
"""Policies that are measured at each of them."""


def at_factors(rows: Sequence[Row], *, seed: int = 0) -> list[tuple[str, str, dict[str, Row]]]:
    """(layer, what is changed, the row of each policy) for all changes that have all policies, the rule among them;
    on the layers on which k was changed.
    """
    layers = [row for row in rows if row["k"] != CENTRE["k"]]
    said = []
    for model, layer in dict.fromkeys((row["model"], row["layer"]) for row in layers):
        for change in ({}, *FACTORS):
            about = {"model": model, "layer": layer, "seed": seed, "steps": 1000, **CENTRE, **change}
            by = {row["policy"]: row for row in rows if about.items() <= row.items()}
            if {*AT_FACTORS, "rule"} <= by.keys():
                words = [f"{name} {value:{'g' if name == 'lr' else ','}}" for name, value in change.items()]
                said.append((f"{model} {layer}", ", ".join(words) or "nothing", by))
    return said


def print_factors(rows: Sequence[Row], *, seed: int = 0) -> None:
    """A line per layer and change with dead latents and raw FVU of each policy, and what the rule prescribes."""
    print(f"| layer | changed | {' | '.join(f'`{policy}`' for policy in AT_FACTORS)} | the rule takes |")
    print("|---" * (3 + len(AT_FACTORS)) + "|")
    for layer, change, by in at_factors(rows, seed=seed):
        cells = [_cell(by[policy]) for policy in AT_FACTORS]
        print(f"| {layer} | {change} | {' | '.join(cells)} | `{by['rule']['chose']}` |")


FURTHER = ("none", "median", "whiten_0.15", "whiten_0.15_fitted")
"""Policies that are compared in trainings of a rate times steps over 0.3, up to 1."""


def further(rows: Sequence[Row]) -> list[Row]:
    """The rows of these policies, and of the rule, on layers that have all of them; one seed, d_sae 2048, k 32."""
    named = [
        row
        for row in rows
        if {"seed": 0, "d_sae": 2048, "k": 32}.items() <= row.items()
        and row["policy"] in (*FURTHER, "rule")
        and row["lr"] <= 1e-3
        and 0.3 < round(row["lr"] * row["steps"], 9) <= 1
    ]
    groups = grouped(named, "policy")
    whole = [group for group in groups if {row["policy"] for row in group} == {*FURTHER, "rule"}]
    return [row for group in sorted(whole, key=lambda g: g[0]["lr"] * g[0]["steps"]) for row in group]


def print_further(rows: Sequence[Row]) -> None:
    """A line per layer with dead latents and raw FVU of each policy, then the shares of the layers."""
    compared = further(rows)
    policies = (*FURTHER, "rule")
    print(f"| layer | lr | steps | {' | '.join(f'`{policy}`' for policy in policies)} |\n" + "|---" * 8 + "|")
    for group in grouped(compared, "policy"):
        first, by = group[0], {row["policy"]: row for row in group}
        cells = [_cell(by[policy]) for policy in policies]
        layer = f"{first['model']} {first['layer']}"
        print(f"| {layer} | {first['lr']:g} | {first['steps']:,} | {' | '.join(cells)} |")
    said = shares([row for row in compared if row["chose"] is None or row["policy"] == "rule"])
    for name, words in (("few_dead", "few dead"), ("both", "few dead and low error")):
        print(f"| **{words}** | | | {' | '.join(f'{said[policy][name]:.0%}' for policy in policies)} |")


def tables(rows: Sequence[Row]) -> None:
    """For each setting: a line per layer and seed with dead latents and raw FVU of each policy, then the shares."""
    for setting in grouped(rows, "model", "layer", "seed", "tokens", "epochs", "held_out", "policy"):
        first = setting[0]
        policies = [*dict.fromkeys(row["policy"] for row in setting if row["chose"] is None)]
        print(f"\n{first['steps']:,} steps, lr {first['lr']:g}, d_sae {first['d_sae']:,}, k {first['k']}\n")
        print(f"| layer | seed | {' | '.join(policies)} |\n" + "|---" * (2 + len(policies)) + "|")
        for layer in grouped(setting, "policy"):
            by = {row["policy"]: row for row in layer}
            cells = [_cell(by[p], digits=4) if p in by else "" for p in policies]
            print(f"| {layer[0]['model']} {layer[0]['layer']} | {layer[0]['seed']} | {' | '.join(cells)} |")
        print("\n| policy | layers | few dead | low error | both | best of few |\n" + "|---" * 6 + "|")
        for policy, share in shares(setting).items():
            cells = [f"{share[name]:.0%}" for name in ("few_dead", "low_error", "both", "best_of_few")]
            print(f"| {policy} | {share['layers']:.0f} | {' | '.join(cells)} |")
