"""What a sparsity is: everything about which latents of a token are selected, told in one class.

Drawing, counting at birth, forecasting, training, saving, loading and the autopsy ask it; none of them asks which
class it is. A new one is a frozen dataclass with a `name` and `margins`; the rest has defaults that follow from
`margins`, and is overridden where there is a faster way, a tensor to learn, or a limit to what goes together.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.kernels.pairs import DENSE, Pairs
from autopsae.kinds import Kind, number, one_of, whole
from autopsae.kinds import fields as object_of
from autopsae.sae.selection import Chosen, Product
from autopsae.saved import Layout

Owned = Mapping[str, Tensor]
"""The tensors that an SAE has because of its sparsity, by their names in its files; in a stack [members, ...]."""

SPARSITIES: dict[str, type["Sparsity"]] = {}
"""Every sparsity by its name in files."""


class Sparsity(ABC):
    """Which latents of a token are selected, and with what value.

    A latent *fires* on a token if it is selected and positive. `threshold` is what the latents have to exceed
    where that is no matter of the token's other latents: [d_sae], a single value, or None.
    """

    name: ClassVar[str]
    """In files and results."""
    gated: ClassVar[bool] = False
    """Whether `values` gives gates with a gradient, which `L0Target` needs."""
    judges_batches: ClassVar[bool] = False
    """Whether a batch sets its own threshold (`threshold_of_batch`)."""

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            SPARSITIES[cls.name] = cls

    # Who fires

    @abstractmethod
    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """How far each pre-activation is over what it has to exceed to fire: positive exactly where the latent
        fires (of latents that tie for the last place, nowhere). pre: a batch, where the sparsity judges batches.
        """

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """The selected pairs of a product, with their pre-activations. By default those with positive margins."""
        members, _, d_sae = product.shape
        values, latents, counts = [], [], []
        for block in product:
            first, last, _ = block.members.indices(members)
            for m in range(first, last):
                b_enc = product.biases(slice(m, m + 1))
                pre = block.rows[m - first] if b_enc is None else block.rows[m - first] + b_enc
                product.positive[m] |= (pre > 0).any(dim=0)
                chosen = self.margins(pre, None if threshold is None else threshold[m]) > 0
                values.append(pre[chosen])
                latents.append(chosen.nonzero()[:, 1] + m * d_sae)
                counts.append(chosen.sum(dim=1))
        pairs = Pairs(latents=torch.cat(latents), per_token_counts=torch.cat(counts), d_sae=d_sae, members=members)
        return torch.cat(values), pairs

    def firing(
        self, pre: Float[Tensor, "tokens d_sae"], asked: Bool[Tensor, "d_sae"], threshold: Tensor | None = None
    ) -> Bool[Tensor, "d_sae"]:
        """Which of the latents that are asked about fire on some of these tokens."""
        return (self.margins(pre, threshold) > 0).any(dim=0) & asked

    # How many

    @property
    def l0(self) -> int | None:
        """Latents that are selected per token, where the sparsity fixes it; else None."""
        return None

    def with_k(self, k: int) -> "Sparsity":
        """The same with another k. Raises InputError for a sparsity whose k cannot change while it is trained."""
        raise InputError(f"k: expected a sparsity whose k can change, such as TopK, got {self}")

    def pairs_per_token(self, d_sae: int) -> int:
        """How many latents a token selects at birth, about or at most: what memory is stated by."""
        return self.l0 or max(1, int(DENSE * d_sae))

    def share_selected(self, d_sae: int) -> float | None:
        """The share of its latents that a token selects, positive or not, for the paper's closed forms; None
        where they do not say who fires.
        """
        return None

    def check(self, d_sae: int) -> None:
        """InputError unless an SAE of `d_sae` latents can have this sparsity."""
        check_k(self.l0 or 1, d_sae)

    # How it is born and trained

    usual_penalty: ClassVar[Literal["l0", "l1"] | None] = None
    """What keeps the codes sparse in training, unless the selection does: "l1", a price on every code; "l0", a
    target for how many latents fire."""

    def firing_rate_at_birth(self, d_sae: int, l0: float) -> float | None:
        """The share of the tokens on which each latent should fire at birth, where `l0` shall fire per token; None
        where biases and thresholds are left as they begin.
        """
        return None

    # What an SAE has because of it, beside its weights

    def owned(self, like: Float[Tensor, "d_sae d_in"], threshold: Float[Tensor, "..."] | None) -> dict[str, Tensor]:
        """The tensors, by their names in files, in the type and on the device of `like` (W_enc); parameters are
        those of `learned_by_gradient`. threshold: to begin at, as of `SAE`.
        """
        return {}

    learned_by_gradient: ClassVar[tuple[str, ...]] = ()
    """Those of `owned` that are parameters; the others are buffers, which `learn` changes."""

    def layouts(self, d_sae: int, dtypes: tuple[torch.dtype, ...]) -> dict[str, Layout]:
        """What these tensors must be in a file. dtypes: of the weights."""
        return {}

    def threshold(self, owned: Owned) -> Float[Tensor, "..."] | None:
        """What latents have to exceed by what was learned; None where nothing was."""
        return None

    def threshold_at_birth(
        self, d_sae: int, threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."] | None:
        """What latents have to exceed before any training, in the unit in which SAEs are `born`. threshold: what a
        trained one has, which may be known to have been no higher.
        """
        return None

    def threshold_of_batch(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, ""]:
        """What the latents of a batch have to exceed that is judged as a whole; of a sparsity that
        `judges_batches`.
        """
        raise NotImplementedError

    def bars(self, owned: Owned, *, training: bool) -> Float[Tensor, "members _"] | None:
        """The threshold that `select` is given, of every member."""
        return None

    def values(
        self, pre: Float[Tensor, "pairs"], latents: Int[Tensor, "pairs"], owned: Owned
    ) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"] | None]:
        """(codes of selected pairs, zero where they do not fire; gates: 1 where a pair fires, with a gradient for
        what is learned, or None). latents: numbered through all members.
        """
        return pre.relu(), None

    def learn(  # noqa: B027
        self, values: Float[Tensor, "pairs"], pairs: Pairs, owned: Owned
    ) -> None:
        """Change the buffers after a batch of training, in place. values: the codes, without gradient."""

    def redraw(  # noqa: B027
        self, owned: Owned, member: int, silent: Int[Tensor, "some"], dead: Bool[Tensor, "d_sae"], *, size: float
    ) -> None:
        """Begin anew with the latents `silent` of a member, whose rows were drawn afresh at `size` times the
        length of the others, those that are not `dead`.
        """

    # In files

    def to_dict(self) -> dict[str, Any]:
        """{"name": ..., and its settings}."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def kind(cls) -> Kind:
        """What `to_dict` must look like in a file. Settings that have a default may be missing: earlier versions
        did not have them.
        """
        needed: dict[str, Kind] = {"name": one_of(cls.name)}
        optional: dict[str, Kind] = {}
        for field in fields(cls):  # type: ignore[arg-type]
            kinds = needed if field.default is MISSING else optional
            kinds[field.name] = _KINDS[field.type if isinstance(field.type, str) else field.type.__name__]
        return object_of(needed, optional=optional)


_KINDS: dict[str, Kind] = {"int": whole(), "float": number(over=0.0)}


def sparsity_of(content: Mapping[str, Any]) -> Sparsity:
    """The sparsity that `to_dict` described; the content has been checked by `kind`."""
    settings = dict(content)
    return SPARSITIES[settings.pop("name")](**settings)
