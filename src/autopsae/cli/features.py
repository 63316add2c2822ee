"""autopsae features SAE SOURCE: what the latents know, concept by concept, and where one of them fires."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from autopsae.arrays import InputError
from autopsae.cli.documents import is_model
from autopsae.cli.feature_measures import Measured, measure
from autopsae.cli.feature_sources import FromFiles, FromModel
from autopsae.cli.options.features import FeaturesOptions
from autopsae.cli.overwriting import check_overwriting
from autopsae.cli.page import check_paging, page_writers
from autopsae.cli.printing import print_note, print_text, write_all
from autopsae.cli.terminal import check_places, progress_bar, progress_on, take_device
from autopsae.features.compare import CoverageComparison
from autopsae.features.content import features_content
from autopsae.files import write_text
from autopsae.interop.convert import load_sae
from autopsae.provenance import PROVENANCE, add_provenance, provenance
from autopsae.report.concept_plots import save_concept_figure
from autopsae.report.concepts import comparison_text, coverage_text, examples_text
from autopsae.report.plots import check_figure
from autopsae.report.probes import monosemanticity_text, probes_text
from autopsae.sae.model import SAE
from autopsae.tables import check_table, save_table

EXAMPLES = 3
"""Tokens of every latent on a page, unless told otherwise."""
MOST = 100
_CONTROLS = {"neurons", "random rows", "principal components", "random directions"}


def features(options: FeaturesOptions) -> None:
    """Measure, write what was asked for, and print it. Raises InputError."""
    _check(options)
    if options.examples is None and options.paging.report is not None and not options.tasks:
        options = replace(options, examples=EXAMPLES)
    device = take_device(options.device)
    saes = _load(options, device)
    with progress_bar("opening") as (bar, task):
        progress = progress_on(bar, task)
        source = FromModel(options, device, progress) if is_model(options.source) else FromFiles(options)
        with add_provenance(layer=source.layer):
            measured = measure(source, saes, options, progress)
            write_all(_writers(measured, options))
    if measured.note:
        print_note(measured.note)
    for number, text in enumerate(_texts(measured)):
        print_text(Group(Text(), text) if number else text)


def _load(options: FeaturesOptions, device: str | None) -> dict[str, SAE]:
    """The SAEs by their names, the first of them the one that is asked for."""
    names = [options.sae, *options.against]
    if len({*names}) < len(names):
        raise InputError(f"against: expected other SAEs than {options.sae}, each once, got {', '.join(names[1:])}")
    if same := _CONTROLS & {*names}:
        raise InputError(f"{min(same)}: expected an SAE of another name than the controls; write ./{min(same)}")
    if options.against and (options.scale is not None or options.k is not None):
        raise InputError(
            "--scale and --k: expected without --against, as each SAE has its own; write the SAE that needs them "
            "with them first (autopsae convert SAE NEW --to autopsae)"
        )
    return {name: load_sae(name, scale=options.scale, k=options.k).to(device) for name in names}


def _texts(measured: Measured) -> list[RenderableType]:
    texts = list[RenderableType]()
    if measured.coverage is not None:
        covered = measured.coverage
        texts.append(
            comparison_text(covered) if isinstance(covered, CoverageComparison) else coverage_text(covered)
        )
    if measured.probes is not None:
        texts.append(probes_text(measured.probes))
    if measured.monosemanticity is not None:
        texts.append(monosemanticity_text(measured.monosemanticity))
    if measured.examples is not None:
        texts.append(examples_text(measured.examples))
    if measured.activations is not None and not texts:
        held = measured.activations
        number, of = f"{len(held['latents']):,}", f"{held['d_sae']:,}"
        texts.append(Text(f"{number} of {of} latents are shown where they fire most, on {held['tokens']:,} tokens"))
    return texts


def _writers(measured: Measured, options: FeaturesOptions) -> list[Callable[[], object]]:
    writers: list[Callable[[], object]] = []
    content = features_content(
        coverage=measured.coverage,
        probes=measured.probes,
        monosemanticity=measured.monosemanticity,
        examples=measured.examples,
        activations=measured.activations,
    )
    if options.json:
        text = json.dumps(content | {PROVENANCE: provenance()}, indent=2)
        writers.append(partial(write_text, options.json, text + "\n"))
    if options.table:
        columns = _tables(measured, options.sae)
        places = table_places(options)
        writers += [partial(save_table, columns[name], place) for name, place in places.items()]
    if measured.coverage is not None and options.figure:
        writers.append(partial(save_concept_figure, measured.coverage, options.figure))
    return [*writers, *page_writers(options.paging, f"features of {options.sae}", content)]


def table_places(options: FeaturesOptions) -> dict[str, Path]:
    """{measure: its table}: the first measure that is asked for has the name as it stands, the others beside it."""
    asked = {
        "coverage": options.annotations is not None,
        "probes": options.probes is not None or bool(options.tasks),
        "monosemanticity": options.embeddings is not None,
    }
    names, place = [name for name, is_asked in asked.items() if is_asked], options.table
    if place is None:
        return {}
    return {name: place.with_stem(f"{place.stem}-{name}") if number else place for number, name in enumerate(names)}


def _tables(measured: Measured, sae: str) -> dict[str, dict[str, list[Any]]]:
    """{measure: the columns of its table}."""
    tables = dict[str, dict[str, list[Any]]]()
    if measured.coverage is not None:
        covered = measured.coverage
        coverages = covered.coverages if isinstance(covered, CoverageComparison) else {sae: covered}
        tables["coverage"] = _one_below_the_other({name: of.columns() for name, of in coverages.items()})
    if measured.probes is not None:
        tables["probes"] = measured.probes.columns()
    if measured.monosemanticity is not None:
        columns = {name: of.columns() for name, of in measured.monosemanticity.items()}
        tables["monosemanticity"] = _one_below_the_other(columns)
    return tables


def _one_below_the_other(tables: Mapping[str, dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """The rows of all tables, which have the same columns, each with the name of its SAE."""
    first = next(iter(tables.values()))
    names = [name for name, table in tables.items() for _ in table[next(iter(first))]]
    return {"sae": names, **{column: [v for table in tables.values() for v in table[column]] for column in first}}


def _check(options: FeaturesOptions) -> None:
    """InputError where nothing is asked for, and for an output that could not be written after all the work."""
    annotated, embedded = options.annotations is not None, options.embeddings is not None
    shown = options.latent is not None or bool(options.examples) or options.paging.report is not None
    if not (annotated or embedded or options.tasks or shown):
        raise InputError(
            "features: expected --annotations, --tasks, --embeddings, --latent or --report, got none of them"
        )
    if options.examples is not None and not 0 <= options.examples <= MOST:
        raise InputError(f"--examples: expected 0 to {MOST} tokens of each latent, got {options.examples}")
    if not annotated and (options.probes or options.figure):
        raise InputError("features: expected --annotations with --probes and --figure")
    if not (annotated or embedded or options.tasks) and (options.against or options.controls or options.table):
        raise InputError(
            "features: expected --annotations, --tasks or --embeddings with --against, --controls and --table"
        )
    if options.figure:
        check_figure(options.figure)
    if options.table:
        check_table(options.table)
    tables = [*table_places(options).values()]
    check_places(options.json, options.figure, *tables)
    check_overwriting("features", options, tables[1:])  # the first is --table
    check_paging(options.paging)
