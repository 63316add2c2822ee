"""Names of a package that are imported when they are first used, and stay known to type checkers and editors.

PyTorch takes seconds to import: `autopsae --help` and Ctrl-C must not wait for it.
"""

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def public_names(stub: Path) -> dict[str, str]:
    """name -> the module that it comes from, as the imports of a stub (`__init__.pyi`) say; for a public room, the
    package.
    """
    if not stub.exists():
        return {}
    parsed = ast.parse(stub.read_text(encoding="utf-8"))
    lines = [node for node in parsed.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: str(line.module) for line in lines for alias in line.names}


class _Package(ModuleType):
    """A package in which a public name wins over the module of the same name.

    `autopsae.survival.forecast` is the function, and `from autopsae.survival.forecast import Outlook` still finds
    the module. Python's import sets a module as an attribute of its package, over the function: that is skipped.
    """

    def __setattr__(self, name: str, value: object) -> None:
        comes_from = public_names(Path(str(self.__file__)).with_suffix(".pyi")).get(name, self.__name__)
        if comes_from == self.__name__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


def lazily(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package with the public names of the stub beside `file` and its modules.

    __getattr__, __dir__ = lazily(__name__, __file__)
    """
    stub = Path(file).with_suffix(".pyi")
    sys.modules[package].__class__ = _Package

    def get(name: str) -> Any:
        names = public_names(stub)
        if name == "__all__":
            return sorted(names)
        if names.get(name, package) != package:
            value = getattr(import_module(names[name]), name)
        elif not name.startswith("__") and find_spec(f"{package}.{name}"):
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *public_names(stub)})
