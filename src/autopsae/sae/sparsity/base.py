"""What a sparsity is: everything about which latents of a token are selected, told in one class.

Drawing, counting at birth, forecasting, training, saving, loading and the autopsy ask it; none of them asks which
class it is. To add one, write a frozen dataclass with a `name`, its settings (int, float, bool or str) and
`margins`. Everything else has a default that follows from `margins`; override

- `check`, for settings that cannot be;
- `select` and `which_fire`, where there is a faster way than a matrix of margins;
- `l0`, `with_k`, `pairs_per_token`, `share_selected`, where the number of selected latents is known;
- `tensors_at_birth`, `layouts`, `threshold`, `thresholds` and what follows them, where the SAE has a tensor because
  of it.

tests/sae/test_new_sparsity.py adds one and takes it through every verb.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.kernels.pairs import DENSE, Pairs
from autopsae.kinds import Kind, check_kind, flag, number, one_of, text, whole
from autopsae.kinds import fields as object_of
from autopsae.sae.selection import Chosen, Product
from autopsae.saved import Layout

Owned = Mapping[str, Tensor]
"""The tensors that an SAE has because of its sparsity, by their names in its files; in a stack [members, ...]."""

SPARSITIES: dict[str, type["Sparsity"]] = {}
"""Every sparsity by its name in files."""


class Sparsity(ABC):
    """Which latents of a token are selected, and with what value.

    A latent *fires* on a token if it is selected and positive. Some sparsities compare a latent with a threshold,
    others with the token's other latents. `threshold` is, throughout, what the latents have to exceed: [d_sae], a
    single value, or None where the other latents decide.
    """

    name: ClassVar[str]
    """In files and results."""
    gated: ClassVar[bool] = False
    """Whether `values` gives gates with a gradient, which `L0Target` needs."""
    judges_batches: ClassVar[bool] = False
    """Whether a batch sets its own threshold (`threshold_of_batch`). Then `select` must be overridden, as the
    default one sees a batch in blocks."""

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            return
        other = SPARSITIES.setdefault(cls.name, cls)
        # A cell of a notebook that is run again makes the same class anew.
        if other.__qualname__ != cls.__qualname__:
            raise InputError(
                f"{cls.__name__}: expected a name of its own, got {cls.name!r}, which {other.__name__} has"
            )
        SPARSITIES[cls.name] = cls

    # Who fires

    @abstractmethod
    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """How far each pre-activation is over what it has to exceed to fire: positive exactly where the latent
        fires. Of latents that tie for the last place none has a positive margin. pre: a whole batch, where the
        sparsity judges batches.
        """

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """The selected pairs (token, latent), with their pre-activations: by default those with positive margins.

        Of every member in turn, token by token. `product.positive` must be set for the latents that are positive.
        """
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

    def which_fire(
        self, pre: Float[Tensor, "tokens d_sae"], asked: Bool[Tensor, "d_sae"], threshold: Tensor | None = None
    ) -> Bool[Tensor, "d_sae"]:
        """Which of the latents that are asked about fire on at least one of these tokens. Counting death at birth
        spends its time here.
        """
        return (self.margins(pre, threshold) > 0).any(dim=0) & asked

    def admits(
        self,
        own: Float[Tensor, "tokens d_sae"],
        beside: Float[Tensor, "tokens d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "tokens d_sae"]:
        """Where one more latent with the pre-activation `own`, put beside those of all others, would fire."""
        return (own > beside - self.margins(beside, threshold)) & (own > 0)

    # How many

    @property
    def l0(self) -> int | None:
        """Latents that are selected per token, where the sparsity fixes it; else None."""
        return None

    def with_k(self, k: int) -> "Sparsity":
        """The same with another k. Raises InputError for a sparsity whose k cannot change while it is trained."""
        raise InputError(f"k: expected a sparsity whose k can change, such as TopK, got {self}")

    def pairs_per_token(self, d_sae: int) -> int:
        """How many latents a token selects at birth, about or at most. The memory of a training is told from it."""
        return self.l0 or max(1, int(DENSE * d_sae))

    def share_selected(self, d_sae: int) -> float | None:
        """The fraction of the latents that a token selects, positive or not, for the paper's closed forms of
        death; None for a sparsity that they do not cover.
        """
        return None

    def check(self, d_sae: int) -> None:
        """InputError unless an SAE of `d_sae` latents can have this sparsity with these settings."""
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

    def tensors_at_birth(
        self, like: Float[Tensor, "d_sae d_in"], threshold: Float[Tensor, "..."] | None
    ) -> dict[str, Tensor]:
        """The tensors that an SAE gets at birth, by their names in files, in the type and on the device of `like`
        (W_enc). threshold: where they begin, as given to `SAE`.
        """
        return {}

    learned_by_gradient: ClassVar[tuple[str, ...]] = ()
    """The names among `tensors_at_birth` that are parameters; the others are buffers, which `learn` changes."""

    def layouts(self, d_sae: int, dtypes: tuple[torch.dtype, ...]) -> dict[str, Layout]:
        """What these tensors must be in a file. dtypes: of the weights."""
        return {}

    def threshold(self, owned: Owned) -> Float[Tensor, "..."] | None:
        """The threshold that an SAE has learned, for `margins`; None where there is none."""
        return None

    def threshold_at_birth(
        self, d_sae: int, threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "..."] | None:
        """The threshold before any training, in the unit in which SAEs are `born`. threshold: that of a trained
        SAE, where its birth is asked for: some sparsities begin no higher than it.
        """
        return None

    def threshold_of_batch(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, ""]:
        """The threshold that a batch sets for all its tokens, for a sparsity that `judges_batches`."""
        raise NotImplementedError

    def thresholds(self, owned: Owned, *, training: bool) -> Float[Tensor, "members _"] | None:
        """The threshold of every member of a stack, for `select`."""
        return None

    def values(
        self, pre: Float[Tensor, "pairs"], latents: Int[Tensor, "pairs"], owned: Owned
    ) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"] | None]:
        """(the codes of selected pairs, zero where they do not fire; their gates, 1 where a pair fires, with a
        gradient for what is learned, or None). latents: of each pair, numbered through all members.
        """
        return pre.relu(), None

    def learn(  # noqa: B027
        self, values: Float[Tensor, "pairs"], pairs: Pairs, owned: Owned
    ) -> None:
        """Change the buffers in place after a batch of training. values: the codes, without gradient."""

    def redraw(  # noqa: B027
        self, owned: Owned, member: int, silent: Int[Tensor, "some"], dead: Bool[Tensor, "d_sae"], *, size: float
    ) -> None:
        """Set the tensors of the latents `silent` of a member anew: they were resampled, with rows of `size` times
        the mean length of the living, which are all that are not `dead`.
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
        types = get_type_hints(cls)
        for field in fields(cls):  # type: ignore[arg-type]
            kinds = needed if field.default is MISSING else optional
            kinds[field.name] = _KINDS[types[field.name]]
        return object_of(needed, optional=optional)


# What a setting may be beyond its type is up to `check`, which is asked when a file is read.
_KINDS: dict[Any, Kind] = {int: whole(-(2**53)), float: number(), bool: flag, str: text}


def read_sparsity(path: Path, content: Mapping[str, Any], d_sae: int) -> Sparsity:
    """The sparsity that `to_dict` described in a file, whose name is one of SPARSITIES, for `d_sae` latents.

    Raises InputError, naming the file, for settings that are missing, of another type, or refused by `check`.
    """
    settings = dict(content)
    made = SPARSITIES[content["name"]]
    check_kind(path, content, made.kind())
    settings.pop("name")
    try:
        sparsity = made(**settings)
        sparsity.check(d_sae)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sparsity
