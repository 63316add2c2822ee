"""What is chosen behind a screen: exact values, and whom they choose. The loops are those of `numba_screen`."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.kernels.dispatch import threads_for
from autopsae.kernels.screen import Scores, Screen, Tokens, the_loops

Positive = Bool[Tensor, "d_sae"]
Largest = tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]


class _Block(NamedTuple):
    """Some tokens, their scores, and the marks of latents that are positive, surely and perhaps, by thread."""

    tokens: slice
    scores: Scores
    exact: tuple[np.ndarray, np.ndarray, np.ndarray]
    seen: np.ndarray
    unsure: np.ndarray
    threads: int


def largest(screen: Screen, x: Tokens, positive: Positive, k: int) -> Largest:
    """(values, latents) of the k largest pre-activations of each token, in the order of the latents; of equal ones
    the first. `positive` becomes true where a latent is positive on any token. Where fewer than k of a token are
    positive, the first that are not fill the rest.
    """
    return _choose(the_loops().screen.largest, screen, x, positive, k)


def which_reach(
    screen: Screen, x: Tokens, positive: Positive, k: int, asked: Bool[Tensor, "d_sae"]
) -> Bool[Tensor, "d_sae"]:
    """Which of the latents `asked` for are positive and among the k largest of any token; `positive` as in
    `largest`.
    """
    reached = torch.zeros_like(asked)
    for b in _blocks(screen, x, positive):
        fired = np.zeros_like(b.seen)
        wanted = (asked & ~reached).numpy()
        the_loops().screen.reach(*b.scores, *b.exact, k, wanted, fired, b.seen, b.unsure, b.threads)
        reached |= torch.from_numpy(fired.any(axis=0))
    return reached & asked


def largest_of_groups(screen: Screen, x: Tokens, positive: Positive, k: int) -> Largest:
    """(values, latents) of the largest pre-activation of each of k groups of d_sae / k neighbours, the first of
    equal ones; `positive` as in `largest`.
    """
    return _choose(the_loops().screen_above.largest_of_groups, screen, x, positive, k)


def above(
    screen: Screen, x: Tokens, positive: Positive, thresholds: Float[Tensor, "d_sae"]
) -> tuple[Float[Tensor, "above"], Int[Tensor, "above"], Int[Tensor, "tokens"]]:
    """(values, latents, how many per token) of all pre-activations over their latent's threshold (>= 0), token by
    token, in the order of the latents; `positive` as in `largest`.
    """
    parts, loops, over = [], the_loops().screen_above, thresholds.float().contiguous().numpy()
    words = -(-len(screen.W_enc) // 8)
    for b in _blocks(screen, x, positive):
        n = len(b.scores.sizes)
        flags = screen.workspace.take(
            "flags", (n, 8 * words), torch.empty(0, dtype=torch.uint8, device="cpu")
        ).numpy()
        counts, kept = torch.empty(2, n, dtype=torch.int64, device="cpu")
        loops.count_above(*b.scores, over, flags, counts.numpy(), b.seen, b.unsure, b.threads)
        starts = counts.cumsum(0) - counts
        total = int(counts.sum())
        values, latents = x.new_empty(total), counts.new_empty(total)
        outputs = values.numpy(), latents.numpy(), kept.numpy(), b.seen
        known = b.scores.sizes, over
        loops.gather_above(flags, starts.numpy(), *b.exact, *known, *outputs, b.threads)
        # What was flagged and is not over its threshold leaves a gap behind each token's pairs.
        ends = (starts + kept).repeat_interleave(counts, output_size=total)
        filled = torch.arange(total, device="cpu") < ends
        parts.append((values[filled], latents[filled], kept))
    no_whole = torch.empty(0, dtype=torch.int64, device="cpu")
    empty = x.new_empty(0), no_whole, no_whole
    return tuple(torch.cat(part) for part in zip(empty, *parts, strict=True))  # type: ignore[return-value]


def mark_positive(screen: Screen, x: Tokens, positive: Positive) -> None:
    """`positive` as in `largest`, and nothing else."""
    for b in _blocks(screen, x, positive):
        the_loops().screen_above.mark_positive(*b.scores, *b.exact, b.seen, b.unsure, b.threads)


def _choose(loop: Callable[..., None], screen: Screen, x: Tokens, positive: Positive, k: int) -> Largest:
    """k latents of each token, chosen by a loop."""
    values, latents = x.new_empty(len(x), k), torch.empty(len(x), k, dtype=torch.int64, device="cpu")
    for b in _blocks(screen, x, positive):
        chosen = values[b.tokens].numpy(), latents[b.tokens].numpy()
        loop(*b.scores, *b.exact, k, *chosen, b.seen, b.unsure, b.threads)
    return values, latents


def _blocks(screen: Screen, x: Tokens, positive: Positive) -> Iterator[_Block]:
    """The tokens in blocks, to be chosen from; in the end `positive` is what is true of all."""
    start, W = 0, screen.W_enc.numpy()
    for block, scores in screen.blocks(x):
        threads = threads_for(len(block) * len(W))
        seen, unsure = (np.zeros((threads, len(W)), np.bool_) for _ in range(2))
        exact = block.contiguous().numpy(), W, screen.b_enc.numpy()
        yield _Block(slice(start, start + len(block)), scores, exact, seen, unsure, threads)
        start += len(block)
        positive |= torch.from_numpy(seen.any(axis=0))
        asked = (torch.from_numpy(unsure.any(axis=0)) & ~positive).nonzero()[:, 0]
        if len(asked):
            settled = torch.zeros(len(asked), dtype=torch.bool, device="cpu")
            the_loops().screen_above.settle(*scores, *exact, asked.numpy(), settled.numpy(), threads)
            positive[asked] = settled
