"""When a cure helps, both sides of each threshold; and a prototype that adds nothing is the library's loss."""

import pytest
import torch
from experiments.rows import Row
from experiments.training.cure_rows import best, helps
from experiments.training.prototypes import Beside

from autopsae.sae.sparsity import TopK
from autopsae.training.objective import reconstruction_losses
from tests.training.members import new_sae, tokens


def row(dead: float, fvu: float) -> Row:
    return {"dead": dead, "fvu_raw": fvu}


def test_the_best_constant_has_the_lowest_error_of_those_that_leave_few_dead_or_else_the_fewest_dead() -> None:
    rows = {"a": row(0.01, 0.3), "b": row(0.0, 0.4), "c": row(0.011, 0.1)}
    assert best(rows) == ("a", rows["a"])
    assert best({"c": rows["c"], "d": row(0.5, 0.01)})[0] == "c"


@pytest.mark.parametrize(
    ("dead", "fvu", "helpful"),
    [
        (0.004, 0.102, True),  # fewer dead at 2 % more error
        (0.004, 0.1021, False),
        (0.005, 0.1, False),
        (0.005, 0.098, True),  # as many dead at 2 % less error
        (0.01, 0.098, True),
        (0.0101, 0.05, False),
    ],
)
def test_a_cure_helps_by_fewer_dead_at_hardly_more_error_or_by_less_error_at_few_dead(
    dead: float, fvu: float, helpful: bool
) -> None:
    assert helps(row(dead, fvu), row(0.005, 0.1)) == helpful


def test_a_bypass_of_nothing_has_the_loss_and_the_gradients_of_the_library() -> None:
    nothing = torch.zeros(tokens().shape[1], 2, dtype=torch.float64)
    found = []
    for losses in (reconstruction_losses, Beside(U=nothing, V=nothing, lr=0.0).loss):
        sae = new_sae(0, TopK(k=4)).double()
        weights, y = sae.weights, tokens(50).double()[None]
        selection, centered = weights.select(y, training=True)
        left, error, loss = losses(weights, weights.decoder_target(y, centered), selection, ())
        loss.sum().backward()
        found.append([left, error, loss.detach(), sae.W_enc.grad, sae.W_dec.grad, sae.b_dec.grad])
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
