"""The frame of every figure here: measure, write the data, draw from the data, judge the claims from the data.

A figure is a module with three functions and a `Reproduction` that names them:

    compute(scale) -> data      everything that takes time; what it returns is written as JSON
    draw(data) -> Figure        from the JSON alone, so that a figure is redrawn without measuring again
    claims(data) -> [Claim]     from the JSON alone: what the paper says beside what was measured

`main` runs one as `python -m experiments.outliers_2605_31518.NAME --scale quick|full [--out DIR] [--redraw]`; a
figure of the paper's real half has the scale `real` alone.
It writes results/SCALE/NAME.json, figures/SCALE/NAME.png and the figure's entries of results/claims.json.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

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
    "real": Scale(name="real", tokens=100_000, draws=1),
}
SYNTHETIC, REAL = ("quick", "full"), ("real",)
"""The scales of the paper's synthetic half, which is measured, and of its real half, which is read from tables."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper beside what was measured. Made by `near`, `between`, `at_most`, `at_least` or
    `covers`: whether it holds follows from the numbers and the tolerance.
    """

    id: str
    """The same at every scale and after every new measurement: from the figure and the claim's words."""
    figure: str
    claim: str
    paper: Value
    """What the paper says; "-" where its text has no number."""
    ours: Value
    tolerance: str
    holds: bool
    own: bool
    """True for a question of this project, which the paper does not answer."""
    draws: int | None = None
    """Draws of data and encoder rows behind `ours`; None stands for those of the whole figure."""


class More(TypedDict, total=False):
    """What any claim may be told besides."""

    key: str
    """The claim's words without what was measured, where the claim quotes such a number; the id comes from it."""
    own: bool
    draws: int


def near(figure: str, claim: str, *, paper: float, ours: float, by: float, **more: Unpack[More]) -> Claim:
    """`ours` differs from the paper's number by `by` at most; exactly equal for 0."""
    holds = abs(ours - paper) <= by + 1e-12
    return _claim(figure, claim, paper, ours, f"within {by:g}" if by else "exactly", holds, more)


def at_most(figure: str, claim: str, *, paper: Value, ours: float, limit: float, **more: Unpack[More]) -> Claim:
    """`ours` is `limit` at most."""
    return _claim(figure, claim, paper, ours, f"at most {limit:.3g}", ours <= limit, more)


def at_least(figure: str, claim: str, *, paper: Value, ours: float, limit: float, **more: Unpack[More]) -> Claim:
    """`ours` is `limit` at least."""
    return _claim(figure, claim, paper, ours, f"at least {limit:.3g}", ours >= limit, more)


def between(figure: str, claim: str, *, paper: list[float], ours: float, by: float, **more: Unpack[More]) -> Claim:
    """`ours` is in the paper's range, or outside it by `by` at most."""
    low, high = paper[0] - by, paper[1] + by
    tolerance = f"in [{low:g}, {high:g}]"
    return _claim(figure, claim, paper, ours, tolerance, low - 1e-12 <= ours <= high + 1e-12, more)


def covers(
    figure: str, claim: str, *, paper: float, ours: float, interval: tuple[float, float], **more: Unpack[More]
) -> Claim:
    """The interval around `ours` contains the paper's number."""
    low, high = interval
    return _claim(figure, claim, paper, ours, f"paper in [{low:.3f}, {high:.3f}]", low <= paper <= high, more)


