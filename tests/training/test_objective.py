"""What is minimised: its values, and where its gradients arrive."""

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.kernels.pairs import Pairs
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.objective import L1, L0Target, penalty_losses
from autopsae.training.sources import Member
from tests.training.known_fates import ALIVE, BY_RELU, BY_TOPK, reached, sae_with_known_fates
from tests.ways import squared_error

pytestmark = pytest.mark.quick


def test_the_latents_of_this_file_have_the_fates_they_should() -> None:
    sae, x = sae_with_known_fates()
    codes, pre = sae.encode(x), sae.pre_activations(x)
    assert reached(codes.T) == list(ALIVE)
    assert (pre[:, list(BY_TOPK)] > 0).any(dim=0).all()
    assert (pre[:, list(BY_RELU)] <= 0).all()


def test_the_squared_error_is_a_mean_over_tokens_of_a_sum_over_coordinates() -> None:
    """Tokens (1, 2) and (3, 4); latents that pass on the first of one and the second of the other."""
    sae = SAE(W_enc=torch.eye(2), W_dec=torch.eye(2), b_dec=torch.zeros(2), sparsity=ReLU())
    pairs = Pairs(latents=torch.tensor([0, 1]), per_token_counts=torch.tensor([1, 1]), d_sae=2)
    selection = Selection(values=torch.tensor([1.0, 4.0]), pairs=pairs, positive=torch.ones(2, dtype=torch.bool))
    assert squared_error(sae, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), selection).item() == (4 + 9) / 2


def test_reconstruction_reaches_the_latents_that_fire_and_no_other() -> None:
    sae, x = sae_with_known_fates()
    squared_error(sae, x, sae.select(x)).backward()
    assert reached(sae.W_enc.grad) == reached(sae.W_dec.grad) == list(ALIVE)


def new_sae(sparsity: Sparsity, *, d_sae: int = 20, d_in: int = 5) -> SAE:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    threshold = torch.linspace(0.2, 2, d_sae, dtype=torch.float64) if isinstance(sparsity, JumpReLU) else None
    return SAE(
        W_enc=normal(d_sae, d_in),
        W_dec=normal(d_sae, d_in),
        b_dec=normal(d_in),
        b_enc=normal(d_sae),
        sparsity=sparsity,
        threshold=threshold,
    )


def loss_of(penalty: L1 | L0Target, sae: SAE, selection: Selection, step: int = 0) -> Tensor:
    return penalty_losses([penalty], sae.weights, selection, step)[0]


def some_tokens() -> Tensor:
    return torch.randn(30, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("warmup_steps", "step", "share"), [(0, 0, 1.0), (4, 0, 0.2), (4, 2, 0.6), (4, 4, 1.0), (4, 99, 1.0)]
)
def test_l1_and_its_gradients_equal_a_dense_penalty_that_rises(warmup_steps: int, step: int, share: float) -> None:
    sae, y = new_sae(ReLU()), some_tokens()
    loss = loss_of(L1(coefficient=0.7, warmup_steps=warmup_steps), sae, sae.select(y), step)
    loss.backward()
    found = {name: parameter.grad for name, parameter in sae.named_parameters()}
    sae.zero_grad()
    expected = 0.7 * share * (sae.pre_activations(y).relu() * sae.W_dec.norm(dim=1)).sum(dim=1).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in sae.named_parameters():
        gradient = found[name]
        assert gradient is not None
        assert parameter.grad is not None
        assert torch.allclose(gradient, parameter.grad, rtol=1e-10, atol=1e-12), name


def test_l1_by_hand() -> None:
    """Codes (2, 1) and (0, 1) with decoder rows of length 3 and 5: (2 * 3 + 1 * 5 + 1 * 5) / 2."""
    sae = SAE(
        W_enc=torch.eye(2),
        W_dec=torch.tensor([[3.0, 0.0], [3.0, 4.0]]),
        b_dec=torch.zeros(2),
        sparsity=ReLU(),
    )
    selection = sae.select(torch.tensor([[2.0, 1.0], [-1.0, 1.0]]))
    assert loss_of(L1(coefficient=0.5), sae, selection).item() == 0.5 * 16 / 2


