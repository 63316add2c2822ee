"""Patterns of paths: `*` stands for one part between slashes, `**` for any number of parts."""

import re
from functools import cache


def matches(pattern: str, path: str) -> bool:
    """Whether the pattern stands for the whole path."""
    return _expression(pattern).fullmatch(path) is not None


def rename(path: str, old: str, new: str) -> str | None:
    """The path with the new pattern in place of the old one; None where the old one does not match.

    What stars stand for is carried over in order. Raises ValueError where the two have other stars.
    """
    if _stars(old) != _stars(new):
        raise ValueError(f"{old} -> {new}: expected the same stars in the same order")
    found = _expression(old).fullmatch(path)
    if found is None:
        return None
    parts = iter(found.groups())
    return _STARS.sub(lambda _: str(next(parts)), new)


_STARS = re.compile(r"\*\*|\*")


def _stars(pattern: str) -> list[str]:
    return _STARS.findall(pattern)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    groups = [{"*": "([^/]*)", "**": "(.*)"}[star] for star in _stars(pattern)]
    first, *pieces = (re.escape(piece) for piece in _STARS.split(pattern))
    return re.compile(first + "".join(group + piece for group, piece in zip(groups, pieces, strict=True)))
