"""Concept coverage and top activations as terminal text."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from autopsae.features.compare import CoverageComparison, CoverageGain
from autopsae.features.coverage_result import COVERED, ConceptScore, Coverage
from autopsae.features.examples import Example, LatentExamples
from autopsae.report.fitting import Fitting, empty_table, plain

_SHOWN = 30  # concepts of a table on the terminal; all are in the JSON and in --table


def coverage_text(coverage: Coverage) -> RenderableType:
    """The verdict, and a row for each concept with its best latent, the best concepts first."""
    chance = {score.concept: score.f1 for score in coverage.shuffled}
    latents = coverage.latents_per_concept()
    ordered = sorted(coverage.scores, key=lambda score: -min(score.validation_f1, score.f1))
    table = empty_table("The best latent of each concept, on test documents")
    table.add_column("concept", overflow="fold", min_width=12)
    for name in (
        "latent",
        "over",
        "precision",
        "recall",
        "F1",
        "validation F1",
        "chance F1",
        "positives",
        "latents",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    lines: list[RenderableType] = []
    for score in ordered[:_SHOWN]:
        cells = (
            f"{score.latent}",
            f"{score.threshold:g}",
            f"{score.precision:.2f}",
            f"{score.recall:.2f}",
            f"{score.f1:.2f}",
            f"{score.validation_f1:.2f}",
            f"{chance[score.concept]:.2f}",
            _positives(score),
            f"{latents[score.concept]}",
        )
        table.add_row(plain(score.concept, "bold" if score.exceeds(COVERED) else ""), *cells)
        lines.append(
            plain(
                f"{score.concept}: latent {score.latent} over {score.threshold:g}, F1 {score.f1:.2f} (precision "
                f"{score.precision:.2f}, recall {score.recall:.2f}; validation F1 {score.validation_f1:.2f}; by "
                f"chance {chance[score.concept]:.2f}), {cells[-2]} positives, {cells[-1]} latents"
            )
        )
    more = len(ordered) - _SHOWN
    rest = [Text(f"and {more:,} concepts more, in --table and --json")] if more > 0 else []
    return Group(plain(str(coverage), "bold"), Text(), Fitting(table, lines), *rest, *_rare_lines(coverage))


def comparison_text(comparison: CoverageComparison) -> RenderableType:
    """What each SAE covers, and what beyond the first; then a row for each, and then the table of the first."""
    table = empty_table(f"Concepts covered (F1 over {COVERED:g} on validation and test documents)")
    table.add_column("SAE", overflow="fold", min_width=12)
    for name in ("live", "covered", "by chance", "mean F1", "concepts per live latent"):
        table.add_column(name, justify="right", no_wrap=True)
    lines: list[RenderableType] = []
    for name, coverage in comparison.coverages.items():
        mean = sum(score.f1 for score in coverage.scores) / len(coverage.scores)
        each = coverage.concepts_per_live_latent()
        cells = (
            f"{coverage.live:,}",
            f"{coverage.count():,} of {len(coverage.scores):,}",
            f"{coverage.count_by_chance():,}",
            f"{mean:.3f}",
            "none" if each is None else f"{each:.3f}",
        )
        table.add_row(plain(name, "bold"), *cells)
        lines.append(
            plain(
                f"{name}: {cells[1]} covered by {cells[0]} live latents ({cells[2]} by chance), mean F1 "
                f"{cells[3]}, concepts per live latent {cells[4]}"
            )
        )
    covered = (f"{name} covers {coverage.count():,}" for name, coverage in comparison.coverages.items())
    concepts = len(comparison.coverages[comparison.baseline].scores)
    verdict = plain(f"of {concepts:,} concepts, {', '.join(covered)}", "bold")
    gains = [plain(line) for gain in comparison.gains for line in _gain_lines(gain, comparison.baseline)]
    first = coverage_text(comparison.coverages[comparison.baseline])
    return Group(verdict, *gains, Text(), Fitting(table, lines), Text(), first)


def examples_text(examples: LatentExamples) -> RenderableType:
    """Where a latent fires, the token in brackets: its top tokens, then a spread over the quantiles."""
    title = f"Latent {examples.latent} fires on {examples.fired:,} tokens ({examples.rate:.3%})"
    parts: list[RenderableType] = [plain(title, "bold")]
    for name, some in (
        (("largest", examples.top), ("a spread over the quantiles", examples.spread)) if examples.fired else ()
    ):
        parts += [Text(), Text(f"{name}: code, quantile of the codes, token", style="italic")]
        parts.append(_in_context(some))
    return Group(*parts)


def _in_context(examples: Sequence[Example]) -> RenderableType:
    """A line for each: how much the latent fires, where, and the text. A long text stands under its place."""
    table = Table.grid(Column(no_wrap=True), Column(no_wrap=True), padding=(0, 2, 0, 0))
    lines: list[RenderableType] = []
    for example in examples:
        place, text = _place(example), _text(example)
        table.add_row(place, text)
        lines += [place, Padding(text, (0, 0, 0, 11))] if text else [place]
    return Fitting(table, lines)


def _place(example: Example) -> Text:
    place = f"token {example.token:,}"
    if example.document is not None:
        place = f"document {example.document}, token {example.position:,}"
    return plain(f"{example.value:9.4g}  {example.quantile:4.0%}  {place}")


def _text(example: Example) -> Text:
    if example.text is None:
        return Text()
    # Blanks of the token stand outside of its brackets: a line that ends there would tear them apart.
    word = example.text.strip(" ") or example.text
    left, right = example.text.split(word, 1)
    marked = (left, plain(f"[{word}]", "bold"), right)
    return Text.assemble(plain(example.before or ""), *marked, plain(example.after or ""))


def _positives(score: ConceptScore) -> str:
    """On test documents: tokens, and domains where these are counted."""
    return f"{score.positives[1]:,}" + (f" in {score.domains[1]:,}" if score.unit == "domain" else "")


def _rare_lines(coverage: Coverage) -> list[RenderableType]:
    if not coverage.left_out:
        return []
    named = [f"{concept} ({why})" for concept, why in [*coverage.left_out.items()][:3]]
    more = ", ..." if len(coverage.left_out) > len(named) else ""
    return [plain(f"left out: {len(coverage.left_out):,} concepts: {'; '.join(named)}{more}")]


def _gain_lines(gain: CoverageGain, baseline: str) -> list[str]:
    def interval(ends: tuple[float, float], digits: int = 0) -> str:
        return f"{ends[0]:+.{digits}f} to {ends[1]:+.{digits}f}"

    of_concepts, of_documents = interval(gain.more_covered_by_concepts), interval(gain.more_covered_by_documents)
    return [
        f"{gain.name} against {baseline}: {gain.more_covered:+,} concepts ({of_concepts} over concepts, "
        f"{of_documents} over documents); mean F1 {gain.more_f1:+.3f} "
        f"({interval(gain.more_f1_by_concepts, 3)}, {interval(gain.more_f1_by_documents, 3)})",
        f"  with {gain.equal_live:,} live latents of each, drawn at random: {gain.covered_by_equal_live:.1f} "
        f"against {gain.baseline_by_equal_live:.1f} concepts",
    ]
