"""Which tokens a trial trains on, and which it is judged on: whole documents, where these are known."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autopsae.arguments import whole
from autopsae.arrays import Tokens
from autopsae.passes import source_documents
from autopsae.run.data import SHARE, Spread, count_tokens, hold_out
from autopsae.seeds import stream
from autopsae.vectors import Vector, document_numbers

MOST = 20_480
"""Tokens that are held out where nothing else is asked, at most: each candidate is measured on all of them."""

LARGEST_SHARE = 0.5
"""Share of the tokens that held-out documents may have at most: where documents are so few that those drawn have
more, tokens of all documents are held out instead."""


def split_tokens(
    tokens: Tokens,
    documents: Vector | None = None,
    *,
    held_out: int | None = None,
    seed: int = 0,
) -> tuple[Tokens, Tokens, bool]:
    """(tokens to train on, held-out tokens, whether these are whole documents).

    documents: the number of each token's document; None for what the source says. held_out: how many tokens are
    held out at least; None for a tenth, at most 20,480. seed: draws the documents. Where documents are not known,
    the held-out tokens are spread over all: they resemble their neighbours that are trained on.

    Raises InputError for documents of another number than that of the tokens, and as `hold_out`.
    """
    total = count_tokens(tokens)
    n = min(MOST, max(1, total // SHARE)) if held_out is None else whole("held_out", held_out)
    known = source_documents(tokens) if documents is None else documents
    places = None if known is None or n < 1 else _places(document_numbers(known, total), n, seed)
    if places is None:
        training, held = hold_out(tokens, n)
        return training, held, False
    training = Spread(tokens, places, tokens=total - len(places), others=True)
    return training, Spread(tokens, places, tokens=len(places)), True


def _places(documents: NDArray[np.int64], n: int, seed: int) -> Sequence[int] | None:
    """The places of the tokens of documents, drawn one by one until they have `n` tokens; None where those would be
    too large a share of all.
    """
    numbers, owner, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    order = torch.randperm(len(numbers), generator=stream(seed, "documents held out"), device="cpu").numpy()
    drawn = order[: int(np.searchsorted(sizes[order].cumsum(), n)) + 1]
    places = np.flatnonzero(np.isin(owner, drawn))
    return None if len(places) > LARGEST_SHARE * len(documents) else places.tolist()
