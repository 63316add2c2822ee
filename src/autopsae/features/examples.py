"""Top activations: the tokens on which a latent fires most, and a spread over its quantiles, with their context."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError
from autopsae.features.codes import Codes, Documents
from autopsae.features.largest import LargestPerLatent, sample_keys
from autopsae.features.token_table import TokenTable
from autopsae.tables import Result, html_table

SAMPLE = 64
"""Firings of each latent, drawn uniformly, of which the spread is taken."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A token on which a latent fires."""

    token: int
    """Place of the token in the source."""
    value: float
    """The latent's code there."""
    quantile: float
    """Share of the latent's firings (or of the sample of them) whose code is at most this one's."""
    document: int | None
    """The number of its document; None where it is not known."""
    position: int | None
    """Which token of its document it is, from 0; None where the document is not known."""
    before: str | None
    """The text before the token; None without a table of tokens."""
    text: str | None
    """The token itself."""
    after: str | None
    """The text after it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class LatentExamples(Result):
    """Where one latent fires."""

    latent: int
    """The latent."""
    fired: int
    """On how many tokens it fires."""
    rate: float
    """On which share of the tokens."""
    top: tuple[Example, ...]
    """The tokens with its largest codes, largest first."""
    spread: tuple[Example, ...]
    """Tokens at equal steps over the quantiles of its codes, largest first."""

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"latent {self.latent} fires on {self.fired:,} tokens ({self.rate:.3%})"

    def _html_table(self) -> str:
        rows = [
            [which, f"{example.value:.4g}", f"{example.quantile:.0%}", *_in_context(example)]
            for which, some in (("largest", self.top), ("spread", self.spread))
            for example in some
        ]
        return html_table(["which", "code", "quantile", "before", "token", "after"], rows, said=[str(self)])


def _in_context(example: Example) -> list[str]:
    """What is before a token, the token, and what is after it; its place where no table of tokens was there."""
    return (
        ["", f"token {example.token:,}", ""]
        if example.text is None
        else [example.before or "", example.text, example.after or ""]
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopActivations(Result):
    """The top activations of every latent (`top_activations`). `of_latent(n)` shows those of one."""

    tokens: int
    """Number of tokens that were read."""
    fired: Int[np.ndarray, "d_sae"]
    """On how many tokens each latent fires."""
    largest: LargestPerLatent
    """The firings with the largest codes."""
    sample: LargestPerLatent
    """A uniform sample of the firings."""
    documents: Documents | None
    """The number of each token's document; None where it is not known."""
    spread: int
    """How many tokens the spread has."""

    @whole_arguments("latent", "window")
    def of_latent(self, latent: int, tokens: TokenTable | None = None, *, window: int = 12) -> LatentExamples:
        """The examples of one latent. tokens: what each token is, for the context; window: tokens of context on
        each side, from the same document.

        Raises InputError for a latent that there is not, a window below 0, and a table of other tokens.
        """
        self._check([latent], tokens, window)
        return self._of_latent(latent, tokens, window)

    def _check(self, latents: Sequence[int], tokens: TokenTable | None, window: int) -> None:
        """InputError as `of_latent`."""
        if strange := [latent for latent in latents if not 0 <= latent < len(self.fired)]:
            raise InputError(f"latent: expected 0 to {len(self.fired) - 1:,}, got {strange[0]:,}")
        if window < 0:
            raise InputError(f"window: expected at least 0 tokens, got {window}")
        if tokens is not None:
            tokens.check_source(tokens.documents if self.documents is None else self.documents)
            if len(tokens) != self.tokens:
                raise InputError(
                    f"token table: expected a row for each of {self.tokens:,} tokens, got {len(tokens):,}"
                )

    def _of_latent(self, latent: int, tokens: TokenTable | None, window: int) -> LatentExamples:
        drawn = self.sample.values[latent][self.sample.tokens[latent] >= 0]
        drawn_tokens = self.sample.tokens[latent][: len(drawn)]
        order = np.argsort(drawn, kind="stable")[::-1]
        steps = np.unique(np.linspace(0, max(0, len(drawn) - 1), self.spread).round().astype(int))[: len(drawn)]
        top = self.largest.tokens[latent] >= 0
        chosen = {
            "top": zip(self.largest.tokens[latent][top], self.largest.values[latent][top], strict=True),
            "spread": [(drawn_tokens[order[step]], drawn[order[step]]) for step in steps],
        }
        examples = {
            name: tuple(self._example(int(t), float(v), drawn, tokens, window) for t, v in pairs)
            for name, pairs in chosen.items()
        }
        fired = int(self.fired[latent])
        return LatentExamples(latent=latent, fired=fired, rate=fired / self.tokens, **examples)

    def _example(
        self, token: int, value: float, drawn: NDArray[np.float32], tokens: TokenTable | None, window: int
    ) -> Example:
        documents = tokens.documents if self.documents is None and tokens is not None else self.documents
        document = position = before = text = after = None
        first, last = 0, self.tokens
        if documents is not None:
            document = int(documents[token])
            begins = self._begins if self.documents is not None else _begins_of(documents)
            part = int(np.searchsorted(begins, token, side="right"))
            first, last = int(begins[part - 1]), int(begins[part]) if part < len(begins) else self.tokens
            position = token - first
        if tokens is not None:
            before = "".join(tokens.texts[max(first, token - window) : token])
            text = tokens.texts[token]
            after = "".join(tokens.texts[token + 1 : min(last, token + 1 + window)])
        return Example(
            token=token,
            value=value,
            quantile=float((drawn <= value).mean()) if len(drawn) else 1.0,
            document=document,
            position=position,
            before=before,
            text=text,
            after=after,
        )

    @cached_property
    def _begins(self) -> Int[np.ndarray, "documents"]:
        assert self.documents is not None
        return _begins_of(self.documents)

    def to_dict(
        self, latents: Sequence[int] | None = None, tokens: TokenTable | None = None, *, window: int = 12
    ) -> dict[str, Any]:
        """JSON of some latents; None for all that fired. Raises InputError as `of_latent`."""
        chosen = [int(n) for n in np.flatnonzero(self.fired)] if latents is None else [*latents]
        self._check(chosen, tokens, window)
        return {
            "tokens": self.tokens,
            "d_sae": len(self.fired),
            "latents": [self._of_latent(n, tokens, window).to_dict() for n in chosen],
        }

    def __str__(self) -> str:
        live = int((self.fired > 0).sum())
        return f"top activations of {live:,} live latents of {len(self.fired):,}, on {self.tokens:,} tokens"


