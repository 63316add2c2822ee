"""Death at birth, counted: how many latents of a freshly drawn SAE fire on none of the tokens, under each remedy.

A remedy can be multiplied into the encoder: the pre-activations of a raw token x are W (x - c), with a matrix W and
a centre c. Remedies that only center have the same W, and their pre-activations differ by a constant per latent. So
one matrix product serves all of these remedies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.ambient import matmul
from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, Tokens, check_device, chunks
from autopsae.defaults import SAMPLE_TOKENS
from autopsae.passes import known_tokens
from autopsae.progress import Progress
from autopsae.remedies.remedy import Remedy
from autopsae.remedies.view import View
from autopsae.sae.init import draw_rows
from autopsae.sae.shared_product import NEAR, SharedProduct
from autopsae.sae.sparsity import Sparsity, topk_unless
from autopsae.seeds import check_generator
from autopsae.statistics.sample import Reservoir, spread
from autopsae.statistics.strays import shorten, typical_norm
from autopsae.tables import Result

_FAR = 2.0**100
"""Tokens over this many typical norms from the reference are moved to that distance, as float32 ends at 2^128."""

_BLOCK = 512
"""Tokens per matrix product: so few that their pre-activations are still in the cache when they are counted."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Birth(Result):
    """The counted dead fractions of a freshly drawn SAE on some tokens."""

    dead: float
    """Fraction of the latents that never fired: dead_by_relu + dead_by_topk. The paper calls all of them
    dead-by-TopK."""
    dead_by_relu: float
    """Fraction of the latents that were never positive."""
    dead_by_topk: float
    """Fraction of the latents that were positive on some token but never fired."""
    tokens: int
    """Number of tokens on which the latents were counted. `measure_birth` stops reading when every latent has fired
    under every remedy, and gives the number read until then. `diagnose` then gives the number of all tokens: a
    latent that has fired is not dead on more tokens either."""
    dead_interval: tuple[float, float] | None = None
    """Where `dead` was not counted but estimated from a sample of these tokens: an interval that contains the count
    in 9 cases of 10. None where it was counted."""

    def __str__(self) -> str:
        parts = f"{self.dead_by_relu:.1%} never positive, {self.dead_by_topk:.1%} positive but never selected"
        return f"{self.dead:.1%} of the latents are born dead ({parts}), {self.how} on {self.tokens:,} tokens"

    @property
    def how(self) -> str:
        """The word for it: counted, or estimated."""
        return "counted" if self.dead_interval is None else "estimated"


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
    """{name of the remedy: Birth}: draw one SAE, and count its dead latents under each remedy in one pass.

    A latent fires on a token if the sparsity selects it and its pre-activation is greater than zero. All remedies
    are compared on the same drawn rows, so that differences between remedies do not come from the draw. A remedy
    under which every latent has fired is not counted any further. When this holds for all remedies, reading ends.

    The products are in float32. Before them, an approximate centre is subtracted from the tokens, and they are
    divided by their typical norm. So neither a large mean nor an extreme scale costs precision.

    tokens: raw, [tokens, d_in], or a re-iterable of such matrices.
    remedies: remedies with different names; or {name: View}, what an SAE sees under each remedy
        (`Remedy.enters`), each with its own sample.
    sparsity: the rule that selects latents; or pass `k`, which is short for TopK(k=k). Default: TopK(k=64).
    generator: draws the rows.
    sample: raw tokens [sample, d_in], spread over the stream. They give the unit of thresholds, and the threshold
        that the first batches set for BatchTopK. Default: 4,096 tokens, which are drawn in an extra pass if the
        sparsity has thresholds.
    device: the device of the products (default: that of the generator).
    progress: called as progress("birth", tokens read, all tokens or None).

    Raises InputError for k outside 1 ... d_sae, for both `sparsity` and `k`, for two remedies of the same name, and
    as `chunks` for the tokens.
    """
    sparsity = topk_unless(sparsity, k)
    sparsity.check(d_sae)
    check_generator(generator)
    check_device(device, torch.float64)
    device = torch.device(device) if device is not None else generator.device
    blocks = chunks(tokens, _BLOCK, dtype=torch.float64, device=device)
    first = next(blocks)
    has_thresholds = sparsity.judges_batches or sparsity.threshold_at_birth(d_sae) is not None
    if sample is None and has_thresholds and not isinstance(remedies, Mapping):
        sample = _draw_sample(tokens)
    # In float32, a large mean would cost the products their last digits, and an extreme scale would overflow.
    reference = first.median(dim=0).values
    scale = typical_norm(first - reference)
    rows = draw_rows(d_sae, first.shape[1], generator=generator).to(device).double()
    views = _views(remedies, sample)
    families: list[_Family] = []
    for name, view in views.items():
        _add_to_family(families, name, view, rows, sparsity, reference=reference, scale=scale)
    read, total = 0, known_tokens(tokens)
    for x in chain([first], blocks):
        centered = shorten((x - reference) / scale, _FAR)
        read += len(x)
        for family in families:
            family.see(centered)
        if progress:
            progress("birth", read, total)
        if all(family.settled for family in families):
            break
    births = {count.name: count.birth(read) for family in families for count in family.counts}
    return {name: births[name] for name in views}


