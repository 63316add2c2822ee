"""What a forecast needs of a sample: the margins and pre-activations of some latents, and which latents fire."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.remedies.view import View
from autopsae.sae.product import WholeProduct
from autopsae.sae.shared_product import NEAR, SharedProduct
from autopsae.sae.sparsity import Sparsity
from autopsae.statistics.sample import BLOCK, spread
from autopsae.statistics.strays import shorten

_HELD = 1 << 22
"""The largest number of pre-activations that are held at once, so that a wide SAE takes no more memory."""

_FAR = 2.0**100
"""The largest distance between two centres, in units of a view. Float32 ends at 2^128."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Margins and pre-activations of the latents on a sample. The tokens are in the order of `spread`.

    Margins and pre-activations are divided by the norm of the token. Otherwise their tails would be the tail of the
    norms: a few tokens with huge norms would decide the fit.
    """

    over: Float[Tensor, "followed sample"]
    """Margin over the norm of the token, for each followed latent."""
    pre: Float[Tensor, "followed sample"]
    """Pre-activation over the norm of the token, for each followed latent."""
    order: Int[Tensor, "sample"]
    """The place in the sample of each token, in the order of `spread`."""
    silent: float
    """The fraction of all latents that fired on no token of the sample."""
    never_positive: float
    """The fraction of all latents that were positive on no token of the sample."""


class _Encoding:
    """The margins and pre-activations of one SAE, block by block."""

    def __init__(
        self, sparsity: Sparsity, threshold: Float[Tensor, "..."] | None, over: Tensor, d_sae: int
    ) -> None:
        """over: [followed, sample], empty, to be filled; it gives the type and the device."""
        self._sparsity, self._threshold, self.followed = sparsity, threshold, len(over)
        self._over, self._pre = over, torch.empty_like(over)
        self._fired, self._positive = (torch.zeros(d_sae, dtype=torch.bool, device=over.device) for _ in range(2))

    def add(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "followed tokens"],
        norms: Float[Tensor, "tokens"],
        columns: slice | Int[Tensor, "tokens"],
    ) -> None:
        """Add tokens. pre: of the followed latents; norms: of the tokens; columns: of the tokens, in the result."""
        margin, fired = self._sparsity.margins_of_first(product, pre, self._threshold)
        self._fired |= fired
        self._positive |= product.positive[0]
        norms = norms.clamp_min(torch.finfo(pre.dtype).tiny)
        for kept, new in ((self._over, margin), (self._pre, pre)):
            if isinstance(columns, slice):
                torch.div(new, norms, out=kept[:, columns])
            else:
                kept[:, columns] = new / norms

    @property
    def all_fired(self) -> bool:
        """Whether every latent has fired by now."""
        return bool(self._fired.all())

    def result(self, order: Int[Tensor, "sample"]) -> Sampled:
        """The result, after all tokens."""
        silent, never = (float((~mask).double().mean()) for mask in (self._fired, self._positive))
        return Sampled(over=self._over, pre=self._pre, order=order, silent=silent, never_positive=never)


def margins(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    b_enc: Float[Tensor, "d_sae"] | None = None,
    threshold: Float[Tensor, "..."] | None = None,
    followed: int,
) -> Sampled:
    """Pass the sample through the encoder once, and keep what the fits need. Arguments as `survival.forecast`.

    The pre-activations of the first `followed` latents are computed. The others are only needed to know which
    latents fire, and a screen tells that without computing all of them (docs/exact-selection.md).
    """
    encoding = _Encoding(sparsity, threshold, y.new_empty(followed, len(y)), len(W))
    for _ in _encode(y, W, sparsity, encoding, b_enc):
        pass
    return encoding.result(spread(len(y), y.device))


def margins_if_silent(
    y: Float[Tensor, "sample d_in"], W: Float[Tensor, "d_sae d_in"], sparsity: Sparsity, *, followed: int
) -> Sampled | None:
    """`margins`, or None as soon as every latent has fired: the rest of the sample is not looked at then."""
    encoding = _Encoding(sparsity, None, y.new_empty(followed, len(y)), len(W))
    for _ in _encode(y, W, sparsity, encoding, None):
        if encoding.all_fired:
            return None
    return encoding.result(spread(len(y), y.device))


def _encode(
    y: Float[Tensor, "sample d_in"],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    encoding: _Encoding,
    b_enc: Float[Tensor, "d_sae"] | None,
) -> Iterator[None]:
    """Add the sample to `encoding`, a block for each item."""
    followed = encoding.followed
    product, bias = SharedProduct(W), W.new_zeros(len(W)) if b_enc is None else b_enc
    order = spread(len(y), y.device)
    for columns in _blocks(len(y), len(W), sparsity):
        x = y[order[columns]]
        product.multiply(x)
        with torch.autocast(x.device.type, enabled=False):
            pre = torch.addmm(bias[:followed, None], W[:followed], x.T)
        encoding.add(product.with_bias(bias), pre, x.norm(dim=1), columns)
        yield


def margins_of_centered(
    views: Sequence[View],
    seen: Sequence[Float[Tensor, "sample d_in"]],
    W: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    followed: int,
    if_silent: Collection[int] = (),
) -> list[Sampled | None]:
    """The margins of SAEs that are born with the rows W, and center the same tokens by different centres.

    One product serves all of them: with tokens y = s (x - c) as one of the views sees them, the pre-activations
    under another centre c' are those of s (x - c') = y + s (c - c'), so W y + s W (c - c'). Near c'
    tokens get a product of their own (`SharedProduct.under_center`).

    seen: the sample as each view sees it; if_silent: the places of views that get None as soon as every latent has
    fired under them, and then take no more time.
    """
    # Of all centres the one nearest to the tokens: under it, the shift of the others loses the fewest digits.
    first, y = max(zip(views, seen, strict=True), key=lambda pair: pair[0].scale)
    units = [first.scale / view.scale for view in views]
    seen = [own * unit for own, unit in zip(seen, units, strict=True)]
    centers = torch.stack([view.through.center.to(y.device, torch.float64) for view in views])
    shifts = shorten((first.through.center.to(centers) - centers) * first.scale, _FAR)
    biases = [(W.double() @ shift).to(W) for shift in shifts]
    threshold = sparsity.threshold_at_birth(len(W))
    encodings = [
        _Encoding(sparsity, None if threshold is None else threshold * unit, y.new_empty(followed, len(y)), len(W))
        for unit in units
    ]
    product, order = SharedProduct(W), spread(len(y), y.device)
    numbers = torch.arange(len(y), device=y.device)
    settled: set[int] = set()
    for columns in _blocks(len(y), len(W), sparsity):
        places = order[columns]
        x = y[places]
        product.multiply(x)
        pre = matmul(W[:followed], x.T)
        for place, (own, encoding, bias, shift) in enumerate(zip(seen, encodings, biases, shifts, strict=True)):
            if place in settled:
                continue
            norms = own[places].norm(dim=1)
            near = norms < NEAR * float(shift.norm())
            for part in product.under_center(bias, own[places], near):
                if part.is_own:
                    of_followed = matmul(W[:followed], part.product.centered[0].T)
                else:
                    of_followed = (pre + bias[:followed, None])[:, part.tokens]
                in_place = columns if isinstance(part.tokens, slice) else numbers[columns][part.tokens]
                encoding.add(part.product, of_followed, norms[part.tokens], in_place)
            if place in if_silent and encoding.all_fired:
                settled.add(place)
    return [None if place in settled else encoding.result(order) for place, encoding in enumerate(encodings)]


def _blocks(tokens: int, d_sae: int, sparsity: Sparsity) -> Iterator[slice]:
    """The places of the tokens, in blocks. A block is a batch for BatchTopK, so it has tokens from all over the
    sample (`spread`).
    """
    size = BLOCK if sparsity.judges_batches else min(BLOCK, max(1, _HELD // d_sae))
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))
