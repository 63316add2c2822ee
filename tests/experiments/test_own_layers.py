"""Layers of our own: rows say what `diagnose` says, and claims are judged on both sides of their thresholds."""

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from experiments.outliers_2605_31518 import (
    centering,
    fig2b,
    figS2real,
    figS5,
    figS19,
    figS20real,
    measure_details,
    measure_layers,
    networks,
    own,
    summary,
    tableS7,
    tableS8,
    verdicts,
)
from experiments.outliers_2605_31518.frame import HERE, SCALES, Reproduction
from scipy import stats

from autopsae import diagnose
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.findings import CLOSED_FORM, FAR_OFF
from autopsae.sae.sparsity import TopK
from autopsae.statistics import collect
from autopsae.statistics.moments import layer_norm

REAL = SCALES["real"]
SMALL = replace(measure_layers.ASKED, d_sae=256, sparsity=TopK(k=4))


def kept(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((HERE / "results" / "real" / f"{name}.json").read_text())["data"]
    return data


def judged(figure: Reproduction, data: dict[str, Any], words: str) -> tuple[Any, bool]:
    """(ours, holds) of the one claim whose words begin so."""
    [claim] = [claim for claim in figure.claims(data) if claim.claim.startswith(words)]
    return claim.ours, claim.holds


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.setattr(measure_layers, "ASKED", SMALL)
    return gaussian_tokens(5000, 12, 3.0, generator=torch.Generator().manual_seed(0))


def test_a_row_has_what_diagnose_says_with_counts_and_without(tokens: torch.Tensor) -> None:
    row = measure_layers.measure_layer(tokens, "a")
    both = [diagnose(tokens, d_sae=256, k=4, layer="a", exact=exact) for exact in (True, False)]
    exact, estimated = both
    assert {row["prescribed"]} == {diagnosis.prescription.remedy.name for diagnosis in both}
    assert row["findings"] == [finding.name for finding in exact.findings]
    assert row["findings_estimated"] == [finding.name for finding in estimated.findings]
    for name, birth in exact.birth.items():
        assert row["counted"][name] == pytest.approx({"dead": birth.dead, "relu": birth.dead_by_relu}, abs=1e-6)
    assert row["estimated"]["none"]["dead"] == pytest.approx(estimated.birth["none"].dead, rel=1e-5)
    assert row["expected"]["median"]["dead"] == pytest.approx(exact.expected["median"].dead.value, rel=1e-5)
    assert {"whiten_0.3", "trimmed", "coordinates"} < row["counted"].keys()


def test_the_trimmed_mean_is_scipys() -> None:
    x = torch.randn(97, 5, generator=torch.Generator().manual_seed(0)).double()
    assert measure_layers.trimmed_mean(x).numpy() == pytest.approx(stats.trim_mean(x.numpy(), 0.1, axis=0))


def test_projections_have_scipys_kurtosis_and_on_gaussian_tokens_that_of_a_sphere() -> None:
    chance = torch.Generator().manual_seed(7)
    x = torch.randn(20_000, 60, generator=chance)
    projected = measure_layers.project(x, collect(x))
    # After LayerNorm tokens lie on a sphere, a projection of which has this excess kurtosis.
    assert projected["kurtosis"] == pytest.approx(-6 / (59 + 2), abs=0.02)
    assert projected["largest"] == pytest.approx(stats.norm.ppf(0.5 ** (1 / 20_000)), abs=0.3)
    heavy = x[:2000] ** 3
    directions = torch.nn.functional.normalize(
        torch.randn(measure_layers.DIRECTIONS, 60, generator=torch.Generator().manual_seed(0)), dim=1
    )
    along = (layer_norm(heavy.double()) @ directions.T.double()).numpy()
    projected = measure_layers.project(heavy, collect(heavy))
    assert projected["kurtosis"] == pytest.approx(np.median(stats.kurtosis(along, axis=0)), abs=1e-3)
    assert projected["largest"] == pytest.approx(np.median(stats.zscore(along, axis=0).max(axis=0)), abs=1e-3)


def test_a_network_is_measured_layer_by_layer_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: torch.Tensor
) -> None:
    network = SimpleNamespace(points=["a", "b", "c"])
    ran: list[str] = []

    def measure(_tokens: torch.Tensor, layer: str) -> dict[str, Any]:
        ran.append(layer)
        return {"point": layer, "gamma": 1.0, "seconds": 0.0}

    monkeypatch.setattr(measure_layers, "LAYERS", tmp_path)
    monkeypatch.setattr(measure_layers, "load", lambda zoo: network)
    monkeypatch.setattr(measure_layers, "choose_blocks", lambda *_: [])
    monkeypatch.setattr(measure_layers, "run_over_inputs", lambda *args: dict.fromkeys(args[3], tokens))
    monkeypatch.setattr(measure_layers, "measure_layer", measure)

    def run(every: int = 1) -> Iterator[str]:
        return measure_layers.measure_network("unirep64", tmp_path, tmp_path / "work", 10, every=every)

    first = run()
    assert next(first).startswith("unirep64 a: gamma 1.00")
    del first
    assert len([*run(every=2)]) == 1
    assert json.loads((tmp_path / "unirep64.json").read_text())["complete"] is False
    assert len([*run()]) == 1
    assert [*run()] == []
    assert ran == ["a", "c", "b"]
    content = json.loads((tmp_path / "unirep64.json").read_text())
    assert (content["complete"], [row["point"] for row in content["rows"]]) == (True, ["a", "b", "c"])


