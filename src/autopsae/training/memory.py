"""What a sweep will take of memory, known before it starts, and how it is split where that is too much."""

from collections.abc import Sequence
from itertools import pairwise

from autopsae.kernels.choose import has_largest_by_latent
from autopsae.kernels.dispatch import sum_loops
from autopsae.kernels.pairs import DENSE, SMALL_SUM
from autopsae.kernels.screen import BLOCK, choose_screen
from autopsae.sae.product import BLOCK_TOKENS, MANY
from autopsae.sae.sparsity import Sparsity
from autopsae.training.revival import AuxK, GhostGradients
from autopsae.training.sources import Member, see_one_view, stream_key

_PER_PAIR = 32
"""Bytes of a pair beside its values: its latent, its token, and both in order."""
_SAMPLE = 128
"""Tokens that a sparsity which judges batches guesses a threshold from, at most."""


def bytes_needed(member: Member) -> int:
    """What one member adds to a sweep at most, in the step where it takes most: weights and moments, gradients
    where they are written, tokens centered and left over, pre-activations where whole rows are held, the pairs that
    are selected, and what revival adds where every latent is silent.
    """
    sae, config = member.sae, member.config
    size, tokens, pairs = sae.W_enc.element_size(), config.batch_tokens, _pairs_per_token(member)
    per_token = size * (_row_of_pre(member, pairs) + 2 * sae.d_in) + _per_pair(member) * pairs
    if config.nested:
        # Of each prefix: what it decodes, and the residual. Their gradients come and go.
        per_token += 2 * size * sae.d_in * (len(config.nested) + 1) + _per_pair(member) * pairs
    if sae.sparsity.judges_batches:
        per_token += 2 * size * sae.d_sae * min(tokens, _SAMPLE) // tokens
    if isinstance(config.revival, AuxK):
        k_aux = config.revival.k_aux or sae.d_in // 2
        per_token += size * (2 * sae.d_sae * (k_aux > DENSE * sae.d_sae) + 3 * sae.d_in) + _per_pair(member) * k_aux
    if isinstance(config.revival, GhostGradients):
        per_token += size * (3 * sae.d_sae + 4 * sae.d_in)
    return _bytes_of_weights(member, pairs) + tokens * per_token


def _pairs_per_token(member: Member) -> int:
    sae = member.sae
    pairs = sae.sparsity.pairs_per_token(sae.d_sae, sae.sparsity.threshold(sae.owned))
    return max(pairs, member.config.k_start or 0)


def _per_pair(member: Member) -> int:
    """Bytes of a pair: values of it and their gradients, more of them where gates are there too."""
    values = 12 if member.sae.sparsity.gated else 7
    # Without loops, pairs are found as rows of three numbers.
    return values * member.sae.W_enc.element_size() + _PER_PAIR + (0 if _has_loops(member) else 24)


def _has_loops(member: Member) -> bool:
    return sum_loops(member.sae.W_enc.detach()) is not None


def _row_of_pre(member: Member, pairs: int) -> int:
    """Numbers held of a token's pre-activations, and of its codes written out where many are not zero."""
    sae = member.sae
    by_latent = min(1.0, BLOCK_TOKENS / member.config.batch_tokens)
    if type(sae.sparsity).select is Sparsity.select:  # which makes more of whole rows
        return 4 * sae.d_sae
    if pairs > min(MANY, DENSE) * sae.d_sae:
        return 2 * sae.d_sae
    if choose_screen(member.config.products, sae.W_enc) is not None:
        return 0
    return int(by_latent * sae.d_sae) + 1 if has_largest_by_latent(sae.W_enc[None], pairs) else 2 * sae.d_sae


def _bytes_of_weights(member: Member, pairs: int) -> int:
    """Weights and moments; gradients where they are written; and matrices of the same size that a step makes."""
    sae, config = member.sae, member.config
    matrix, parameters = sae.W_enc.numel(), sum(parameter.numel() for parameter in sae.parameters())
    numbers = parameters if config.optimizer == "sign_sgd" else 3 * parameters
    written = config.optimizer == "sign_sgd" or config.clip_norm is not None or not _has_loops(member)
    if written or pairs > DENSE * sae.d_sae or matrix <= SMALL_SUM:
        numbers += parameters
    # Of the matrix whose turn it is.
    numbers += matrix * (3 if written else 1) + matrix * (0 if _has_loops(member) else 3)
    if config.nested or config.penalty is not None:
        numbers += 3 * matrix
    if isinstance(config.revival, AuxK):
        numbers += matrix
    if isinstance(config.revival, GhostGradients):
        numbers += 4 * matrix
    return sae.W_enc.element_size() * numbers


def _bytes_at_once(member: Member) -> int:
    """What members need one after the other: the screen's rounded rows, also as they are laid out for a product,
    and its scores of a block of tokens.
    """
    sae, tokens = member.sae, member.config.batch_tokens
    kind = choose_screen(member.config.products, sae.W_enc)
    if kind is None:
        return 0
    row, score = {"bfloat16": (4, 2), "float32": (4, 4), "int8": (10, 12)}[kind]
    return row * sae.W_enc.numel() + score * sae.d_sae * min(tokens, max(64, BLOCK // sae.d_sae))


def buffer_bytes(members: Sequence[Member], tokens: int | None = None) -> int:
    """What the streams' buffers hold of tokens, in main memory, those held over and in order included; a stream for
    every seed and tokens of its own. tokens: how many there are, where a buffer may hold more.
    """
    streams = {stream_key(m): m for m in members}
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
    at_once = max(_bytes_at_once(member) for member in members)
    seen = members[0].config.batch_tokens * members[0].sae.d_in * members[0].sae.W_enc.element_size()
    # A batch and what is made of it; what each sees of it, laid side by side, where they do not see the same.
    copies = 2 if see_one_view(members) else 2 + 2 * len(members)
    return sum(map(bytes_needed, members)) + at_once + copies * seen + buffer_bytes(members, tokens)
