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
from autopsae.sae.weights import Weights
from autopsae.training.bias import Bias
from autopsae.training.config import Optimizer as Name
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.objective import L0Target
from autopsae.training.one import train
from autopsae.training.optimizers import Optimizer
from autopsae.training.revival import Resampling
from autopsae.training.sources import Member

OPTIMIZERS: list[Name] = ["adam", "sparse_adam", "sign_sgd"]
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


def optimizer_of(weights: Weights, **changes: Any) -> Optimizer:
    """Of members that differ in what is a list."""
    members = len(weights.W_enc)
    each = [{name: v[m] if isinstance(v, list) else v for name, v in changes.items()} for m in range(members)]
    return Optimizer(weights, [settings(unit_decoder=False, **one) for one in each])


def stack_of(matrix: Tensor, vector: Tensor, b_dec: Tensor | None = None) -> Weights:
    """Weights whose matrices and encoder biases are all these; copies."""
    parts = {"W_enc": matrix, "W_dec": matrix, "b_dec": matrix[:, 0] if b_dec is None else b_dec, "b_enc": vector}
    leaves = {name: value.clone().requires_grad_() for name, value in parts.items()}
    return Weights(**leaves, owned={}, sparsity=TopK(k=1))  # type: ignore[arg-type]


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


def graded(weights: Weights, matrix: Tensor, vector: Tensor) -> None:
    """Give gradients to W_enc and b_enc, and none to the others."""
    weights.W_enc.grad = matrix.clone()
    assert weights.b_enc is not None
    weights.b_enc.grad = vector.clone()


ONE = torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("kind", ["adam", "sparse_adam"])
def test_each_members_step_equals_pytorchs(kind: Name, members: int) -> None:
    """torch.optim.Adam; torch.optim.SparseAdam for sparse gradients of rows, and for vectors of coordinates."""
    rates = [0.1, 0.004][:members]
    start = torch.ones(members, 7, 3, dtype=torch.float64), torch.ones(members, 7, dtype=torch.float64)
    weights = stack_of(*start)
    ours = optimizer_of(weights, optimizer=kind, lr=rates)
    expected = [[torch.nn.Parameter(value[m].clone()) for value in start] for m in range(members)]
    kinds = {"adam": torch.optim.Adam, "sparse_adam": torch.optim.SparseAdam}
    theirs = [kinds[kind](ps, lr=rate) for ps, rate in zip(expected, rates, strict=True)]
    for number, grads in enumerate(gradients(8)):
        each = [[grad.roll(m, dims=0) * (1 + m) for grad in grads] for m in range(members)]
        graded(weights, *(torch.stack(parts) for parts in zip(*each, strict=True)))
        ours.step(ONE.expand(members) / (1 + number))
        for m, one in enumerate(theirs):
            for parameter, grad in zip(expected[m], each[m], strict=True):
                parameter.grad = as_sparse(grad) if kind == "sparse_adam" else grad
            one.param_groups[0]["lr"] = rates[m] / (1 + number)
            one.step()
            for mine, other in zip((weights.W_enc[m], weights.parameters["b_enc"][m]), expected[m], strict=True):
                assert torch.allclose(mine, other, rtol=1e-12, atol=1e-12)


def test_sparse_adam_leaves_rows_without_a_gradient_and_what_it_remembers_of_them_alone() -> None:
    start = torch.randn(1, 7, 3, generator=torch.Generator().manual_seed(2))
    weights = stack_of(start, start[:, :, 0])
    optimizer = optimizer_of(weights, optimizer="sparse_adam", lr=0.1)
    for grads in gradients(8):
        graded(weights, *(grad.float()[None] for grad in grads))

        def state() -> list[Tensor]:
            named = [(name, weights.parameters[name].detach()[0]) for name in ("W_enc", "b_enc")]
            return [t.clone() for name, value in named for t in (value, *optimizer.moments[name][:, 0])]

        before = state()
        optimizer.step(ONE)
        still = grads[0].abs().sum(dim=1) == 0
        for old, new in zip(before, state(), strict=True):
            assert torch.equal(old[still], new[still])
            assert (old[~still] != new[~still]).all()


