"""autopsae autopsy SAE ACTIVATIONS: what became of the latents, why, and what would bring the dead back."""

import json as json_format
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from autopsae.activations.store import open_activations
from autopsae.arrays import InputError
from autopsae.cli.options import Padding
from autopsae.cli.printing import print_text, write_all
from autopsae.cli.terminal import check_places, checked_device, progress_bar, progress_on
from autopsae.diagnosis.diagnose import LR, STEPS
from autopsae.evaluation.autopsy import RARE
from autopsae.evaluation.autopsy import autopsy as examine
from autopsae.evaluation.fresh_start import check_raw, fresh_start
from autopsae.evaluation.recentre import cost_of_recentring
from autopsae.evaluation.recentre import recentre as recentre_dead
from autopsae.files import pair_files, write_text
from autopsae.interop.convert import check_new_pair, format_of, load_sae, save_new
from autopsae.report.plots import check_figure, save_figure
from autopsae.report.text import autopsy_text
from autopsae.tables import check_table


def autopsy(
    sae: Positional[str],
    activations: Positional[Path],
    /,
    *,
    scale: float | None = None,
    k: int | None = None,
    layer: str | None = None,
    padding: Annotated[Padding, OmitArgPrefixes] = Padding(),
    tokens: int = 100_000,
    rare: float = RARE,
    lr: float = LR,
    steps: int = STEPS,
    json: Path | None = None,
    table: Path | None = None,
    figure: Path | None = None,
    recentre: Path | None = None,
    prescription: Path | None = None,
    device: str | None = None,
) -> None:
    """What became of the latents of SAE on ACTIVATIONS: who is dead, of what, and what would bring them back.

    Args:
        sae: A trained SAE, as `train` writes it (OUT/sae), or one of another library or suite (docs/files.md).
        activations: A file or a folder: what `harvest` writes, or a layout of docs/files.md.
        scale: What tokens are multiplied with before SAE, where its files do not say it (docs/files.md).
        k: Active latents per token, where the files of SAE do not say it (Qwen-Scope).
        layer: Layer that the SAE was trained on, where there are several; N stands for hsN.
        padding: Which tokens are padding, and left out.
        tokens: Tokens at most, spread over the source.
        rare: Share of the tokens; latents that fire on fewer are rare.
        lr: Learning rate by which it is judged whether training can bring the dead-by-ReLU back.
        steps: Steps of that training.
        json: Write the counts and findings there.
        table: Write a row per latent there (.csv, .parquet).
        figure: Write shift against signal there (.png, .pdf, .svg).
        recentre: Write the SAE under this new name with its dead latents re-centred, untrained; says what it costs.
        prescription: Write what the next SAE should start from there: b_dec at the centre of these tokens. The
            advice says how the library that wrote SAE takes it.
        device: Where to compute, for example cuda.
    """
    _check_outputs(json, table, figure, recentre, prescription)
    if recentre and not Path(sae).is_dir() and pair_files(recentre)[0].resolve() == pair_files(sae)[0].resolve():
        raise InputError(f"{recentre}: expected a new name, got one that is taken; pass another")
    loaded, library = load_sae(sae, scale=scale, k=k).to(checked_device(device)), format_of(sae)
    if prescription:
        check_raw(loaded)
    source = open_activations(activations, layer, lengths=padding.lengths, mask=padding.mask).take(tokens)
    with progress_bar("reading the tokens") as (bar, task):
        found = examine(
            loaded,
            source,
            lr=lr,
            steps=steps,
            rare=rare,
            written_by=library,
            prescription=None if prescription is None else str(pair_files(prescription)[0].with_suffix("")),
            progress=progress_on(bar, task),
        )
        woken = cost = None
        if recentre:
            bar.update(task, description="re-centring")
            woken = recentre_dead(loaded, center=found.center, is_dead=found.is_dead)
            cost = cost_of_recentring(loaded, woken, source)
    counts = json_format.dumps(found.to_dict() | ({"recentred": cost.to_dict()} if cost else {}), indent=2)
    writers: list[Callable[[], object]] = []
    if json:
        writers.append(partial(write_text, json, counts + "\n"))
    if table:
        writers.append(partial(found.save_table, table))
    if figure:
        writers.append(partial(save_figure, found, figure))
    if prescription:
        writers.append(partial(fresh_start(loaded, found, layer=source.layer).save, prescription))
    if recentre and woken:
        # The last: its name has to be a new one, so a run that was killed before it can be run again.
        writers.append(partial(save_new, woken, recentre))
    write_all(writers)
    print_text(autopsy_text(found, cost))


def _check_outputs(
    json: Path | None, table: Path | None, figure: Path | None, recentre: Path | None, prescription: Path | None
) -> None:
    """InputError for an output that could not be written after all the work, or that two would write."""
    if figure:
        check_figure(figure)
    if table:
        check_table(table)
    written = [place for place in (json, table, figure) if place]
    if recentre:
        check_new_pair(recentre)
        written += pair_files(recentre)
    if prescription:
        written += pair_files(prescription)
    for place in written:
        check_places(place, None, None)
    if len({place.resolve() for place in written}) < len(written):
        raise InputError(f"expected a file of its own for each output, got {', '.join(map(str, written))}")
