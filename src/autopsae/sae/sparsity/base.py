"""`Sparsity`: the rule that selects the latents of a token. One class says everything about a rule.

All other code calls the methods of this class, and never asks which subclass it has. To add a sparsity, write a
frozen dataclass with a `name`, its settings (int, float, bool or str) and `margins`. Every other method has a
default. Override

- `check`, to refuse settings that make no sense;
- `select`, `which_fire` and `margins_of_first`, if they can be computed faster than from a matrix of margins;
- `l0`, `with_k`, `pairs_per_token`, `share_selected`, if the number of selected latents is known;
- `tensors_at_birth`, `layouts`, `threshold`, `thresholds`, `values`, `learn` and `redraw`, if the sparsity adds
  tensors to the SAE, such as a learned threshold;
- `goes_on_ranks`, `select_on_ranks` and `learn_on_ranks`, if one SAE may be trained on several processes.

tests/sae/test_new_sparsity.py adds a sparsity, and then counts, forecasts, trains, saves and examines with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Literal, get_type_hints

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.arguments import check_k, whole_fields
from autopsae.arrays import InputError
from autopsae.kernels.pairs import DENSE, Pairs
from autopsae.kernels.ranks import Ranks
from autopsae.sae.product import Chosen, Product, WholeProduct
from autopsae.saved import Layout

Owned = Mapping[str, Tensor]
"""{name in files: tensor} that a sparsity adds to an SAE. In a stack of SAEs each tensor is [members, ...]."""

SPARSITIES: dict[str, type["Sparsity"]] = {}
"""{name in files: class} of every sparsity. Defining a subclass with a `name` adds it here."""


class Sparsity(ABC):
    """The rule that selects the latents of a token, and gives each selected latent its value.

    A latent *fires* on a token if it is selected and positive. Some sparsities compare a latent with a threshold,
    others compare it with the other latents of the token. The argument `threshold` always means the value that a
    latent has to exceed: one for each latent [d_sae], or one for all, or None if the sparsity has no threshold.
    """

    name: ClassVar[str]
    """The name of the sparsity in files and results."""
    gated: ClassVar[bool] = False
    """True if `values` also returns gates, which have a gradient. The penalty `L0Target` needs them."""
    judges_batches: ClassVar[bool] = False
    """True if the threshold depends on the whole batch (`threshold_of_batch`). Such a sparsity must override
    `select`, because the default `select` sees a batch in blocks of tokens."""

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            return
        other = SPARSITIES.setdefault(cls.name, cls)
        # When a notebook cell is run again, it defines the same class a second time. The new one replaces the old.
        if other.__qualname__ != cls.__qualname__:
            raise InputError(
                f"{cls.__name__}: expected a name of its own, got {cls.name!r}, which {other.__name__} has"
            )
        SPARSITIES[cls.name] = cls

    def __post_init__(self) -> None:
        """Raises InputError for a setting that should be a whole number and is none."""
        types = get_type_hints(type(self))
        whole_fields(self, *(field.name for field in fields(self) if types[field.name] is int))  # type: ignore[arg-type]

    # Which latents fire

    @abstractmethod
    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """The margin of each latent on each token: its pre-activation minus the value that it has to exceed.

        The margin is positive exactly where the latent fires. If several latents tie for the last place that is
        selected, all of them have a margin of at most 0. pre: the pre-activations; those of a whole batch if the
        sparsity `judges_batches`.
        """

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """(the pre-activations of the selected pairs, the pairs). A pair is a token and a latent selected on it. By
        default, the pairs with positive margins are selected.

        The pairs come in the order: member, then token. `product` computes the pre-activations block by block. The
        method must also mark in `product.positive` each latent that is positive on any token.
        """
        members, _, d_sae = product.shape
        values, latents, counts = [], [], []
        for m, pre in _pre_activations(product):
            chosen = self.margins(pre, None if threshold is None else threshold[m]) > 0
            values.append(pre[chosen])
            # Latents are numbered through all members: latent 0 of member 1 is number d_sae.
            latents.append(chosen.nonzero()[:, 1] + m * d_sae)
            counts.append(chosen.sum(dim=1))
        pairs = Pairs(latents=torch.cat(latents), per_token_counts=torch.cat(counts), d_sae=d_sae, members=members)
        return torch.cat(values), pairs

    def which_fire(
        self,
        product: WholeProduct,
        asked: Bool[Tensor, "d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "d_sae"]:
        """A mask of the latents in the mask `asked` that fire on at least one of the tokens of `product`, which has
        one member. As `select`, it marks in `product.positive` each latent that is positive on any token.
        """
        fired = torch.zeros_like(asked)
        for _, pre in _pre_activations(product):
            fired |= (self.margins(pre, threshold) > 0).any(dim=0)
        return fired & asked

    def margins_of_first(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "first tokens"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "first tokens"], Bool[Tensor, "d_sae"]]:
        """(the margins of the first latents on the tokens of `product`, a mask of all latents that fire on any of
        them). Forecasts need both. It marks `product.positive` as `which_fire` does. pre: the pre-activations of
        the first latents, which may differ from those of `product` by rounding.
        """
        first, fired = [], torch.zeros_like(product.positive[0])
        for _, rows in _pre_activations(product):
            margins = self.margins(rows, threshold)
            fired |= (margins > 0).any(dim=0)
            first.append(margins[:, : len(pre)].T)
        return torch.cat(first, dim=1), fired

    def admits(
        self,
        own: Float[Tensor, "tokens d_sae"],
        beside: Float[Tensor, "tokens d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "tokens d_sae"]:
        """Where a latent would fire if it had other pre-activations: its column of `own` instead of `beside`. Only
        one latent is changed at a time, so it competes with the latents in `beside`, not with those in `own`.
        """
        return (own > beside - self.margins(beside, threshold)) & (own > 0)

    # How many latents fire

    @property
    def l0(self) -> int | None:
        """The number of latents that are selected per token, if the sparsity fixes it; else None."""
        return None

    def with_k(self, k: int) -> "Sparsity":
        """The same sparsity with another k. Raises InputError for a sparsity whose k cannot change in training."""
        raise InputError(f"k: expected a sparsity whose k can change, such as TopK, got {self}")

    def pairs_per_token(self, d_sae: int, threshold: Float[Tensor, "..."] | None = None) -> int:
        """About how many latents a token selects at birth. The memory for a training is estimated from it."""
        return self.l0 or max(1, int(DENSE * d_sae))

    def share_selected(self, d_sae: int) -> float | None:
        """The fraction of the latents that are selected on a token, including those that are not positive. The
        paper's closed forms of death need it. None for a sparsity without a closed form in the paper.
        """
        return None

    def block_size(self, d_sae: int) -> int:
        """How many neighbouring latents stay together where latents change places, so that the same fire."""
        return 1

    def check(self, d_sae: int) -> None:
        """Raises InputError if an SAE of `d_sae` latents cannot have this sparsity with these settings."""
        check_k(self.l0 or 1, d_sae)

    # Birth and training

    usual_penalty: ClassVar[Literal["l0", "l1"] | None] = None
    """The penalty that keeps the codes sparse in training: "l1" (the L1 norm of the codes), "l0" (a target for the
    number of latents that fire), or None if the selection alone keeps them sparse."""

    def firing_rate_at_birth(self, d_sae: int, l0: float) -> float | None:
        """The share of the tokens on which each latent should fire at birth, so that `l0` latents fire per token.
        None if the sparsity does not set biases or thresholds for that.
        """
        return None

    # Where the latents are spread over several processes (`training.ranks`)

    goes_on_ranks: ClassVar[bool] = False
    """True if `select_on_ranks` and `learn_on_ranks` are right for the sparsity."""

    def select_on_ranks(self, pre: Float[Tensor, "pairs"], pairs: Pairs, ranks: Ranks) -> Chosen:
        """Which of the pairs that `select` chose from the latents of this rank are selected among those of all
        ranks. By default all of them, as where no latent competes with another one.
        """
        return pre, pairs

    def learn_on_ranks(self, values: Float[Tensor, "pairs"], pairs: Pairs, owned: Owned, ranks: Ranks) -> None:
        """As `learn`, where other ranks have the codes of the other latents."""
        self.learn(values, pairs, owned)

    # The tensors that the sparsity adds to an SAE

    def tensors_at_birth(
        self, like: Float[Tensor, "d_sae d_in"], threshold: Float[Tensor, "..."] | None
    ) -> dict[str, Tensor]:
        """{name in files: tensor} that a new SAE gets, in the type and on the device of `like` (its W_enc).
        threshold: the start value that was given to `SAE`, or None. Raises InputError for one that it cannot have.
        """
        if threshold is not None:
            raise InputError(f"SAE: expected no threshold with {self}, which has none, got one; leave it out")
        return {}

    learned_by_gradient: ClassVar[tuple[str, ...]] = ()
    """The names in `tensors_at_birth` that are parameters. The others are buffers, which `learn` changes."""

    def layouts(self, d_sae: int, dtypes: tuple[torch.dtype, ...]) -> dict[str, Layout]:
        """{name: shape and types} that these tensors must have in a file. dtypes: the types allowed for weights."""
        return {}

    def threshold(self, owned: Owned) -> Float[Tensor, "..."] | None:
        """The threshold that an SAE has learned, for `margins`. None if there is none, or none yet."""
        return None

    def threshold_at_birth(
        self, d_sae: int, threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."] | None:
        """The threshold before any training, in the scaled space of an SAE made by `born`.

        threshold: the learned threshold of a trained SAE, if the question is where it started. For JumpReLU the
        answer is the usual start value, or the learned threshold if that is lower.
        """
        return None

    def threshold_of_batch(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, ""]:
        """The threshold that a batch sets for all its tokens, for a sparsity that `judges_batches`."""
        raise NotImplementedError

    def thresholds(self, owned: Owned, *, training: bool) -> Float[Tensor, "members _"] | None:
        """The threshold of every member of a stack, for `select`. None if there is none, or a batch sets it."""
        return None

    def values(
        self, pre: Float[Tensor, "pairs"], latents: Int[Tensor, "pairs"], owned: Owned
    ) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"] | None]:
        """(codes, gates) of the selected pairs. A code is zero if the pair does not fire. A gate is 1 if the pair
        fires, else 0, with a gradient to the threshold; gates are None if the sparsity is not `gated`.

        latents: the latent of each pair, numbered through all members.
        """
        return pre.relu(), None

    def learn(  # noqa: B027
        self, values: Float[Tensor, "pairs"], pairs: Pairs, owned: Owned
    ) -> None:
        """Update the buffers in place after a training batch. values: the codes, without gradient."""

    def redraw(  # noqa: B027
        self, owned: Owned, member: int, silent: Int[Tensor, "some"], dead: Bool[Tensor, "d_sae"], *, size: float
    ) -> None:
        """Reset the tensors of resampled latents of a member. silent: their indices; dead: the mask of all dead
        latents; size: the norm of the new encoder rows over the mean norm of the living latents' rows.
        """

    # In files

    def to_dict(self) -> dict[str, Any]:
        """{"name": the name, and every setting by its name}."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


def _pre_activations(product: WholeProduct) -> Iterator[tuple[int, Float[Tensor, "block d_sae"]]]:
    """(member, the pre-activations of some of its tokens), until all are given. It marks `product.positive`."""
    for block in product:
        first, last, _ = block.members.indices(product.shape[0])
        for m in range(first, last):
            # The rows of a block are W_enc (y - b_dec), without the bias.
            b_enc = product.biases(slice(m, m + 1))
            pre = block.rows[m - first] if b_enc is None else block.rows[m - first] + b_enc
            product.positive[m] |= (pre > 0).any(dim=0)
            yield m, pre
