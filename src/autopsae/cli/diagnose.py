"""autopsae diagnose SOURCE: a table, findings and prescriptions, layer by layer."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

from autopsae.activations.names import file_names
from autopsae.activations.store import open_layers
from autopsae.arrays import Tokens
from autopsae.cli.firing import sparsity_of
from autopsae.cli.options.diagnose import DiagnoseOptions
from autopsae.cli.printing import print_text, write_all
from autopsae.cli.terminal import check_places, progress_bar, progress_on, take_device
from autopsae.diagnosis.survey import Survey, survey
from autopsae.passes import known_digest, same_passes
from autopsae.provenance import add_provenance
from autopsae.report.plots import check_figure, save_figure
from autopsae.report.text import survey_text


def diagnose(options: DiagnoseOptions) -> None:
    """Diagnose layers, write what was asked for, and print a table. Raises InputError."""
    if options.figure:
        check_figure(options.figure)
    sparsity = sparsity_of(options.firing)
    sparsity.check(options.d_sae)
    check_places(options.json, options.figure, options.prescriptions)
    device = take_device(options.device)
    padding = options.padding
    opened = open_layers(options.source, options.layers, lengths=padding.lengths, mask=padding.mask)
    # Compared over their passes, after which it is known what was read.
    layers = {name: same_passes(layer.take(options.tokens)) for name, layer in opened.items()}
    with progress_bar("opening") as (bar, task):
        result = survey(
            layers,
            d_sae=options.d_sae,
            sparsity=sparsity,
            at_tokens=options.at_tokens,
            alphas=options.alphas,
            ranks=options.ranks,
            acceptable=options.acceptable,
            lr=options.lr,
            steps=options.steps,
            repeated=options.repeated,
            seed=options.seed,
            device=device,
            progress=progress_on(bar, task),
        )
    write_all(_writers(result, layers, options))
    print_text(survey_text(result))


def _writers(result: Survey, layers: Mapping[str, Tokens], options: DiagnoseOptions) -> list[Callable[[], object]]:
    digests = {name: asdict(known) for name, tokens in layers.items() if (known := known_digest(tokens))}
    writers: list[Callable[[], object]] = []
    if options.json:
        writers.append(add_provenance(digests=digests)(partial(result.save, options.json)))
    if options.figure:
        writers.append(partial(save_figure, result, options.figure))
    if options.prescriptions:
        names = file_names([diagnosis.layer for diagnosis in result])
        for d in result:
            wrote = add_provenance(layer=d.layer, digest=digests.get(d.layer))
            writers.append(wrote(partial(d.prescription.save, options.prescriptions / names[d.layer])))
    return writers
