"""What a sweep will take of memory, known before it starts, and how it is split where that is too much."""

from collections.abc import Sequence
from itertools import pairwise

from autopsae.training.revival import AuxK, GhostGradients
from autopsae.training.sources import Member


def bytes_needed(member: Member) -> int:
    """What one member adds to a sweep at most: weights, gradients and moments (4 of each parameter), the
    pre-activations of a batch, its tokens centered and left over, the pairs that are selected, and what revival
    adds where every latent is silent.
    """
    sae, config = member.sae, member.config
    size, tokens = sae.W_enc.element_size(), config.batch_tokens
    parameters = sum(parameter.numel() for parameter in sae.parameters())
    per_pair = 6 * size + 4 * 8  # values and their gradients; latents, tokens, and both in order
    per_token = size * (sae.d_sae + 4 * sae.d_in) + per_pair * _pairs_per_token(member)
    if config.nested:
        # Of each prefix: what it decodes, the residual, and the gradients of both.
        per_token += 4 * size * sae.d_in * (len(config.nested) + 1) + 2 * per_pair * _pairs_per_token(member)
    if isinstance(config.revival, AuxK):
        per_token += size * (sae.d_sae + 2 * sae.d_in) + per_pair * (config.revival.k_aux or sae.d_in // 2)
    if isinstance(config.revival, GhostGradients):
        per_token += size * (5 * sae.d_sae + 4 * sae.d_in)
    return 4 * size * parameters + tokens * per_token


def _pairs_per_token(member: Member) -> int:
    return max(member.sae.sparsity.pairs_per_token(member.sae.d_sae), member.config.k_start or 0)


def buffer_bytes(members: Sequence[Member], tokens: int | None = None) -> int:
    """What the streams' buffers hold of tokens, in main memory, those held over and in order included; a stream for
    every seed and tokens of its own. tokens: how many there are, where a buffer may hold more.
    """
    streams = {(id(m.tokens), m.config.seed, m.config.buffer_tokens): m for m in members}
    return sum(
        2 * min(m.config.buffer_tokens, tokens or m.config.buffer_tokens) * m.sae.d_in * m.sae.W_enc.element_size()
        for m in streams.values()
        if m.sae.W_enc.device.type == "cpu"
    )


def groups_that_fit(members: Sequence[Member], budget: int, tokens: int | None = None) -> list[list[int]]:
    """The members' places in groups of like size that each need no more than `budget` bytes; one that needs more is
    a group alone.
    """
    for count in range(1, len(members) + 1):
        bounds = [round(g * len(members) / count) for g in range(count + 1)]
        groups = [list(range(a, b)) for a, b in pairwise(bounds)]
        if all(bytes_of([members[m] for m in group], tokens) <= budget for group in groups):
            break
    return groups


def bytes_of(members: Sequence[Member], tokens: int | None = None) -> int:
    """What a sweep of these takes. tokens: as for `buffer_bytes`."""
    return sum(bytes_needed(member) for member in members) + buffer_bytes(members, tokens)
