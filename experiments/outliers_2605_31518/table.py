"""The claims of results/claims.json as a table in the README: `python -m experiments.outliers_2605_31518.table`."""

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
    for scale in dict.fromkeys(entry["scale"] for entry in entries):
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
    readme = out / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"{readme}: expected the lines {BEGIN!r} and {END!r}, between which the table goes")
    entries = read_claims(out)
    write_text(readme, f"{before}{BEGIN}\n\n{counts(entries)}\n\n{table(entries)}\n\n{END}{after}")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_cell(one) for one in value)
    # A bar would end the cell.
    return f"{value:g}" if isinstance(value, (int, float)) else str(value).replace("|", r"\|")


if __name__ == "__main__":
    write_table()
