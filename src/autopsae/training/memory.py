"""What a sweep will take of memory, known before it starts, and how it is split where that is too much."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from autopsae.sae.pairs import DENSE
from autopsae.sae.sparsity import BatchTopK, TopK
from autopsae.training.sources import Member


def bytes_needed(member: Member) -> int:
    """What one member adds to a sweep: weights, gradients and moments (4 of each parameter), the pre-activations of
    a batch, its tokens centered and left over, and the pairs that were selected. Without the buffer of tokens.
    """
    sae, config = member.sae, member.config
    size, tokens = sae.W_enc.element_size(), config.batch_tokens
    parameters = sum(parameter.numel() for parameter in sae.parameters())
    per_token = sae.sparsity.k if isinstance(sae.sparsity, TopK | BatchTopK) else max(1, int(DENSE * sae.d_sae))
    per_pair = 6 * size + 4 * 8  # values and their gradients; latents, tokens, and both in order
    return 4 * size * parameters + tokens * (size * (sae.d_sae + 4 * sae.d_in) + per_pair * per_token)


def buffer_bytes(member: Member) -> int:
    """What a stream's buffer holds of tokens, those held over and in order included."""
    return 2 * member.config.buffer_tokens * member.sae.d_in * member.sae.W_enc.element_size()


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device; on Linux, what could be freed for a process counts as free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        [line] = [line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable")]
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def groups_that_fit(members: Sequence[Member], budget: int) -> list[list[int]]:
    """The members' places in groups of like size that each need no more than `budget` bytes; one that needs more is
    a group alone.
    """
    left = budget - max(buffer_bytes(member) for member in members)
    at_once = max(1, left // max(bytes_needed(member) for member in members))
    count = -(-len(members) // at_once)
    bounds = [round(g * len(members) / count) for g in range(count + 1)]
    return [list(range(a, b)) for a, b in pairwise(bounds)]
