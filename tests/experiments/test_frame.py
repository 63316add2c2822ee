"""The frame of the reproduced figures: claims merge and replace, files are whole, figures come from JSON alone."""

import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from experiments.outliers_2605_31518 import fig1, fig3, fig4a, figS2, figS3, figS4, figS20, frame, reproduce, table
from experiments.outliers_2605_31518.births import Setting, birth, draw_tokens, encoder_rows
from experiments.outliers_2605_31518.frame import Data, Reproduction, Scale, at_least, at_most, make, near, redraw
from matplotlib.figure import Figure

from autopsae.arrays import InputError

TINY = Scale(name="tiny", tokens=300, draws=2)


def compute(scale: Scale) -> Data:
    return {"dead": 0.25, "tokens": scale.tokens}


def draw(data: Data) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, data["dead"]])
    return figure


def claims(data: Data) -> list[frame.Claim]:
    return [near("figX", "a quarter die", paper=0.2, ours=data["dead"], by=0.1)]


FIGURE = Reproduction(name="figX", compute=compute, draw=draw, claims=claims)


def entry(figure: str, scale: str, claim: str = "it holds", **changed: object) -> dict[str, object]:
    made = asdict(near(figure, claim, paper=1.0, ours=1.0, by=0))
    return {**made, "draws": 2, "scale": scale, "minutes": 0.1, **changed}


def test_a_figure_writes_its_data_its_picture_and_its_claims(tmp_path: Path) -> None:
    made = make(FIGURE, TINY, tmp_path)
    written = json.loads((tmp_path / "results" / "tiny" / "figX.json").read_text())
    assert written["data"] == {"dead": 0.25, "tokens": 300}
    assert written["scale"] == asdict(TINY)
    assert (tmp_path / "figures" / "tiny" / "figX.png").read_bytes().startswith(b"\x89PNG")
    assert frame.read_claims(tmp_path) == made
    fields = ["id", "figure", "claim", "paper", "ours", "tolerance", "holds", "own", "draws", "scale", "minutes"]
    assert [*made[0]] == fields
    assert (made[0]["draws"], made[0]["own"]) == (1, False)


def test_a_figure_is_redrawn_and_judged_from_its_json_alone(tmp_path: Path) -> None:
    def never(scale: Scale) -> Data:
        raise AssertionError("redraw measured again")

    make(FIGURE, TINY, tmp_path)
    picture = tmp_path / "figures" / "tiny" / "figX.png"
    before = picture.read_bytes()
    picture.unlink()
    data = tmp_path / "results" / "tiny" / "figX.json"
    redraw(replace(FIGURE, compute=never), "tiny", tmp_path)
    assert picture.read_bytes() == before
    data.write_text(data.read_text().replace("0.25", "0.75"))
    [judged] = redraw(replace(FIGURE, compute=never), "tiny", tmp_path)
    assert (judged["ours"], judged["holds"]) == (0.75, False)


def test_claims_of_a_figure_and_scale_are_replaced_and_all_others_kept(tmp_path: Path) -> None:
    frame.merge([entry("fig3", "quick", "old"), entry("fig3", "quick", "gone")], "fig3", "quick", tmp_path)
    frame.merge([entry("fig3", "full", "kept")], "fig3", "full", tmp_path)
    frame.merge([entry("fig1", "quick", "kept too")], "fig1", "quick", tmp_path)
    frame.merge([entry("fig3", "quick", "new")], "fig3", "quick", tmp_path)
    assert [claim["claim"] for claim in frame.read_claims(tmp_path)] == ["kept too", "kept", "new"]


def test_claims_are_in_the_papers_order(tmp_path: Path) -> None:
    for figure in ("figS20", "figS3", "fig4a", "fig10", "fig4", "table1", "fig1"):
        frame.merge([entry(figure, "quick")], figure, "quick", tmp_path)
    order = [claim["figure"] for claim in frame.read_claims(tmp_path)]
    assert order == ["fig1", "fig4", "fig4a", "fig10", "figS3", "figS20", "table1"]


