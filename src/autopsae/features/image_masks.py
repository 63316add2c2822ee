"""Masks of images as annotations of patches."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.features.annotations import Annotations
from autopsae.words import show

COVERED = 0.5
"""Share of a patch that a mask must cover for the patch to have its concept."""


@whole_arguments("patches")
def mask_annotations(
    masks: Iterable[Mapping[str, NDArray[Any]]], *, patches: int, covered: float = COVERED
) -> Annotations:
    """The annotations of images by masks, in patches that a `TokenTable` counts row by row from the upper left.

    masks: for image n, {concept: mask [height, width]}, not zero where the concept is; patches: on a side, as the
    network cuts the middle square of an image (`ImageNetwork`); covered: the share of a patch that has the concept
    for the patch to count. A pixel is of the patch that its centre lies in.

    Raises InputError for a mask that is no matrix or smaller than the patches, and where no patch has a concept.
    """
    rows = list[tuple[int, int, int, str]]()
    for number, named in enumerate(masks):
        for concept, mask in named.items():
            where = f"image {number}: the mask of {show(concept, 40)}"
            shares = _patch_shares(np.asarray(mask), patches, where)
            # Neighbours in a row of patches are one span.
            has = np.pad(shares >= covered, ((0, 0), (1, 1))).astype(np.int8)
            for row, edges in enumerate(np.diff(has, axis=1)):
                ends = np.flatnonzero(edges == -1)
                for first, last in zip(np.flatnonzero(edges == 1), ends, strict=True):
                    rows.append((number, row * patches + int(first), row * patches + int(last), concept))
    return Annotations.of(rows)


def _patch_shares(mask: NDArray[Any], patches: int, where: str) -> NDArray[np.float64]:
    """The share of each patch of the middle square that the mask covers."""
    if mask.ndim != 2 or min(mask.shape) < patches:
        raise InputError(
            f"{where}: expected a matrix [height, width] of at least {patches} x {patches} pixels, got shape "
            f"{mask.shape}"
        )
    side = min(mask.shape)
    top, left = ((length - side) // 2 for length in mask.shape)
    square = (mask[top : top + side, left : left + side] != 0).astype(np.float64)
    edges = np.ceil(np.arange(patches) * side / patches - 0.5).astype(int)
    sums = np.add.reduceat(np.add.reduceat(square, edges, axis=0), edges, axis=1)
    sizes = np.diff(np.append(edges, side)).astype(np.float64)
    shares: NDArray[np.float64] = sums / np.outer(sizes, sizes)
    return shares
