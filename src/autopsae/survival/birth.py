"""Death at birth, measured: which latents of a freshly drawn SAE ever fire on the tokens, under each remedy.

A remedy folds into the encoder, so every remedy is a matrix W and a centre c with pre = W (x - c). Remedies that
only center share W, and so one product serves them all: their pre-activations differ by a constant per latent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, check_device, chunks
from autopsae.remedies.remedy import Remedy
from autopsae.seeds import stream
from autopsae.statistics.strays import shortened, typical_norm
from autopsae.survival.closed_form import check_k

_FAR = 2.0**100  # in typical tokens: further ones are brought there, as float32 ends at 2^128
_NEAR = 2.0**-7  # of the way from the reference to a centre: nearer tokens are multiplied by themselves
_BLOCK = 512  # tokens per product: its pre-activations stay in the cache for the counting


@dataclass(frozen=True, kw_only=True)
class Birth:
    """Death of a freshly drawn SAE on the tokens, as fractions of its latents."""

    dead: float
    """Latents that never fired (the paper's dead-by-TopK, which includes dead-by-ReLU): relu + topk."""
    relu: float
    """Latents that were never positive."""
    topk: float
    """Latents that were positive on some token, but never among the k largest."""
    tokens: int
    """Tokens on which this was counted. Where every latent has fired under every remedy reading ends, and
    `measure_birth` gives the tokens read so far; `diagnose` gives all, as no latent can be dead on more."""


def draw_rows(
    d_sae: int, d_in: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "d_sae d_in"]:
    """Encoder rows uniform on the unit sphere, the paper's initialisation (App. A.2), on the generator's device.

    They are drawn from a stream of their own (`seeds.stream`), so they are no numbers that the caller may draw too.
    """
    rows = torch.randn(d_sae, d_in, generator=stream(generator, "rows of an SAE"), dtype=dtype)
    return torch.nn.functional.normalize(rows.to(generator.device), dim=1)


@whole_arguments("d_sae", "k")
def measure_birth(
    tokens: Tokens,
    remedies: Sequence[Remedy],
    *,
    d_sae: int,
    k: int,
    generator: torch.Generator,
    device: torch.device | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Birth]:
    """Death at birth under each remedy, by pathway, of one SAE drawn with `generator`; one pass over the tokens.

    A latent fires on a token if its pre-activation is among the k largest and greater than zero. All remedies see
    the same rows, so their differences are not the draw's. A remedy under which every latent has fired is settled
    and costs nothing more; reading ends when all are. Products in float32, of tokens less their approximate
    centre and over their typical size, so neither a large mean nor an extreme scale costs precision.

    device: where to multiply (default: the generator's); progress: told the tokens of each chunk.

    Raises InputError as `chunks`, for k outside 1 ... d_sae, and for two remedies of one name.
    """
    check_k(k, d_sae)
    if len({remedy.name for remedy in remedies}) < len(remedies):
        raise InputError(f"expected remedies of different names, got {[remedy.name for remedy in remedies]}")
    check_device(device, torch.float64)
    device = torch.device(device) if device is not None else generator.device
    blocks = chunks(tokens, _BLOCK, dtype=torch.float64, device=device)
    first = next(blocks)
    # A large mean would eat the digits of float32 products, and extreme scales its range.
    reference = first.median(dim=0).values
    scale = typical_norm(first - reference)
    rows = draw_rows(d_sae, first.shape[1], generator=generator).to(device).double()
    families = _families(rows, remedies, reference, scale, k)
    product, shifted = (torch.empty(_BLOCK, d_sae, device=device) for _ in range(2))
    read = 0
    for x in chain([first], blocks):
        centered = shortened((x - reference) / scale, _FAR)
        read += len(x)
        for family in families:
            family.see(centered, product, shifted)
        if progress:
            progress(len(x))
        if all(family.settled for family in families):
            break
    births = {count.name: count.birth(read) for family in families for count in family.counts}
    return {remedy.name: births[remedy.name] for remedy in remedies}


class _Count:
    """Who has fired and who has been positive under one remedy, so far.

    away: the way from the remedy's centre to the reference; shift: what it adds to the pre-activations.
    """

    def __init__(self, name: str, away: Float[Tensor, "d_in"], shift: Float[Tensor, "d_sae"], k: int) -> None:
        self.name, self.away, self.shift, self.k = name, away, shift, k
        self.limit = _NEAR * float(away.norm())
        self.fired: Bool[Tensor, d_sae] = torch.zeros_like(shift, dtype=torch.bool)
        self.positive = torch.zeros_like(self.fired)
        self.settled = False

    def see(self, pre: Float[Tensor, "block d_sae"]) -> None:
        """Count a block of tokens from their pre-activations under this remedy."""
        hopeful = pre >= _floor_of_kth_largest(pre, self.k)
        hopeful.logical_and_(~self.fired)
        # Only tokens on which a latent may fire for the first time need the exact selection.
        pre = pre[hopeful.any(dim=1)]
        values, latents = torch.topk(pre, self.k, dim=1, sorted=False)
        self.fired[latents[values > 0]] = True  # > 0: with fewer than k positive, top-k also selects the rest
        self.settled = bool(self.fired.all())

    def birth(self, tokens: int) -> Birth:
        relu = float((~self.positive).double().mean())
        dead = float((~self.fired).double().mean())
        return Birth(dead=dead, relu=relu, topk=dead - relu, tokens=tokens)


class _Family:
    """Remedies that share one encoder matrix, and so one product."""

    def __init__(self, W: Float[Tensor, "d_sae d_in"]) -> None:
        self.W = W
        self.counts: list[_Count] = []

    @property
    def settled(self) -> bool:
        return all(count.settled for count in self.counts)

    def see(
        self, x: Float[Tensor, "block d_in"], product: Float[Tensor, "_ d_sae"], shifted: Float[Tensor, "_ d_sae"]
    ) -> None:
        """Count a block of tokens in float64. `product`, `shifted`: room for the pre-activations, as a fresh matrix
        of this size costs half as much again as the product in it.
        """
        if self.settled:
            return
        pre = torch.mm(x.float(), self.W.T, out=product[: len(x)])
        largest = pre.amax(dim=0)
        for count in self.counts:
            if not count.settled:
                moved = torch.add(pre, count.shift, out=shifted[: len(x)])
                near = self._multiply_near(count, x, moved)
                count.positive |= (moved.amax(dim=0) if near else largest + count.shift) > 0
                count.see(moved)

    def _multiply_near(
        self, count: _Count, x: Float[Tensor, "block d_in"], pre: Float[Tensor, "block d_sae"]
    ) -> bool:
        """Overwrite the pre-activations of tokens at a remedy's centre or close to it, and say whether there are
        some: those of a zero token, seen from zero, are zero, where a sum of two numbers of the mean's size leaves
        rounding errors, half of them positive.
        """
        from_center = x + count.away
        near = torch.linalg.vector_norm(from_center, dim=1) < count.limit
        some = bool(near.any())
        if some:
            pre[near] = from_center[near].float() @ self.W.T
        return some


def _families(rows: Tensor, remedies: Sequence[Remedy], reference: Tensor, scale: float, k: int) -> list[_Family]:
    """Pre-activations W (x - c) = W (x - reference) + W (reference - c), all over the typical size of a row of W
    and of a token: who fires does not depend on it.
    """
    drawn = _Family(rows.float())
    families = [drawn]
    for remedy in remedies:
        W, center = remedy.encoder(rows)
        size = float(W.norm(dim=1).median())
        away = shortened((reference - center.to(reference))[None] / scale, _FAR)[0]
        shift = (W @ away) / size
        if W is not rows:
            families.append(_Family((W / size).float()))
        family = drawn if W is rows else families[-1]
        family.counts.append(_Count(remedy.name, away, shift.float(), k))
    return families


def _floor_of_kth_largest(pre: Float[Tensor, "block d_sae"], k: int) -> Float[Tensor, "block 1"]:
    """A floor, at least 0, under each token's k-th largest pre-activation: the k-th largest of the maxima of 8 k
    groups of latents. It is tight (the top k seldom share a group) and a quarter of the price of the selection.
    """
    groups = 8 * k
    size = pre.shape[1] // groups
    if size < 2:
        return pre.new_zeros(len(pre), 1)
    maxima = pre[:, : groups * size].unflatten(1, (size, groups)).amax(dim=1)
    return torch.topk(maxima, k, dim=1, sorted=False).values.amin(dim=1, keepdim=True).clamp_min_(0)
