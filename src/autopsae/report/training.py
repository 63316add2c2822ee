"""How a training ended, in a sentence."""

from collections.abc import Mapping
from typing import Any

from autopsae.run.verdict import MEAN
from autopsae.survival.outlook import DeadForecast
from autopsae.words import fvu_text


def run_line(name: object, summary: Mapping[str, Any]) -> str:
    """The latents that were born dead and that are dead in the end, and the error. name: of the run; summary: what
    its summary.json says, of one that did not diverge.
    """
    born_dead, dead, tokens = summary["birth"]["dead"], summary["dead"], summary["dead_tokens"]
    resampled = summary.get("resampled_at_end")
    late = ""
    if resampled:
        latents, before = resampled["latents"], resampled["steps_before_end"]
        late = f"; {latents:,} latents were drawn afresh {before:,} steps before the end"
    fvu = fvu_text(summary["fvu_raw"]) + worse_than_mean(summary["fvu_raw"])
    by_relu, by_topk = summary["dead_by_relu"], summary["dead_by_topk"]
    return (
        f"{name}: {born_dead:.1%} of {latents_of(summary)} were born dead, {dead:.1%} are dead after "
        f"{summary['steps']:,} steps ({by_relu:.1%} never positive, {by_topk:.1%} positive but never "
        f"selected), on {tokens:,} held-out tokens{_later(summary)}; raw FVU {fvu}{_typical(summary)}{late}"
    )


def latents_of(summary: Mapping[str, Any]) -> str:
    """How many latents the SAE has, in words; a run of Python need not say it."""
    return f"{summary['d_sae']:,} latents" if "d_sae" in summary else "the latents"


def worse_than_mean(fvu: float | None) -> str:
    """A remark on an error over that of predicting the mean; "" for any other."""
    return ", worse than the mean" if fvu is not None and fvu > MEAN else ""


def _later(summary: Mapping[str, Any]) -> str:
    """What is expected on more tokens. The summary of an earlier version has no forecast."""
    value = summary.get("dead_forecast")
    if value is None:
        return ""
    low, high = summary["dead_forecast_interval"]
    return f"; {DeadForecast(value, low, high, summary['dead_forecast_tokens'])}"


def _typical(summary: Mapping[str, Any]) -> str:
    """The error without strays, where there are some."""
    if not summary.get("strays"):
        return ""
    without = f"without the {summary['strays']:.2%} of over ten times the median norm"
    return f" ({fvu_text(summary['fvu_typical'])} {without})"
