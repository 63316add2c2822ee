"""What the page says of the features of an SAE: coverage, comparison, probes, monosemanticity, top activations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autopsae.features.coverage_result import COVERED
from autopsae.report.page.charts import Axis, Series, chart
from autopsae.report.page.commands import show_latent
from autopsae.report.page.contexts import contexts_of, contexts_section, lookup_anchor
from autopsae.report.page.parts import (
    Cell,
    Example,
    Figure,
    Section,
    Table,
    anchor,
    count,
    number,
    with_interval,
)
from autopsae.report.page.probes import MOST, monosemanticity_section, probes_section
from autopsae.report.page.read import Saved


def feature_sections(saved: Saved) -> list[Section]:
    """A section for each measure that the JSON holds."""
    content, sections = saved.content, []
    if "scores" in content:
        sections.append(_coverage(content, saved))
    if "gains" in content:
        sections.append(_comparison(content, saved))
    if "probes" in content:
        sections.append(probes_section(content["probes"]["probes"], saved))
    if "monosemanticity" in content:
        sections.append(monosemanticity_section(content["monosemanticity"], saved))
    if held := contexts_of(saved):
        sections.append(contexts_section(held, content.get("scores", [])))
    sections += [_latent(latent, saved) for latent in _latents(saved)]
    return sections


def _latents(saved: Saved) -> list[Mapping[str, Any]]:
    """The latents that have a section of their own."""
    own = [saved.content["latent"]] if "latent" in saved.content else []
    held = saved.content.get("activations", saved.content)
    return own if own or contexts_of(saved) else [*held.get("latents", [])]


def _links(saved: Saved) -> dict[int, str]:
    """Where the examples of a latent are on the page."""
    held, lookup = contexts_of(saved), lookup_anchor(saved)
    links = {latent["latent"]: f"{lookup}-{latent['latent']}" for latent in held.latents} if held else {}
    return links | {own["latent"]: anchor(saved.name, "latent", own["latent"]) for own in _latents(saved)}


def _coverage(coverage: Mapping[str, Any], saved: Saved, name: str = "") -> Section:
    of, links = anchor(saved.name, "coverage", name), _links(saved)
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
        figures=(_curves({name or "this SAE": coverage}, of), *_f1(ordered, of, links)),
        tables=(_scores(ordered, coverage["latents_per_concept"], name, links),),
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


def _f1(ordered: Sequence[Mapping[str, Any]], of: str, links: Mapping[int, str]) -> tuple[Figure, ...]:
    if not ordered:
        return ()
    shown, axis = ordered[:MOST], Axis(title="concept", names=[score["concept"] for score in ordered[:MOST]])
    series = [
        Series(
            name=words,
            x=list(range(len(shown))),
            y=[score[key] for score in shown],
            style=style,
            mode="markers",
            links=[links.get(score["latent"], "") for score in shown],
        )
        for key, words, style in (("f1", "test documents", 2), ("validation_f1", "validation documents", 3))
    ]
    caption = "The F1 of the best latent of each concept, the best concepts first."
    return (chart("F1 by concept", caption, series, x=axis, y=Axis(title="F1", form=".3f"), of=of),)


def _scores(
    ordered: Sequence[Mapping[str, Any]], latents: Mapping[str, int], name: str, links: Mapping[int, str]
) -> Table:
    """links: where the examples of a latent are on the page."""
    rows = tuple(
        (
            Cell(score["concept"]),
            replace(count(score["latent"]), link=links.get(score["latent"], "")),
            number(score["threshold"], "g"),
            *(number(score[key], ".3f") for key in ("precision", "recall", "f1", "validation_f1")),
            count(latents.get(score["concept"])),
        )
        for score in ordered[:MOST]
    )
    more = f"; {MOST:,} of {len(ordered):,} are shown, the JSON has all" if len(ordered) > MOST else ""
    of = f" of {name}" if name else ""
    header = ("concept", "latent", "over", "precision", "recall", "F1", "validation F1", "latents over the limit")
    return Table(caption=f"The best latent{of} for each concept, on test documents{more}", header=header, rows=rows)


def _comparison(content: Mapping[str, Any], saved: Saved) -> Section:
    coverages, baseline, gains = content["coverages"], content["baseline"], content["gains"]
    of = anchor(saved.name, "comparison")
    said = [
        f"{gain['name']} covers {gain['covered']:,}, against {baseline} "
        f"{with_interval(gain['more_covered'], gain['more_covered_by_documents'], '+.0f').text}."
        for gain in gains
    ]
    own = coverages[baseline]
    said.insert(0, f"{baseline} covers {own['covered']:,} of {own['concepts']:,} concepts.")
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
    tables += [
        _scores(_best_first(c["scores"]), c["latents_per_concept"], name, {}) for name, c in coverages.items()
    ]
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
    over = [f"more {what} (over {of})" for what in ("concepts", "F1") for of in ("documents", "concepts")]
    header = ("SAE", *over, "live latents of both", "concepts with so many", f"{baseline} with so many")
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


def _latent(latent: Mapping[str, Any], saved: Saved) -> Section:
    said = f"Latent {latent['latent']} fires on {latent['fired']:,} tokens ({latent['rate']:.3%})."
    examples = {
        words: tuple(_example(example) for example in latent[key])
        for key, words in (("top", "Its largest codes"), ("spread", "A spread over the quantiles of its codes"))
        if latent[key]
    }
    return Section(
        anchor=anchor(saved.name, "latent", latent["latent"]),
        title=f"Latent {latent['latent']}",
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
