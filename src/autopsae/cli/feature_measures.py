"""The measures of `features`, one after the other, on the tokens of one source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from autopsae.activations.store import Activations, open_activations
from autopsae.activations.texts import check_positions
from autopsae.arrays import InputError
from autopsae.cli.feature_sources import FromFiles, FromModel, Source
from autopsae.cli.options.features import FeaturesOptions
from autopsae.features.annotations import Annotations, read_annotations
from autopsae.features.codes import Codes, encode_source
from autopsae.features.compare import CoverageComparison, compare_coverages
from autopsae.features.content import activations_content
from autopsae.features.controls import control_saes
from autopsae.features.coverage import concept_coverage
from autopsae.features.coverage_result import Coverage
from autopsae.features.examples import LatentExamples, top_activations
from autopsae.features.labels import Labels, align_annotations
from autopsae.features.monosemanticity import Monosemanticity, monosemanticity
from autopsae.features.pool import pool_codes
from autopsae.features.probe_survey import ProbeSurvey, probe_concepts, probe_documents
from autopsae.features.rows import SomeTokens, select_codes
from autopsae.features.tasks import ProbeTask, read_probe_task
from autopsae.passes import known_tokens
from autopsae.progress import Progress
from autopsae.sae.model import SAE

SAEs = Mapping[str, SAE]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was asked for; None for the rest."""

    coverage: Coverage | CoverageComparison | None = None
    """Of SAE alone, or of several."""
    probes: ProbeSurvey | None = None
    """Of concepts and of tasks."""
    monosemanticity: Mapping[str, Monosemanticity] | None = None
    """Of each SAE."""
    examples: LatentExamples | None = None
    """Where the latent fires."""
    activations: Mapping[str, Any] | None = None
    """Where each latent fires most."""
    note: str | None = None
    """What is to be told beside the results."""


def measure(source: FromFiles | FromModel, saes: SAEs, options: FeaturesOptions, progress: Progress) -> Measured:
    """All that was asked for. What can be wrong in files is looked at first. Raises InputError."""
    annotations = None if options.annotations is None else read_annotations(options.annotations)
    if annotations is not None and options.reading.text:
        check_positions(options.reading.text)
    embeddings = None if options.embeddings is None else open_activations(options.embeddings)
    tasks = [read_probe_task(name, most=options.task_texts) for name in options.tasks]
    surveys = list[ProbeSurvey]()
    if isinstance(source, FromModel):
        for task in tasks:
            surveys.append(_probe_task(source.read_texts(task.texts), task, saes, options, progress))
    if annotations is None and embeddings is None and options.latent is None and not options.examples:
        return Measured(probes=_join(surveys))
    read = source.read()
    # First, as a latent that there is not is found in one pass; all else takes several for each SAE.
    examples, activations = _examples(read, saes[options.sae], options, progress)
    codes = {} if annotations is None and embeddings is None else _encode(read, saes, options, progress)
    coverage = note = None
    if annotations is not None:
        labels, note = _align(annotations, read, codes[options.sae], options)
        coverage = _cover(codes, labels, options)
        if options.probes is not None:
            own = _without_neurons(codes)
            settings = _settings(options) | {"rows": options.probes, "pool": options.pool or "max"}
            surveys.append(probe_concepts(own, read.tokens, labels, **settings, ks=options.ks))
    scores = None if embeddings is None else _score(codes, read, embeddings, options)
    return Measured(
        coverage=coverage,
        probes=_join(surveys),
        monosemanticity=scores,
        examples=examples,
        activations=activations,
        note=note,
    )


def _join(surveys: Sequence[ProbeSurvey]) -> ProbeSurvey | None:
    """Several surveys as one; None of none."""
    if not surveys:
        return None
    return ProbeSurvey(
        probes={label: probes for one in surveys for label, probes in one.probes.items()},
        left_out={label: why for one in surveys for label, why in one.left_out.items()},
    )


def _settings(options: FeaturesOptions) -> dict[str, Any]:
    return {"validation": options.validation, "seed": options.seed}


def _encode(read: Source, saes: SAEs, options: FeaturesOptions, progress: Progress) -> dict[str, Codes]:
    """{name: codes} of the SAEs, and of the controls where they are asked for."""
    encode = partial(encode_source, tokens=read.tokens, documents=read.documents, progress=progress)
    codes = {name: encode(sae) for name, sae in saes.items()}
    if options.controls:
        controls = control_saes(saes[options.sae], read.tokens, is_counted=read.is_counted, seed=options.seed)
        codes |= {name: encode(control) for name, control in controls.items()}
    return codes


