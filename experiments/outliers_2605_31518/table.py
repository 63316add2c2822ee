"""The claims of results/claims.json as a table in the README: `python -m experiments.outliers_2605_31518.table`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.outliers_2605_31518.frame import HERE, read_claims

from autopsae.arrays import InputError
from autopsae.files import write_text

BEGIN, END = "<!-- claims: written by table.py -->", "<!-- end of claims -->"


def table(entries: list[dict[str, Any]]) -> str:
    """A row per claim and scale."""
    lines = ["| id | claim | paper | ours | tolerance | holds | own | draws | scale | minutes |", "|" + "---|" * 10]
    for entry in entries:
        cells = [entry["id"], entry["claim"], entry["paper"], entry["ours"], entry["tolerance"]]
        cells += ["yes" if entry["holds"] else "NO", "own" if entry["own"] else "", entry["draws"]]
        cells += [entry["scale"], f"{entry['minutes']:.1f}"]
        lines.append(f"| {' | '.join(_cell(value) for value in cells)} |")
    return "\n".join(lines)


def counts(entries: list[dict[str, Any]]) -> str:
    """How many claims hold at each scale: those of the paper, and the questions that it does not answer."""
    lines = []
    for scale in sorted({entry["scale"] for entry in entries}):
        some = [entry for entry in entries if entry["scale"] == scale]
        paper = [entry["holds"] for entry in some if not entry["own"]]
        own = [entry["holds"] for entry in some if entry["own"]]
        lines.append(
            f"At {scale} scale {sum(paper)} of the paper's {len(paper)} claims hold, and {sum(own)} of {len(own)} "
            "expectations of this project where the paper has no statement (`own` below)."
        )
    return "\n".join(lines)


def write_table(out: Path = HERE) -> None:
    """Put the table between the markers of README.md in `out`, a new one where there is none.

    Raises InputError for a README without its markers.
    """
    entries = read_claims(out)
    write_between(out / "README.md", BEGIN, END, f"{counts(entries)}\n\n{table(entries)}")


def mean_and_range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The mean, and in brackets the lowest and the highest where they differ as shown; "" for none."""
    if not values:
        return ""
    mean, low, high = (shown(value) for value in (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def write_between(page: Path, begin: str, end: str, words: str) -> None:
    """Put words between two marked lines of a page, a new one where there is none.

    Raises InputError for a page without these lines.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else f"{begin}\n{end}\n"
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise InputError(f"{page}: expected the lines {begin!r} and {end!r}, between which the table goes")
    write_text(page, f"{before}{begin}\n\n{words}\n\n{end}{after}")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_cell(one) for one in value)
    # A bar would end the cell.
    return f"{value:g}" if isinstance(value, (int, float)) else str(value).replace("|", r"\|")


if __name__ == "__main__":
    write_table()
