"""Which of the candidates of a trial is prescribed: the trade of dead latents against the error."""

from collections.abc import Sequence

from autopsae.arrays import InputError
from autopsae.defaults import Prefer
from autopsae.diagnosis.finding import Finding
from autopsae.trial.result import Outcome

NEAR = 1.02
"""Errors count as the same up to this factor: seeds differ by about as much. Within it the error without stray
tokens decides."""

RISING = 0.5
"""Share of the accepted dead fraction by which the dead fraction may rise in the second half of a trial."""


def choose(
    outcomes: Sequence[Outcome], *, acceptable: float, prefer: Prefer | None = None
) -> tuple[Outcome, str, bool]:
    """(the outcome that is chosen, why, whether it leaves at most `acceptable` dead).

    Without a preference: the lowest raw FVU of those that leave at most `acceptable` dead, or the fewest dead where
    none leaves so few. prefer="error": the lowest raw FVU of all. prefer="life": the fewest dead of all. Of several
    within 2 % of the lowest raw FVU, the one with the lowest FVU without stray tokens.

    Raises InputError where no candidate has an error: each diverged, or the held-out tokens do not differ.
    """
    able = [outcome for outcome in outcomes if not outcome.diverged and outcome.end.fvu_raw is not None]
    if not able:
        why = "; ".join(f"{outcome.name}: {outcome.diverged or 'no error'}" for outcome in outcomes)
        raise InputError(
            f"trial: expected a candidate that can be trained on held-out tokens that differ, got {why}; lower the "
            "learning rate, or check mask and hook point"
        )
    few = [outcome for outcome in able if outcome.end.dead <= acceptable]
    if prefer == "error":
        chosen = lowest_error(able)
        return chosen, f"the lowest error of {len(able)} candidates, as asked", chosen in few
    if prefer == "life" or not few:
        least = min(outcome.end.dead for outcome in able)
        chosen = lowest_error([outcome for outcome in able if outcome.end.dead == least])
        why = "as asked" if prefer == "life" else f"as none leaves at most {acceptable:.1%}"
        return chosen, f"the fewest dead of {len(able)} candidates, {why}", chosen in few
    why = f"the lowest error of the {len(few)} of {len(able)} candidates with at most {acceptable:.1%} dead"
    return lowest_error(few), why, True


def lowest_error(outcomes: Sequence[Outcome]) -> Outcome:
    """The lowest raw FVU; of several within 2 % of it, the lowest FVU without stray tokens. All must have the
    first; a candidate without the second comes after those that have it.
    """
    best = min(_fvu(outcome) for outcome in outcomes)
    near = [outcome for outcome in outcomes if _fvu(outcome) <= NEAR * best]
    return min(near, key=lambda outcome: (_typical(outcome), _fvu(outcome)))


def _fvu(outcome: Outcome) -> float:
    fvu = outcome.end.fvu_raw
    assert fvu is not None  # `choose` leaves these out
    return fvu


def _typical(outcome: Outcome) -> float:
    typical = outcome.end.fvu_typical
    return float("inf") if typical is None else typical


def findings_of(
    chosen: Outcome, outcomes: Sequence[Outcome], *, acceptable: float, held_out: int, enough: bool
) -> tuple[Finding, ...]:
    """What to know of the choice: that too many are dead under it, or that more and more die, and what else there
    is.
    """
    if enough:
        return _rise_of_death(chosen, outcomes, acceptable=acceptable, held_out=held_out)
    left = {outcome.name: outcome.end.dead for outcome in outcomes if not outcome.diverged}
    fewest = min(left, key=lambda name: left[name])
    if left[fewest] <= acceptable:
        meaning = f"the candidate with the lowest error leaves so many dead; {fewest} leaves {left[fewest]:.1%}"
        advice = "train with it only if the error matters more than the latents that never fire"
    else:
        meaning = f"no candidate leaves at most {acceptable:.1%} dead, and {fewest} leaves the fewest"
        advice = "try more candidates: more whitening, a lower learning rate, AuxK (docs/trial.md)"
    return (
        Finding(
            name="dead_after_trial",
            value=chosen.end.dead,
            threshold=acceptable,
            tokens=held_out,
            meaning=meaning,
            advice=advice,
            source="a trial on this layer; the threshold is what was accepted",
        ),
    )


def _rise_of_death(
    chosen: Outcome, outcomes: Sequence[Outcome], *, acceptable: float, held_out: int
) -> tuple[Finding, ...]:
    """That latents went on dying in the second half of the trial: a longer training will kill more."""
    limit = RISING * acceptable
    if chosen.rise <= limit:
        return ()
    able = [one for one in outcomes if not one.diverged and one.end.fvu_raw is not None]
    calm = [one for one in able if one.end.dead <= acceptable and one.rise <= limit]
    instead = f"under {lowest_error(calm).name} they did not" if calm else "they died under all others too"
    return (
        Finding(
            name="dead_rising_in_trial",
            value=chosen.rise,
            threshold=limit,
            tokens=held_out,
            meaning=f"in the second half of the trial {chosen.rise:.1%} of the latents died under {chosen.name}: "
            f"a longer training will kill more than the {chosen.end.dead:.1%} that are dead now; {instead}",
            advice="try them for more steps, or train with the other one",
            source="a trial on this layer; the threshold is half of what was accepted",
        ),
    )
