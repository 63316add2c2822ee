"""One product of tokens and encoder rows for several SAEs: those that are born alike but for their centre."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.kernels.screen import Scored, Screen, choose_screen
from autopsae.kernels.workspace import Workspace
from autopsae.sae.product import Block, ScreenedProduct, WholeProduct

NEAR = 2.0**-7
"""Tokens closer to the centre that a bias stands for than this share of the bias' own distance need a product of
their own: the sum of two large numbers, whose exact value is near zero there, leaves a rounding error that is
positive for half of the latents."""


class Part(NamedTuple):
    """The pre-activations of some tokens of a block."""

    product: WholeProduct
    tokens: Bool[Tensor, "tokens"] | slice
    """Which of the block."""
    is_own: bool
    """Multiplied for these tokens, and not moved from the shared product."""


class SharedProduct:
    """The product of a block of tokens and one encoder matrix, made once for SAEs that differ in their biases.

    Its memory is used again for each block and bias: what `with_bias` gives holds until the next call.
    """

    def __init__(self, W_enc: Float[Tensor, "d_sae d_in"]) -> None:
        self.W_enc, self._workspace = W_enc, Workspace()
        kind = choose_screen("auto", W_enc)
        self._screen = None if kind is None else Screen.of(kind, W_enc, None, self._workspace)
        self._scored: Scored | None = None

    def multiply(self, x: Float[Tensor, "tokens d_in"]) -> None:
        """Take the next block."""
        self._x = x
        if self._screen:
            self._scored = Scored(self._screen, x)
        else:
            out = self._workspace.take("rows", (len(x), len(self.W_enc)), x)
            self._rows = torch.mm(x, self.W_enc.T, out=out)

    def with_bias(self, b_enc: Float[Tensor, "d_sae"], kept: Bool[Tensor, "tokens"] | None = None) -> WholeProduct:
        """The pre-activations of the block, or of the tokens `kept`, in an SAE with these biases."""
        x = (self._x if kept is None else self._x[kept])[None]
        if self._scored is None:
            rows = self._rows if kept is None else self._rows[kept]
            out = self._workspace.take("moved", tuple(rows.shape), rows)
            return _KnownProduct(x, self.W_enc[None], b_enc, rows=rows, out=out)
        scored = self._scored.with_bias(b_enc)
        if scored is None:
            return WholeProduct(x, self.W_enc[None], b_enc[None])
        return ScreenedProduct(scored if kept is None else scored.only(kept), x)

    def under_center(
        self, shift: Float[Tensor, "d_sae"], y: Float[Tensor, "tokens d_in"], near: Bool[Tensor, "tokens"]
    ) -> Iterator[Part]:
        """The pre-activations W y of the block in an SAE that subtracts another centre c. shift: W (reference - c),
        for a shared product of x - reference; y: the tokens as x - c; near: those that are near c (`NEAR`).

        At c the exact pre-activation is zero. W (x - reference) + W (reference - c) is a sum of two large numbers
        there, so that tokens near c get a product of their own.
        """
        if not bool(near.any()):
            yield Part(self.with_bias(shift), slice(None), is_own=False)
            return
        if not bool(near.all()):
            yield Part(self.with_bias(shift, ~near), ~near, is_own=False)
        yield Part(WholeProduct(y[near].to(self.W_enc)[None], self.W_enc[None], None), near, is_own=True)


class _KnownProduct(WholeProduct):
    """A whole product whose rows are known."""

    def __init__(
        self,
        centered: Float[Tensor, "1 tokens d_in"],
        W_enc: Float[Tensor, "1 d_sae d_in"],
        b_enc: Float[Tensor, "d_sae"],
        *,
        rows: Float[Tensor, "tokens d_sae"],
        out: Float[Tensor, "tokens d_sae"],
    ) -> None:
        super().__init__(centered, W_enc, None)
        # The kernels may overwrite what they are given.
        self._rows = torch.add(rows, b_enc, out=out)

    def __iter__(self) -> Iterator[Block]:
        yield Block(rows=self._rows[None], members=slice(None))

    def _by_latent(self) -> Iterator[tuple[slice, Float[Tensor, "1 d_sae tokens"]]]:
        yield slice(None), self._rows.T.contiguous()[None]
