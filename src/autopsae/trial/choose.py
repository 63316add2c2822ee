"""Which of the candidates of a trial is prescribed: the trade of dead latents against the error."""

from collections.abc import Sequence

from autopsae.arrays import InputError
from autopsae.defaults import Prefer
from autopsae.diagnosis.finding import Finding
from autopsae.trial.result import Outcome

NEAR = 1.02
"""Errors count as the same up to this factor: seeds differ by about as much. Within it the error without stray
tokens decides."""


def choose(outcomes: Sequence[Outcome], *, acceptable: float, prefer: Prefer | None = None) -> tuple[Outcome, str]:
    """(the outcome that is chosen, why).

    All numbers are those expected at the end of the training (`Outcome.later`). Without a preference: the lowest
    raw FVU of those that leave at most `acceptable` dead, or the fewest dead where none does. prefer="error": the
    lowest raw FVU of all. prefer="life": the fewest dead of all. Of several within 2 % of the lowest raw FVU, the
    one with the lowest FVU without stray tokens.

    Raises InputError where no candidate has an error: each diverged, or the held-out tokens do not differ.
    """
    able = _able(outcomes)
    if not able:
        why = "; ".join(f"{outcome.name}: {outcome.diverged or 'no error'}" for outcome in outcomes)
        raise InputError(
            f"trial: expected a candidate that can be trained on held-out tokens that differ, got {why}; lower the "
            "learning rate, or check mask and hook point"
        )
    few = [outcome for outcome in able if _dead(outcome) <= acceptable]
    if prefer == "error":
        return lowest_error(able), f"the lowest error of {len(able)} candidates, as asked"
    if prefer == "life" or not few:
        least = min(_dead(outcome) for outcome in able)
        chosen = lowest_error([outcome for outcome in able if _dead(outcome) == least])
        why = "as asked" if prefer == "life" else f"as none is expected to leave at most {acceptable:.1%}"
        return chosen, f"the fewest dead of {len(able)} candidates, {why}"
    why = f"of {len(able)} candidates, {len(few)} are expected to leave at most {acceptable:.1%} dead"
    return lowest_error(few), f"{why}, and this one has the lowest error"


def _able(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that can be chosen: they ended, and have an error."""
    return [outcome for outcome in outcomes if outcome.later is not None and outcome.later.fvu_raw is not None]


def lowest_error(outcomes: Sequence[Outcome]) -> Outcome:
    """The lowest raw FVU; of several within 2 % of it, the lowest FVU without stray tokens. All must have the
    first; a candidate without the second comes after those that have it.
    """
    best = min(_fvu(outcome) for outcome in outcomes)
    near = [outcome for outcome in outcomes if _fvu(outcome) <= NEAR * best]
    return min(near, key=lambda outcome: (_typical(outcome), _fvu(outcome)))


def _dead(outcome: Outcome) -> float:
    assert outcome.later is not None  # `choose` leaves these out
    return outcome.later.dead


def _fvu(outcome: Outcome) -> float:
    assert outcome.later is not None
    assert outcome.later.fvu_raw is not None
    return outcome.later.fvu_raw


def _typical(outcome: Outcome) -> float:
    typical = None if outcome.later is None else outcome.later.fvu_typical
    return float("inf") if typical is None else typical


def findings_of(
    chosen: Outcome, outcomes: Sequence[Outcome], *, acceptable: float, held_out: int
) -> tuple[Finding, ...]:
    """That too many are expected to be dead under the choice, and what else there is; () otherwise."""
    if _dead(chosen) <= acceptable:
        return ()
    able = _able(outcomes)
    fewest = min(able, key=lambda outcome: (_dead(outcome), _fvu(outcome)))
    dead, later = chosen.end.dead, _dead(chosen)
    counted = f"{dead:.1%} are dead after the trial, and {later:.1%} are expected to be later"
    if _dead(fewest) <= acceptable:
        meaning = f"{counted}; {fewest.name} leaves {_dead(fewest):.1%}, at a higher error"
        advice = "train with it only if the error matters more than the latents that never fire"
    else:
        meaning = f"{counted}; none is expected to leave at most {acceptable:.1%}, {fewest.name} leaves the fewest"
        advice = "try more candidates: more whitening, a lower learning rate, AuxK (docs/trial.md)"
    return (
        Finding(
            name="dead_after_trial",
            value=_dead(chosen),
            threshold=acceptable,
            tokens=held_out,
            meaning=meaning,
            advice=advice,
            source="a trial on this layer; the threshold is what was accepted",
        ),
    )
