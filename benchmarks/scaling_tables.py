"""The tables of docs/scaling.md, from results/scaling.json. Run as `python -m benchmarks.scaling_tables`."""

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import RESULTS

UNITS = {
    "float64": ("products in float64", 1e9, "GFLOP/s", "NumPy, x^T x, 4,096 x 640"),
    "float32": ("products in float32", 1e9, "GFLOP/s", "PyTorch, 1,024 x 640 x 8,192"),
    "bfloat16": ("products in bfloat16", 1e9, "GFLOP/s", "the same"),
    "streamed": ("memory, in order", 1e9, "GB/s", "a sum of two vectors of 268 MB"),
    "gathered": ("memory, rows here and there", 1e9, "GB/s", "embedding_bag, 48 of 12,288 rows of 640"),
    "updated": ("pairs of weights that Adam moves", 1e6, "M/s", "`kernels.adam` and rounding, 12,288 x 640"),
    "compared": ("scores that a choice goes through", 1e6, "M/s", "a choice among 8,192 latents of d_in 128"),
    "counted": ("numbers in a pass of statistics", 1e6, "M/s", "`collect` at d_in 320"),
    "stored": ("reading from disk", 1e9, "GB/s", "a plain file of 268 MB"),
    "sent": ("bytes to another process", 1e9, "GB/s", "gloo, an all-reduce of 8 MB"),
    "steps": ("steps with nothing to compute", 1, "/s", "d_in 16, d_sae 32, batch 32"),
}
"""{resource: (in words, unit, its name, what it was measured on)}."""


def read() -> Any:
    """The result file."""
    return json.loads((RESULTS / "scaling.json").read_text())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def rates_table(result: Any) -> str:
    """The rates, and what they were measured on."""
    rows = []
    for name, (words, unit, of, measured) in UNITS.items():
        rows.append([words, f"{result['rates'][name] / unit:,.3g} {of}", measured])
    return markdown(["resource", "in a second", "measured on"], rows)


def cases_table(result: Any) -> str:
    """Predicted and measured seconds of each case."""
    rows = []
    for row in result["rows"]:
        setting = ", ".join(f"{name} {_number(value)}" for name, value in row["setting"].items() if name != "bytes")
        seconds = [_milliseconds(row[name]) for name in ("predicted", "measured")]
        rows.append([row["of"], setting, *seconds, f"{row['predicted_of_measured']:.2f}"])
    return markdown(["what", "sizes", "predicted, ms", "measured, ms", "ratio"], rows)


def plans_table(result: Any) -> str:
    """What `--plan` says of a step on several devices."""
    rows = []
    for row in result["plans"]:
        setting = ", ".join(f"{name} {_number(value)}" for name, value in row["setting"].items())
        seconds = [_milliseconds(row[name]) for name in ("planned", "measured")]
        rows.append([setting, *seconds, f"{row['planned_of_measured']:.2f}"])
    return markdown(["sizes", "planned, ms", "measured, ms", "ratio"], rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def _number(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def ratios(result: Any, *of: str) -> list[float]:
    """Predicted by measured, of these kinds of cases or of all."""
    return [row["predicted_of_measured"] for row in result["rows"] if not of or row["of"] in of]


def worst(some: Sequence[float]) -> float:
    """The ratio that is furthest from 1, as the prediction is off in percent of what is measured."""
    return max(some, key=lambda ratio: abs(ratio - 1))


def main() -> None:
    result = read()
    print(*(make(result) for make in (rates_table, cases_table, plans_table)), sep="\n\n")
    print("worst", worst(ratios(result)), "over 30 %:", sum(abs(ratio - 1) > 0.3 for ratio in ratios(result)))


if __name__ == "__main__":
    main()
