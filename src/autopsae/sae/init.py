"""An SAE as it is born: rows drawn, biases, thresholds and affine map from a prescription or any remedy."""

import warnings
from dataclasses import replace
from math import sqrt
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, matrix
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy
from autopsae.remedies.view import View
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import Sparsity
from autopsae.seeds import check_generator, stream
from autopsae.statistics.moments import layer_norm as normalized

_DRAWN_AT_A_TIME = 4096
"""Rows. Another number might draw others."""
_FITTED_AT_A_TIME = 4096
"""Tokens of the sample that are encoded at a time to fit the encoder."""


@runtime_checkable
class Prescribed(Protocol):
    """A remedy with all that an SAE needs to be born under it, such as a `Prescription`."""

    @property
    def remedy(self) -> Remedy:
        """What is changed about the tokens."""

    @property
    def d_sae(self) -> int:
        """Number of latents."""

    @property
    def sparsity(self) -> Sparsity:
        """Which latents fire."""

    @property
    def scale(self) -> float | None:
        """Of the layer, as of `View`; None where it is not known."""

    @property
    def encoder_scale(self) -> float:
        """What the encoder's rows are multiplied by."""

    def differences(self, sae: SAE) -> list[str]:
        """In what `sae` is another than the one that this was made for."""


def draw_rows(
    d_sae: int,
    d_in: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    latents: range | None = None,
) -> Float[Tensor, "latents d_in"]:
    """Encoder rows uniform on the unit sphere, the paper's initialisation (App. A.2), on the generator's device.

    They are drawn from a stream of their own (`seeds.stream`), so they are no numbers that the caller may draw too.
    latents: those whose rows are kept, None for all of `d_sae`. The others are drawn, and need no memory.
    """
    check_generator(generator)
    kept, drawn = range(d_sae) if latents is None else latents, stream(generator, "rows of an SAE")
    rows = torch.empty(len(kept), d_in, dtype=dtype, device=generator.device)
    for first in range(0, d_sae, _DRAWN_AT_A_TIME):
        block = torch.randn(min(_DRAWN_AT_A_TIME, d_sae - first), d_in, generator=drawn, dtype=dtype, device="cpu")
        begin, end = max(first, kept.start), min(first + len(block), kept.stop)
        if begin < end:
            mine = block[begin - first : end - first].to(generator.device)
            rows[begin - kept.start : end - kept.start] = torch.nn.functional.normalize(mine, dim=1)
    return rows


