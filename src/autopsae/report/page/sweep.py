"""What the page says of a sweep: its SAEs side by side, and each on its own."""

from collections.abc import Mapping, Sequence

from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.commands import act_on_run
from autopsae.report.page.parts import Cell, Detail, Figure, Section, Table, anchor, number, percent, with_interval
from autopsae.report.page.read import Curves, Saved
from autopsae.report.page.runs import (
    Summary,
    curve,
    numbers_table,
    rate_figures,
    settings_of,
    settings_table,
    value_cell,
)
from autopsae.report.training import run_line


def sweep_section(saved: Saved) -> Section:
    """The section of a sweep: the members side by side, and each on its own."""
    members: list[Summary] = list(saved.content["members"])
    best = saved.content["best"]
    links = [anchor(saved.name, "member", member["name"]) for member in members]
    said = [
        f"{data or 'The sweep'}: {name} has the lowest error on held-out tokens of "
        f"{sum(member['data'] == data for member in members)} SAEs."
        if name
        else f"{data or 'The sweep'}: all SAEs diverged; lower the learning rates."
        for data, name in best.items()
    ]
    winners = [member for member in members if member["name"] in best.values() and member["diverged"] is None]
    warnings = [
        f"{member['name']}: {line}"
        for member in members
        for line in [*member.get("warnings", ()), *([member["diverged"]] if member["diverged"] else [])]
    ]
    return Section(
        anchor=anchor(saved.name),
        title=f"Sweep of {len(members)} SAEs",
        verdict=(*said, *(f"{run_line(member['name'], member)}." for member in winners)),
        warnings=tuple(warnings),
        code=tuple(
            code
            for member in winners
            for code in act_on_run(f"{saved.name}/{member.get('folder', member['name'])}", saved.wrote)
        ),
        figures=_sweep_figures(members, links, saved),
        tables=(_members(members, links, best),),
        details=tuple(_member(member, link, saved) for member, link in zip(members, links, strict=True)),
    )


def _member(member: Summary, link: str, saved: Saved) -> Detail:
    diverged = member["diverged"]
    name = member["name"]
    return Detail(
        anchor=link,
        title=name,
        summary="diverged" if diverged else f"{member['dead']:.1%} dead, raw FVU {number(member['fvu_raw']).text}",
        said=(f"{diverged}." if diverged else f"{run_line(name, member)}.",),
        figures=rate_figures(member, f"{saved.name}/{name}"),
        tables=(numbers_table(member), settings_table(member)),
    )


def _members(members: Sequence[Summary], links: Sequence[str], best: Mapping[str, str | None]) -> Table:
    """A row for each member: the settings in which they differ, then the numbers."""
    settings = [settings_of(member) for member in members]
    names = [*dict.fromkeys(name for one in settings for name in one)]
    differing = [name for name in names if len({str(one.get(name)) for one in settings}) > 1]
    rows = []
    for member, own, link in zip(members, settings, links, strict=True):
        mark = " (best)" if member["name"] == best.get(member["data"]) else ""
        numbers: list[Cell] = [percent(member["birth"].get("dead"))]
        if member["diverged"]:
            numbers += [Cell("diverged")] + [Cell("")] * 5
        else:
            forecast = with_interval(member.get("dead_forecast"), member.get("dead_forecast_interval"))
            fvu = [number(member.get(key)) for key in ("fvu_raw", "fvu_typical", "mse_raw")]
            numbers += [percent(member["dead"]), forecast, *fvu, number(member["l0"])]
        rows.append(
            (Cell(member["name"] + mark, None, link), *(value_cell(own.get(n)) for n in differing), *numbers)
        )
    header = ("SAE", *differing, "born dead", "dead", "expected dead", "raw FVU", "FVU without strays")
    return Table(caption="All SAEs of the sweep", header=(*header, "squared error", "L0"), rows=tuple(rows))


def _sweep_figures(members: Sequence[Summary], links: Sequence[str], saved: Saved) -> tuple[Figure, ...]:
    ended = [
        (n, member) for n, member in enumerate(members) if not member["diverged"] and member["fvu_raw"] is not None
    ]
    figures = []
    if ended:
        points = [
            Series(
                name=member["name"],
                x=[member["fvu_raw"]],
                y=[member["dead"]],
                labels=[f"after {member['steps']:,} steps"],
                links=[links[n]],
                style=n,
                mode="markers",
            )
            for n, member in ended
        ]
        title = "Dead latents against the error"
        caption = "Each mark is an SAE, on held-out tokens. Down and to the left is better."
        action = "Click a mark for its details."
        x, y = Axis(title="raw FVU on held-out tokens"), Axis(title="dead latents", form=".1%")
        figures.append(chart(title, caption, points, x=x, y=y, of=saved.name, action=action))
    for key, title, axis in (
        ("never_fired", "Latents that have not fired since step 0, by step", Axis(title="latents", form=".1%")),
        ("dead", "Dead latents by step", Axis(title="latents", form=".1%")),
        ("fvu", "Error of the batch by step", Axis(title="FVU")),
        ("threshold", "Threshold by step", Axis(title="smallest code")),
        ("bias_captured", "What b_dec holds of the mean, by step", Axis(title="share of the mean", form=".1%")),
    ):
        curves = [
            curve(saved.curves[member["name"]].records, key, member["name"], n)
            for n, member in enumerate(members)
            if saved.curves.get(member["name"], Curves()).records
        ]
        known = [one for one in curves if any(value is not None for value in one.y)]
        if known:
            caption = "A line for each SAE, from the records of its training."
            figures.append(chart(title, caption, known, x=Axis(title="step", form=","), y=axis, of=saved.name))
    return tuple(figures)
