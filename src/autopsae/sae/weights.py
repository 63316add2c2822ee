"""The weights of SAEs of one shape side by side, and what is computed with them; an SAE alone is a stack of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.sae.pairs import Pairs
from autopsae.sae.selection import Product, Selection
from autopsae.sae.sparse_ops import encode
from autopsae.sae.sparsity import BatchTopK, JumpReLU, Sparsity
from autopsae.sae.straight_through import jump, step
from autopsae.sae.workspace import Workspace

if TYPE_CHECKING:
    from autopsae.sae.model import SAE

PARAMETERS = ("W_enc", "W_dec", "b_dec", "b_enc", "log_threshold")


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Parameters [members, ...]; `log_threshold` is JumpReLU's, `learned_threshold` BatchTopK's (NaN until it has
    learned one).
    """

    W_enc: Float[Tensor, "members d_sae d_in"]
    W_dec: Float[Tensor, "members d_sae d_in"]
    b_dec: Float[Tensor, "members d_in"]
    b_enc: Float[Tensor, "members d_sae"] | None
    log_threshold: Float[Tensor, "members d_sae"] | None
    learned_threshold: Float[Tensor, "members"] | None
    sparsity: Sparsity

    @property
    def shape(self) -> tuple[int, int, int]:
        """(members, d_sae, d_in)"""
        members, d_sae, d_in = self.W_enc.shape
        return members, d_sae, d_in

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Those there are, by name."""
        named = {name: getattr(self, name) for name in PARAMETERS}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def select(
        self,
        y: Float[Tensor, "members tokens d_in"],
        *,
        training: bool,
        products: torch.dtype | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[Selection, Float[Tensor, "members tokens d_in"]]:
        """(who fires, and how strongly, on each member's tokens; y - b_dec, without gradient), as `SAE.select`.

        workspace: memory to be used again and again, for speed.
        """
        threshold = self.log_threshold.exp() if self.log_threshold is not None else None
        with torch.no_grad():
            out = workspace.take("centered", tuple(y.shape), y) if workspace else None
            centered = torch.sub(y, self.b_dec[:, None], out=out)
            dtype = products or centered.dtype
            b_enc = None if self.b_enc is None else self.b_enc.to(dtype)
            product = Product(centered.to(dtype), self.W_enc.to(dtype), b_enc, workspace)
            pre, pairs = self.sparsity.select(product, threshold if training else self._judging(threshold))
            positive = product.positive.flatten()
            if pre.dtype != centered.dtype:
                pre = pairs.dots(centered.flatten(0, 1), self.W_enc)
                pre = pre if self.b_enc is None else pre + self.b_enc.flatten()[pairs.latents]
                positive[pairs.latents[pre > 0]] = True
        seen = y.flatten(0, 1) if y.requires_grad else None
        pre = encode(pre, centered.flatten(0, 1), pairs, self.W_enc, self.b_enc, self.b_dec, seen)
        if isinstance(self.sparsity, JumpReLU):
            assert threshold is not None
            # Not threshold[latents], whose gradient PyTorch adds up in another order each time.
            over, bandwidth = threshold.flatten().index_select(0, pairs.latents), self.sparsity.bandwidth
            values, gates = jump(pre, over, bandwidth), step(pre, over, bandwidth)
            return Selection(values=values, pairs=pairs, positive=positive, gates=gates), centered
        values = pre.relu()
        if training:
            self._learn_threshold(values.detach(), pairs)
        return Selection(values=values, pairs=pairs, positive=positive), centered

    def _judging(self, threshold: Tensor | None) -> Tensor | None:
        """By what a token is judged outside of training."""
        learned = self.learned_threshold
        if not isinstance(self.sparsity, BatchTopK) or learned is None or bool(learned.isnan().any()):
            return threshold
        return learned[:, None]

    def _learn_threshold(self, values: Float[Tensor, "pairs"], pairs: Pairs) -> None:
        """A running mean of the smallest value that fired, over the last hundred batches or so."""
        before = self.learned_threshold
        if before is None:
            return
        lengths = pairs.per_member_counts
        smallest = torch.segment_reduce(values.where(values > 0, torch.inf), "min", lengths=lengths).to(before)
        learned = torch.where(before.isnan(), smallest, before.lerp(smallest, 0.01))
        before.copy_(torch.where(smallest.isfinite(), learned, before))


def stacked(saes: Sequence["SAE"]) -> Weights:
    """The weights of all as leaves of their own; the SAEs hold parts of them from now on, so that what is trained
    here is seen there. SAEs of one shape, sparsity, type and device.
    """

    def together(name: str) -> Tensor | None:
        tensors = [getattr(sae, name) for sae in saes]
        if tensors[0] is None:
            return None
        one = len(tensors) == 1
        # One SAE's tensor is the stack, unless its rows lie in another order.
        joined = tensors[0].detach()[None].contiguous() if one else torch.stack([t.detach() for t in tensors])
        for tensor, part in zip(tensors, joined, strict=True):
            tensor.data = part
        return joined

    parameters = {name: together(name) for name in PARAMETERS}
    for tensor in parameters.values():
        if tensor is not None:
            tensor.requires_grad_()
    learned = together("learned_threshold")
    return Weights(**parameters, learned_threshold=learned, sparsity=saes[0].sparsity)  # type: ignore[arg-type]


def apart(saes: Sequence["SAE"]) -> None:
    """Give SAEs that held parts of a stack tensors of their own."""
    for sae in saes:
        for tensor in [*sae.parameters(), *sae.buffers()]:
            tensor.data = tensor.data.clone()