@whole_arguments("d_sae")
def born(
    start: Remedy | Prescribed,
    *,
    d_sae: int | None = None,
    sparsity: Sparsity | None = None,
    sample: Float[Tensor, "sample d_in"] | NDArray[Any] | None = None,
    generator: torch.Generator | None = None,
    encoder_bias: bool = False,
    firing_rate: float | None = None,
    scaled: bool = True,
    layer_norm: bool = False,
    fit_encoder: bool = False,
    dtype: torch.dtype = torch.float32,
    latents: range | None = None,
) -> SAE:
    """A freshly drawn SAE: unit rows uniform on the sphere (in the remedy's subspace, if it has one), W_dec equal
    to W_enc, b_enc = 0 if wanted (paper A.2). Where the remedy only centers, its centre becomes `b_dec`; otherwise
    it becomes the SAE's affine map.

    start: a prescription, which needs nothing more: it carries d_sae, the sparsity, the layer's scale and the
    length of encoder rows, and what is given beside it takes their place; or a remedy, which needs d_sae and a
    sparsity.

    sample: some raw tokens, for all that is set from data: what a firing rate needs, and the scale of the layer, at
    which the median norm of the tokens, as the SAE sees them, is sqrt(d_in): learning rates then mean the same on
    every layer. It is 1 where `scaled` is False (the paper's setting).
    generator: draws the rows (default: seed 0).
    firing_rate: share of the sample on which each latent shall fire at birth. A ReLU SAE gets the encoder bias that
    does it (Conerly et al. 2025), TopK and BatchTopK one that makes each latent positive so often; JumpReLU gets
    thresholds, and a bias only for latents whose threshold would be under where thresholds begin.
    layer_norm: normalise every token; the remedy is then one for normalised tokens, the sample is still raw.
    fit_encoder: multiply encoder rows and biases by the one number at which the reconstructions of the sample have
    the least squared error. Who fires stays the same. k unit rows that fire on a token overshoot it where k is
    large beside d_in, and training first has to shrink them (docs/cures.md). Train such an SAE with
    `TrainConfig(relative_encoder_lr=True)`.
    latents: make these alone of all `d_sae`, in the memory that they need; rows are the same to the bit.

    Raises InputError as `chunks` for a sample, and for one of another width, of zero tokens mostly, or so small or
    large that `dtype` cannot hold the scale; where a scale is wanted and there is neither a sample nor a
    prescription that knows it; for d_sae and sparsity that are missing or do not go together; for a firing rate
    outside (0, 1) and one without a sample; for `fit_encoder` without a sample, with a sparsity that does not
    fix how many latents fire, and with `latents`, as it is a number of all; for `latents` that are not in d_sae.
    """
    remedy, prescribed = (start, None) if isinstance(start, Remedy) else (start.remedy, start)
    d_sae, sparsity = _choose(prescribed, d_sae, sparsity)
    sparsity.check(d_sae)
    _check_latents(latents, d_sae, fit_encoder)
    d_in = len(remedy.affine.center)
    tokens = _check_sample(sample, d_in, layer_norm)
    view = _view(remedy, tokens, prescribed, scaled=scaled, layer_norm=layer_norm, dtype=dtype)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    W = view.rows(draw_rows(d_sae, d_in, generator=generator, dtype=dtype, latents=latents))
    affine, b_dec = view.affine, view.b_dec
    b_enc = W.new_zeros(len(W)) if encoder_bias else None
    threshold = sparsity.threshold_at_birth(len(W))
    if firing_rate is not None:
        reached = _rate_thresholds(affine, tokens, W, b_dec, firing_rate)
        least, threshold = threshold, None if threshold is None else reached.maximum(threshold.to(reached))
        b_enc = -reached if least is None else threshold - reached  # type: ignore[operator]
    sae = SAE(
        W_enc=W,
        W_dec=W,
        b_dec=b_dec.to(W),
        b_enc=b_enc,
        sparsity=sparsity,
        threshold=threshold,
        affine=affine,
        layer_norm=layer_norm,
    )
    if fit_encoder:
        _scale_encoder(sae, _fit_scale(sae, tokens))
    elif prescribed and sparsity.l0 is not None:  # other penalties are set for codes of the usual size
        _scale_encoder(sae, prescribed.encoder_scale)
    if prescribed and latents is None and (differences := prescribed.differences(sae)):
        wrong = "; ".join(differences)
        said = f"born: the prescription was made for another SAE: {wrong}; diagnose again for this one"
        warnings.warn(said, stacklevel=3)
    return sae


def row_length(sae: SAE) -> float:
    """The length that all rows of the encoder of a newly born SAE have: what `fit_encoder` found."""
    return float(sae.W_enc.detach()[0].norm())


def _choose(prescribed: Prescribed | None, d_sae: int | None, sparsity: Sparsity | None) -> tuple[int, Sparsity]:
    """What was given, or else what was prescribed."""
    if prescribed:
        return prescribed.d_sae if d_sae is None else d_sae, sparsity or prescribed.sparsity
    if d_sae is None or sparsity is None:
        raise InputError(
            "born: expected d_sae and a sparsity with a bare remedy, such as born(remedy, d_sae=8192, "
            "sparsity=TopK(k=64), sample=tokens)"
        )
    return d_sae, sparsity


def _check_latents(latents: range | None, d_sae: int, fit_encoder: bool) -> None:
    if latents is None:
        return
    if latents.step != 1 or not 0 <= latents.start < latents.stop <= d_sae:
        raise InputError(f"born: expected latents as a range in d_sae = {d_sae:,}, got {latents}")
    if fit_encoder:
        raise InputError(f"born: expected all latents with fit_encoder, got {latents}")


