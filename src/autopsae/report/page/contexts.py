"""Top activations of all latents of an SAE, in their context, so short that a page with thousands stays small."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json import dumps
from typing import Any

from autopsae.report.page.charts import Axis
from autopsae.report.page.marks import chart_marks
from autopsae.report.page.parts import Lookup, Number, Section, anchor
from autopsae.report.page.read import Saved

FEW = 5
"""Latents up to which each has a section of its own, and all of its examples."""
ROOM = 1_800_000
"""Bytes that the examples of all latents may take on a page."""
_SHORTER = ((5, 80), (3, 60), (3, 40), (3, 25), (2, 25), (1, 25), (1, 12), (1, 0))  # examples, letters on a side


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """The top activations of many latents of one SAE."""

    anchor: str
    """Their name on the page."""
    saved: Saved
    """The result that holds them."""
    latents: Sequence[Mapping[str, Any]]
    """The latents, as their JSON tells of them."""
    d_sae: int | None
    """How many latents the SAE has; None where the JSON does not say it."""


def contexts_of(saved: Saved) -> Contexts | None:
    """The top activations that a result holds; None for a few latents, which have sections of their own."""
    held = saved.content.get("activations", saved.content)
    latents = held.get("latents") if saved.kind == "features" else None
    if latents is None or len(latents) <= FEW:
        return None
    return Contexts(anchor=anchor(saved.name, "contexts"), saved=saved, latents=latents, d_sae=held.get("d_sae"))


def contexts_for(saved: Saved, held: Sequence[Contexts]) -> Contexts | None:
    """The top activations of the latents of an autopsy: of the same SAE, as far as both results say it, with as
    many latents. None where there are none, or several.
    """
    same = [one for one in held if one.d_sae == len(saved.rows) and _same_sae(one.saved, saved)]
    return same[0] if len(same) == 1 else None


def _same_sae(one: Saved, other: Saved) -> bool:
    names = [saved.wrote.get("settings", {}) for saved in (one, other)]
    known = {name["sae"] for name in names if isinstance(name, dict) and isinstance(name.get("sae"), str)}
    return len(known) <= 1


def contexts_section(held: Contexts, scores: Sequence[Mapping[str, Any]]) -> Section:
    """The latents one by one: how often and how strongly each fires, and where. scores: of the concepts."""
    rows = [
        {**latent, "largest": latent["top"][0]["value"]}
        for latent in sorted(held.latents, key=lambda latent: latent["latent"])
        if latent["top"]
    ]
    of, named = held.saved.name, {score["latent"] for score in scores}
    groups = {"other latents" if named else "latents": [row for row in rows if row["latent"] not in named]}
    groups |= {"best latent of a concept": [row for row in rows if row["latent"] in named]}
    lookup = Lookup(
        anchor=lookup_anchor(held.saved),
        what="latent",
        header=("latent", "fired", "share of the tokens", "largest code", *(["best latent of"] if named else [])),
        rows=[[*_numbers(row), *([_concepts(row["latent"], scores)] if named else [])] for row in rows],
        contexts=held.anchor,
    )
    figure = chart_marks(
        "How often and how strongly latents fire",
        "A mark for each latent that fired.",
        {name: own for name, own in groups.items() if own},
        keys=("rate", "largest"),
        x=Axis(title="share of the tokens", form=".3%"),
        y=Axis(title="largest code"),
        of=of,
        action="Click a mark for the tokens on which its latent fires most.",
        lookup=lookup.anchor,
    )
    total = "" if held.d_sae is None else f" of {held.d_sae:,}"
    return Section(
        anchor=anchor(of, "latents"),
        title=f"Top activations of {len(rows):,} latents",
        verdict=(f"{len(rows):,}{total} latents are shown with the tokens on which they fire most.",),
        figures=(figure,),
        lookup=lookup,
    )


def lookup_anchor(saved: Saved) -> str:
    """Where the latents of a result are asked for."""
    return anchor(saved.name, "lookup")


def _numbers(row: Mapping[str, Any]) -> list[Number | str]:
    return [row["latent"], row["fired"], *(float(f"{row[name]:.5g}") for name in ("rate", "largest"))]


def _concepts(latent: int, scores: Sequence[Mapping[str, Any]]) -> str:
    """The concepts of which a latent is the best one."""
    own = [f"{score['concept']} (F1 {score['f1']:.2f})" for score in scores if score["latent"] == latent]
    return ", ".join(own) or "no concept"


def short_examples(held: Contexts, room: int = ROOM) -> dict[str, Any]:
    """What the page is given of the examples, by the number of the latent: value, document, token, and the text
    before it, of it and after it. It takes at most `room` bytes: fewer examples, and shorter texts, of many
    latents; where that does not suffice, those that fire most.
    """
    latents = sorted(held.latents, key=lambda latent: -latent["fired"])
    for most, letters in _SHORTER:
        told = {str(latent["latent"]): [*_short(latent, most, letters)] for latent in latents}
        if _bytes(told) <= room:
            return told
    share = 0.9 * room / _bytes(told)
    return dict([*told.items()][: int(share * len(told))])


def _short(latent: Mapping[str, Any], most: int, letters: int) -> Iterator[list[Any]]:
    for example in latent["top"][:most]:
        before, after = example["before"] or "", example["after"] or ""
        where = [example["document"], example["position"]]
        if None in where:
            where = [None, example["token"]]
        text = (before[-letters:] if letters else "", (example["text"] or "")[:40], after[:letters])
        yield [float(f"{example['value']:.4g}"), *where, *text]


def _bytes(told: object) -> int:
    """The length of JSON within HTML, where some letters are written as six."""
    text = dumps(told)
    return len(text) + 5 * sum(text.count(letter) for letter in "<>&'")


def with_contexts(section: Section, held: Contexts | None) -> Section:
    """The section of the latents of an autopsy, whose lookup shows where they fire."""
    if held is None or section.lookup is None:
        return section
    return replace(section, lookup=replace(section.lookup, contexts=held.anchor))
