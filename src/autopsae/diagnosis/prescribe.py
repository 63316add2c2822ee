"""From expected death to what to change: the least intrusive remedy under which few are born dead or will die."""

from collections.abc import Mapping, Sequence

from autopsae.defaults import ACCEPTABLE
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.remedy import Remedy
from autopsae.sae.sparsity import Sparsity
from autopsae.survival.outlook import Outlook

DOMINATED = 0.9
"""Share of the variance in one direction over which a little whitening is prescribed in any case."""

LOPSIDED = 0.6
"""Share of the variance in one direction over which latents die in training unless they are used evenly."""

EVEN = 0.52
"""Usage at birth that is even enough there. docs/forecast.md has the evidence for the three."""

SHORT = 1.0
"""Learning rate times steps up to which a training is short: 1,000 steps at 1e-3 (docs/trial.md)."""

LEAST_WHITENED = "whiten_0.15"
"""The least intrusive remedy that is prescribed for a short training."""

SURVIVAL = "survive 1,000 steps at 3e-4 (longer trainings kill more on some layers: --trial)"
"""What the evidence for the three says of a remedy that passes."""

PAPER_RANK = 0.015
"""Effective rank / d_in under which the paper whitens (App. E, Table S8)."""


def prescribe(
    expected: Mapping[str, Outlook],
    remedies: Sequence[Remedy],
    *,
    layer: str,
    d_sae: int,
    sparsity: Sparsity,
    acceptable: float = ACCEPTABLE,
) -> Prescription:
    """The first of `remedies` (ordered from the least intrusive) that suffices: at most `acceptable` of the latents
    are expected dead, and the others are expected to survive training. Where none does, the most evenly used of
    those that leave so few dead, or the one that leaves the fewest. Remedies without an expectation
    are passed over.
    """
    remedies = [remedy for remedy in remedies if remedy.name in expected]
    remedy = next((remedy for remedy in remedies if suffices(remedy, expected[remedy.name], acceptable)), None)
    enough = remedy is not None
    if remedy is None:
        remedy = min(remedies, key=lambda remedy: _shortfall(expected[remedy.name], acceptable))
    passed_over = {r.name: expected[r.name] for r in remedies[: remedies.index(remedy)]}
    return Prescription(
        remedy=remedy,
        reason=_reason(expected[remedy.name], passed_over, d_sae, acceptable, enough=enough),
        layer=layer,
        d_sae=d_sae,
        sparsity=sparsity,
    )


def is_short(lr: float, steps: int, sparsity: Sparsity) -> bool:
    """Whether a training is so short that its error is decided by how long the encoder is at birth. Every layer is
    then whitened, and the encoder is fitted (`born`); that needs a sparsity that fixes how many latents fire.
    """
    return 0 < lr * steps <= SHORT and sparsity.l0 is not None


def too_mild(ladder: Sequence[str]) -> set[str]:
    """The names of the remedies on the ladder that are not prescribed for a short training."""
    return {*ladder[: ladder.index(LEAST_WHITENED)]}


def paper_rule(effective_rank_fraction: float) -> str:
    """The remedy that the paper would prescribe, to stand beside ours: center by the geometric median, and whiten
    where few directions carry the variance.
    """
    return "whiten" if effective_rank_fraction < PAPER_RANK else "median"


def suffices(remedy: Remedy, outlook: Outlook, acceptable: float) -> bool:
    """Few latents are born dead, and few are expected to die in training."""
    return outlook.dead.value <= acceptable and _survives(remedy, outlook)


def _survives(remedy: Remedy, outlook: Outlook) -> bool:
    """Where one direction holds most of the variance, training turns the latents that fire towards it, and those
    that seldom fire are outdone. Whitening leaves it less.
    """
    if outlook.dominance > DOMINATED and remedy.affine.linear is None:
        return False
    return outlook.dominance <= LOPSIDED or outlook.usage >= EVEN


def _shortfall(outlook: Outlook, acceptable: float) -> tuple[float, float]:
    """Less is better: first the dead past the accepted ones, then uneven use."""
    return max(0.0, outlook.dead.value - acceptable), -outlook.usage


def _reason(
    outlook: Outlook, passed_over: Mapping[str, Outlook], d_sae: int, acceptable: float, *, enough: bool
) -> str:
    """`passed_over`: what the less intrusive remedies would leave."""
    dead = outlook.dead
    interval = f"{dead.value:.1%} ({dead.low:.1%} to {dead.high:.1%})"
    leaves = (
        f"leaves {interval} of {d_sae:,} latents dead on {outlook.tokens:,} tokens, {_describe_training(outlook)}"
    )
    if not enough:
        return (
            f"{leaves}; no remedy suffices for {acceptable:.1%} dead and survival in training, this one is nearest"
        )
    if not passed_over:
        return f"{leaves}: at most {acceptable:.1%}, and they are expected to {SURVIVAL}"
    left = ", ".join(f"{name} {o.dead.value:.1%} ({_describe_training(o)})" for name, o in passed_over.items())
    return (
        f"{leaves}, and they are expected to {SURVIVAL}; the less intrusive leave over {acceptable:.1%} or are "
        f"not: {left}"
    )


def _describe_training(outlook: Outlook) -> str:
    """What survival in training is judged by."""
    return f"usage {outlook.usage:.0%}, {outlook.dominance:.0%} of the variance in one direction"
