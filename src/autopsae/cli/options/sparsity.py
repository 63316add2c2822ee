"""Which latents fire: `--sparsity`, and an option for each setting of each class in `autopsae.sae.sparsity`.

The classes of that package are the one place where a sparsity and its settings are told. They need PyTorch, which
takes a second to import; so they are read here as text, as the names of a package are read from its stub.
`tests/cli/test_options.py` holds what is read to the registry.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, make_dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autopsae.cli.options.kinds import Rare, if_given, one_of
from autopsae.defaults import K

_TYPES: dict[str, type] = {"int": int, "float": float}


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a class says of a sparsity."""

    settings: dict[str, type]
    """Its fields, by name."""
    defaults: dict[str, float]
    """The values of those that need not be given."""


@cache
def sparsities() -> dict[str, Described]:
    """Every sparsity of the library by its name in files; nothing is imported."""
    spec = find_spec("autopsae.sae.sparsity")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    classes = [node for path in sorted(folder.glob("*.py")) for node in ast.parse(path.read_text("utf-8")).body]
    return {name: _describe(node) for node in classes if isinstance(node, ast.ClassDef) for name in _name(node)}


def _name(node: ast.ClassDef) -> list[str]:
    """[`name`] of a class that has one, as it is known to files."""
    return [
        str(line.value.value)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and ast.unparse(line.target) == "name"
        and isinstance(line.value, ast.Constant)
    ]


def _describe(node: ast.ClassDef) -> Described:
    fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
    settings = {ast.unparse(line.target): line for line in fields if ast.unparse(line.annotation) in _TYPES}
    return Described(
        settings={name: _TYPES[ast.unparse(line.annotation)] for name, line in settings.items()},
        defaults={name: ast.literal_eval(line.value) for name, line in settings.items() if line.value},
    )


def sparsities_with(setting: str) -> list[str]:
    """The sparsities that have a setting."""
    return [name for name, described in sparsities().items() if setting in described.settings]


@dataclass(frozen=True, kw_only=True)
class _Firing:
    """Which latents fire."""

    sparsity: Annotated[str, one_of([*sparsities()])] = "topk"
    """Which latents of a token fire (docs/training.md)."""
    k: Annotated[
        int | None, if_given(f"Latents that fire per token: exactly, or on average; {K} if not given.")
    ] = None


def _others() -> Iterator[tuple[str, Any, None]]:
    """The settings that are not k, each an option that is None where it is not given."""
    names = dict.fromkeys(name for described in sparsities().values() for name in described.settings)
    for name in names:
        if name == "k":
            continue
        owners = sparsities_with(name)
        first = sparsities()[owners[0]]
        default = f"; {first.defaults[name]:g} if not given" if name in first.defaults else ""
        help = f"{name.capitalize().replace('_', ' ')} of {' and '.join(owners)}{default}."
        kind = first.settings[name]
        yield name, Annotated[kind | None, if_given(help, kind.__name__.upper())], None


if TYPE_CHECKING:
    Firing = _Firing
    ShortFiring = _Firing
else:
    Firing = make_dataclass("Firing", [*_others()], bases=(_Firing,), frozen=True, kw_only=True)
    _unshown = [(name, Rare[hint], default) for name, hint, default in _others()]
    ShortFiring = make_dataclass("ShortFiring", _unshown, bases=(Firing,), frozen=True, kw_only=True)
    """The same options; `--help` shows only the sparsity and k."""
