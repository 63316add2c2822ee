"""What the docs show runs as it stands."""

import re
from pathlib import Path

import pytest

from tests import processes
from tests.test_house import HOUSE, ROOMS

ROOT = Path(__file__).parents[1]
PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(work: processes.Work, words: list[str], folder: Path) -> str:
    done = processes.run(work, *words, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_python_diagnoses_trains_and_saves(tmp_path: Path) -> None:
    [code] = PYTHON
    *diagnosis, dead = run(processes.code, [code], tmp_path).splitlines()
    assert "center by the median" in diagnosis[0]
    assert 0 <= float(dead) < 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sae.json", "sae.safetensors"]


def test_the_python_of_the_training_page_runs_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    code = training_page()[0]
    said = "\nimport json\nlogged = open('records.jsonl').read().splitlines()\n"
    said += "print(len(logged), len(records), json.loads(logged[-1])['loss'] == records[-1].loss)"
    assert run(processes.code, [code + said], tmp_path).strip() == "60 30 True"


def test_the_sweep_of_the_training_page_names_the_best(tmp_path: Path) -> None:
    code = training_page()[1]
    printed = run(processes.code, [code + "\nprint(best.name)"], tmp_path).splitlines()
    assert [line.count(":") for line in printed[:-1]] == [4, 4, 4]
    assert printed[-1] == "median_0.003"


def test_nested_prefixes_on_the_training_page_leave_less_the_larger_they_are(tmp_path: Path) -> None:
    printed = run(processes.code, [training_page()[2]], tmp_path)
    left = [int(share) for share in re.findall(r"leave (\d+)%", printed)]
    assert len(left) == 3
    assert 100 > left[0] > left[1] >= left[2]


def test_the_published_settings_on_the_training_page_train(tmp_path: Path) -> None:
    printed = run(processes.code, [training_page()[3]], tmp_path)
    first, last = map(int, re.findall(r"(\d+) (?:latents fired|at the end)", printed))
    assert first > 0
    assert last > 0


def test_the_python_of_the_interop_page_writes_and_reads_the_same_sae(tmp_path: Path) -> None:
    code, flags = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "interop.md").read_text(), flags=re.DOTALL)
    assert run(processes.code, [flags], tmp_path).strip() == flags.strip().splitlines()[-1].removeprefix("# ")
    difference, dead = map(float, run(processes.code, [code], tmp_path).split())
    assert difference < 1e-6
    assert 0 <= dead < 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["for_saelens"]


def training_page() -> list[str]:
    page = (ROOT / "docs" / "training.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs_and_prints(tmp_path: Path, example: Path) -> None:
    assert run(processes.file, [str(example)], tmp_path).strip()


def test_there_is_something_to_run() -> None:
    assert PYTHON
    assert EXAMPLES


def test_the_page_on_the_house_names_all_rooms_in_their_order_and_all_their_modules() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    rooms = [re.findall(r"`(\w+)`", row[0])[0] for row in rows]
    assert rooms == [room for room in ROOMS if room != "__main__"]
    for room, row in zip(rooms, rows, strict=True):
        if len(row) == 3:
            entries = [path for path in (HOUSE / room).iterdir() if path.suffix == ".py" or path.is_dir()]
            there = {path.stem for path in entries if not path.stem.startswith("__")}
            assert there <= {*re.findall(r"`(\w+)`", row[2])}, room
