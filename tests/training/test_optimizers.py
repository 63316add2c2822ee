"""Who moves, by how much, and who is left alone."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, Sparsity, TopK
from autopsae.training.config import Optimizer, TrainConfig
from autopsae.training.loop import Training, train
from autopsae.training.objective import L0Target
from autopsae.training.optimizers import RowAdam, SignSGD, optimizer_for, set_rate
from autopsae.training.revival import Resampling

OPTIMIZERS: list[Optimizer] = ["adam", "sparse_adam", "sign_sgd"]
D_IN, D_SAE = 6, 24


def tokens(n: int = 1024) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(5)) + 1


def new_sae(x: Tensor, sparsity: Sparsity | None = None) -> SAE:
    return born(
        untouched(D_IN),
        d_sae=D_SAE,
        sparsity=sparsity or TopK(k=3),
        sample=x,
        generator=torch.Generator().manual_seed(0),
        encoder_bias=True,
    )


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 3, "lr": 1e-2, "batch_tokens": 256, **changes})


def group(*parameters: Tensor, lr: float) -> list[dict[str, Any]]:
    return [{"params": list(parameters), "lr": lr, "full_lr": lr}]


def gradients(steps: int) -> list[tuple[Tensor, Tensor]]:
    """Of a matrix and a vector, many rows zero; in the third step, all; row 0 first has one in the fourth."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number in range(steps):
        matrix, vector = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((7, 3), (7,)))
        touched = torch.rand(7, generator=generator) < 0.5
        touched[0] = number == 3
        touched &= number != 2
        matrix[~touched], vector[~touched] = 0, 0
        found.append((matrix * 10.0**number, vector))
    return found


def as_sparse(gradient: Tensor) -> Tensor:
    rows = gradient.reshape(len(gradient), -1).abs().sum(dim=1).nonzero()[:, 0]
    return torch.sparse_coo_tensor(rows[None], gradient[rows], gradient.shape, check_invariants=True)


def test_row_adam_equals_pytorchs_adam_for_sparse_gradients() -> None:
    start = [torch.ones(7, 3, dtype=torch.float64), torch.ones(7, dtype=torch.float64)]
    found, expected = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    ours, theirs = RowAdam(group(*found, lr=0.1)), torch.optim.SparseAdam(expected, lr=0.1)
    for grads in gradients(8):
        for mine, other, grad in zip(found, expected, grads, strict=True):
            mine.grad, other.grad = grad, as_sparse(grad)
        ours.step()
        theirs.step()
        for mine, other in zip(found, expected, strict=True):
            assert torch.allclose(mine, other, rtol=1e-12, atol=1e-12)


def test_row_adam_leaves_rows_without_a_gradient_and_what_it_remembers_of_them_alone() -> None:
    parameter = torch.nn.Parameter(torch.randn(7, 3, generator=torch.Generator().manual_seed(2)))
    optimizer = RowAdam(group(parameter, lr=0.1))
    for grad, _ in gradients(8):
        parameter.grad = grad.float()
        before = [parameter.detach().clone()]
        before += [t.clone() for name, t in optimizer.state[parameter].items() if name != "step"]
        optimizer.step()
        after = [parameter.detach(), *(t for name, t in optimizer.state[parameter].items() if name != "step")]
        still = grad.abs().sum(dim=1) == 0
        for old, new in zip(before, after, strict=False):
            assert torch.equal(old[still], new[still])
            assert (old[~still] != new[~still]).all()


def test_one_row_adam_step_moves_by_the_learning_rate() -> None:
    """By hand: at first, m / sqrt(v) is the gradient's sign."""
    parameter = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    parameter.grad = torch.tensor([[3.0, -0.5], [0.0, 0.0]], dtype=torch.float64)
    RowAdam(group(parameter, lr=0.25)).step()
    assert parameter.tolist() == [pytest.approx([-0.25, 0.25], rel=1e-6), [0.0, 0.0]]


def test_sign_sgd_moves_each_coordinate_with_a_gradient_by_exactly_the_learning_rate() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.tensor([[1e-20, -1e20], [0.0, 2.0]])
    optimizer = SignSGD(group(parameter, lr=0.25))
    optimizer.step()
    assert parameter.tolist() == [[0.75, 1.25], [1.0, 0.75]]
    set_rate(optimizer, 0.5)
    optimizer.step()
    assert parameter.tolist() == [[0.625, 1.375], [1.0, 0.625]]
    assert not optimizer.state


