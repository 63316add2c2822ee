"""One large SAE on several processes: what can be trained so, and the part of an SAE that each process has."""

import json
from collections.abc import Sequence

import torch

from autopsae.files import changes
from autopsae.kernels.ranks import ErrorOfAllRanks, Ranks, unite_rows
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import Sparsity
from autopsae.training.config import TrainConfig
from autopsae.training.revival import GhostGradients
from autopsae.training.sources import Member

OF_ALL = ("b_dec", "b_pre", "center", "linear", "inverse", "learned_threshold")
"""Tensors of an SAE that every rank has whole. All others have a row or an entry for each latent."""


def part_of(sae: SAE, ranks: Ranks) -> SAE:
    """The SAE of the latents that this rank owns: its rows and entries of `sae`, and all that is not by latent. All
    ranks call it with the same SAE; what is not by latent is that of the first rank, to the bit. All but the first
    may give an SAE of their own latents alone: `born(..., latents=ranks.range_of(d_sae))`.

    Raises InputError for fewer latents than ranks, for a k over the number of latents of a rank, and for an SAE of
    other latents.
    """
    d_sae = _d_sae_of_all(sae, ranks)
    owned = own_latents(ranks, d_sae, sae.sparsity)
    part = share_of(sae, owned if sae.d_sae == d_sae else range(len(owned)))
    for name, tensor in part.state_dict().items():
        (ranks.everyone if name in OF_ALL else ranks.peers).broadcast(tensor, 0)
    part.scale = float(ranks.everyone.gather_words(repr(part.scale))[0])
    return part


def own_latents(ranks: Ranks, d_sae: int, sparsity: Sparsity) -> range:
    """The latents of an SAE that this rank owns.

    Raises InputError for fewer latents than ranks, and for a k over the number of latents of a rank.
    """
    smallest = d_sae // ranks.size
    if not smallest:
        raise ErrorOfAllRanks(f"ranks: expected at least {ranks.size} latents, one for each rank, got {d_sae}")
    if (sparsity.l0 or 1) > smallest:
        raise ErrorOfAllRanks(
            f"ranks: expected a k of at most {smallest}, the latents of a rank, got {sparsity} of "
            f"{d_sae:,} latents on {ranks.size} ranks; use fewer ranks"
        )
    return ranks.range_of(d_sae)


def _d_sae_of_all(sae: SAE, ranks: Ranks) -> int:
    """The number of latents of the SAE of the first rank, which has them all."""
    d_sae, *others = (int(told) for told in ranks.everyone.gather_words(str(sae.d_sae)))
    for rank, latents in enumerate(others, 1):
        own = len(ranks.range_of(d_sae, rank % ranks.size))
        if latents not in (d_sae, own):
            raise ErrorOfAllRanks(
                f"ranks: expected an SAE of all {d_sae:,} latents or of its own {own:,} on rank {rank}, got one of "
                f"{latents:,}; give all ranks the same SAE"
            )
    return d_sae


def share_of(sae: SAE, owned: range) -> SAE:
    """A new SAE of these latents alone: their rows and entries, and all that is not by latent."""
    return _with_latents(sae, {name: tensor[owned.start : owned.stop] for name, tensor in _by_latent(sae).items()})


def unite(part: SAE, ranks: Ranks) -> SAE | None:
    """The whole SAE of the parts that the ranks have, in the main memory of the first rank; None on the others. All
    ranks call it.
    """
    if not ranks.peers.is_first:  # the first group has all of it
        return None
    d_sae = latents_of_all(part, ranks)
    rows = {name: unite_rows(tensor.cpu(), d_sae, ranks) for name, tensor in _by_latent(part).items()}
    return _with_latents(part, rows) if ranks.is_first else None


def drop_rows(sae: SAE) -> None:
    """Free the memory of all that an SAE has by latent. It is of no use any more."""
    for name, tensor in [*sae.named_parameters(), *sae.named_buffers()]:
        if name not in OF_ALL:
            tensor.data = tensor.data[:0].clone()


