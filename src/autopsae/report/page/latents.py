"""What the page says of the table of an autopsy: every latent's shift against its signal, by fate and cause."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from autopsae.report.page.charts import Axis
from autopsae.report.page.marks import chart_marks
from autopsae.report.page.parts import Figure, Lookup, Number, Section, anchor
from autopsae.survival.closed_form import reach

_FATES = {"alive": "alive", "rare": "rare", "always_on": "always on"}
_PATHWAYS = {"dead_by_relu": "never positive", "dead_by_topk": "never selected"}
_WORDS = {"rate": "share of the tokens", "max_pre": "largest pre-activation", "tied": "encoder · decoder (cosine)"}
_POINTS = 50  # of the line, which is a curve on a logarithmic axis


def latents_section(rows: Sequence[Mapping[str, Any]], name: str) -> Section:
    """The section of the latents of an autopsy, one by one. name: of the result."""
    lookup = _lookup(rows, name)
    dead = sum(row["fired"] == 0 for row in rows)
    return Section(
        anchor=anchor(name, "latents"),
        title=f"{len(rows):,} latents, one by one",
        verdict=(f"{dead:,} of {len(rows):,} latents ({dead / len(rows):.1%}) never fired.",),
        figures=(_figure(rows, name, lookup.anchor),),
        lookup=lookup,
    )


def _lookup(rows: Sequence[Mapping[str, Any]], name: str) -> Lookup:
    """All that is known of each latent."""
    columns = [*rows[0]]
    ordered = ["latent", *(column for column in columns if column != "latent")]
    shown = sorted(rows, key=lambda row: row["latent"])
    return Lookup(
        anchor=anchor(name, "lookup"),
        what="latent",
        header=tuple(_WORDS.get(column, column.replace("_", " ")) for column in ordered),
        rows=[[_value(row[column]) for column in ordered] for row in shown],
    )


def _value(value: Any) -> Number | str:
    """As the page shows it: five digits, words for what JSON has no number for."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return float(f"{value:.5g}") if isfinite(value) else str(value)
    return value if isinstance(value, int) else str(value)


def _figure(rows: Sequence[Mapping[str, Any]], of: str, lookup: str) -> Figure:
    """lookup: what a click on a latent asks for its row."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    figure = chart_marks(
        "Shift against signal",
        "A mark for each latent: what the centre of the tokens adds to its pre-activation, and how much this "
        "varies over tokens. Latents left of the line are never positive if their signal is Gaussian.",
        dict(sorted(groups.items())),
        keys=("shift", "signal"),
        x=Axis(title="shift"),
        y=Axis(title="signal"),
        of=of,
        action="Click a mark for all that is known of its latent.",
        lookup=lookup,
    )
    figure.drawn["data"].extend(_line(rows))
    return figure


def _group(row: Mapping[str, Any]) -> str:
    """What became of a latent: its fate, of a dead one the pathway and the cause."""
    fate, cause = str(row["fate"]), str(row["cause"]).replace("_", " ")
    return f"dead, {_PATHWAYS[fate]}: {cause}" if fate in _PATHWAYS else _FATES.get(fate, fate)


def _line(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """shift = -C signal, C standard deviations being what the best of so many tokens reaches; none where it is not
    known how many there were, as no latent fired.
    """
    tokens = next((round(row["fired"] / row["rate"]) for row in rows if row["rate"] > 0), None)
    if tokens is None:
        return []
    C, signals = reach(tokens), [row["signal"] for row in rows]
    low, high = min(signals), max(signals)
    steps = [n / (_POINTS - 1) for n in range(_POINTS)]
    y = [low * (high / low) ** step if low > 0 else low + (high - low) * step for step in steps]
    line = {"color": "@muted", "dash": "dash", "width": 1.2}
    drawn = {"type": "scatter", "mode": "lines", "name": f"shift = -{C:.2f} signal", "hoverinfo": "skip"}
    return [{**drawn, "x": [-C * value for value in y], "y": y, "line": line}]