def _without_neurons(codes: Mapping[str, Codes]) -> dict[str, Codes]:
    """Probes have the raw neurons as a control in any case."""
    return {name: own for name, own in codes.items() if name != "neurons"}


def _align(
    annotations: Annotations, read: Source, codes: Codes, options: FeaturesOptions
) -> tuple[Labels, str | None]:
    """(the labels, what was left out as it is of documents that were not read)."""
    if codes.documents is None:
        raise InputError(
            f"{options.source}: expected to know the document of each token, the files do not tell; pass "
            "--token-table, or harvest with autopsae"
        )
    note = None
    if read.is_cut:
        if not np.isin(annotations.documents, codes.documents).any():
            raise InputError(
                f"{options.annotations}: expected annotations of the documents that were read (0 to "
                f"{codes.documents.max()}), got none of them; read more --tokens"
            )
        kept = annotations.within(codes.documents)
        if unread := len(annotations) - len(kept):
            note = (
                f"{unread:,} of {len(annotations):,} annotations are left out, as their documents were not "
                "read; read more --tokens"
            )
        annotations = kept
    return align_annotations(annotations, codes.documents, read.table), note


def _cover(codes: Mapping[str, Codes], labels: Labels, options: FeaturesOptions) -> Coverage | CoverageComparison:
    coverages = {name: concept_coverage(own, labels, **_settings(options)) for name, own in codes.items()}
    if len(coverages) == 1:
        return coverages[options.sae]
    return compare_coverages(coverages, baseline=options.sae, seed=options.seed)


def _probe_task(
    read: Source, task: ProbeTask, saes: SAEs, options: FeaturesOptions, progress: Progress
) -> ProbeSurvey:
    assert read.documents is not None  # a model tells them
    codes = _without_neurons(_encode(read, saes, options, progress))
    has = task.labels[np.unique(read.documents)]  # documents are in the order of their numbers
    leave_out = None if read.is_counted is None else ~read.is_counted
    return probe_documents(
        codes,
        read.tokens,
        read.documents,
        {task.name: has},
        leave_out=leave_out,
        pool=options.pool or "last",
        ks=options.ks,
        **_settings(options),
    )


def _score(
    codes: Mapping[str, Codes], read: Source, embeddings: Activations, options: FeaturesOptions
) -> dict[str, Monosemanticity]:
    """By an embedding of each token, or of each document. Tokens that do not count are left out."""
    tokens = known_tokens(read.tokens)
    documents = None if read.documents is None else len(np.unique(read.documents))
    if embeddings.tokens == tokens:
        keep = read.is_counted
        if keep is None:
            return {name: monosemanticity(own, embeddings) for name, own in codes.items()}
        some = SomeTokens(embeddings, keep)
        return {name: monosemanticity(select_codes(own, keep), some) for name, own in codes.items()}
    if embeddings.tokens != documents:
        of = "" if documents is None else f" or {documents:,} documents"
        raise InputError(
            f"{options.embeddings}: expected a row for each of {tokens:,} tokens{of}, got {embeddings.tokens:,}"
        )
    leave_out = None if read.is_counted is None else ~read.is_counted
    pool: Callable[[Codes], Codes] = partial(pool_codes, how=options.pool or "max", leave_out=leave_out)
    return {name: monosemanticity(pool(own), embeddings) for name, own in codes.items()}


def _examples(
    read: Source, sae: SAE, options: FeaturesOptions, progress: Progress
) -> tuple[LatentExamples | None, dict[str, Any] | None]:
    """(where the latent that is asked for fires, where each latent fires most)."""
    most = 0 if options.examples is None else options.examples
    if options.latent is None and not most:
        return None, None
    codes = encode_source(sae, read.tokens, documents=read.documents, progress=progress)
    tops = top_activations(codes, top=max(options.top, most), spread=options.top, seed=options.seed)
    of_one, of_all = None, None
    if options.latent is not None:
        of_one = tops.of_latent(options.latent, read.table, window=options.window)
        of_one = replace(of_one, top=of_one.top[: options.top])
    if most:
        of_all = activations_content(tops, read.table, most=most, window=options.window)
    return of_one, of_all
