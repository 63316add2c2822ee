"""Names of layers and files: as Unicode, and in the order that people expect."""

import re


def layer_name(text: str) -> str:
    """A file's name as a layer's: bytes that are no UTF-8 become escapes, all else stays as it is."""
    return "".join(c if not "\ud800" <= c <= "\udfff" else c.encode("unicode_escape").decode() for c in text)


def natural(name: str) -> list[tuple[int, str, str]]:
    """A key that sorts hs2 before hs10, whatever digits a name holds, and no two names as equal."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    # Digits by their number, without int(): a hostile name may have more of them than Python converts.
    values = [piece.lstrip("0") if piece[0] in "0123456789" else None for piece in pieces]
    keys = [(len(v), v, "") if v is not None else (-1, p, "") for v, p in zip(values, pieces, strict=True)]
    return [*keys, (-2, "", name)]
