"""What docs/features.md shows runs as it stands."""

import re
from pathlib import Path

from tests import processes

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


def test_the_python_of_the_page_finds_the_planted_concept(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    done = processes.run(processes.code, code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 of 1 concepts are covered")
    assert "Example(token=" in done.stdout
