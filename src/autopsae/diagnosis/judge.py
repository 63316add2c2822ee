"""judge(statistics, ...): the diagnosis of a layer of which the statistics are at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.diagnosis.births import DRAW, Births, Forecaster, Question
from autopsae.diagnosis.findings import findings
from autopsae.diagnosis.ladder import Ladder, ladder_beside, remedy_ladder
from autopsae.diagnosis.measured import Measured, sample_size
from autopsae.diagnosis.outliers import outlier_dimensions
from autopsae.diagnosis.parameters import Asked
from autopsae.diagnosis.prescribe import is_short, paper_rule, prescribe, suffices, too_mild
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.profile import variance_shares
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.severity import severity
from autopsae.remedies.remedy import Remedy
from autopsae.remedies.view import View
from autopsae.sae.init import born, draw_rows, row_length
from autopsae.seeds import stream
from autopsae.statistics.collect import Statistics
from autopsae.statistics.groups import documents_of_sample, sample_groups
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.repeats import Repeats
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.closed_form import Prediction
from autopsae.survival.forecast import FOLLOWED, Forecast, forecast_views
from autopsae.survival.outlook import Outlook
from autopsae.survival.recovery import Recovery, recovery_of

_SHOWN_TOKENS = 64
_FITTED_TOKENS = 1024
"""Tokens of the sample to which an encoder is fitted."""


def judge(
    statistics: Statistics,
    asked: Asked,
    births: Births,
    *,
    layer: str = "layer",
    repeats: Repeats | None = None,
    documents: Sequence[int] | NDArray[Any] | None = None,
    sample_documents: Int[Tensor, "sample"] | None = None,
    stream_tokens: int | None = None,
) -> Diagnosis:
    """Severity, forecasts, births, the prescription and findings of a layer.

    births: how death at birth is had (`births`); repeats: of the tokens before copies were left out, where they
    were; documents: the document of each token of the statistics, None if unknown; sample_documents: the
    document of each token of the sample, where only these are known; stream_tokens: the number of
    tokens that those of the statistics are spread over, for which births are estimated (default: they are all).
    Raises InputError as `diagnose`, save for what concerns the tokens themselves.
    """
    repeats, stream_tokens = repeats or statistics.rows.repeats(), stream_tokens or statistics.tokens
    sample = statistics.sample  # a copy is made each time that it is asked for
    median = geometric_median(sample)
    groups = sample_groups(sample, _of_sample(documents, sample_documents, statistics), stream_tokens)
    geometry = severity(statistics, median, groups)
    ladder, wanted = remedy_ladder(statistics.spectrum, median, geometry.effective_rank, asked.alphas, asked.ranks)
    rows = draw_rows(asked.d_sae, statistics.d_in, generator=stream(asked.seed, DRAW)).to(median.device)
    views = _Views(ladder | ladder_beside(statistics.raw, median), sample)
    forecast = partial(
        forecast_views, drawn=rows, sparsity=asked.sparsity, groups=groups, stream_tokens=stream_tokens
    )
    forecasts = forecast(views.of(["none", "median", "mean"]), if_silent={"mean"})
    passed = too_mild([*ladder]) if is_short(asked.lr, asked.steps, asked.sparsity) else set[str]()
    of_ladder = _forecasts(ladder, wanted, passed, views, forecast, forecasts, asked)
    expected = {name: _limit(made.at(asked.at_tokens), sample_size(repeats)) for name, made in of_ladder.items()}
    listed = [name for name in ladder if name in {*expected, "whiten"}] + ["mean", "zscore"]
    birth = births(
        Question(
            asked=asked,
            statistics=statistics,
            stream_tokens=stream_tokens,
            views=views.of(listed),
            forecast=forecast,
            forecasts={**forecasts, **of_ladder},
        )
    )
    prescription = _prescribe(expected, passed, views, asked, layer)
    measured = Measured(
        tokens=statistics.tokens,
        severity=geometry,
        outlier_dimensions=outlier_dimensions(statistics.normed),
        repeats=repeats,
        birth=birth,
        expected=expected,
        predicted=Prediction.of(geometry.gamma, birth["none"].tokens, d_sae=asked.d_sae, sparsity=asked.sparsity),
        forecast=forecasts["none"].dead(birth["none"].tokens).value,
        recovery=_recovery(views["none"], rows, asked, expected["none"]),
        prescription=prescription,
        travel=asked.lr * asked.steps,
        acceptable=asked.acceptable,
        documents_assumed=groups.least_effect > 1,
    )
    return _diagnosis(measured, layer_norm(sample[:_SHOWN_TOKENS]).float().cpu(), statistics.spectrum)


def _prescribe(
    expected: Mapping[str, Outlook], passed: set[str], views: "_Views", asked: Asked, layer: str
) -> Prescription:
    """What is prescribed of the remedies with an expectation. passed: those that are too mild for a short training,
    in which an encoder is fitted; none for another.
    """
    tried = [views.remedy(name) for name in expected if name not in passed]
    about: dict[str, Any] = {"d_sae": asked.d_sae, "sparsity": asked.sparsity, "acceptable": asked.acceptable}
    prescription = prescribe(expected, tried, layer=layer, **about)
    prescription = replace(prescription, scale=views[prescription.remedy.name].scale)
    if not passed or prescription.remedy.affine.linear is None:
        return prescription
    return _fit_encoder(prescription, views.sample, asked)


def _fit_encoder(prescription: Prescription, sample: Float[Tensor, "sample d_in"], asked: Asked) -> Prescription:
    """The prescription with an encoder of the best length at birth for some tokens of the sample."""
    some = sample[:: ceil(len(sample) / _FITTED_TOKENS)]
    generator = torch.Generator(some.device).manual_seed(asked.seed)
    sae = born(prescription, sample=some, generator=generator, fit_encoder=True)
    return replace(prescription, encoder_scale=row_length(sae), lr_steps=asked.lr * asked.steps)


def _of_sample(
    documents: Sequence[int] | NDArray[Any] | None, of_sample: Tensor | None, statistics: Statistics
) -> Tensor | None:
    """The document of each token of the sample."""
    if of_sample is not None:
        return of_sample
    return documents_of_sample(documents, statistics.tokens, statistics.reservoir.places)


def _limit(outlook: Outlook, most: int) -> Outlook:
    """The outlook with at most as many effective tokens as there are different ones."""
    return replace(outlook, effective_tokens=min(outlook.effective_tokens, float(most)))


def _diagnosis(measured: Measured, landscape: Float[Tensor, "shown d_in"], spectrum: Spectrum) -> Diagnosis:
    """What was measured, and what it means."""
    prescription = measured.prescription
    return Diagnosis(
        layer=prescription.layer,
        tokens=measured.tokens,
        d_in=prescription.d_in,
        d_sae=prescription.d_sae,
        sparsity=prescription.sparsity,
        severity=measured.severity,
        outlier_dimensions=measured.outlier_dimensions,
        repeats=measured.repeats,
        predicted=measured.predicted,
        birth=measured.birth,
        expected=measured.expected,
        recovery=measured.recovery,
        prescription=prescription,
        paper=paper_rule(measured.severity.effective_rank_fraction),
        findings=findings(measured),
        landscape=landscape,
        variance_shares=variance_shares(spectrum.eigenvalues).cpu(),
    )


def _recovery(view: View, rows: Float[Tensor, "d_sae d_in"], asked: Asked, expected: Outlook) -> Recovery | None:
    """What training would make of the dead-by-ReLU without any remedy, by the latents that a forecast follows; None
    where no more of them are born than accepted.
    """
    if expected.dead_by_relu.value <= asked.acceptable:
        return None
    y = view.seen
    return recovery_of(y, rows[:FOLLOWED].to(y), lr=asked.lr, steps=asked.steps, tokens=asked.at_tokens)


class _Views:
    """Remedies, and what an SAE sees under each, made when they are asked for: those of a whitening take long."""

    def __init__(self, remedies: Ladder, sample: Float[Tensor, "sample d_in"]) -> None:
        self._makers, self.sample = remedies, sample
        self._remedies: dict[str, Remedy] = {}
        self._views: dict[str, View] = {}

    def remedy(self, name: str) -> Remedy:
        if name not in self._remedies:
            self._remedies[name] = self._makers[name]()
        return self._remedies[name]

    def __getitem__(self, name: str) -> View:
        if name not in self._views:
            self._views[name] = self.remedy(name).enters(self.sample)
        return self._views[name]

    def of(self, names: Sequence[str]) -> dict[str, View]:
        """{name: view} of these remedies."""
        return {name: self[name] for name in names}


def _forecasts(
    ladder: Ladder,
    wanted: set[str],
    passed: set[str],
    views: _Views,
    make: Forecaster,
    known: Mapping[str, Forecast],
    asked: Asked,
) -> dict[str, Forecast]:
    """Of no remedy, the median and what was wanted in any case; of the others up to the first that suffices.
    passed: those that are not prescribed if they do; known: those that are there already.
    """
    forecasts: dict[str, Forecast] = {}
    enough = False
    for name in ladder:
        if len(forecasts) < 2 or name in wanted or not enough:
            forecasts[name] = known.get(name) or make(views.of([name]))[name]
            outlook = forecasts[name].at(asked.at_tokens)
            enough = enough or (name not in passed and suffices(views.remedy(name), outlook, asked.acceptable))
    return forecasts
