"""One SAE on several processes: which rank owns which latents, what ranks exchange, and how they choose together.

A *rank* is a process of `torch.distributed`. Each rank owns a contiguous range of the latents, and all ranks see
the same tokens. So a sum over latents is a sum over ranks (an all-reduce), and the k largest of all latents are
among the k largest of each rank. One process is a group of one rank, `ALONE`, which exchanges nothing.

With data parallelism there are several such groups, each of which sees its share of every batch. The *peers* of a
rank own the same latents in the other groups; a sum over the tokens of a batch is a sum over peers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from autopsae.arrays import InputError

DIGIT = 8
"""Bits of a value that one round of `largest_on_ranks` decides."""


@dataclass
class Traffic:
    """What one rank has exchanged for one purpose."""

    calls: int = 0
    """Number of collective calls."""
    handed_in: int = 0
    """Bytes of the tensors that this rank handed in."""
    sent: int = 0
    """Bytes that this rank sends to others in a ring: 2 (R - 1) / R of what it hands in to an all-reduce, and R - 1
    times what it hands in to an all-gather, for R ranks."""


class ErrorOfAllRanks(InputError):
    """An error that is raised on every rank, so that one of them may tell it for all."""


class Ranks:
    """A group of processes that share the latents of one SAE. rank: the number of this one; size: how many there
    are; traffic: what was exchanged so far, by its purpose; peers: the ranks with the same latents in all groups,
    which see other tokens; everyone: all ranks of the training. Both count in the same traffic.
    """

    def __init__(self, *, rank: int = 0, size: int = 1, group: Any = None) -> None:
        """group: a process group of torch.distributed; None for the default group, or for one process."""
        self.rank, self.size, self._group = rank, size, group
        self.traffic: dict[str, Traffic] = {}
        self.everyone = self
        self.peers = self if size == 1 else Ranks()

    @classmethod
    def of_group(cls, group: Any = None, *, groups: int = 1, timeout: timedelta | None = None) -> "Ranks":
        """The ranks of a process group; None for the default group. groups: how many groups share each batch, for
        data parallelism; the latents are spread over the ranks of each, which follow each other. timeout: how long
        a rank of a group waits for the others, as in torch.distributed.new_group; None for the default there.

        Raises InputError where there is no process group, and for ranks that cannot be divided so.
        """
        dist = torch.distributed
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                "ranks: expected an initialised process group, got none; start the program with torchrun and call "
                "torch.distributed.init_process_group first"
            )
        everyone = cls(rank=dist.get_rank(group), size=dist.get_world_size(group), group=group)
        if groups == 1:
            return everyone
        if groups < 1 or everyone.size % groups:
            raise ErrorOfAllRanks(
                f"ranks: expected a number of groups that divides {everyone.size} ranks, got {groups}; start "
                "another number of processes, or take another number of groups"
            )
        return cls._divide(everyone, groups, dist.get_process_group_ranks(group), timeout)

    @classmethod
    def _divide(cls, everyone: "Ranks", groups: int, numbers: Sequence[int], timeout: timedelta | None) -> "Ranks":
        """The group of this rank. numbers: of all ranks in the default group."""
        dist, size = torch.distributed, everyone.size // groups
        mine, place = divmod(everyone.rank, size)
        # Every process makes all groups, in the same order, also those that it is not in.
        of_latents = [dist.new_group([*numbers[n * size : (n + 1) * size]], timeout) for n in range(groups)]
        of_tokens = [dist.new_group([*numbers[n::size]], timeout) for n in range(size)]
        ranks = cls(rank=place, size=size, group=of_latents[mine])
        ranks.peers, ranks.everyone = cls(rank=mine, size=groups, group=of_tokens[place]), everyone
        ranks.traffic = ranks.peers.traffic = everyone.traffic
        return ranks

    def __repr__(self) -> str:
        return f"Ranks(rank={self.rank}, size={self.size})"

    @property
    def is_alone(self) -> bool:
        """Whether there is no other rank."""
        return self.size == 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that counts what all ranks have, and writes what is written once."""
        return self.rank == 0

    def range_of(self, d_sae: int, rank: int | None = None) -> range:
        """The latents that a rank owns, this one for None. The sizes of the ranges differ by 1 at most."""
        rank = self.rank if rank is None else rank
        return range(d_sae * rank // self.size, d_sae * (rank + 1) // self.size)

    def share_of(self, batch: Shaped[Tensor, "views batch d_in"]) -> Shaped[Tensor, "views share d_in"]:
        """The tokens of a batch that the group of this rank sees: all of them where there is one group."""
        groups, tokens = self.peers.size, batch.shape[1]
        first, end = tokens * self.peers.rank // groups, tokens * (self.peers.rank + 1) // groups
        return batch if groups == 1 else batch[:, first:end]

    def sum(self, tensor: Shaped[Tensor, "..."], purpose: str) -> Shaped[Tensor, "..."]:
        """The sum of a tensor over all ranks, in its place. It is the same on all ranks, to the bit."""
        return self._reduce(tensor, torch.distributed.ReduceOp.SUM, purpose)

    def min(self, tensor: Shaped[Tensor, "..."], purpose: str) -> Shaped[Tensor, "..."]:
        """The smallest of each entry of a tensor over all ranks, in its place."""
        return self._reduce(tensor, torch.distributed.ReduceOp.MIN, purpose)

    def any(self, mask: Bool[Tensor, "..."], purpose: str) -> Bool[Tensor, "..."]:
        """Where a mask is True on some rank: an all-reduce of a byte for each entry."""
        return self._reduce(mask.to(torch.uint8), torch.distributed.ReduceOp.MAX, purpose) > 0

    def total(self, tensor: Float[Tensor, "..."], purpose: str) -> Float[Tensor, "..."]:
        """As `sum`, with a gradient: each rank has the same loss, so that each part has the gradient of the sum."""
        if self.is_alone:
            return tensor
        total: Tensor = _Total.apply(tensor, self, purpose)
        return total

    def gather(self, tensor: Shaped[Tensor, "..."], purpose: str) -> Shaped[Tensor, "ranks ..."]:
        """The tensors of all ranks, by rank. They must have one shape."""
        if self.is_alone:
            return tensor[None]
        self._count(purpose, tensor, sent=self.size - 1)
        gathered = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        torch.distributed.all_gather(gathered, tensor.contiguous(), group=self._group)
        return torch.stack(gathered)

    def gather_words(self, words: str) -> list[str]:
        """The words of all ranks, by rank. It waits for all of them. Not counted in `traffic`."""
        if self.is_alone:
            return [words]
        gathered: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(gathered, words, group=self._group)
        return gathered

    def broadcast(self, tensor: Shaped[Tensor, "..."], source: int) -> None:
        """Replace a tensor by that of the rank `source`. Not counted in `traffic`."""
        if not self.is_alone:
            torch.distributed.broadcast(tensor, group_src=source, group=self._group)

    def sum_for_peers(self, tensor: Shaped[Tensor, "..."], purpose: str) -> Shaped[Tensor, "..."]:
        """As `sum`, of what each group has alike. Groups may add up in another order, so that the last bit would
        differ: all take the sum of the first group, which is not counted in `traffic`.
        """
        summed = self.sum(tensor, purpose)
        self.peers.broadcast(summed, 0)
        return summed

    def _reduce(self, tensor: Tensor, how: Any, purpose: str) -> Tensor:
        if not self.is_alone:
            self._count(purpose, tensor, sent=2 * (self.size - 1) / self.size)
            torch.distributed.all_reduce(tensor, how, group=self._group)
        return tensor

    def _count(self, purpose: str, tensor: Tensor, *, sent: float) -> None:
        size = tensor.numel() * tensor.element_size()
        traffic = self.traffic.setdefault(purpose, Traffic())
        traffic.calls += 1
        traffic.handed_in += size
        traffic.sent += round(sent * size)


ALONE = Ranks()
"""One process, which owns all latents."""


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks, purpose: str) -> Tensor:
        return ranks.sum(tensor.clone(), purpose)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


