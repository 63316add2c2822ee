"""Exact choices at the price of an inexact product (docs/exact-selection.md has the mathematics).

A *screen* multiplies tokens and encoder rows that were rounded to a cheaper type, and knows how far each of these
scores may be from the exact value. A latent whose score could not be among the k largest, or over its threshold, is
out; for the others the exact value is computed, and the choice is made from these. So what is chosen, and with what
value, does not depend on the screen. It is Numba's alone, for float32 on a processor.
"""

from collections.abc import Iterator
from copy import copy
from functools import cache
from math import isfinite, sqrt
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.kernels import dispatch
from autopsae.kernels.dispatch import Loops, threads_for
from autopsae.kernels.workspace import Workspace

Products = Literal["auto", "float32", "bfloat16", "int8"]
"""The type of the products that latents are screened by; "auto" is the fastest that the processor has."""
PRODUCTS: tuple[Products, ...] = ("auto", "float32", "bfloat16", "int8")

BLOCK = 1 << 23
"""Scores that are held at a time: few enough to be read again from the processor's cache."""
_RELATIVE = {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 2.0**-22}
"""Of a score: what it may lose in being rounded to the nearest number of its type, and some to spare."""
_LARGEST = 2.0**126
"""Of products of norms: below it, no partial sum overflows."""
_SMALLEST = 2.0**-125
"""What is lost of a number where the processor takes the smallest ones for zero, doubled."""
_HUGE = 1e30
_MOST_INT8 = 1 << 16
"""Dimensions whose products of int8 an int32 surely holds."""
_FEW_DIMENSIONS, _FEW_LATENTS = 128, 1024
"""Below these, a whole product takes no longer than what a screen does around its own."""

Tokens = Float[Tensor, "tokens d_in"]
Rows = Float[Tensor, "d_sae d_in"]
S = TypeVar("S", bound="Screen")


def choose_screen(asked: Products | None, W_enc: Float[Tensor, "*members d_sae d_in"]) -> Products | None:
    """The screen for these encoder rows; None where there is none, or none is worth it: the whole product then."""
    d_sae, d_in = W_enc.shape[-2:]
    is_possible = W_enc.device.type == "cpu" and W_enc.dtype == torch.float32 and dispatch.load_loops() is not None
    if asked is None or not is_possible:
        return None
    if asked == "auto" and (d_in < _FEW_DIMENSIONS or d_sae < _FEW_LATENTS):
        return None
    if asked == "auto":
        asked = "bfloat16" if multiplies_bfloat16() else "float32"
    if asked == "int8" and (d_in > _MOST_INT8 or not multiplies_int8()):
        asked = "float32"
    # The bound of bfloat16 asks nothing of how its products are made, that of float32 does.
    return "bfloat16" if asked == "float32" and not multiplies_in_float32() else asked


def choose_path(
    asked: Products, W_enc: Float[Tensor, "d_sae d_in"], *, is_screened: bool | None
) -> Products | None:
    """As `choose_screen`; where a run began with a screen (True) or without one (False), as it began."""
    if is_screened is None:
        return choose_screen(asked, W_enc)
    return (choose_screen(asked, W_enc) or choose_screen("float32", W_enc)) if is_screened else None


@cache
def multiplies_bfloat16() -> bool:
    """Has this processor instructions for products of bfloat16? Without them such a product is slow."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


@cache
def multiplies_int8() -> bool:
    """Has this processor instructions for products of int8? Without them sums may be cut off."""
    return bool(getattr(torch.cpu, "_is_vnni_supported", bool)())


def multiplies_in_float32() -> bool:
    """Does PyTorch multiply float32 in float32? `torch.set_float32_matmul_precision` lets it round to bfloat16."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if getattr(matmul, "fp32_precision", "none") not in ("none", "ieee"):
        return False
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # raised where the newer setting, above, is used besides
        return True


class _Rounded(NamedTuple):
    """Rows in the type of a screen, and the norms (float64) of the rows, of the rounded ones and of the errors."""

    rows: Tensor
    scales: Float[Tensor, "rows"]
    norms: Float[Tensor, "rows"]
    rounded: Float[Tensor, "rows"]
    errors: Float[Tensor, "rows"]


class Scores(NamedTuple):
    """The scores of some tokens, and what bounds their errors; see `numba_screen`."""

    scores: np.ndarray
    bias: np.ndarray
    slack: np.ndarray
    sizes: np.ndarray
    limits: tuple[np.float32, np.float32]


