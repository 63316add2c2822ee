"""A chart with a mark for each latent: a click on a mark shows all that is known of its latent."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autopsae.report.page.charts import WIDE, Axis, Series, chart
from autopsae.report.page.parts import Figure, Number

_ROWS = 200  # of the figure's table at most: thousands would keep a browser busy

Row = Mapping[str, Any]


def chart_marks(
    title: str,
    caption: str,
    groups: Mapping[str, Sequence[Row]],
    *,
    keys: tuple[str, str],
    x: Axis,
    y: Axis,
    of: str,
    action: str,
    lookup: str,
) -> Figure:
    """A mark for each row, which has the numbers "latent" and "fired" and those of `keys`, along x and upwards.

    groups: rows with a colour and a name in common; action: what a click does; lookup: what a click on a mark asks
    for its row. An axis on which the numbers spread widely is logarithmic.
    """
    along, upwards = keys
    series = [
        Series(
            name=f"{name} ({len(own):,})",
            x=[row[along] for row in own],
            y=[row[upwards] for row in own],
            labels=[f"latent {row['latent']}, fired {row['fired']:,} times" for row in own],
            style=style,
            mode="markers",
        )
        for style, (name, own) in enumerate(groups.items())
    ]
    rows = [row for own in groups.values() for row in own]
    x, y = (replace(axis, is_log=_is_wide([row[key] for row in rows])) for axis, key in ((x, along), (y, upwards)))
    figure = chart(title, caption, series, x=x, y=y, of=of, action=action)
    for trace, own in zip(figure.drawn["data"], groups.values(), strict=True):
        trace["customdata"] = [row["latent"] for row in own]
        trace["meta"] = "row"  # the page makes the words of thousands of marks itself
        del trace["hovertext"]
        trace |= {name: [float(f"{value:.5g}") for value in trace[name]] for name in ("x", "y")}
    figure.drawn["layout"]["meta"]["lookup"] = lookup
    few = figure.table.rows[:_ROWS]
    more = f"; {len(few):,} of {len(rows):,} latents, any other is shown below" if len(few) < len(rows) else ""
    table = replace(figure.table, caption=figure.table.caption + more, rows=few)
    return replace(figure, table=table)


def _is_wide(values: Sequence[Number]) -> bool:
    return min(values) > 0 and max(values) > WIDE * min(values)
