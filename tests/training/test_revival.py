"""Where gradients arrive: a revival method must reach exactly the latents that it claims to reach."""

from dataclasses import replace
from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training.config import Optimizer as Name
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.one import train
from autopsae.training.optimizers import Optimizer
from autopsae.training.revival import AuxK, GhostGradients, Resampling
from autopsae.training.sources import Member
from autopsae.training.together import stack_weights
from tests.training.known_fates import BY_RELU, BY_TOPK, D_IN, D_SAE, dead, reached, sae_with_known_fates
from tests.ways import residual

SILENT = [*BY_TOPK, *BY_RELU]
METHODS = pytest.mark.parametrize("method", [AuxK(), GhostGradients()], ids=["AuxK", "ghosts"])


def loss_of(method: AuxK | GhostGradients, sae: SAE, y: Tensor, left: Tensor, silent: Tensor) -> Tensor:
    """left: the residual."""
    centered = (y - sae.b_dec.detach())[None]
    return method.losses([method], sae.weights, centered, left[None], silent[None])[0]  # type: ignore[list-item]


def gradients(method: AuxK | GhostGradients, *silent: int) -> tuple[list[int], list[int]]:
    """The latents whose encoder and decoder rows the loss reaches."""
    sae, x = sae_with_known_fates()
    loss_of(method, sae, x, residual(sae, x), dead(*silent)).backward()
    return reached(sae.W_enc.grad), reached(sae.W_dec.grad)


# AuxK


def test_auxk_reaches_dead_by_topk_latents_and_not_dead_by_relu_ones() -> None:
    silent = [*BY_TOPK, *BY_RELU]
    assert gradients(AuxK(k_aux=6), *silent) == (list(BY_TOPK), list(BY_TOPK))


def test_auxk_leaves_the_living_alone() -> None:
    assert gradients(AuxK(k_aux=6), 7) == ([7], [7])


def test_auxk_is_the_residuals_unexplained_share_and_trains_no_residual() -> None:
    sae, x = sae_with_known_fates()
    left = x - sae.reconstruct(sae.select(x)).detach()
    loss = loss_of(AuxK(coefficient=0.25, k_aux=2), sae, x, left, dead(*BY_TOPK))
    pre = sae.pre_activations(x).detach()
    codes = torch.zeros_like(pre)
    for token, row in enumerate(pre):
        for latent in sorted(BY_TOPK, key=lambda i: -float(row[i]))[:2]:
            codes[token, latent] = row[latent].clamp_min(0)
    error = (left - codes @ sae.W_dec).square().sum()
    expected = 0.25 * error / (left - left.mean(dim=0)).square().sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    loss.backward()
    assert reached(sae.W_dec.grad) == list(BY_TOPK)


def test_auxk_reaches_b_dec_through_the_codes_and_the_biases_of_those_it_reaches() -> None:
    sae, x = sae_with_known_fates(bias=True)
    loss_of(AuxK(k_aux=6), sae, x, residual(sae, x), dead(*SILENT)).backward()
    assert sae.b_enc is not None
    assert sae.b_enc.grad is not None
    assert sae.b_enc.grad.nonzero()[:, 0].tolist() == list(BY_TOPK)
    assert sae.b_dec.grad is not None
    assert torch.allclose(sae.b_dec.grad, -sae.b_enc.grad @ sae.W_enc, atol=1e-12)
    assert sae.b_dec.grad.any()


# Both


@METHODS
def test_without_a_silent_latent_there_is_nothing_to_lose(method: AuxK | GhostGradients) -> None:
    sae, x = sae_with_known_fates()
    assert float(loss_of(method, sae, x, residual(sae, x), dead())) == 0.0


# Ghost gradients


@pytest.mark.parametrize("silent", [SILENT, [7], [10], [0, 7, 10], list(range(D_SAE))], ids=str)
def test_ghost_gradients_reach_exactly_the_silent_latents_and_never_b_dec(silent: list[int]) -> None:
    sae, x = sae_with_known_fates(bias=True)
    loss_of(GhostGradients(), sae, x, residual(sae, x), dead(*silent)).backward()
    assert sae.b_enc is not None
    assert sae.b_enc.grad is not None
    assert reached(sae.W_enc.grad) == reached(sae.W_dec.grad) == silent
    assert sae.b_enc.grad.nonzero()[:, 0].tolist() == silent
    assert sae.b_dec.grad is None


