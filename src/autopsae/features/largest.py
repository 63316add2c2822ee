"""The firings with the largest keys of each latent, in bounded memory: its top activations, or a uniform sample."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from autopsae.features.codes import CodeBlock
from autopsae.seeds import hash_seed, keys


class LargestPerLatent:
    """The `most` firings of each latent with the largest keys, largest first; of equal keys, the earliest token.

    keys: [d_sae, most], minus infinity where a latent fired less often; tokens: their places in the source, -1
    there; values: their codes, 0 there.
    """

    def __init__(self, d_sae: int, most: int) -> None:
        self.keys = np.full((d_sae, most), -np.inf)
        self.tokens = np.full((d_sae, most), -1, np.int64)
        self.values = np.zeros((d_sae, most), np.float32)

    def add(self, block: CodeBlock, key: Float[np.ndarray, "pairs"]) -> None:
        """Look at the pairs of the next block."""
        most = self.keys.shape[1]
        new = np.flatnonzero(key > self.keys[block.latents, -1])
        if not len(new):
            return
        latent, token = block.latents[new], block.tokens[new]
        order = np.lexsort((token, -key[new], latent))
        new, latent, token = new[order], latent[order], token[order]
        # The rank of each pair within its latent: its place minus that of the latent's first pair.
        begins = np.flatnonzero(np.append(True, latent[1:] != latent[:-1]))
        rank = np.arange(len(latent)) - np.repeat(begins, np.diff(np.append(begins, len(latent))))
        some = rank < most
        new, latent, token, rank = new[some], latent[some], token[some], rank[some]
        touched, row = np.unique(latent, return_inverse=True)
        joined: list[NDArray[Any]] = [
            np.concatenate([part[touched], np.zeros_like(part[touched])], axis=1) for part in self._parts
        ]
        joined[0][:, most:] = -np.inf
        joined[1][:, most:] = -1
        joined[0][row, most + rank] = key[new]
        joined[1][row, most + rank] = token
        joined[2][row, most + rank] = block.values[new]
        # Stable: what was there before stands first among equals.
        best = np.argsort(-joined[0], axis=1, kind="stable")[:, :most]
        for held, wide in zip(self._parts, joined, strict=True):
            held[touched] = np.take_along_axis(wide, best, axis=1)

    @property
    def _parts(self) -> tuple[NDArray[Any], ...]:
        return self.keys, self.tokens, self.values


def sample_keys(block: CodeBlock, seed: int) -> Float[np.ndarray, "pairs"]:
    """A key for each pair, by a hash of token and latent: those with the largest keys are a uniform sample."""
    by_token = keys(block.tokens, hash_seed(seed, "a sample of firings"))
    mixed = by_token ^ keys(block.latents.astype(np.int64), hash_seed(seed, "latents of a sample of firings"))
    return keys(mixed.view(np.int64), 0).astype(np.float64)


def top_tokens(values: Int[np.ndarray, "d_sae most"]) -> Int[np.ndarray, "tokens"]:
    """The tokens that stand among the largest of any latent, each once, in rising order."""
    tokens = np.unique(values)
    return tokens[tokens >= 0]
