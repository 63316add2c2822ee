"""The paper's real half from the authors' tables: values against SciPy and the raw CSV, verdicts on both sides."""

import csv
import json
import re
import sys
from collections import defaultdict
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments.outliers_2605_31518 import (
    fig2a,
    fig4a,
    fig4b,
    figS14,
    frame,
    released,
    reproduce,
    tableS6,
    tableS8,
)
from experiments.outliers_2605_31518.frame import HERE, SCALES, Reproduction, resume
from matplotlib.figure import Figure
from scipy import stats

REAL = SCALES["real"]
PERCENT = {"dead": "dead_pct_init_topk", "relu": "dead_pct_init_relu"}


def raw(name: str) -> list[dict[str, str]]:
    with (HERE / "authors" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def kept(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((HERE / "results" / "real" / f"{name}.json").read_text())["data"]
    return data


def judged(figure: Reproduction, data: dict[str, Any], words: str) -> tuple[Any, bool]:
    """(ours, holds) of the one claim whose words begin so."""
    [found] = [claim for claim in figure.claims(data) if claim.claim.startswith(words)]
    return found.ours, found.holds


def spearmanr(x: np.ndarray, y: np.ndarray) -> float:
    return float(stats.spearmanr(x, y).statistic)


def test_spearmans_correlation_is_scipys_with_ties_and_absent_where_nothing_varies() -> None:
    rows = [{"x": float(x), "y": float(y)} for x, y in ((1, 3), (2, 3), (2, 1), (4, 9), (5, 0), (5, 5))]
    x, y = (np.array([row[name] for row in rows]) for name in "xy")
    assert released.spearman(rows, "x", "y") == pytest.approx(spearmanr(x, y))
    assert released.spearman([{"x": 1.0, "y": 1.0}, {"x": 2.0, "y": 1.0}], "x", "y") is None
    assert released.spearman(rows[:1], "x", "y") is None


def test_the_rows_are_those_of_the_tables_as_fractions() -> None:
    rows, table = released.layers(), raw("init_stats")
    assert (len(rows), len({row["model"] for row in rows})) == (454, 19)
    for name, header in PERCENT.items():
        assert [row[name] for row in rows] == pytest.approx(column(table, header) / 100, abs=1e-6)
    rank = column(table, "effective_rank") / column(table, "hidden_dim")
    assert [row["rank"] for row in rows] == pytest.approx(rank, rel=1e-5)
    trained = {row["model"]: row for row in released.trainings()}
    assert len(trained) == 14
    assert trained["AlphaFold3"]["end"] == {"baseline": 0.9443, "auxk": 0.7199, "centered": 0.0}
    assert trained["DINOv3-B"]["birth"]["centered"] == 0.6081


@pytest.mark.parametrize(("pathway", "name"), [("dead", "dead-by-TopK"), ("relu", "dead-by-ReLU")])
def test_the_correlations_of_figure_4b_are_scipys_on_the_released_table(pathway: str, name: str) -> None:
    rows, data = raw("init_stats"), kept("fig4b")
    gamma, dead = column(rows, "gamma"), column(rows, PERCENT[pathway])
    words = f"Spearman(gamma, {name})"
    whole, holds = judged(fig4b.FIGURE, data, f"{words}, 454 layers; 95 %")
    assert whole == pytest.approx(spearmanr(gamma, dead), abs=5e-5)
    assert holds
    by_model: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_model[row["model"]].append(row)
    centres = [
        np.median([column(some, of) for of in ("gamma", PERCENT[pathway])], axis=1) for some in by_model.values()
    ]
    ours, _ = judged(fig4b.FIGURE, data, f"{words}, medians of the 19 models")
    assert ours == pytest.approx(spearmanr(*np.array(centres).T), abs=5e-5)
    within = {
        model: spearmanr(column(some, "gamma"), column(some, PERCENT[pathway]))
        for model, some in by_model.items()
        if len({row[PERCENT[pathway]] for row in some}) > 1
    }
    ours, holds = judged(fig4b.FIGURE, data, f"{words} within a model, least")
    assert (ours, holds) == (pytest.approx(min(within.values()), abs=5e-5), False)
    assert min(within, key=lambda model: within[model]) == "progen_base"


def test_the_closed_forms_of_figure_4b_are_scipys_normal() -> None:
    rows, data = raw("init_stats"), kept("fig4b")
    gamma, reach = column(rows, "gamma"), stats.norm.isf(1e-5)
    theory = stats.norm.cdf(stats.norm.isf(64 / 8192) - reach / gamma)
    off = abs(theory - column(rows, PERCENT["dead"]) / 100)
    words = "mean |dead-by-TopK - closed form| over "
    assert judged(fig4b.FIGURE, data, words + "all") == (pytest.approx(off.mean(), abs=5e-5), False)
    assert judged(fig4b.FIGURE, data, words + "layers with") == (
        pytest.approx(off[gamma > 3].mean(), abs=5e-5),
        True,
    )
    over = stats.norm.cdf(-reach / gamma) - column(rows, PERCENT["relu"]) / 100
    worst = max(gap for gap, row in zip(over, rows, strict=True) if row["model"] == "esm3")
    ours, holds = judged(fig4b.FIGURE, data, "ESM3: largest dead-by-ReLU under")
    assert (ours, holds) == (pytest.approx(worst, abs=5e-5), False)


def test_the_interval_over_layers_is_that_of_scipys_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "RESAMPLINGS", 1000)
    rows = released.layers()
    columns = [[row[name] for row in rows] for name in ("gamma", "relu")]
    found = stats.bootstrap(
        columns, spearmanr, paired=True, vectorized=False, n_resamples=1000, method="percentile", rng=1
    ).confidence_interval
    assert released.interval_over_layers(rows, "gamma", "relu") == pytest.approx([found.low, found.high], abs=0.015)


def test_layers_of_one_model_are_alike_so_the_interval_over_models_is_wider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(released, "RESAMPLINGS", 100)
    alone = [
        {"model": model, "x": float(i), "y": float(i % 7)} for i, (model, _) in enumerate(released.MODELS.values())
    ]
    doubled = [row for row in alone for _ in range(20)]
    low, high = released.interval_over_models(doubled, "x", "y")
    narrow = released.interval_over_layers(doubled, "x", "y")
    assert high - low > 2 * (narrow[1] - narrow[0])
    found = kept("fig4b")["correlations"]["dead"]
    (low, high), narrow = found["interval_over_models"], found["interval_over_layers"]
    assert low < narrow[0] < found["layers"] < narrow[1] < high


def test_a_correlation_of_figure_4b_fails_outside_its_interval_and_a_bound_below_its_limit() -> None:
    data = kept("fig4b")
    words = "Spearman(gamma, dead-by-TopK), "
    data["correlations"]["dead"]["interval_over_layers"] = [0.8901, 0.93]
    assert not judged(fig4b.FIGURE, data, words + "454 layers; 95 %")[1]
    data["correlations"]["dead"]["interval_over_layers"] = [0.89, 0.93]
    assert judged(fig4b.FIGURE, data, words + "454 layers; 95 %")[1]
    for low, holds in ((0.5, True), (0.4999, False)):
        data["correlations"]["dead"]["interval_over_models"] = [low, 0.9]
        assert judged(fig4b.FIGURE, data, words + "454 layers: lower end") == (low, holds)


def test_layers_of_our_own_come_into_the_picture_and_change_no_claim_on_the_authors_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(released, "RESAMPLINGS", 5)
    row = {"model": "N", "modality": "language", "point": "hs0", "tokens": 1000, "d_sae": 100, "k": 5}
    rows = [
        row | {"layer": layer, "gamma": gamma, "dead": dead, "relu": relu}
        for layer, (gamma, dead, relu) in enumerate(((4.0, 0.9, 0.1), (5.0, 0.8, 0.2), (6.0, 0.95, 0.3)))
    ]
    monkeypatch.setattr(fig4b, "own_layers", lambda: rows)
    data = fig4b.compute(REAL)
    reach = stats.norm.isf(1 / 1000)
    own = data["own"][0]
    assert own["relu_theory"] == pytest.approx(stats.norm.cdf(-reach / 4), rel=1e-5)
    assert own["dead_theory"] == pytest.approx(stats.norm.cdf(stats.norm.isf(0.05) - reach / 4), rel=1e-5)
    judged_now = {claim.id: claim for claim in fig4b.claims(data)}
    # The ends of intervals depend on the number of resamplings.
    other = (
        "our ",
        "Spearman(gamma, dead-by-TopK), 454 layers: lower",
        "Spearman(gamma, dead-by-ReLU), 454 layers: lower",
    )
    authors = [claim for claim in fig4b.claims(kept("fig4b")) if not claim.claim.startswith(other)]
    assert {claim.id for claim in authors} <= judged_now.keys()
    assert all(judged_now[claim.id].ours == claim.ours for claim in authors)
    assert judged(fig4b.FIGURE, data, "our layers: Spearman(gamma, dead-by-TopK) within a network") == (0.5, True)
    assert judged(fig4b.FIGURE, data, "our layers: Spearman(gamma, dead-by-ReLU) within a network") == (1.0, True)
    title = fig4b.draw(data)._suptitle  # type: ignore[attr-defined]
    assert "454 layers of 19 models" in title.get_text()
    assert "3 layers of 1 networks of ours, 1,000 tokens" in title.get_text()


def test_table_s6_has_the_ratios_and_correlations_of_the_released_table() -> None:
    data, rows = kept("tableS6"), raw("init_stats")
    assert data == tableS6.compute(REAL)
    some = [row for row in rows if row["model"] == "dinov3"]
    ratio = column(some, "gamma") / column(some, "gamma_raw")
    assert judged(tableS6.FIGURE, data, "DINOv3-7B: gamma / gamma_raw, median") == (
        pytest.approx(np.median(ratio), abs=5e-4),
        False,
    )
    order = spearmanr(column(some, "gamma_raw"), column(some, PERCENT["dead"]))
    assert judged(tableS6.FIGURE, data, "DINOv3-7B: Spearman(gamma_raw") == (pytest.approx(order, abs=5e-5), True)
    gain = spearmanr(column(rows, "gamma"), column(rows, PERCENT["dead"])) - spearmanr(
        column(rows, "gamma_raw"), column(rows, PERCENT["dead"])
    )
    ours, holds = judged(tableS6.FIGURE, data, "Spearman(gamma, dead-by-TopK) minus")
    assert (ours, holds) == (pytest.approx(gain, abs=5e-5), True)


@pytest.mark.parametrize(("ratio", "holds"), [(1.32, True), (1.33, False), (0.88, True), (0.87, False)])
def test_a_ratio_of_table_s6_holds_within_a_fifth(ratio: float, holds: bool) -> None:
    data = kept("tableS6")
    [esm3] = [row for row in data["models"] if row["model"] == "ESM3"]
    esm3["median"] = ratio
    assert judged(tableS6.FIGURE, data, "ESM3: gamma / gamma_raw, median") == (ratio, holds)


def test_tables_s7_and_s8_are_the_released_ones_to_the_printed_digit_and_no_further() -> None:
    data = kept("tableS8")
    assert data == tableS8.compute(REAL)
    for words in ("Table S8, effective rank", "Table S8, dead, raw", "Table S7, not centered"):
        assert judged(tableS8.FIGURE, data, words)[1]
    changed = deepcopy(data)
    for row in changed["rows"]:
        row["rank"] += 0.0001
        row["dead"] += 0.001
    for words in ("Table S8, effective rank", "Table S8, dead, raw", "Table S7, not centered"):
        assert not judged(tableS8.FIGURE, changed, words)[1]


def test_the_rule_of_table_s8_is_judged_on_both_sides_of_its_thresholds() -> None:
    rows = [
        {
            "model": model,
            "modality": "protein",
            "layer": 1,
            "rank": rank,
            "centered": dead,
            "dead": 1.0,
            "whitened": 0.0,
        }
        for model, rank, dead in (
            ("A", 0.0149, 0.051),
            ("B", 0.0149, 0.05),
            ("C", 0.015, 0.05),
            ("D", 0.015, 0.051),
        )
    ]
    low, high = tableS8._rule_claims(rows)
    assert (low.ours, low.holds) == (0.5, False)
    assert (high.ours, high.holds) == (1.0, False)
    assert "(D 1)" in high.claim
    low, high = tableS8._rule_claims([rows[0], rows[2]])
    assert (low.holds, high.holds) == (True, True)
    assert "(none)" in high.claim


def test_figure_2a_has_the_deaths_of_the_released_table() -> None:
    data, rows = kept("fig2a"), raw("trained_results")
    assert data == fig2a.compute(REAL)
    end = column(rows, "dead_pct_final_baseline") / 100
    assert judged(fig2a.FIGURE, data, "dead at the end, most") == (pytest.approx(end.max()), True)
    words = "worst cases (AlphaFold3, Evo1)"
    assert judged(fig2a.FIGURE, data, words) == (0.7199, False)
    for row in data["rows"]:
        row["end"]["auxk"] = max(row["end"]["auxk"], 0.75)
    assert judged(fig2a.FIGURE, data, words) == (0.75, True)
    for row in data["rows"]:
        row["end"]["baseline"] = row["end"]["auxk"] = 0.0001
    assert judged(fig2a.FIGURE, data | {"rows": [*data["rows"], kept("fig2a")["rows"][-1]]}, "language") == (
        1e-4,
        False,
    )


def test_figure_s14_has_the_gains_of_the_released_tables() -> None:
    data, rows = kept("figS14"), raw("trained_results")
    assert data == figS14.compute(REAL)
    some = [row for row in rows if row["model"] not in ("Evo1", "DINOv3-1B")]
    gamma = {row["model"]: row["gamma"] for row in data["rows"]}
    gammas = np.array([gamma[released.TRAINED.get(row["model"], row["model"])] for row in some])
    for when, column_of in (("birth", "init"), ("end", "final")):
        gain = column(some, f"dead_pct_{column_of}_baseline") - column(some, f"dead_pct_{column_of}_centered")
        ours, holds = judged(figS14.FIGURE, data, f"Spearman(gamma, gain of centering at {when})")
        assert (ours, holds) == (pytest.approx(spearmanr(gammas, gain), abs=5e-5), True)
    assert judged(figS14.FIGURE, data, "largest difference of death")[1] is False
    assert judged(figS14.FIGURE, data, "the same without DINOv3-B centered")[1] is True


def test_the_kept_rows_of_the_real_half_are_what_its_results_are_judged_to_be() -> None:
    entries = [entry for entry in frame.read_claims() if entry["scale"] == "real"]
    assert {entry["figure"] for entry in entries} == {*reproduce.REAL_FIGURES}
    assert len({entry["id"] for entry in frame.read_claims() if entry["scale"] != "quick"}) == 126 + len(entries)
    for name in reproduce.REAL_FIGURES:
        content = json.loads((HERE / "results" / "real" / f"{name}.json").read_text())
        assert frame.judge(reproduce.figure(name), content) == [row for row in entries if row["figure"] == name]


def test_a_figure_is_made_again_only_when_a_table_it_reads_has_changed(tmp_path: Path) -> None:
    table, made = tmp_path / "layers.json", []

    def compute(scale: frame.Scale) -> frame.Data:
        made.append(scale.name)
        return {"found": table.exists()}

    figure = replace(fig2a.FIGURE, name="figX", compute=compute, draw=lambda data: Figure(), claims=lambda data: [])
    figure = replace(figure, inputs=(table,))
    for _ in range(2):
        resume(figure, REAL, tmp_path)
    assert len(made) == 1
    table.write_text("[]")
    for _ in range(2):
        resume(figure, REAL, tmp_path)
    assert len(made) == 2
    resume(figure, replace(REAL, tokens=5), tmp_path)
    assert len(made) == 3


def test_the_real_half_is_made_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduce, "REAL_FIGURES", ("fig2a", "tableS8"))
    monkeypatch.setattr(sys, "argv", ["reproduce", "--scale", "real", "--resume", "--out", str(tmp_path)])
    reproduce.main()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["fig2a", "tableS8"]
    assert (tmp_path / "figures" / "real" / "tableS8.png").exists()
    assert "At real scale" in (tmp_path / "README.md").read_text()


