"""What is published says one version, and asks for versions that are tested."""

import re
import tomllib
from pathlib import Path

import pytest

import autopsae

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_lowest_versions_asked_for_are_those_that_are_tested() -> None:
    here = [requirement for requirement in PROJECT["dependencies"] if ";" not in requirement]
    bounds = dict(re.split(">=", requirement) for requirement in here)
    tested = pins("constraints-lowest.txt")
    assert tested.keys() == bounds.keys()
    assert {**tested, "torch": bounds["torch"]} == bounds  # older PyTorch pulls gigabytes of CUDA


def test_all_environments_have_the_same_pytorch() -> None:
    assert {pins(f"constraints{of}.txt")["torch"] for of in ("", "-lowest", "-newest")} == {"2.13.0"}


def test_the_version_is_the_same_wherever_it_is_told() -> None:
    version = PROJECT["version"]
    assert autopsae.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    first = re.search("^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert version in first[1].split()


def test_every_hook_of_a_commit_runs_a_tool_of_this_tree() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall("repo: (.*)", text) == ["local"]
    assert set(re.findall("language: (.*)", text)) == {"system", "pygrep"}
