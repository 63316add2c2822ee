"""The house's own laws: imports point one way, importing is light, a module is small, a name says what it names."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import autopsae

pytestmark = pytest.mark.quick

HOUSE = Path(autopsae.__file__).parent
TESTS = Path(__file__).parent
# In the order of the data's way; a room imports only itself and rooms named before it.
ROOMS = [
    "words",
    "lazy",
    "progress",
    "modules",
    "defaults",
    "version",
    "ambient",
    "threads",
    "transfers",
    "arrays",
    "arguments",
    "vectors",
    "extras",
    "seeds",
    "passes",
    "urls",
    "reading",
    "pickles",
    "memory",
    "costs",
    "disk",
    "mirror",
    "provenance",
]
ROOMS += [
    "pipes",
    "files",
    "tables",
    "kinds",
    "saved",
    "kernels",
    "statistics",
    "remedies",
    "activations",
    "models",
    "sae",
    "survival",
]
ROOMS += ["training", "diagnosis", "evaluation", "features", "interop", "cure", "run", "trial", "cluster"]
ROOMS += ["report", "hub", "cli", "__main__"]
MODULES = sorted(path for path in HOUSE.rglob("*.py") if path != HOUSE / "__init__.py")


# The one import against the order: `.plot()` of a result looks up who draws it when it is called.
UPWARD = ("tables.py", "autopsae.report.figures")


def room(dotted: str) -> str:
    return dotted.split(".")[1]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_only_rooms_before_it(module: Path) -> None:
    own = module.relative_to(HOUSE).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(module.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: relative import"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("autopsae."):
            if (str(module.relative_to(HOUSE)), node.module) == UPWARD:
                continue
            assert ROOMS.index(room(node.module)) <= ROOMS.index(own), f"{module} imports {node.module}"


def test_statistics_need_no_activations() -> None:
    imported = [
        node.module
        for path in (HOUSE / "statistics").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    assert imported
    assert not any(name and name.startswith("autopsae.activations") for name in imported)


def test_every_room_is_in_the_list() -> None:
    found = {path.relative_to(HOUSE).parts[0].removesuffix(".py") for path in MODULES}
    assert found == set(ROOMS)


def test_importing_autopsae_imports_nothing_heavy() -> None:
    heavy = {
        "torch",
        "numpy",
        "matplotlib",
        "transformers",
        "pandas",
        "scipy",
        "sklearn",
        "tyro",
        "rich",
        "ray",
        "numba",
    }
    heavy |= {"tensorboard", "wandb", "huggingface_hub", "sae_lens", "sparsify", "dictionary_learning"}
    code = "import sys, autopsae; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_a_room_is_an_attribute_with_what_is_in_it() -> None:
    code = "import autopsae; print(autopsae.evaluation.reconstruction.evaluate is autopsae.evaluate)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        autopsae.nothing  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_module_can_be_read_in_one_sitting(module: Path) -> None:
    tree = ast.parse(module.read_text())
    assert len(module.read_text().splitlines()) <= 280
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert (node.end_lineno or 0) - first.lineno < 45, f"{module}: {node.name} is long"


# A function is named by a verb, and by is_ or has_ where it says yes or no: a participle hides what is done.
PARTICIPLES = {"begun", "born", "chosen", "drawn", "given", "grown", "held", "hidden", "kept", "known", "left"}
PARTICIPLES |= {"lost", "made", "seen", "sent", "shown", "taken", "told", "woken", "written"}
NOUNS = {"anything", "firing", "mapping", "nothing", "recentring", "resampling", "string", "training"}
"""First words that end in -ing and are nouns."""
NAMED_FOR_WHAT_THEY_GIVE = {
    "_born_dead",
    "_closed_form",
    "_dragged_mean",
    "hidden_state",
    "_remaining_mean",
    "_repeated_tokens",
    "born",  # the word of all docs for an SAE before its first step
    "embedding_rows",
    "hidden_state_names",
    "hooked",
    "known_digest",
    "known_tokens",
    "made_for",
    "predicted_dead",
    "predicted_dead_by_relu",
    "untouched",
}


def functions_named_by_a_participle(source: str) -> set[str]:
    named = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not any("property" in ast.unparse(d) for d in node.decorator_list):
            first = node.name.strip("_").split("_")[0]
            if first in PARTICIPLES or (re.search(r"[^e]ed$|ing$", first) and first not in NOUNS):
                named.add(node.name)
    return named


def variables(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names | {node.arg for node in nodes if isinstance(node, ast.arg)}


def test_no_function_is_named_by_a_participle() -> None:
    named = {name for module in MODULES for name in functions_named_by_a_participle(module.read_text())}
    assert named == NAMED_FOR_WHAT_THEY_GIVE


def test_a_participle_is_told_from_a_verb_and_a_property() -> None:
    bad = "def _checked(): ...\ndef shown_to(): ...\nclass A:\n    def missing(self): ..."
    assert functions_named_by_a_participle(bad) == {"_checked", "shown_to", "missing"}
    good = "def need(): ...\ndef is_checked(): ...\n@property\ndef settled(): ...\ndef training_tokens(): ..."
    assert functions_named_by_a_participle(good) == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_variable_says_what_it_holds(module: Path) -> None:
    assert "found" not in variables(module.read_text())


# The tiers of tests: `make quick`, `make test`, `make check`.

OF_PYTEST = {"filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail"}


def recipe(target: str) -> str:
    [lines] = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (TESTS.parent / "Makefile").read_text(), re.MULTILINE)
    return str(lines)


def markers_of(module: Path) -> set[str]:
    return set(re.findall(r"pytest\.mark\.(\w+)", module.read_text()))


def test_shapes_are_told_of_arrays_by_their_class() -> None:
    """From NumPy 2.5 on, NDArray[...] is an alias that jaxtyping cannot read: nothing could be imported."""
    told = re.compile(r"\b(?:Float|Int|UInt|Bool|Shaped|Num|Real)\d*\[\s*NDArray\b")
    places = [TESTS.parent / name for name in ("src", "tests", "benchmarks", "experiments")]
    code = {path: path.read_text() for place in places for path in place.rglob("*.py")}
    assert len(code) > len(MODULES)
    assert [str(path) for path, text in code.items() if told.search(text)] == []


def test_every_marker_of_a_test_is_known() -> None:
    settings = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    known = {line.split(":")[0] for line in settings["markers"]}
    for module in TESTS.rglob("*.py"):
        assert markers_of(module) <= known | OF_PYTEST, module


def test_what_make_test_leaves_out_is_run_by_make_check() -> None:
    assert recipe("test").strip() == '$(PYTEST) -m "not long"'
    assert recipe("check").splitlines()[0].strip() == "$(PYTEST) -m long"


def test_the_quick_tests_touch_every_room() -> None:
    quick = [module for module in TESTS.rglob("test_*.py") if "quick" in markers_of(module)]
    touched = {
        room(name)
        for module in quick
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom)
        for name in [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        if name.startswith("autopsae.")
    }
    assert set(ROOMS) - {"__main__"} <= touched