def test_a_figure_of_one_half_is_not_made_at_a_scale_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fig2a", "--out", str(tmp_path)])
    frame.main(fig2a.FIGURE)
    assert (tmp_path / "results" / "real" / "fig2a.json").exists()
    for figure, scale, choice in ((fig2a.FIGURE, "quick", "real"), (fig4a.FIGURE, "real", "quick")):
        monkeypatch.setattr(sys, "argv", [figure.name, "--scale", scale, "--out", str(tmp_path)])
        with pytest.raises(SystemExit):
            frame.main(figure)
        assert re.search(rf"invalid choice: '{scale}' \(choose from '?{choice}", capsys.readouterr().err)


def test_the_readme_of_the_reproduction_quotes_what_the_figures_found() -> None:
    text = " ".join((HERE / "README.md").read_text().split())
    found, models = kept("fig4b")["correlations"], {row["model"]: row for row in kept("tableS6")["models"]}

    def span(pathway: str, of: str, digits: int) -> str:
        return "[" + ", ".join(f"{end:.{digits}f}" for end in found[pathway][f"interval_over_{of}"]) + "]"

    assert f"{found['dead']['layers']:.3f} (95 % interval over layers {span('dead', 'layers', 3)})" in text
    assert f"with dead-by-ReLU {found['relu']['layers']:.3f} {span('relu', 'layers', 3)}." in text
    assert f"intervals are {span('dead', 'models', 2)} and {span('relu', 'models', 2)}." in text
    assert f"with dead-by-TopK is {found['dead']['models']['ProGen2-base']:.2f} over 26 layers" in text
    assert f"ProGen2-Large {found['dead']['models']['ProGen2-Large']:.2f}." in text
    better = [models[name]["spearman_gamma_raw"] for name in ("ProGen2-base", "ProGen2-Large")]
    assert f"orders death better ({better[0]:.2f} and {better[1]:.2f})" in text
    medians = [f"{models[name]['median']:.1f}" for name in ("DINOv3-7B", "ModernBERT-L", "AlphaFold3")]
    assert re.findall(r"its median is (\S+) for .*? 5\.3\), (\S+) for .*? and (\S+) for", text) == [tuple(medians)]
    off = judged(fig4b.FIGURE, kept("fig4b"), "mean |dead-by-TopK - closed form| over all")[0]
    assert f"It is {100 * off:.1f} points off on average over all layers" in text
    rows = kept("tableS8")["rows"]
    low = [row for row in rows if row["rank"] < 0.015 and row["centered"] <= 0.05]
    high = [row for row in rows if row["rank"] >= 0.015 and row["centered"] > 0.05]
    assert f"wrong on {len(low) + len(high)} of 454 layers" in text
    assert f"{len(low)} layers are below it" in text
