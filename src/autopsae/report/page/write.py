"""save_page(results, path): one self-contained HTML file that shows saved results.

Figures are drawn by plotly.js (MIT), in its basic bundle of 1.2 MB. `static` holds it with its licence, and its
version in its name. It draws intervals, zooms, shows values under a pointer or a finger, tells which point was
clicked, takes nothing from a network, and has been kept since 2015. It is carried here and not installed, because
the Python package of plotly holds only the whole bundle (4.8 MB), with which no page stays under 5 MB. uPlot, which
is smaller, draws neither intervals nor markers of a size each; Bokeh and Altair bring many packages with them.

The page says by a Content-Security-Policy that it loads nothing, and that only its own scripts, known by their
hashes, may run. So text from a file could do no harm even if it were not escaped.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import replace
from gzip import compress
from hashlib import sha256
from importlib.resources import files
from json import dumps
from os.path import exists
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.files import write_text
from autopsae.provenance import provenance
from autopsae.report.page.autopsy import autopsy_section
from autopsae.report.page.contexts import (
    ROOM,
    Contexts,
    contexts_for,
    contexts_of,
    short_examples,
    with_contexts,
)
from autopsae.report.page.diagnosis import diagnosis_sections
from autopsae.report.page.features import feature_sections
from autopsae.report.page.latents import latents_section
from autopsae.report.page.parts import Figure, Section
from autopsae.report.page.read import Saved, foreign_version, read_result
from autopsae.report.page.runs import run_section
from autopsae.report.page.sweep import sweep_section
from autopsae.report.page.trial import trial_section
from autopsae.version import version
from autopsae.words import list_names

PLOTLY = "4.1.1"
"""The version of plotly.js that the page carries."""


def save_page(results: Iterable[object], path: str | Path, *, title: str = "") -> None:
    """Write a page that shows results, as one HTML file that opens without a network, whole or not at all.

    results: paths of saved results (the JSON of `diagnose`, `autopsy` or `features`, or of a trial; the folder of a
    run or a sweep), or results as they are, such as a `Survey`, or the dictionaries that
    their JSON files would hold; title: of the page, by default their names.

    Raises InputError for what is no result, for another suffix than .html, and where Jinja2 is missing.
    """
    check_page(Path(path))
    write_text(path, page_html(results, title=title))


def check_page(path: Path) -> None:
    """InputError unless a page can be written under this name: to be known before the work, not after."""
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"{path}: expected a page named .html, got {path.suffix or 'no suffix'!r}")
    _import_jinja2()


def page_html(results: Iterable[object], *, title: str = "") -> str:
    """The text of the page that `save_page` writes. Raises InputError as it does."""
    saved = [read_result(result) for result in results]
    if not saved:
        raise InputError("page: expected at least one result, got none; pass a file or a folder")
    contexts = [held for one in saved if (held := contexts_of(one)) is not None]
    sections = [section for one in saved for section in _sections(one, contexts)]
    jinja2 = _import_jinja2()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scripts = {name: _text(name) for name in (f"plotly-basic-{PLOTLY}.min.js", "page.js")}
    return str(
        environment.from_string(_text("page.html")).render(
            title=title or f"autopsae report: {list_names(_short_name(one.name) for one in saved)}",
            sections=sections,
            drawn={figure.anchor: figure.drawn for section in sections for figure in _figures(section)},
            looked_up=_pack(
                {section.lookup.anchor: vars(section.lookup) for section in sections if section.lookup}
            ),
            contexts=_pack({held.anchor: short_examples(held, ROOM // len(contexts)) for held in contexts}),
            inside={},  # what is inside of details, which the template fills
            pack=_pack,
            policy="script-src " + " ".join(f"'sha256-{_digest(script)}'" for script in scripts.values()),
            scripts=[jinja2.utils.markupsafe.Markup(script) for script in scripts.values()],
            style=jinja2.utils.markupsafe.Markup(_text("page.css")),
            made=f"autopsae {version()}, {provenance()['date']}",
        )
    )


def _short_name(name: str) -> str:
    """The name of a result without the folders that it lies in."""
    return Path(name).name if exists(name) else name


def _sections(saved: Saved, contexts: Sequence[Contexts]) -> list[Section]:
    """What the page says of a result, and what wrote it. contexts: all that the page has."""
    makers: dict[str, Any] = {
        "diagnosis": diagnosis_sections,
        "trial": lambda one: [trial_section(one.content, one.name)],
        "run": lambda one: [run_section(one)],
        "sweep": lambda one: [sweep_section(one)],
        "autopsy": lambda one: [autopsy_section(one), *(_latents(one, contexts) if one.rows else [])],
        "features": feature_sections,
        "latents": lambda one: _latents(one, contexts),
    }
    remark = foreign_version(saved)
    wrote = _wrote(saved)
    sections: list[Section] = makers[saved.kind](saved)
    if remark:
        sections[0] = replace(sections[0], warnings=(remark, *sections[0].warnings))
    # Said once of a result, under all of its sections.
    return [*sections[:-1], replace(sections[-1], wrote=wrote)]


def _latents(saved: Saved, contexts: Sequence[Contexts]) -> list[Section]:
    """The latents of an autopsy, which are shown where they fire if a result of features on the page tells it."""
    return [with_contexts(latents_section(saved.rows, saved.name), contexts_for(saved, contexts))]


def _wrote(saved: Saved) -> tuple[tuple[str, str], ...]:
    """What wrote a result, as (name, value)."""
    lines = [("result", saved.name)]
    for name in ("autopsae", "torch", "date", "command", "source", "layer"):
        if name in saved.wrote:
            lines.append((name, str(saved.wrote[name])))
    settings = saved.wrote.get("settings")
    if isinstance(settings, dict):
        told = {name: value for name, value in settings.items() if value not in (None, [], "", False)}
        lines.append(("settings", ", ".join(_say_setting(name, value) for name, value in told.items())))
    return tuple(lines)


def _say_setting(name: str, value: Any) -> str:
    """A setting in words: of a list its values."""
    if value is True:
        return name
    return f"{name} {' / '.join(map(str, value)) if isinstance(value, list) else value}"


def _figures(section: Section) -> list[Figure]:
    return [*section.figures, *(figure for detail in section.details for figure in detail.figures)]


def _pack(told: object) -> str:
    """JSON, compressed, in letters that need no escaping: the page reads it when it is first asked for."""
    return b64encode(compress(dumps(told, separators=(",", ":")).encode(), mtime=0)).decode()


def _text(name: str) -> str:
    return files("autopsae.report.page").joinpath("static", name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def _import_jinja2() -> Any:
    """The module. Raises InputError where it is missing."""
    try:
        import jinja2
    except ImportError as error:
        raise package_error("a page", "jinja2", error, install="autopsae[page]") from error
    return jinja2
