"""The monosemanticity score: do the inputs on which a latent fires look alike to an independent model?

For a latent with codes a over all inputs, scaled to a' = (a - min) / (max - min), and unit embeddings e,

    MS = sum_{i<j} a'_i a'_j <e_i, e_j> / sum_{i<j} a'_i a'_j       (Pach et al. 2025)

With V = sum_i a'_i e_i this is (||V||^2 - sum a'^2) / ((sum a')^2 - sum a'^2), linear in the number of firings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError, Tokens, batches
from autopsae.features.codes import CodeBlock, Codes
from autopsae.features.largest import LargestPerLatent, top_tokens
from autopsae.kernels.pairs import Pairs
from autopsae.memory import check_memory
from autopsae.tables import Result

TOP = 16
"""Inputs of the variant of VISAEBench."""

Scores = Float[np.ndarray, "d_sae"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Monosemanticity(Result):
    """The score of each latent in its variants. A score is in [-1, 1]; NaN where it is not defined: for a latent
    that fires on no input or on one, and for one whose code is the same on all inputs.
    """

    all_inputs: Scores
    """Over all inputs, scaled by the least and the largest code over all of them (Pach et al. 2025)."""
    top_16: Scores
    """Over the 16 inputs of the largest codes alone, scaled among these (VISAEBench's number of the same name)."""
    fired: Int[np.ndarray, "d_sae"]
    """On how many inputs each latent fires."""
    by_chance: float | None
    """The mean cosine of two inputs: what any latent scores on average if embeddings are exchanged at random
    between inputs. None for a single input."""

    @property
    def is_live(self) -> Bool[np.ndarray, "d_sae"]:
        """Latents that fire on some input."""
        return self.fired > 0

    @property
    def mean(self) -> float | None:
        """Mean of `all_inputs` over the latents that have a score, the dead left out; None where none has one."""
        return _mean_of_known(self.all_inputs)

    @property
    def mean_with_dead_as_zero(self) -> float:
        """Mean of `all_inputs` over all latents, where one without a score counts as 0 (MonoLoss, 2602.12403)."""
        return float(np.nan_to_num(self.all_inputs).mean())

    @property
    def mean_top_16(self) -> float | None:
        """Mean of `top_16` over the latents that have one; None where none has."""
        return _mean_of_known(self.top_16)

    @property
    def scored(self) -> int:
        """Number of latents that have a score over all inputs."""
        return int((~np.isnan(self.all_inputs)).sum())

    def columns(self) -> dict[str, list[Any]]:
        """A row for each latent; None where it has no score."""
        return {
            "latent": [*range(len(self.fired))],
            "fired": self.fired.tolist(),
            "all_inputs": _nan_as_none(self.all_inputs),
            "top_16": _nan_as_none(self.top_16),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON: the means, and the scores of each latent."""
        return {
            "d_sae": len(self.fired),
            "live": int(self.is_live.sum()),
            "scored": self.scored,
            "mean": self.mean,
            "mean_with_dead_as_zero": self.mean_with_dead_as_zero,
            "mean_top_16": self.mean_top_16,
            "by_chance": self.by_chance,
            **self.columns(),
        }

    def __str__(self) -> str:
        mean, chance = ("none" if value is None else f"{value:.3f}" for value in (self.mean, self.by_chance))
        return (
            f"monosemanticity {mean} on average over {self.scored:,} latents that have a score, of "
            f"{len(self.fired):,} ({self.mean_with_dead_as_zero:.3f} if the others count as 0; {chance} by chance)"
        )


def monosemanticity(codes: Codes, embeddings: Tokens) -> Monosemanticity:
    """The score of each latent of `codes` under `embeddings` of the same inputs by an independent model.

    embeddings: [inputs, d_embedding], a row for each input of the codes, scaled to length 1 here. Inputs are
    tokens, or documents (`pool_codes`). Two passes over the codes, one over the embeddings, sums in float64.

    Raises InputError for embeddings that are more or fewer than the inputs, not finite or of length 0, and where
    the sums would not fit in memory.
    """
    least, most, fired, inputs, top = _ranges(codes)
    # A latent that is silent on some input has the least code 0.
    least = np.where(fired < inputs, 0.0, least)
    size = np.where(most > least, most - least, np.inf)
    wanted = top_tokens(top.tokens)
    rows: list[Float[np.ndarray, "some d_embedding"]] = []
    total, squares, directions = np.zeros(codes.d_sae), np.zeros(codes.d_sae), None
    whole = torch.zeros((), dtype=torch.float64, device="cpu")
    for block, unit in _beside(codes, embeddings):
        if directions is None:
            needed = 8 * unit.shape[1] * (codes.d_sae + len(wanted))
            check_memory(needed, torch.device("cpu"), "for the sums of embeddings", "use narrower embeddings")
            directions = np.zeros((codes.d_sae, unit.shape[1]))
        scaled = (block.values - least[block.latents]) / size[block.latents]
        total += np.bincount(block.latents, scaled, minlength=codes.d_sae)
        squares += np.bincount(block.latents, scaled**2, minlength=codes.d_sae)
        latents, counts = torch.from_numpy(block.latents).long(), torch.from_numpy(np.diff(block.ends))
        pairs = Pairs(latents=latents, per_token_counts=counts, d_sae=codes.d_sae)
        directions += pairs.per_latent(torch.from_numpy(scaled), unit)[0].numpy()
        some = wanted[np.searchsorted(wanted, block.start) : np.searchsorted(wanted, block.start + len(block))]
        rows.append(unit.numpy()[some - block.start])
        whole = whole + unit.sum(dim=0)
    assert directions is not None  # `_ranges` raises where there is no input
    return Monosemanticity(
        all_inputs=_from_sums(total, squares, np.square(directions).sum(axis=1), pairs_at_least=fired > 1),
        top_16=_of_top(top, fired, inputs, wanted, np.concatenate(rows)),
        fired=fired,
        # ||sum e||^2 = inputs + the cosines of all ordered pairs.
        by_chance=float(whole @ whole - inputs) / (inputs * (inputs - 1)) if inputs > 1 else None,
    )


def _ranges(
    codes: Codes,
) -> tuple[Scores, Scores, Int[np.ndarray, "d_sae"], int, LargestPerLatent]:
    """(least code where a latent fires, largest code, on how many inputs it fires, inputs, its top inputs)."""
    least, most = np.full(codes.d_sae, np.inf), np.zeros(codes.d_sae)
    fired, inputs, top = np.zeros(codes.d_sae, np.int64), 0, LargestPerLatent(codes.d_sae, TOP)
    for block in codes:
        np.minimum.at(least, block.latents, block.values)
        np.maximum.at(most, block.latents, block.values)
        fired += np.bincount(block.latents, minlength=codes.d_sae)
        top.add(block, block.values.astype(np.float64))
        inputs += len(block)
    if not inputs:
        raise InputError("monosemanticity: expected at least one input, got none")
    return least, most, fired, inputs, top


def _mean_of_known(scores: Scores) -> float | None:
    """The mean of the scores that are not NaN; None where there is none."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else None


def _nan_as_none(scores: Scores) -> list[float | None]:
    return [None if np.isnan(score) else float(score) for score in scores]


def _from_sums(total: Scores, squares: Scores, length: Scores, *, pairs_at_least: NDArray[np.bool_]) -> Scores:
    """The linear form; NaN where no pair has a weight."""
    weight = total**2 - squares
    # Rounding leaves a weight that is not quite 0 for a latent of a single input.
    known = pairs_at_least & (weight > np.maximum(1e-12 * squares, 1e-300))
    scores: NDArray[np.float64] = np.divide(length - squares, weight, out=np.full_like(total, np.nan), where=known)
    return scores


def _of_top(
    top: LargestPerLatent,
    fired: Int[np.ndarray, "d_sae"],
    inputs: int,
    wanted: Int[np.ndarray, "some"],
    unit: Float[np.ndarray, "some d_embedding"],
) -> Scores:
    """The score over the top inputs alone. Where a latent fires on fewer, the others of them have code 0."""
    used = min(TOP, inputs)
    values = top.values[:, :used].astype(np.float64)
    least = values.min(axis=1, keepdims=True)
    size = values.max(axis=1, keepdims=True) - least
    scaled = np.divide(values - least, size, out=np.zeros_like(values), where=size > 0)
    place = np.searchsorted(wanted, top.tokens[:, :used])  # that of a missing token, -1, has weight 0
    length = np.array(
        [np.square(a @ unit[rows]).sum() if a.any() else 0.0 for a, rows in zip(scaled, place, strict=True)]
    )
    return _from_sums(scaled.sum(axis=1), np.square(scaled).sum(axis=1), length, pairs_at_least=fired > 1)


def _beside(codes: Codes, embeddings: Tokens) -> Iterator[tuple[CodeBlock, Float[Tensor, "inputs d_embedding"]]]:
    """Each block of codes with the unit embeddings of its inputs, in float64."""
    source, held, read = batches(embeddings), list[Tensor](), 0
    for block in codes:
        while sum(map(len, held)) < len(block):
            batch = next(source, None)
            if batch is None:
                raise InputError(
                    f"embeddings: expected a row for each input of the codes, got {read:,}; are they of another "
                    "source?"
                )
            held.append(_unit(batch, read))
            read += len(batch)
        rows = torch.cat(held)
        held = [rows[len(block) :]]
        yield block, rows[: len(block)]
    if sum(map(len, held)) or next(source, None) is not None:
        raise InputError(
            "embeddings: expected a row for each input of the codes, got more; are they of another source?"
        )


def _unit(batch: Tensor, start: int) -> Float[Tensor, "inputs d_embedding"]:
    rows = batch.detach().cpu().double()
    norms = rows.norm(dim=1, keepdim=True)
    bad = (~rows.isfinite().all(dim=1)) | (norms[:, 0] == 0)
    if bool(bad.any()):
        raise InputError(
            f"embeddings: expected finite rows that are not zero, got another one for input "
            f"{start + int(bad.nonzero()[0]):,}"
        )
    unit: Tensor = rows / norms
    return unit
