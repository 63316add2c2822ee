"""A survey, or an autopsy, as a terminal table with its findings under it."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import Survey, gravest_findings
from autopsae.evaluation.autopsy import ALWAYS
from autopsae.evaluation.recentre import RecentringCost
from autopsae.evaluation.result import Autopsy
from autopsae.report.fitting import Fitting, empty_table, plain
from autopsae.report.plan import plan_text
from autopsae.report.plots import shorten_names
from autopsae.words import fvu_text

_COUNTED = ("none", "mean", "median", "whiten")
_FEW = 4  # layers that are explained one by one
_NAMED = 6  # layers of a group that are named one by one
_NAME = 12  # letters of a layer's name from which what all names share is said once
_MEANING = 20  # columns at least for words
REMEDIES = {
    "none": "no remedy",
    "mean": "arithmetic mean",
    "median": "geometric median",
    "zscore": "z-score",
    "whiten": "whitening",
}
"""How the remedies that every diagnosis measures are called where there is room."""
# How the two ways to be dead are called for every sparsity; others are called by their names.
DEAD_BY = {"dead_by_relu": "dead, never positive", "dead_by_topk": "dead, never selected"}
_GOOD, _BAD = 0.01, 0.2  # dead fractions under and over which a cell is green or red


def survey_text(survey: Survey) -> RenderableType:
    """A row per layer: severity, death by the formula, counted, and expected on more tokens without and with the
    prescription; then what it means, layer by layer for a few layers, finding by finding for many.

    On a terminal that is too narrow for the table, a few lines per layer say the same.
    """
    table = empty_table(_title(survey))
    own, shared = _own_names(survey)
    table.add_column("layer", no_wrap=True)
    at = _short(next(iter(survey)).expected["none"].tokens)
    for name in ("gamma", "rank", "formula", *_COUNTED, f"@{at}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("prescribed", no_wrap=True)
    table.add_column(f"@{at}", justify="right", no_wrap=True)
    for d in survey:
        s = d.severity
        table.add_row(
            plain(own[d.layer]),
            f"{s.gamma:.2f}",
            f"{s.effective_rank_fraction:.1%}",
            _formula(d),
            *(dead_cell(d.birth[name].dead) for name in _COUNTED),
            dead_cell(d.expected["none"].dead.value),
            plain(d.prescription.remedy.name, "bold"),
            dead_cell(d.expected[d.prescription.remedy.name].dead.value),
        )
    narrow = [line for d in survey for line in _in_lines(d, own[d.layer], at)]
    said = [*(plain(sentence, "bold") for sentence in survey.verdict), *map(plan_text, survey.plans)]
    names = [plain(f"layers: {shared}, without what they share", "italic")] if shared else []
    explained = _by_layer(survey) if len(survey) <= _FEW else _by_finding(survey, own)
    return Group(*said, Text(), *names, Fitting(table, narrow), *explained)


def _own_names(survey: Survey) -> tuple[dict[str, str], str]:
    """(what tells each layer from the others, by its name; what they all share, with * for that)."""
    layers = [d.layer for d in survey]
    own, shared = shorten_names(layers) if max(map(len, layers)) > _NAME else (layers, "")
    return dict(zip(layers, own, strict=True)), shared


def _in_lines(d: Diagnosis, name: str, at: str) -> list[RenderableType]:
    """A row of the table as sentences."""
    s, remedy = d.severity, d.prescription.remedy.name
    counted = [word for name in _COUNTED for word in (f", {name} ", dead_cell(d.birth[name].dead))]
    expected = [dead_cell(d.expected[name].dead.value) for name in ("none", remedy)]
    lines = [
        Text(f"gamma {s.gamma:.2f}, rank {s.effective_rank_fraction:.1%}"),
        Text.assemble(f"born dead: formula {_formula(d)}", *counted),
        Text.assemble(
            f"expected on {at}: none ", expected[0], ", prescribed ", plain(remedy, "bold"), " ", expected[1]
        ),
    ]
    return [plain(name, "bold"), *(Padding(line, (0, 0, 0, 2)) for line in lines)]


def autopsy_text(autopsy: Autopsy, cost: RecentringCost | None = None) -> RenderableType:
    """The latents by fate, and the dead by cause where some are dead; then what to do, and what re-centring did if
    that was asked.
    """
    table = empty_table()
    table.add_column("", no_wrap=True)
    for name in ("latents", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("which", min_width=_MEANING)
    lines: list[RenderableType] = []
    causes = autopsy.causes if bool(autopsy.is_dead.any()) else {}
    for named, meanings in ((autopsy.fates, _fates(autopsy)), (causes, _CAUSES)):
        lines += [Text()] if named is causes and causes else []
        for name, number in named.items():
            row = (
                DEAD_BY.get(name, name.replace("_", " ")),
                f"{number:,}",
                f"{number / autopsy.d_sae:.1%}",
                meanings[name],
            )
            table.add_row(*row)
            lines.append(Text.assemble((row[0], "bold"), f": {row[1]} latents ({row[2]}): {row[3]}"))
        table.add_section()
    findings = [_bullet(str(finding)) for finding in autopsy.findings]
    said = plain(_latents(autopsy), "bold")
    return Group(
        said, Text(), Fitting(table, lines), Text(), *findings, *([_bullet(_recentring_line(cost))] if cost else [])
    )


_CAUSES = {
    "shift": "dead, and would fire if b_dec lay, or had begun, at the tokens' centre",
    "low_variance": "dead, and would fire if tokens varied alike in all directions",
    "died_in_training": "dead, where latents as they were probably born would fire",
    "outcompeted": "dead, and none of these would make them fire",
}


def _fates(autopsy: Autopsy) -> dict[str, str]:
    return {
        "alive": "fire now and then",
        "rare": f"fire on less than {autopsy.rare:.2%} of the tokens",
        "always_on": f"fire on at least {ALWAYS:.0%} of the tokens",
        "dead_by_relu": "are never positive",
        "dead_by_topk": "are positive, but never over what they have to exceed",
    }


def _latents(autopsy: Autopsy) -> str:
    later = "" if autopsy.dead_forecast is None else f"; {autopsy.dead_forecast}"
    return (
        f"{int(autopsy.is_dead.sum()):,} of {autopsy.d_sae:,} latents ({autopsy.sparsity}) are dead on "
        f"{autopsy.tokens:,} tokens of d_in = {autopsy.d_in}{later}"
    )


def _recentring_line(cost: RecentringCost) -> str:
    if not cost.n_dead:
        return f"re-centred: no latent is dead (n = {cost.tokens:,} tokens), so that nothing is gained"
    before, after = cost.fvu_before, cost.fvu_after
    change = f" ({after / before - 1:+z.1%})" if before and after is not None else ""
    typical = f" ({fvu_text(cost.fvu_typical_before)} to {fvu_text(cost.fvu_typical_after)} without stray tokens)"
    strays = typical if cost.fvu_typical_before != before else ""
    return (
        f"re-centred: {cost.n_woken:,} of {cost.n_dead:,} dead latents fire (n = {cost.tokens:,} tokens), "
        f"{cost.firings_of_woken:.1%} of all firings are theirs, {cost.n_displaced:,} others fall silent; raw FVU "
        f"{fvu_text(before)} to {fvu_text(after)}{change}{strays}"
    )


def _formula(d: Diagnosis) -> str:
    """Dead by the paper's formula, where it has one for the sparsity."""
    return "none" if d.predicted.dead is None else f"{d.predicted.dead:.1%}"


