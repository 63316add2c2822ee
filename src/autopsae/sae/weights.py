"""The weights of SAEs of one shape side by side, and what is computed with them; an SAE alone is a stack of one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.kernels.gradients import Gradients
from autopsae.kernels.screen import Products
from autopsae.kernels.sparse_ops import encode
from autopsae.kernels.workspace import Workspace
from autopsae.sae.product import Product
from autopsae.sae.selection import Selection
from autopsae.sae.sparsity import Sparsity

PARAMETERS = ("W_enc", "W_dec", "b_dec", "b_enc")
"""Those of every SAE; a sparsity may add some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Parameters [members, ...]. owned: the tensors that the sparsity adds, parameters and buffers, by their
    names.
    """

    W_enc: Float[Tensor, "members d_sae d_in"]
    W_dec: Float[Tensor, "members d_sae d_in"]
    b_dec: Float[Tensor, "members d_in"]
    b_enc: Float[Tensor, "members d_sae"] | None
    owned: Mapping[str, Tensor]
    sparsity: Sparsity
    products: Products | None = "auto"
    """The screen that latents are chosen with; None for whole products. What is chosen does not depend on which."""
    gradients: Gradients | None = None
    """Where the backward pass leaves the gradients of W_enc and W_dec, unwritten; None to write them as usual."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(members, d_sae, d_in)."""
        members, d_sae, d_in = self.W_enc.shape
        return members, d_sae, d_in

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Those there are, by name."""
        named = {name: getattr(self, name) for name in PARAMETERS}
        named |= {name: self.owned[name] for name in self.sparsity.learned_by_gradient}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def select(
        self,
        y: Float[Tensor, "members tokens d_in"],
        *,
        training: bool,
        workspace: Workspace | None = None,
    ) -> tuple[Selection, Float[Tensor, "members tokens d_in"]]:
        """(who fires, and how strongly, on each member's tokens; y - b_dec, without gradient), as `SAE.select`.

        training: whether a batch is judged as a whole where the sparsity does so in training. Nothing is changed:
        what is learned from the selection, `learn` learns.
        workspace: memory to be used again and again, for speed.
        """
        with torch.no_grad():
            out = workspace.take("centered", tuple(y.shape), y) if workspace else None
            centered = torch.sub(y, self.b_dec[:, None], out=out)
            product = Product(centered, self.W_enc.detach(), self.b_enc, workspace, self.products)
            pre, pairs = self.sparsity.select(product, self.sparsity.thresholds(self.owned, training=training))
            positive = product.positive.flatten()
        seen = y.flatten(0, 1) if y.requires_grad else None
        pre = encode(pre, centered.flatten(0, 1), pairs, self.W_enc, self.b_enc, self.b_dec, seen, self.gradients)
        values, gates = self.sparsity.values(pre, pairs.latents, self.owned)
        return Selection(values=values, pairs=pairs, positive=positive, gates=gates), centered

    def learn(self, selection: Selection) -> None:
        """Change what the sparsity learns from a batch of training, in place: BatchTopK's threshold."""
        self.sparsity.learn(selection.values.detach(), selection.pairs, self.owned)