def test_the_blocks_furthest_past_a_bound_are_chosen_and_none_within_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = torch.Generator().manual_seed(0)
    flat = torch.zeros(400, 100)
    flat[:, :2] = torch.randn(400, 2, generator=chance)
    outputs = {
        "attention 0": gaussian_tokens(400, 100, 5.0, generator=chance),
        "mlp 0": gaussian_tokens(400, 100, 0.2, generator=chance),
        "attention 1": gaussian_tokens(400, 100, 2.0, generator=chance),
        "mlp 1": flat,
    }
    monkeypatch.setattr(networks, "run_over_inputs", lambda *_: outputs)
    zoo = networks.Zoo(name="x", modality="vision", preset="x", blocks=("attention {}", "mlp {}"), depth=2, most=2)
    network: Any = None

    def chosen(most: int) -> list[str]:
        looked = networks.choose_blocks(replace(zoo, most=most), network, tmp_path, tmp_path)
        assert [row["point"] for row in looked] == [*outputs]
        return [row["point"] for row in looked if row["chosen"]]

    assert chosen(1) == ["attention 0"]
    assert chosen(2) == ["attention 0", "attention 1"]
    assert chosen(9) == ["attention 0", "attention 1", "mlp 1"][: len(chosen(9))]
    assert "mlp 0" not in chosen(9)


def test_the_kept_layers_are_of_four_modalities_and_at_most_40_of_a_network() -> None:
    rows = own.own_layers()
    models, modalities = Counter(row["model"] for row in rows), {row["modality"] for row in rows}
    assert max(models.values()) <= 40
    assert modalities == {"language", "vision", "protein", "genomic"}
    assert {(row["d_sae"], row["k"]) for row in rows} == {(8192, 64)}
    assert len({(row["model"], row["point"]) for row in rows}) == len(rows)
    for row in rows:
        assert 0 <= row["relu"] <= row["dead"] <= 1
        assert row["prescribed"] in row["expected"]


def test_the_blocks_that_were_measured_are_those_that_were_chosen() -> None:
    rows = own.own_layers()
    for network in own.looked_at():
        measured = {row["point"] for row in rows if row["model"] == network["model"]}
        by_choice = {choice: set[str]() for choice in (True, False)}
        for block in network["blocks"]:
            by_choice[block["chosen"]].add(own.brief(block["point"]))
        assert by_choice[True] <= measured or not network["complete"]
        assert not by_choice[False] & measured


