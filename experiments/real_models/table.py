"""Death at birth of a real model by layer, as a Markdown table, from the JSON that `autopsae diagnose` writes.

autopsae harvest gemma3 ACTS --tokens 24576
autopsae diagnose ACTS --json experiments/real_models/results/gemma3.json
python experiments/real_models/table.py experiments/real_models/results/gemma3.json
"""

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("none", "mean", "median", "zscore", "whiten")


def table(layers: list[dict[str, Any]]) -> str:
    """A row per layer; percentages of latents that never fire, counted and expected on more tokens."""
    at = f"{layers[0]['expected']['none']['tokens']:,}"
    head = "| layer | gamma | rank, of d_in | formula | none | mean | median | z-score | whitening | "
    head += f"none, on {at} | prescribed | expected on {at} |"
    lines = [head, "|" + "---|" * 12]
    for layer in layers:
        dead = " | ".join(f"{layer['birth'][name]['dead']:.1%}" for name in COLUMNS)
        remedy = layer["prescription"]["remedy"]
        none, cured = (layer["expected"][name]["dead"]["value"] for name in ("none", remedy))
        lines.append(
            f"| {layer['layer']} | {layer['gamma']:.2f} | {layer['effective_rank_fraction']:.1%} | "
            f"{layer['predicted']['dead']:.1%} | {dead} | {none:.1%} | {remedy} | {cured:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())["layers"]))
