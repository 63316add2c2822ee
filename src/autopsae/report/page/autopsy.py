"""What the page says of an autopsy: latents by fate, the dead by cause, and what to do."""

from collections.abc import Mapping
from typing import Any

from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.commands import act_on_autopsy
from autopsae.report.page.parts import Cell, Figure, Section, Table, anchor, count, number, percent, said_of
from autopsae.report.page.read import Saved
from autopsae.survival.outlook import DeadForecast

_FATES = {
    "alive": "alive",
    "rare": "rare: fire on few tokens",
    "always_on": "always on",
    "dead_by_relu": "dead, never positive",
    "dead_by_topk": "dead, never selected",
}
_CAUSES = {
    "shift": "shift: the centre of the tokens keeps them silent",
    "low_variance": "low variance: tokens hardly vary where they look",
    "died_in_training": "died in training: fresh latents would fire",
    "outcompeted": "outcompeted: others are stronger on every token",
}
_RECENTRED = {
    "n_woken": "dead latents that then fire",
    "n_displaced": "others that then fall silent",
    "fvu_before": "raw FVU before",
    "fvu_after": "raw FVU after",
    "l0_before": "L0 before",
    "l0_after": "L0 after",
}


def autopsy_section(saved: Saved) -> Section:
    """The section of an autopsy."""
    content = saved.content
    settings = saved.wrote.get("settings")
    sae = settings.get("sae") if isinstance(settings, dict) else None
    of = f"{sae}: {content['d_sae']:,} latents" if isinstance(sae, str) else f"{content['d_sae']:,} latents"
    recentred = content.get("recentred")
    return Section(
        anchor=anchor(saved.name),
        title=f"Autopsy of {of}",
        verdict=(_verdict(content),),
        findings=said_of(content["findings"]),
        code=act_on_autopsy(content, saved.wrote),
        figures=_figures(content, saved.name),
        tables=(_counts(content), *((_recentring_table(recentred),) if isinstance(recentred, dict) else ())),
    )


def _figures(content: Mapping[str, Any], of: str) -> tuple[Figure, ...]:
    """The latents by fate, and the dead by cause where some are dead."""
    by_fate, causes = _bars(_fates(content), _FATES, "Latents by fate", content, of), _causes(content)
    return (by_fate, _bars(causes, _CAUSES, "Dead latents by cause", content, of)) if causes else (by_fate,)


def _fates(content: Mapping[str, Any]) -> dict[str, int]:
    """Latents by fate, each in one: `n_alive` of the JSON are all that fired."""
    alive = content["n_alive"] - content["n_rare"] - content["n_always_on"]
    return {"alive": alive, **{name: content[f"n_{name}"] for name in _FATES if name != "alive"}}


def _causes(content: Mapping[str, Any]) -> Mapping[str, int]:
    """The dead by cause, each in one; {} where none is dead."""
    return content["causes"] if any(content["causes"].values()) else {}


def _verdict(content: Mapping[str, Any]) -> str:
    causes = [
        f"{_CAUSES.get(name, name).split(':')[0]} {number:,}"
        for name, number in content["causes"].items()
        if number
    ]
    because = f", by cause: {', '.join(causes)}" if causes else ""
    later = ""
    if content.get("dead_forecast") is not None and content.get("dead_forecast_interval"):
        low, high = content["dead_forecast_interval"]
        later = f"; {DeadForecast(content['dead_forecast'], low, high, content['dead_forecast_tokens'])}"
    return (
        f"{content['n_dead']:,} of {content['d_sae']:,} latents ({content['dead']:.1%}) are dead on "
        f"{content['tokens']:,} tokens{because}{later}."
    )


def _bars(
    counts: Mapping[str, int], names: Mapping[str, str], title: str, content: Mapping[str, Any], of: str
) -> Figure:
    words = [names.get(name, name).split(":")[0] for name in counts]
    bars = Series(name="latents", x=list(range(len(counts))), y=list(counts.values()), style=2)
    caption = f"Each of the {content['d_sae']:,} latents has one fate, and each dead latent one cause."
    x, y = Axis(title=title.split()[-1], names=words), Axis(title="latents", form=",.0f")
    return chart(title, caption, [bars], x=x, y=y, of=of, bars=True)


def _counts(content: Mapping[str, Any]) -> Table:
    rows = []
    for name, latents in {**_fates(content), **_causes(content)}.items():
        words = {**_FATES, **_CAUSES}.get(name, name)
        rows.append(
            (Cell(words), count(latents), percent(latents / content["d_sae"] if content["d_sae"] else None))
        )
    return Table(
        caption="Latents by fate, and the dead by cause", header=("what", "latents", "share"), rows=tuple(rows)
    )


def _recentring_table(cost: Mapping[str, Any]) -> Table:
    rows = tuple((Cell(words), number(cost.get(name))) for name, words in _RECENTRED.items())
    return Table(caption="If the dead latents are re-centred", header=("number", "value"), rows=rows)
