"""What the page says of the features of an SAE: coverage, comparison, probes, monosemanticity, top activations."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopsae.features.coverage_result import COVERED
from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.commands import show_latent
from autopsae.report.page.parts import (
    Cell,
    Example,
    Figure,
    Number,
    Section,
    Table,
    anchor,
    count,
    number,
    with_interval,
)
from autopsae.report.page.read import Saved

_MOST = 2000  # rows of a table; the JSON has all
_BINS = 20


def feature_sections(saved: Saved) -> list[Section]:
    """A section for each measure that the JSON holds."""
    content, sections = saved.content, []
    if "scores" in content:
        sections.append(_coverage(content, saved))
    if "gains" in content:
        sections.append(_comparison(content, saved))
    if "probes" in content:
        sections.append(_probes(content["probes"]["probes"], saved))
    if "monosemanticity" in content:
        sections.append(_monosemanticity(content["monosemanticity"], saved))
    latents = [content["latent"]] if "latent" in content else content.get("latents", [])
    sections += [_latent(latent, saved) for latent in latents]
    return sections


def _coverage(coverage: Mapping[str, Any], saved: Saved, name: str = "") -> Section:
    of = anchor(saved.name, "coverage", name)
    ordered = _best_first(coverage["scores"])
    covered = (
        f"{coverage['covered']:,} of {coverage['concepts']:,} concepts have a latent (F1 over {COVERED:g} on "
        f"validation and test documents; {coverage['covered_by_chance']:,} by chance), by {coverage['live']:,} "
        f"live latents of {coverage['d_sae']:,}, on {coverage['tokens']:,} tokens of {coverage['documents']:,} "
        "documents."
    )
    return Section(
        anchor=of,
        title="Concepts" + (f" of {name}" if name else ""),
        verdict=(f"{name}: {covered}" if name else covered,),
        code=show_latent(ordered[0]["latent"], ordered[0]["concept"], saved.wrote) if ordered else (),
        figures=(_curves({name or "this SAE": coverage}, of), *_f1(ordered, of)),
        tables=(_scores(ordered, coverage["latents_per_concept"], name),),
    )


def _best_first(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(scores, key=lambda score: -min(score["validation_f1"], score["f1"]))


def _curves(coverages: Mapping[str, Mapping[str, Any]], of: str) -> Figure:
    """Concepts covered at each limit, and by chance."""
    series = []
    for n, (name, coverage) in enumerate(coverages.items()):
        for key, words, is_open in (("curve", name, False), ("curve_by_chance", f"{name}, by chance", True)):
            curve = {float(limit): value for limit, value in coverage[key].items()}
            series.append(Series(name=words, x=list(curve), y=list(curve.values()), style=n + 1, is_open=is_open))
    return chart(
        "Concepts covered, by the F1 that is asked for",
        "A concept is covered where the F1 of its best latent exceeds the limit on validation and test documents. "
        "Open: with the annotations of other documents.",
        series,
        x=Axis(title="F1 over", form="g"),
        y=Axis(title="concepts", form=",.0f"),
        of=of,
    )


def _f1(ordered: Sequence[Mapping[str, Any]], of: str) -> tuple[Figure, ...]:
    if not ordered:
        return ()
    shown, axis = ordered[:_MOST], Axis(title="concept", names=[score["concept"] for score in ordered[:_MOST]])
    series = [
        Series(
            name=words, x=list(range(len(shown))), y=[score[key] for score in shown], style=style, mode="markers"
        )
        for key, words, style in (("f1", "test documents", 2), ("validation_f1", "validation documents", 3))
    ]
    caption = "The F1 of the best latent of each concept, the best concepts first."
    return (chart("F1 by concept", caption, series, x=axis, y=Axis(title="F1", form=".3f"), of=of),)


def _scores(ordered: Sequence[Mapping[str, Any]], latents: Mapping[str, int], name: str) -> Table:
    rows = tuple(
        (
            Cell(score["concept"]),
            count(score["latent"]),
            number(score["threshold"], "g"),
            *(number(score[key], ".3f") for key in ("precision", "recall", "f1", "validation_f1")),
            count(latents.get(score["concept"])),
        )
        for score in ordered[:_MOST]
    )
    more = f"; {_MOST:,} of {len(ordered):,} are shown, the JSON has all" if len(ordered) > _MOST else ""
    of = f" of {name}" if name else ""
    header = ("concept", "latent", "over", "precision", "recall", "F1", "validation F1", "latents over the limit")
    return Table(caption=f"The best latent{of} for each concept, on test documents{more}", header=header, rows=rows)


def _comparison(content: Mapping[str, Any], saved: Saved) -> Section:
    coverages, baseline, gains = content["coverages"], content["baseline"], content["gains"]
    of = anchor(saved.name, "comparison")
    said = [
        f"{gain['name']} covers {gain['covered']:,} of {coverages[baseline]['concepts']:,} concepts; against "
        f"{baseline}: {with_interval(gain['more_covered'], gain['more_covered_by_documents'], '+.0f').text}."
        for gain in gains
    ]
    rows = tuple(
        (
            Cell(name),
            *(count(coverage[key]) for key in ("live", "covered", "covered_by_chance", "concepts")),
            number(coverage["mean_f1"], ".3f"),
            number(coverage["concepts_per_live_latent"], ".3f"),
        )
        for name, coverage in coverages.items()
    )
    header = ("SAE", "live latents", "covered", "by chance", "concepts", "mean F1", "concepts per live latent")
    tables = [Table(caption="The SAEs side by side", header=header, rows=rows), _gain_table(gains, baseline)]
    tables += [_scores(_best_first(c["scores"]), c["latents_per_concept"], name) for name, c in coverages.items()]
    return Section(
        anchor=of,
        title=f"Concepts: {len(coverages)} SAEs compared",
        verdict=tuple(said),
        figures=(_curves(coverages, of), _gain_figure(gains, baseline, of)),
        tables=tuple(tables),
    )


def _gain_table(gains: Sequence[Mapping[str, Any]], baseline: str) -> Table:
    rows = tuple(
        (
            Cell(gain["name"]),
            with_interval(gain["more_covered"], gain["more_covered_by_documents"], "+.0f"),
            with_interval(gain["more_covered"], gain["more_covered_by_concepts"], "+.0f"),
            with_interval(gain["more_f1"], gain["more_f1_by_documents"], "+.3f"),
            with_interval(gain["more_f1"], gain["more_f1_by_concepts"], "+.3f"),
            count(gain["equal_live"]),
            number(gain["covered_by_equal_live"], ".1f"),
            number(gain["baseline_by_equal_live"], ".1f"),
        )
        for gain in gains
    )
    header: tuple[str, ...] = (
        "SAE",
        "more concepts (over documents)",
        "more concepts (over concepts)",
        "more F1 (over documents)",
    )
    header += (
        "more F1 (over concepts)",
        "live latents of both",
        "concepts with so many",
        f"{baseline} with so many",
    )
    return Table(caption=f"Against {baseline}, with 90 % intervals", header=header, rows=rows)


def _gain_figure(gains: Sequence[Mapping[str, Any]], baseline: str, of: str) -> Figure:
    points = Series(
        name="more concepts",
        x=list(range(len(gains))),
        y=[gain["more_covered"] for gain in gains],
        intervals=[gain["more_covered_by_documents"] for gain in gains],
        style=2,
        mode="markers",
    )
    return chart(
        f"Concepts covered beyond {baseline}",
        "With 90 % intervals over test documents: one that contains 0 is no difference.",
        [points],
        x=Axis(title="SAE", names=[gain["name"] for gain in gains]),
        y=Axis(title="more concepts", form="+.0f"),
        of=of,
        lines={baseline: 0.0},
    )


def _probes(probes: Mapping[str, Mapping[str, Any]], saved: Saved) -> Section:
    rows, of = [], anchor(saved.name, "probes")
    aucs: dict[str, dict[int, list[float]]] = {}
    for label, own in probes.items():
        for score, chance in zip(own["scores"], own["shuffled"], strict=False):
            aucs.setdefault(score["representation"], {}).setdefault(score["k"], []).append(score["auc"])
            values = (score["auc"], chance["auc"], score["accuracy"], score["f1"])
            cells = (Cell(score["representation"]), count(score["k"]), *(number(v, ".3f") for v in values))
            rows.append((Cell(label), *cells))
    means = {name: {k: sum(own) / len(own) for k, own in by_k.items()} for name, by_k in aucs.items()}
    said = [
        f"{name}: mean AUC {', '.join(f'{v:.3f} at k {k}' for k, v in by_k.items())}."
        for name, by_k in means.items()
    ]
    series = [
        Series(name=name, x=list(by_k), y=list(by_k.values()), style=n + 1)
        for n, (name, by_k) in enumerate(means.items())
    ]
    caption = f"Mean over {len(probes):,} labels; 0.5 is chance."
    axis = Axis(title="columns that the probe sees", form=",", is_log=True)
    figure = chart("AUC of sparse probes", caption, series, x=axis, y=Axis(title="AUC", form=".3f"), of=of)
    more = f"; {_MOST:,} of {len(rows):,} are shown" if len(rows) > _MOST else ""
    header = ("label", "representation", "k", "AUC", "AUC of shuffled labels", "accuracy", "F1")
    table = Table(caption=f"Probes{more}", header=header, rows=tuple(rows[:_MOST]))
    title = f"Probes of {len(probes):,} labels"
    return Section(anchor=of, title=title, verdict=tuple(said), figures=(figure,), tables=(table,))


def _monosemanticity(scores: Mapping[str, Mapping[str, Any]], saved: Saved) -> Section:
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


def _latent(latent: Mapping[str, Any], saved: Saved) -> Section:
    said = f"Latent {latent['latent']:,} fires on {latent['fired']:,} tokens ({latent['rate']:.3%})."
    examples = {
        words: tuple(_example(example) for example in latent[key])
        for key, words in (("top", "Its largest codes"), ("spread", "A spread over the quantiles of its codes"))
        if latent[key]
    }
    return Section(
        anchor=anchor(saved.name, "latent", latent["latent"]),
        title=f"Latent {latent['latent']:,}",
        verdict=(said,),
        examples=examples,
    )


def _example(example: Mapping[str, Any]) -> Example:
    where = f"token {example['token']:,}"
    if example["document"] is not None and example["position"] is not None:
        where = f"document {example['document']:,}, token {example['position']:,}"
    return Example(
        value=number(example["value"]),
        where=f"{where}; quantile {example['quantile']:.0%}",
        before=example["before"] or "",
        text=example["text"] or "",
        after=example["after"] or "",
    )
