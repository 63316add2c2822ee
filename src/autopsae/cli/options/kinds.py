"""What an option may be: a list, whose values are joined by commas; one of some names; one that is rare.

Each is a type, so that an option is declared once, with its type, its default and a line of documentation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from autopsae.defaults import STARTS, BiasName

T = TypeVar("T")


class Unrecorded:
    """Marks what is no setting of the results: where they are written, and whether a run is resumed."""


@dataclass(frozen=True)
class Writes(Unrecorded):
    """Marks what the verb writes, which must be nothing that it reads (`cli.overwriting`)."""

    kind: Literal["file", "pair", "folder", "pairs"]
    """A file; NAME.json and NAME.safetensors; a folder that is the verb's own; pairs in any folder."""


@dataclass(frozen=True)
class Reads:
    """Marks what the verb reads. A Path that is not written is read, and needs no mark where it is no pair."""

    kind: Literal["files", "pair", "images"]
    """A file or a folder; the name of a pair too; a folder of images, of which each is read."""


class Unshown:
    """Marks what `--help` does not show."""


Rare = Annotated[T, Unshown()]
"""An option that `--help` does not show, but docs/training.md does. It is given by name, or in `--config FILE`."""

Place = Annotated[T, Unrecorded()]
"""What says nothing about the results of the verb. What it writes is one of the following."""

Written = Annotated[T, Writes("file")]
WrittenPair = Annotated[T, Writes("pair")]
WrittenFolder = Annotated[T, Writes("folder")]
WrittenPairs = Annotated[T, Writes("pairs")]

Read = Annotated[T, Reads("files")]
"""What the verb reads, as a name that may also be no path: that of a model on the Hub."""
ReadPair = Annotated[T, Reads("pair")]
ReadImages = Annotated[T, Reads("images")]


def if_given(help: str, metavar: str = "INT") -> Any:
    """The mark of an option that is None where it is not given; help says what that means."""
    return arg(help=help, metavar=metavar, help_behavior_hint="")


def _several(parse: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    """A list of what `parse` makes of its parts. Every list of every verb is one of these."""

    def values(words: list[str]) -> tuple[Any, ...]:
        expected = f"expected values joined by commas, each once ({metavar},{metavar}), got {words[0]!r}"
        try:
            several = tuple(parse(word) for word in words[0].split(","))
        except ValueError as error:
            raise ValueError(f"{expected}: {error}") from error
        if len({*several}) < len(several):
            raise ValueError(expected)
        return several

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{metavar}[,{metavar}...]",
        instance_from_str=values,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


def _among(names: Sequence[str]) -> Callable[[str], str]:
    def name(word: str) -> str:
        if word not in names:
            raise ValueError(f"expected some of {', '.join(names)}, got {word}")
        return word

    return name


def _word(word: str) -> str:
    if not word:
        raise ValueError("one of them is empty")
    return word


Numbers = Annotated[tuple[float, ...], _several(float, "FLOAT")]
Integers = Annotated[tuple[int, ...], _several(int, "INT")]
Names = Annotated[tuple[str, ...], _several(_word, "NAME")]
Starts = Annotated[tuple[str, ...], _several(_among(STARTS), "START")]
Biases = Annotated[tuple[str, ...], _several(_among(get_args(BiasName)), "BIAS")]


def one_of(names: Sequence[str]) -> PrimitiveConstructorSpec[str]:
    """One of some names that are known when the program runs."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
        choices=tuple(names),
    )
