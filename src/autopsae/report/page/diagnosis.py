"""What the page says of a diagnosis: all layers in figures and a table, and each layer on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autopsae.report.page.commands import act_on_layer
from autopsae.report.page.layer_figures import layer_figures
from autopsae.report.page.parts import (
    Cell,
    Code,
    Detail,
    Said,
    Section,
    Table,
    anchor,
    count,
    number,
    percent,
    said_of,
    with_interval,
)
from autopsae.report.page.read import Saved
from autopsae.report.page.survey_figures import DIMENSION, dimension_cells, remedies_of, survey_figures, tokens_of
from autopsae.report.page.trial import trial_section
from autopsae.report.text import REMEDIES

Layer = Mapping[str, Any]
_NUMBERS = {
    "gamma": "gamma: the mean over the spread, after LayerNorm",
    "gamma_raw": "the same of the raw activations",
    "effective_rank": "effective rank",
    "effective_rank_fraction": "effective rank, of d_in",
    "kurtosis": "excess kurtosis",
    "mean_norm": "norm of the arithmetic mean",
    "median_norm": "norm of the geometric median",
    "mean_median_distance": "distance of the two, in that of a typical token from the median",
    "mean_median_angle": "angle between the two, in degrees",
    "token_norm_median": "norm of the median token",
    "token_norm_p99": "99th percentile of the norms",
    "token_norm_max": "largest norm",
    "stray_tokens": "stray tokens: over ten times the median norm",
    "stray_square": "their share of the squared norm",
}
_FRACTIONS = {"effective_rank_fraction", "stray_tokens", "stray_square"}


def diagnosis_sections(saved: Saved) -> list[Section]:
    """A section for each trial that the JSON holds, as it decides what is prescribed, and one on the layers."""
    layers: list[Layer] = list(saved.content["layers"])
    links = [anchor(saved.name, layer["layer"]) for layer in layers]
    first = layers[0]
    about = f"{len(layers)} layer{'s' * (len(layers) > 1)}, SAE of {first['d_sae']:,} latents"
    trials: Mapping[str, Any] = saved.content.get("trials", {})
    stopped = saved.wrote.get("stopped_after")
    warnings = [] if stopped is None else [f"The diagnosis stopped after {stopped} layers."]
    details = [_detail(layer, link, saved.wrote, saved.name) for layer, link in zip(layers, links, strict=True)]
    figures = survey_figures(saved.name, layers, links)
    if len(layers) == 1:
        # Figures along the layers would have one place: the figures of the layer say more.
        figures = details[0].figures
        details = [replace(details[0], figures=(), findings=(), code=())]
    section = Section(
        anchor=anchor(saved.name),
        title=f"Diagnosis: {about}",
        verdict=(*_before(trials), *(saved.content["verdict"] or map(_head, layers))),
        warnings=tuple(warnings),
        findings=_gravest(layers),
        code=_first_code(layers, saved.wrote),
        figures=figures,
        tables=(_table(layers, links),),
        details=tuple(details),
    )
    by_name = {layer["layer"]: layer for layer in layers}
    of_trials = [
        trial_section(trial, saved.name, act_on_layer(by_name[name], saved.wrote) if name in by_name else None)
        for name, trial in trials.items()
    ]
    return [*of_trials, section]


def _before(trials: Mapping[str, Any]) -> tuple[str, ...]:
    """That the verdict of the diagnosis does not count for layers that were tried."""
    several = "s" * (len(trials) > 1)
    said = f"The diagnosis, before the trial{several}. What it prescribes for {', '.join(trials)} no longer counts."
    return (said,) if trials else ()


def _first_code(layers: Sequence[Layer], wrote: Mapping[str, Any]) -> tuple[Code, ...]:
    """The commands for the layer that is expected to lose the most latents if nothing is changed."""
    gravest = max(layers, key=lambda layer: float(layer["expected"]["none"]["dead"]["value"]))
    code = act_on_layer(gravest, wrote)
    if len(layers) == 1:
        return code
    where = f"For {gravest['layer']}; the details of each other layer have its own."
    return tuple(replace(one, what=f"{one.what} {where}") for one in code)


def _head(layer: Layer) -> str:
    prescription = layer["prescription"]
    return f"{layer['layer']}: {prescription['instruction']}: {prescription['reason']}."


def _gravest(layers: Sequence[Layer]) -> tuple[Said, ...]:
    """Each finding once: at the layer where it is furthest past its threshold, with the layers that have it.
    Those of most layers come first.
    """
    groups: dict[str, list[tuple[str, Said]]] = {}
    for layer in layers:
        for finding in said_of(layer["findings"]):
            groups.setdefault(finding.name, []).append((layer["layer"], finding))
    gravest = []
    for group in sorted(groups.values(), key=len, reverse=True):
        name, worst = max(group, key=lambda pair: _gravity(pair[1]))
        where = f"at {name}" if len(group) == 1 else f"{len(group)} of {len(layers)} layers; gravest at {name}"
        gravest.append(Said(**{**vars(worst), "where": where if len(layers) > 1 else ""}))
    return tuple(gravest)


def _gravity(finding: Said) -> float:
    """How many times the value is past its threshold, as `Finding.gravity`."""
    larger, smaller = max(finding.value, finding.threshold), min(finding.value, finding.threshold)
    return max(larger, 1e-12) / max(smaller, 1e-12)


def _table(layers: Sequence[Layer], links: Sequence[str]) -> Table:
    remedies = remedies_of(layers)
    at = layers[0]["expected"]["none"]["tokens"]
    rows = []
    for layer, link in zip(layers, links, strict=True):
        remedy = layer["prescription"]["remedy"]
        rows.append(
            (
                Cell(layer["layer"], None, link),
                number(layer["gamma"], ".2f"),
                percent(layer["effective_rank_fraction"]),
                percent(layer["predicted"]["dead"]),
                *(percent(layer["birth"][name]["dead"]) for name in remedies),
                percent(layer["expected"]["none"]["dead"]["value"]),
                Cell(remedy),
                percent(layer["expected"][remedy]["dead"]["value"]),
            )
        )
    return Table(
        caption=f"All layers: the share of latents dead on {tokens_of(layers)} tokens, by the formula and under "
        f"each remedy, and expected dead on {at:,}",
        header=(
            "layer",
            "gamma",
            "rank, of d_in",
            "formula",
            *(REMEDIES[name] for name in remedies),
            f"no remedy, on {at:,}",
            "prescribed",
            f"expected on {at:,}",
        ),
        rows=tuple(rows),
    )


def _detail(layer: Layer, link: str, wrote: Mapping[str, Any], name: str) -> Detail:
    prescription = layer["prescription"]
    dead = layer["birth"]["none"]["dead"]
    return Detail(
        anchor=link,
        title=layer["layer"],
        summary=f"{prescription['instruction']}; gamma {layer['gamma']:.2f}, {dead:.1%} born dead as it is",
        said=(
            f"{prescription['instruction']}: {prescription['reason']}.",
            f"The paper's rule: {prescription['paper']}.",
        ),
        findings=said_of(layer["findings"]),
        code=act_on_layer(layer, wrote),
        figures=layer_figures(layer, f"{name} {link}"),
        tables=(_deaths(layer), *_dimension_table(layer), _geometry(layer)),
    )


def _deaths(layer: Layer) -> Table:
    rows = []
    for name, birth in layer["birth"].items():
        later = layer["expected"].get(name)
        expected = later and with_interval(later["dead"]["value"], (later["dead"]["low"], later["dead"]["high"]))
        rows.append(
            (
                Cell(name),
                with_interval(birth["dead"], birth.get("dead_interval")),
                percent(birth["dead_by_relu"]),
                percent(birth["dead_by_topk"]),
                expected or Cell(""),
                percent(later["usage"]) if later else Cell(""),
            )
        )
    at = layer["expected"]["none"]["tokens"]
    header = ("remedy", "born dead", "never positive", "never selected", f"expected on {at:,} tokens", "usage")
    tokens = layer["birth"]["none"]["tokens"]
    return Table(caption=f"{layer['layer']}: dead on {tokens:,} tokens", header=header, rows=tuple(rows))


def _dimension_table(layer: Layer) -> tuple[Table, ...]:
    if not layer["outlier_dimensions"]:
        return ()
    rows = tuple(dimension_cells(dimension) for dimension in layer["outlier_dimensions"])
    return (Table(caption=f"{layer['layer']}: outlier dimensions", header=DIMENSION, rows=rows),)


def _geometry(layer: Layer) -> Table:
    rows = []
    for key, words in _NUMBERS.items():
        form = ".2%" if key in _FRACTIONS else ".4g"
        cell = with_interval(layer.get(key), layer.get(f"{key}_interval"), form)
        rows.append((Cell(words), cell))
    counts = tuple((Cell(words), count(layer[key])) for key, words in (("d_in", "d_in"), ("tokens", "tokens")))
    return Table(caption=f"{layer['layer']}: geometry", header=("number", "value"), rows=(*rows, *counts))
