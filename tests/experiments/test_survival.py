"""What the scripts of experiments/survival conclude from rows made by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from experiments.outliers_2605_31518.dynamics import SETTINGS
from experiments.survival.prescription import compared
from experiments.survival.revival import Run, judged
from experiments.survival.summary import by_pathway, by_size, misses

from autopsae.arrays import InputError


def trained(layer: str, *, dead: dict[str, float], fvu: dict[str, float], prescribed: str) -> list[dict[str, Any]]:
    return [
        {
            "model": "m",
            "layer": layer,
            "k": 4,
            "remedy": remedy,
            "dead_end": dead.get(remedy, 0.0),
            "fvu_raw": fvu.get(remedy, 0.2),
            "prescribed": remedy == prescribed,
            "paper": remedy == "median",
        }
        for remedy in ("none", "mean", "median", "whiten_0.15", "whiten_0.3", "whiten_0.5", "whiten")
    ]


def test_a_rule_is_held_against_the_best_of_each_layer_and_against_one_remedy_for_all() -> None:
    rows = trained("a", dead={"median": 0.01}, fvu={"none": 0.1, "median": 0.1}, prescribed="none")
    rows += trained("b", dead={"none": 0.5}, fvu={"median": 0.1, "whiten_0.3": 0.105}, prescribed="whiten_0.3")
    found = compared(rows)
    assert {rule: (said["few_dead"], said["few_dead_and_near_best"]) for rule, said in found.items()} == {
        "prescribed": (2, 2),
        "paper": (1, 1),
        "none": (1, 1),
        "mean": (2, 0),
        "median": (1, 1),
        "whiten_0.15": (2, 0),
        "whiten_0.3": (2, 1),
        "whiten_0.5": (2, 0),
        "whiten": (2, 0),
    }
    assert found["prescribed"]["over_best_worst"] == pytest.approx(1.05)
    assert found["mean"]["over_best_mean"] == pytest.approx(2.0)
    assert found["none"]["most_dead"] == 0.5


ROW: dict[str, Any] = {
    "model": "m", "layer": "hs1", "remedy": "none", "n": 100, "tokens": 1000, "sample": 10, "followed": 5,
    "counted": 0.2, "predicted": 0.25, "low": 0.2, "high": 0.3, "counted_relu": 0.0, "predicted_relu": 0.01,
}  # fmt: skip


def test_a_count_outside_the_interval_by_more_than_a_latent_is_a_miss() -> None:
    outside = {**ROW, "low": 0.22}
    assert misses([ROW, {**ROW, "low": 0.21}]).count("\n") == 1
    assert misses([outside]).splitlines()[-1] == "| m | hs1 | none | 1,000 | 20.0% | +5.0 |"


def test_errors_by_pathway_and_by_size_are_in_points() -> None:
    rows = [ROW, {**ROW, "sample": 20, "counted_relu": 0.03}]
    assert by_pathway(rows).startswith("dead-by-ReLU: off by 1.50 points on average, 2.00 at worst")
    assert by_pathway(rows).endswith("on 1 of 2 rows")
    assert by_size(rows).splitlines()[2:] == [
        "| 10 | 5 | 1 | 5.00 | 5.0 | 10.0 |",
        "| 20 | 5 | 1 | 5.00 | 5.0 | 10.0 |",
    ]


def test_a_kept_run_of_other_draws_is_not_judged() -> None:
    setting = SETTINGS["quick"]
    training, held_out = torch.randn(2, 500, setting.d_in, generator=torch.Generator().manual_seed(0))
    run = Run(
        scale="quick",
        name="baseline 5",
        setting=setting,
        lr=setting.lr,
        frozen=(),
        offset=torch.zeros(setting.d_in),
        curves={"born_dead": [0.0, 0.0], "bias": [0.0, 0.0], "relu": [0.0, 0.0]},
    )
    assert judged(run, training, held_out)["slack"] == 0
    other = replace(run, curves={**run.curves, "born_dead": [0.01, 0.01]})
    with pytest.raises(
        InputError, match=r"quick baseline 5: expected 1.00% born dead-by-ReLU as in the kept run, got 0"
    ):
        judged(other, training, held_out)
