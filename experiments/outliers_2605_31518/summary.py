"""What was found on our own layers, in words: the part of the README that is written from the kept results."""

import json
from typing import Any

from experiments.outliers_2605_31518.centering import FEW, exceptions, worsened_rows
from experiments.outliers_2605_31518.frame import HERE
from experiments.outliers_2605_31518.own import LOW_RANK, own_layers
from experiments.outliers_2605_31518.ranks import least_of
from experiments.outliers_2605_31518.released import Row, by_model
from experiments.outliers_2605_31518.table import write_between
from experiments.outliers_2605_31518.tableS7 import mean_fails
from experiments.outliers_2605_31518.verdicts import agrees, differences

BEGIN, END = "<!-- our layers: written by summary.py -->", "<!-- end of our layers -->"
Results = dict[str, Any]


def write_summary() -> None:
    """Put the text between its markers of the README."""
    write_between(HERE / "README.md", BEGIN, END, text())


def text() -> str:
    """A table with a row per network, and a paragraph for each question."""
    parts = [_networks(), _ranks(_data("fig4b")), _centering(_data("centering")), _means(_data("tableS7"))]
    return "\n\n".join([*parts, _robust(_data("tableS7")), _verdicts(_data("verdicts"))])


def _data(name: str) -> Results:
    path = HERE / "results" / "real" / f"{name}.json"
    data: Results = json.loads(path.read_text(encoding="utf-8"))["data"]
    return data


def _networks() -> str:
    head = (
        "| network | modality | layers | tokens | gamma | least rank, % of d_in | most dead: no remedy | median | "
    )
    lines = [head + "whitening |", "|" + "---|" * 9]
    for model, rows in by_model(own_layers()).items():
        gammas = [row["gamma"] for row in rows]
        most = " | ".join(f"{max(row[name] for row in rows):.1%}" for name in ("dead", "centered", "whitened"))
        lines.append(
            f"| {model} | {rows[0]['modality']} | {len(rows)} | {rows[0]['tokens']:,} | {min(gammas):.2f} to "
            f"{max(gammas):.2f} | {100 * min(row['rank'] for row in rows):.1f} | {most} |"
        )
    return "\n".join(lines)


def _ranks(data: Results) -> str:
    said = []
    for pathway, name in (("dead", "dead-by-TopK"), ("relu", "dead-by-ReLU")):
        ours, theirs = data["own_correlations"][pathway], data["correlations"][pathway]
        spans = [_span(ours[f"interval_over_{of}"]) for of in ("layers", "models")]
        said.append(
            f"with {name} it is {ours['layers']:.2f} (95 % interval over layers {spans[0]}, over networks "
            f"{spans[1]}; the authors' layers: {theirs['layers']:.2f})"
        )
    worst, least, _ = least_of(data["own_correlations"]["dead"]["models"])
    return (
        f"**Spearman's correlation of gamma** over our {len(data['own'])} layers: {said[0]}, {said[1]}. Within a "
        f"network the least with dead-by-TopK is {least:.2f} ({worst})."
    )


def _centering(data: Results) -> str:
    rows = data["rows"]
    high, odd = [row for row in rows if row["rank"] > LOW_RANK], exceptions(rows)
    worse = worsened_rows(rows)
    low = [row for row in rows if row["rank"] <= LOW_RANK]
    named = _list(odd, lambda row: f"{row['expected']['median']:.1%} dead, dominance {row['dominance']:.0%}")
    whitened, lowest = (max(row["counted"]["whiten"] for row in some) for some in (rows, low))
    return (
        f"**Centering by the geometric median:** on {len(high) - len(odd)} of {len(high)} layers with an effective "
        f"rank over 4 %, under {FEW:.0%} is expected dead on a million tokens. Exceptions: {named}. On "
        f"{len(worse)} of all {len(rows)} layers more is expected dead than without a remedy. After full whitening "
        f"at most {whitened:.1%} is dead on any layer, and {lowest:.1%} on the {len(low)} of lower rank."
    )


def _means(data: Results) -> str:
    failures = [row for row in data["rows"] if mean_fails(row)]
    worse = [row for row in failures if row["mean"] > row["none"]]
    named = _list(failures, lambda row: f"{row['mean']:.0%}; median {row['median']:.0%}, nothing {row['none']:.0%}")
    return (
        f"**The arithmetic mean fails** on {len(failures)} of {len(data['rows'])} layers, and on {len(worse)} of "
        f"them it leaves more dead than no centering: {named}."
    )


def _robust(data: Results) -> str:
    rows = data["rows"]
    off = {name: max(rows, key=lambda row: abs(row[name] - row["median"])) for name in ("trimmed", "coordinates")}
    said = [
        f"the {label} differs by at most {100 * abs(off[name][name] - off[name]['median']):.1f} points "
        f"({off[name]['model']} {off[name]['point']})"
        for name, label in (("trimmed", "trimmed mean"), ("coordinates", "coordinate-wise median"))
    ]
    return f"**Robust centres** leave about as many dead as the geometric median: {said[0]}, {said[1]}."


def _verdicts(data: Results) -> str:
    rows = data["rows"]
    other = [row for row in rows if not agrees(row)]
    named = "; ".join(differences(row) for row in other)
    return (
        f"**The verdict from a sample** of 4,096 tokens is the one with counts on {len(rows) - len(other)} of "
        f"{len(rows)} layers; the prescription is the same on all, because it rests on the sample in both cases."
        + (f" Findings that differ: {named}." if other else "")
    )


def _list(rows: list[Row], said: Any) -> str:
    return ", ".join(f"{row['model']} {row['point']} ({said(row)})" for row in rows) or "none"


def _span(interval: list[float]) -> str:
    return "[" + ", ".join(f"{end:.2f}" for end in interval) + "]"
