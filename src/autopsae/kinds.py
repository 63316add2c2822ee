"""What a value in a JSON file must be.

A `Kind` takes a value and returns what is wrong with it, as the end of a message; None where nothing is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.words import show

Kind = Callable[[object], str | None]


def of(what: str, holds: Callable[[Any], bool]) -> Kind:
    """The kind of what `holds`; `what` describes it in a message."""
    return lambda value: None if holds(value) else f": expected {what}, got {show(value)}"


def whole(least: int = 1, most: int = 2**53) -> Kind:
    """A whole number, no truth value."""
    return of(f"a whole number from {least} to {most}", lambda v: type(v) is int and least <= v <= most)


def number(over: float = -1e308, under: float = 1e308) -> Kind:
    """A finite number between two others."""
    return of(f"a number over {over:g} and under {under:g}", lambda v: type(v) in (int, float) and over < v < under)


def one_of(*choices: str) -> Kind:
    """One of these words."""
    return of(" or ".join(choices), lambda v: isinstance(v, str) and v in choices)


def nothing_or(kind: Kind) -> Kind:
    """null, or of this kind."""
    return lambda value: None if value is None else kind(value)


def list_of(kind: Kind) -> Kind:
    """An array of this kind."""

    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return f": expected a list, got {show(value)}"
        wrong = ((i, kind(item)) for i, item in enumerate(value))
        return next((f"[{i}]{problem}" for i, problem in wrong if problem), None)

    return check


def mapping_of(kind: Kind) -> Kind:
    """An object whose values are of this kind, under any names."""
    return lambda value: fields(dict.fromkeys(value, kind))(value) if isinstance(value, dict) else _no_object(value)


def fields(
    needed: Mapping[str, Kind], *, optional: Mapping[str, Kind] | None = None, others: Kind | None = None
) -> Kind:
    """An object with these names, each of its kind; optional: names that it may lack; others: the kind of any other
    value, None for no other.
    """
    known = {**needed, **(optional or {})}

    def check(value: object) -> str | None:
        if not isinstance(value, dict):
            return _no_object(value)
        if missing := [name for name in needed if name not in value]:
            return f": expected {', '.join(needed)}, but it lacks {', '.join(missing)}"
        if others is None and (more := [name for name in value if name not in known]):
            return f": expected only {', '.join(needed)}, got also {show(more)}"
        wrong = ((name, (known.get(name) or others or anything)(item)) for name, item in value.items())
        return next((f".{name}{problem}" for name, problem in wrong if problem), None)

    return check


def _no_object(value: object) -> str:
    return f": expected an object with names, got {show(value)}"


def anything(value: object) -> None:
    """Whatever JSON can hold."""


digest = fields({"tokens": whole(0), "total": number(), "square": number()})
"""A `passes.Digest`, which tells a set of tokens from another."""

text = of("text", lambda v: isinstance(v, str))
flag = of("true or false", lambda v: isinstance(v, bool))


def check_kind(path: Path | str, content: object, kind: Kind) -> None:
    """InputError, naming the place, unless `content` is of this kind."""
    if wrong := kind(content):
        raise InputError(f"{path}{wrong}; take an earlier copy, or make it anew")
