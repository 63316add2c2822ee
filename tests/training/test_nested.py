"""Matryoshka training: what is minimised is the mean of the squared errors of nested prefixes of the latents."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.evaluation.prefixes import fvu_of_prefixes
from autopsae.evaluation.reconstruction import evaluate
from autopsae.kernels.straight_through import jump
from autopsae.kernels.workspace import Workspace
from autopsae.remedies.remedy import untouched, whiten
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.memory import bytes_needed
from autopsae.training.objective import reconstruction_losses
from autopsae.training.one import train
from autopsae.training.sources import Member
from autopsae.training.together import stack_weights
from tests.training.members import D_IN, D_SAE, new_sae, settings, tokens
from tests.ways import residual, without_numba

SPARSITIES = [BatchTopK(k=3), TopK(k=3), ReLU(), JumpReLU()]


def by_prefix(sae: SAE, y: Tensor, selected: Tensor, nested: tuple[int, ...]) -> list[Tensor]:
    """Each prefix's squared error per token from dense matrices, with gradients."""
    pre = sae.pre_activations(y)
    codes = torch.where(selected, pre, 0)
    if sae.threshold is not None and isinstance(sae.sparsity, JumpReLU):
        over = sae.owned["log_threshold"].exp().expand_as(pre).flatten()
        codes = torch.where(pre > 0, jump(pre.flatten(), over, sae.sparsity.bandwidth).view_as(pre), 0)
    reconstructions = [codes[:, :m] @ sae.W_dec[:m] + sae.b_dec for m in (*nested, sae.d_sae)]
    return [(y - x_hat).square().sum(dim=1).mean() for x_hat in reconstructions]


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("nested", [(1,), (4, 5, 20), (D_SAE - 1,)], ids=str)
@pytest.mark.parametrize("sparsity", SPARSITIES, ids=lambda s: s.name)
def test_the_loss_of_nested_prefixes_and_its_gradients_are_those_of_dense_matrices(
    sparsity: Sparsity, nested: tuple[int, ...], numba: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two members side by side, in float64."""
    if not numba:
        without_numba(monkeypatch)
    saes = [new_sae(seed, sparsity) for seed in range(2)]
    y = torch.stack([tokens(90, seed) for seed in range(2)])
    weights = stack_weights(saes)
    selection, centered = weights.select(y, training=True)
    left, error, loss = reconstruction_losses(weights, centered, selection, nested, Workspace())
    (loss * torch.tensor([1.0, 3.0], dtype=torch.float64)).sum().backward()
    codes = selection.pairs.matrix(selection.values.detach()).view(2, 90, D_SAE)
    for m, sae in enumerate(saes):
        found = {name: parameter.grad[m] for name, parameter in weights.parameters.items()}  # type: ignore[index]
        sae.zero_grad()
        parts = by_prefix(sae, y[m], codes[m] > 0, nested)
        expected = torch.stack(parts).mean()
        assert loss[m].item() == pytest.approx(float(expected.detach()), rel=1e-12)
        assert error[m].item() == pytest.approx(float(parts[-1].detach()), rel=1e-12)
        assert torch.allclose(left[m].square().sum(dim=1).mean(), parts[-1], rtol=1e-12)
        (expected * (1.0, 3.0)[m]).backward()
        for name, parameter in sae.named_parameters():
            assert parameter.grad is not None
            assert torch.allclose(found[name], parameter.grad, rtol=1e-9, atol=1e-11), name
    assert not left.requires_grad
    assert not error.requires_grad


def test_without_prefixes_it_is_the_squared_error_alone() -> None:
    saes, y = [new_sae(0)], tokens(50)[None]
    weights = stack_weights(saes)
    selection, centered = weights.select(y, training=True)
    left, error, loss = reconstruction_losses(weights, centered, selection, ())
    assert torch.equal(error, loss)
    assert loss.item() == pytest.approx(float(residual(saes[0].train(), y[0]).square().sum() / 50))
    assert torch.allclose(left.square().sum() / 50, error)


def test_by_hand() -> None:
    """Token (3, 4, 5) and latents that pass on a coordinate each: the first leaves 41, the first two 25, all 0."""
    eye = torch.eye(3)
    sae = SAE(W_enc=eye, W_dec=eye, b_dec=torch.zeros(3), sparsity=ReLU())
    y = torch.tensor([[[3.0, 4.0, 5.0]]])
    selection, centered = sae.weights.select(y, training=True)
    for nested, expected in (((1,), 41 / 2), ((2,), 25 / 2), ((1, 2), 66 / 3)):
        _, error, loss = reconstruction_losses(sae.weights, centered, selection, nested)
        assert (error.item(), loss.item()) == (0, expected)


def test_a_member_that_diverges_touches_no_other() -> None:
    members = [Member(sae=new_sae(seed), config=settings(nested=(4, 20), steps=30)) for seed in range(2)]
    sweep = Training(members, tokens())
    for _ in range(5):
        sweep.advance()
    with torch.no_grad():
        members[0].sae.W_dec.fill_(torch.nan)
    for _ in sweep:
        pass
    assert [*sweep.diverged] == [0]
    alone = new_sae(1)
    train(alone, tokens(), members[1].config)
    for name, value in alone.state_dict().items():
        assert torch.allclose(members[1].sae.state_dict()[name], value, rtol=1e-9, atol=1e-9), name


def trained(nested: tuple[int, ...], **more: Any) -> SAE:
    sae = born(untouched(D_IN), d_sae=D_SAE, sparsity=BatchTopK(k=3), sample=tokens())
    config = settings(steps=400, lr=1e-2, nested=nested, record_every=400, **more)
    [record] = train(sae, tokens(), config)
    assert record.fvu is not None
    # The record tells the error of the whole, which is no part of a mean.
    assert record.fvu < record.loss
    return sae


def test_nested_training_lets_small_prefixes_explain_more() -> None:
    x, sizes = tokens(3000, seed=6), (4, 12)
    nested, plain = (fvu_of_prefixes(trained(some), x, sizes) for some in (sizes, ()))
    assert [*nested] == [4, 12, D_SAE]
    fvus = [fvu for fvu in nested.values() if fvu is not None]
    assert len(fvus) == 3
    assert all(small > large for small, large in pairwise(fvus))
    for size in sizes:
        mine, other = nested[size], plain[size]
        assert mine is not None
        assert other is not None
        assert mine < 0.8 * other


def test_the_fvu_of_prefixes_is_that_of_an_sae_without_the_other_latents_in_raw_space() -> None:
    x = tokens(1200, seed=6)
    statistics = collect(x)
    remedy = whiten(Spectrum.of(statistics.raw.covariance), statistics.raw.mean)
    for sparsity in SPARSITIES:
        sae = new_sae(0, sparsity, remedy).eval()
        found = fvu_of_prefixes(sae, x, (1, 7))
        assert found[D_SAE] == pytest.approx(evaluate(sae, x).fvu_raw, rel=1e-12)
        for size in (1, 7):
            codes = sae.encode(x).detach()
            codes[:, size:] = 0
            error = (x - sae.decode(codes)).detach().square().sum()
            assert found[size] == pytest.approx(float(error / (x - x.mean(dim=0)).square().sum()), rel=1e-9)


def test_of_tokens_that_do_not_differ_a_prefix_explains_nothing() -> None:
    assert fvu_of_prefixes(new_sae(0), tokens(1).expand(200, -1), (4,)) == {4: None, D_SAE: None}


@pytest.mark.parametrize("sizes", [(0,), (4, 4), (8, 4), (D_SAE,), (True,)], ids=str)
def test_sizes_that_are_no_prefixes_are_refused(sizes: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match="nested"):
        fvu_of_prefixes(new_sae(0), tokens(200), sizes)
    if sizes != (D_SAE,):
        with pytest.raises(InputError, match="nested"):
            TrainConfig(steps=1, lr=1e-3, nested=sizes)
    else:
        message = "nested: expected prefixes of fewer than d_sae = 32 latents, as the whole always counts, got 32"
        with pytest.raises(InputError, match=message):
            train(new_sae(0), tokens(), settings(nested=sizes))


def test_the_memory_of_prefixes_is_counted() -> None:
    sizes = [bytes_needed(Member(sae=new_sae(0), config=settings(nested=n))) for n in ((), (4,), (4, 8))]
    assert sizes[0] < sizes[1] < sizes[2]
