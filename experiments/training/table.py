"""The results of remedies.py as a Markdown table: `python experiments/training/table.py RESULTS.json`."""

import json
import sys
from pathlib import Path
from typing import Any


def table(rows: list[dict[str, Any]]) -> str:
    """A row per run; dead latents on held-out tokens at birth and at the end."""
    lines = [
        "| remedy | AuxK | dead at birth | dead at the end | by ReLU | raw FVU | bias captured |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        birth, end = row["curve"][0], row["curve"][-1]
        lines.append(
            f"| {row['remedy']} | {'yes' if row['auxk'] else 'no'} | {birth['dead']:.1%} | {end['dead']:.1%} | "
            f"{end['relu']:.1%} | {end['fvu_raw']:.5f} | {end['bias_captured']:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())["rows"]))
