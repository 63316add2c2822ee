"""How many bytes a step on several ranks exchanges, before it is taken."""

import torch

from autopsae.arrays import InputError
from autopsae.kernels.ranks import DIGIT
from autopsae.sae.sparsity import BatchTopK, Sparsity
from autopsae.training.config import TrainConfig
from autopsae.training.revival import AuxK

_COUNT = 8
"""Bytes of an integer."""


def bytes_of_step(
    config: TrainConfig,
    sparsity: Sparsity,
    d_in: int,
    *,
    ranks: int,
    dtype: torch.dtype = torch.float32,
    silent: int = 0,
    is_recorded: bool = False,
) -> dict[str, int]:
    """{purpose: bytes that each rank sends in a step}, as `Ranks.traffic` counts them (`Traffic.sent`).

    An all-reduce of n bytes sends 2 (R - 1) / R n, an all-gather (R - 1) n, for R ranks. With B tokens, s bytes a
    number: the reconstruction is an all-reduce of B d_in s, the choice of TopK an all-gather of B k s, that of
    BatchTopK an all-reduce of 256 counts for each byte of a number. None of them grows with d_sae.

    silent: the number of latents, of all ranks, that AuxK can revive in this step; is_recorded: whether the step
    has a record. Where a batch has fewer than k * B positive pre-activations, BatchTopK exchanges one count only.

    Raises InputError for a sparsity that cannot be spread over ranks.
    """
    if not sparsity.goes_on_ranks:
        raise InputError(f"bytes_of_step: expected a sparsity that goes on several ranks, got {sparsity.name}")
    size, tokens = dtype.itemsize, config.batch_tokens
    summed, gathered = 2 * (ranks - 1) / ranks, ranks - 1
    sent: dict[str, list[float]] = {"reconstruction": [summed * tokens * d_in * size]}
    choice = sent.setdefault("choice", [])
    if isinstance(sparsity, BatchTopK):
        choice += [summed * _COUNT, *[summed * 2**DIGIT * _COUNT] * (8 * size // DIGIT), gathered * _COUNT]
        sent["threshold"] = [summed * size]
    elif sparsity.l0 is not None:
        choice.append(gathered * tokens * sparsity.l0 * size)
    if config.penalty is not None:
        sent["penalty"] = [summed * size]
    if "b_dec" not in config.frozen:
        sent["b_dec"] = [summed * d_in * size]
    if config.clip_norm is not None:
        sent["gradient norm"] = [summed * size]
    if isinstance(config.revival, AuxK):
        sent["silent latents"] = [summed * _COUNT]
        k_aux = min(config.revival.k_aux or max(1, d_in // 2), silent)
        if k_aux:
            choice.append(gathered * tokens * k_aux * size)
            sent["reconstruction"].append(summed * tokens * d_in * size)
    if is_recorded:
        # The agreement, the counts of latents, the smallest code of each token, and the number of codes.
        sent["records"] = [gathered * 24, summed * 7 * _COUNT, summed * tokens * size, summed * size]
    return {purpose: sum(round(one) for one in each) for purpose, each in sent.items() if each}
