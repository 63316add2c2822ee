"""From tokens to documents: one row of codes, or of activations, for each document."""

from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from autopsae.arrays import InputError, Tokens, chunks
from autopsae.defaults import Pool
from autopsae.features.codes import CodeBlock, Codes, Documents
from autopsae.features.labels import runs_of
from autopsae.vectors import Vector, document_numbers, truth_values

POOLS: tuple[str, ...] = get_args(Pool)


def pool_codes(codes: Codes, how: str = "max", *, leave_out: Vector | None = None) -> Codes:
    """Codes with an input for each document of the source, in its order: the largest code of each latent over the
    document's tokens, their mean, or the codes of its last token.

    leave_out: tokens that do not count (special tokens); "last" is then the last of the others.

    Raises InputError for codes without documents, for documents whose tokens do not stand side by side, for another
    name of `how`, and for a mask of another length or of other values than booleans, 0 and 1.
    """
    documents = _check_pool("pool_codes", codes.documents, how)
    counts = _count(documents, leave_out)
    starts, names = runs_of(documents)
    last = _last_places(starts, counts)
    scratch, blocks = np.zeros(codes.d_sae), list[tuple[NDArray[np.int32], NDArray[np.float32]]]()
    run = 0
    for block in codes:
        pair_token = block.tokens
        while run < len(starts) and starts[run] < block.start + len(block):
            stop = starts[run + 1] if run + 1 < len(starts) else len(documents)
            first, end = np.searchsorted(pair_token, (starts[run], stop))
            mine = np.arange(first, end)[counts[pair_token[first:end]]]
            if how == "last":
                mine = mine[pair_token[mine] == last[run]]
            (np.maximum if how == "max" else np.add).at(scratch, block.latents[mine], block.values[mine])
            if stop > block.start + len(block):
                break  # the rest of the document is in the next block
            size = counts[starts[run] : stop].sum() if how == "mean" else 1
            latents = np.flatnonzero(scratch)
            blocks.append((latents.astype(np.int32), (scratch[latents] / max(size, 1)).astype(np.float32)))
            scratch[:] = 0
            run += 1
    ends = np.append(0, np.cumsum([len(latents) for latents, _ in blocks]))
    whole = CodeBlock(
        start=0,
        ends=ends,
        latents=np.concatenate([latents for latents, _ in blocks]),
        values=np.concatenate([values for _, values in blocks]),
    )
    return Codes(blocks=[whole], d_sae=codes.d_sae, documents=names)


def pool_tokens(
    tokens: Tokens,
    documents: Vector,
    how: str = "max",
    *,
    leave_out: Vector | None = None,
) -> Float[Tensor, "documents d_in"]:
    """The same of raw activations, in float32. Raises InputError as `pool_codes`, and for more or fewer tokens."""
    documents = _check_pool("pool_tokens", documents, how)
    counts = torch.from_numpy(_count(documents, leave_out))
    starts, _ = runs_of(documents)
    run_of = torch.from_numpy(np.searchsorted(starts, np.arange(len(documents)), side="right") - 1)
    is_last = torch.zeros(len(documents), dtype=torch.bool, device="cpu")
    is_last[torch.from_numpy(_last_places(starts, counts.numpy()))] = True
    empty = -torch.inf if how == "max" else 0.0
    rows, at = torch.empty(0, dtype=torch.float32, device="cpu"), 0
    for x in chunks(tokens):
        if at == 0:
            rows = torch.full((len(starts), x.shape[1]), empty, dtype=torch.float32, device="cpu")
        some = slice(at, at + len(x))
        at += len(x)
        if at > len(documents):
            break
        use = counts[some] & is_last[some] if how == "last" else counts[some]
        index = run_of[some][use][:, None].expand(-1, x.shape[1])
        rows.scatter_reduce_(0, index, x.cpu()[use], "amax" if how == "max" else "sum")
    if at != len(documents):
        got = "more" if at > len(documents) else f"{at:,}"
        raise InputError(f"documents: expected a number for each token, got {len(documents):,} for {got} tokens")
    if how == "mean":
        sizes = torch.zeros(len(starts), dtype=torch.float32, device="cpu").index_add_(0, run_of, counts.float())
        rows = rows / sizes.clamp_min(1)[:, None]
    return torch.where(rows.isinf(), 0.0, rows)


def _check_pool(who: str, documents: Vector | None, how: str) -> Documents:
    if how not in POOLS:
        raise InputError(f"{who}: expected to pool by {', '.join(POOLS)}, got {how!r}")
    if documents is None:
        raise InputError(f"{who}: expected to know the document of each token; pass documents")
    return document_numbers(documents)


def _count(documents: Documents, leave_out: Vector | None) -> Bool[np.ndarray, "tokens"]:
    if leave_out is None:
        return np.ones(len(documents), bool)
    return ~truth_values("leave_out", leave_out, len(documents))


def _last_places(starts: NDArray[np.int64], counts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The last token of each document that counts, or its last token where none does."""
    stops = np.append(starts[1:], len(counts))
    latest = np.maximum.accumulate(np.where(counts, np.arange(len(counts)), -1))[stops - 1]
    return np.where(latest >= starts, latest, stops - 1)
