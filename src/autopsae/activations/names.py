"""Names of layers and files: as Unicode, as names for files, and in the order that people expect."""

import re
from collections import Counter
from collections.abc import Collection
from hashlib import sha256
from urllib.parse import quote

_LONGEST_NAME = 200
"""Characters: file systems take 255 bytes, and the name gets a suffix."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\..*)?", re.IGNORECASE)
"""Names that stand for a device on Windows, with any suffix."""


def layer_name(text: str) -> str:
    """A file's name as a layer's: bytes that are no UTF-8 become escapes, all else stays as it is."""
    return "".join(c if not "\ud800" <= c <= "\udfff" else c.encode("unicode_escape").decode() for c in text)


def file_names(names: Collection[str]) -> dict[str, str]:
    """For each of `names` one for a file or a folder, which Windows, exFAT and SMB can hold and which leads out of
    no folder. No two are the same, even where case is not told apart.

    Names of letters, digits and `_.-~+ ,=@()[]` stay as they are. All else becomes `%XX`, as in an address; what is
    too long, or differs from another by its case alone, ends with `%~` and a part of its SHA-256.
    """
    plain = {name: _file_name(name) for name in names}
    same = Counter(file.lower() for file in plain.values())
    alone = {name for name, file in plain.items() if same[file.lower()] == 1 or name == name.lower()}
    return {name: file if name in alone else _with_digest(file, name) for name, file in plain.items()}


def _file_name(name: str) -> str:
    file = quote(name, safe=" +,=@()[]", errors="surrogatepass") or "%empty"
    # `pair_files` cuts off the suffixes of a pair; a dot or a space at an end would be dropped or lead upwards.
    end = re.search(r"\.(json|safetensors)$", file)
    file = f"{file[: end.start()]}%2E{end[1]}" if end else file
    file = re.sub(r"^[. ]|[. ]$", lambda end_mark: f"%{ord(end_mark[0]):02X}", file)
    if _RESERVED.fullmatch(file):
        file = f"%{ord(file[0]):02X}{file[1:]}"
    return file if len(file) <= _LONGEST_NAME else _with_digest(file, name)


def _with_digest(file: str, name: str) -> str:
    whole = re.sub(r"%[^%]?$", "", file[: _LONGEST_NAME - 22])  # no half of an escape
    return f"{whole}%~{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def natural(name: str) -> list[tuple[int, str, str]]:
    """A key that sorts hs2 before hs10, whatever digits a name holds, and no two names as equal."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    # Digits by their number, without int(): a hostile name may have more of them than Python converts.
    values = [piece.lstrip("0") if piece[0] in "0123456789" else None for piece in pieces]
    keys = [(len(v), v, "") if v is not None else (-1, p, "") for v, p in zip(values, pieces, strict=True)]
    return [*keys, (-2, "", name)]
