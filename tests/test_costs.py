"""Work, rates and walls."""

import pytest

from autopsae.arrays import InputError
from autopsae.costs import Rates, Work, first_wall, seconds_of

pytestmark = pytest.mark.quick


def test_work_is_added_and_multiplied_resource_by_resource() -> None:
    both = (Work(float32=2, streamed=3) + Work(streamed=5, sent=7)) * 10
    assert both == Work(float32=20, streamed=80, sent=70)


def test_the_seconds_of_a_resource_are_its_amount_by_its_rate() -> None:
    work = Work(float32=100, sent=6)
    assert seconds_of(work, Rates(float32=50, sent=2, stored=1)) == {"float32": 2, "sent": 3}
    assert seconds_of(Work(), Rates()) == {}


def test_a_rate_that_is_needed_and_not_known_is_asked_for() -> None:
    with pytest.raises(InputError, match="expected a rate for 'sent', which the work takes, got none"):
        seconds_of(Work(float32=1, sent=1), Rates(float32=1))


def test_a_capacity_that_is_exceeded_is_met_before_any_time() -> None:
    there, seconds = {"memory": 10.0, "disk": 10.0}, {"float32": 5.0, "sent": 9.0}
    assert first_wall({"memory": 10.0, "disk": 10.0}, there, seconds) == "sent"
    assert first_wall({"memory": 10.1, "disk": 10.0}, there, seconds) == "memory"
    assert first_wall({"memory": 20.0, "disk": 30.0}, there, seconds) == "disk"
