"""Probes and monosemanticity as terminal text."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from autopsae.features.monosemanticity import Monosemanticity
from autopsae.features.probe_survey import ProbeSurvey
from autopsae.features.probes import Probes, score_at
from autopsae.report.fitting import Fitting, empty_table, plain

_SHOWN = 30  # rows of a table on the terminal; all are in the JSON and in --table


def probes_text(survey: ProbeSurvey) -> RenderableType:
    """The AUC of each representation for each label and number of columns, the last column with shuffled labels."""
    first = next(iter(survey.probes.values()))
    names = [*dict.fromkeys(score.representation for score in first.scores)]
    table = empty_table("AUC of logistic probes on test rows (0.5 is chance)")
    table.add_column("label", overflow="fold", min_width=12)
    table.add_column("k", justify="right", no_wrap=True)
    for name in names:
        table.add_column(plain(name), justify="right", overflow="fold", min_width=min(10, len(name)))
    table.add_column("shuffled", justify="right", no_wrap=True)
    lines: list[RenderableType] = []
    rows = [(label, probes, k) for label, probes in survey.probes.items() for k in _sizes(probes)]
    for label, probes, k in rows[:_SHOWN]:
        aucs = {name: f"{score_at(probes.scores, name, k).auc:.3f}" for name in names}
        chance = f"{score_at(probes.shuffled, names[0], k).auc:.3f}"
        table.add_row(plain(label), f"{k:,}", *aucs.values(), chance)
        said = ", ".join(f"{name} {auc}" for name, auc in aucs.items())
        lines.append(plain(f"{label}, k {k:,}: {said}; {names[0]} on shuffled labels {chance}"))
    more = len(rows) - _SHOWN
    rest = [Text(f"and {more:,} rows more, in --table and --json")] if more > 0 else []
    left = [plain(f"left out: {label} ({why})") for label, why in [*survey.left_out.items()][:3]]
    beyond = len(survey.left_out) - len(left)
    left += [Text(f"and {beyond:,} labels more are left out")] if beyond > 0 else []
    return Group(plain(str(survey), "bold"), Text(), Fitting(table, lines), *rest, *left)


def monosemanticity_text(scores: Mapping[str, Monosemanticity]) -> RenderableType:
    """The means of each SAE: over the latents that have a score, with the others as 0, and of the top 16 inputs."""
    table = empty_table("Monosemanticity of the latents")
    table.add_column("SAE", overflow="fold", min_width=12)
    for name in ("latents with a score", "mean", "others as 0", "top 16", "by chance"):
        table.add_column(name, justify="right", no_wrap=True)
    lines: list[RenderableType] = []
    for name, score in scores.items():
        means = (score.mean, score.mean_with_dead_as_zero, score.mean_top_16, score.by_chance)
        cells = ["none" if mean is None else f"{mean:.3f}" for mean in means]
        table.add_row(plain(name, "bold"), f"{score.scored:,} of {len(score.fired):,}", *cells)
        lines.append(plain(f"{name}: {score}; top 16 inputs {cells[2]}"))
    return Fitting(table, lines)


def _sizes(probes: Probes) -> list[int]:
    """Numbers of columns that were asked for: those of the representation that has the most."""
    most = max(probes.scores, key=lambda score: score.k).representation
    return [score.k for score in probes.scores if score.representation == most]
