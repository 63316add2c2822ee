"""How the SAEs of a run are made: the rules by which `autopsae train` turns its options into SAEs and settings."""

import warnings

import torch

from autopsae.arrays import InputError, Tokens
from autopsae.defaults import Strays
from autopsae.diagnosis.prescription import Prescription
from autopsae.passes import same_passes
from autopsae.remedies.remedy import Remedy
from autopsae.run.start import layer_norm_tokens, start_from, without_strays
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import Sparsity
from autopsae.statistics.collect import Statistics, collect
from autopsae.training.objective import L1, L0Target
from autopsae.training.recipes import Recipe
from autopsae.training.revival import Resampling, resampling_until

LEAST_TOKENS = 4
"""At birth a latent fires on at least this many tokens of the sample: a lower firing rate cannot be set on it."""


def penalty_for(sparsity: Sparsity, *, l0: float, l1: float | None = None) -> L1 | L0Target | None:
    """The term of the loss that keeps the codes sparse: L1 for ReLU, L0Target for JumpReLU, None for a sparsity
    that fixes the number of selected latents, such as TopK.

    l0: the number of latents per token that L0Target aims at; l1: the coefficient of L1.

    Raises InputError if `l1` is missing for a sparsity that needs it, or given for one that has no use for it.
    """
    if (sparsity.usual_penalty == "l1") != (l1 is not None):
        raise InputError(
            "penalty: expected an L1 coefficient (--l1) with the sparsity relu and with no other, got "
            f"{sparsity.name} and {l1}"
        )
    if l1 is not None:
        return L1(coefficient=l1)
    return L0Target(l0=float(l0)) if sparsity.usual_penalty == "l0" else None


def resampling_for(steps: int) -> Resampling:
    """Resampling for a run of `steps` steps: every 1,000 steps, but not in the last tenth of the run, so that the
    last latents that are drawn have time to learn.
    """
    return Resampling(every_steps=1000, until_step=resampling_until(steps))


class Layer:
    """The tokens of one layer, and the SAEs that are born from them. The statistics of the tokens are computed once
    for each seed, and each remedy once.
    """

    def __init__(
        self, tokens: Tokens, *, layer_norm: bool = False, strays: Strays = "keep", device: str | None = None
    ) -> None:
        """tokens: raw. layer_norm: whether the SAEs normalise every token; remedies are then computed from
        normalised tokens. strays: what is done with stray training tokens (norms over ten times the median):
        "keep", "leave_out" or "weigh_down". device: where to compute.
        """
        # The statistics read all tokens. So their digest is known when training begins, and birth.json holds it.
        self._tokens = same_passes(tokens)
        self._layer_norm, self._strays, self._device = layer_norm, strays, device
        self._read: dict[int, tuple[Statistics, Statistics]] = {}
        self._starts: dict[tuple[str, float, int, int], Remedy] = {}

    @property
    def all_tokens(self) -> Tokens:
        """All raw tokens of the layer, with stray tokens."""
        return self._tokens

    def training_tokens(self, seed: int = 0) -> Tokens:
        """The raw tokens to train on: stray tokens are kept, left out or weighed down, as `strays` says. The median
        norm, which decides whether a token is stray, is from the statistics of `seed`.
        """
        return without_strays(self._tokens, self._strays, self._statistics(seed)[0])

    def start(self, name: str, *, alpha: float = 0.3, rank: int = 64, seed: int = 0) -> Remedy:
        """The remedy named zero, mean, median, whiten or asi, computed from the tokens as the SAEs see them.

        alpha: the exponent of whiten; rank: the rank of asi; seed: chooses the sample of the statistics.

        Raises InputError for another name, for an exponent outside [0, 1], and for a rank over that of the layer.
        """
        key = (name, alpha, rank, seed)
        if key not in self._starts:
            self._starts[key] = start_from(name, self._statistics(seed)[1], alpha=alpha, rank=rank)
        return self._starts[key]

    def born(
        self,
        start: Remedy | Prescription,
        *,
        d_sae: int,
        sparsity: Sparsity,
        l0: float,
        seed: int = 0,
        firing_rate: float | None = None,
        scaled: bool = True,
        fit_encoder: bool = False,
        recipe: Recipe | None = None,
        latents: range | None = None,
    ) -> SAE:
        """A freshly drawn SAE, by `sae.init.born`, with a sample of this layer.

        l0: the number of latents that should fire per token; only JumpReLU uses it, for its thresholds at birth.
        seed: draws the rows, and chooses the sample. firing_rate: replaces the firing rate that follows from `l0`.
        scaled, fit_encoder, latents: as for `born`. recipe: published settings; if given, `l0` sets no firing rate.

        Raises InputError for a prescription if the layer has `layer_norm`, and as `born`. It gives no warning for a
        prescription that was made for another SAE; `Prescription.differences` lists the differences.
        """
        if self._layer_norm and isinstance(start, Prescription):
            raise InputError(
                "layer_norm: expected a start by its name (--init), got a prescription, which is one for tokens as "
                "they are; leave one of them out"
            )
        sample = self._statistics(seed)[0].sample
        rate = sparsity.firing_rate_at_birth(d_sae, l0) if recipe is None else None
        if rate is not None:
            rate = max(rate, LEAST_TOKENS / len(sample))
        # `born` warns of a prescription for another SAE. A run writes that into the summary instead.
        with warnings.catch_warnings(action="ignore"):
            sae = born(
                start,
                d_sae=d_sae,
                sparsity=sparsity,
                sample=sample,
                # On the CPU, so that what is drawn does not depend on the device.
                generator=torch.Generator().manual_seed(seed),
                firing_rate=rate if firing_rate is None else firing_rate,
                scaled=scaled,
                fit_encoder=fit_encoder,
                layer_norm=self._layer_norm,
                latents=latents,
                **({} if recipe is None else recipe.birth),
            )
        return sae.to(self._device)

    def _statistics(self, seed: int) -> tuple[Statistics, Statistics]:
        """(statistics of the raw tokens, statistics of the tokens as the SAEs see them). Without LayerNorm they are
        the same object.
        """
        if seed not in self._read:
            raw = collect(self._tokens, seed=seed, device=self._device)
            normed = self._layer_norm
            seen = collect(layer_norm_tokens(self._tokens), seed=seed, device=self._device) if normed else raw
            self._read[seed] = raw, seen
        return self._read[seed]
