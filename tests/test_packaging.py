"""What is published says one version, and asks for versions that are tested."""

import re
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


# What a package index shows.


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Any:
    """hatch_build.py, which only hatchling imports, without hatchling."""
    interface = SimpleNamespace(MetadataHookInterface=object)
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("repository", ["", "https://example.org/autopsae"])
def test_the_readme_on_an_index_has_no_relative_link_and_no_lost_word(index: Any, repository: str) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = index.readme_for_index(readme, repository)
    assert all("://" in target for _, _, target in index.LINK.findall(shown))
    assert shown.count("/raw/HEAD/docs/") == (3 if repository else 0)
    assert bool(re.search(r"!\[", shown)) == bool(repository)
    for heading in re.findall("^#.*$", readme, re.MULTILINE):
        assert heading in shown
    assert ("docs/glossary.md" in shown) or repository


def test_links_of_a_readme_one_by_one(index: Any) -> None:
    text = "a [b](docs/b.md#c) ![d](e.png) [f](https://g.h) [i](#j)"
    assert index.readme_for_index(text, "") == "a b  [f](https://g.h) i"
    assert index.readme_for_index(text, "https://x.y/z") == (
        "a [b](https://x.y/z/blob/HEAD/docs/b.md#c) ![d](https://x.y/z/raw/HEAD/e.png) [f](https://g.h) i"
    )


def test_the_addresses_follow_the_one_of_the_repository(index: Any) -> None:
    assert set(index.urls("")) == {"Paper"}
    told = index.urls("https://x.y/z")
    assert all(address.startswith("https://x.y/z") for name, address in told.items() if name != "Paper")


def test_the_extra_all_has_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    [told] = extras["all"]
    named = re.fullmatch(r"autopsae\[(.*)\]", told)
    assert named
    of_clusters = {"ray", "slurm", "stores"}  # large, or of use on a cluster alone
    assert {*named[1].split(",")} == extras.keys() - {"all", "dev", "docs"} - of_clusters


def test_every_extra_that_a_message_names_is_there() -> None:
    texts = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    named = {
        extra for text in texts for group in re.findall(r"autopsae\[([\w,]+)\]", text) for extra in group.split(",")
    }
    assert named
    assert named <= PROJECT["optional-dependencies"].keys()
