"""How silent latents come back: by a gradient (AuxK, ghost gradients), or drawn afresh (resampling).

AuxK reaches latents that are dead-by-TopK alone, ghost gradients reach all silent ones; tests hold them to that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.ranks import Ranks
from autopsae.kernels.sparse_ops import encode, subtract_decoded
from autopsae.sae.death import Watch
from autopsae.sae.product import Chosen, Product
from autopsae.sae.sparsity import TopK
from autopsae.sae.weights import Weights
from autopsae.transfers import numbers_like, send

Batch = Float[Tensor, "members tokens d_in"]
Dead = Bool[Tensor, "members d_sae"]


@dataclass(frozen=True, kw_only=True)
class AuxK:
    """Let the silent latents explain what the others left over (Gao et al. 2024; paper A.2).

    Of the latents that have been silent for `dead_after_tokens`, each token takes the `k_aux` with the largest
    pre-activations, ReLU'd, and the loss is their error on the residual, over the residual's variance. The residual
    carries no gradient. As the codes pass a ReLU, dead-by-ReLU latents get no gradient: AuxK cannot revive them.
    """

    coefficient: float = 1 / 32
    """Weight of the loss."""
    dead_after_tokens: int = 256_000
    """Tokens of silence after which a latent takes part."""
    k_aux: int | None = None
    """Latents per token; None for d_in / 2."""

    def __post_init__(self) -> None:
        whole_fields(self, "dead_after_tokens", "k_aux")
        fine = 0 <= self.coefficient < inf and self.dead_after_tokens >= 1
        if not fine or (self.k_aux is not None and self.k_aux < 1):
            raise InputError(f"AuxK: expected coefficient >= 0, dead_after_tokens >= 1, k_aux >= 1, got {self}")

    @staticmethod
    def losses(
        methods: "Sequence[AuxK]", weights: Weights, centered: Batch, left: Batch, dead: Dead
    ) -> Float[Tensor, "members"]:
        """coefficient * ||residual - explained||^2 / ||residual - its mean||^2 of each member; 0 where no latent is
        silent, or the residual does not vary. left: the residual; dead: the silent latents.
        """
        n_members, d_sae, d_in = weights.shape
        variance, peers = _variance_of_all(left, weights.ranks.peers), weights.ranks.peers
        # On several ranks, one with no silent latent goes on as long as another one has some: it adds up with it.
        n_silent = weights.ranks.sum(dead.sum(dim=1), "silent latents")
        some = _Some.of(weights, dead, has_some=(n_silent > 0) & (variance > 0))
        if some is None:
            return left.new_zeros(n_members)
        with torch.no_grad():
            b_enc = torch.where(some.silent, 0 if some.b_enc is None else some.b_enc, -torch.inf)
            rows = some.rows_of(weights.W_enc)
            product = Product(centered[some.members], rows, b_enc.to(left), products=weights.products)
            k_aux = min(methods[int(some.members[0])].k_aux or max(1, d_in // 2), int(n_silent[some.members].max()))
            pre, among = _largest_silent(product, k_aux, weights.ranks)
            counts = torch.zeros(left.shape[:2], dtype=torch.int64, device=left.device)
            counts[some.members] = among.per_token_counts.view(len(some.members), -1)
            latents = some.ids.flatten()[among.latents]
            pairs = Pairs(latents=latents, per_token_counts=counts.flatten(), d_sae=d_sae, members=n_members)
        parameters, gradients = (weights.W_enc, weights.b_enc, weights.encoder_center), weights.gradients
        codes = encode(pre, centered.flatten(0, 1), pairs, *parameters, gradients=gradients).relu()
        _, error = subtract_decoded(
            left, codes, pairs, weights.W_dec, None, gradients=gradients, ranks=weights.ranks
        )
        error = peers.total(error, "revival")
        reached = torch.zeros(n_members, dtype=torch.bool, device=left.device).index_fill_(0, some.members, True)
        size = numbers_like(left, [method.coefficient for method in methods])
        return size * torch.where(reached, error / variance.where(reached, 1), 0)


@dataclass(frozen=True, kw_only=True)
class GhostGradients:
    """Let the silent latents explain half of the residual through an exponential, whose slope is never zero (Jermyn
    and Templeton 2024).

    Each token's ghost reconstruction, exp(pre) W_dec over the silent latents, is brought to half the residual's
    norm, and its squared error to the size of the reconstruction's; residual, both factors and the living carry no
    gradient. So dead-by-ReLU latents are reached too, at the price of dense products over the silent ones.
    """

    coefficient: float = 1.0
    """Weight of the loss."""
    dead_after_tokens: int = 256_000
    """Tokens of silence after which a latent takes part."""

    def __post_init__(self) -> None:
        whole_fields(self, "dead_after_tokens")
        if not 0 <= self.coefficient < inf or self.dead_after_tokens < 1:
            raise InputError(f"GhostGradients: expected coefficient >= 0, dead_after_tokens >= 1, got {self}")

    @staticmethod
    def losses(
        methods: "Sequence[GhostGradients]", weights: Weights, centered: Batch, left: Batch, dead: Dead
    ) -> Float[Tensor, "members"]:
        """coefficient * the rescaled error of the ghosts of each member; 0 where no latent is silent. left: the
        residual; dead: the silent latents.
        """
        some = _Some.of(weights, dead, has_some=dead.any(dim=1))
        if some is None:
            return left.new_zeros(weights.shape[0])
        residual = left[some.members]
        pre = centered[some.members] @ some.rows_of(weights.W_enc).mT
        pre = (pre if some.b_enc is None else pre + some.b_enc[:, None]).masked_fill(
            ~some.silent[:, None], -torch.inf
        )
        # The norm is set below, so any factor per token is free: the largest exponential may be 1.
        codes = (pre - pre.detach().amax(dim=2, keepdim=True)).exp()
        ghost = codes @ some.rows_of(weights.W_dec)
        tiny = torch.finfo(left.dtype).tiny
        half = residual.norm(dim=2, keepdim=True) / (2 * ghost.detach().norm(dim=2, keepdim=True)).clamp_min(tiny)
        error = (residual - ghost * half).square().sum(dim=(1, 2)) / left.shape[1]
        like_the_error = residual.square().sum(dim=(1, 2)) / left.shape[1] / error.detach().clamp_min(tiny)
        size = numbers_like(left, [method.coefficient for method in methods])
        return left.new_zeros(len(left)).index_add(0, some.members, size[some.members] * like_the_error * error)


def _variance_of_all(left: Batch, peers: Ranks) -> Float[Tensor, "members"]:
    """The sum of squares of what is left of the batch, about its mean. peers: those that see its other tokens."""
    mean = left.mean(dim=1, keepdim=True)
    if not peers.is_alone:
        mean = peers.sum(mean, "revival") / peers.size  # all have equally many tokens
    return peers.sum((left - mean).square().sum(dim=(1, 2)), "revival")


def _largest_silent(product: Product, k_aux: int, ranks: Ranks) -> Chosen:
    """The k_aux largest of the silent latents for each token, numbered among those of this rank; over all ranks."""
    _, tokens, n_silent = product.shape
    if ranks.is_alone:
        return TopK(k=k_aux).select(product, None)
    values = product.centered.new_empty(1, tokens, 0)
    latents = torch.empty(1, tokens, 0, dtype=torch.int64, device=values.device)
    if n_silent:
        values, latents = product.largest(min(k_aux, n_silent))
    return TopK(k=k_aux).select_on_ranks(values.flatten(), Pairs.of_matrix(latents, n_silent), ranks)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Some:
    """The members with silent latents, and every latent that is silent in any of them."""

    members: Int[Tensor, "some"]
    ids: Int[Tensor, "some latents"]
    """Of those latents, numbered through all members."""
    silent: Bool[Tensor, "some latents"]
    b_enc: Float[Tensor, "some latents"] | None

    @staticmethod
    def of(weights: Weights, dead: Dead, *, has_some: Bool[Tensor, "members"]) -> "_Some | None":
        """None where no member has silent latents. has_some: the members that have."""
        members = has_some.nonzero()[:, 0]
        if not len(members):
            return None
        latents = dead[members].any(dim=0).nonzero()[:, 0]
        ids = members[:, None] * weights.shape[1] + latents
        b_enc = None if weights.b_enc is None else weights.b_enc.flatten()[ids]
        return _Some(members=members, ids=ids, silent=dead[members][:, latents], b_enc=b_enc)

    def rows_of(self, W: Float[Tensor, "members d_sae d_in"]) -> Float[Tensor, "some latents d_in"]:
        rows = W.flatten(0, 1).index_select(0, self.ids.flatten())
        return rows.view(*self.ids.shape, W.shape[2])


LAST = 0.1
"""Share of the steps, at the end, in which latents that are drawn afresh have no time to learn."""


def resampling_until(steps: int) -> int:
    """How many steps may be done when latents are last drawn afresh, in a run of `steps`: nine in ten."""
    return steps - ceil(LAST * steps)


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Draw silent latents afresh, in the directions of badly reconstructed tokens (Bricken et al. 2023).

    Every `every_steps` steps, as long as no more than `until_step` are done, each latent silent for
    `dead_after_tokens` is given to a token of the batch, drawn with probability proportional to its squared error
    squared, and each to another, as two latents that begin as one stay one. Where there are fewer different tokens
    than silent latents, the others wait. Its decoder row becomes the token's direction from the encoder's centre
    (`b_dec`), its encoder row the same at `encoder_norm` times the mean norm of the living (JumpReLU: its threshold
    too, times the mean of theirs), its bias 0; what the optimizer remembers is forgotten.

    It is never the last thing that happens to a training: none is after `TrainConfig.last_resampling`.
    """

    every_steps: int
    """Steps between two resamplings."""
    until_step: int | None = None
    """Number of steps after which there is none; None for `TrainConfig.last_resampling`, after which there is none
    anyway."""
    dead_after_tokens: int = 256_000
    """Tokens of silence after which a latent is drawn afresh."""
    encoder_norm: float = 0.2
    """Norm of a new encoder row, over the mean norm of the living."""

    def __post_init__(self) -> None:
        whole_fields(self, "every_steps", "until_step", "dead_after_tokens")
        if min(self.every_steps, self.dead_after_tokens) < 1 or not 0 < self.encoder_norm < inf:
            raise InputError(
                f"Resampling: expected every_steps >= 1, dead_after_tokens >= 1, encoder_norm > 0, got {self}"
            )

    def due(self, step: int) -> bool:
        """Is it time, after step number `step` (from 0), in a training that goes on for long enough?"""
        return (step + 1) % self.every_steps == 0 and (self.until_step is None or step < self.until_step)

    @torch.no_grad()
    def apply(
        self,
        weights: Weights,
        member: int,
        y: Float[Tensor, "tokens d_in"],
        left: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, "d_sae"],
        generator: torch.Generator,
    ) -> Int[Tensor, "resampled"]:
        """Redraw the `dead` latents of a member and return which they were; none where every token is perfect.
        left: what is left of y.
        """
        silent = dead.nonzero()[:, 0]
        if not len(silent):
            return silent
        # The same token may come many times, as the first of each text does.
        tokens, which = torch.unique(y, dim=0, return_inverse=True)
        errors = left.square().sum(dim=1).double().square()
        weight = errors.new_zeros(len(tokens)).index_add_(0, which, errors).cpu()
        silent = silent[: int(weight.count_nonzero())]
        if not len(silent):
            return silent
        drawn = torch.multinomial(weight, len(silent), generator=generator)
        # A token at the encoder's centre itself has no direction: such a latent keeps its own.
        W_enc, W_dec = weights.W_enc[member], weights.W_dec[member]
        away = tokens[drawn.to(y.device)] - weights.encoder_center[member]
        rows = normalize(torch.where(away.any(dim=1, keepdim=True), away, W_dec[silent]), dim=1)
        alive = W_enc[~dead]
        norm = alive.norm(dim=1).mean() if len(alive) else W_enc.new_ones(())
        W_dec[silent], W_enc[silent] = rows, rows * norm * self.encoder_norm
        if weights.b_enc is not None:
            weights.b_enc[member, silent] = 0
        weights.sparsity.redraw(weights.owned, member, silent, dead, size=self.encoder_norm)
        return silent


def revival_losses(
    methods: Sequence[AuxK | GhostGradients | None], weights: Weights, centered: Batch, left: Batch, watch: Watch
) -> Float[Tensor, "members"]:
    """Each member's loss on its silent latents; 0 for None."""
    total = left.new_zeros(len(methods))
    if not any(methods):
        return total
    for kind in (AuxK, GhostGradients):
        if not any(isinstance(method, kind) for method in methods):
            continue
        each: list[Any] = [m if isinstance(m, kind) else kind(coefficient=0.0) for m in methods]
        silent = watch.silent(send(torch.tensor([m.dead_after_tokens for m in each], device="cpu"), left.device))
        has = send(torch.tensor([isinstance(m, kind) for m in methods], device="cpu"), left.device)
        total = total + kind.losses(each, weights, centered, left, silent & has[:, None])
    return total
