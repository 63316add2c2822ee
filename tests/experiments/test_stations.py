"""How the stations of the tokens are counted."""

from pathlib import Path

import torch
from experiments.stations import D_IN, D_SAE, collapsed, entries, is_tokens, rooms_of, steps_back

from tests.test_house import ROOMS


def test_a_cycle_that_repeats_is_told_once() -> None:
    assert collapsed(["a", "a", "b", "c", "b", "c", "b", "c", "a"]) == ["a", "b", "c", "a"]
    assert collapsed(["a", "b", "b", "a", "b", "c"]) == ["a", "b", "c"]
    assert collapsed(["a", "b", "c", "b"]) == ["a", "b", "c", "b"]


def test_a_step_back_goes_to_an_earlier_room_and_not_within_one() -> None:
    stations = ["arrays", "statistics.sample", "statistics.median", "arrays", "diagnosis.diagnose"]
    assert steps_back(stations, ["arrays", "statistics", "diagnosis"]) == [3]
    assert entries(stations) == {"arrays": 2, "statistics": 1, "diagnosis": 1}


def test_tokens_are_told_from_rows_and_directions() -> None:
    assert is_tokens(torch.zeros(D_IN + 1, D_IN))
    assert not is_tokens(torch.zeros(D_IN, D_IN))
    assert not is_tokens(torch.zeros(D_SAE, D_IN))
    assert not is_tokens(torch.zeros(200, D_IN + 1))


def test_the_rooms_are_those_of_the_house() -> None:
    assert rooms_of(Path(__file__).parents[2]) == ROOMS
