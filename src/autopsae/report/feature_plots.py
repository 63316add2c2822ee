"""Figures of what latents know: probes, monosemanticity, top activations."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from autopsae.features.examples import LatentExamples, TopActivations
from autopsae.features.latent_probes import ProbeCoverage
from autopsae.features.monosemanticity import Monosemanticity
from autopsae.features.probe_survey import ProbeSurvey
from autopsae.features.probes import Probes, ProbeScore
from autopsae.report.count_plots import rates_figure
from autopsae.report.plots import COLORS, MARKERS, draw_grid, draw_legend, label, new_canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 40  # concepts that are named
_BINS = 40


def probes_figure(probes: Probes) -> "Figure":
    """The AUC of each representation by the number of columns that a probe sees; dashed with shuffled labels."""
    return _auc_figure([probes.scores], [probes.shuffled], f"AUC on {sum(probes.test):,} test rows")


def probe_survey_figure(survey: ProbeSurvey) -> "Figure":
    """The same, on average over all labels."""
    of_each = [*survey.probes.values()]
    title = f"Mean AUC over {len(of_each):,} labels"
    return _auc_figure([one.scores for one in of_each], [one.shuffled for one in of_each], title)


def _auc_figure(
    scores: Sequence[Sequence[ProbeScore]], shuffled: Sequence[Sequence[ProbeScore]], title: str
) -> "Figure":
    figure = new_canvas(8, 4.4)
    axis = figure.subplots()
    chance = _means(shuffled)
    for n, (name, by_k) in enumerate(_means(scores).items()):
        color, marker = COLORS[n % len(COLORS)], MARKERS[n % len(MARKERS)]
        axis.plot([*by_k], [*by_k.values()], color=color, marker=marker, markersize=5, label=label(name))
        axis.plot([*chance[name]], [*chance[name].values()], color=color, linestyle="--", linewidth=0.9)
    axis.plot([], [], color="0.4", linestyle="--", linewidth=0.9, label="shuffled labels")
    axis.axhline(0.5, color="0.4", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylim(top=1.02)
    axis.set_xlabel("columns that the probe sees")
    axis.set_ylabel("AUC")
    axis.set_title(title, loc="left", fontsize=10)
    draw_grid(axis)
    draw_legend(axis)
    return figure


def _means(of_each: Sequence[Sequence[ProbeScore]]) -> dict[str, dict[int, float]]:
    """{representation: {columns: mean AUC}}."""
    values: dict[str, dict[int, list[float]]] = {}
    for scores in of_each:
        for score in scores:
            values.setdefault(score.representation, {}).setdefault(score.k, []).append(score.auc)
    return {name: {k: float(np.mean(own)) for k, own in by_k.items()} for name, by_k in values.items()}


def probe_coverage_figure(coverage: ProbeCoverage) -> "Figure":
    """The F1 of the best probe of each concept, on validation and on test documents."""
    best = sorted(coverage.probes, key=lambda probe: -min(probe.validation_f1, probe.f1))[:_SHOWN]
    figure = new_canvas(7.6, max(2.6, 1.4 + 0.2 * len(best)))
    axis = figure.subplots()
    for n, (key, name) in enumerate((("f1", "test documents"), ("validation_f1", "validation documents"))):
        values = [getattr(probe, key) for probe in best]
        axis.plot(values, range(len(best)), linestyle="", color=COLORS[n + 1], marker=MARKERS[n], label=name)
    axis.set_yticks(range(len(best)), [label(probe.concept, 30) for probe in best], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("F1")
    axis.set_title(f"Probes of one latent, {len(coverage.probes):,} concepts", loc="left", fontsize=10)
    draw_grid(axis)
    draw_legend(axis)
    return figure


def monosemanticity_figure(score: Monosemanticity) -> "Figure":
    """The latents by their score over all inputs and over their 16 largest."""
    figure = new_canvas(7.2, 4.2)
    axis = figure.subplots()
    variants: Mapping[str, np.ndarray] = {"over all inputs": score.all_inputs, "over the top 16": score.top_16}
    known = {name: values[np.isfinite(values)] for name, values in variants.items()}
    every = np.concatenate([*known.values(), [0.0, 1.0]])
    edges = np.linspace(every.min(), every.max(), _BINS + 1).tolist()
    for n, (name, values) in enumerate(known.items()):
        axis.hist(values, edges, histtype="step", color=COLORS[n + 1], linewidth=1.5, label=name)
    if score.by_chance is not None:
        axis.axvline(score.by_chance, color="0.4", linestyle="--", linewidth=0.9, label="by chance")
    axis.set_xlabel("monosemanticity")
    axis.set_ylabel("latents")
    axis.set_title(f"{score.scored:,} of {len(score.fired):,} latents have a score", loc="left", fontsize=10)
    draw_grid(axis)
    draw_legend(axis)
    return figure


def examples_figure(examples: LatentExamples) -> "Figure":
    """The codes of a latent's examples against their quantiles."""
    figure = new_canvas(7.2, 3.8)
    axis = figure.subplots()
    for n, (name, some) in enumerate((("largest codes", examples.top), ("spread", examples.spread))):
        places = [100 * one.quantile for one in some]
        codes = [one.value for one in some]
        axis.plot(places, codes, linestyle="", color=COLORS[n + 1], marker=MARKERS[n], label=name)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("quantile of the codes, %")
    axis.set_ylabel("code")
    axis.set_title(str(examples), loc="left", fontsize=10)
    draw_grid(axis)
    draw_legend(axis)
    return figure


def activations_figure(tops: TopActivations) -> "Figure":
    """How many latents fire how often."""
    return rates_figure(tops.fired, tops.tokens)
