"""JumpReLU: latents over a threshold of their own, which is learned."""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.kernels.straight_through import jump, step
from autopsae.sae.product import MANY, Chosen, Product, WholeProduct
from autopsae.sae.sparsity.base import Owned, Sparsity
from autopsae.saved import Layout


@dataclass(frozen=True, kw_only=True)
class JumpReLU(Sparsity):
    """Latents over their own learned threshold fire, with their full value (Rajamanoharan et al. 2024).

    Thresholds get their gradient from the positive pre-activations within bandwidth / 2 of them (straight-through,
    with a rectangular kernel). In units of the pre-activations: about 1 where the layer is scaled. The paper's own
    setting is a bandwidth and a start of 0.001 (Simon, Adams and Zou 2026, App. A.3).
    """

    name: ClassVar[str] = "jumprelu"
    gated: ClassVar[bool] = True
    goes_on_ranks: ClassVar[bool] = True
    learned_by_gradient: ClassVar[tuple[str, ...]] = ("log_threshold",)
    usual_penalty: ClassVar[Literal["l0", "l1"] | None] = "l0"
    bandwidth: float = 0.3
    """Width of the kernel, in units of the pre-activations."""
    start: float = 0.1
    """Where thresholds begin, at least (`born` may set them higher, so that each latent fires at a rate)."""

    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """Over the threshold; without one, over where it begins."""
        return pre - (self.start if threshold is None else threshold.to(pre))

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """All that fire, and the positive ones near enough to their threshold to move it."""
        assert threshold is not None
        low = (threshold - self.bandwidth / 2).relu()
        return product.pairs_above(low, many=bool((low == 0).float().mean() > MANY))

    def which_fire(
        self,
        product: WholeProduct,
        asked: Bool[Tensor, "d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "d_sae"]:
        """A mask of the latents in `asked` that are over their threshold on at least one token."""
        over = torch.full_like(asked, self.start, dtype=product.W_enc.dtype) if threshold is None else threshold
        return product.any_above(over.to(product.W_enc).expand(1, len(asked)))[0] & asked

    def margins_of_first(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "first tokens"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "first tokens"], Bool[Tensor, "d_sae"]]:
        """See `Sparsity.margins_of_first`."""
        over = None if threshold is None else threshold.expand(product.shape[2])
        bar = self.start if over is None else over[: len(pre), None].to(pre)
        return pre - bar, self.which_fire(product, torch.ones_like(product.positive[0]), over)

    def check(self, d_sae: int) -> None:
        """InputError unless there is a latent, and bandwidth and start are positive."""
        check_k(1, d_sae)
        for name, hint in (("bandwidth", "0.3"), ("start", "0.1")):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise InputError(f"JumpReLU: expected {name} > 0, got {value}; pass about {hint}")

    def pairs_per_token(self, d_sae: int, threshold: Float[Tensor, "..."] | None = None) -> int:
        """As many as standard normal pre-activations are over the thresholds, or near enough to move them; but no
        less than a sparsity that says nothing of it.
        """
        over = self.threshold_at_birth(1) if threshold is None else threshold.detach().float()
        share = float(torch.special.ndtr(self.bandwidth / 2 - over).mean())
        return max(int(share * d_sae), super().pairs_per_token(d_sae))

    def firing_rate_at_birth(self, d_sae: int, l0: float) -> float:
        """l0 / d_sae: the target is met from the first step on."""
        return l0 / d_sae

    def tensors_at_birth(
        self, like: Float[Tensor, "d_sae d_in"], threshold: Float[Tensor, "..."] | None
    ) -> dict[str, Tensor]:
        """The logarithm of each latent's threshold. Raises InputError for none, or one that is not over zero."""
        if threshold is None or not bool((threshold > 0).all()):
            raise InputError("JumpReLU: expected a threshold over zero for every latent; see `born`")
        return {"log_threshold": threshold.to(like).log().expand(len(like)).clone()}

    def layouts(self, d_sae: int, dtypes: tuple[torch.dtype, ...]) -> dict[str, Layout]:
        """A logarithm for each latent, in the type of the weights."""
        return {"log_threshold": Layout(shape=(d_sae,), dtypes=dtypes)}

    def threshold(self, owned: Owned) -> Float[Tensor, "d_sae"]:
        """exp(log_threshold)."""
        return owned["log_threshold"].exp()

    def threshold_at_birth(
        self, d_sae: int, threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "d_sae"]:
        """`start`, or what a trained latent has where that is lower."""
        if threshold is None:
            return torch.full((d_sae,), self.start, dtype=torch.float32, device="cpu")
        return threshold.clamp_max(self.start)

    def thresholds(self, owned: Owned, *, training: bool) -> Float[Tensor, "members d_sae"]:
        """exp(log_threshold), in training and after it."""
        return owned["log_threshold"].exp()

    def values(
        self, pre: Float[Tensor, "pairs"], latents: Int[Tensor, "pairs"], owned: Owned
    ) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
        """The full value over the threshold and zero under it, and a step there, both with a slope for it."""
        # Not threshold[latents], whose gradient PyTorch adds up in another order each time.
        over = owned["log_threshold"].exp().flatten().index_select(0, latents)
        return jump(pre, over, self.bandwidth), step(pre, over, self.bandwidth)

    def redraw(
        self, owned: Owned, member: int, silent: Int[Tensor, "some"], dead: Bool[Tensor, "d_sae"], *, size: float
    ) -> None:
        """The mean threshold of the living, for rows of this size."""
        log_threshold = owned["log_threshold"][member]
        if not bool(dead.all()):
            log_threshold[silent] = (log_threshold[~dead].exp().mean() * size).log()