def _check_sample(sample: Tensor | NDArray[Any] | None, d_in: int, layer_norm: bool) -> Tensor | None:
    if sample is None:
        return None
    if not isinstance(sample, Tensor | np.ndarray) or sample.ndim != 2 or sample.shape[1] != d_in:
        got = f"shape {tuple(sample.shape)}" if isinstance(sample, Tensor | np.ndarray) else type(sample).__name__
        raise InputError(f"born: expected a sample [tokens, d_in = {d_in}], got {got}")
    tokens = matrix(sample)
    return normalized(tokens) if layer_norm else tokens


def _view(
    remedy: Remedy,
    tokens: Tensor | None,
    prescribed: Prescribed | None,
    *,
    scaled: bool,
    layer_norm: bool,
    dtype: torch.dtype,
) -> View:
    """At the scale that the sample tells, or else the prescription; at 1 where none is wanted."""
    known = None if prescribed is None or layer_norm else prescribed.scale
    if not scaled:
        return remedy.enters()
    view = remedy.enters(tokens)
    if tokens is None and known is None:
        raise InputError(
            "born: expected a sample of raw tokens, which tells the scale of the layer; pass sample=tokens, or "
            "scaled=False for a scale of 1"
        )
    if tokens is None:
        assert known is not None
        view = replace(view, scale=known)
    elif bool(view.affine(tokens.double()).norm(dim=1).median() == 0):
        raise InputError("born: expected a sample whose median token is not zero; check mask and hook point")
    limits = torch.finfo(dtype)
    if not limits.tiny <= view.scale <= limits.max:
        raise InputError(
            f"born: expected tokens whose scale {dtype} can hold, got a median norm of "
            f"{sqrt(len(remedy.affine.center)) / view.scale:.3g}, for which it is {view.scale:.3g}; multiply all "
            "tokens by a constant first"
        )
    return view


def _rate_thresholds(
    affine: Affine, sample: Tensor | None, W: Tensor, b_dec: Tensor, rate: float
) -> Float[Tensor, "d_sae"]:
    """What each latent's pre-activation exceeds on the share `rate` of the sample, without a [sample, d_sae]."""
    if sample is None or not 0 < rate < 1:
        missing = "no sample" if sample is None else str(rate)
        raise InputError(f"born: expected a firing_rate between 0 and 1 and a sample to set it on, got {missing}")
    if rate * len(sample) < 1:
        raise InputError(
            f"born: expected a firing_rate of at least one token of the sample, got {rate:g} of {len(sample):,}; "
            "pass a higher rate or a larger sample"
        )
    y = affine(sample.to(W)) - b_dec.to(W)
    rank = max(1, round((1 - rate) * len(y)))
    return torch.cat([matmul(y, rows.T).kthvalue(rank, dim=0).values for rows in W.split(1024)])


@torch.no_grad()
def _fit_scale(sae: SAE, sample: Tensor | None) -> float:
    """argmin_s ||y - b_dec - s z W_dec||^2 over the sample, in the SAE's space."""
    if sample is None or sae.sparsity.l0 is None:
        got = "no sample" if sample is None else f"{sae.sparsity.name}, whose penalty is set for codes of this size"
        raise InputError(
            "born: fit_encoder expected a sample and a sparsity that fixes how many latents fire, such as topk, "
            f"got {got}; leave fit_encoder out, or give what is missing"
        )
    along, square = 0.0, 0.0
    for x in sample.split(_FITTED_AT_A_TIME):
        y = sae.affine(x.to(sae.W_enc))  # normalised already, where the SAE normalises
        decoded = (sae.reconstruct(sae.select(y)) - sae.b_dec).double()
        along += float(((y - sae.b_dec) * decoded).sum())
        square += float(decoded.square().sum())
    if not along > 0:
        raise InputError(
            f"born: fit_encoder expected reconstructions that point to the tokens of the sample, got {along:g} for "
            "the sum of their inner products; check the sample, or leave fit_encoder out"
        )
    return along / square


@torch.no_grad()
def _scale_encoder(sae: SAE, scale: float) -> None:
    """Multiply W_enc and b_enc."""
    sae.W_enc.mul_(scale)
    if sae.b_enc is not None:
        sae.b_enc.mul_(scale)
