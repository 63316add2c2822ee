"""BatchTopK: the k largest per token of a whole batch."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autopsae.arguments import check_k
from autopsae.arrays import InputError
from autopsae.kernels.pairs import Pairs
from autopsae.kernels.ranks import Ranks, largest_on_ranks
from autopsae.sae.product import Chosen, Product, WholeProduct
from autopsae.sae.sparsity.base import Owned, Sparsity
from autopsae.saved import Layout


@dataclass(frozen=True, kw_only=True)
class BatchTopK(Sparsity):
    """The k * tokens largest of a whole batch, so k per token on average (Bussmann et al. 2024).

    As with batch normalisation, training mode judges a batch as a whole, and evaluation mode judges each token
    alone, by a threshold that training learns (`learn`: the running mean of the smallest value that fired).
    """

    name: ClassVar[str] = "batch_topk"
    judges_batches: ClassVar[bool] = True
    k: int
    """Latents that are selected per token, on average."""

    def margins(
        self, pre: Float[Tensor, "tokens d_sae"], threshold: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "tokens d_sae"]:
        """Over the threshold, or over the least value that the batch admits, at least zero.

        Raises InputError for k outside 1 ... d_sae.
        """
        return pre - (self.threshold_of_batch(pre) if threshold is None else threshold.to(pre))

    def admits(
        self,
        own: Float[Tensor, "tokens d_sae"],
        beside: Float[Tensor, "tokens d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "tokens d_sae"]:
        """Where `own` reaches the threshold, or the least value that the batch admits."""
        least = beside.flatten().topk(self.k * len(beside)).values[-1] if threshold is None else threshold.to(own)
        return (own >= least) & (own > 0)

    def threshold_of_batch(self, pre: Float[Tensor, "tokens d_sae"]) -> Float[Tensor, ""]:
        """The largest value that the batch does not admit, at least zero."""
        check_k(self.k, pre.shape[1])
        admitted = self.k * len(pre)
        if admitted == pre.numel():
            return pre.new_zeros(())
        return torch.topk(pre.flatten(), admitted + 1).values[-1].clamp_min(0)

    def select(self, product: Product, threshold: Float[Tensor, "members _"] | None) -> Chosen:
        """The positive ones of the k * tokens largest of the batch; with a threshold, all over it."""
        members, n_tokens, d_sae = product.shape
        if threshold is not None:
            return product.pairs_above(threshold.expand(members, d_sae))
        wanted = self.k * n_tokens
        for lowered in self._guess(product):
            many = bool((lowered == 0).any())
            values, pairs = product.pairs_above(lowered.expand(members, d_sae), many=many)
            counts = pairs.per_member_counts
            if bool(((counts >= wanted) | (lowered[:, 0] == 0)).all()):
                break
        best = _best(values, counts, wanted)
        return (values, pairs) if len(best) == len(values) else pairs.keep(values, best)

    goes_on_ranks: ClassVar[bool] = True

    def select_on_ranks(self, pre: Float[Tensor, "pairs"], pairs: Pairs, ranks: Ranks) -> Chosen:
        """The k * tokens largest of the batch over all ranks. pairs: as many, the largest of this rank."""
        best = largest_on_ranks(pre, self.k * pairs.n_tokens * ranks.peers.size, ranks.everyone)
        return pairs.keep(pre, best.nonzero()[:, 0])

    def which_fire(
        self,
        product: WholeProduct,
        asked: Bool[Tensor, "d_sae"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> Bool[Tensor, "d_sae"]:
        """A mask of the latents in `asked` that are over their threshold on at least one token."""
        threshold = self._threshold_of(product) if threshold is None else threshold.to(product.W_enc)
        return product.any_above(threshold.expand(1, len(asked)))[0] & asked

    def margins_of_first(
        self,
        product: WholeProduct,
        pre: Float[Tensor, "first tokens"],
        threshold: Float[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "first tokens"], Bool[Tensor, "d_sae"]]:
        """See `Sparsity.margins_of_first`. Without a threshold, the tokens of `product` are a batch."""
        threshold = self._threshold_of(product) if threshold is None else threshold
        return pre - threshold.to(pre), self.which_fire(product, torch.ones_like(product.positive[0]), threshold)

    def _guess(self, product: WholeProduct) -> tuple[Float[Tensor, "members 1"], ...]:
        """Thresholds to try, the last of them zero. The first is from a few tokens, and lets through about half as
        many latents again as are wanted.
        """
        some = product.sample(64)
        among = min(some[0].numel(), self.k * some.shape[1] * 3 // 2)
        nothing = some.new_zeros(len(some), 1)
        guess = some.flatten(1).topk(among, dim=1).values[:, -1:].relu() if among else nothing
        return guess, guess / 2, nothing

    def _threshold_of(self, product: WholeProduct) -> Float[Tensor, ""]:
        """`threshold_of_batch` of the tokens of the product, which has one member."""
        _, tokens, d_sae = product.shape
        admitted = self.k * tokens
        if self.k < d_sae:
            for lowered in self._guess(product):
                values, _, _ = product.above(lowered.expand(1, d_sae))
                if len(values) > admitted:
                    return torch.topk(values, admitted + 1).values[-1]
        return product.W_enc.new_zeros(())

    @property
    def l0(self) -> int:
        """k: a mean over the tokens of a batch."""
        return self.k

    def with_k(self, k: int) -> "BatchTopK":
        """The same with another k."""
        return replace(self, k=k)

    def share_selected(self, d_sae: int) -> float:
        """k / d_sae."""
        return self.k / d_sae

    def tensors_at_birth(
        self, like: Float[Tensor, "d_sae d_in"], threshold: Float[Tensor, "..."] | None
    ) -> dict[str, Tensor]:
        """The threshold that evaluation judges by; NaN until it has learned one. Raises InputError for one that is
        not a single value.
        """
        if threshold is not None and threshold.ndim:
            raise InputError(f"BatchTopK: expected one threshold for all latents, got {len(threshold):,}")
        # At least float32: a running mean moves by less than bfloat16 can say.
        dtype = torch.promote_types(like.dtype, torch.float32)
        learned = like.new_full((), torch.nan) if threshold is None else threshold.clone()
        return {"learned_threshold": learned.to(like.device, dtype)}

    def layouts(self, d_sae: int, dtypes: tuple[torch.dtype, ...]) -> dict[str, Layout]:
        """NaN until it is learned; in a type of its own, which is at least float32 at birth."""
        return {"learned_threshold": Layout(shape=(), finite=False)}

    def threshold(self, owned: Owned) -> Float[Tensor, ""] | None:
        """The learned one, once there is one."""
        learned = owned["learned_threshold"]
        return None if bool(learned.isnan()) else learned

    def thresholds(self, owned: Owned, *, training: bool) -> Float[Tensor, "members 1"] | None:
        """None where a batch is judged as a whole: in training, and where nothing was learned yet."""
        learned = owned["learned_threshold"]
        return None if training or bool(learned.isnan().any()) else learned[:, None]

    def learn(self, values: Float[Tensor, "pairs"], pairs: Pairs, owned: Owned) -> None:
        """A running mean of the smallest value that fired, over the last hundred batches or so."""
        self._learn(_smallest(values, pairs), owned)

    def learn_on_ranks(self, values: Float[Tensor, "pairs"], pairs: Pairs, owned: Owned, ranks: Ranks) -> None:
        """As `learn`, of the smallest value that fired on any rank."""
        self._learn(ranks.everyone.min(_smallest(values, pairs), "threshold"), owned)

    def _learn(self, smallest: Float[Tensor, "members"], owned: Owned) -> None:
        before = owned["learned_threshold"]
        smallest = smallest.to(before)
        learned = torch.where(before.isnan(), smallest, before.lerp(smallest, 0.01))
        before.copy_(torch.where(smallest.isfinite(), learned, before))


def _smallest(values: Float[Tensor, "pairs"], pairs: Pairs) -> Float[Tensor, "members"]:
    """The smallest value of each member that fired; infinite where none did."""
    lengths = pairs.per_member_counts
    return torch.segment_reduce(values.where(values > 0, torch.inf), "min", lengths=lengths, initial=torch.inf)


def _best(values: Float[Tensor, "pairs"], counts: Int[Tensor, "members"], wanted: int) -> Int[Tensor, "best"]:
    """The places of the `wanted` largest values of each member, in their order. values: member by member, as many
    of each as `counts` says.
    """
    places, start = [], 0
    for part in values.split(counts.tolist()):
        if len(part) <= wanted:
            best = torch.arange(len(part), device=values.device)
        else:
            best = torch.topk(part, wanted, sorted=False).indices.sort().values
        places.append(start + best)
        start += len(part)
    return torch.cat(places)