def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    class Half(Figure):
        def savefig(self, fname: Any, **_: Any) -> None:
            Path(fname).write_bytes(b"half")
            raise OSError("disk full")

    make(FIGURE, TINY, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(OSError, match="disk full"):
        redraw(replace(FIGURE, draw=lambda data: Half()), "tiny", tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        make(replace(FIGURE, compute=lambda scale: {"dead": float("nan")}), TINY, tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        frame.merge([entry("figX", "tiny", ours=float("nan"))], "figX", "tiny", tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == files


def test_a_claim_holds_up_to_its_tolerance_and_no_further() -> None:
    assert near("f", "c", paper=0.5, ours=0.6, by=0.1).holds
    assert not near("f", "c", paper=0.5, ours=0.61, by=0.1).holds
    assert near("f", "c", paper=1.0, ours=1 - 1e-15, by=0).holds
    assert not near("f", "c", paper=1.0, ours=0.999999, by=0).holds
    assert at_most("f", "c", paper="low", ours=0.1, limit=0.1).holds
    assert not at_most("f", "c", paper="low", ours=0.1001, limit=0.1).holds
    assert at_least("f", "c", paper="high", ours=0.1, limit=0.1).holds
    assert not at_least("f", "c", paper="high", ours=float("nan"), limit=0.1).holds
    assert near("f", "c", paper=0.5, ours=0.6, by=0.1).tolerance == "within 0.1"
    assert near("f", "c", paper=1.0, ours=1.0, by=0).tolerance == "exactly"
    assert at_most("f", "c", paper="low", ours=0.1, limit=0.1).tolerance == "at most 0.1"


def test_the_table_has_a_row_per_claim() -> None:
    failed = entry("fig4a", "full", ours=[0.25, 1.0], holds=False, own=True, minutes=2.345)
    rows = [entry("fig3", "quick", "|a|"), failed]
    assert table.table(rows).splitlines() == [
        "| id | claim | paper | ours | tolerance | holds | own | draws | scale | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
        rf"| {rows[0]['id']} | \|a\| | 1 | 1 | exactly | yes |  | 2 | quick | 0.1 |",
        f"| {rows[1]['id']} | it holds | 1 | 0.25, 1 | exactly | NO | own | 2 | full | 2.3 |",
    ]


def test_the_table_goes_between_its_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    frame.merge([entry("fig3", "quick")], "fig3", "quick", tmp_path)
    for _ in range(2):
        table.write_table(tmp_path)
        assert readme.read_text().startswith(f"before\n{table.BEGIN}\n\nAt quick scale ")
        assert "\n\n| id |" in readme.read_text()
        assert readme.read_text().endswith(f"| 0.1 |\n\n{table.END}\nafter\n")
    readme.write_text("no markers")
    with pytest.raises(InputError, match="between which the table goes"):
        table.write_table(tmp_path)


def test_a_birth_figure_runs_from_the_command_line_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduce, "FIGURES", ("fig4a",))
    monkeypatch.setitem(frame.SCALES, "quick", replace(TINY, name="quick"))
    monkeypatch.setattr(sys, "argv", ["reproduce", "--out", str(tmp_path)])
    reproduce.main()
    assert re.match(r"fig4a: \d+\.\d+ min, ", capsys.readouterr().out)  # a busy machine takes longer
    assert (tmp_path / "figures" / "quick" / "fig4a.png").exists()
    table_rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| fig4a")]
    assert len(table_rows) == len(frame.read_claims(tmp_path)) > 0


def test_every_figure_in_the_list_is_a_module_of_its_name() -> None:
    modules = (fig1, fig3, fig4a, figS2, figS3, figS4, figS20)
    assert {module.FIGURE.name for module in modules} <= {*reproduce.FIGURES}
    assert [reproduce.figure(name).name for name in reproduce.FIGURES] == [*reproduce.FIGURES]


def test_single_latents_are_those_that_the_library_measured() -> None:
    setting, x = Setting(), draw_tokens(Setting(), 5.0, 2000, 3)
    pre = x @ encoder_rows(setting, 3).T
    top = pre.topk(setting.k, dim=1)
    fired = {*top.indices[top.values > 0].tolist()}
    never_positive = int((pre <= 0).all(dim=0).sum())
    assert birth(x, setting, 3) == pytest.approx((never_positive / 100, 1 - len(fired) / 100))
