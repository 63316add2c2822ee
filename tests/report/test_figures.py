"""Laws of the figures for papers: names, few and many layers, values that are all alike, and every result."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autopsae
from autopsae.arrays import InputError
from autopsae.diagnosis.survey import Survey, survey
from autopsae.report.figures import FIGURES, draw_figure, save_figure
from autopsae.report.plots import label, new_canvas, shorten_names
from autopsae.report.survey_plots import survey_figure
from autopsae.report.training_plots import training_figure
from autopsae.tables import Result
from autopsae.training.history import Records
from tests.report.pages import tokens

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def layers() -> Survey:
    return survey({f"hs{n}": tokens(gamma, n) for n, gamma in enumerate((0.1, 6.0))}, d_sae=48, k=3, exact=False)


def named(layers: Survey, names: list[str]) -> Survey:
    some = layers.diagnoses
    return Survey(tuple(dataclasses.replace(some[n % len(some)], layer=name) for n, name in enumerate(names)))


def outside(figure: Any) -> list[str]:
    """Words that stand, in part, outside of the picture; drawn first, as the layout is found then."""
    figure.savefig("/dev/null", format="png", dpi=60)
    width, height = figure.bbox.width, figure.bbox.height
    shown = [text for axis in figure.get_axes() for text in (*axis.get_xticklabels(), axis.title)]
    boxes = {text.get_text(): text.get_window_extent() for text in shown if text.get_text() and text.get_visible()}
    return [
        name
        for name, box in boxes.items()
        if box.x0 < -1 or box.x1 > width + 1 or box.y0 < -1 or box.y1 > height + 1
    ]


def test_names_are_told_apart_by_what_differs_in_them_and_no_number_is_cut() -> None:
    assert shorten_names(["blocks.10.mlp", "blocks.11.mlp"]) == (["10", "11"], "blocks.*.mlp")
    assert shorten_names(["hs1", "hs2"]) == (["hs1", "hs2"], "")
    assert shorten_names(["blocks.1.mlp"]) == (["blocks.1.mlp"], "")
    assert shorten_names(["encoder.first", "decoder-second"]) == (["encoder.first", "decoder-second"], "")
    assert shorten_names(["same.name", "same.name"]) == (["same.name", "same.name"], "")
    assert shorten_names(["layer.1", "layer.1.mlp"]) == (["layer.1", "layer.1.mlp"], "")
    assert label("a" * 40, 10) == "aaaaa…aaaa"
    assert label("$x$\n") == r"\$x\$\n"


@pytest.mark.parametrize(
    "names",
    [
        [f"blocks.{n}.hook_resid_post" for n in range(60)],
        [f"{'very_long_name_of_a_module.' * 6}{n}.{'output' * n}" for n in range(5)],
        ["$x^{$", "\x1b[2J", "<b>", "a\nb", "%s"],
    ],
    ids=["sixty", "long", "odd"],
)
def test_any_names_are_drawn_within_the_picture(layers: Survey, names: list[str]) -> None:
    figure = survey_figure(named(layers, names))
    assert outside(figure) == []
    ticks = [text.get_text() for text in figure.get_axes()[0].get_xticklabels()]
    assert 5 <= len(ticks) <= 30
    assert len({*ticks}) == len(ticks)


def test_forecasts_stand_beside_the_counts_with_their_intervals(layers: Survey) -> None:
    axis = survey_figure(layers).get_axes()[0]
    drawn: dict[str, Any] = {str(container.get_label()): container for container in axis.containers}
    for words, remedy in (("no remedy", "none"), ("as prescribed", None)):
        line, _, [bars] = drawn[f"{words}, expected on 1,000,000"].lines
        expected = [d.expected[remedy or d.prescription.remedy.name].dead for d in layers]
        assert line.get_ydata().tolist() == [100 * one.value for one in expected]
        ends = [(y0, y1) for (_, y0), (_, y1) in bars.get_segments()]
        assert ends == [pytest.approx((100 * one.low, 100 * one.high)) for one in expected]
    assert all(0 < x - round(x) < 0.5 for x in line.get_xdata())
    [whiskers] = drawn["no remedy"].lines[2]
    assert [y1 for _, (_, y1) in whiskers.get_segments()] == pytest.approx(
        [100 * (d.birth["none"].dead_interval or (0, 0))[1] for d in layers]
    )


def test_one_layer_is_drawn_by_remedy() -> None:
    one = survey({"hs1": tokens(3.0)}, d_sae=48, k=3)
    axis = survey_figure(one).get_axes()[0]
    assert len(axis.get_yticklabels()) == len(one["hs1"].birth)
    containers: list[Any] = [*axis.containers]
    [count, later] = containers
    assert sorted(count.lines[0].get_xdata()) == sorted(100 * birth.dead for birth in one["hs1"].birth.values())
    assert len(later.lines[0].get_xdata()) == len(one["hs1"].expected)


def test_no_whisker_of_a_remedy_is_cut() -> None:
    one = survey({"hs1": tokens(3.0)}, d_sae=48, k=3)["hs1"]
    most = max(birth.dead for birth in one.birth.values())
    wide = {name: dataclasses.replace(birth, dead_interval=(0.0, 1.5 * most)) for name, birth in one.birth.items()}
    axis = survey_figure(Survey((dataclasses.replace(one, birth=wide),))).get_axes()[0]
    assert most > 0.1
    assert 150 * most < axis.get_xlim()[1]


def test_axes_fit_fractions_that_are_all_zero_or_all_small(layers: Survey) -> None:
    def limits(dead: float) -> tuple[float, float]:
        def birth(one: Any) -> Any:
            return dataclasses.replace(one, dead=dead, dead_by_relu=0.0, dead_by_topk=dead, dead_interval=None)

        same = dataclasses.replace(layers["hs1"].expected["none"].dead, value=dead, low=dead, high=dead)
        changed = []
        for d in layers:
            births = {name: birth(one) for name, one in d.birth.items()}
            later = {name: dataclasses.replace(one, dead=same) for name, one in d.expected.items()}
            formula = dataclasses.replace(d.predicted, dead=dead)
            changed.append(dataclasses.replace(d, birth=births, expected=later, predicted=formula))
        low, high = survey_figure(Survey(tuple(changed))).get_axes()[0].get_ylim()
        return float(low), float(high)

    low, high = limits(0.0)
    assert -0.1 < low < 0
    assert 1 <= high <= 1.3
    low, high = limits(0.05)
    assert -0.5 < low < 0
    assert 5 < high < 6.5
    assert limits(0.9) == pytest.approx((-3, 103))


def test_every_result_draws_its_figure_or_says_in_one_line_that_it_has_none(layers: Survey) -> None:
    assert draw_figure(layers).get_axes()
    assert layers.plot().get_axes()
    with pytest.raises(
        InputError, match=r"^plot: expected a result with a figure \(Survey, .*, got 'Finding', which"
    ):
        layers["hs1"].findings[0].plot()
    assert all(issubclass(kind, Result | Records) for kind in FIGURES)


@pytest.mark.parametrize(
    "style",
    [
        {"text.usetex": True},  # a per cent sign would begin a comment
        {"font.size": 30.0, "axes.labelsize": 40.0, "xtick.labelsize": 40.0},
        {"figure.autolayout": True, "axes.formatter.use_locale": True, "axes.grid": True},
        {"axes.facecolor": "black", "text.color": "white", "axes.spines.top": False, "lines.linewidth": 9.0},
    ],
    ids=lambda style: next(iter(style)),
)
def test_a_figure_does_not_take_the_style_of_the_caller(
    style: dict[str, Any], layers: Survey, tmp_path: Path
) -> None:
    matplotlib: Any = pytest.importorskip("matplotlib")

    def pictures() -> list[bytes]:
        figures: list[Any] = [draw_figure(layers["hs1"]), survey_figure(layers)]
        return [figure.png() for figure in figures]

    plain = pictures()
    save_figure(layers, tmp_path / "plain.png")
    with matplotlib.rc_context(style):
        assert pictures() == plain
        save_figure(layers, tmp_path / "styled.png")
        assert all(matplotlib.rcParams[name] == value for name, value in style.items())
    assert (tmp_path / "styled.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    with matplotlib.rc_context({"font.family": "monospace"}):
        assert pictures()[1] != plain[1]  # the fonts of a paper hold for its figures


def test_the_curves_of_a_training_are_those_of_its_records(tmp_path: Path) -> None:
    x = tokens(3.0)
    sae = autopsae.born(autopsae.diagnose(x, d_sae=48, k=3).prescription)
    config = autopsae.TrainConfig(steps=12, lr=1e-3, batch_tokens=50, dead_after_tokens=200)
    records = autopsae.train(sae, x, config)
    assert isinstance(records, list)
    assert f">The last of 12 records: {records[-1]}</p><table>" in records._repr_html_()
    axes = records.plot().get_axes()
    lines = {str(line.get_label()): line for axis in axes for line in axis.get_lines()}
    assert np.asarray(lines["FVU of the batch"].get_ydata()).tolist() == [record.fvu for record in records]
    known = [100 * record.dead for record in records if record.dead is not None]
    assert np.asarray(lines["dead"].get_ydata()).tolist() == known
    assert np.asarray(lines["dead"].get_xdata()).tolist() == list(range(12 - len(known) + 1, 13))
    saved = [dataclasses.asdict(record) for record in records]
    again = training_figure(saved, [{"step": 11, "dead": 0.5, "fvu_raw": 0.7}]).get_axes()
    assert [
        np.asarray(line.get_ydata())[0] for line in again[1].get_lines() if "held out" in str(line.get_label())
    ] == [0.7]
    for name in ("a.png", "a.svg", "a.pdf"):
        save_figure(records, tmp_path / name)
    assert records._repr_html_().startswith("<p ")
    with pytest.raises(InputError, match="training_figure: expected at least one record, got none"):
        training_figure([])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_latents_that_are_all_alike_are_drawn(weight: float, tmp_path: Path) -> None:
    rows = weight * torch.ones(8, 12)
    sae = autopsae.SAE(W_enc=rows, W_dec=rows, b_dec=torch.zeros(12), sparsity=autopsae.TopK(k=2))
    save_figure(autopsae.autopsy(sae, tokens(0.0)), tmp_path / "a.png")


def test_a_figure_shows_itself_in_a_notebook_and_without_matplotlib_there_is_the_table(
    layers: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layers.plot()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert layers._repr_html_().count('<img alt="Figure of Survey" src="data:image/png;base64,') == 1
    monkeypatch.delitem(sys.modules, "autopsae.report.canvas")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"^a figure: expected the package matplotlib .*'autopsae\[report\]'$"):
        new_canvas(1, 1)
    assert "<img" not in layers._repr_html_()
    assert "<table>" in layers._repr_html_()
