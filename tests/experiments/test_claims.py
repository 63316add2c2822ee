"""The rows of claims.json: their ids are stable, none disappears, and they are judged again without measuring."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from experiments.outliers_2605_31518 import frame, rejudge, reproduce, table
from experiments.outliers_2605_31518.frame import HERE, at_least, at_most, covers, identity, near

from autopsae.arrays import InputError

IDS = Path(__file__).parent / "claims.txt"
"""A line for each synthetic claim when the rows were given their ids: the id, and whose claim it is."""


def test_an_id_comes_from_the_figure_and_the_words_and_not_from_the_numbers() -> None:
    one = near("fig1", "half die", paper=0.5, ours=0.4, by=0.1)
    assert one.id == near("fig1", "half die", paper=0.5, ours=0.1, by=0.2).id == identity("fig1", "half die")
    assert re.fullmatch("fig1-[0-9a-f]{8}", one.id)
    assert one.id != near("fig3", "half die", paper=0.5, ours=0.4, by=0.1).id
    assert one.id != near("fig1", "all die", paper=0.5, ours=0.4, by=0.1).id


def test_a_claim_that_quotes_a_measured_number_takes_its_id_from_its_key() -> None:
    early, late = (
        at_most("fig5b", f"share at step {step}", paper=0.5, ours=0.4, limit=0.5, key="share at a step")
        for step in (10, 20)
    )
    assert early.id == late.id == identity("fig5b", "share at a step")
    assert early.claim != late.claim


def test_a_claim_without_a_value_of_the_paper_is_our_own_and_any_claim_can_be() -> None:
    assert at_least("f", "c", paper="-", ours=1.0, limit=0.5).own
    assert not at_least("f", "c", paper="high", ours=1.0, limit=0.5).own
    assert at_least("f", "c", paper="high", ours=1.0, limit=0.5, own=True).own


def test_an_interval_covers_the_papers_number_up_to_its_ends_and_no_further() -> None:
    inside = covers("f", "c", paper=0.6, ours=0.7, interval=(0.6, 0.8))
    assert (inside.holds, inside.tolerance) == (True, "paper in [0.600, 0.800]")
    assert covers("f", "c", paper=0.8, ours=0.7, interval=(0.6, 0.8)).holds
    assert not covers("f", "c", paper=0.599, ours=0.7, interval=(0.6, 0.8)).holds
    assert not covers("f", "c", paper=0.801, ours=0.7, interval=(0.6, 0.8)).holds


@pytest.mark.parametrize("scale", frame.SYNTHETIC)
def test_no_claim_disappears_from_the_count(scale: str) -> None:
    rows = [entry for entry in frame.read_claims() if entry["scale"] == scale]
    now = {entry["id"]: "own" if entry["own"] else "paper" for entry in rows}
    assert len(now) == len(rows)
    first = dict(line.split() for line in IDS.read_text().splitlines())
    assert len(first) == 114
    assert sum(of == "paper" for of in first.values()) == 96
    assert {id: now.get(id) for id in first} == first


def test_the_counts_keep_the_papers_claims_apart_from_our_own() -> None:
    def row(*, own: bool, holds: bool) -> dict[str, object]:
        return {"own": own, "holds": holds, "scale": "quick"}

    rows = [row(own=False, holds=True), row(own=False, holds=False), row(own=True, holds=True)]
    assert table.counts(rows).startswith("At quick scale 1 of the paper's 2 claims hold, and 1 of 1 expectations")


def test_the_kept_rows_are_what_the_kept_results_are_judged_to_be() -> None:
    copied = ("fig4a", "figS2", "figS10", "figS17")
    for name in copied:
        for scale in frame.SYNTHETIC:
            content = json.loads((HERE / "results" / scale / f"{name}.json").read_text())
            kept = [entry for entry in frame.read_claims() if (entry["figure"], entry["scale"]) == (name, scale)]
            assert frame.judge(reproduce.figure(name), content) == kept


def test_judging_again_refuses_to_change_what_a_row_says(tmp_path: Path) -> None:
    (tmp_path / "results" / "quick").mkdir(parents=True)
    shutil.copy(HERE / "results" / "quick" / "fig4a.json", tmp_path / "results" / "quick")
    rows = [entry for entry in frame.read_claims() if (entry["figure"], entry["scale"]) == ("fig4a", "quick")]
    old = [{key: entry[key] for key in rejudge.KEPT} for entry in rows]
    frame.claims_file(tmp_path).write_text(json.dumps(old))
    assert rejudge.rejudge(tmp_path) == len(rows)
    assert frame.read_claims(tmp_path) == rows
    changed = [rows[0] | {"ours": 0.123}, *rows[1:]]
    frame.claims_file(tmp_path).write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"fig4a at scale quick: expected the kept row 'Spearman.* with the same"):
        rejudge.rejudge(tmp_path)
    assert frame.read_claims(tmp_path) == changed


def test_the_draws_are_those_of_the_data_unless_the_claim_has_its_own() -> None:
    def claims(data: frame.Data) -> list[frame.Claim]:
        return [at_most("f", "a", paper=0.0, ours=0.0, limit=1.0, draws=5), near("f", "b", paper=0, ours=0, by=0)]

    figure = frame.Reproduction(name="f", compute=lambda scale: {}, draw=lambda data: None, claims=claims)  # type: ignore[arg-type,return-value]
    content = {"scale": asdict(frame.SCALES["quick"]), "minutes": 0.0, "data": {"draws": 3}}
    assert [entry["draws"] for entry in frame.judge(figure, content)] == [5, 3]
    assert [entry["draws"] for entry in frame.judge(figure, content | {"data": {}})] == [5, 1]
