"""What the page says of a trial: the trade of dead latents against the error, and how it went by step."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopsae.report.page.charts import WIDE, Axis, Series, chart
from autopsae.report.page.commands import act_on_trial
from autopsae.report.page.parts import (
    Cell,
    Code,
    Figure,
    Section,
    Table,
    anchor,
    count,
    number,
    percent,
    said_of,
)

_ENDINGS = {
    "slow": "b_dec learns at a lower rate",
    "frozen": "b_dec stays as it starts",
    "fitted": "the rows of the encoder start at the best length",
}


def trial_section(trial: Mapping[str, Any], name: str, code: tuple[Code, ...] | None = None) -> Section:
    """The section of a trial. name: of the result that holds it; code: what to run, where that is known."""
    own = anchor(name, "trial", trial["layer"])
    documents = " of whole documents" if trial["by_document"] else ""
    warnings = []
    if trial["epochs"] > 1:
        warnings.append(
            f"{trial['tokens']:,} tokens were trained on, each {trial['epochs']:.1f} times: take more if you can."
        )
    return Section(
        anchor=own,
        title=f"Trial on {trial['layer']}: {len(trial['candidates'])} candidates",
        verdict=(f"{trial['layer']}: the trial prescribes {trial['chosen']}: {trial['reason']}.",),
        warnings=tuple(warnings),
        findings=said_of(trial["findings"]),
        code=act_on_trial(trial) if code is None else code,
        figures=_figures(trial, own),
        tables=(_table(trial, f"Dead latents and raw FVU on {trial['held_out']:,} held-out tokens{documents}"),),
    )


def _figures(trial: Mapping[str, Any], of: str) -> tuple[Figure, ...]:
    candidates = trial["candidates"]
    errors = [p["fvu_raw"] for c in candidates for p in _points(c) if p["fvu_raw"] is not None]
    over_zero = [error for error in errors if error > 0]
    is_log = bool(over_zero) and len(over_zero) == len(errors) and max(errors) > WIDE * min(errors)
    error = Axis(title="raw FVU on held-out tokens", is_log=is_log)
    dead = Axis(title="dead latents", form=".1%")
    step = Axis(title="step", form=",")
    accepted = {f"{trial['acceptable']:.1%} are accepted": trial["acceptable"]}
    return (
        chart(
            "The trade: dead latents against the error",
            "A path for each candidate, from its birth through the steps at which it was measured, to what is "
            f"expected at the end of a training of {trial['for_steps']:,} steps. Down and to the left is better."
            + _names_said(candidates),
            [_path(candidate, n) for n, candidate in enumerate(candidates)],
            x=error,
            y=dead,
            of=of,
            lines=accepted,
        ),
        chart(
            "Dead latents by step",
            "At birth (step 0), after each number of steps of the trial, and as expected at the end of training.",
            [_by_step(candidate, n, "dead") for n, candidate in enumerate(candidates)],
            x=step,
            y=dead,
            of=of,
            lines=accepted,
        ),
        chart(
            "Raw FVU by step",
            "The squared error on held-out tokens over their variance; 1 is what predicting their mean gives.",
            [_by_step(candidate, n, "fvu_raw") for n, candidate in enumerate(candidates)],
            x=step,
            y=error,
            of=of,
        ),
    )


def _names_said(candidates: Sequence[Mapping[str, Any]]) -> str:
    """What the endings of the candidates' names mean, as far as there are any."""
    said = [
        f"{name}: {words}"
        for name, words in _ENDINGS.items()
        if any(name in c["name"].split("_") for c in candidates)
    ]
    return f" In the names, {'; '.join(said)}." if said else ""


def _points(candidate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those that were measured, then what is expected, where that is later."""
    points = list(candidate["points"])
    later = candidate.get("later")
    return [*points, later] if later and later["step"] > points[-1]["step"] else points


def _path(candidate: Mapping[str, Any], style: int) -> Series:
    points = [point for point in _points(candidate) if point["fvu_raw"] is not None]
    last = candidate["points"][-1]["step"]
    words = [f"expected at step {p['step']:,}" if p["step"] > last else f"step {p['step']:,}" for p in points]
    return Series(
        name=candidate["name"],
        x=[point["fvu_raw"] for point in points],
        y=[point["dead"] for point in points],
        labels=words,
        style=style,
    )


def _by_step(candidate: Mapping[str, Any], style: int, value: str) -> Series:
    points = _points(candidate)
    return Series(
        name=candidate["name"],
        x=[point["step"] for point in points],
        y=[point[value] for point in points],
        style=style,
    )


def _table(trial: Mapping[str, Any], caption: str) -> Table:
    rows = []
    for candidate in trial["candidates"]:
        birth, end, later = candidate["points"][0], candidate["points"][-1], candidate.get("later")
        chosen = " (prescribed)" if candidate["name"] == trial["chosen"] else ""
        measured: Sequence[Cell] = (
            count(end["step"]),
            percent(end["dead"]),
            number(end["fvu_raw"]),
            number(end["fvu_typical"]),
        )
        if candidate["diverged"]:
            measured = (Cell(f"diverged: {candidate['diverged']}"), Cell(""), Cell(""), Cell(""))
        expected = (percent(later["dead"]), number(later["fvu_raw"])) if later else (Cell("none"), Cell("none"))
        rows.append((Cell(candidate["name"] + chosen), percent(birth["dead"]), *measured, *expected))
    header = ("candidate", "born dead", "steps", "dead", "raw FVU", "FVU without strays")
    later_names = (f"dead at {trial['for_steps']:,}, expected", f"raw FVU at {trial['for_steps']:,}, expected")
    return Table(caption=caption, header=(*header, *later_names), rows=tuple(rows))
