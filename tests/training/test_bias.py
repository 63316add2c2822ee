"""How `b_dec` learns: rates, steps, and an encoder whose centre stays."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.defaults import BiasName, Format
from autopsae.diagnosis.prescription import Prescription
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.recentre import recentre
from autopsae.interop.convert import load_sae, save_sae
from autopsae.remedies.remedy import center
from autopsae.run.finished import name_kinds
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.sae.weights import Weights
from autopsae.training.bias import BIASES, Bias, bias_of_rate
from autopsae.training.config import TrainConfig
from autopsae.training.loop import Training
from autopsae.training.objective import reconstruction_losses
from autopsae.training.one import train
from autopsae.training.optimizers import Optimizer
from autopsae.training.revival import Resampling
from autopsae.training.sources import Member
from autopsae.training.terms import with_defaults
from autopsae.training.together import stack_weights

D_IN, D_SAE, K = 6, 24, 3
Adams = ("adam", "sparse_adam")


def tokens(seed: int = 0) -> Float[Tensor, "512 6"]:
    return torch.randn(512, D_IN, generator=torch.Generator().manual_seed(seed)) + torch.arange(6.0)


def new_sae(*, seed: int = 0, encoder_bias: bool = False) -> SAE:
    x = tokens()
    return born(
        center(x.mean(dim=0).double(), "mean"),
        d_sae=D_SAE,
        sparsity=TopK(k=K),
        sample=x,
        encoder_bias=encoder_bias,
        generator=torch.Generator().manual_seed(seed),
    )


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 12, "lr": 1e-2, "batch_tokens": 64, **changes})


def untied(sae: SAE) -> SAE:
    """An SAE whose b_dec has moved away from what its encoder subtracts."""
    sae.fix_encoder_center()
    with torch.no_grad():
        sae.b_dec.add_(torch.linspace(-0.5, 0.5, D_IN))
    return sae.eval()


def test_with_a_fixed_encoder_center_codes_are_those_of_the_centre_at_the_start() -> None:
    x, sae = tokens(), new_sae()
    start = sae.b_dec.detach().clone()
    train(sae, x, settings(bias=BIASES["decoder"]))
    assert sae.b_pre is not None
    assert torch.equal(sae.b_pre, start)
    assert float((sae.b_dec.detach() - start).abs().max()) > 0.01
    with torch.no_grad():
        pre = (sae.affine(x) - start) @ sae.W_enc.T
        top = pre.topk(K, dim=1)
        codes = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        assert torch.allclose(sae.encode(x), codes, atol=1e-5)
        assert torch.allclose(sae(x), sae.affine.invert(codes @ sae.W_dec + sae.b_dec), atol=1e-4)
        assert torch.allclose(sae.pre_activations(sae.affine(x)), pre, atol=1e-5)


@pytest.mark.parametrize("nested", [(), (8,)])
def test_gradients_are_those_of_the_loss_in_which_the_encoder_center_is_a_constant(nested: tuple[int, ...]) -> None:
    saes = [new_sae(seed=0), untied(new_sae(seed=1)), new_sae(seed=2)]
    y = saes[0].affine(tokens())[:40].expand(3, -1, -1)
    weights = stack_weights(saes)
    selection, centered = weights.select(y, training=True)
    loss = reconstruction_losses(weights, weights.decoder_target(y, centered), selection, nested)[2]
    loss.sum().backward()
    for m, sae in enumerate(saes):
        W_enc, W_dec, b_dec = (p.detach().clone().requires_grad_() for p in (sae.W_enc, sae.W_dec, sae.b_dec))
        pre = (y[m] - (b_dec if sae.b_pre is None else sae.b_pre)) @ W_enc.T
        top = pre.topk(K, dim=1)
        codes = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        errors = [(y[m] - codes[:, :size] @ W_dec[:size] - b_dec).square().sum() / 40 for size in (*nested, D_SAE)]
        plain: Tensor = sum(errors[1:], errors[0]) / len(errors)
        plain.backward()
        assert float(loss[m].detach()) == pytest.approx(float(plain.detach()), rel=1e-5)
        for name, leaf in (("W_enc", W_enc), ("W_dec", W_dec), ("b_dec", b_dec)):
            grad = weights.parameters[name].grad
            assert grad is not None
            assert leaf.grad is not None
            assert torch.allclose(grad[m], leaf.grad, atol=1e-4), (m, name)


@pytest.mark.parametrize("optimizer", [*Adams, "sign_sgd"])
def test_b_dec_learns_from_one_step_until_another(optimizer: str) -> None:
    x, sae = tokens(), new_sae()
    config = settings(optimizer=optimizer, bias=Bias(from_step=4, until_step=9))
    moved, before = [], sae.b_dec.detach().clone()
    training = Training([Member(sae=sae, config=config)], x)
    for _ in training.each_step():
        moved.append(bool((sae.b_dec != before).any()))
        before = sae.b_dec.detach().clone()
    assert moved == [False] * 4 + [True] * 5 + [False] * 3


def test_a_released_b_dec_moves_as_under_an_adam_that_begins_then() -> None:
    weights, gradients = _weights(), torch.randn(9, 2, D_IN, generator=torch.Generator().manual_seed(3))
    biases = [Bias(from_step=4), Bias(lr_fraction=0.5)]
    optimizer = Optimizer(weights, [settings(bias=bias, unit_decoder=False) for bias in biases])
    oracles = [weights.b_dec[m].detach().clone().requires_grad_() for m in range(2)]
    adams = [torch.optim.Adam([leaf], lr=lr) for leaf, lr in zip(oracles, (1e-2, 5e-3), strict=True)]
    for step, gradient in enumerate(gradients):
        for parameter in weights.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        weights.b_dec.grad = gradient.clone()
        optimizer.step(torch.ones(2, dtype=torch.float64))
        for m, (leaf, adam) in enumerate(zip(oracles, adams, strict=True)):
            if step >= biases[m].from_step:
                leaf.grad = gradient[m].clone()
                adam.step()
            assert torch.allclose(weights.b_dec[m], leaf, atol=1e-6), (step, m)


def test_a_bias_that_waits_does_not_count_in_the_norm_that_is_clipped() -> None:
    weights = _weights()
    for parameter in weights.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    grad = weights.b_dec.grad
    assert grad is not None
    grad *= 1e3
    biases = (Bias(), Bias(from_step=2))
    sign = {"optimizer": "sign_sgd", "unit_decoder": False}
    optimizer = Optimizer(weights, [settings(clip_norm=1.0, bias=bias, **sign) for bias in biases])
    optimizer.step(torch.ones(2, dtype=torch.float64))
    written = weights.W_enc.grad
    assert written is not None
    one, other = written[:, 0, 0].tolist()
    entries = 2 * D_SAE * D_IN
    assert one == pytest.approx((entries + 1e6 * D_IN) ** -0.5, rel=1e-4)
    assert other == pytest.approx(entries**-0.5, rel=1e-4)


def _weights() -> Weights:
    return stack_weights([new_sae(seed=0), new_sae(seed=1)])


def test_folding_a_fixed_encoder_center_changes_no_code_and_no_reconstruction() -> None:
    x = tokens()
    for encoder_bias in (False, True):
        sae = untied(new_sae(encoder_bias=encoder_bias))
        if sae.b_enc is not None:
            sae.b_enc.data += torch.linspace(0, 1, D_SAE)
        folded = sae.fold()
        assert folded.b_pre is None
        assert torch.allclose(folded.encode(x), sae.encode(x), atol=1e-4)
        assert torch.allclose(folded(x), sae(x), atol=1e-4)


@pytest.mark.parametrize("to", get_args(Format))
def test_every_format_keeps_the_reconstructions_under_a_fixed_encoder_center(to: Format, tmp_path: Path) -> None:
    x, sae = tokens(), untied(new_sae())
    save_sae(sae, tmp_path / "sae", to=to)
    loaded = load_sae(tmp_path / "sae")
    assert (loaded.b_pre is not None) == (to == "autopsae")
    with torch.no_grad():
        assert torch.allclose(loaded(x), sae(x), atol=1e-3)


def test_an_autopsy_measures_latents_from_what_the_encoder_subtracts() -> None:
    x, sae = tokens(), untied(new_sae())
    for row in range(4):  # these never fire, as they look away from every token
        sae.W_enc.data[row] = -20 * torch.ones(D_IN)
    # The same SAE, with its centre moved into the encoder bias; in the same space, unlike that of `fold`.
    moved = (sae.W_enc @ (sae.b_dec - sae.encoder_center)).detach()
    plain = SAE(
        W_enc=sae.W_enc, W_dec=sae.W_dec, b_dec=sae.b_dec, b_enc=moved, sparsity=TopK(k=K), affine=sae.affine
    ).eval()
    one, other = autopsy(sae, x), autopsy(plain, x)
    assert torch.equal(one.fired, other.fired)
    assert torch.allclose(one.shift, other.shift, atol=1e-4)
    assert torch.allclose(one.max_pre, other.max_pre, atol=1e-4)
    # Without an encoder bias the whole shift is the centre's.
    assert torch.allclose(one.shift, sae.W_enc.detach() @ (one.center.float() - sae.encoder_center), atol=1e-4)


def test_recentring_keeps_the_codes_of_living_latents_where_the_encoder_center_is_fixed() -> None:
    x, sae = tokens(), untied(new_sae())
    is_dead = torch.zeros(D_SAE, dtype=torch.bool)
    is_dead[3] = True
    after = recentre(sae, center=torch.full((D_IN,), 0.1), is_dead=is_dead)
    y = sae.affine(x)
    with torch.no_grad():
        expected = sae.pre_activations(y)
        expected[:, 3] = (y - 0.1) @ sae.W_enc[3]
        assert torch.allclose(after.pre_activations(y), expected, atol=1e-4)


def test_a_latent_is_drawn_afresh_in_the_direction_from_what_the_encoder_subtracts() -> None:
    sae = untied(new_sae())
    weights, y = sae.weights, sae.affine(tokens())[:1]
    is_dead = torch.zeros(D_SAE, dtype=torch.bool)
    is_dead[5] = True
    Resampling(every_steps=1).apply(weights, 0, y, y, is_dead, torch.Generator().manual_seed(0))
    assert sae.b_pre is not None
    expected = torch.nn.functional.normalize(y[0] - sae.b_pre, dim=0)
    assert torch.allclose(sae.W_dec[5], expected, atol=1e-5)


def test_a_later_training_keeps_the_fixed_center() -> None:
    x, sae = tokens(), untied(new_sae())
    assert sae.b_pre is not None
    before = sae.b_pre.clone()
    train(sae, x, settings(bias=BIASES["decoder"]))
    train(sae, x, settings())
    assert torch.equal(sae.b_pre, before)


def test_settings_of_earlier_versions_are_read() -> None:
    kept = {"lr": "0.001", "steps": "10"}
    assert with_defaults({**kept, "b_dec_lr": "None"}) == with_defaults(kept)
    slow = with_defaults({**kept, "b_dec_lr": "0.0005"})["bias"]
    assert slow == repr(Bias(lr_fraction=0.5))
    assert bias_of_rate(None, lr=1.0) == Bias()


def test_a_summary_names_how_the_bias_learned() -> None:
    said = name_kinds(settings(bias=Bias(lr_fraction=0.1, until_step=5)))["bias"]
    assert said == {"lr_fraction": 0.1, "decoder_only": False, "from_step": 0, "until_step": 5}


def test_the_ways_are_named_as_the_command_line_names_them() -> None:
    assert get_args(BiasName) == (*BIASES,)
    assert [bias.lr_fraction for bias in BIASES.values()] == [1.0, 0.1, 0.0, 1.0]
    assert BIASES["decoder"] == replace(Bias(), decoder_only=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr_fraction": -0.1}, "Bias: expected lr_fraction >= 0 and finite, got -0.1"),
        ({"lr_fraction": float("inf")}, "Bias: expected lr_fraction >= 0 and finite, got inf"),
        ({"from_step": -1}, "Bias: expected 0 <= from_step < until_step, got -1 and None"),
        (
            {"from_step": 5, "until_step": 5},
            "expected 0 <= from_step < until_step, got 5 and 5; lr_fraction=0 keeps",
        ),
    ],
)
def test_a_bias_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Bias(**wrong)


def test_a_prescription_keeps_how_the_bias_shall_learn(tmp_path: Path) -> None:
    usual = Prescription(
        remedy=center(torch.ones(D_IN, dtype=torch.float64), "median"),
        reason="because",
        layer="hs1",
        d_sae=D_SAE,
        sparsity=TopK(k=K),
        scale=1.0,
    )
    for bias in (Bias(), Bias(lr_fraction=0.25, until_step=7)):
        replace(usual, bias=bias).save(tmp_path / "p")
        assert Prescription.load(tmp_path / "p").bias == bias
        # Files without it are those of earlier versions, and are read by them.
        assert ("bias" in json.loads((tmp_path / "p.json").read_text())) == (bias != Bias())