def _title(survey: Survey) -> str:
    first = next(iter(survey))
    tokens = " / ".join(f"{n:,}" for n in sorted({d.birth["none"].tokens for d in survey}))
    d_in = " / ".join(str(n) for n in sorted({d.d_in for d in survey}))
    at = _short(first.expected["none"].tokens)
    how = first.birth["none"].how
    return (
        f"Born dead: d_sae = {first.d_sae:,}, {first.sparsity}, {how} on {tokens} tokens of d_in = {d_in}, "
        f"expected on {at} (@{at})"
    )


def _short(tokens: int) -> str:
    """1,000,000 as 1M."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if tokens >= unit:
            return f"{tokens / unit:.3g}{name}"
    return str(tokens)


def _by_layer(survey: Survey) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for d in survey:
        lines.extend((Text(), plain(f"{d.layer}: {d.prescription.instruction}", "bold")))
        lines.append(Padding(plain(f"{d.prescription.reason}. The paper's rule: {d.paper}"), (0, 0, 0, 2)))
        lines.extend(_bullet(str(finding)) for finding in d.findings)
    return lines


def _by_finding(survey: Survey, own: dict[str, str]) -> list[RenderableType]:
    """What layers have in common is said once: each advice and finding with its layers, and the gravest of them."""
    advised: dict[str, list[str]] = {}
    by_paper: dict[str, list[str]] = {}
    for d in survey:
        advised.setdefault(d.prescription.instruction, []).append(own[d.layer])
        by_paper.setdefault(d.paper, []).append(own[d.layer])
    lines: list[RenderableType] = [Text("\nPrescriptions", style="bold")]
    lines.extend(_bullet(f"{advice}: {_count_line(layers, survey)}") for advice, layers in advised.items())
    lines.extend(
        _bullet(f"the paper's rule says {name}: {_count_line(on, survey)}") for name, on in by_paper.items()
    )
    findings = gravest_findings(survey.diagnoses)
    if findings:
        lines.append(Text("\nFindings, at the layer where each is gravest (all are in the JSON)", style="bold"))
    for layers, layer, worst in findings:
        where = _count_line([own[name] for name in layers], survey)
        gravest = f"; gravest on {own[layer]}" if len(layers) > 1 else ""
        lines.append(_bullet(f"{worst.name}, on {where}{gravest}: {str(worst).removeprefix(worst.name).lstrip()}"))
    return lines


def _count_line(layers: list[str], survey: Survey) -> str:
    if len(layers) == len(survey):
        return f"all {len(layers)} layers"
    names = ", ".join(layers[:_NAMED]) + (", ..." if len(layers) > _NAMED else "")
    return f"{len(layers)} of {len(survey)} layers ({names})"


def _bullet(text: str) -> RenderableType:
    bullet = Table.grid(
        Column(), Column(overflow="fold"), padding=(0, 1)
    )  # a path is longer than a line: no word is cut
    bullet.add_row(" -", plain(text))
    return bullet


def dead_cell(fraction: float) -> Text:
    """A dead fraction: green where few are dead, red where many are. Yellow is not read on a white terminal."""
    style = "green" if fraction <= _GOOD else "red" if fraction > _BAD else ""
    return Text(f"{fraction:.1%}", style=style)
