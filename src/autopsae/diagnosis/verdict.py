"""The verdict in a few sentences: how many layers can be trained as they are, and what to do on the others."""

from collections.abc import Sequence

from autopsae.diagnosis.findings import MEAN_MEDIAN
from autopsae.diagnosis.result import Diagnosis

_SPANS = 4
"""Runs of layers that are named one by one."""


def verdict(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """A sentence on all layers, and one for each remedy that is prescribed, in the layers' order."""
    of_remedy: dict[str, list[int]] = {}
    for place, diagnosis in enumerate(diagnoses):
        of_remedy.setdefault(diagnosis.prescription.remedy.name, []).append(place)
    fine = len(of_remedy.get("none", ()))
    changed = {name: places for name, places in of_remedy.items() if name != "none"}
    return [_on_all(diagnoses, fine), *(_on_some(diagnoses, places) for places in changed.values())]


def _on_all(diagnoses: Sequence[Diagnosis], fine: int) -> str:
    d = diagnoses[0]
    number = len(diagnoses)
    what = f"an SAE with {d.d_sae:,} latents ({d.sparsity})"
    if number == 1:
        return (
            f"{d.layer}: train {what} as it is." if fine else f"{d.layer}: make a change before you train {what}."
        )
    if fine == number:
        return f"All {number} layers: train {what} as they are."
    if not fine:
        return f"All {number} layers need a change before you train {what}."
    places = [place for place, d in enumerate(diagnoses) if d.prescription.remedy.name == "none"]
    others, they_are = ("other", "it is") if fine == 1 else ("others", "they are")
    changed = number - fine
    need = f"{changed} of {number} layers need{'s' * (changed == 1)} a change before you train {what}"
    return f"{need}; train on the {others} ({spans(diagnoses, places)}) as {they_are}."


def _on_some(diagnoses: Sequence[Diagnosis], places: Sequence[int]) -> str:
    some = [diagnoses[place] for place in places]
    without = [d.expected["none"].dead.value for d in some]
    with_it = [d.expected[d.prescription.remedy.name].dead.value for d in some]
    at = f"{some[0].expected['none'].tokens:,} tokens"
    said = f"{spans(diagnoses, places)}: {some[0].prescription.instruction}; {_range(with_it)} of the latents are "
    if _range(with_it) == _range(without):  # prescribed for another reason than the dead
        said += f"expected dead on {at} with it and without it: the findings say what it is for"
    else:
        said += f"then expected dead on {at}, {_range(without)} without it"
    dragged = [place for place in places if any(f.name == MEAN_MEDIAN for f in diagnoses[place].findings)]
    if dragged:
        worst = max(diagnoses[place].birth["mean"].dead for place in dragged)
        where = "" if len(dragged) == len(places) else f" ({spans(diagnoses, dragged)})"
        said += f". Never center by the arithmetic mean{where}: it leaves up to {worst:.0%} dead"
    return said + "."


def spans(diagnoses: Sequence[Diagnosis], places: Sequence[int]) -> str:
    """The names of layers, those that follow each other as "hs3 to hs7"."""
    runs: list[list[int]] = []
    for place in sorted(places):
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    names = [diagnoses[place].layer for place in range(len(diagnoses))]
    told = [
        f"{names[run[0]]} to {names[run[-1]]}" if len(run) > 2 else ", ".join(names[place] for place in run)
        for run in runs
    ]
    more = sum(len(run) for run in runs[_SPANS:])
    return ", ".join(told[:_SPANS]) + (f" and {more} more" if more else "")


def _range(fractions: Sequence[float]) -> str:
    low, high = f"{min(fractions):.1%}", f"{max(fractions):.1%}"
    return low if low == high else f"{low} to {high}"