def test_ghost_gradients_equal_the_formula_token_by_token() -> None:
    sae, x = sae_with_known_fates(bias=True)
    assert sae.b_enc is not None
    with torch.no_grad():
        sae.b_enc.copy_(torch.linspace(-1, 1, D_SAE))
        sae.b_dec.fill_(0.05)
    y_hat = sae.reconstruct(sae.select(x)).detach()
    loss = loss_of(GhostGradients(coefficient=0.3), sae, x, x - y_hat, dead(*SILENT))
    loss.backward()
    pre = sae.pre_activations(x).detach()
    errors, slopes, size = 0.0, torch.zeros(len(x), D_SAE, dtype=torch.float64), 0.0
    of_decoder = torch.zeros(D_SAE, D_IN, dtype=torch.float64)
    for token, row in enumerate(x):
        missing = row - y_hat[token]
        codes = {i: exp(float(pre[token, i])) for i in SILENT}
        ghost = torch.stack([codes[i] * sae.W_dec[i].detach() for i in SILENT]).sum(dim=0)
        half = float(missing.norm()) / 2 / float(ghost.norm())
        left = missing - half * ghost
        errors, size = errors + float(left @ left), size + float(missing @ missing)
        for i in SILENT:
            slopes[token, i] = -2 * half * codes[i] * float(left @ sae.W_dec[i].detach())
            of_decoder[i] -= 2 * half * codes[i] * left
    factor = 0.3 * size / errors / len(x)
    assert float(loss.detach()) == pytest.approx(factor * errors, rel=1e-10)
    assert sae.W_enc.grad is not None
    assert sae.W_dec.grad is not None
    assert sae.b_enc.grad is not None
    assert torch.allclose(sae.W_enc.grad, factor * slopes.T @ (x - sae.b_dec), rtol=1e-10, atol=1e-12)
    assert torch.allclose(sae.W_dec.grad, factor * of_decoder, rtol=1e-10, atol=1e-12)
    assert torch.allclose(sae.b_enc.grad, factor * slopes.sum(dim=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_ghost_gradients_of_huge_pre_activations_are_finite(size: float) -> None:
    sae, x = sae_with_known_fates()
    sae, x = sae.float(), x.float()
    with torch.no_grad():
        sae.W_enc.mul_(size)
    loss = loss_of(GhostGradients(), sae, x, x, dead(*SILENT))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(x.square().sum() / len(x)), rel=1e-4)
    assert sae.W_enc.grad is not None
    assert sae.W_dec.grad is not None
    assert sae.W_enc.grad.isfinite().all()
    assert sae.W_dec.grad.isfinite().all()


def test_ghost_gradients_of_a_perfect_reconstruction_are_zero() -> None:
    sae, x = sae_with_known_fates()
    loss = loss_of(GhostGradients(), sae, x, torch.zeros_like(x), dead(*SILENT))
    loss.backward()
    assert float(loss.detach()) == 0
    assert sae.W_enc.grad is not None
    assert sae.W_dec.grad is not None
    assert not sae.W_enc.grad.any()
    assert not sae.W_dec.grad.any()


# Resampling


def resample(sae: SAE, x: Tensor, y_hat: Tensor, silent: Tensor, **more: Any) -> Tensor:
    settings = {"every_steps": 1, **more}
    generator = torch.Generator().manual_seed(settings.pop("seed", 0))
    return Resampling(**settings).apply(sae.weights, 0, x, x - y_hat, silent, generator)


def test_resampling_redraws_exactly_the_dead_in_the_directions_of_tokens() -> None:
    sae, x = sae_with_known_fates(bias=True)
    assert sae.b_enc is not None
    with torch.no_grad():
        sae.b_enc.fill_(0.5)
        sae.b_dec.fill_(0.1)
    before = {name: value.detach().clone() for name, value in sae.named_parameters()}
    silent = dead(*SILENT)
    found = resample(sae, x, torch.zeros_like(x), silent, encoder_norm=0.3)
    assert found.tolist() == SILENT
    for name in ("W_enc", "W_dec", "b_enc"):
        assert torch.equal(sae.get_parameter(name)[~silent], before[name][~silent]), name
    assert torch.equal(sae.b_dec, before["b_dec"])
    directions = torch.nn.functional.normalize(x - 0.1, dim=1)
    mean_norm = sum(float(row.norm()) for row in before["W_enc"][~silent]) / int((~silent).sum())
    for i in SILENT:
        assert float((directions @ sae.W_dec[i].detach()).max()) == pytest.approx(1, rel=1e-12)
        assert torch.allclose(sae.W_enc[i], 0.3 * mean_norm * sae.W_dec[i])
        assert sae.b_enc[i].item() == 0
    assert torch.allclose(sae.W_dec[silent].norm(dim=1), torch.ones(len(SILENT), dtype=torch.float64))


def test_resampling_all_latents_takes_the_norm_of_unit_rows() -> None:
    sae, x = sae_with_known_fates()
    resample(sae, x, torch.zeros_like(x), dead(*range(D_SAE)), encoder_norm=0.3)
    assert torch.allclose(sae.W_enc.norm(dim=1), torch.full((D_SAE,), 0.3, dtype=torch.float64))


def test_tokens_are_drawn_in_proportion_to_their_squared_error_squared() -> None:
    """The first token comes three times."""
    draws, times, lengths = 2000, torch.tensor([3, 1, 1, 1]), torch.tensor([1.0, 1.5, 2.0, 0.0])
    x = torch.eye(4).repeat_interleave(times, dim=0)
    y_hat = x * (1 - lengths.repeat_interleave(times))[:, None]
    found = torch.zeros(4)
    for seed in range(draws):
        sae = SAE(W_enc=torch.ones(1, 4), W_dec=torch.ones(1, 4), b_dec=torch.zeros(4), sparsity=TopK(k=1))
        resample(sae, x, y_hat, torch.ones(1, dtype=torch.bool), seed=seed)
        found += sae.W_dec.detach()[0] / draws
    share = times * lengths.double() ** 4 / (times * lengths.double() ** 4).sum()
    deviation = (share * (1 - share) / draws).sqrt()
    assert ((found - share).abs() <= 4 * deviation + 1e-6).all()


def test_no_two_latents_get_the_same_token_and_those_without_one_wait() -> None:
    x = torch.eye(4).repeat(3, 1)
    sae = SAE(W_enc=torch.ones(D_SAE, 4), W_dec=torch.ones(D_SAE, 4), b_dec=torch.zeros(4), sparsity=TopK(k=1))
    found = resample(sae, x, torch.zeros_like(x), dead(1, 2, 3, 4, 5, 6))
    assert found.tolist() == [1, 2, 3, 4]
    assert sorted(sae.W_dec.detach()[found].tolist()) == sorted(torch.eye(4).tolist())
    assert (sae.W_dec.detach()[5:] == 1).all()


@pytest.mark.parametrize("kind", ["adam", "sparse_adam", "sign_sgd"])
def test_the_optimizer_forgets_the_resampled_rows_of_a_member_and_no_others(kind: Name) -> None:
    saes = [sae_with_known_fates(bias=True)[0] for _ in range(2)]
    weights = stack_weights(saes)
    optimizer = Optimizer(weights, [TrainConfig(steps=1, lr=1e-3, optimizer=kind)] * 2)
    for parameter in weights.parameters.values():
        # Not ones: what is left of them in the decoder, orthogonal to a row, could be zero.
        parameter.grad = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)).double() + 0.1
    optimizer.step(torch.ones(2, dtype=torch.float64))
    before = {name: moments.clone() for name, moments in optimizer.moments.items()}
    assert set(before) == (set() if kind == "sign_sgd" else {"W_enc", "W_dec", "b_dec", "b_enc"})
    silent = dead(*SILENT)
    optimizer.forget(1, silent.nonzero()[:, 0])
    for name, old in before.items():
        new = optimizer.moments[name]
        assert torch.equal(new[:, 0], old[:, 0])
        if name == "b_dec":
            assert torch.equal(new, old)
        else:
            assert torch.equal(new[:, 1, ~silent], old[:, 1, ~silent])
            assert old[:, 1, silent].all()
            assert not new[:, 1, silent].any()


