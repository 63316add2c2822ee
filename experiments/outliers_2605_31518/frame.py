"""The frame of every figure here: measure, write the data, draw from the data, judge the claims from the data.

A figure is a module with three functions and a `Reproduction` that names them:

    compute(scale) -> data      everything that takes time; what it returns is written as JSON
    draw(data) -> Figure        from the JSON alone, so that a figure is redrawn without measuring again
    claims(data) -> [Claim]     from the JSON alone: what the paper says beside what was measured

`main` runs one as `python -m experiments.outliers_2605_31518.NAME --scale quick|full [--out DIR] [--redraw]`.
It writes results/SCALE/NAME.json, figures/SCALE/NAME.png and the figure's entries of results/claims.json.
"""

import argparse
import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopsae.files import write_text, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
Value = float | str | list[float]
Data = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    name: str
    tokens: int
    """Tokens on which death is measured; the paper's 100,000 at full scale."""
    draws: int
    """Draws of data and encoder rows that are averaged."""


SCALES = {
    "quick": Scale(name="quick", tokens=20_000, draws=10),
    "full": Scale(name="full", tokens=100_000, draws=20),
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper beside what was measured. Made by `near`, `at_most`, `at_least`: whether it holds
    follows from the numbers and the tolerance.
    """

    figure: str
    claim: str
    paper: Value
    """What the paper says; "-" where its text has no number."""
    ours: Value
    tolerance: str
    holds: bool


def near(figure: str, claim: str, *, paper: float, ours: float, by: float) -> Claim:
    """`ours` differs from the paper's number by `by` at most; exactly equal for 0."""
    return _claim(
        figure, claim, paper, ours, f"within {by:g}" if by else "exactly", abs(ours - paper) <= by + 1e-12
    )


def at_most(figure: str, claim: str, *, paper: Value, ours: float, limit: float) -> Claim:
    """`ours` is `limit` at most."""
    return _claim(figure, claim, paper, ours, f"at most {limit:.3g}", ours <= limit)


def at_least(figure: str, claim: str, *, paper: Value, ours: float, limit: float) -> Claim:
    """`ours` is `limit` at least."""
    return _claim(figure, claim, paper, ours, f"at least {limit:.3g}", ours >= limit)


def _claim(figure: str, claim: str, paper: Value, ours: float, tolerance: str, holds: bool) -> Claim:
    # Rounded to be read; whether it holds was decided before.
    return Claim(
        figure=figure, claim=claim, paper=paper, ours=float(f"{ours:.4g}"), tolerance=tolerance, holds=bool(holds)
    )


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One figure or table of the paper. name: of its module and files, as "fig4a"."""

    name: str
    compute: Callable[[Scale], Data]
    draw: Callable[[Data], "Figure"]
    claims: Callable[[Data], Sequence[Claim]]


def make(figure: Reproduction, scale: Scale, out: Path = HERE) -> list[dict[str, Any]]:
    """Measure, write the data, then as `redraw`; returns the entries of the claims file."""
    start = time.perf_counter()
    data = figure.compute(scale)
    minutes = round((time.perf_counter() - start) / 60, 2)
    content = {"figure": figure.name, "scale": asdict(scale), "minutes": minutes, "data": data}
    write_text(_results(figure.name, scale.name, out), json.dumps(content, indent=1, allow_nan=False) + "\n")
    return redraw(figure, scale.name, out)


def redraw(figure: Reproduction, scale: str, out: Path = HERE) -> list[dict[str, Any]]:
    """Draw and judge again what lies in results/SCALE/NAME.json; returns the entries of the claims file."""
    content = json.loads(_results(figure.name, scale, out).read_text(encoding="utf-8"))
    picture = figure.draw(content["data"])
    path = out / "figures" / scale / f"{figure.name}.png"
    # Without the version of matplotlib, so that the same data give the same bytes.
    meta = {"Software": None}
    write_whole(path, lambda temporary: picture.savefig(temporary, format="png", dpi=150, metadata=meta))
    judged = figure.claims(content["data"])
    entries = [{**asdict(claim), "scale": scale, "minutes": content["minutes"]} for claim in judged]
    merge(entries, figure.name, scale, out)
    return entries


def merge(entries: list[dict[str, Any]], figure: str, scale: str, out: Path = HERE) -> None:
    """Put a figure's entries of one scale in the place of its earlier ones in results/claims.json."""
    path = claims_file(out)
    with _locked(path.parent):
        others = [entry for entry in read_claims(out) if (entry["figure"], entry["scale"]) != (figure, scale)]
        ordered = sorted([*others, *entries], key=lambda entry: _natural(f"{entry['figure']} {entry['scale']}"))
        write_text(path, json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_claims(out: Path = HERE) -> list[dict[str, Any]]:
    """The claims of all figures that have been made so far."""
    path = claims_file(out)
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return entries


def claims_file(out: Path) -> Path:
    """results/claims.json."""
    return out / "results" / "claims.json"


def said(entries: Sequence[dict[str, Any]]) -> str:
    """One line on a figure that was made."""
    failed = [entry["claim"] for entry in entries if not entry["holds"]]
    if not entries:
        return "no claims"
    held = f"{len(entries) - len(failed)} of {len(entries)} claims hold"
    return f"{entries[0]['minutes']:.2f} min, {held}" + "".join(f"; NOT: {claim}" for claim in failed)


def main(figure: Reproduction) -> None:
    """The command line of one figure."""
    parser = argparse.ArgumentParser(description=f"{figure.name} of arXiv:2605.31518; see the README beside it.")
    add_arguments(parser)
    parser.add_argument("--redraw", action="store_true", help="draw and judge the data that lie there")
    asked = parser.parse_args()
    if asked.redraw:
        entries = redraw(figure, asked.scale, asked.out)
    else:
        entries = make(figure, SCALES[asked.scale], asked.out)
    print(f"{figure.name}: {said(entries)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--scale and --out."""
    parser.add_argument("--scale", choices=list(SCALES), default="quick")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results/ and figures/")


def _results(name: str, scale: str, out: Path) -> Path:
    return out / "results" / scale / f"{name}.json"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Figures may be made by several processes at once; only one at a time reads and replaces the claims."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _natural(text: str) -> list[tuple[int, str]]:
    """fig3 before fig4a before figS2 before figS20."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