def latents_of_all(part: SAE, ranks: Ranks) -> int:
    """The number of latents of all ranks. All ranks call it."""
    return int(ranks.sum(torch.tensor(part.d_sae, device=part.W_enc.device), "parts"))


def check_on_ranks(members: Sequence[Member], ranks: Ranks) -> None:
    """Raises InputError on several ranks for what only one process can train: a sweep, a sparsity whose choice is
    not known by ranks, nested prefixes, ghost gradients and resampling, a k or weights that cannot be spread; and
    where the ranks were not asked for the same.
    """
    every, groups = ranks.everyone, ranks.peers.size
    if every.is_alone:
        return
    if len(members) > 1:
        raise ErrorOfAllRanks(
            f"ranks: expected one SAE on several ranks, got {len(members)}; train each for itself"
        )
    [member] = members
    sae, config = member.sae, member.config
    broken = reasons_against_ranks(sae, config, sae.d_sae)
    # All ranks raise what one of them finds: none waits for another one that has ended.
    if any(told := every.gather_words(broken)):
        first = next(words for words in told if words)
        raise ErrorOfAllRanks(f"ranks: on several ranks, expected {first}; leave it out, or train on one")
    mine = {**{name: repr(value) for name, value in vars(config).items()}, **_describe(sae)}
    for rank, words in enumerate(every.gather_words(json.dumps(mine))):
        if differing := changes(mine, json.loads(words)):
            raise ErrorOfAllRanks(
                f"ranks: expected the same settings on all ranks, but rank {rank} differs from rank {every.rank}: "
                f"{differing}; start all with the same command"
            )
    if config.batch_tokens % groups:
        raise ErrorOfAllRanks(
            f"ranks: expected a batch that {groups} groups share evenly, got batch_tokens = "
            f"{config.batch_tokens:,}; take a multiple of {groups}"
        )


def reasons_against_ranks(sae: SAE, config: TrainConfig, latents: int) -> str:
    """What would have to be otherwise for this training to go on several ranks, as words; "" if nothing. latents:
    how many a rank has at least.
    """
    largest_k = max(sae.sparsity.l0 or 1, config.k_start or 1)
    rules = {
        f"a sparsity that can be spread, got {sae.sparsity.name}": sae.sparsity.goes_on_ranks,
        f"no nested prefixes, got {config.nested}": not config.nested,
        "AuxK or no revival, got GhostGradients": not isinstance(config.revival, GhostGradients),
        "no resampling, got some": config.resampling is None,
        f"weights in float32 or float64, got {sae.W_enc.dtype}": sae.W_enc.dtype in (torch.float32, torch.float64),
        f"a k of at most the {latents:,} latents of a rank, got {largest_k}": largest_k <= latents,
    }
    return "; ".join(rule for rule, holds in rules.items() if not holds)


def _describe(sae: SAE) -> dict[str, str]:
    """What the parts of an SAE have in common."""
    common = {"sparsity": sae.sparsity, "d_in": sae.d_in, "dtype": sae.W_enc.dtype, "scale": sae.scale}
    common |= {"an encoder bias": sae.b_enc is not None, "layer_norm": sae.layer_norm}
    return {name: str(value) for name, value in common.items()}


def _by_latent(sae: SAE) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in sae.state_dict().items() if name not in OF_ALL}


def _with_latents(sae: SAE, rows: dict[str, torch.Tensor]) -> SAE:
    """An SAE with these rows and entries, and the rest of `sae`."""
    device = rows["W_enc"].device
    maps = {name: tensor.to(device) for name, tensor in (sae.state_dict() | rows).items()}
    threshold = sae.sparsity.threshold(maps)
    made = SAE(
        **{name: maps.get(name) for name in ("W_enc", "W_dec", "b_dec", "b_enc", "b_pre")},  # type: ignore[arg-type]
        sparsity=sae.sparsity,
        threshold=threshold,
        affine=sae.affine,
        layer_norm=sae.layer_norm,
    ).train(sae.training)
    made.load_state_dict(maps)  # to the bit: a threshold goes through a logarithm
    return made
