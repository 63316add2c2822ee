"""What the page says of probes and of monosemanticity."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.parts import Cell, Number, Section, Table, anchor, count, number
from autopsae.report.page.read import Saved

MOST = 2000
"""Rows of a table at most; the JSON has all."""
_BINS = 20


def probes_section(probes: Mapping[str, Mapping[str, Any]], saved: Saved) -> Section:
    """The section of the probes of some labels."""
    rows, of = [], anchor(saved.name, "probes")
    aucs: dict[str, dict[int, list[float]]] = {}
    for label, own in probes.items():
        for score, chance in zip(own["scores"], own["shuffled"], strict=False):
            aucs.setdefault(score["representation"], {}).setdefault(score["k"], []).append(score["auc"])
            values = (score["auc"], chance["auc"], score["accuracy"], score["f1"])
            cells = (Cell(score["representation"]), count(score["k"]), *(number(v, ".3f") for v in values))
            rows.append((Cell(label), *cells))
    means = {name: {k: sum(own) / len(own) for k, own in by_k.items()} for name, by_k in aucs.items()}
    most = max((k for by_k in means.values() for k in by_k), default=0)
    best_first = sorted((name for name in means if most in means[name]), key=lambda name: -means[name][most])
    ranked = ", ".join(f"{name} {means[name][most]:.3f}" for name in best_first)
    said = [f"Mean AUC of probes that see {most:,} column{'s' * (most != 1)}: {ranked}."] if ranked else []
    series = [
        Series(name=name, x=list(by_k), y=list(by_k.values()), style=n + 1)
        for n, (name, by_k) in enumerate(means.items())
    ]
    caption = f"Mean over {len(probes):,} labels; 0.5 is chance."
    axis = Axis(title="columns that the probe sees", form=",", is_log=True)
    figure = chart("AUC of sparse probes", caption, series, x=axis, y=Axis(title="AUC", form=".3f"), of=of)
    more = f"; {MOST:,} of {len(rows):,} are shown" if len(rows) > MOST else ""
    header = ("label", "representation", "k", "AUC", "AUC of shuffled labels", "accuracy", "F1")
    table = Table(caption=f"Probes{more}", header=header, rows=tuple(rows[:MOST]))
    title = f"Probes of {len(probes):,} labels"
    return Section(anchor=of, title=title, verdict=tuple(said), figures=(figure,), tables=(table,))


def monosemanticity_section(scores: Mapping[str, Mapping[str, Any]], saved: Saved) -> Section:
    """The section of how many meanings latents have."""
    of = anchor(saved.name, "monosemanticity")
    keys = ("mean", "mean_with_dead_as_zero", "mean_top_16", "by_chance")
    rows = tuple(
        (Cell(name), count(one["scored"]), count(one["d_sae"]), *(number(one[key], ".3f") for key in keys))
        for name, one in scores.items()
    )
    header = ("SAE", "latents with a score", "latents", "mean", "others as 0", "top 16 inputs", "by chance")
    said = [
        f"{name}: monosemanticity {number(one['mean'], '.3f').text} on average over {one['scored']:,} of "
        f"{one['d_sae']:,} latents ({number(one['by_chance'], '.3f').text} by chance)."
        for name, one in scores.items()
    ]
    drawn = [
        _histogram(name, [v for v in one.get("all_inputs", []) if type(v) in (int, float)], n + 1)
        for n, (name, one) in enumerate(scores.items())
    ]
    known = [one for one in drawn if one is not None]
    caption = f"The latents by their score, in {_BINS} bins of equal width."
    x, y = Axis(title="monosemanticity", form=".2f"), Axis(title="latents", form=",.0f")
    figures = (chart("Latents by monosemanticity", caption, known, x=x, y=y, of=of),) if known else ()
    table = Table(caption="Monosemanticity of the latents", header=header, rows=rows)
    return Section(anchor=of, title="Monosemanticity", verdict=tuple(said), figures=figures, tables=(table,))


def _histogram(name: str, values: Sequence[Number], style: int) -> Series | None:
    """Latents by score; None where there is no score."""
    if not values:
        return None
    low, high = min(0.0, *values), max(1.0, *values)
    width = (high - low) / _BINS
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / width))] += 1
    return Series(name=name, x=[low + (n + 0.5) * width for n in range(_BINS)], y=counts, style=style)
