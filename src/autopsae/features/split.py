"""Documents for validation and for the test, and annotations moved to other documents as a control."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from autopsae.arrays import InputError
from autopsae.features.labels import Labels, runs_of
from autopsae.seeds import hash_seed, keys
from autopsae.vectors import Vector, document_numbers, truth_values

VALIDATION, TEST = 0, 1


def split_documents(documents: Vector, *, validation: float = 0.5, seed: int = 0) -> Int[np.ndarray, "tokens"]:
    """0 for each token of a validation document, 1 for each of a test document. Whole documents are drawn.

    A document is drawn by its number alone, so that it is on the same side in every source that has it.

    Raises InputError for a share outside (0, 1), for documents that are no vector of integers, for a single
    document, and where the draw leaves one side empty.
    """
    if not 0 < validation < 1:
        raise InputError(f"validation: expected a share of the documents over 0 and under 1, got {validation:g}")
    names, which = np.unique(document_numbers(documents), return_inverse=True)
    if len(names) < 2:
        raise InputError(
            f"documents: expected at least two, to choose latents on and to test them on, got {len(names)}; "
            "number the documents of the tokens"
        )
    # By rank of a hash: the two sides are as large as asked for, also where documents are few.
    rank = np.argsort(np.argsort(keys(names, hash_seed(seed, "validation documents"))))
    chosen = min(max(1, round(validation * len(names))), len(names) - 1)
    side = np.where(rank < chosen, VALIDATION, TEST).astype(np.int8)
    return side[which]


def check_splits(splits: Vector, tokens: int) -> Int[np.ndarray, "tokens"]:
    """The splits as int8. Raises InputError unless there is a 0 or 1 for each token."""
    return truth_values("splits", splits, tokens).astype(np.int8)


def shuffle_documents(labels: Labels, splits: Vector, *, seed: int = 0) -> Labels:
    """Labels in which the spans of each document are those of another document of the same split.

    A span keeps its length and its place in the document; in a shorter document its place is taken modulo the
    length, and it ends with the document at the latest. So concepts stay as frequent and as clumped as they are,
    but tell nothing of the tokens: what a latent scores here, it scores by chance.

    Raises InputError unless `splits` has a 0 or 1 for each token.
    """
    sides = check_splits(splits, len(labels.documents))
    starts, names = runs_of(labels.documents)
    lengths = np.diff(np.append(starts, len(labels.documents)))
    side, target = sides[starts], np.arange(len(starts))
    for split in (VALIDATION, TEST):
        mine = np.flatnonzero(side == split)
        order = mine[np.argsort(keys(names[mine], hash_seed(seed, "shuffled documents")))]
        target[order] = np.roll(order, 1)  # a cycle: no document keeps its spans unless it is alone
    run = np.searchsorted(starts, labels.firsts, side="right") - 1
    to = target[run]
    first = (labels.firsts - starts[run]) % lengths[to]
    last = np.minimum(first + labels.lasts - labels.firsts, lengths[to])
    order = np.argsort(starts[to] + first, kind="stable")
    return replace(
        labels,
        firsts=(starts[to] + first)[order],
        lasts=(starts[to] + last)[order],
        numbers=labels.numbers[order],
    )
