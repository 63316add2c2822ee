"""What the docs show runs as it stands."""

import re
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parents[1]
PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(work: processes.Work, code: str | Path, folder: Path) -> str:
    done = processes.run(work, code, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[0])
def test_the_readmes_python_runs(tmp_path: Path, code: str) -> None:
    printed = run(processes.code, code, tmp_path)
    [written] = re.findall(r'save\("(\w+)"\)', code)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{written}.json", f"{written}.safetensors"]
    assert {"layer": "center by the median", "sae": "40 0."}[written] in printed


def test_the_python_of_the_training_page_runs_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    code, _ = training_page()
    said = "\nimport json\nlogged = open('records.jsonl').read().splitlines()\n"
    said += "print(len(logged), len(records), json.loads(logged[-1])['loss'] == records[-1].loss)"
    assert run(processes.code, code + said, tmp_path).strip() == "60 30 True"


def test_the_sweep_of_the_training_page_names_the_best(tmp_path: Path) -> None:
    _, code = training_page()
    printed = run(processes.code, code + "\nprint(best.name)", tmp_path).splitlines()
    assert [line.count(":") for line in printed[:-1]] == [4, 4, 4]
    assert printed[-1] == "median_0.003"


def test_the_python_of_the_interop_page_writes_and_reads_the_same_sae(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "interop.md").read_text(), flags=re.DOTALL)
    difference, dead = map(float, run(processes.code, code, tmp_path).split())
    assert difference < 1e-6
    assert 0 <= dead < 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["for_saelens"]


def training_page() -> list[str]:
    page = (ROOT / "docs" / "training.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs_and_prints(tmp_path: Path, example: Path) -> None:
    assert run(processes.file, example, tmp_path).strip()


def test_there_is_something_to_run() -> None:
    assert PYTHON
    assert EXAMPLES


def test_links_between_the_docs_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
