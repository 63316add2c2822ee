"""Trained as one: what SAEs must have in common, and how their weights are laid into one stack."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import changes
from autopsae.kernels.gradients import Gradients
from autopsae.kernels.ranks import ALONE, Ranks
from autopsae.kernels.screen import Products
from autopsae.sae.model import SAE
from autopsae.sae.weights import PARAMETERS, Weights
from autopsae.training.config import TrainConfig
from autopsae.training.objective import check_nested
from autopsae.training.ranks import check_on_ranks
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


def check_together(members: Sequence[Member], ranks: Ranks = ALONE) -> None:
    """InputError for members that cannot be trained as one, and for what an SAE cannot have: a penalty or k_start
    of another sparsity, float16, whose range sums of squares leave; and as `check_on_ranks`.
    """
    if not members:
        raise InputError("training: expected at least one member, got none")
    if len({id(member.sae) for member in members}) < len(members):
        raise InputError("training: expected an SAE of its own for each member, got the same object twice")
    check_on_ranks(members, ranks)  # first, as what follows takes the latents of a rank for all
    first = _describe(members[0])
    for number, member in enumerate(members):
        if member.config.penalty:
            member.config.penalty.check(member.sae)
        check_nested(member.config.nested, member.sae.d_sae)
        if member.sae.W_enc.dtype == torch.float16:
            raise InputError(
                "train: expected weights in float32, float64 or bfloat16, got float16; convert the SAE"
            )
        mine = _describe(member)
        if member.config.k_start is not None:
            _check_k_start(member)
        differing = changes(first, mine)
        if differing:
            raise InputError(
                f"training: expected members to agree, but member {number} {member.name!r} differs from the first: "
                f"{differing}; train them in trainings of their own"
            )
    _check_k_aux(members)


def stack_weights(saes: Sequence[SAE]) -> Weights:
    """The weights of all as leaves of their own; the SAEs hold parts of them from now on, so that what is trained
    here is seen there. The SAEs have one shape, sparsity, type and device.
    """

    def together(name: str) -> Tensor | None:
        tensors = [getattr(sae, name) for sae in saes]
        if tensors[0] is None:
            return None
        one = len(tensors) == 1
        # One SAE's tensor is the stack, unless its rows lie in another order.
        joined = tensors[0].detach()[None].contiguous() if one else torch.stack([t.detach() for t in tensors])
        for tensor, part in zip(tensors, joined, strict=True):
            tensor.data = part
        return joined

    sparsity = saes[0].sparsity
    b_pre, is_tied = _stack_centers(saes)
    weights = Weights(
        **{name: together(name) for name in PARAMETERS},  # type: ignore[arg-type]
        owned={name: together(name) for name in saes[0].owned},  # type: ignore[misc]
        sparsity=sparsity,
        b_pre=b_pre,
        is_tied=is_tied,
    )
    for tensor in weights.parameters.values():
        tensor.requires_grad_()
    return weights


def _stack_centers(saes: Sequence[SAE]) -> tuple[Tensor | None, Tensor | None]:
    """(`b_pre` of all members, the mask of those that have none), as `Weights` takes them."""
    tied = [sae.b_pre is None for sae in saes]
    if all(tied):
        return None, None
    b_pre = torch.stack([sae.encoder_center.detach() for sae in saes])
    for sae, part in zip(saes, b_pre, strict=True):
        if sae.b_pre is not None:
            sae.b_pre.data = part  # so that a checkpoint loaded into the SAE changes the stack
    return b_pre, torch.tensor(tied, device=b_pre.device) if any(tied) else None


def stack_for_training(members: Sequence[Member], products: Products | None, ranks: Ranks = ALONE) -> Weights:
    """As `stack_weights`; the gradients of the matrices are left to the optimizer, unwritten. SAEs whose `b_dec`
    shall learn after the decoder alone get a `b_pre`, where they have none. products: the screen; None for none.
    ranks: those that train the other latents.
    """
    for member in members:
        if member.config.bias.decoder_only:
            member.sae.fix_encoder_center()
    stack = stack_weights([member.sae for member in members])
    return replace(stack, products=products, gradients=Gradients(), ranks=ranks)


def apart(saes: Sequence[SAE]) -> None:
    """Give SAEs that held parts of a stack tensors of their own."""
    for sae in saes:
        for tensor in [*sae.parameters(), *sae.buffers()]:
            tensor.data = tensor.data.clone()


def weights_at(step: int, weights: Weights, config: TrainConfig) -> Weights:
    """The weights with the k of this step, where k falls from `k_start`."""
    sparsity = weights.sparsity
    if config.k_start is None or sparsity.l0 is None:
        return weights
    return replace(weights, sparsity=sparsity.with_k(config.k(step, sparsity.l0)))


def check_in_place(weights: Weights, members: Mapping[int, Member]) -> None:
    """InputError where the SAE of a member no longer holds its part of the stack: it would not be seen to change.
    members: by their place, in the order of the stack.
    """
    stack = weights.W_enc
    size = stack.element_size() * stack.stride(0)
    for row, (place, member) in enumerate(members.items()):
        if member.sae.W_enc.data_ptr() != stack.data_ptr() + row * size:
            raise InputError(
                f"member {place} {member.name!r}: expected the SAE's weights where this training put them, but "
                "another one or a conversion has moved them; train an SAE in one training at a time"
            )


def _check_k_aux(members: Sequence[Member]) -> None:
    sizes = {
        m.config.revival.k_aux or max(1, m.sae.d_in // 2) for m in members if isinstance(m.config.revival, AuxK)
    }
    if len(sizes) > 1:
        raise InputError(f"training: expected one k_aux for all members with AuxK, got {sorted(sizes)}")


def _check_k_start(member: Member) -> None:
    sae, k_start = member.sae, member.config.k_start
    assert k_start is not None
    sae.sparsity.with_k(k_start)
    if not (sae.sparsity.l0 or 1) <= k_start <= sae.d_sae:
        raise InputError(
            f"k_start: expected a number from the k of the SAE to d_sae = {sae.d_sae:,}, got {sae.sparsity} and "
            f"{k_start}"
        )


def _describe(member: Member) -> dict[str, object]:
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
