"""What a long call tells of how far it is: one form, for every function that takes `progress`."""

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar, runtime_checkable

B = TypeVar("B", bound=Sized)


@runtime_checkable
class Progress(Protocol):
    """Anything that is called with (stage, done, total) while a function works, such as a progress bar.

    stage: the name of what is being done, which may change during a call ("statistics", then "birth"); done: tokens
    done in this stage so far ("training": steps); total: how many there will be, None where nobody knows yet. The
    function does not ask for a return value; an exception ends the work.
    """

    def __call__(self, stage: str, done: int, total: int | None, /) -> object:
        """Called with a stage, the tokens or steps done, and their total; None where it is unknown."""


def tell_progress(
    blocks: Iterable[B], progress: Progress | None, stage: str, total: int | None = None
) -> Iterator[B]:
    """The same blocks of tokens; `progress` is told of each as soon as it has been worked on."""
    done = 0
    for block in blocks:
        yield block
        done += len(block)
        if progress:
            progress(stage, done, total)