class Screen:
    """One SAE's encoder, rounded for a screen. `of` makes it."""

    def __init__(self, kind: Products, W_enc: Rows, workspace: Workspace) -> None:
        self.kind, self.W_enc, self.workspace = kind, W_enc, workspace
        self._rows = _round(kind, W_enc, "rows", workspace)
        self._largest = float(self._rows.rounded.max())
        self._set_biases(W_enc.new_zeros(len(W_enc)))

    @staticmethod
    def of(
        kind: Products, W_enc: Rows, b_enc: Float[Tensor, "d_sae"] | None, workspace: Workspace
    ) -> "Screen | None":
        """None for weights that have no bounds: NaN, infinite, or biases that dwarf everything."""
        screen = Screen(kind, W_enc.contiguous(), workspace)
        bounds = float((screen._rows.errors + screen._rows.rounded + screen._rows.norms).sum())
        if not isfinite(bounds):
            return None
        return screen if b_enc is None else screen.with_bias(b_enc)

    def with_bias(self: S, b_enc: Float[Tensor, "d_sae"]) -> "S | None":
        """The same encoder rows with other biases; None for biases that have no bounds."""
        if not bool(((b_enc.abs() <= _HUGE) | (b_enc == -torch.inf)).all()):
            return None
        other = copy(self)
        other._set_biases(b_enc.contiguous())
        return other

    def _set_biases(self, b_enc: Float[Tensor, "d_sae"]) -> None:
        # A sum with -inf has no bound, and one with this number has.
        self.b_enc, self.bias = b_enc, b_enc.clamp_min(-_HUGE).numpy()
        # Where a latent is at -inf, no product may reach what stands for it.
        self._limit = 0.1 * _HUGE if bool((b_enc < -_HUGE).any()) else _LARGEST

    def blocks(self, x: Tokens) -> Iterator[tuple[Tokens, Scores]]:
        """Tokens in blocks whose scores stay in the processor's cache."""
        for block in x.split(max(64, BLOCK // len(self.W_enc))):
            yield block, self.scores(block)

    def scores(self, x: Tokens) -> Scores:
        """The rounded product of some tokens and the encoder, and its bounds."""
        tokens, d_in = _round(self.kind, x, "tokens", self.workspace), x.shape[1]
        bounded = (tokens.norms + tokens.rounded) * self._largest < self._limit  # not where it is NaN
        if self.kind == "bfloat16":  # numbers that it cannot hold, so small are they: one such token would cost all
            bounded &= tokens.errors <= 2.0**-8 * tokens.norms
        sizes = tokens.norms.where(bounded, torch.inf)
        ratio = (
            float((tokens.errors / tokens.norms).where(bounded & (tokens.norms > 0), 0).max()) if len(x) else 0.0
        )
        # Twice what a sum of d_in products can lose in float32, in whatever order.
        sums = (d_in + 8) * 2.0**-23
        slack = (1 + sums) * self._rows.errors + (2 * sums + ratio * (1 + sums)) * self._rows.rounded
        most = float(tokens.norms.where(bounded, 0).max()) if len(x) else 0.0
        tiny = _SMALLEST * (4 * d_in + sqrt(d_in) * (most + self._largest))
        limits = np.float32(_RELATIVE[self.kind]), np.float32(tiny)
        slack, sizes = (t.mul(1 + 1e-6).float() for t in (slack, sizes))  # by more than float32 rounds off
        return Scores(self._product(tokens).numpy(), self.bias, slack.numpy(), sizes.numpy(), limits)

    def _product(self, tokens: _Rounded) -> Tensor:
        shape = (len(tokens.rows), len(self.W_enc))
        if self.kind == "int8":
            whole = torch._int_mm(tokens.rows, self._rows.rows.T)
            return whole.float().mul_(self._rows.scales).mul_(tokens.scales[:, None])
        out = self.workspace.take("scores", shape, tokens.rows)
        torch.mm(tokens.rows, self._rows.rows.T, out=out)
        return out.view(torch.uint16) if self.kind == "bfloat16" else out


class Scored(Screen):
    """A screen whose scores of one block of tokens are computed once, for SAEs that differ in their biases. It
    holds until the screen that it is made of computes the scores of other tokens.
    """

    def __init__(self, screen: Screen, x: Tokens) -> None:
        vars(self).update(vars(screen))
        self._x, self._scores = x, screen.scores(x)

    def with_bias(self: S, b_enc: Float[Tensor, "d_sae"]) -> "S | None":
        """As of a screen; None also for biases with which other tokens have bounds."""
        other = super().with_bias(b_enc)
        return other if other and other._limit == self._limit else None

    def only(self, kept: Bool[Tensor, "tokens"]) -> "Scored":
        """The same for some of the tokens."""
        other, mask = copy(self), kept.numpy()
        scores, sizes = self._scores.scores[mask], self._scores.sizes[mask]
        other._x, other._scores = self._x[kept], self._scores._replace(scores=scores, sizes=sizes)
        return other

    def blocks(self, x: Tokens) -> Iterator[tuple[Tokens, Scores]]:
        """The one block; `x` are its tokens."""
        yield self._x, self._scores._replace(bias=self.bias)


def _round(kind: Products, rows: Tensor, name: str, workspace: Workspace) -> _Rounded:
    n, d_in = rows.shape
    scales, codes = torch.ones(n, dtype=torch.float32, device="cpu"), rows.contiguous()
    if kind == "bfloat16":
        codes = workspace.take(f"rounded {name}", (n, d_in), torch.empty(0, dtype=torch.bfloat16, device="cpu"))
        codes.copy_(rows)
    elif kind == "int8":
        scales = rows.abs().amax(dim=1).div_(127).clamp_min_(torch.finfo(torch.float32).tiny)
        codes = (rows / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    norms = torch.empty(3, n, dtype=torch.float64, device="cpu")
    bits = codes.view(torch.uint16) if kind == "bfloat16" else codes
    arrays = (t.numpy() for t in (rows.contiguous(), bits, scales, *norms))
    the_loops().screen_above.norms(*arrays, threads_for(rows.numel()))
    return _Rounded(codes, scales, *norms)


def the_loops() -> Loops:
    """The compiled loops, which are there wherever a screen is."""
    loops = dispatch.load_loops()
    assert loops is not None
    return loops
