"""What SAEs must have in common to be trained as one."""

from collections.abc import Sequence

import torch

from autopsae.arrays import InputError
from autopsae.files import changes
from autopsae.training.objective import check_nested
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member

SHARED = (
    "steps",
    "batch_tokens",
    "optimizer",
    "unit_decoder",
    "products",
    "record_every",
    "k_start",
    "k_steps",
    "nested",
)
"""Settings in which members may not differ."""


def check_together(members: Sequence[Member]) -> None:
    """InputError for members that cannot be trained as one, and for what an SAE cannot have: a penalty or k_start
    of another sparsity, float16, whose range sums of squares leave.
    """
    if not members:
        raise InputError("sweep: expected at least one member, got none")
    if len({id(member.sae) for member in members}) < len(members):
        raise InputError("sweep: expected an SAE of its own for each member, got the same object twice")
    first = _described(members[0])
    for number, member in enumerate(members):
        if member.config.penalty:
            member.config.penalty.check(member.sae)
        check_nested(member.config.nested, member.sae.d_sae)
        if member.sae.W_enc.dtype == torch.float16:
            raise InputError(
                "train: expected weights in float32, float64 or bfloat16, got float16; convert the SAE"
            )
        mine = _described(member)
        if member.config.k_start is not None:
            _check_k_start(member)
        differing = changes(first, mine)
        if differing:
            raise InputError(
                f"sweep: expected members to agree, but member {number} {member.name!r} differs from the first: "
                f"{differing}; train them in sweeps of their own"
            )
    _check_k_aux(members)


def _check_k_aux(members: Sequence[Member]) -> None:
    found = {
        m.config.revival.k_aux or max(1, m.sae.d_in // 2) for m in members if isinstance(m.config.revival, AuxK)
    }
    if len(found) > 1:
        raise InputError(f"sweep: expected one k_aux for all members with AuxK, got {sorted(found)}")


def _check_k_start(member: Member) -> None:
    sae, k_start = member.sae, member.config.k_start
    assert k_start is not None
    sae.sparsity.with_k(k_start)
    if not (sae.sparsity.l0 or 1) <= k_start <= sae.d_sae:
        raise InputError(
            f"k_start: expected a number from the k of the SAE to d_sae = {sae.d_sae:,}, got {sae.sparsity} and "
            f"{k_start}"
        )


def _described(member: Member) -> dict[str, object]:
    """What members must have in common."""
    sae, config = member.sae, member.config
    return {
        **{name: getattr(config, name) for name in SHARED},
        "d_sae, d_in": (sae.d_sae, sae.d_in),
        "sparsity": sae.sparsity,
        "dtype": sae.W_enc.dtype,
        "device": sae.W_enc.device,
        "an encoder bias": sae.b_enc is not None,
    }