@pytest.mark.parametrize(
    "figure",
    [fig2b, figS2real, figS5, figS19, figS20real, tableS7, centering, verdicts],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_a_figure_of_our_layers_is_what_the_kept_rows_make_it(figure: Any) -> None:
    data = figure.FIGURE.compute(REAL)
    assert json.loads(json.dumps(data)) == kept(figure.FIGURE.name)


def test_layers_of_enough_rank_with_one_percent_dead_after_centering_are_exceptions_and_named() -> None:
    data = deepcopy(kept("centering"))
    row = deepcopy(data["rows"][0])
    row |= {"model": "X", "point": "hs1", "dominance": 0.7, "rank": 0.0401}
    row["expected"] = {"none": 0.5, "median": 0.01, row["prescribed"]: 0.01}
    fine = {**row, "expected": {**row["expected"], "median": 0.0099}}
    low = {**row, "rank": 0.04}
    words = "layers with an effective rank over 4 % (1): 1 % or more expected dead"
    assert judged(centering.FIGURE, {"rows": [row, low]}, words) == (1.0, False)
    assert judged(centering.FIGURE, {"rows": [fine, low]}, words) == (0.0, True)
    [claim] = [c for c in centering.claims({"rows": [row, low]}) if c.claim.startswith(words)]
    assert claim.claim.endswith("X hs1 (1.0%, dominance 70%)")


def test_centering_is_worse_than_nothing_only_where_more_are_expected_dead() -> None:
    row = deepcopy(kept("centering")["rows"][0])
    row["expected"] |= {"none": 0.2, "median": 0.2}
    words = "all 1 layers: those with more expected dead after centering"
    assert judged(centering.FIGURE, {"rows": [row]}, words) == (0.0, True)
    row["expected"]["median"] = 0.2001
    assert judged(centering.FIGURE, {"rows": [row]}, words) == (1.0, False)


@pytest.mark.parametrize(("mean", "median", "fails"), [(0.06, 0.0, True), (0.05, 0.0, False), (0.5, 0.49, False)])
def test_the_mean_fails_where_it_leaves_many_dead_and_the_median_does_not(
    mean: float, median: float, fails: bool
) -> None:
    assert tableS7.mean_fails({"mean": mean, "median": median}) is fails


def test_two_verdicts_agree_if_their_findings_do_and_a_difference_is_named() -> None:
    row = deepcopy(kept("verdicts")["rows"][0])
    row |= {"model": "X", "point": "hs1", "findings": ["gamma", "low"], "findings_estimated": ["gamma", "low"]}
    assert verdicts.agrees(row)
    row["findings_estimated"] = ["gamma", "few"]
    assert not verdicts.agrees(row)
    assert verdicts.differences(row) == "X hs1: only with counts: low; only estimated: few"
    rows = [row] + [row | {"findings": ["gamma", "few"]}] * 99
    assert judged(verdicts.FIGURE, {"rows": rows}, "our 100 layers: fraction with the same") == (0.99, True)
    assert not judged(verdicts.FIGURE, {"rows": rows[:99]}, "our 99 layers: fraction with the same")[1]


def test_the_rule_of_table_s8_is_judged_on_our_layers_on_both_sides() -> None:
    row = {"model": "X", "point": "hs1", "layer": 1}
    rows = [row | {"rank": rank, "centered": dead} for rank, dead in ((0.0149, 0.051), (0.015, 0.05))]
    [claim] = tableS8._own_claims(rows)
    assert (claim.ours, claim.holds) == (0.0, True)
    rows = [row | {"rank": rank, "centered": dead} for rank, dead in ((0.0149, 0.05), (0.015, 0.051))]
    [claim] = tableS8._own_claims(rows)
    assert (claim.ours, claim.holds) == (1.0, False)
    assert "X hs1 (1.5%, 5.0% dead)" in claim.claim


def test_details_of_a_layer_agree_with_each_other(tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_details, "ASKED", SMALL)
    monkeypatch.setattr(measure_details, "SHOWN_LATENTS", 256)
    row = measure_details.measure(tokens, swept=True)
    curve = {point["tokens"]: point for point in row["curve"]}
    assert [*curve] == [1000, 2000, 5000]
    assert row["latents"]["dead"] == pytest.approx(curve[5000]["median"]["dead"], abs=1e-6)
    assert 1 - sum(row["latents"]["alive"]) / 256 == pytest.approx(row["latents"]["dead"], abs=1e-6)
    assert row["sweep"]["fixed"]["none"] == curve[5000]["none"]["dead"]
    assert row["sweep"]["rank"]["8"] >= 0
    assert sum(row["projections"]["histogram"]) == 5000
    assert max(row["projections"]["largest"]) >= row["projections"]["first"]
    assert len(row["landscape"]) == measure_details.SHOWN_TOKENS


@pytest.mark.parametrize(("number", "holds"), [(30, True), (29, False)])
def test_the_number_of_layers_that_claims_rest_on_is_a_claim_itself(number: int, holds: bool) -> None:
    row = kept("centering")["rows"][0]
    rows = [
        row | {"model": f"{modality} {i % 3}", "modality": modality}
        for modality in ("language", "vision", "protein", "genomic")
        for i in range(number)
    ]
    assert judged(centering.FIGURE, {"rows": rows}, "our layers that were measured") == (4 * number, holds)
    assert judged(centering.FIGURE, {"rows": rows}, "our layers of one modality, least") == (number, True)
    assert judged(centering.FIGURE, {"rows": rows}, "our networks") == (12, True)


def test_the_readme_says_of_our_layers_what_the_kept_results_say() -> None:
    page = (HERE / "README.md").read_text()
    assert f"{summary.BEGIN}\n\n{summary.text()}\n\n{summary.END}" in page


def test_what_kept_rows_say_of_the_closed_form_follows_from_their_numbers() -> None:
    rows = own.own_layers()
    assert len(rows) >= 120
    for row in rows:
        said, forecast = row["predicted"]["dead"], row["estimated"]["none"]["dead"]
        for names in (row["findings"], row["findings_estimated"]):
            assert (CLOSED_FORM in names) == (abs(said - forecast) > FAR_OFF), row["point"]
