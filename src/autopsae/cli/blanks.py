"""Lists that were given by blanks (`--lr 1e-4 3e-4`) instead of commas (`--lr 1e-4,3e-4`)."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from tyro.constructors import PrimitiveConstructorSpec


def join_lists(types: Mapping[str, Any], arguments: Sequence[str], *, left: int) -> tuple[list[str], list[str]]:
    """(the words with each such list joined by commas; for each, what was expected, what came, and what to try).

    types: the type of each option of the verb, by name. left: how many of the last words after a list are not its
    values, such as the source. A word that the list does not take never belongs to it.
    """
    words, messages, rest = list[str](), list[str](), [*arguments]
    while rest:
        option, *values = rest.pop(0).split("=", 1)
        spec = _list_of(types.get(option.removeprefix("--").replace("-", "_"))) if option.startswith("--") else None
        if spec is None:
            words.append("=".join([option, *values]))
            continue
        while rest and not rest[0].startswith("--") and _is_value(spec, rest[0]):
            values.append(rest.pop(0))
        kept = max(1, len(values) - left)
        rest = values[kept:] + rest
        given, joined = " ".join(values[:kept]), ",".join(value.strip(",") for value in values[:kept])
        words += [option, joined] if values else [option]
        if given != joined:
            expected = f"expected values joined by commas ({spec.metavar})"
            messages.append(f"{option}: {expected}, got {given}; try {option} {joined}")
    return words, messages


def _list_of(hint: Any) -> PrimitiveConstructorSpec[Any] | None:
    """How the list of this type is read; None for an option that is no list, and for none at all."""
    inner, *marks = get_args(hint) or (hint,)
    if get_origin(inner) is not tuple:
        return None
    return next(mark for mark in marks if isinstance(mark, PrimitiveConstructorSpec))


def _is_value(spec: PrimitiveConstructorSpec[Any], word: str) -> bool:
    try:
        spec.instance_from_str([word.strip(",")])
    except ValueError:
        return False
    return True