def largest_of_each(values: Float[Tensor, "tokens mine"], k: int, ranks: Ranks) -> Bool[Tensor, "tokens mine"]:
    """Which of the values are among the k largest of their token over all ranks.

    values: the largest ones of this rank, k of them or all that it has. An all-gather of [tokens, k] values; no
    latents are exchanged, because each rank recognises its own by their place. All ranks sort the same numbers, so
    they agree. Of equal values at the end of the k, only as many are chosen as there is room for.
    """
    padded = values.new_full((len(values), k), -torch.inf)
    padded[:, : values.shape[1]] = values
    every = ranks.gather(padded, "choice").transpose(0, 1).flatten(1)  # [tokens, ranks * k]
    best: Tensor = torch.zeros_like(every, dtype=torch.bool).scatter_(1, every.topk(k, dim=1).indices, True)
    return best[:, ranks.rank * k :][:, : values.shape[1]]


def largest_on_ranks(values: Float[Tensor, "mine"], wanted: int, ranks: Ranks) -> Bool[Tensor, "mine"]:
    """Which of the values, none of them negative, are among the `wanted` largest over all ranks.

    The value of the last one is found digit by digit (radix selection): the bits of a float that is not negative,
    read as an integer, are in the order of the floats. Each round is an all-reduce of 256 counts: 4 rounds for
    float32 and 8 for float64, however many values there are. Of values that equal the last one, those of lower
    ranks come first.
    """
    here = torch.tensor(len(values), device=values.device)
    if int(ranks.sum(here, "choice")) <= wanted:
        return torch.ones_like(values, dtype=torch.bool)
    bits = 8 * values.element_size()
    keys = values.contiguous().view(torch.int64 if bits == 64 else torch.int32).long()
    last, remaining, is_left = 0, wanted, torch.ones_like(keys, dtype=torch.bool)
    for shift in range(bits - DIGIT, -1, -DIGIT):
        # & also clears the sign of a NaN, so that the largest key is a NaN, and the loss says so.
        digits = (keys[is_left] >> shift) & (2**DIGIT - 1 if shift < bits - DIGIT else 2 ** (DIGIT - 1) - 1)
        counts = ranks.sum(torch.bincount(digits, minlength=2**DIGIT), "choice").tolist()
        digit, remaining = _digit_of(counts, remaining)
        is_left[is_left.clone()] = digits == digit
        last = last << DIGIT | digit
    equals: list[int] = ranks.gather(is_left.sum(), "choice").tolist()
    mine = min(max(remaining - sum(equals[: ranks.rank]), 0), equals[ranks.rank])
    chosen: Tensor = (keys & 2 ** (bits - 1) - 1) > last
    chosen[is_left.nonzero()[:mine, 0]] = True
    return chosen


def _digit_of(counts: Sequence[int], remaining: int) -> tuple[int, int]:
    """(the digit of the last one wanted, how many are wanted of this digit). counts: how many have each digit."""
    digit = len(counts) - 1
    while counts[digit] < remaining:
        remaining -= counts[digit]
        digit -= 1
    return digit, remaining


def unite_rows(rows: Shaped[Tensor, "mine *columns"], d_sae: int, ranks: Ranks) -> Shaped[Tensor, "all *columns"]:
    """[d_sae, *columns] of the rows that the ranks own; on the first rank only, where it must fit into memory. On
    the others, an empty tensor.
    """
    whole = rows.new_empty(d_sae if ranks.is_first else 0, *rows.shape[1:])
    for rank in range(ranks.size):
        owned = ranks.range_of(d_sae, rank)
        part = rows.contiguous() if rank == ranks.rank else rows.new_empty(len(owned), *rows.shape[1:])
        ranks.broadcast(part, rank)
        if ranks.is_first:
            whole[owned.start : owned.stop] = part
    return whole
