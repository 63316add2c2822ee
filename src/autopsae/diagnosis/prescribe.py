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
    reason = _leaves(remedy, expected[remedy.name], d_sae)
    passed_over = remedies[: remedies.index(remedy)]
    if not enough:
        reason += (
            f". No remedy leaves at most {acceptable:.1%} dead and lets the others live; this one comes nearest"
        )
    elif passed_over:
        faults = [f"{one.name} ({_fault(expected[one.name], acceptable)})" for one in passed_over]
        reason += f". Not enough: {', '.join(faults)}"
    return Prescription(
        remedy=remedy,
        reason=reason,
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


def _leaves(remedy: Remedy, outlook: Outlook, d_sae: int) -> str:
    """What the prescribed remedy leaves, and what becomes of it in training."""
    dead = outlook.dead
    leaves = (
        f"leaves {dead.value:.1%} ({dead.low:.1%} to {dead.high:.1%}) of {d_sae:,} latents dead on "
        f"{outlook.tokens:,} tokens"
    )
    if _survives(remedy, outlook):
        return f"{leaves}, and the others are expected to {SURVIVAL}"
    return f"{leaves}, but {_death_in_training(outlook)}"


def _fault(outlook: Outlook, acceptable: float) -> str:
    """Why a remedy does not suffice."""
    if outlook.dead.value > acceptable:
        return f"{outlook.dead.value:.1%} dead"
    return _death_in_training(outlook)


def _death_in_training(outlook: Outlook) -> str:
    return (
        f"latents would die in training: one direction holds {outlook.dominance:.0%} of the variance, usage is "
        f"{outlook.usage:.0%}"
    )
