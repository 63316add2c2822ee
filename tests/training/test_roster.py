import pytest

from autopsae.training.roster import End, Roster

pytestmark = pytest.mark.quick


def test_places_stay_and_rows_move_up_as_members_end() -> None:
    roster = Roster(4)
    assert (roster.going_on, roster.diverged, roster.stopped) == ([0, 1, 2, 3], {}, set())
    assert roster.end({1: End(steps=5, diverged="the loss is nan")}) == [0, 2, 3]
    assert roster.going_on == [0, 2, 3]
    # Rows are those of the stack before: member 2 was in the second of three.
    assert roster.end({2: End(steps=7, diverged=None)}) == [0, 2]
    assert roster.going_on == [0, 3]
    assert roster.diverged == {1: "the loss is nan"}
    assert roster.stopped == {2}


def test_how_a_member_ended_stays_as_it_was_first_told() -> None:
    roster = Roster(2)
    first = End(steps=3, diverged="the loss is inf")
    roster.end({0: first})
    assert roster.end({0: End(steps=9, diverged=None)}) == [0]
    assert roster.ended == {0: first}
    assert roster.stopped == set()
