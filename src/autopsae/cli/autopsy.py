"""autopsae autopsy SAE ACTIVATIONS: what became of the latents, why, and what would bring the dead back."""

import json
from collections.abc import Callable
from functools import partial

from autopsae.activations.store import Activations, open_activations
from autopsae.cli.options.autopsy import AutopsyOptions
from autopsae.cli.page import check_paging, page_writers
from autopsae.cli.printing import print_text, write_all
from autopsae.cli.terminal import check_places, progress_bar, progress_on, take_device
from autopsae.diagnosis.prescription import FORMAT
from autopsae.evaluation.autopsy import autopsy as examine
from autopsae.evaluation.fresh_start import check_raw, fresh_start
from autopsae.evaluation.recentre import RecentringCost, cost_of_recentring
from autopsae.evaluation.recentre import recentre as recentre_dead
from autopsae.evaluation.result import Autopsy
from autopsae.files import pair_files, write_text
from autopsae.interop.convert import check_new_pair, format_of, load_sae, save_new
from autopsae.provenance import PROVENANCE, add_provenance, provenance
from autopsae.report.figures import save_figure
from autopsae.report.page.read import latent_rows
from autopsae.report.plots import check_figure
from autopsae.report.text import autopsy_text
from autopsae.sae.model import SAE
from autopsae.saved import check_free
from autopsae.tables import check_table


def autopsy(options: AutopsyOptions) -> None:
    """Examine an SAE, write what was asked for, and print who is dead of what. Raises InputError."""
    _check_outputs(options)
    loaded = load_sae(options.sae, scale=options.scale, k=options.k).to(take_device(options.device))
    if options.prescription:
        check_raw(loaded)
    padding = options.padding
    opened = open_activations(options.source, options.layer, lengths=padding.lengths, mask=padding.mask)
    source = opened.take(options.tokens)
    with add_provenance(layer=source.layer):
        result, woken, cost = _examine(loaded, source, options)
        write_all(_writers(loaded, result, woken, cost, options, source.layer))
    print_text(autopsy_text(result, cost))


def _examine(
    loaded: SAE, source: Activations, options: AutopsyOptions
) -> tuple[Autopsy, SAE | None, RecentringCost | None]:
    """(the autopsy, the SAE with its dead latents re-centred, what that costs), the last two where asked for."""
    prescription = options.prescription
    with progress_bar("reading the tokens") as (bar, task):
        result = examine(
            loaded,
            source,
            lr=options.lr,
            steps=options.steps,
            rare=options.rare,
            at_tokens=options.at_tokens,
            written_by=format_of(options.sae),
            prescription=None if prescription is None else str(pair_files(prescription)[0].with_suffix("")),
            progress=progress_on(bar, task),
        )
        if not options.recentre:
            return result, None, None
        bar.update(task, description="re-centring")
        woken = recentre_dead(loaded, center=result.center, is_dead=result.is_dead)
        return result, woken, cost_of_recentring(loaded, woken, source)


def _writers(
    loaded: SAE,
    result: Autopsy,
    woken: SAE | None,
    cost: RecentringCost | None,
    options: AutopsyOptions,
    layer: str,
) -> list[Callable[[], object]]:
    writers: list[Callable[[], object]] = []
    counts = result.to_dict() | ({"recentred": cost.to_dict()} if cost else {})
    if options.json:
        text = json.dumps(counts | {PROVENANCE: provenance()}, indent=2)
        writers.append(partial(write_text, options.json, text + "\n"))
    if options.table:
        writers.append(partial(result.save_table, options.table))
    if options.figure:
        writers.append(partial(save_figure, result, options.figure))
    if options.prescription:
        writers.append(partial(fresh_start(loaded, result, layer=layer).save, options.prescription))
    writers += page_writers(options.paging, f"autopsy of {options.sae}", counts, latent_rows(result))
    if options.recentre and woken:
        # After all others: its name has to be a new one, so a run that was killed before it can be run again.
        writers.append(partial(save_new, woken, options.recentre))
    return writers


def _check_outputs(options: AutopsyOptions) -> None:
    """InputError for an output that could not be written after all the work."""
    recentre = options.recentre
    if options.figure:
        check_figure(options.figure)
    if options.table:
        check_table(options.table)
    written = [place for place in (options.json, options.table, options.figure) if place]
    if recentre:
        check_new_pair(recentre)
        written += pair_files(recentre)
    if options.prescription:
        check_free(options.prescription, format=FORMAT)
        written += pair_files(options.prescription)
    check_places(*written)
    check_paging(options.paging)
