"""A sparsity tells three times who fires (margins, select, firing): all agree with a loop over the tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from autopsae.kernels.workspace import Workspace
from autopsae.sae.product import Product, WholeProduct
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK

TOKENS, D_SAE = 24, 18


def positive_above(pre: Tensor, threshold: Tensor) -> Tensor:
    return torch.tensor(
        [[p > max(0.0, t) for p, t in zip(row, threshold.tolist(), strict=True)] for row in pre.tolist()]
    )


def of_the_largest(values: list[float], k: int) -> list[bool]:
    """The positive ones of the k largest; of those that tie for the last place none, if not all have one."""
    ranked = sorted(values, reverse=True)
    return [value > 0 and (k == len(values) or value > ranked[k]) for value in values]


def by_token(k: int) -> Callable[[Tensor], Tensor]:
    return lambda pre: torch.tensor([of_the_largest(row, k) for row in pre.tolist()])


def by_batch(k: int) -> Callable[[Tensor], Tensor]:
    return lambda pre: torch.tensor(of_the_largest(pre.flatten().tolist(), k * len(pre))).view(pre.shape)


def by_group(k: int) -> Callable[[Tensor], Tensor]:
    size = D_SAE // k
    return lambda pre: torch.tensor(
        [
            [fired for i in range(k) for fired in of_the_largest(row[i * size : (i + 1) * size], 1)]
            for row in pre.tolist()
        ]
    )


OWN = torch.linspace(0.001, 1.2, D_SAE)
CASES: list[tuple[Sparsity, Tensor | None, Callable[[Tensor], Tensor]]] = [
    *((TopK(k=k), None, by_token(k)) for k in (1, 4, D_SAE - 1, D_SAE)),
    *((BatchTopK(k=k), None, by_batch(k)) for k in (1, 4, D_SAE)),
    (BatchTopK(k=4), torch.tensor([0.7]), lambda pre: positive_above(pre, torch.full((D_SAE,), 0.7))),
    *((GroupMax(k=k), None, by_group(k)) for k in (1, 6, D_SAE)),
    (ReLU(), None, lambda pre: positive_above(pre, torch.zeros(D_SAE))),
    (JumpReLU(bandwidth=0.4), OWN, lambda pre: positive_above(pre, OWN)),
    (JumpReLU(bandwidth=0.001), 0.001 * OWN, lambda pre: positive_above(pre, 0.001 * OWN)),
]
IDS = [f"{sparsity}{'' if threshold is None else ', threshold'}" for sparsity, threshold, _ in CASES]


def normal(seed: int = 0) -> Tensor:
    return torch.randn(TOKENS, D_SAE, generator=torch.Generator().manual_seed(seed))


def extreme() -> Tensor:
    """As far as float32 goes, both ways."""
    largest, least = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny
    some = torch.tensor([largest, largest / 2, 1e30, 1.0, 1e-30, least, 0.0, -least, -1.0, -1e30, -largest])
    return some[torch.randint(len(some), (TOKENS, D_SAE), generator=torch.Generator().manual_seed(3))]


INPUTS = {
    "random": normal(),
    "mostly negative": normal() - 1.5,
    "all negative": -normal().abs() - 0.1,
    "zeros": torch.zeros(TOKENS, D_SAE),
    "tied": normal().round(),
    "all tied": torch.ones(TOKENS, D_SAE),
    "extreme": extreme(),
    "tiny": 1e-30 * normal(),
    "huge": 1e30 * normal(),
}
TIED = ("tied", "all tied", "extreme")


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(("sparsity", "threshold", "oracle"), CASES, ids=IDS)
def test_margins_are_positive_exactly_where_a_loop_says_that_a_latent_fires(
    name: str, sparsity: Sparsity, threshold: Tensor | None, oracle: Callable[[Tensor], Tensor]
) -> None:
    pre, asked = INPUTS[name], torch.arange(D_SAE) % 3 > 0
    fires = sparsity.margins(pre, threshold) > 0
    assert torch.equal(fires, oracle(pre))
    product = WholeProduct(pre[None], torch.eye(D_SAE)[None], None)
    counted = sparsity.which_fire(product, asked, threshold)
    assert torch.equal(product.positive[0], (pre > 0).any(dim=0))
    assert not counted[~asked].any()
    if name not in TIED:
        assert torch.equal(counted, fires.any(dim=0) & asked)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("sparsity", "threshold", "oracle"), CASES, ids=IDS)
def test_the_selected_and_positive_are_those_with_positive_margins_in_every_member(
    sparsity: Sparsity,
    threshold: Tensor | None,
    oracle: Callable[[Tensor], Tensor],
    *,
    together: bool,
    biased: bool,
) -> None:
    """Each member sees inputs of its own; of those that tie for the last place, no more fire than have a place."""
    inputs = {name: pre for name, pre in INPUTS.items() if name != "extreme" or not biased}
    members = [*inputs.values()]
    b_enc = torch.stack([normal(9)[m] for m in range(len(members))]) if biased else None
    # The identity as encoder: pre-activations are exactly what they should be.
    W_enc = torch.eye(D_SAE).expand(len(members), -1, -1).contiguous()
    product = Product(torch.stack(members), W_enc, b_enc, Workspace() if together else None)
    bars = None if threshold is None else threshold.expand(len(members), -1)
    pre, pairs = sparsity.select(product, bars)
    over = None if threshold is None else threshold.expand(D_SAE).repeat(len(members))[pairs.latents]
    codes = pairs.matrix(torch.where(pre > (0 if over is None else over), pre, 0)).view(len(members), TOKENS, -1)
    for m, (given, name) in enumerate(zip(members, inputs, strict=True)):
        x = given if b_enc is None else given + b_enc[m]
        fires, margins = codes[m] > 0, sparsity.margins(x, threshold) > 0
        assert torch.equal(codes[m][fires], x[fires]), name
        assert torch.equal(product.positive[m], (x > 0).any(dim=0)), name
        assert not (margins & ~fires).any(), name
        assert (sparsity.margins(x, threshold)[fires & ~margins] == 0).all(), name
        if name not in TIED:
            assert torch.equal(fires, oracle(x)), name
        elif threshold is None and sparsity.l0:
            assert int(fires.sum()) <= TOKENS * sparsity.l0, name
