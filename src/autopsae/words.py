"""Words and values from anywhere, fit for a message: on one line, with an end, harmless to a terminal."""

from collections.abc import Iterable
from itertools import islice
from reprlib import Repr


def printable(text: object, most: int | None = None) -> str:
    """`text` on one line, with every control, invisible or broken character as an escape, cut to `most` characters.

    A name out of a file could clear the screen, forge a line, or be no Unicode at all. What is printable stays as
    it is, so that a second call changes nothing.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if most is None or len(line) <= most else f"{line[: most - 3]}..."


class _Repr(Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # more digits than Python writes
            return f"a whole number of {x.bit_length():,} bits"


_REPR = _Repr()
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def show(value: object, characters: int = 80) -> str:
    """A value as Python writes it, cut: it may be long, of many lines, or a list of lists that name each other."""
    return printable(_REPR.repr(value), characters)


def list_names(names: Iterable[object], most: int = 6) -> str:
    """The first names of several."""
    first = [printable(name, 60) for name in islice(names, most + 1)]
    return ", ".join(first[:most]) + (", ..." if len(first) > most else "")


def number_text(value: float | int) -> str:
    """A number with four digits, and with all digits before its point up to ten million: 20,550, not 2.055e+04."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 10**7 else f"{value:.4g}"


def fvu_text(fvu: float | None) -> str:
    """An FVU with four decimals, three digits if it is under 0.01, no decimals from 1,000 on; of tokens that do not
    differ there is none.
    """
    if fvu is None:
        return "none (the tokens do not differ)"
    if fvu < 0.01:
        return f"{fvu:.3g}"
    return f"{fvu:.4f}" if fvu < 1000 else number_text(fvu)


def reason(error: BaseException) -> str:
    """The first line of what an error says, with its type where that is not a plain ValueError."""
    lines = str(error).splitlines()
    kind = "" if type(error) is ValueError and lines else f"{type(error).__name__}: "
    return printable(f"{kind}{lines[0] if lines else ''}", 200)
