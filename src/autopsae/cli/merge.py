"""autopsae merge PART...: the diagnosis of the whole whose parts `stats` wrote."""

from collections.abc import Callable
from functools import partial

from autopsae.activations.names import file_names
from autopsae.arrays import InputError
from autopsae.cli.firing import settings_asked
from autopsae.cli.options.merge import MergeOptions
from autopsae.cli.overwriting import check_prescriptions
from autopsae.cli.page import check_paging, page_writers
from autopsae.cli.printing import print_line, print_text, write_all
from autopsae.cli.terminal import check_places, progress_bar, progress_on
from autopsae.diagnosis.merge import join_parts, merge_parts
from autopsae.diagnosis.part_file import open_part
from autopsae.diagnosis.survey import Survey
from autopsae.provenance import add_provenance
from autopsae.report.figures import save_figure
from autopsae.report.plots import check_figure
from autopsae.report.text import survey_text


def merge(options: MergeOptions) -> None:
    """Diagnose the layers, write what was asked for, print a table; or only join the parts. Raises InputError."""
    if options.out is not None:
        _join(options)
        return
    if options.figure:
        check_figure(options.figure)
    asked = settings_asked(options)
    asked["sparsity"].check(options.d_sae)
    check_paging(options.paging)
    check_places(options.json, options.figure, folder=options.prescriptions)
    for part in options.parts[:1]:  # all have the same layers
        check_prescriptions("merge", options, options.prescriptions, [*open_part(part).layers])
    with progress_bar("merging") as (bar, task):
        result = merge_parts(options.parts, **asked, progress=progress_on(bar, task))
    write_all(_writers(result, options))
    print_text(survey_text(result))


def _writers(result: Survey, options: MergeOptions) -> list[Callable[[], object]]:
    writers: list[Callable[[], object]] = []
    if options.json:
        writers.append(partial(result.save, options.json))
    if options.figure:
        writers.append(partial(save_figure, result, options.figure))
    if options.prescriptions:
        names = file_names([diagnosis.layer for diagnosis in result])
        for d in result:
            save = partial(d.prescription.save, options.prescriptions / names[d.layer])
            writers.append(add_provenance(layer=d.layer)(save))
    return [*writers, *page_writers(options.paging, f"diagnosis of {len(options.parts)} parts", result.to_dict())]


def _join(options: MergeOptions) -> None:
    given = [name for name in ("json", "figure", "prescriptions") if getattr(options, name)]
    given += ["report"] if options.paging.report else []
    if given:
        raise InputError(f"--out: expected without --{given[0]}, as it only writes the parts as one; leave one out")
    assert options.out is not None
    if options.out.suffix != ".safetensors":
        raise InputError(f"--out {options.out}: expected a name that ends in .safetensors")
    check_places(options.out)
    print_line(f"{options.out}: {join_parts(options.parts, options.out)}")