@METHODS
def test_each_members_loss_and_gradients_are_those_it_has_alone(method: AuxK | GhostGradients) -> None:
    """Members with other silent latents, one with none, other coefficients, residuals and tokens."""
    coefficients, silent = (0.5, 2.0, 1.0, 0.25), [dead(*SILENT), dead(), dead(7, 10), dead(*range(D_SAE))]
    k_aux = {"k_aux": 2} if isinstance(method, AuxK) else {}
    methods = [type(method)(coefficient=coefficient, **k_aux) for coefficient in coefficients]
    saes, tokens = list[SAE](), list[Tensor]()
    for m in range(4):
        sae, x = sae_with_known_fates(bias=True)
        with torch.no_grad():
            sae.W_dec.copy_(sae.W_dec.roll(m, dims=1))
            sae.b_dec.fill_(0.02 * m)
        saes.append(sae)
        tokens.append((1 + m) * x.roll(m, dims=0))
    expected = []
    for one, sae, y, who in zip(methods, saes, tokens, silent, strict=True):
        loss = loss_of(one, sae, y, residual(sae, y), who)
        grads = torch.autograd.grad(loss, list(sae.parameters()), allow_unused=True) if loss.requires_grad else ()
        expected.append((loss.detach(), dict(zip(dict(sae.named_parameters()), grads, strict=False))))
    left = torch.stack([residual(sae, y) for sae, y in zip(saes, tokens, strict=True)])
    weights, y = stack_weights(saes), torch.stack(tokens)
    centered = (y - weights.b_dec[:, None]).detach()
    losses = method.losses(methods, weights, centered, left, torch.stack(silent))  # type: ignore[arg-type]
    assert torch.allclose(losses, torch.stack([loss for loss, _ in expected]), rtol=1e-12, atol=0)
    assert losses[1] == 0
    losses.sum().backward()
    for m, (_, alone) in enumerate(expected):
        for name, parameter in weights.parameters.items():
            wanted, found = alone.get(name), parameter.grad
            if wanted is None:
                assert found is None or not found[m].any(), (m, name)
            else:
                assert found is not None
                assert torch.allclose(found[m], wanted, rtol=1e-10, atol=1e-14), (m, name)


