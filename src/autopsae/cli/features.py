"""autopsae features SAE ACTIVATIONS: what the latents know, concept by concept, and where one of them fires."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Group
from rich.text import Text

from autopsae.activations.store import Activations, open_activations
from autopsae.arrays import InputError, chunks
from autopsae.cli.options.features import FeaturesOptions
from autopsae.cli.printing import print_text, write_all
from autopsae.cli.terminal import check_own_files, progress_bar, progress_on, take_device
from autopsae.features.annotations import read_annotations
from autopsae.features.codes import Codes, encode_source
from autopsae.features.compare import CoverageComparison, compare_coverages
from autopsae.features.controls import neuron_sae, random_sae
from autopsae.features.coverage import concept_coverage
from autopsae.features.coverage_result import Coverage
from autopsae.features.examples import LatentExamples, top_activations
from autopsae.features.labels import Labels, align_annotations
from autopsae.features.token_table import TokenTable, read_token_table
from autopsae.files import write_text
from autopsae.interop.convert import load_sae
from autopsae.progress import Progress
from autopsae.provenance import PROVENANCE, add_provenance, provenance
from autopsae.report.concept_plots import save_concept_figure
from autopsae.report.concepts import comparison_text, coverage_text, examples_text
from autopsae.report.plots import check_figure
from autopsae.sae.death import fates
from autopsae.sae.model import SAE
from autopsae.tables import check_table, save_table

Covered = Coverage | CoverageComparison
Encoder = Callable[[SAE], Codes]


def features(options: FeaturesOptions) -> None:
    """Measure, write what was asked for, and print it. Raises InputError."""
    _check_outputs(options)
    device = take_device(options.device)
    names = [options.sae, *options.against]
    saes = {name: load_sae(name, scale=options.scale, k=options.k).to(device) for name in names}
    if len(saes) < len(names):
        raise InputError(f"against: expected other SAEs than {options.sae}, each once, got {', '.join(names[1:])}")
    padding = options.padding
    source = open_activations(options.source, options.layer, lengths=padding.lengths, mask=padding.mask)
    table = None if options.token_table is None else read_token_table(options.token_table)
    with add_provenance(layer=source.layer), progress_bar("reading the tokens") as (bar, task):
        encode = _encoder(source, table, progress_on(bar, task))
        # First, as a latent that there is not is found in one pass; the coverage takes several for each SAE.
        examples = _examples(encode, saes[options.sae], table, options)
        covered = _cover(encode, saes, source, table, options)
        write_all(_writers(covered, examples, options))
    if covered is not None:
        print_text(comparison_text(covered) if isinstance(covered, CoverageComparison) else coverage_text(covered))
    if examples is not None:
        print_text(examples_text(examples) if covered is None else Group(Text(), examples_text(examples)))


def _encoder(source: Activations, table: TokenTable | None, progress: Progress) -> Encoder:
    """What gives the codes of an SAE on the source. The table tells the documents where the files do not."""
    documents = source.documents
    if documents is None and table is not None:
        documents = table.documents
    return partial(encode_source, tokens=source, documents=documents, progress=progress)


def _cover(
    encode: Encoder,
    saes: dict[str, SAE],
    source: Activations,
    table: TokenTable | None,
    options: FeaturesOptions,
) -> Covered | None:
    if options.annotations is None:
        return None
    codes = {name: encode(sae) for name, sae in saes.items()}
    documents = codes[options.sae].documents
    if documents is None:
        raise InputError(
            f"{options.source}: expected to know the document of each token, the files do not tell; pass "
            "--token-table, or harvest with autopsae"
        )
    labels = align_annotations(read_annotations(options.annotations), documents, table)
    if options.controls:
        controls = _controls(saes[options.sae], source, labels)
        codes |= {name: encode(control) for name, control in controls.items()}
    settings: dict[str, Any] = {"validation": options.validation, "seed": options.seed}
    coverages = {name: concept_coverage(own, labels, **settings) for name, own in codes.items()}
    if len(coverages) == 1:
        return coverages[options.sae]
    return compare_coverages(coverages, baseline=options.sae, seed=options.seed)


def _controls(sae: SAE, source: Activations, labels: Labels) -> dict[str, SAE]:
    """Both are centred at the mean of the tokens that count: what they lack is not the centre."""
    total, at = torch.zeros(sae.d_in, dtype=torch.float64), 0
    for x in chunks(source, dtype=torch.float64):
        total += x[torch.from_numpy(labels.is_counted[at : at + len(x)])].sum(dim=0)
        at += len(x)
    mean = (total / max(1, int(labels.is_counted.sum()))).to(sae.W_enc.device)
    counts = fates(sae, source)
    k = max(1, round(float(counts.fired.sum()) / counts.tokens))
    center = sae.enter(mean[None].to(sae.W_enc))[0][0]
    return {"neurons": neuron_sae(mean).to(sae.W_enc), "random rows": random_sae(sae, k, center=center)}


def _examples(
    encode: Encoder, sae: SAE, table: TokenTable | None, options: FeaturesOptions
) -> LatentExamples | None:
    if options.latent is None:
        return None
    tops = top_activations(encode(sae), top=options.top, spread=options.top, seed=options.seed)
    return tops.of_latent(options.latent, table, window=options.window)


def _writers(
    covered: Covered | None, examples: LatentExamples | None, options: FeaturesOptions
) -> list[Callable[[], object]]:
    writers: list[Callable[[], object]] = []
    if options.json:
        content = {} if covered is None else covered.to_dict()
        content |= {} if examples is None else {"latent": examples.to_dict()}
        text = json.dumps(content | {PROVENANCE: provenance()}, indent=2)
        writers.append(partial(write_text, options.json, text + "\n"))
    if covered is not None and options.table:
        writers.append(partial(save_table, _columns(covered, options.sae), options.table))
    if covered is not None and options.figure:
        writers.append(partial(save_concept_figure, covered, options.figure))
    return writers


def _columns(covered: Covered, name: str) -> dict[str, list[Any]]:
    """A row for each SAE and concept."""
    coverages = covered.coverages if isinstance(covered, CoverageComparison) else {name: covered}
    tables = {who: coverage.columns() for who, coverage in coverages.items()}
    first = next(iter(tables.values()))
    columns = {column: [value for table in tables.values() for value in table[column]] for column in first}
    names = np.repeat([*tables], [len(table["concept"]) for table in tables.values()])
    return {"sae": [str(who) for who in names], **columns}


def _check_outputs(options: FeaturesOptions) -> None:
    """InputError where nothing is asked for, and for an output that could not be written after all the work."""
    if options.annotations is None and options.latent is None:
        raise InputError("features: expected --annotations FILE or --latent N, got neither")
    if options.annotations is None and (options.against or options.controls or options.table or options.figure):
        raise InputError("features: expected --annotations with --against, --controls, --table and --figure")
    if options.figure:
        check_figure(options.figure)
    if options.table:
        check_table(options.table)
    written = [place for place in (options.json, options.table, options.figure) if place]
    check_own_files(written)
