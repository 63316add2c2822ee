"""autopsae diagnose SOURCE: the verdict, a table, findings and prescriptions, from activations or from a model."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from autopsae.activations.names import file_names
from autopsae.activations.store import Activations, open_layers
from autopsae.arrays import InputError, Tokens
from autopsae.cli.documents import check_unread, documents_of, is_model, load_source
from autopsae.cli.firing import settings_asked, sparsity_of
from autopsae.cli.on_engine import check_spreading, spread_survey
from autopsae.cli.options.diagnose import DiagnoseOptions
from autopsae.cli.options.shared import Padding, Paging
from autopsae.cli.overwriting import check_overwriting, check_prescriptions
from autopsae.cli.page import check_paging, page_writers
from autopsae.cli.printing import print_note, print_text, write_all
from autopsae.cli.terminal import check_places, progress_bar, progress_on, take_device
from autopsae.cli.trial import check_trial, content_with_trials, run_trials, training_of
from autopsae.diagnosis.model import diagnose_model
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.survey import Survey, survey
from autopsae.files import is_regular
from autopsae.passes import known_digest, same_passes
from autopsae.provenance import PROVENANCE, add_provenance
from autopsae.reading import as_object, read_object
from autopsae.report.figures import save_figure
from autopsae.report.plots import check_figure
from autopsae.report.text import survey_text
from autopsae.report.trial import trials_text
from autopsae.saved import save_result
from autopsae.trial.result import Trial
from autopsae.urls import is_file_there, refuse_url, remove_file

_STOPPED = "stopped_after"
"""Says in the provenance of a file that a diagnosis stopped, and after how many layers."""


def diagnose(options: DiagnoseOptions) -> None:
    """Diagnose layers, write what was asked for, and print a table. Raises InputError."""
    if options.figure:
        check_figure(options.figure)
    sparsity_of(options.firing).check(options.d_sae)
    check_places(options.json, options.figure, folder=options.prescriptions)
    refuse_url(options.trialing.trial_folder, "a local folder, which can be locked", "name one on this machine")
    check_places(folder=options.trialing.trial_folder)
    check_paging(options.paging)
    check_trial(options)
    check_spreading(options)
    device = take_device(options.device)
    opened: dict[str, Activations] = {}
    layers: dict[str, Tokens] = {}
    if not is_model(options.source):
        padding = options.padding
        check_unread(options.reading)
        opened = open_layers(options.source, options.layers, lengths=padding.lengths, mask=padding.mask)
        # Compared over their passes, after which it is known what was read.
        layers = {name: same_passes(layer.take(options.tokens)) for name, layer in opened.items()}
    part = _part_of(options.json)
    check_overwriting("diagnose", options, [part] if part else ())
    check_prescriptions("diagnose", options, options.prescriptions, [*opened] or _state_names(options))
    judged: list[Diagnosis] = []
    try:
        result = (
            _of_activations(layers, options, device, judged.append)
            if layers
            else _of_model(options, device, judged.append)
        )
    except BaseException:
        if judged:
            _keep_part(Survey(tuple(judged)), layers, options)
        raise
    write_all(_writers(result, layers, options, {}))
    _remove_part(options.json)
    if options.trialing.trial:
        _add_trials(result, opened, layers, options, device)
    else:
        print_text(survey_text(result))


def _state_names(options: DiagnoseOptions) -> list[str]:
    """The layers of a model that is not loaded yet, as far as another output may have their names."""
    if options.layers:
        return [f"hs{layer}" if layer.isdigit() else layer for layer in options.layers]
    stem = options.json.stem if options.json else ""
    return [stem] if stem.removeprefix("hs").isdigit() else []


def _keep_part(part: Survey, layers: Mapping[str, Tokens], options: DiagnoseOptions) -> None:
    """Print and write the diagnoses before a layer that failed, or before Ctrl-C. The JSON is NAME.part.json,
    so that nobody takes it for the whole, and a whole one of an earlier time stays; there is no figure and no page.
    """
    json = _part_of(options.json)
    read = {d.layer: layers[d.layer] for d in part if d.layer in layers}
    with add_provenance(**{_STOPPED: len(part)}):
        write_all(_writers(part, read, replace(options, json=json, figure=None, paging=Paging()), {}))
    print_text(survey_text(part))
    written = f"; they are in {json}" if json else ""
    print_note(f"warning: stopped after {len(part)} of the layers{written}")


def _part_of(json: Path | None) -> Path | None:
    """Where the diagnoses of some layers are kept; None where the whole goes to no file but to a pipe."""
    if json is None or not is_regular(json):
        return None
    return json.with_name(f"{json.stem}.part{json.suffix}")


def _remove_part(json: Path | None) -> None:
    """Remove what an earlier diagnosis kept of some layers, now that the whole is written; no other file."""
    part = _part_of(json)
    if part is None or not is_file_there(part):
        return
    try:
        wrote = as_object(read_object(part).get(PROVENANCE), part)
    except InputError:
        return
    if _STOPPED in wrote:
        remove_file(part)


def _add_trials(
    result: Survey,
    opened: Mapping[str, Activations],
    layers: Mapping[str, Tokens],
    options: DiagnoseOptions,
    device: str | None,
) -> None:
    """Try the remedies on each layer, write the diagnosis again with what that said, and print both: what a trial
    prescribes takes the place of what the diagnosis did. Trials take long: those that are over are written and
    printed too where a later one breaks off.
    """
    trials: dict[str, Trial] = {}
    try:
        for name, one in run_trials(opened, options, device):
            trials[name] = one
            if len(result) > 1:
                print_note(f"{name}: the trial prescribes {one.chosen}")
    finally:
        try:
            if trials:
                write_all(_writers(result, layers, options, trials))
        finally:
            print_text(trials_text(result, trials))


def _of_activations(
    layers: Mapping[str, Tokens],
    options: DiagnoseOptions,
    device: str | None,
    judged: Callable[[Diagnosis], None],
) -> Survey:
    if options.spreading.on:
        return spread_survey(options, _settings(options), judged)
    with progress_bar("opening") as (bar, task):
        return survey(
            layers,
            **_settings(options),
            repeated=options.repeated,
            exact=options.exact,
            device=device,
            announce=lambda line: print_note(f"{options.source}: {line}", bar.console),
            judged=judged,
            progress=progress_on(bar, task),
        )


def _of_model(options: DiagnoseOptions, device: str | None, judged: Callable[[Diagnosis], None]) -> Survey:
    if options.trialing.trial:
        raise InputError("--trial: expected with activations, got a model; write them with --keep DIR first")
    if options.exact or options.repeated != "keep" or options.padding != Padding():
        raise InputError(
            "--exact, --repeated, --lengths and --mask: expected with activations, got a model; harvest it first"
        )
    documents = documents_of(options.reading)
    with progress_bar(f"loading {options.source}") as (bar, task):
        return diagnose_model(
            load_source(options.source, device),
            documents,
            layers=options.layers or None,
            tokens=options.tokens,
            context=options.reading.context,
            batch_size=options.reading.batch_size,
            keep=options.reading.keep,
            **_settings(options),
            announce=lambda line: print_note(line, bar.console),
            judged=judged,
            progress=progress_on(bar, task),
        )


def _settings(options: DiagnoseOptions) -> dict[str, Any]:
    """What is asked of a diagnosis whatever its source."""
    plan = training_of(options) if options.plan else None
    return {**settings_asked(options), "seed": options.seed, "plan": plan}


def _writers(
    result: Survey, layers: Mapping[str, Tokens], options: DiagnoseOptions, trials: Mapping[str, Trial]
) -> list[Callable[[], object]]:
    digests = {name: asdict(known) for name, tokens in layers.items() if (known := known_digest(tokens))}
    writers: list[Callable[[], object]] = []
    wrote_all, content = add_provenance(digests=digests), content_with_trials(result, trials)
    if options.json:
        writers.append(wrote_all(partial(save_result, options.json, content)))
    if options.figure and not trials:  # it shows none of a trial
        writers.append(partial(save_figure, result, options.figure))
    if options.prescriptions:
        names = file_names([diagnosis.layer for diagnosis in result])
        for d in result:
            wrote = add_provenance(layer=d.layer, digest=digests.get(d.layer))
            prescription = trials[d.layer].prescription if d.layer in trials else d.prescription
            writers.append(wrote(partial(prescription.save, options.prescriptions / names[d.layer])))
    pages = page_writers(options.paging, f"diagnosis of {options.source}", content)
    return [*writers, *(wrote_all(write) for write in pages)]
