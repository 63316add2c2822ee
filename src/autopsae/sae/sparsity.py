"""Which latents of a token are selected, given its pre-activations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.diagnosis.closed_form import check_k
from autopsae.sae.sparse_ops import Pairs


@dataclass(frozen=True, kw_only=True)
class TopK:
    """The k largest of each token; those of them that are positive fire (Gao et al. 2024)."""

    k: int

    def select(self, pre: Float[Tensor, "tokens d_sae"]) -> Pairs:
        """The k largest latents of each token, ties decided by torch.topk."""
        return Pairs.of_matrix(torch.topk(pre, self.k, dim=1, sorted=False).indices, pre.shape[1])

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae."""
        check_k(self.k, d_sae)


@dataclass(frozen=True, kw_only=True)
class BatchTopK:
    """The k * tokens largest of a whole batch, so k per token on average (Bussmann et al. 2024).

    threshold: once trained, a token is judged alone: its latents over the threshold fire. None while training.
    """

    k: int
    threshold: float | None = None

    def select(self, pre: Float[Tensor, "tokens d_sae"]) -> Pairs:
        """The largest k * tokens of the batch, or, with a threshold, all over it."""
        n_tokens, d_sae = pre.shape
        if self.threshold is None:
            flat = torch.topk(pre.flatten(), self.k * n_tokens, sorted=False).indices.sort().values
        else:
            flat = (pre.flatten() > self.threshold).nonzero()[:, 0]
        return Pairs.of(flat % d_sae, flat // d_sae, n_tokens=n_tokens, d_sae=d_sae)

    def check(self, d_sae: int) -> None:
        """InputError unless 1 <= k <= d_sae."""
        check_k(self.k, d_sae)


Sparsity = TopK | BatchTopK