class _Count:
    """The latents that have fired, and those that have been positive, under one remedy so far."""

    def __init__(
        self,
        name: str,
        from_center: Float[Tensor, "d_in"],
        shift: Float[Tensor, "d_sae"],
        sparsity: Sparsity,
        threshold: Float[Tensor, "..."] | None,
    ) -> None:
        """from_center: the reference minus the remedy's centre; shift: W from_center, which is added to the
        pre-activations of the family; threshold: in the unit of the pre-activations, or None.
        """
        self.name, self.from_center, self.shift = name, from_center, shift
        self.sparsity, self.threshold = sparsity, threshold
        self.near = NEAR * float(from_center.norm())
        self.fired: Bool[Tensor, d_sae] = torch.zeros_like(shift, dtype=torch.bool)
        self.positive = torch.zeros_like(self.fired)
        self.settled = False

    def see(self, shared: SharedProduct, x: Float[Tensor, "block d_in"]) -> None:
        """Count a block of tokens. shared: its product with the encoder; x: the tokens minus the reference, in
        float64.
        """
        x_from_center = x + self.from_center
        near = torch.linalg.vector_norm(x_from_center, dim=1) < self.near
        for product, _, _ in shared.under_center(self.shift, x_from_center, near):
            # Only latents that have not fired yet are asked for.
            self.fired |= self.sparsity.which_fire(product, ~self.fired, self.threshold)
            self.positive |= product.positive[0]
        self.settled = bool(self.fired.all())

    def birth(self, tokens: int) -> Birth:
        """The result, after `tokens` tokens."""
        by_relu = float((~self.positive).double().mean())
        dead = float((~self.fired).double().mean())
        return Birth(dead=dead, dead_by_relu=by_relu, dead_by_topk=dead - by_relu, tokens=tokens)


class _Family:
    """The remedies that have the same encoder matrix W. They share one matrix product per block."""

    def __init__(self, W: Float[Tensor, "d_sae d_in"], *, drawn: bool) -> None:
        """drawn: True if W is the drawn rows themselves, as for all remedies that only center."""
        self.drawn, self._product = drawn, SharedProduct(W)
        self.counts: list[_Count] = []

    @property
    def settled(self) -> bool:
        """True if every latent has fired under every remedy of the family."""
        return all(count.settled for count in self.counts)

    def see(self, x: Float[Tensor, "block d_in"]) -> None:
        """Count a block of tokens. x: the tokens minus the reference, in float64."""
        if self.settled:
            return
        self._product.multiply(x.float())
        for count in self.counts:
            if not count.settled:
                count.see(self._product, x)


def _views(
    remedies: Sequence[Remedy] | Mapping[str, View], sample: Float[Tensor, "sample d_in"] | None
) -> Mapping[str, View]:
    """{name of the remedy: what an SAE sees under it}. Raises InputError for two remedies of the same name."""
    if isinstance(remedies, Mapping):
        return remedies
    if len({remedy.name for remedy in remedies}) < len(remedies):
        raise InputError(f"expected remedies of different names, got {[remedy.name for remedy in remedies]}")
    return {remedy.name: remedy.enters(sample) for remedy in remedies}


def _add_to_family(
    families: list[_Family],
    name: str,
    view: View,
    rows: Float[Tensor, "d_sae d_in"],
    sparsity: Sparsity,
    *,
    reference: Float[Tensor, "d_in"],
    scale: float,
) -> None:
    """Add a remedy to the family that has its W, or to a new one.

    W (x - c) = W (x - reference) + W (reference - c): the first term is the product of the family, the second is
    the shift of the remedy. Both are divided by the typical norm of a token (`scale`) and of a row of W (`size`).
    This changes neither which latents are positive nor which are largest.
    """
    W, center = view.encoder(rows)
    size = float(W.norm(dim=1).median())
    from_center = shorten((reference - center.to(reference))[None] / scale, _FAR)[0]
    shift = (W @ from_center) / size
    threshold = _threshold(view, rows, sparsity)
    if threshold is not None:
        # From the unit of the SAE, in which pre-activations are view.scale W (x - c), to the unit of the family.
        threshold = (threshold / (view.scale * scale * size)).to(shift.device, torch.float32)
    drawn = W is rows
    family = next((family for family in families if drawn and family.drawn), None)
    if family is None:
        family = _Family((W if drawn else W / size).float(), drawn=drawn)
        families.append(family)
    family.counts.append(_Count(name, from_center, shift.float(), sparsity, threshold))


def _threshold(view: View, rows: Float[Tensor, "d_sae d_in"], sparsity: Sparsity) -> Float[Tensor, "..."] | None:
    """The threshold at birth, in the unit of a new SAE. None for a sparsity without thresholds, such as TopK."""
    if not sparsity.judges_batches:
        return sparsity.threshold_at_birth(len(rows))
    # BatchTopK takes its threshold from batches. The mean over batches of the sample stands for its first ones.
    W = view.rows(rows).float()
    y = view.seen.to(W.device)
    batches = [sparsity.threshold_of_batch(matmul(y[some], W.T)) for some in spread(len(y), y.device).split(_BLOCK)]
    return torch.stack(batches).mean()


def _draw_sample(tokens: Tokens) -> Float[Tensor, "sample d_in"]:
    """4,096 raw tokens, each equally likely, in one pass."""
    reservoir, read = Reservoir(SAMPLE_TOKENS), 0
    for x in chunks(tokens, dtype=torch.float64):
        reservoir.add(x, read)
        read += len(x)
    return reservoir.tokens()
