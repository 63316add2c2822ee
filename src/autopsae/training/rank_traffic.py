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
    groups: int = 1,
    latents: int = 0,
    encoder_bias: bool = True,
    dtype: torch.dtype = torch.float32,
    silent: int = 0,
    is_recorded: bool = False,
) -> dict[str, int]:
    """{purpose: bytes that each rank sends in a step}, as `Ranks.traffic` counts them (`Traffic.sent`).

    An all-reduce of n bytes among R ranks sends 2 (R - 1) / R n, an all-gather (R - 1) n. With B tokens that a rank
    sees, s bytes a number: the reconstruction is an all-reduce of B d_in s, the choice of TopK an all-gather of
    B k s, that of BatchTopK an all-reduce of 256 counts for each byte of a number. None of them grows with d_sae.

    ranks: all ranks; groups: among how many groups of ranks each batch is divided. Peers, which have the same
    latents in other groups, also sum their gradients, (2 d_in + 1) s for each latent, and two bytes for each latent
    that say whether it fired. latents: that this rank owns, needed with several groups; encoder_bias: whether the
    SAE has one.

    silent: the number of latents, of all ranks, that AuxK can revive in this step; is_recorded: whether the step
    has a record. Where a batch has fewer than k * B positive pre-activations, BatchTopK exchanges one count only.

    Raises InputError for a sparsity that cannot be spread over ranks, and for groups that do not divide the ranks.
    """
    if not sparsity.goes_on_ranks:
        raise InputError(f"bytes_of_step: expected a sparsity that goes on several ranks, got {sparsity.name}")
    if groups < 1 or ranks % groups or (groups > 1 and latents < 1):
        raise InputError(
            f"bytes_of_step: expected groups that divide {ranks} ranks, and the latents of a rank where there are "
            f"several, got {groups} groups and latents = {latents}"
        )
    size, tokens, of_group = dtype.itemsize, config.batch_tokens // groups, ranks // groups
    summed, gathered = _all_reduce(of_group), of_group - 1
    sent: dict[str, list[float]] = {"reconstruction": [summed * tokens * d_in * size]}
    choice = sent.setdefault("choice", [])
    if isinstance(sparsity, BatchTopK):
        counts = [_all_reduce(ranks) * 2**DIGIT * _COUNT] * (8 * size // DIGIT)
        choice += [_all_reduce(ranks) * _COUNT, *counts, (ranks - 1) * _COUNT]
        sent["threshold"] = [_all_reduce(ranks) * size]
    elif sparsity.l0 is not None:
        choice.append(gathered * tokens * sparsity.l0 * size)
    if config.penalty is not None:
        sent["penalty"] = [_all_reduce(ranks) * size]
    if "b_dec" not in config.frozen:
        sent["b_dec"] = [_all_reduce(ranks) * d_in * size]
    if config.clip_norm is not None:
        sent["gradient norm"] = [summed * size]
    k_aux = 0
    if isinstance(config.revival, AuxK):
        sent["silent latents"] = [summed * _COUNT]
        k_aux = min(config.revival.k_aux or max(1, d_in // 2), silent)
        if k_aux:
            choice.append(gathered * tokens * k_aux * size)
            sent["reconstruction"].append(summed * tokens * d_in * size)
    if is_recorded:
        # The agreement (of groups, on both weights too), the counts of latents, the smallest code of each token,
        # the number of codes, the threshold.
        sent["records"] = [
            (ranks - 1) * (24 if groups == 1 else 40),
            summed * 7 * _COUNT,
            summed * tokens * size,
            _all_reduce(ranks) * size,
        ]
        sent["records"].append(_all_reduce(groups) * 2 * size)
    numbers = latents * _numbers_per_latent(config, sparsity, d_in, encoder_bias)
    sent |= _of_peers(config, groups, latents=latents, numbers=numbers, d_in=d_in, size=size, revives=k_aux > 0)
    totals = {purpose: sum(round(one) for one in each) for purpose, each in sent.items()}
    return {purpose: total for purpose, total in totals.items() if total}


def _all_reduce(ranks: int) -> float:
    """How often a rank sends each byte that it hands in to an all-reduce in a ring."""
    return 2 * (ranks - 1) / ranks


def _numbers_per_latent(config: TrainConfig, sparsity: Sparsity, d_in: int, encoder_bias: bool) -> int:
    """Numbers of a latent that learn."""
    numbers = {"W_enc": d_in, "W_dec": d_in, "b_enc": int(encoder_bias)}
    numbers |= dict.fromkeys(sparsity.learned_by_gradient, 1)
    return sum(number for name, number in numbers.items() if name not in config.frozen)


def _of_peers(
    config: TrainConfig, groups: int, *, latents: int, numbers: int, d_in: int, size: int, revives: bool
) -> dict[str, list[float]]:
    """What a rank sends to its peers. numbers: of its latents, that learn; revives: whether AuxK has a loss."""
    summed = _all_reduce(groups)
    sent = {"gradients": [summed * numbers * size], "firings": [summed * 2 * latents], "loss": [summed * size]}
    if isinstance(config.revival, AuxK):
        # The mean of what is left of the batch, and its variance; the error on it.
        sent["revival"] = [summed * d_in * size, summed * size, *([summed * size] if revives else [])]
    return sent
