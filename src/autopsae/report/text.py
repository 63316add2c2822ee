"""A survey as a terminal table with its findings under it."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autopsae.diagnosis.survey import COMPARED, Survey

_GOOD, _BAD = 0.01, 0.2  # dead fractions under and over which a cell is green or red


def survey_text(survey: Survey) -> RenderableType:
    """A row per layer: severity, predicted and measured death at birth, prescription; then findings by layer."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False, title=_title(survey))
    table.add_column("layer", no_wrap=True)
    for name in ("gamma", "raw", "rank", "formula", *COMPARED):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("prescribed", no_wrap=True)
    for d in survey:
        s = d.severity
        table.add_row(
            Text(d.layer),
            f"{s.gamma:.2f}",
            f"{s.gamma_raw:.2f}",
            f"{s.effective_rank_fraction:.1%}",
            f"{d.predicted.dead:.1%}",
            *(_dead(d.birth[name].dead) for name in COMPARED),
            Text(d.prescription.remedy, style="bold"),
        )
    return Group(table, *_explanations(survey))


def _title(survey: Survey) -> str:
    first = next(iter(survey))
    return f"Born dead: d_sae = {first.d_sae:,}, k = {first.k}, {first.tokens:,} tokens of d_in = {first.d_in}"


def _explanations(survey: Survey) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for d in survey:
        lines.append(Text(f"\n{d.layer}: {d.prescription.advice}", style="bold"))
        lines.append(Padding(Text(d.prescription.reason), (0, 0, 0, 2)))
        for finding in d.findings:
            bullet = Table.grid(padding=(0, 1))
            bullet.add_row(" -", Text(str(finding)))
            lines.append(bullet)
    return lines


def _dead(fraction: float) -> Text:
    style = "green" if fraction <= _GOOD else "red" if fraction > _BAD else "yellow"
    return Text(f"{fraction:.1%}", style=style)