def test_one_sparse_adam_step_moves_by_the_learning_rate() -> None:
    """By hand: at first, m / sqrt(v) is the gradient's sign."""
    weights = stack_of(torch.zeros(1, 2, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64))
    graded(weights, torch.tensor([[[3.0, -0.5], [0.0, 0.0]]]).double(), torch.tensor([[0.0, 2.0]]).double())
    optimizer_of(weights, optimizer="sparse_adam", lr=0.25).step(ONE)
    assert weights.W_enc[0].tolist() == [pytest.approx([-0.25, 0.25], rel=1e-6), [0.0, 0.0]]
    assert weights.parameters["b_enc"][0].tolist() == [0.0, pytest.approx(-0.25, rel=1e-6)]


def test_a_relative_encoder_learns_at_the_mean_length_of_its_rows_as_training_began() -> None:
    """By hand: at first, Adam moves each coordinate by the rate. Rows of lengths 5 and 3, and of half of that."""
    rows = torch.tensor([[[3.0, 4.0], [0.0, 3.0]]], dtype=torch.float64)
    weights = stack_of(torch.cat([rows, rows / 2, rows]), torch.zeros(3, 2, dtype=torch.float64))
    optimizer = optimizer_of(weights, lr=0.25, relative_encoder_lr=[True, True, False])
    lengths = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    for _ in range(2):  # Adam's steps are as long in the second step, where the gradient is the same
        before = {name: value.detach().clone() for name, value in weights.parameters.items()}
        for value in weights.parameters.values():
            value.grad = torch.ones_like(value)
        optimizer.step(ONE.expand(3))
        for name, value in weights.parameters.items():
            moved = (before[name] - value.detach()).flatten(1)
            rates = 0.25 * (lengths if name in ("W_enc", "b_enc") else torch.ones_like(lengths))
            assert torch.allclose(moved, rates[:, None].expand_as(moved), rtol=1e-6), name


def test_a_relative_encoder_of_unit_rows_learns_as_any_other() -> None:
    x = tokens()
    relative, usual = new_sae(x), new_sae(x)
    train(relative, x, settings(relative_encoder_lr=True))
    train(usual, x, settings())
    assert torch.allclose(relative.W_enc, usual.W_enc, rtol=1e-6, atol=1e-7)


def test_sign_sgd_moves_each_coordinate_with_a_gradient_by_exactly_its_members_learning_rate() -> None:
    weights = stack_of(torch.ones(2, 2, 2), torch.ones(2, 2))
    optimizer = optimizer_of(weights, optimizer="sign_sgd", lr=[0.25, 0.5])
    grad = torch.tensor([[1e-20, -1e20], [0.0, 2.0]]).expand(2, 2, 2)
    for factors, first, second in (
        ([1.0, 1.0], [[0.75, 1.25], [1.0, 0.75]], [[0.5, 1.5], [1.0, 0.5]]),
        ([0.5, 0.0], [[0.625, 1.375], [1.0, 0.625]], [[0.5, 1.5], [1.0, 0.5]]),
    ):
        graded(weights, grad, torch.zeros(2, 2))
        optimizer.step(torch.tensor(factors, dtype=torch.float64))
        assert weights.W_enc.tolist() == [first, second]
        assert not optimizer.moments


