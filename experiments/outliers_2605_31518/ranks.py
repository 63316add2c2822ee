"""Spearman's correlation of gamma with death on real layers: over layers, models and within models; claims."""

from typing import Any

import numpy as np
from experiments.outliers_2605_31518.frame import Claim, at_least, covers
from experiments.outliers_2605_31518.released import (
    Row,
    by_family,
    by_model,
    interval_over_layers,
    interval_over_models,
    spearman,
)

PATHWAYS = {"dead": "dead-by-TopK", "relu": "dead-by-ReLU"}
PAPER = {"dead": 0.89, "relu": 0.82}
"""Spearman's correlations in the paper's text."""


def correlations(rows: list[Row], pathway: str) -> dict[str, Any]:
    """Spearman's between gamma and death: over layers, over medians of models, within models and families."""
    medians = [
        {name: float(np.median([row[name] for row in some])) for name in ("gamma", pathway)}
        for some in by_model(rows).values()
    ]
    return {
        "layers": spearman(rows, "gamma", pathway),
        "interval_over_layers": interval_over_layers(rows, "gamma", pathway),
        "interval_over_models": interval_over_models(rows, "gamma", pathway),
        "medians": spearman(medians, "gamma", pathway),
        "models": {model: spearman(some, "gamma", pathway) for model, some in by_model(rows).items()},
        "families": {family: spearman(some, "gamma", pathway) for family, some in by_family(rows).items()},
    }


def least_of(correlations: dict[str, float | None]) -> tuple[str, float, int]:
    """(name of the least that there is, its value, how many there are)."""
    known = {name: value for name, value in correlations.items() if value is not None}
    name = min(known, key=lambda each: known[each])
    return name, known[name], len(known)


def rank_claims(found: dict[str, Any], pathway: str) -> list[Claim]:
    name = f"Spearman(gamma, {PATHWAYS[pathway]})"
    made = [
        covers(
            "fig4b",
            f"{name}, 454 layers; 95 % interval over layers",
            paper=PAPER[pathway],
            ours=found["layers"],
            interval=tuple(found["interval_over_layers"]),
        ),
        at_least(
            "fig4b",
            f"{name}, 454 layers: lower end of the 95 % interval over models",
            paper="-",
            ours=found["interval_over_models"][0],
            limit=0.5,
        ),
        at_least(
            "fig4b",
            f"{name}, medians of the 19 models",
            paper="holds across model families",
            ours=found["medians"],
            limit=0.5,
        ),
    ]
    for groups, of, paper in (("models", "model", "holds within model families"), ("families", "family", "-")):
        worst, least, number = least_of(found[groups])
        made.append(
            at_least(
                "fig4b",
                f"{name} within a {of}, least of {number} ({worst})",
                paper=paper,
                ours=least,
                limit=0.0,
                key=f"{name} within a {of}, least",
            )
        )
    return made


def own_rank_claims(found: dict[str, Any], pathway: str, number: int) -> list[Claim]:
    """The paper's correlation on layers that it did not see."""
    name = f"Spearman(gamma, {PATHWAYS[pathway]})"
    worst, least, networks = least_of(found["models"])
    return [
        covers(
            "fig4b",
            f"our {number} layers: {name}; 95 % interval over networks",
            paper=PAPER[pathway],
            ours=found["layers"],
            interval=tuple(found["interval_over_models"]),
            key=f"our layers: {name}; 95 % interval over networks",
            own=True,
        ),
        at_least(
            "fig4b",
            f"our {number} layers: {name}, lower end of the 95 % interval over layers",
            paper="-",
            ours=found["interval_over_layers"][0],
            limit=0.5,
            key=f"our layers: {name}, lower end of the 95 % interval over layers",
        ),
        at_least(
            "fig4b",
            f"our layers: {name} within a network, least of {networks} ({worst})",
            paper="-",
            ours=least,
            limit=0.0,
            key=f"our layers: {name} within a network, least",
        ),
    ]