# Frozen parts and rates


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "frozen",
    [(), ("W_enc",), ("W_dec",), ("b_enc",), ("b_dec",), ("log_threshold",), ("W_enc", "W_dec")],
    ids=" ".join,
)
def test_exactly_what_is_not_frozen_moves(optimizer: Optimizer, frozen: tuple[str, ...]) -> None:
    x = tokens()
    sae = new_sae(x, JumpReLU(bandwidth=0.5))
    before = {name: value.detach().clone() for name, value in sae.named_parameters()}
    train(sae, x, settings(optimizer=optimizer, frozen=frozen, penalty=L0Target(l0=3.0), clip_norm=1.0))
    still = {name for name, value in sae.named_parameters() if torch.equal(value, before[name])}
    assert still == {*frozen}


def test_what_was_frozen_in_one_training_moves_in_the_next() -> None:
    x = tokens()
    sae = new_sae(x)
    train(sae, x, settings(frozen=("b_dec",)))
    before = sae.b_dec.detach().clone()
    train(sae, x, settings())
    assert not torch.equal(sae.b_dec, before)


@pytest.mark.parametrize(
    ("frozen", "got"),
    [
        (("b_dec", "bias"), "('b_dec', 'bias')"),
        (("log_threshold",), "('log_threshold',)"),
        (("W_enc", "W_dec", "b_dec", "b_enc"), "('W_enc', 'W_dec', 'b_dec', 'b_enc')"),
    ],
)
def test_freezing_what_is_not_there_or_everything_is_refused(frozen: tuple[str, ...], got: str) -> None:
    x = tokens()
    message = f"frozen: expected some, but not all, of W_enc, W_dec, b_dec, b_enc, got {got}"
    with pytest.raises(InputError, match=re.escape(message)):
        Training(new_sae(x), x, settings(frozen=frozen))


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc"])
def test_resampling_what_is_frozen_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"W_enc, W_dec, b_enc unfrozen to resample, got ('{name}',)")):
        settings(frozen=(name,), resampling=Resampling(every_steps=1))
    settings(frozen=("b_dec",), resampling=Resampling(every_steps=1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("rate", "others"), [(0.0, 1e-4), (3e-2, 1e-4), (None, 1e-4)])
def test_b_dec_moves_by_its_own_rate_under_each_optimizer(
    optimizer: Optimizer, rate: float | None, others: float
) -> None:
    x = tokens()
    sae = new_sae(x)
    before = sae.W_enc.detach().clone()
    train(sae, x, settings(optimizer=optimizer, steps=1, lr=others, b_dec_lr=rate))
    moved = sae.b_dec.detach().abs()  # it starts at zero
    assert moved.tolist() == pytest.approx([others if rate is None else rate] * D_IN, rel=1e-3)
    assert float((sae.W_enc.detach() - before).abs().max()) == pytest.approx(others, rel=1e-2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_lowers_the_loss(optimizer: Optimizer) -> None:
    x = tokens()
    records = train(new_sae(x), x, settings(optimizer=optimizer, steps=16, lr=1e-2, buffer_tokens=1024))
    assert sum(r.loss for r in records[-3:]) < 0.8 * sum(r.loss for r in records[:3])


def test_the_rate_rises_and_falls_through_these_values() -> None:
    config = settings(steps=10, warmup_steps=4, decay_steps=4)
    rates = [config.rate(step) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert [settings(steps=4).rate(step) for step in range(4)] == [1.0] * 4
    assert [settings(steps=4, warmup_steps=2, decay_steps=2).rate(step) for step in range(4)] == [0.5, 1, 1, 0.5]
    optimizer = optimizer_for(new_sae(tokens()), settings(lr=0.2, b_dec_lr=0.1))
    for rate in (0.25, 1.0, 0.5):
        set_rate(optimizer, rate)
        assert [one["lr"] for one in optimizer.param_groups] == pytest.approx([0.2 * rate, 0.1 * rate])