def test_each_members_gradient_is_clipped_to_its_own_norm_without_what_is_frozen_there() -> None:
    """As torch.nn.utils.clip_grad_norm_ of each member alone; seen through SignSGD's gradients."""
    members, clips = 4, [float("inf"), 0.1, 5.0, 0.1]
    frozen = [(), (), (), ("W_enc",)]
    generator = torch.Generator().manual_seed(3)
    weights = stack_of(torch.ones(members, 7, 3, dtype=torch.float64), torch.ones(members, 7, dtype=torch.float64))
    optimizer = optimizer_of(weights, optimizer="sign_sgd", clip_norm=[None, *clips[1:]], frozen=frozen)
    for parameter in weights.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    alone = []
    for m in range(members):
        copies = {name: torch.nn.Parameter(p[m].detach().clone()) for name, p in weights.parameters.items()}
        for name, copy in copies.items():
            grad = weights.parameters[name].grad
            assert grad is not None
            copy.grad = grad[m].clone()
        counted = [copy for name, copy in copies.items() if name not in frozen[m]]
        torch.nn.utils.clip_grad_norm_(counted, clips[m])
        alone.append(copies)
    optimizer.step(torch.ones(members, dtype=torch.float64))
    for m in range(members):
        for name, parameter in weights.parameters.items():
            if name not in frozen[m]:
                assert parameter.grad is not None
                expected = alone[m][name].grad
                assert expected is not None
                assert torch.allclose(parameter.grad[m], expected, rtol=1e-12, atol=0), (m, name)


# Frozen parts and rates


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "frozen",
    [(), ("W_enc",), ("W_dec",), ("b_enc",), ("b_dec",), ("log_threshold",), ("W_enc", "W_dec")],
    ids=" ".join,
)
def test_exactly_what_is_not_frozen_moves(optimizer: Name, frozen: tuple[str, ...]) -> None:
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
        Training([Member(sae=new_sae(x), config=settings(frozen=frozen))], x)


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc"])
def test_resampling_what_is_frozen_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"W_enc, W_dec, b_enc unfrozen to resample, got ('{name}',)")):
        settings(frozen=(name,), resampling=Resampling(every_steps=1))
    settings(frozen=("b_dec",), resampling=Resampling(every_steps=1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("rate", "others"), [(0.0, 1e-4), (3e-2, 1e-4), (None, 1e-4)])
def test_b_dec_moves_by_its_own_rate_under_each_optimizer(
    optimizer: Name, rate: float | None, others: float
) -> None:
    x = tokens()
    sae = new_sae(x)
    before, bias = sae.W_enc.detach().clone(), Bias() if rate is None else Bias(lr_fraction=rate / others)
    train(sae, x, settings(optimizer=optimizer, steps=1, lr=others, bias=bias))
    moved = sae.b_dec.detach().abs()  # it starts at zero
    assert moved.tolist() == pytest.approx([others if rate is None else rate] * D_IN, rel=1e-3)
    assert float((sae.W_enc.detach() - before).abs().max()) == pytest.approx(others, rel=1e-2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimizer_lowers_the_loss(optimizer: Name) -> None:
    x = tokens()
    records = train(new_sae(x), x, settings(optimizer=optimizer, steps=16, lr=1e-2, buffer_tokens=1024))
    assert sum(r.loss for r in records[-3:]) < 0.8 * sum(r.loss for r in records[:3])


def test_the_rate_rises_and_falls_through_these_values() -> None:
    config = settings(steps=10, warmup_steps=4, decay_steps=4)
    rates = [config.rate(step) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert [settings(steps=4).rate(step) for step in range(4)] == [1.0] * 4
    assert [settings(steps=4, warmup_steps=2, decay_steps=2).rate(step) for step in range(4)] == [0.5, 1, 1, 0.5]
    weights = stack_of(torch.zeros(2, 7, 3), torch.zeros(2, 7))
    optimizer = optimizer_of(weights, optimizer="sign_sgd", lr=[0.2, 0.3], bias=[Bias(lr_fraction=0.5), Bias()])
    for factors in ([0.25, 0.0], [1.0, 0.5]):
        before = {name: p.detach().clone() for name, p in weights.parameters.items()}
        for parameter in weights.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(torch.tensor(factors, dtype=torch.float64))
        for name, parameter in weights.parameters.items():
            moved = (before[name] - parameter.detach()).flatten(1)
            full = [0.1, 0.3] if name == "b_dec" else [0.2, 0.3]
            for m in range(2):
                assert moved[m].tolist() == pytest.approx([full[m] * factors[m]] * len(moved[m])), name