def test_the_l0_target_is_the_squared_relative_distance_and_moves_the_thresholds_alone() -> None:
    bandwidth, y = 0.5, some_tokens()
    sae = new_sae(JumpReLU(bandwidth=bandwidth))
    loss = loss_of(L0Target(l0=3.0, coefficient=2.0), sae, sae.select(y))
    loss.backward()
    threshold, pre = sae.threshold, sae.pre_activations(y).detach()
    assert threshold is not None
    away = float((pre > threshold).sum()) / len(y) / 3.0 - 1
    assert loss.item() == pytest.approx(2.0 * sae.d_in * away**2, rel=1e-12)
    assert {name for name, p in sae.named_parameters() if p.grad is not None and p.grad.any()} == {"log_threshold"}
    near = ((pre - threshold).abs() < bandwidth / 2) & (pre > 0)
    slope = 2.0 * sae.d_in * 2 * away / 3.0 * -near.double().sum(dim=0) / bandwidth / len(y) * threshold
    assert sae.owned["log_threshold"] is not None
    assert sae.owned["log_threshold"].grad is not None
    assert torch.allclose(sae.owned["log_threshold"].grad, slope, rtol=1e-10)
    assert (sae.owned["log_threshold"].grad <= 0).all() == (away > 0)


def test_on_target_the_l0_target_is_zero_and_moves_nothing() -> None:
    sae, y = new_sae(JumpReLU(bandwidth=0.5)), some_tokens()
    l0 = float((sae.encode(y) > 0).sum()) / len(y)
    loss = loss_of(L0Target(l0=l0), sae, sae.select(y))
    loss.backward()
    assert loss.item() == 0
    assert sae.owned["log_threshold"] is not None
    assert sae.owned["log_threshold"].grad is not None
    assert not sae.owned["log_threshold"].grad.any()


@pytest.mark.parametrize("sparsity", [TopK(k=2), BatchTopK(k=2), ReLU()], ids=["topk", "batch_topk", "relu"])
def test_an_l0_target_without_thresholds_is_refused(sparsity: Sparsity) -> None:
    config = TrainConfig(steps=1, lr=1e-3, penalty=L0Target(l0=3.0))
    message = (
        f"L0Target: expected a JumpReLU SAE, whose thresholds it moves, got {sparsity.name}; a ReLU SAE takes L1, "
        "and top-k needs neither"
    )
    with pytest.raises(InputError, match=message):
        Training([Member(sae=new_sae(sparsity), config=config)], some_tokens())


def test_penalties_that_cannot_be_are_refused() -> None:
    for bad in ({"coefficient": -1.0}, {"coefficient": float("nan")}, {"coefficient": 1.0, "warmup_steps": -1}):
        with pytest.raises(InputError, match=r"L1: expected coefficient >= 0 and warmup_steps >= 0, got L1\("):
            L1(**bad)  # type: ignore[arg-type]
    for bad in ({"l0": 0.0}, {"l0": float("nan")}, {"l0": 1.0, "coefficient": -1.0}):
        with pytest.raises(InputError, match=r"L0Target: expected l0 > 0 and coefficient >= 0, got L0Target\("):
            L0Target(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", [ReLU(), JumpReLU(bandwidth=0.5)], ids=["relu", "jumprelu"])
def test_the_same_batch_gives_the_same_gradients_bit_by_bit(sparsity: Sparsity) -> None:
    """In float32 and with many pairs, where PyTorch would add up in parallel in the order of the moment."""
    sae = new_sae(sparsity, d_sae=64).float()
    y = torch.randn(4000, 5, generator=torch.Generator().manual_seed(1))
    penalty = L1(coefficient=1.0) if sparsity == ReLU() else L0Target(l0=3.0)
    found = []
    for _ in range(4):
        sae.zero_grad()
        selection = sae.select(y)
        (squared_error(sae, y, selection) + loss_of(penalty, sae, selection)).backward()
        found.append({name: parameter.grad for name, parameter in sae.named_parameters()})
    for name, first in found[0].items():
        assert first is not None
        for other in found[1:]:
            gradient = other[name]
            assert gradient is not None
            assert torch.equal(gradient, first), name
