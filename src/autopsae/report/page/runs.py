"""What the page says of a training, and of a sweep: how it ended, and how it went."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.commands import act_on_run
from autopsae.report.page.parts import (
    Cell,
    Detail,
    Figure,
    Section,
    Table,
    anchor,
    number,
    percent,
    with_interval,
)
from autopsae.report.page.read import Curves, Saved
from autopsae.report.training import latents_of, run_line
from autopsae.tables import flatten

Summary = Mapping[str, Any]
_PATHWAYS = {
    "dead": "dead",
    "dead_by_relu": "dead, never positive",
    "dead_by_topk": "dead, never selected",
    "never_fired": "have not fired since step 0",
}
_MEASURED = {
    "dead": "dead",
    "dead_by_relu": "never positive",
    "dead_by_topk": "positive, never selected",
    "fvu_raw": "raw FVU",
    "fvu_typical": "FVU without strays",
    "mse_raw": "squared error per token",
    "l0": "L0",
    "bias_captured": "share of the mean that b_dec holds",
}
_FRACTIONS = {"dead", "dead_by_relu", "dead_by_topk", "bias_captured"}


def run_section(saved: Saved) -> Section:
    """The section of a run."""
    summary = saved.content
    diverged = summary["diverged"]
    layer = f" on {summary['layer']}" if isinstance(summary.get("layer"), str) else ""
    curves = saved.curves.get("", Curves())
    return Section(
        anchor=anchor(saved.name),
        title=f"Training{layer}: {latents_of(summary)}",
        verdict=(f"{saved.name} diverged: {diverged}." if diverged else f"{run_line(saved.name, summary)}.",),
        warnings=tuple(summary.get("warnings", ())),
        code=() if diverged else act_on_run(saved.name, saved.wrote),
        figures=(*_curve_figures(curves, saved.name), *rate_figures(summary, saved.name)),
        tables=(numbers_table(summary),),
        details=(
            Detail(
                anchor=anchor(saved.name, "settings"),
                title="Settings",
                summary="what the SAE is and how it was trained",
                tables=(settings_table(summary),),
            ),
        ),
    )


def _curve_figures(curves: Curves, of: str) -> tuple[Figure, ...]:
    """How a run went; no figure of what was not recorded."""
    if not curves.records:
        return ()
    step = Axis(title="step", form=",")
    shown = (
        "" if len(curves.records) == curves.of else f" {len(curves.records):,} of {curves.of:,} records are drawn."
    )
    dead = [curve(curves.records, key, words, n) for n, (key, words) in enumerate(_PATHWAYS.items())]
    measured = {
        key: curve(curves.held_out, key, f"{words}, held out", style, is_open=True)
        for key, words, style in (("dead", "dead", 0), ("fvu_raw", "raw FVU", 2))
    }
    fvu = [curve(curves.records, "fvu", "FVU of the batch", 2), measured["fvu_raw"]]
    charts = (
        (
            "Dead latents by step and pathway",
            "The fraction of the latents that were silent on the last tokens of training. A dead latent was "
            "never positive, or positive and never selected. Open: counted on held-out tokens.",
            [*dead, measured["dead"]],
            Axis(title="latents", form=".1%"),
        ),
        (
            "Error by step",
            "The fraction of variance unexplained; 1 is what predicting the mean gives.",
            fvu,
            Axis(title="FVU"),
        ),
        (
            "Threshold by step",
            "The smallest code over zero of each token, on average: what a latent has to exceed to be selected.",
            [curve(curves.records, "threshold", "threshold", 3)],
            Axis(title="smallest code"),
        ),
        (
            "What b_dec holds of the mean, by step",
            "b_dec · mean / ||mean||², in raw space: at 1 the bias has reached the mean of the tokens.",
            [curve(curves.records, "bias_captured", "share of the mean", 1)],
            Axis(title="share of the mean", form=".1%"),
        ),
    )
    return tuple(
        chart(title, caption + shown, drawn, x=step, y=axis, of=of, has_legend=len(series) > 1)
        for title, caption, series, axis in charts
        if (drawn := [one for one in series if any(value is not None for value in one.y)])
    )


def curve(
    records: Sequence[Mapping[str, Any]], key: str, name: str, style: int, *, is_open: bool = False
) -> Series:
    """The values of `key` over the steps done."""
    return Series(
        name=name,
        x=[record["step"] + 1 for record in records],
        y=[record.get(key) for record in records],
        style=style,
        mode="lines+markers" if is_open or len(records) < 40 else "lines",
        is_open=is_open,
    )


def rate_figures(summary: Summary, of: str) -> tuple[Figure, ...]:
    """How many latents fire how often; () where the summary does not say it."""
    rates = summary.get("firing_rates")
    if not rates:
        return ()
    bars = Series(name="latents", x=list(range(len(rates))), y=list(rates.values()), style=2)
    return (
        chart(
            "How often latents fire",
            "The number of latents by the share of the held-out tokens on which they fire; each bar begins where "
            "the one before it ends.",
            [bars],
            x=Axis(title="share of the tokens", names=[_rate_words(name) for name in rates]),
            y=Axis(title="latents", form=",.0f"),
            of=of,
            bars=True,
        ),
    )


def _rate_words(name: str) -> str:
    """A bin of rates as the summary names it, such as "<= 0.01", in percent."""
    most = name.removeprefix("<= ")
    try:
        return f"up to {100 * float(most):g}%" if float(most) else "0%"
    except ValueError:
        return name


def numbers_table(summary: Summary) -> Table:
    """Before and after training."""
    rows = []
    for key, words in _MEASURED.items():
        write = percent if key in _FRACTIONS else number
        rows.append((Cell(words), write(summary["birth"].get(key)), write(summary.get(key))))
    interval = summary.get("dead_forecast_interval")
    if summary.get("dead_forecast") is not None:
        words = f"expected dead on {summary['dead_forecast_tokens']:,} tokens"
        rows.append((Cell(words), Cell(""), with_interval(summary["dead_forecast"], interval)))
    name = f"{summary['name']}: on" if "name" in summary else "On"
    tokens = summary["birth"].get("tokens")
    held_out = f"{tokens:,.0f} " if tokens else ""
    return Table(
        caption=f"{name} {held_out}held-out tokens",
        header=("number", "at birth", f"after {summary['steps']:,} steps"),
        rows=tuple(rows),
    )


def settings_table(summary: Summary) -> Table:
    """What the SAE is and how it was trained."""
    rows = tuple((Cell(name), value_cell(value)) for name, value in settings_of(summary).items())
    name = f"{summary['name']}: settings" if "name" in summary else "Settings"
    return Table(caption=name, header=("setting", "value"), rows=rows)


_ABOUT = ("layer", "start", "alpha", "rank", "d_sae", "sparsity", "k", "scale", "layer_norm", "seed")


def settings_of(summary: Summary) -> dict[str, Any]:
    """What the SAE is and how it was trained, by name."""
    about = {name: summary[name] for name in _ABOUT if name in summary}
    training = flatten(summary["training"])
    return {**{name: value for name, value in training.items() if name not in about}, **about}


def value_cell(value: Any) -> Cell:
    """A setting."""
    if type(value) in (int, float):
        return number(value, ",") if isinstance(value, int) else number(value, ".6g")
    return Cell("none" if value is None else str(value))
