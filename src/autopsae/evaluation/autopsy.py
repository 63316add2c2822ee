"""What became of each latent of an SAE on given tokens, why, and what would bring the dead ones back."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.arguments import check_whole, whole_arguments
from autopsae.arrays import InputError, Tokens
from autopsae.defaults import AT_TOKENS, LR, MOST_TOKENS, RARE, STEPS
from autopsae.evaluation.advice import LIBRARIES
from autopsae.evaluation.births import likely_births
from autopsae.evaluation.causes import causes, counterfactuals
from autopsae.evaluation.directions import unit_rows
from autopsae.evaluation.result import FATES, Autopsy
from autopsae.evaluation.space import Space, margins, shift_to
from autopsae.modules import evaluation_mode
from autopsae.passes import source_documents, spread_over
from autopsae.progress import Progress, tell_progress
from autopsae.sae.death import Census, Fates
from autopsae.sae.model import SAE
from autopsae.statistics.groups import documents_of_sample
from autopsae.survival.trained import forecast_dead

ALWAYS = 0.9
"""One that fires on at least this share is always on."""


@torch.no_grad()
@whole_arguments("steps", "at_tokens")
def autopsy(
    sae: SAE,
    tokens: Tokens,
    *,
    lr: float = LR,
    steps: int = STEPS,
    rare: float = RARE,
    at_tokens: int = AT_TOKENS,
    documents: Sequence[int] | NDArray[Any] | None = None,
    written_by: str = "autopsae",
    prescription: str | None = None,
    progress: Progress | None = None,
) -> Autopsy:
    """The fate of each latent on raw tokens, and the cause of each death (`causes`).

    lr, steps: of a training by which it is judged whether b_dec can get far enough; rare: share of the tokens under
    which a latent that fires is rare; at_tokens, documents: of the forecast of death on more tokens, as for
    `evaluate`; written_by: the library that wrote the SAE, as `format_of` names it, and
    prescription: where one is going to be written (`fresh_start`), without suffix, both for the advice alone;
    progress: told the tokens of the pass that counts, as "fates". The same tokens give the same result.

    Some passes over the tokens: three for their centre and spread or a few more, one to count, one more for causes
    if a latent is dead. Memory does not grow with their number.

    Raises InputError for tokens as `chunks`, for passes that differ, for tokens of another width than the SAE's,
    for fewer than 100, where a covariance would not fit in memory, for lr or steps under zero, for `rare` outside
    [0, 1], for `at_tokens` under 1, for documents that are not one whole number for each token, and for a library
    that is not known.
    """
    _check_asked(lr, steps, rare, at_tokens, written_by)
    documents = source_documents(tokens) if documents is None else documents
    sae.check_finite("autopsy")
    with evaluation_mode(sae):
        space = Space.of(sae, tokens)
        fates, max_pre, margin = _count(sae, space, progress)
        W, signal = sae.W_enc, space.spread(sae.W_enc).to(sae.W_enc)
        away, size = (space.center - sae.encoder_center.to(space.center)).to(W), W.norm(dim=1)
        share = (signal / size).square().nan_to_num() / max(space.typical_variance(), torch.finfo(W.dtype).tiny)
        cause, wakes = _why(sae, space, fates, signal=signal, share=share)
        later = forecast_dead(
            sae,
            space.sample.tokens(),
            fates,
            at_tokens=at_tokens,
            documents=documents_of_sample(documents, space.tokens, space.sample.places),
            stream_tokens=spread_over(tokens) or space.tokens,
        )
    return Autopsy(
        sparsity=sae.sparsity.name,
        layer_norm=sae.layer_norm,
        tokens=space.tokens,
        d_in=sae.d_in,
        lr=lr,
        steps=steps,
        rare=rare,
        strays=space.strays,
        repeated=space.repeated,
        center=space.center,
        fired=fates.fired,
        fate=_fate(fates, rare),
        cause=cause,
        max_pre=max_pre,
        margin=margin,
        shift=matmul(W, away) if sae.b_enc is None else matmul(W, away) + sae.b_enc,
        signal=signal,
        variance_share=share,
        alignment=matmul(unit_rows(W), unit_rows(away[None])[0]),
        tied=(unit_rows(W) * unit_rows(sae.W_dec)).sum(dim=1),
        travel=_travel(sae, max_pre),
        wakes=wakes,
        dead_forecast=later,
        written_by=written_by,
        prescription=prescription,
    )


def _check_asked(lr: float, steps: int, rare: float, at_tokens: int, written_by: str) -> None:
    """Raises InputError for settings out of range, and for a library that is not known."""
    if written_by not in LIBRARIES:
        raise InputError(f"autopsy: expected written_by of {', '.join(LIBRARIES)}, got {written_by!r}")
    if not (0 <= lr < torch.inf and 0 <= steps < torch.inf and 0 <= rare <= 1):
        raise InputError(
            f"autopsy: expected lr and steps of at least 0 and rare in [0, 1], got {lr:g}, {steps} and {rare:g}"
        )
    check_whole("autopsy: at_tokens", at_tokens, least=1, most=MOST_TOKENS)


def _travel(sae: SAE, max_pre: Float[Tensor, "d_sae"]) -> Float[Tensor, "d_sae"]:
    """`Autopsy.travel`."""
    below = (-max_pre).clamp_min(0)
    if sae.b_pre is not None:  # it does not learn, and b_dec changes no code
        return torch.where(below > 0, torch.inf, below)
    return (below / sae.W_enc.abs().sum(dim=1)).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _why(
    sae: SAE, space: Space, fates: Fates, *, signal: Float[Tensor, "d_sae"], share: Float[Tensor, "d_sae"]
) -> tuple[Int[Tensor, "d_sae"], Bool[Tensor, "d_sae"]]:
    """(the number in CAUSES of each latent's cause, the dead that wake if they are re-centred alone)."""
    if not fates.dead:
        return torch.zeros_like(fates.fired), torch.zeros_like(fates.positive)
    shift = shift_to(sae, space.center).to(sae.W_enc)
    births = likely_births(sae, signal, fired=fates.fired)
    what_if = counterfactuals(sae, space, births=births, shift=shift, share=share)
    measured = {"fired": fates.fired, "shift": shift, "signal": signal, "share": share}
    cause = causes(what_if, sae=sae, space=space, births=births, **measured)
    return cause, what_if.alone & (fates.fired == 0)


def _count(
    sae: SAE, space: Space, progress: Progress | None
) -> tuple[Fates, Float[Tensor, "d_sae"], Float[Tensor, "d_sae"]]:
    """(what each latent did, its largest pre-activation, its largest margin)."""
    census = Census(sae.d_sae, sae.W_enc.device)
    largest, margin = (torch.full_like(sae.W_enc[:, 0], -torch.inf) for _ in range(2))
    for y in tell_progress(space.blocks(sae.W_enc), progress, "fates", space.tokens):
        census.see(sae.select(y))
        pre = sae.pre_activations(y)
        largest = largest.maximum(pre.amax(dim=0))
        margin = margin.maximum(margins(sae, pre).amax(dim=0))
    return census.fates(), largest, margin


def _fate(fates: Fates, rare: float) -> Int[Tensor, "d_sae"]:
    """The number in FATES of what each latent did."""
    rate = fates.fired.double() / fates.tokens
    fate = torch.zeros_like(fates.fired)
    for name, holds in (
        ("rare", rate < rare),
        ("always_on", rate >= ALWAYS),
        ("dead_by_topk", fates.fired == 0),
        ("dead_by_relu", ~fates.positive),
    ):
        fate[holds] = FATES.index(name)
    return fate
