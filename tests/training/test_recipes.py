"""Published settings: their losses and gradients by dense matrices in float64, and that they train."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, ReLU
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.memory import bytes_needed
from autopsae.training.objective import L1, L0Target
from autopsae.training.one import train
from autopsae.training.recipes import Recipe, jumprelu_paper, paper_recipe, relu_lindsey
from autopsae.training.revival import AuxK
from autopsae.training.sources import Member
from autopsae.training.terms import terms

D_IN, D_SAE = 8, 24


def tokens(n: int = 500, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, D_IN, generator=generator, dtype=torch.float64) + 0.5


def new_sae(recipe: Recipe, *, scaled: bool = True) -> SAE:
    sae = born(
        untouched(D_IN),
        d_sae=D_SAE,
        sparsity=recipe.sparsity,
        sample=tokens(),
        scaled=scaled,
        dtype=torch.float64,
        **recipe.birth,
    )
    with torch.no_grad():
        noise = torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        sae.W_dec.add_(0.1 * noise)
    return sae


def one_step(sae: SAE, x: Tensor, recipe: Recipe, **more: Any) -> tuple[float, dict[str, Tensor]]:
    """(the loss, the gradients) of the first step on all tokens; nothing moves."""
    settings: dict[str, Any] = {"steps": 20, "lr": 1e-300, "batch_tokens": len(x), **recipe.training, **more}
    sweep = Training([Member(sae=sae, config=TrainConfig(**settings))], x)
    records = sweep.advance()
    assert records is not None
    parameters = sweep._weights.parameters
    return records[0].loss, {name: p.grad[0].clone() for name, p in parameters.items() if p.grad is not None}


@pytest.mark.parametrize("scaled", [True, False])
def test_the_papers_jumprelu_minimises_the_squared_error_and_the_square_of_the_relative_distance_to_64(
    scaled: bool,
) -> None:
    """Thresholds and bandwidth 0.001; no factor d_in. Many copies of one token put some latents into the kernel."""
    recipe, x = jumprelu_paper(), tokens()
    sae = new_sae(recipe, scaled=scaled)
    assert recipe.sparsity == JumpReLU(start=0.001, bandwidth=0.001)
    assert sae.threshold is not None
    assert torch.allclose(sae.threshold, torch.full_like(sae.threshold, 0.001), rtol=1e-12)
    assert (sae.scale == 1) == (not scaled)
    y = sae.enter(x)[0]
    with torch.no_grad():  # every third latent is within the kernel on the first token
        assert sae.b_enc is not None
        off = torch.linspace(-4e-4, 4e-4, 8, dtype=torch.float64)
        sae.b_enc[::3] += 0.001 + off - sae.pre_activations(y)[0, ::3]
    loss, gradients = one_step(sae, x, recipe)
    pre, threshold = sae.pre_activations(y).detach(), sae.threshold.detach()
    fires, near = pre > threshold, (pre - threshold).abs() < 0.0005
    assert int(near.sum()) >= 8
    codes = pre * fires
    residual = (codes @ sae.W_dec + sae.b_dec - y).detach()
    away = float(fires.sum()) / len(x) / 64 - 1
    assert loss == pytest.approx(float(residual.square().sum(dim=1).mean()) + away**2, rel=1e-12)
    # d loss / d threshold = -K / bandwidth * (threshold * d error / d code + d penalty / d gate)
    of_code = 2 * residual @ sae.W_dec.T / len(x)
    of_gate = 2 * away / 64 / len(x)
    slope = -(near * (threshold * of_code + of_gate)).sum(dim=0) / 0.001 * threshold
    assert torch.allclose(gradients["log_threshold"], slope.detach(), rtol=1e-9, atol=1e-14)


def test_the_published_l0_penalty_is_that_with_the_factor_over_d_in() -> None:
    recipe, x = jumprelu_paper(l0=3.0), tokens()
    loss, gradients = one_step(new_sae(recipe), x, recipe)
    as_ours = L0Target(l0=3.0, coefficient=1 / D_IN)
    other, others = one_step(new_sae(recipe), x, recipe, penalty=as_ours)
    assert loss == pytest.approx(other, rel=1e-12)
    assert gradients.keys() == others.keys() == {"W_enc", "W_dec", "b_dec", "b_enc", "log_threshold"}
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, others[name], rtol=1e-12, atol=1e-300), name


def test_lindseys_relu_weighs_codes_by_decoder_norms_and_clips_the_gradient_to_one() -> None:
    recipe, x = relu_lindsey(steps=40, l1=0.7), tokens()
    sae = new_sae(recipe)
    loss, gradients = one_step(sae, x, recipe, steps=40)
    y = sae.enter(x)[0]
    codes = sae.pre_activations(y).relu()
    error = (codes @ sae.W_dec + sae.b_dec - y).square().sum(dim=1)
    # The coefficient is at a third in the first of two steps of warm-up and the one after.
    expected = (error + 0.7 / 3 * (codes * sae.W_dec.norm(dim=1)).sum(dim=1)).mean()
    sae.zero_grad()
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-12)
    plain = {name: p.grad for name, p in sae.named_parameters()}
    norm = torch.stack([g.square().sum() for g in plain.values() if g is not None]).sum().sqrt()
    assert norm > 1
    for name, gradient in plain.items():
        assert gradient is not None
        # Free rows: the part of the gradient along them stays.
        assert torch.allclose(gradients[name], gradient / (norm + 1e-6), rtol=1e-9, atol=1e-12), name


def test_lindseys_schedules_are_shares_of_the_steps() -> None:
    config = TrainConfig(steps=200, lr=1e-3, **relu_lindsey(steps=200).training)
    assert config.penalty == L1(coefficient=5.0, warmup_steps=10)
    assert isinstance(config.penalty, L1)
    assert [config.penalty.at(step) for step in (0, 10, 199)] == pytest.approx([5 / 11, 5.0, 5.0])
    assert (config.rate(0), config.rate(159), config.rate(180), config.rate(199)) == (1.0, 1.0, 0.5, 1 / 40)
    assert not config.unit_decoder
    assert config.clip_norm == 1.0
    assert relu_lindsey(steps=1).training["decay_steps"] == 0


@pytest.mark.parametrize(
    "recipe", [jumprelu_paper(l0=3.0), relu_lindsey(steps=300, l1=0.3)], ids=["jumprelu", "relu"]
)
def test_a_recipe_trains(recipe: Recipe) -> None:
    sae = new_sae(recipe)
    records = train(sae, tokens(), TrainConfig(steps=300, lr=3e-3, batch_tokens=200, **recipe.training))
    first, last = records[0].fvu, records[-1].fvu
    assert first is not None
    assert last is not None
    assert last < 0.5 * first
    unit = torch.ones(D_SAE, dtype=torch.float64)
    assert torch.allclose(sae.W_dec.norm(dim=1), unit) == (recipe.sparsity != ReLU())


def test_the_memory_of_thresholds_at_almost_nothing_is_that_of_relu() -> None:
    config = TrainConfig(steps=1, lr=1e-3, batch_tokens=100_000)
    sparsities = (jumprelu_paper().sparsity, ReLU(), JumpReLU(start=2.5))
    saes = [new_sae(Recipe(sparsity=s, birth={"encoder_bias": True}, training={})) for s in sparsities]
    paper, relu, high = (bytes_needed(Member(sae=sae, config=config)) for sae in saes)
    assert relu < paper < 1.4 * relu  # as many pairs, and gates
    assert paper > 2 * high


def test_recipes_by_name_and_those_that_there_are_not() -> None:
    assert paper_recipe("jumprelu", l0=32.0, l1=None, steps=9) == jumprelu_paper(l0=32.0)
    assert paper_recipe("relu", l0=64.0, l1=None, steps=9) == relu_lindsey(steps=9)
    assert paper_recipe("relu", l0=64.0, l1=2.0, steps=9) == relu_lindsey(steps=9, l1=2.0)
    message = (
        "recipe: expected the sparsity jumprelu or relu, whose published settings .*, got topk; leave the recipe"
    )
    with pytest.raises(InputError, match=message):
        paper_recipe("topk", l0=64.0, l1=None, steps=9)
    for bad in (0, 2.5):
        with pytest.raises(InputError, match="steps: expected a whole number"):
            relu_lindsey(steps=bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="L0Target: expected l0 > 0"):
        jumprelu_paper(l0=0.0)
    with pytest.raises(InputError, match="L1: expected coefficient >= 0"):
        relu_lindsey(steps=9, l1=-1.0)


def test_a_checkpoint_of_before_has_the_same_settings_and_the_factor_is_among_them() -> None:
    def penalty(**more: Any) -> str:
        config = TrainConfig(steps=9, lr=1e-3, penalty=L0Target(l0=64.0, **more), revival=AuxK())
        said = terms(Member(sae=new_sae(jumprelu_paper()), config=config))["settings"]["penalty"]
        assert isinstance(said, str)
        return said

    assert penalty() == "L0Target(l0=64.0, coefficient=0.2)"
    assert penalty(times_d_in=False) == "L0Target(l0=64.0, coefficient=0.2, times_d_in=False)"