def identity(figure: str, words: str) -> str:
    """The id of a claim: the figure, and eight hexadecimal digits of the words' SHA-256."""
    return f"{figure}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def _claim(figure: str, claim: str, paper: Value, ours: float, tolerance: str, holds: bool, more: More) -> Claim:
    # Rounded to be read; whether it holds was decided before.
    return Claim(
        id=identity(figure, more.get("key", claim)),
        figure=figure,
        claim=claim,
        paper=paper,
        ours=float(f"{ours:.4g}"),
        tolerance=tolerance,
        holds=bool(holds),
        own=more.get("own", paper == "-"),
        draws=more.get("draws"),
    )


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One figure or table of the paper. name: of its module and files, as "fig4a"."""

    name: str
    compute: Callable[[Scale], Data]
    draw: Callable[[Data], "Figure"]
    claims: Callable[[Data], Sequence[Claim]]
    scales: tuple[str, ...] = SYNTHETIC
    inputs: tuple[Path, ...] = ()
    """Tables that `compute` reads; an absent one counts as empty. `resume` computes again when one has changed."""


def make(figure: Reproduction, scale: Scale, out: Path = HERE) -> list[dict[str, Any]]:
    """Measure, write the data, then as `redraw`; returns the entries of the claims file."""
    start = time.perf_counter()
    # Before `compute`: a table that changes meanwhile is read again the next time.
    inputs = _digests(figure)
    data = figure.compute(scale)
    minutes = round((time.perf_counter() - start) / 60, 2)
    content = {"figure": figure.name, "scale": asdict(scale), "minutes": minutes, **inputs, "data": data}
    write_text(_results(figure.name, scale.name, out), json.dumps(content, indent=1, allow_nan=False) + "\n")
    return redraw(figure, scale.name, out)


def resume(figure: Reproduction, scale: Scale, out: Path = HERE) -> list[dict[str, Any]]:
    """As `redraw` where the figure was made from the inputs as they are now, else as `make`."""
    path = _results(figure.name, scale.name, out)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"scale": None}
    same = kept["scale"] == asdict(scale) and kept.get("inputs", {}) == _digests(figure).get("inputs", {})
    return redraw(figure, scale.name, out) if same else make(figure, scale, out)


def redraw(figure: Reproduction, scale: str, out: Path = HERE) -> list[dict[str, Any]]:
    """Draw and judge again what lies in results/SCALE/NAME.json; returns the entries of the claims file."""
    content = json.loads(_results(figure.name, scale, out).read_text(encoding="utf-8"))
    picture = figure.draw(content["data"])
    path = out / "figures" / scale / f"{figure.name}.png"
    # Without the version of matplotlib, so that the same data give the same bytes.
    meta = {"Software": None}
    write_whole(path, lambda temporary: picture.savefig(temporary, format="png", dpi=150, metadata=meta))
    entries = judge(figure, content)
    merge(entries, figure.name, scale, out)
    return entries


def judge(figure: Reproduction, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of the claims file for what lies in results/SCALE/NAME.json; one draw if its data name none."""
    judged, draws = figure.claims(content["data"]), content["data"].get("draws", 1)
    rest = {"scale": content["scale"]["name"], "minutes": content["minutes"]}
    return [asdict(claim) | {"draws": claim.draws or draws} | rest for claim in judged]


def merge(entries: list[dict[str, Any]], figure: str, scale: str, out: Path = HERE) -> None:
    """Put a figure's entries of one scale in the place of its earlier ones in results/claims.json."""
    path = claims_file(out)
    with locked(path.parent):
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
    add_arguments(parser, figure.scales)
    parser.add_argument("--redraw", action="store_true", help="draw and judge the data that lie there")
    asked = parser.parse_args()
    if asked.redraw:
        entries = redraw(figure, asked.scale, asked.out)
    else:
        entries = make(figure, SCALES[asked.scale], asked.out)
    print(f"{figure.name}: {said(entries)}")


def add_arguments(parser: argparse.ArgumentParser, scales: Sequence[str]) -> None:
    """--scale, by default the first, and --out."""
    parser.add_argument("--scale", choices=scales, default=scales[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results/ and figures/")


def _results(name: str, scale: str, out: Path) -> Path:
    return out / "results" / scale / f"{name}.json"


def _digests(figure: Reproduction) -> dict[str, dict[str, str]]:
    """SHA-256 of the inputs by name, for the content of the results; nothing for a figure without inputs."""
    digests = {
        path.name: hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest() for path in figure.inputs
    }
    return {"inputs": digests} if digests else {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
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
