"""Who of the members is still trained, and since when and why the others are not."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class End:
    """How the training of a member ended before that of the others."""

    steps: int | None
    """Steps that it took, without the one in which its loss was not finite; None where it ended before a checkpoint
    was written from which the others went on, as that does not say."""
    diverged: str | None
    """What was wrong with its loss; None for a member that was told to stop."""


class Roster:
    """Members are called by their place in the list that training began with, which never changes. Those that are
    still trained stand in a stack of weights, in the same order: their row there moves up when another one ends.

    going_on: the place of each row; ended: the others, by place.
    """

    def __init__(self, members: int) -> None:
        self.going_on = list(range(members))
        self.ended: dict[int, End] = {}

    @property
    def diverged(self) -> dict[int, str]:
        """What was wrong with the loss of those that diverged, by place."""
        return {place: end.diverged for place, end in self.ended.items() if end.diverged is not None}

    @property
    def stopped(self) -> set[int]:
        """The places of those that were told to stop."""
        return {place for place, end in self.ended.items() if end.diverged is None}

    def end(self, ends: Mapping[int, End]) -> list[int]:
        """Take members off, by place, and return the rows of those that go on. Who ended before stays so."""
        self.ended = {**ends, **self.ended}
        rows = [row for row, place in enumerate(self.going_on) if place not in self.ended]
        self.going_on = [self.going_on[row] for row in rows]
        return rows
