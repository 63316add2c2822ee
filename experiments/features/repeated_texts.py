"""How many texts of each binary task of sae-probes repeat another one, so that a random split would leak them.

    python -m experiments.features.repeated_texts

Writes `results/repeated_texts.json` and prints how many tasks have such texts, and the largest share. Needs
`pip install --no-deps sae-probes==0.4.2`.
"""

import json
from pathlib import Path
from typing import Any

from autopsae.features import probe_task_names, read_probe_task
from autopsae.files import write_text

RESULTS = Path(__file__).parent / "results" / "repeated_texts.json"


def main() -> None:
    rows = list[dict[str, Any]]()
    for name in probe_task_names():
        task = read_probe_task(name)
        rows.append({"task": name, "texts": len(task.texts) + task.left_out, "left_out": task.left_out})
    write_text(RESULTS, json.dumps({"rows": rows}, indent=1) + "\n")
    shares = [row["left_out"] / row["texts"] for row in rows]
    print(f"{sum(share > 0 for share in shares)} of {len(rows)} tasks; the largest share {max(shares):.2f}")


if __name__ == "__main__":
    main()
