"""What docs/features.md shows runs as it stands, and its figures are those of the result files."""

import json
import re
from pathlib import Path

from experiments.features import table

from tests import processes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "features.md").read_text()


def test_the_python_of_the_page_finds_the_planted_concept(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    done = processes.run(processes.code, code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 of 1 concepts are covered")
    assert "Example(token=" in done.stdout


def test_the_table_of_the_page_is_that_of_the_results() -> None:
    assert table.table(table.read_rows()) in PAGE


def test_the_cost_on_the_page_is_that_of_the_benchmark() -> None:
    held = json.loads((ROOT / "benchmarks" / "results" / "features.json").read_text())
    said = " ".join(PAGE.split())
    assert (
        f"{held['tokens']:,} tokens, {held['d_sae']:,} latents at k {held['k']}, {held['concepts']} concepts"
        in said
    )
    assert f"{held['processor_seconds_per_million']:.0f} s of processor time for a million tokens" in said
    assert f"{held['counts_mib']} MiB for the counts and {held['labels_mib'] / 1024:.1f} GiB for the labels" in said
    assert f"On {held['dense_tokens']:,} tokens" in said
    assert f"{held['times_as_fast_as_dense']:.0f} times as fast as a dense loop" in said
