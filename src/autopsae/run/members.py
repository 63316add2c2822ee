"""How the members of a run are made: where an SAE of each sparsity starts, and what it is trained with."""

import warnings

import torch

from autopsae.arrays import InputError, Tokens
from autopsae.defaults import Strays
from autopsae.diagnosis.prescribe import Prescription
from autopsae.passes import same_passes
from autopsae.remedies.remedy import Remedy
from autopsae.run.start import layer_norm_tokens, start_from, without_strays
from autopsae.run.verdict import resampling_until
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import Sparsity
from autopsae.statistics.collect import Statistics, collect
from autopsae.training.objective import L1, L0Target
from autopsae.training.recipes import Recipe
from autopsae.training.revival import Resampling

LEAST_TOKENS = 4
"""A firing rate is set on a sample: one of fewer of its tokens than this cannot be set."""


def penalty_for(sparsity: Sparsity, *, l0: float, l1: float | None = None) -> L1 | L0Target | None:
    """What keeps the codes of an SAE sparse in training: nothing where k does (TopK), a price on each code (ReLU),
    a target for how many fire (JumpReLU).

    l0: latents that shall fire per token; l1: the coefficient of the price.

    Raises InputError where a price is needed and none is given, and for one that would be without effect.
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
    """Resampling for a run of so many steps: every 1,000 steps, and no more in the last tenth, so that what is
    drawn last has time to learn.
    """
    return Resampling(every_steps=1000, until_step=resampling_until(steps))


class Layer:
    """The tokens of one layer, from which SAEs are born. Its statistics are read once for each seed, and each start
    is computed once.
    """

    def __init__(
        self, tokens: Tokens, *, layer_norm: bool = False, strays: Strays = "keep", device: str | None = None
    ) -> None:
        """layer_norm: SAEs normalise every token, so that starts are those of normalised tokens; strays: what
        training does with tokens of over ten times the median norm.
        """
        self._tokens = same_passes(tokens)  # read to its end here, so that a run knows its digest from the start
        self._layer_norm, self._strays, self._device = layer_norm, strays, device
        self._read: dict[int, tuple[Statistics, Statistics]] = {}
        self._starts: dict[tuple[str, float, int, int], Remedy] = {}

    @property
    def all_tokens(self) -> Tokens:
        """Those of the layer, strays included."""
        return self._tokens

    def training_tokens(self, seed: int = 0) -> Tokens:
        """What is trained on. Strays are judged by the statistics of this seed."""
        return without_strays(self._tokens, self._strays, self._statistics(seed)[0])

    def start(self, name: str, *, alpha: float = 0.3, rank: int = 64, seed: int = 0) -> Remedy:
        """The remedy that a start is called by (`start_from`), from the tokens as SAEs see them. Raises InputError
        for another name, an exponent outside [0, 1] and a rank that the layer does not have.
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
        recipe: Recipe | None = None,
    ) -> SAE:
        """An SAE as `sae.init.born` draws it, on a sample of this layer.

        l0: latents that shall fire per token, by which a sparsity whose thresholds are set at birth sets them;
        firing_rate: as of `born`, in the place of that; recipe: how the SAE is born by it, in the place of both.

        Raises InputError for a prescription with LayerNorm, and as `born`. Does not warn of a prescription that was
        made for another SAE: ask `Prescription.differences`.
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
                layer_norm=self._layer_norm,
                **({} if recipe is None else recipe.birth),
            )
        return sae.to(self._device)

    def _statistics(self, seed: int) -> tuple[Statistics, Statistics]:
        """(of the tokens, of them as SAEs see them)."""
        if seed not in self._read:
            raw = collect(self._tokens, seed=seed, device=self._device)
            normed = self._layer_norm
            seen = collect(layer_norm_tokens(self._tokens), seed=seed, device=self._device) if normed else raw
            self._read[seed] = raw, seen
        return self._read[seed]
