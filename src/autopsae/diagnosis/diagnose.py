"""diagnose(tokens, d_sae=..., k=...): how an SAE would fare on a layer, and what to change, before training it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, check_device
from autopsae.defaults import ACCEPTABLE, AT_TOKENS, LR, STEPS, Repeated
from autopsae.diagnosis.findings import findings
from autopsae.diagnosis.ladder import remedy_ladder
from autopsae.diagnosis.measured import Measured, sample_size
from autopsae.diagnosis.parameters import check_parameters
from autopsae.diagnosis.prescribe import paper_rule, prescribe, suffices
from autopsae.diagnosis.result import Diagnosis
from autopsae.diagnosis.room import bytes_of_diagnosis
from autopsae.diagnosis.severity import severity
from autopsae.passes import same_passes
from autopsae.progress import Progress
from autopsae.remedies.remedy import Remedy, center, z_score
from autopsae.remedies.view import View
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.seeds import stream
from autopsae.statistics.collect import Statistics, collect
from autopsae.statistics.groups import sample_groups
from autopsae.statistics.median import geometric_median
from autopsae.statistics.moments import layer_norm
from autopsae.statistics.repeats import OneOfEach, count_repeats
from autopsae.survival.birth import Birth, measure_birth
from autopsae.survival.closed_form import Prediction
from autopsae.survival.forecast import FOLLOWED, Forecast, forecast_birth
from autopsae.survival.outlook import Outlook
from autopsae.survival.recovery import Recovery, recovery_of

_SHOWN_TOKENS = 64
_DRAW = "diagnosis"  # the purpose of the seed: the same rows for forecasts and counts, under every remedy


@whole_arguments("d_sae", "k", "at_tokens", "steps", "seed")
def diagnose(
    tokens: Tokens,
    *,
    d_sae: int = 8192,
    k: int | None = None,
    sparsity: Sparsity | None = None,
    at_tokens: int = AT_TOKENS,
    documents: Sequence[int] | None = None,
    layer: str = "layer",
    alphas: Sequence[float] = (),
    ranks: Sequence[int] = (),
    acceptable: float = ACCEPTABLE,
    lr: float = LR,
    steps: int = STEPS,
    repeated: Repeated = "keep",
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose one layer from its activations.

    Two passes over the tokens: statistics and a sample of 4,096, then death at birth, counted for a freshly drawn
    SAE under no remedy, centering by the arithmetic mean and by the geometric median, z-scoring and whitening.
    From the sample the death that `at_tokens` tokens would leave is forecast, remedy by remedy from the least
    intrusive, until one leaves at most `acceptable`, and latents that are expected to survive training; it is
    prescribed.

    tokens: [tokens, d_in] or a re-iterable of such batches; d_sae, sparsity: the SAE to be trained (k = 64 is short
    for TopK(k=64), the default); alphas, ranks: further whitening exponents and active subspace ranks to measure;
    documents: the number of the document, image or sequence that each token is from, for the intervals (default:
    unknown, guessed); acceptable: fraction of latents that may be born dead; lr, steps: the training by which
    `recovery` is judged;
    repeated: "leave_out" keeps one of each vector (a third pass, and up to 24 bytes of memory for each of them),
    "keep" all tokens; seed: of the drawn SAE and of the token sample; device: where to compute (default: where the
    tokens are, for the products too); progress: told the tokens of each pass, as "statistics" and "birth".

    Raises InputError for tokens as `chunks`, for d_in < 2, for norms whose squares overflow or vanish, for passes
    that differ, for fewer than 40 tokens or where all are the same; for a layer so wide that it would not fit in
    memory (`bytes_of_diagnosis`); for numbers that cannot be (`check_parameters`); and for a device that does not
    compute in float64.
    """
    listed: dict[str, Any] = {"alphas": alphas, "ranks": ranks, "repeated": repeated}
    sparsity = topk_unless(sparsity, k)
    sparsity.check(d_sae)
    check_parameters(d_sae, acceptable, at_tokens=at_tokens, lr=lr, steps=steps, seed=seed, **listed)
    check_device(device, torch.float64)
    tokens = same_passes(tokens)
    repeats = count_repeats(tokens) if repeated == "leave_out" else None
    tokens = OneOfEach(tokens) if repeats else tokens
    needs = partial(bytes_of_diagnosis, d_sae=d_sae, alphas=len(alphas), ranks=len(ranks))
    statistics = collect(tokens, seed=seed, device=device, needs=needs, progress=progress)
    repeats = repeats or statistics.rows.repeats()
    sample = statistics.sample  # a copy is made each time that it is asked for
    median = geometric_median(sample)
    groups = sample_groups(sample, _of_sample(documents, statistics, repeated))
    geometry = severity(statistics, median, groups)
    ladder, asked = remedy_ladder(statistics.raw, median, geometry.effective_rank, alphas, ranks)
    rows = draw_rows(d_sae, statistics.d_in, generator=stream(seed, _DRAW)).to(median.device)
    others = [center(statistics.raw.mean, "mean"), z_score(statistics.raw.std, median)]
    views = {remedy.name: remedy.enters(sample) for remedy in [*ladder, *others]}
    forecast = partial(
        forecast_birth, drawn=rows, sparsity=sparsity, groups=groups, stream_tokens=statistics.tokens
    )
    expected = _outlooks(ladder, asked, views, forecast, at_tokens=at_tokens, acceptable=acceptable)
    most = float(sample_size(repeats))
    expected = {n: replace(o, effective_tokens=min(o.effective_tokens, most)) for n, o in expected.items()}
    stuck = expected["none"].dead_by_relu.value > acceptable
    recovered = _recovery(views["none"], rows, lr=lr, steps=steps, at_tokens=at_tokens) if stuck else None
    counted = [r.name for r in ladder if r.name in {*expected, "whiten"}] + [remedy.name for remedy in others]
    birth = _births(
        tokens, {name: views[name] for name in counted}, statistics, d_sae, sparsity, seed=seed, progress=progress
    )
    prescription = prescribe(expected, ladder, layer=layer, d_sae=d_sae, sparsity=sparsity, acceptable=acceptable)
    prescription = replace(prescription, scale=views[prescription.remedy.name].scale)
    measured = Measured(
        tokens=statistics.tokens,
        severity=geometry,
        repeats=repeats,
        birth=birth,
        expected=expected,
        predicted=Prediction.of(geometry.gamma, statistics.tokens, d_sae=d_sae, sparsity=sparsity),
        recovery=recovered,
        prescription=prescription,
        acceptable=acceptable,
    )
    return _diagnosis(measured, layer_norm(sample[:_SHOWN_TOKENS]).float().cpu())


