"""Names of the library, wherever they now are. The only file that knows that a name or a signature has moved.

A name is looked for at the top of the package, among the public names of its rooms, and then in every
module: a function that only moved needs nothing here. One that was renamed gets a line in `key_map.NAMES`; one
whose arguments changed, a branch in a function here.
"""

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from experiments.same_numbers.key_map import NAMES


def get(name: str) -> Any:
    """The object that was called `name` before. Raises LookupError where it is nowhere, or in two places."""
    package = importlib.import_module("autopsae")
    for candidate in (*NAMES.get(name, ()), name):
        for space in (package, *_rooms()):
            if candidate in getattr(space, "__all__", ()):
                return getattr(space, candidate)
        found = _everywhere().get(candidate, [])
        if len(found) > 1:
            raise LookupError(
                f"{candidate}: expected one in {package.__name__}, got those of {sorted(_homes(found))}"
            )
        if found:
            return found[0]
    raise LookupError(f"{name}: not found in {package.__file__}; give its new name in key_map.NAMES")


def forecast_with(function: str, *arguments: Any, kind: str, k: int, threshold: Any = None, **options: Any) -> Any:
    """`forecast` or `forecast_births` for an SAE of that kind: before it took a Firing, then a sparsity."""
    called = get(function)
    if "firing" in inspect.signature(called).parameters:
        firing = {"topk": "AmongLargest", "batch_topk": "AmongLargestOfBatch"}.get(kind, "Above")
        value = k if firing != "Above" else 0.0 if threshold is None else threshold
        return called(*arguments, get(firing)(value), **options)
    if threshold is not None and function == "forecast_births":
        return called(*arguments, get("JumpReLU")(start=threshold), **options)
    more = {} if threshold is None else {"threshold": threshold}
    return called(*arguments, sparsity(kind, k), **more, **options)


def sparsity(kind: str, k: int) -> Any:
    """An SAE's sparsity by its name in files."""
    name = {"topk": "TopK", "batch_topk": "BatchTopK", "groupmax": "GroupMax", "relu": "ReLU"}.get(kind, "JumpReLU")
    return get(name)(k=k) if "k" in inspect.signature(get(name)).parameters else get(name)()


def with_k(function: Any, k: int) -> dict[str, Any]:
    """{"k": k} for a function that takes it, {"sparsity": TopK(k=k)} for one that takes a sparsity alone."""
    return {"k": k} if "k" in inspect.signature(function).parameters else {"sparsity": sparsity("topk", k)}


def training_of(members: list[Any], tokens: Any) -> Any:
    """Members trained at once: before that was `Sweep`, and `Training` was for one SAE alone."""
    try:
        return get("Sweep")(members, tokens)
    except LookupError:
        return get("Training")(members, tokens)


@cache
def _rooms() -> list[ModuleType]:
    package = importlib.import_module("autopsae")
    names = [info.name for info in pkgutil.iter_modules(package.__path__, "autopsae.") if info.ispkg]
    return [importlib.import_module(name) for name in names]


@cache
def _everywhere() -> dict[str, list[Any]]:
    """name -> the public classes and functions of that name, each where it is defined."""
    package = importlib.import_module("autopsae")
    found: dict[str, list[Any]] = {}
    for info in pkgutil.walk_packages(package.__path__, "autopsae."):
        if info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ImportError:  # a library that is not installed
            continue
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_"):
                found.setdefault(name, []).append(value)
    return found


def _homes(values: list[Any]) -> set[str]:
    return {value.__module__ for value in values}
