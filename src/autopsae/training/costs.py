"""What a training step costs, counted from its sizes: operations, bytes of memory, bytes between processes."""

from math import ceil, exp
from statistics import NormalDist

from autopsae.arrays import InputError
from autopsae.costs import Work
from autopsae.kernels.screen import Products
from autopsae.sae.sparsity import Sparsity
from autopsae.training.config import TrainConfig
from autopsae.training.rank_traffic import bytes_of_step

_SIZE = 4
"""Bytes of a float32, in which weights are trained."""
_ROUNDING = 0.0017
"""Root mean square error of rounding to bfloat16, in units of the number: 2^-7 / sqrt(12) * 0.74, where 0.74 is the
mean of 1 / mantissa, in the same sense."""
_SCORE = 2.0**-8
"""What a score in bfloat16 may lose, in units of the score."""
_BATCH = 10
"""Times that a [batch, d_in] matrix is read or written: shuffled, centered, left over, recorded."""
_PAIR = 120
"""Bytes read or written for a selected pair beside the rows: its values, latent and token, also in order."""
_ADAM_OPERATORS = 90
"""Numbers read or written for each pair of weights where each operator of PyTorch reads and writes whole matrices:
the operators of `kernels.adam`, counted."""
_SCANS_WHOLE = 9
"""Times that a score is moved where whole rows in float32 are sorted: written, and read in each pass of it."""
_DENSE = 10
"""Numbers read or written for each pair of weights whose gradients are summed over groups of ranks: each is
cleared, written, read, written as a sum, and read by Adam."""
_COPIES = 3
"""Times that a row is moved where it is copied before it is used: read, written, read again."""


def work_of_step(
    config: TrainConfig,
    sparsity: Sparsity,
    d_in: int,
    d_sae: int,
    *,
    products: Products | None,
    ranks: int = 1,
    groups: int = 1,
) -> Work:
    """What a step of Adam takes of each resource, for an SAE in float32 with an encoder bias; of each rank, where
    there are several.

    products: the type of the screen (`TrainConfig.products`; docs/exact-selection.md), or None for whole products
    and PyTorch's operators, as on a GPU. groups: of ranks, which share each batch; the latents are spread over the
    S = ranks / groups of one. The largest terms, for B = batch_tokens / groups tokens, k latents of each, and
    D = d_sae / S latents of a rank:

        product       2 B d_in D operations
        choice        B D scores
        weights       d_in D of either matrix (90 numbers for each with PyTorch's operators)
        rows          (c + 4 k / S) B d_in numbers, where c rows are candidates of the screen for each token
        gradients     with several groups, 10 d_in D numbers: those of both matrices are written and summed
        exchange      `bytes_of_step`

    Candidates are as many as for scores that are normally distributed over the latents.

    Raises InputError for a sparsity without a k, as `bytes_of_step`, and for settings that are not counted:
    revival, nested prefixes, clipped gradients, other optimizers than Adam, products in int8.
    """
    _check(config, sparsity, products)
    of_group = ranks // groups
    latents, tokens = ceil(d_sae / of_group), config.batch_tokens // groups
    k = min(sparsity.l0 or 1, latents)
    weights, scores, numbers = d_in * latents, tokens * latents, tokens * d_in
    product = 2.0 * scores * d_in
    sent = 0
    if ranks > 1:
        sent = sum(bytes_of_step(config, sparsity, d_in, ranks=ranks, groups=groups, latents=latents).values())
    dense = _DENSE * weights if groups > 1 else 0
    # A pair costs a row of W_dec to decode, again for its gradient, and a row of either matrix's gradient.
    rows = 4 * k / of_group
    if products is None:
        moved = _ADAM_OPERATORS * weights + _SCANS_WHOLE * scores + _BATCH * numbers + dense
        gathered = _SIZE * _COPIES * rows * numbers
        return Work(float32=product, streamed=_SIZE * moved, gathered=gathered, sent=sent, steps=1)
    return Work(
        float32=0 if products == "bfloat16" else product,
        bfloat16=product if products == "bfloat16" else 0,
        streamed=_SIZE * (_BATCH * numbers + dense) + _PAIR * tokens * k / of_group,
        updated=weights,
        compared=scores,
        gathered=_SIZE * (candidates(k, latents, d_in, products=products) + rows) * numbers,
        sent=sent,
        steps=1,
    )


def candidates(k: int, d_sae: int, d_in: int, *, products: Products) -> float:
    """About how many latents of a token the screen cannot exclude, for scores that are normally distributed.

    A latent stays whose score is within twice the bound b on its error of the k-th largest score t. In units of
    the scores' standard deviation b = sqrt(d_in) * (error of tokens + error of rows) + 2^-8 t for bfloat16, and
    next to nothing for float32. Beyond t the normal tail thins out as exp(-h x) with h = density(t) / tail(t), so
    that k exp(2 b h) stay, at most all.
    """
    if k >= d_sae or products == "float32":
        return float(min(k, d_sae))
    normal = NormalDist()
    threshold = normal.inv_cdf(1 - k / d_sae)
    bound = 2 * _ROUNDING * d_in**0.5 + _SCORE * abs(threshold)
    hazard = normal.pdf(threshold) / (k / d_sae)
    return min(float(d_sae), k * exp(2 * bound * hazard))


def _check(config: TrainConfig, sparsity: Sparsity, products: Products | None) -> None:
    rules = {
        f"a sparsity with a k, got {sparsity.name}": sparsity.l0 is not None,
        f"no revival, got {config.revival}": config.revival is None,
        f"no nested prefixes, got {config.nested}": not config.nested,
        f"no clip_norm, got {config.clip_norm}": config.clip_norm is None,
        f"the optimizer adam, got {config.optimizer}": config.optimizer == "adam",
        f"products bfloat16, float32 or None, got {products}": products in ("bfloat16", "float32", None),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise InputError(f"work_of_step: expected {'; '.join(broken)}; measure such a training with --plan")
