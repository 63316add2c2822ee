"""The weights of SAEs of one shape side by side, and what is computed with them; an SAE alone is a stack of one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from autopsae.kernels.gradients import Gradients
from autopsae.kernels.ranks import ALONE, Ranks
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
    b_pre: Float[Tensor, "members d_in"] | None = None
    """What the encoder subtracts in place of `b_dec`; it does not learn. None where no member has one."""
    is_tied: Bool[Tensor, "members"] | None = None
    """The members that have no `b_pre`, where others have one; None where all have one, or none."""
    products: Products | None = "auto"
    """The screen that latents are chosen with; None for whole products. What is chosen does not depend on which."""
    gradients: Gradients | None = None
    """Where the backward pass leaves the gradients of W_enc and W_dec, unwritten; None to write them as usual."""
    ranks: Ranks = ALONE
    """The processes over which the latents are spread. These weights are of the latents that this one owns."""

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

    @property
    def encoder_center(self) -> Float[Tensor, "members d_in"]:
        """What the encoder subtracts: `b_pre`, or `b_dec` where there is none, with the gradient of `b_dec`."""
        if self.b_pre is None:
            return self.b_dec
        return self.b_pre if self.is_tied is None else torch.where(self.is_tied[:, None], self.b_dec, self.b_pre)

    def select(
        self,
        y: Float[Tensor, "members tokens d_in"],
        *,
        training: bool,
        workspace: Workspace | None = None,
    ) -> tuple[Selection, Float[Tensor, "members tokens d_in"]]:
        """(who fires, and how strongly, on each member's tokens; y minus the encoder's centre, without gradient),
        as `SAE.select`.

        training: whether a batch is judged as a whole where the sparsity does so in training. Nothing is changed:
        what is learned from the selection, `learn` learns.
        workspace: memory to be used again and again, for speed.
        """
        with torch.no_grad():
            out = workspace.take("centered", tuple(y.shape), y) if workspace else None
            centered = torch.sub(y, self.encoder_center[:, None], out=out)
            product = Product(centered, self.W_enc.detach(), self.b_enc, workspace, self.products)
            sparsity, groups = self.sparsity, self.ranks.peers.size
            if groups > 1 and sparsity.judges_batches:
                # All codes of the batch may be on the tokens that this group sees.
                sparsity = sparsity.with_k((sparsity.l0 or 1) * groups)
            pre, pairs = sparsity.select(product, sparsity.thresholds(self.owned, training=training))
            if not self.ranks.everyone.is_alone:
                pre, pairs = self.sparsity.select_on_ranks(pre, pairs, self.ranks)
            positive = product.positive.flatten()
        seen = y.flatten(0, 1) if y.requires_grad else None
        biases = self.b_enc, self.encoder_center
        pre = encode(pre, centered.flatten(0, 1), pairs, self.W_enc, *biases, seen, self.gradients)
        values, gates = self.sparsity.values(pre, pairs.latents, self.owned)
        return Selection(values=values, pairs=pairs, positive=positive, gates=gates), centered

    @torch.no_grad()
    def decoder_target(
        self, y: Float[Tensor, "members tokens d_in"], centered: Float[Tensor, "members tokens d_in"]
    ) -> Float[Tensor, "members tokens d_in"]:
        """y - b_dec, what the decoder rows have to add up to. centered: what `select` gave with the selection."""
        return centered if self.b_pre is None else y - self.b_dec[:, None]

    def learn(self, selection: Selection) -> None:
        """Change what the sparsity learns from a batch of training, in place: BatchTopK's threshold."""
        values = selection.values.detach()
        if self.ranks.everyone.is_alone:
            self.sparsity.learn(values, selection.pairs, self.owned)
        else:
            self.sparsity.learn_on_ranks(values, selection.pairs, self.owned, self.ranks)

    @property
    def b_dec_of_decoder(self) -> Float[Tensor, "members d_in"]:
        """`b_dec` for the decoder. Its gradient there is the same on all ranks and counts on the first one only, as
        `sum_shared_gradients` adds the gradients of all ranks.
        """
        return self.b_dec if self.ranks.is_alone else self.b_dec * float(self.ranks.is_first)

    def sum_shared_gradients(self) -> None:
        """Add up the gradient of what all ranks hold: that of `b_dec`, through the encoder rows of each rank."""
        if not self.ranks.everyone.is_alone and self.b_dec.grad is not None:
            self.ranks.everyone.sum(self.b_dec.grad, "b_dec")

    def sum_gradients_of_peers(self) -> None:
        """Add up the gradients of the latents that the peers hold too, of the tokens that each of them sees."""
        for name, parameter in self.parameters.items():
            if name != "b_dec" and parameter.requires_grad and not self.ranks.peers.is_alone:
                # A rank on whose tokens no latent fired adds zeros: the others wait for it.
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
                parameter.grad = self.ranks.peers.sum(grad, "gradients")

    def tokens_of(self, selection: Selection) -> int:
        """Number of tokens of a batch, over all groups of ranks that share it."""
        return selection.tokens * self.ranks.peers.size
