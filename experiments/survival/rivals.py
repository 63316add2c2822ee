"""Other ways to say from a sample how many latents are silent on many more tokens, to hold the forecast against.

Each takes the margins [latents, sample] and a number of tokens and returns a fraction.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Estimator = Callable[[Tensor, int], float]


def plain_count(margins: Tensor, tokens: int) -> float:
    """Those silent on the sample, as if it were all."""
    return float((margins <= 0).all(dim=1).double().mean())


def unseen_species(margins: Tensor, tokens: int) -> float:
    """Chao's estimate of the species not seen, and how many of them more tokens show (Colwell et al. 2012): only
    the numbers of latents that fired on no, on one and on two tokens are used.
    """
    fired = (margins > 0).sum(dim=1)
    silent, once, twice = (float((fired == times).double().mean()) for times in (0, 1, 2))
    hidden = min(once**2 / (2 * twice) if twice else silent, silent)
    if not hidden:
        return silent
    more = tokens - margins.shape[1]
    return silent - hidden * (1 - (1 - min(1.0, once / (margins.shape[1] * hidden))) ** more)


def gaussian_tail(margins: Tensor, tokens: int) -> float:
    """Every latent's margins taken as Gaussian."""
    mean, std = margins.double().mean(dim=1), margins.double().std(dim=1)
    return _silent(margins, torch.special.ndtr(mean / std), tokens)


def pareto_tail(share: float, *, own: float) -> Estimator:
    """A Pareto tail of the top `share`, its shape the latents' own by weight `own`, else their median."""

    def estimate(margins: Tensor, tokens: int) -> float:
        sample = margins.shape[1]
        top = torch.topk(margins, round(share * sample) + 1, dim=1).values.double()
        excess, level = top[:, :-1] - top[:, -1:], top[:, -1]
        tail = excess.shape[1]
        rank = torch.arange(tail, 0, -1)
        mean = excess.mean(dim=1)
        weighted = ((1 - (rank - 0.35) / tail) * excess).mean(dim=1)
        # A latent of which all these margins are the same, as at an embedding, has no shape of its own.
        shape = torch.nan_to_num(2 - mean / (mean - 2 * weighted), nan=0.0, posinf=0.9, neginf=-1.5)
        shape = (own * shape + (1 - own) * shape.median()).clamp(-1.5, 0.9)
        shape = torch.where(shape.abs() < 1e-6, 1e-6, shape)
        scale = (mean * (1 - shape)).clamp_min(1e-300)
        chance = tail / sample * (1 - shape * level / scale).clamp_min(0).pow(-1 / shape)
        return _silent(margins, chance.clamp_max(1), tokens)

    return estimate


def _silent(margins: Tensor, chance: Tensor, tokens: int) -> float:
    silent = (margins <= 0).all(dim=1)
    return float((silent * (1 - chance) ** (tokens - margins.shape[1])).mean())


RIVALS: dict[str, Estimator] = {
    "plain count": plain_count,
    "unseen species": unseen_species,
    "Gaussian tail": gaussian_tail,
    "Pareto tail, top 5 %, own shape": pareto_tail(0.05, own=1.0),
    "Pareto tail, top 2 %, own shape": pareto_tail(0.02, own=1.0),
    "Pareto tail, top 2 %, pooled shape": pareto_tail(0.02, own=0.2),
}