def test_the_same_generator_redraws_the_same() -> None:
    rows = []
    for seed in (0, 0, 1):
        sae, x = sae_with_known_fates()
        resample(sae, x, torch.zeros_like(x), dead(*SILENT), seed=seed)
        rows.append(sae.W_dec.detach().clone())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("why", ["perfect", "nobody is dead"])
def test_nothing_is_redrawn_from_a_perfect_batch_or_where_nobody_is_dead(why: str) -> None:
    sae, x = sae_with_known_fates()
    before = [value.detach().clone() for value in sae.parameters()]
    y_hat, silent = (x, dead(*SILENT)) if why == "perfect" else (torch.zeros_like(x), dead())
    assert resample(sae, x, y_hat, silent).tolist() == []
    assert all(torch.equal(a, b) for a, b in zip(before, sae.parameters(), strict=True))


def test_resampling_is_due_after_every_so_many_steps_up_to_the_last() -> None:
    def due(until_step: int | None) -> list[int]:
        method = Resampling(every_steps=10, until_step=until_step)
        return [step + 1 for step in range(50) if method.due(step)]

    assert due(None) == [10, 20, 30, 40, 50]
    assert due(30) == [10, 20, 30]
    assert due(29) == [10, 20]
    assert due(0) == []


@pytest.mark.parametrize(
    ("steps", "until", "silence", "counted", "last"),
    [
        (1000, None, 100, 10**9, 900),  # a tenth of the steps
        (1000, 900, 100, 10**9, 900),
        (1000, 899, 100, 10**9, 899),
        (1005, None, 100, 10**9, 904),
        (1000, None, 1001, 10**9, 899),  # silence of the resampling: 101 batches of 10 tokens
        (1000, None, 1000, 10**9, 900),
        (1000, None, 100, 1001, 899),  # silence of the records
        (1000, None, 100, 10_000, 0),
        (1000, None, 100, 10_001, 900),  # no record counts the dead
        (1000, None, 20_000, 100, 0),
    ],
)
def test_resampling_is_never_the_last_thing_that_happens(
    steps: int, until: int | None, silence: int, counted: int, last: int
) -> None:
    method = Resampling(every_steps=1, until_step=until, dead_after_tokens=silence)
    config = TrainConfig(steps=steps, lr=1e-3, batch_tokens=10, dead_after_tokens=counted, resampling=method)
    assert config.last_resampling() == last
    assert [step + 1 for step in range(steps) if config.resamples(step)] == [*range(1, last + 1)]
    assert not any(replace(config, resampling=None).resamples(step) for step in range(steps))


