"""Death at birth, measured: which latents of a freshly drawn SAE ever fire on the tokens, under each remedy.

A remedy folds into the encoder, so every remedy is a matrix W and a centre c with pre = W (x - c). Remedies that
only center share W, and so one product serves them all: their pre-activations differ by a constant per latent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, check_device, chunks
from autopsae.passes import known_tokens
from autopsae.progress import Progress
from autopsae.remedies.remedy import Remedy
from autopsae.remedies.view import View
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.seeds import check_generator
from autopsae.statistics.sample import SAMPLE_TOKENS, Reservoir, spread
from autopsae.statistics.strays import shorten, typical_norm
from autopsae.tables import Result

_FAR = 2.0**100  # in typical tokens: further ones are brought there, as float32 ends at 2^128
_NEAR = 2.0**-7  # of the way from the reference to a centre: nearer tokens are multiplied by themselves
_BLOCK = 512  # tokens per product: its pre-activations stay in the cache for the counting


@dataclass(frozen=True, kw_only=True, repr=False)
class Birth(Result):
    """Death of a freshly drawn SAE on the tokens, as fractions of its latents."""

    dead: float
    """Latents that never fired, dead_by_relu + dead_by_topk (the paper calls them dead-by-TopK)."""
    dead_by_relu: float
    """Latents that were never positive."""
    dead_by_topk: float
    """Latents that were positive on some token, but never selected."""
    tokens: int
    """Tokens on which this was counted. Where every latent has fired under every remedy reading ends, and
    `measure_birth` gives the tokens read so far; `diagnose` gives all, as no latent can be dead on more."""

    def __str__(self) -> str:
        parts = f"{self.dead_by_relu:.1%} by ReLU, {self.dead_by_topk:.1%} by TopK"
        return f"{self.dead:.1%} of the latents are born dead ({parts}), on {self.tokens:,} tokens"


@whole_arguments("d_sae", "k")
def measure_birth(
    tokens: Tokens,
    remedies: Sequence[Remedy] | Mapping[str, View],
    *,
    d_sae: int,
    sparsity: Sparsity | None = None,
    k: int | None = None,
    generator: torch.Generator,
    sample: Float[Tensor, "sample d_in"] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, Birth]:
    """Death at birth under each remedy, by pathway, of one SAE drawn with `generator`; one pass over the tokens.

    A latent fires on a token if the sparsity selects it and its pre-activation is greater than zero. All remedies
    see the same rows, so their differences are not the draw's. A remedy under which every latent has fired is
    settled and costs nothing more; reading ends when all are. Products in float32, of tokens less their
    approximate centre and over their typical size, so neither a large mean nor an extreme scale costs precision.

    remedies: or what an SAE sees under them, by name (`Remedy.enters`), with a sample of their own; sparsity:
    k = 64 is short for TopK(k=64); sample: raw tokens from all over the stream, which tell the unit of
    thresholds, and the threshold that BatchTopK's first batches set (default: 4,096 tokens, drawn in a pass of
    their own where a sparsity has thresholds); device: where to multiply (default: the generator's); progress:
    told the tokens read, as "birth".

    Raises InputError as `chunks`, for k outside 1 ... d_sae, and for two remedies of one name.
    """
    sparsity = topk_unless(sparsity, k)
    sparsity.check(d_sae)
    check_generator(generator)
    check_device(device, torch.float64)
    device = torch.device(device) if device is not None else generator.device
    blocks = chunks(tokens, _BLOCK, dtype=torch.float64, device=device)
    first = next(blocks)
    asks = sparsity.judges_batches or sparsity.threshold_at_birth(d_sae) is not None
    if sample is None and asks and not isinstance(remedies, Mapping):
        sample = _sample(tokens)
    # A large mean would eat the digits of float32 products, and extreme scales its range.
    reference = first.median(dim=0).values
    scale = typical_norm(first - reference)
    rows = draw_rows(d_sae, first.shape[1], generator=generator).to(device).double()
    views = _views(remedies, sample)
    families: list[_Family] = []
    for name, view in views.items():
        _join(families, name, view, rows, sparsity, reference=reference, scale=scale)
    product, shifted = (torch.empty(_BLOCK, d_sae, device=device) for _ in range(2))
    read, total = 0, known_tokens(tokens)
    for x in chain([first], blocks):
        centered = shorten((x - reference) / scale, _FAR)
        read += len(x)
        for family in families:
            family.see(centered, product, shifted)
        if progress:
            progress("birth", read, total)
        if all(family.settled for family in families):
            break
    births = {count.name: count.birth(read) for family in families for count in family.counts}
    return {name: births[name] for name in views}


class _Count:
    """Who has fired and who has been positive under one remedy, so far.

    away: the way from the remedy's centre to the reference; shift: what it adds to the pre-activations;
    threshold: in the unit of these, where the sparsity has one.
    """

    def __init__(
        self,
        name: str,
        away: Float[Tensor, "d_in"],
        shift: Float[Tensor, "d_sae"],
        sparsity: Sparsity,
        threshold: Float[Tensor, "..."] | None,
    ) -> None:
        self.name, self.away, self.shift = name, away, shift
        self.sparsity, self.threshold = sparsity, threshold
        self.limit = _NEAR * float(away.norm())
        self.fired: Bool[Tensor, d_sae] = torch.zeros_like(shift, dtype=torch.bool)
        self.positive = torch.zeros_like(self.fired)
        self.settled = False

    def see(self, pre: Float[Tensor, "block d_sae"]) -> None:
        """Count a block of tokens from their pre-activations under this remedy."""
        self.fired |= self.sparsity.which_fire(pre, ~self.fired, self.threshold)
        self.settled = bool(self.fired.all())

    def birth(self, tokens: int) -> Birth:
        by_relu = float((~self.positive).double().mean())
        dead = float((~self.fired).double().mean())
        return Birth(dead=dead, dead_by_relu=by_relu, dead_by_topk=dead - by_relu, tokens=tokens)


class _Family:
    """Remedies that share one encoder matrix, and so one product."""

    def __init__(self, W: Float[Tensor, "d_sae d_in"], *, drawn: bool) -> None:
        """drawn: whether W are the drawn rows themselves, as under all remedies that only center."""
        self.W, self.drawn = W, drawn
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


def _views(
    remedies: Sequence[Remedy] | Mapping[str, View], sample: Float[Tensor, "sample d_in"] | None
) -> Mapping[str, View]:
    if isinstance(remedies, Mapping):
        return remedies
    if len({remedy.name for remedy in remedies}) < len(remedies):
        raise InputError(f"expected remedies of different names, got {[remedy.name for remedy in remedies]}")
    return {remedy.name: remedy.enters(sample) for remedy in remedies}


def _join(
    families: list[_Family],
    name: str,
    view: View,
    rows: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    reference: Float[Tensor, "d_in"],
    scale: float,
) -> None:
    """Put a remedy into the family of its product: W (x - c) = W (x - reference) + W (reference - c), all over the
    typical size of a row of W and of a token; who is positive, and who is largest, does not depend on it.
    """
    W, center = view.encoder(rows)
    size = float(W.norm(dim=1).median())
    away = shorten((reference - center.to(reference))[None] / scale, _FAR)[0]
    shift = (W @ away) / size
    threshold = _threshold(view, rows, sparsity)
    if threshold is not None:
        threshold = (threshold / (view.scale * scale * size)).to(shift.device, torch.float32)
    drawn = W is rows
    family = next((family for family in families if drawn and family.drawn), None)
    if family is None:
        family = _Family((W if drawn else W / size).float(), drawn=drawn)
        families.append(family)
    family.counts.append(_Count(name, away, shift.float(), sparsity, threshold))


def _threshold(view: View, rows: Float[Tensor, "d_sae d_in"], sparsity: Sparsity) -> Float[Tensor, "..."] | None:
    """What latents exceed at birth, in the unit in which SAEs are born; None where a token's own latents decide."""
    if not sparsity.judges_batches:
        return sparsity.threshold_at_birth(len(rows))
    W = view.rows(rows).float()
    y = view.seen.to(W.device)
    batches = [sparsity.threshold_of_batch(y[some] @ W.T) for some in spread(len(y), y.device).split(_BLOCK)]
    return torch.stack(batches).mean()


def _sample(tokens: Tokens) -> Float[Tensor, "sample d_in"]:
    reservoir, read = Reservoir(SAMPLE_TOKENS), 0
    for x in chunks(tokens, dtype=torch.float64):
        reservoir.add(x, read)
        read += len(x)
    return reservoir.tokens()
