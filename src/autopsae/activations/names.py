"""Words that come from files: layers' names and paths, fit for a message, a terminal and an order."""

import re
from collections.abc import Sequence


def printable(text: object, most: int | None = None) -> str:
    """`text` on one line, with every control, invisible or broken character as an escape, cut to `most` characters.

    A name out of a file could clear the screen, forge a line, or be no Unicode at all.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if most is None or len(line) <= most else f"{line[: most - 3]}..."


def layer_name(text: str) -> str:
    """A file's name as a layer's: bytes that are no UTF-8 become escapes, all else stays as it is."""
    return "".join(c if not "\ud800" <= c <= "\udfff" else c.encode("unicode_escape").decode() for c in text)


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first names of several, for a message."""
    return ", ".join(printable(name, 60) for name in names[:most]) + (", ..." if len(names) > most else "")


def natural(name: str) -> list[tuple[int, str, str]]:
    """A key that sorts hs2 before hs10, whatever digits a name holds, and no two names as equal."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    # Digits by their number, without int(): a hostile name may have more of them than Python converts.
    values = [piece.lstrip("0") if piece[0] in "0123456789" else None for piece in pieces]
    keys = [(len(v), v, "") if v is not None else (-1, p, "") for v, p in zip(values, pieces, strict=True)]
    return [*keys, (-2, "", name)]