def _begins_of(documents: Documents) -> Int[np.ndarray, "documents"]:
    """The place of the first token of each document, whose tokens stand side by side."""
    return np.flatnonzero(np.diff(documents, prepend=documents[0] - 1))


@whole_arguments("top", "spread", "seed")
def top_activations(codes: Codes, *, top: int = 10, spread: int = 10, seed: int = 0) -> TopActivations:
    """For every latent, the tokens on which it fires most, and a spread over the quantiles of its codes.

    top: how many of the first; spread: how many of the second, from a uniform sample of 64 firings of each latent;
    seed: of the sample. One pass; memory grows with d_sae alone.

    Raises InputError for numbers below 1, and as a pass over the codes.
    """
    if top < 1 or spread < 1:
        raise InputError(f"top_activations: expected top and spread of at least 1, got {top} and {spread}")
    largest, sample = LargestPerLatent(codes.d_sae, top), LargestPerLatent(codes.d_sae, max(SAMPLE, spread))
    fired, tokens = np.zeros(codes.d_sae, np.int64), 0
    for block in codes:
        fired += np.bincount(block.latents, minlength=codes.d_sae)
        tokens += len(block)
        largest.add(block, block.values.astype(np.float64))
        sample.add(block, sample_keys(block, seed))
    return TopActivations(
        tokens=tokens,
        fired=fired,
        largest=largest,
        sample=sample,
        documents=codes.documents,
        spread=spread,
    )