def test_a_latent_that_never_fires_is_not_counted_alive_at_the_end_because_it_was_drawn_afresh() -> None:
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(5)) + 1
    sae = born(untouched(8), d_sae=32, sparsity=TopK(k=4), sample=x)
    # Rows so short stay behind: no token selects them, and a latent that is not selected does not learn.
    method = Resampling(every_steps=1, dead_after_tokens=500, encoder_norm=1e-30)
    config = TrainConfig(steps=20, lr=0.3, batch_tokens=250, dead_after_tokens=750, resampling=method)
    training = Training([Member(sae=sae, config=config)], x)
    records = [records[0] for records in training]
    assert training.last_resampling(0)[0] <= config.last_resampling() == 17
    assert sum(record.resampled for record in records) > 0
    end = records[-1].dead
    assert end is not None
    assert end == float((training._account.watch.since_fired >= 750).double().mean()) > 0


def test_resampling_that_cannot_be_is_refused() -> None:
    for bad in ({"every_steps": 0}, {"every_steps": 1, "encoder_norm": 0.0}):
        with pytest.raises(InputError, match="Resampling: expected every_steps >= 1, dead_after_tokens >= 1, enc"):
            Resampling(**bad)


def test_gradients_for_the_silent_that_cannot_be_are_refused() -> None:
    for kind, bad in (
        (AuxK, {"k_aux": 0}),
        (AuxK, {"coefficient": -1.0}),
        (GhostGradients, {"dead_after_tokens": 0}),
    ):
        with pytest.raises(InputError, match="expected coefficient >= 0, dead_after_tokens >= 1"):
            kind(**bad)


def test_auxk_of_a_residual_that_does_not_vary_is_zero() -> None:
    sae, y = sae_with_known_fates()
    assert float(loss_of(AuxK(), sae, y, torch.zeros_like(y), torch.ones(sae.d_sae, dtype=torch.bool))) == 0.0


@pytest.mark.parametrize("kind", ["adam", "sparse_adam"])
def test_training_with_resampling_revives_the_dead_and_says_how_many(kind: Name) -> None:
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(5)) + 1
    sae = born(
        untouched(8),
        d_sae=32,
        sparsity=TopK(k=4),
        sample=x,
        generator=torch.Generator().manual_seed(0),
        encoder_bias=True,
    )
    assert sae.b_enc is not None
    with torch.no_grad():
        sae.b_enc[:12] = -100.0
    method = Resampling(every_steps=3, until_step=3, dead_after_tokens=750, encoder_norm=1.0)
    config = TrainConfig(
        steps=6, lr=1e-3, batch_tokens=250, dead_after_tokens=750, optimizer=kind, resampling=method
    )
    training = Training([Member(sae=sae, config=config)], x)
    first, second, third, *after = (records[0] for records in training)
    assert training.last_resampling(0) == (3, third.resampled)
    assert [record.resampled for record in (first, second, *after)] == [0, 0, 0, 0, 0]
    assert third.resampled >= 12
    assert third.died == third.resampled
    assert third.dead == third.dead_by_relu == 0  # counted as just seen
    # Others may have died, the twelve have not.
    assert all(record.dead is not None and record.dead < 12 / 32 for record in after)
    # Drawn afresh is not fired: they have never fired until they do.
    assert second.never_fired == third.never_fired >= 12 / 32
    assert after[0].never_fired < third.never_fired
    assert Training([Member(sae=sae, config=config)], x).last_resampling(0) == (0, 0)
    assert float((sae.encode(x)[:, :12] > 0).any(dim=0).float().mean()) > 0.9
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(32), atol=1e-5)


def test_training_with_resampling_is_the_same_twice() -> None:
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(5)) + 1
    method = Resampling(every_steps=2, dead_after_tokens=200)
    config = TrainConfig(steps=5, lr=1e-2, batch_tokens=200, resampling=method)
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        sae = born(untouched(8), d_sae=32, sparsity=TopK(k=1), sample=x, generator=generator)
        runs.append((train(sae, x, config), sae.W_enc.detach().clone()))
    assert runs[0][0] == runs[1][0]
    assert sum(record.resampled for record in runs[0][0]) > 0
    assert torch.equal(runs[0][1], runs[1][1])
