"""The public names and their signatures, frozen: what users call changes on purpose, or not at all.

After a change on purpose: python -m tests.test_public_api, which writes public_api.txt anew.
"""

import inspect
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import autopsae
from autopsae import version

pytestmark = pytest.mark.quick

SNAPSHOT = Path(__file__).with_name("public_api.txt")
RENEW = "if the change is on purpose: python -m tests.test_public_api, and a line in CHANGELOG.md"


def rooms() -> dict[str, ModuleType]:
    """The public namespaces, by name."""
    values = {name: getattr(autopsae, name) for name in autopsae.__all__}  # type: ignore[attr-defined]
    return {name: value for name, value in values.items() if isinstance(value, ModuleType)}


def top() -> list[str]:
    return [name for name in autopsae.__all__ if name not in rooms()]  # type: ignore[attr-defined]


def written() -> str:
    """Names of the top, then of every room with the signatures, a line each."""
    lines = [f"autopsae.{name}" for name in top()]
    for room, module in rooms().items():
        for name in module.__all__:
            lines += described(f"autopsae.{room}.{name}", getattr(module, name))
    return "\n".join([*lines, ""])


def described(name: str, value: Any) -> list[str]:
    """A function with its arguments; a class with those of its constructor, its methods and its properties."""
    if not inspect.isclass(value):
        return [f"{name}{signature(value)}"]
    lines = [f"class {name}{signature(value)}"]
    for owner in reversed([c for c in value.__mro__ if c.__module__.startswith("autopsae.")]):
        for member, attribute in sorted(vars(owner).items()):
            if member.startswith("_"):
                continue
            function = attribute.__func__ if isinstance(attribute, staticmethod | classmethod) else attribute
            if isinstance(function, property):
                lines.append(f"{name}.{member}")
            elif inspect.isfunction(function):
                lines.append(f"{name}.{member}{signature(function)}")
    return [lines[0], *dict.fromkeys(lines[1:])]


def signature(value: Any) -> str:
    """(tokens, *, k=64): names, kinds and defaults; types are for mypy."""
    try:
        found = inspect.signature(value)
    except ValueError:
        return "(...)"
    # Of a dataclass, so that a default made by a factory is seen too.
    made = {f.name for f in fields(value) if f.default_factory is not MISSING} if is_dataclass(value) else set()
    parameters = []
    for parameter in found.parameters.values():
        default: Any = inspect.Parameter.empty
        if parameter.default is not inspect.Parameter.empty:
            default = Text("made" if parameter.name in made else shown(parameter.default))
        parameters.append(parameter.replace(annotation=inspect.Parameter.empty, default=default))
    return str(inspect.Signature(parameters))


def shown(default: Any) -> str:
    """A default in a form that says nothing of this machine or of an address in memory."""
    return getattr(default, "__name__", "function") if callable(default) else repr(default)


class Text(str):
    """Written without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def test_public_names_and_signatures_are_those_of_the_snapshot() -> None:
    now, frozen = written().splitlines(), SNAPSHOT.read_text().splitlines()
    gone, new = sorted({*frozen} - {*now}), sorted({*now} - {*frozen})
    assert now == frozen, f"gone: {gone}, new: {new}; {RENEW}"


def test_at_most_thirty_names_are_at_the_top() -> None:
    assert len(top()) <= 30


def test_every_name_at_the_top_is_that_of_a_room() -> None:
    known = {id(getattr(module, name)) for module in rooms().values() for name in module.__all__}
    grounds = {"InputError", "Progress", "__version__"}
    assert {name for name in top() if id(getattr(autopsae, name)) not in known} == grounds


def test_every_public_name_says_what_it_is_for() -> None:
    for room, module in rooms().items():
        assert module.__doc__
        for name in module.__all__:
            assert inspect.getdoc(getattr(module, name)), f"autopsae.{room}.{name}"


def test_a_public_name_is_not_the_module_that_it_comes_from() -> None:
    for room, module in rooms().items():
        for name in module.__all__:
            if find_spec(f"autopsae.{room}.{name}"):
                import_module(f"autopsae.{room}.{name}")
                assert callable(getattr(module, name)), f"autopsae.{room}.{name}"


def test_the_version_is_that_of_the_installed_package() -> None:
    assert autopsae.__version__ == version.__version__ == installed("autopsae")


def test_asking_for_the_version_imports_no_torch() -> None:
    code = "import sys, autopsae; autopsae.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(written())