def _diagnosis(measured: Measured, landscape: Float[Tensor, "shown d_in"]) -> Diagnosis:
    """What was measured, and what it means."""
    prescription = measured.prescription
    return Diagnosis(
        layer=prescription.layer,
        tokens=measured.tokens,
        d_in=prescription.d_in,
        d_sae=prescription.d_sae,
        sparsity=prescription.sparsity,
        severity=measured.severity,
        repeats=measured.repeats,
        predicted=measured.predicted,
        birth=measured.birth,
        expected=measured.expected,
        recovery=measured.recovery,
        prescription=prescription,
        paper=paper_rule(measured.severity.effective_rank_fraction),
        findings=findings(measured),
        landscape=landscape,
    )


def _of_sample(documents: Sequence[int] | None, statistics: Statistics, repeated: Repeated) -> Tensor | None:
    """The document of each token of the sample, looked up by its place in the stream."""
    if documents is None:
        return None
    listed = torch.as_tensor(documents)
    if repeated == "leave_out":
        raise InputError('documents: expected repeated="keep", as copies that are left out have documents too')
    if listed.shape != (statistics.tokens,):
        raise InputError(
            f"documents: expected one whole number for each of {statistics.tokens:,} tokens, got shape "
            f"{tuple(listed.shape)}; pass the number of the document that each token is from"
        )
    return listed[torch.from_numpy(statistics.reservoir.places)]


def _births(
    tokens: Tokens,
    views: Mapping[str, View],
    statistics: Statistics,
    d_sae: int,
    sparsity: Sparsity,
    *,
    seed: int,
    progress: Progress | None,
) -> dict[str, Birth]:
    """Death at birth on all tokens, of the SAE whose rows the forecasts see."""
    drawn, device = stream(seed, _DRAW), statistics.raw.mean.device
    births = measure_birth(
        tokens,
        views,
        d_sae=d_sae,
        sparsity=sparsity,
        generator=drawn,
        device=device,
        progress=progress,
    )
    # A remedy under which all have fired is not counted to the end, and none can be dead there.
    return {name: replace(birth, tokens=statistics.tokens) for name, birth in births.items()}


def _recovery(
    view: View,
    rows: Float[Tensor, "d_sae d_in"],
    *,
    lr: float,
    steps: int,
    at_tokens: int,
) -> Recovery:
    """What training would make of the dead-by-ReLU without any remedy, by the latents that a forecast follows."""
    y = view.seen
    return recovery_of(y, rows[:FOLLOWED].to(y), lr=lr, steps=steps, tokens=at_tokens)


def _outlooks(
    ladder: Sequence[Remedy],
    asked: set[str],
    views: Mapping[str, View],
    forecast: Callable[[View], Forecast],
    *,
    at_tokens: int,
    acceptable: float,
) -> dict[str, Outlook]:
    """Of no remedy, the median and what was asked for in any case; of the others up to the first that suffices."""
    outlooks: dict[str, Outlook] = {}
    for remedy in ladder:
        enough = any(r.name in outlooks and suffices(r, outlooks[r.name], acceptable) for r in ladder)
        if len(outlooks) < 2 or remedy.name in asked or not enough:
            outlooks[remedy.name] = forecast(views[remedy.name]).at(at_tokens)
    return outlooks
