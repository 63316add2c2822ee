"""What the scripts of experiments/survival conclude from rows made by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from experiments.outliers_2605_31518.dynamics import SETTINGS
from experiments.survival.prescription import compared
from experiments.survival.resampled import death_table, severity_table
from experiments.survival.resampling import D_SAE, FOLLOWED, Layer, _forecasts, _over, _pre, merged, severity_rows
from experiments.survival.revival import Run, judged
from experiments.survival.summary import by_pathway, by_size, misses

from autopsae.arrays import InputError
from autopsae.diagnosis.severity import severity
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import TopK
from autopsae.statistics import collect
from autopsae.survival.forecast import forecast


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


def layer() -> Layer:
    chance = torch.Generator().manual_seed(0)
    document = torch.arange(900) // 50
    x = 2 * torch.randn(18, 12, generator=chance)[document] + torch.randn(900, 12, generator=chance) + 0.5
    return Layer(name="a.b", tokens=x, documents=document.numpy())


def test_forecasts_that_share_their_product_are_those_of_the_library() -> None:
    tokens, rows = layer().tokens, draw_rows(D_SAE, 12, generator=torch.Generator().manual_seed(0))
    [_, few] = layer().draw(0)
    assert (few.origin, few.stream) == ("4 documents", 200)
    pre = _pre(tokens[few.places], rows)
    over = _over(pre.T.contiguous(), pre.topk(65, dim=1).values, 16)
    said = _forecasts(over, few, len(tokens))
    for store, documents in (("as harvested", None), ("documents known", torch.from_numpy(layer().documents))):
        known = None if documents is None else documents[few.places]
        sample = tokens[few.places]
        found = forecast(sample, rows, TopK(k=16), documents=known, stream_tokens=few.stream, followed=FOLLOWED)
        dead = found.dead(len(tokens))
        expected = (dead.value, dead.low, dead.high, found.effective_tokens)
        assert said[store][:4] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert said[store][4:] == said[store][:3]
    value, low, high, worth, _, near, far = said["shuffled"]
    assert worth < 50
    assert low < near <= value <= far < high


def test_intervals_of_resampled_layers_are_those_of_the_severity() -> None:
    whole = layer()
    [few] = [row for row in severity_rows(whole, [whole.draw(0)]) if (row["from"], row["store"]) == FEW_KNOWN]
    drawn = whole.draw(0)[1]
    said = severity(collect(whole.tokens[drawn.places]), torch.zeros(12), drawn.groups["documents known"])
    width = said.gamma_interval[1] - said.gamma_interval[0]
    assert few["severity"]["gamma"]["relative_width"] == pytest.approx(width / few["severity"]["gamma"]["true"])
    assert few["severity"]["gamma"]["unassumed_holds"] == few["severity"]["gamma"]["holds"]


FEW_KNOWN = ("4 documents", "documents known")


def test_rows_of_more_draws_are_the_mean_over_all_draws() -> None:
    one = {"layer": "a", "draws": 1, "holds": 1.0, "worst": 0.2, "dead": 0.1, "severity": {"gamma": {"holds": 0.0}}}
    other = {**one, "draws": 3, "holds": 0.2, "worst": 0.1, "severity": {"gamma": {"holds": 0.4}}}
    assert merged(one, other) == {
        "layer": "a",
        "draws": 4,
        "holds": pytest.approx(0.4),
        "worst": 0.2,
        "dead": 0.1,
        "severity": {"gamma": {"holds": pytest.approx(0.3)}},
    }


def test_layers_that_settings_were_chosen_on_and_layers_kept_apart_have_lines_of_their_own() -> None:
    row = {"layer": "minilm.hs1", "from": "all documents", "store": "shuffled", "dead": 0.2, "worst": 0.01}
    row |= {f"{when}{key}": 0.02 for when in ("", "unassumed_") for key in ("mean_error", "holds", "width")}
    rows = [row, {**row, "layer": "minilm.hs3", "from": "17 documents", "holds": 0.9}]
    assert death_table(rows).splitlines()[2:] == [
        "| chosen on | all | shuffled | 1 | 2.00 | 2% | 2.0 |",
        "| chosen on | all | shuffled, nothing assumed | 1 | 2.00 | 2% | 2.0 |",
        "| kept apart | few | shuffled | 1 | 2.00 | 90% | 2.0 |",
        "| kept apart | few | shuffled, nothing assumed | 1 | 2.00 | 2% | 2.0 |",
    ]
    held = {f"{when}{key}": 0.5 for when in ("", "unassumed_") for key in ("holds", "relative_width")}
    of_three = {**row, "severity": dict.fromkeys(("gamma", "gamma_raw", "effective_rank"), held)}
    assert severity_table([of_three]).splitlines()[2] == (
        "| chosen on | all | shuffled | 50%, 50 % wide | 50%, 50 % wide | 50%, 50 % wide |"
    )
