"""The codes of an SAE over a source of tokens, as pairs of a token and a latent that fires on it.

Nothing here is dense: a block of tokens is held as its firing pairs (compressed sparse rows). Blocks are read one
after the other, as often as wanted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.arrays import CHUNK_TOKENS, InputError, Mapped, Tokens, chunks
from autopsae.memory import check_memory
from autopsae.modules import evaluation_mode
from autopsae.passes import same_passes, source_documents
from autopsae.progress import Progress, tell_progress
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.tables import Result
from autopsae.vectors import Vector, document_numbers

Documents = Int[np.ndarray, "tokens"]
"""The number of the document that each token of a source is from."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CodeBlock(Result):
    """The firing pairs of some tokens that follow each other in the source."""

    start: int
    """Place of the first token in the source."""
    ends: Int[np.ndarray, "tokens_and_one"]
    """0, then where the pairs of each token end."""
    latents: Int[np.ndarray, "pairs"]
    """The latent of each pair, token by token."""
    values: Float[np.ndarray, "pairs"]
    """The code of each pair, over 0."""

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def tokens(self) -> Int[np.ndarray, "pairs"]:
        """The place in the source of each pair's token."""
        return self.start + np.repeat(np.arange(len(self)), np.diff(self.ends))

    def __str__(self) -> str:
        return f"{len(self.latents):,} firing pairs of {len(self):,} tokens from token {self.start:,} on"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Codes(Result):
    """The codes of an SAE over a source of tokens. Iterating yields a `CodeBlock` after the other, in the order of
    the tokens, as often as wanted.
    """

    blocks: Iterable[CodeBlock]
    """The blocks, which can be iterated more than once."""
    d_sae: int
    """Number of latents, dead ones included."""
    documents: Documents | None = None
    """The number of each token's document; None where it is not known."""

    def __iter__(self) -> Iterator[CodeBlock]:
        return iter(self.blocks)

    def __str__(self) -> str:
        of = "an unknown number of" if self.documents is None else f"{len(self.documents):,}"
        return f"codes of {self.d_sae:,} latents on {of} tokens"

    def hold(self) -> "Codes":
        """The same codes, all pairs in memory (8 bytes each), so that a further pass encodes nothing.

        Raises InputError where the pairs would not fit.
        """
        held: list[CodeBlock] = []
        pairs = tokens = 0
        for block in self:
            held.append(block)
            pairs, tokens = pairs + len(block.values), tokens + len(block)
            if self.documents is not None and len(held) == 1:
                needed = 8 * pairs * max(1, len(self.documents) // max(1, tokens))
                check_memory(needed, torch.device("cpu"), "for all codes", "do not hold the codes")
        return Codes(blocks=held, d_sae=self.d_sae, documents=self.documents)


def encode_source(
    sae: SAE,
    tokens: Tokens,
    *,
    documents: Vector | None = None,
    progress: Progress | None = None,
) -> Codes:
    """The codes of `sae` on raw tokens. Every pass encodes anew, a block of tokens at a time.

    documents: the number of each token's document; left out, what the source says (`Activations.documents`), unless
    some of its tokens were left out (`take`): their positions would not be those of the documents any more.
    progress: told the tokens of every pass, as "codes".

    Raises InputError for weights that are not finite, for a sparsity that judges a batch as a whole (BatchTopK
    before it has learned a threshold: its codes would depend on where batches end), and for documents that are no
    vector of whole numbers; a pass raises it as `chunks`, for tokens of another width than the SAE's, for a pass
    that differs from the first, for documents that are more or fewer than the tokens, and for codes that are 0 or
    infinite in float32, in which they are held.
    """
    sae.check_finite("features")
    if sae.sparsity.judges_batches and sae.threshold is None:
        raise InputError(
            f"features: expected an SAE that judges each token alone, got {sae.sparsity} without a threshold: "
            "its codes depend on which tokens are read together; load a checkpoint with a threshold, or learn one "
            "(SAE.learn)"
        )
    given = _documents_of(tokens) if documents is None else documents
    numbers = None if given is None else document_numbers(given)
    encoded = _Encoded(sae, same_passes(tokens), None if numbers is None else len(numbers), progress)
    return Codes(blocks=encoded, d_sae=sae.d_sae, documents=numbers)


def _documents_of(tokens: Tokens) -> Any:
    """What a source says of its documents, if it gives all of its tokens."""
    is_whole = getattr(tokens, "tokens", None) == getattr(tokens, "source_tokens", getattr(tokens, "tokens", None))
    return source_documents(tokens) if is_whole else None


class _Encoded:
    """Blocks of codes that are computed when they are asked for."""

    def __init__(self, sae: SAE, tokens: Tokens, expected: int | None, progress: Progress | None) -> None:
        self._sae, self._expected, self._progress = sae, expected, progress
        # The width is checked before a product of the wrong shape fails.
        self._tokens = Mapped(tokens, self._check_width, dtype=sae.W_enc.dtype)

    def __iter__(self) -> Iterator[CodeBlock]:
        weight, start = self._sae.W_enc, 0
        read = chunks(self._tokens, CHUNK_TOKENS, dtype=weight.dtype, device=weight.device)
        for x in tell_progress(read, self._progress, "codes", self._expected):
            # Not around the yield: a mode that is on at a yield is on in what the caller does with the block.
            with torch.no_grad(), evaluation_mode(self._sae):
                block = firing_pairs(self._sae.select(self._sae.enter(x)[0]), start)
            start += len(x)
            yield block
        if self._expected is not None and start != self._expected:
            raise InputError(
                f"documents: expected a number for each of {start:,} tokens, got {self._expected:,}; are they of "
                "another source?"
            )

    def _check_width(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != self._sae.d_in:
            raise InputError(
                f"features: expected tokens of d_in = {self._sae.d_in}, as the SAE's, got {x.shape[1]}; choose the "
                "layer that it was trained on"
            )
        return x


def firing_pairs(selection: Selection, start: int) -> CodeBlock:
    """The pairs of a selection that fire, on the CPU. TopK also selects latents of code 0 where too few are
    positive. Raises InputError for a code that float32 cannot hold.
    """
    pairs, values = selection.pairs, selection.values.detach()
    fires = (values > 0).cpu().numpy()
    held = values.float().cpu().numpy()[fires]
    # A tiny code of a float64 SAE is 0 in float32, and its latent would seem to be dead.
    if (lost := (held == 0) | np.isinf(held)).any():
        raise InputError(
            f"features: expected codes that float32 can hold, got {int(lost.sum()):,} of {len(held):,} that are 0 "
            f"or infinite in it, in the tokens from token {start:,} on; scale the tokens and the biases of the "
            "SAE by one number"
        )
    ends = np.concatenate([[0], np.cumsum(fires)])[pairs.ends.cpu().numpy()]
    return CodeBlock(
        start=start,
        ends=ends,
        latents=pairs.latents.cpu().numpy()[fires].astype(np.int32),
        values=held,
    )


def check_documents(codes: Codes, documents: Documents, name: str) -> None:
    """InputError, naming the argument, where the codes know their documents and `documents` are others."""
    if codes.documents is None or np.array_equal(codes.documents, documents):
        return
    if len(codes.documents) != len(documents):
        raise InputError(
            f"{name}: expected those of the codes' tokens, got {name} of {len(documents):,} tokens and codes of "
            f"{len(codes.documents):,}; are they of another source?"
        )
    n = int(np.flatnonzero(codes.documents != documents)[0])
    raise InputError(
        f"{name}: expected the documents of the codes' tokens, got document {documents[n]} for token {n:,}, which "
        f"is of document {codes.documents[n]} in the codes; pass the same documents to both"
    )


def maxima(codes: Codes) -> Float[np.ndarray, "d_sae"]:
    """The largest code of each latent over the source, 0 for one that never fires: the first pass of coverage."""
    largest = np.zeros(codes.d_sae, np.float32)
    for block in codes:
        np.maximum.at(largest, block.latents, block.values)
    return largest


def gather_columns(
    codes: Codes, latents: Int[np.ndarray, "some"]
) -> dict[int, tuple[Int[np.ndarray, "firings"], Float[np.ndarray, "firings"]]]:
    """{latent: (places of the tokens on which it fires, its codes there)} for some latents, in one pass."""
    wanted = np.zeros(codes.d_sae, bool)
    wanted[latents] = True
    parts: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]] = []
    for block in codes:
        mine = np.flatnonzero(wanted[block.latents])
        parts.append((block.latents[mine], block.tokens[mine], block.values[mine]))
    latent, token, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(latent, kind="stable")
    latent, token, value = latent[order], token[order], value[order]
    chosen = np.flatnonzero(wanted)
    first, last = np.searchsorted(latent, chosen), np.searchsorted(latent, chosen, side="right")
    return {int(n): (token[a:b], value[a:b]) for n, a, b in zip(chosen, first, last, strict=True)}
