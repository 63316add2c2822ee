"""A trial as a terminal table: the trade of dead latents against the error, step by step."""

from collections.abc import Mapping

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from autopsae.diagnosis.survey import Survey
from autopsae.report.fitting import Fitting, empty_table, plain
from autopsae.report.text import dead_cell, survey_text
from autopsae.trial.result import Outcome, Point, Trial
from autopsae.words import fvu_text, printable


def trials_text(survey: Survey, trials: Mapping[str, Trial]) -> RenderableType:
    """A diagnosis and the trials of its layers, by name. What the trials prescribe counts, so it comes first; under
    it stands what the diagnosis said before. Without a trial it is the diagnosis alone.
    """
    if not trials:
        return survey_text(survey)
    chosen = [plain(_choice(trial), "bold") for trial in trials.values()] if len(trials) > 1 else []
    before = f"\nThe diagnosis, before the trial{'s' * (len(trials) > 1)}. What it prescribes for "
    heading = Text(f"{before}{', '.join(map(printable, trials))} no longer counts.\n", style="bold")
    apart = [part for trial in trials.values() for part in (Text(), trial_text(trial))]
    return Group(*chosen, *(apart if chosen else apart[1:]), heading, survey_text(survey))


def trial_text(trial: Trial) -> RenderableType:
    """What is chosen and why, and how often tokens were seen, if more than once. Below, a row per candidate: dead
    latents and raw FVU at birth and after each number of steps, the FVU without stray tokens at the end, and what
    is expected at the end of the training. The chosen one is in bold. A narrow terminal gets a few lines for each.
    """
    table = empty_table(_title(trial))
    table.add_column("candidate", no_wrap=True)
    steps = max((outcome.points for outcome in trial.outcomes), key=len)
    for point in steps:
        table.add_column("at birth" if point.step == 0 else f"step {point.step:,}", justify="right", no_wrap=True)
    table.add_column("without strays", justify="right", no_wrap=True)
    table.add_column(f"expected at {trial.budget.for_steps:,}", justify="right", no_wrap=True)
    for outcome in trial.outcomes:
        cells: list[RenderableType] = [_cell(point) for point in outcome.points]
        cells += [Text("diverged" if outcome.diverged else "")] * (len(steps) - len(cells))
        table.add_row(_name(outcome, trial), *cells, _typical(outcome), _later(outcome))
    narrow = [line for outcome in trial.outcomes for line in _in_lines(outcome, trial)]
    chosen = plain(_choice(trial), "bold")
    said = [trial.prescription.reason]
    if trial.epochs > 1:
        said.append(
            f"{trial.tokens:,} tokens were trained on, each {trial.epochs:,.1f} times: take more if you can"
        )
    why = [Padding(plain(line), (0, 0, 0, 2)) for line in said]
    findings = [plain(f" - {finding}") for finding in trial.findings]
    return Group(chosen, *why, *findings, Text(), Fitting(table, narrow))


def _choice(trial: Trial) -> str:
    return f"{trial.prescription.layer}: the trial prescribes {trial.chosen}: {trial.prescription.instruction}"


def _title(trial: Trial) -> str:
    documents = " of whole documents" if trial.by_document else ""
    return f"dead latents and raw FVU on {trial.held_out:,} held-out tokens{documents}"


def _name(outcome: Outcome, trial: Trial) -> Text:
    return plain(outcome.name, "bold" if outcome.name == trial.chosen else "")


def _cell(point: Point) -> Text:
    return Text.assemble(dead_cell(point.dead), f" {_fvu(point.fvu_raw)}")


def _typical(outcome: Outcome) -> Text:
    return Text("" if outcome.diverged else _fvu(outcome.end.fvu_typical))


def _later(outcome: Outcome) -> Text:
    return Text() if outcome.later is None else _cell(outcome.later)


def _fvu(fvu: float | None) -> str:
    """An FVU to three digits, those that are 0 too."""
    return "none" if fvu is None else f"{fvu:#.3g}".removesuffix(".") if fvu < 1000 else fvu_text(fvu)


def _in_lines(outcome: Outcome, trial: Trial) -> list[RenderableType]:
    """A row of the table as lines."""
    if outcome.diverged:
        return [_name(outcome, trial), Padding(plain(f"diverged: {outcome.diverged}"), (0, 0, 0, 2))]
    steps = [Text.assemble(f"step {point.step:,}: ", _cell(point)) for point in outcome.points]
    steps.append(Text(f"without strays: {_fvu(outcome.end.fvu_typical)}"))
    later = Text.assemble("expected at the end of your training: ", _later(outcome))
    lines = (Columns(steps, padding=(0, 2)), later)  # a step stays on one line
    return [_name(outcome, trial), *(Padding(line, (0, 0, 0, 2)) for line in lines)]
