"""Which candidate a trial prescribes: both sides of each threshold, and the words."""

import re
from dataclasses import replace

import pytest

from autopsae.arrays import InputError
from autopsae.trial.choose import NEAR, choose, findings_of
from autopsae.trial.result import Outcome, Point

pytestmark = pytest.mark.quick


def outcome(
    name: str,
    dead: float,
    fvu: float | None,
    typical: float | None = None,
    *,
    diverged: str | None = None,
    later: float | None = None,
) -> Outcome:
    typical = fvu if typical is None else typical
    birth = Point(step=0, tokens=100, dead=1.0, fvu_raw=9.0, fvu_typical=9.0)
    end = Point(step=10, tokens=100, dead=dead, fvu_raw=fvu, fvu_typical=typical)
    expected = Point(step=99, tokens=100, dead=dead if later is None else later, fvu_raw=fvu, fvu_typical=typical)
    return Outcome(name=name, points=(birth, end), diverged=diverged, later=None if diverged else expected)


DEADLY, WORSE, WORST = outcome("deadly", 0.05, 0.1), outcome("worse", 0.01, 0.2), outcome("worst", 0.0, 0.3)


def test_the_lowest_error_of_those_with_few_dead_is_chosen() -> None:
    chosen, why = choose([DEADLY, WORSE, WORST], acceptable=0.01)
    assert chosen == WORSE
    assert why == "of 3 candidates, 2 are expected to leave at most 1.0% dead, and this one has the lowest error"
    assert choose([DEADLY, WORSE, WORST], acceptable=0.0099)[0] == WORST
    assert choose([DEADLY, WORSE, WORST], acceptable=0.05)[0] == DEADLY


def test_where_none_leaves_few_dead_the_fewest_is_chosen_and_a_finding_says_so() -> None:
    others = [DEADLY, outcome("more", 0.2, 0.01)]
    chosen, why = choose(others, acceptable=0.01)
    assert chosen == DEADLY
    assert why == "the fewest dead of 2 candidates, as none is expected to leave at most 1.0%"
    [finding] = findings_of(chosen, others, acceptable=0.01, held_out=500)
    assert (finding.value, finding.threshold, finding.tokens) == (0.05, 0.01, 500)
    assert finding.meaning == (
        "5.0% are dead after the trial, and 5.0% are expected to be later; none is expected to leave at most 1.0%, "
        "deadly leaves the fewest"
    )


@pytest.mark.parametrize(
    ("prefer", "expected", "why"),
    [
        ("error", DEADLY, "the lowest error of 3 candidates, as asked"),
        ("life", WORST, "the fewest dead of 3 candidates, as asked"),
    ],
)
def test_a_preference_takes_the_one_end_of_the_trade(prefer: str, expected: Outcome, why: str) -> None:
    said = choose([DEADLY, WORSE, WORST], acceptable=0.01, prefer=prefer)  # type: ignore[arg-type]
    assert said == (expected, why)


def test_a_preferred_error_with_many_dead_is_a_finding_that_names_the_fewest() -> None:
    outcomes = [DEADLY, WORSE, WORST]
    [finding] = findings_of(DEADLY, outcomes, acceptable=0.01, held_out=500)
    assert finding.meaning.endswith("are expected to be later; worst leaves 0.0%, at a higher error")
    assert findings_of(WORSE, outcomes, acceptable=0.01, held_out=500) == ()


def test_within_two_percent_of_the_lowest_error_the_error_without_strays_decides() -> None:
    best = outcome("best", 0.0, 0.1, 0.4)
    near, far = (outcome(name, 0.0, 0.1 * NEAR + more, 0.3) for name, more in (("near", 0.0), ("far", 1e-6)))
    assert choose([best, near], acceptable=0.01)[0] == near
    assert choose([best, far], acceptable=0.01)[0] == best
    # Among equally few dead, too.
    assert choose([best, near], acceptable=0.01, prefer="life")[0] == near


def test_death_that_is_expected_later_counts_not_that_at_the_end_of_the_trial() -> None:
    calm, calmer = outcome("calm", 0.0, 0.2), outcome("calmer", 0.0, 0.3)
    for later, expected in ((0.01, "rising"), (0.0101, "calm")):
        rising = outcome("rising", 0.009, 0.1, later=later)
        assert choose([rising, calmer, calm], acceptable=0.01)[0].name == expected
    [finding] = findings_of(rising, [rising, calmer, calm], acceptable=0.01, held_out=500)
    assert finding.value == 0.0101
    assert finding.meaning == (
        "0.9% are dead after the trial, and 1.0% are expected to be later; calm leaves 0.0%, at a higher error"
    )
    # Of errors, too, those that are expected later count.
    steep = replace(calm, later=replace(calm.end, fvu_raw=0.01, fvu_typical=0.01))
    assert choose([DEADLY, steep], acceptable=1.0)[0] == steep
    # Where none is calm, the fewest that are expected, not the fewest now.
    fast, slow = outcome("fast", 0.01, 0.1, later=0.2), outcome("slow", 0.02, 0.1, later=0.03)
    assert choose([fast, slow], acceptable=0.001)[0] == slow


def test_what_diverged_or_has_no_error_is_never_chosen() -> None:
    gone = outcome("gone", 0.0, 0.01, diverged="step 3: the loss is nan")
    blank = outcome("blank", 0.0, None)
    assert choose([gone, blank, DEADLY], acceptable=0.01)[0] == DEADLY
    message = "got gone: step 3: the loss is nan; blank: no error; lower the learning rate"
    with pytest.raises(InputError, match=re.escape(message)):
        choose([gone, blank], acceptable=0.01)


def test_the_smallest_error_without_strays_may_be_missing() -> None:
    end = Point(step=10, tokens=100, dead=0.0, fvu_raw=0.1, fvu_typical=None)
    unknown = Outcome(name="unknown", points=(end,), later=end)
    known = outcome("known", 0.0, 0.1, 5.0)
    assert choose([unknown, known], acceptable=0.01)[0] == known
    assert choose([unknown], acceptable=0.01)[0] == unknown
