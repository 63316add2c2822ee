"""dictionary_learning's own training, cured by one call: it takes raw tokens and stores weights for them."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.nnsight_patches import take_back_patches

from autopsae.arrays import InputError
from autopsae.cure import cure_dictionary_learning, map_tokens, peek
from autopsae.interop import load_sae
from autopsae.remedies.remedy import center
from autopsae.training.bias import BIASES, Bias
from tests.cure.cases import (
    CENTERED,
    D_IN,
    D_SAE,
    MEDIAN,
    NARROW,
    WHITENED,
    K,
    X,
    batches,
    fvu,
    mapped,
    prescribed,
    silent,
)

pytest.importorskip("dictionary_learning.trainers")
LR = 1e-3
TRAINERS = ["TopKTrainer", "BatchTopKTrainer", "StandardTrainer", "JumpReluTrainer", "GatedSAETrainer"]


def trainer_of(name: str) -> tuple[Any, dict[str, Any]]:
    import dictionary_learning.trainers as library

    take_back_patches()
    settings: dict[str, Any] = {
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "lr": LR,
        "steps": 20,
        "layer": 1,
        "lm_name": "none",
        "device": "cpu",
        "warmup_steps": 0,
    }
    settings |= {"k": K} if "TopK" in name else {"sparsity_warmup_steps": None}
    return getattr(library, name), settings


def cured(name: str, prescription: Any = CENTERED, **more: Any) -> Any:
    base, settings = trainer_of(name)
    torch.manual_seed(0)
    return cure_dictionary_learning(base, prescription)(**settings, **more)


def bias_of(ae: Any) -> torch.Tensor:
    names = [name for name in ("b_dec", "bias", "decoder_bias") if hasattr(ae, name)]
    bias: torch.Tensor = getattr(ae, names[0]).detach()
    return bias


def for_raw_tokens(trainer: Any) -> Any:
    """The dictionary as whoever loads it has it."""
    base, settings = trainer_of(type(trainer).__name__)
    ae = base(**settings).ae
    ae.load_state_dict(trainer.ae.state_dict())
    return ae


@pytest.mark.parametrize("prescription", [CENTERED, WHITENED], ids=["centre", "whitening"])
@pytest.mark.parametrize("name", TRAINERS)
def test_cured_dictionaries_live_on_raw_tokens_from_the_first_step_to_the_last(
    name: str, prescription: Any
) -> None:
    base, settings = trainer_of(name)
    trainer = cured(name, prescription)
    assert type(trainer).__name__ == name
    assert isinstance(trainer, base)
    assert silent(base(**settings).ae.encode(X)) > 0.2
    assert silent(for_raw_tokens(trainer).encode(X)) < 0.02
    for step, x in enumerate(itertools.islice(batches(), 20)):
        trainer.update(step, x)
    assert silent(for_raw_tokens(trainer).encode(X)) < 0.1


@pytest.mark.parametrize("prescription", [CENTERED, WHITENED], ids=["centre", "whitening"])
@pytest.mark.parametrize("name", TRAINERS)
def test_weights_for_raw_tokens_give_the_same_reconstructions(name: str, prescription: Any) -> None:
    trainer = cured(name, prescription)
    for step, x in enumerate(itertools.islice(batches(), 3)):
        trainer.update(step, x)
    scale = prescription.scale
    y = mapped(prescription)
    expected = prescription.remedy.affine.invert(trainer.ae(y.float()).detach().double() / scale).float()
    raw = for_raw_tokens(trainer)
    torch.testing.assert_close(raw(X).detach(), expected, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(raw.encode(X), trainer.ae.encode(y.float()) / scale, rtol=1e-2, atol=1e-2)


def test_what_was_stored_can_be_loaded_to_go_on() -> None:
    trainer, again = cured("TopKTrainer", WHITENED), cured("TopKTrainer", WHITENED)
    trainer.update(0, next(batches()))
    again.ae.load_state_dict(trainer.ae.state_dict())
    for a, b in zip(again.ae.parameters(), trainer.ae.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert float(trainer.ae.threshold) == float(trainer.ae.state_dict()["threshold"]) == -1  # none is learned


@pytest.mark.parametrize("name", TRAINERS)
def test_the_first_step_leaves_our_centre(name: str) -> None:
    trainer = cured(name, prescribed(center(MEDIAN + 1.0, "median")))  # the first batch's median would be seen
    assert not bias_of(trainer.ae).any()
    for step, x in enumerate(itertools.islice(batches(), 5)):
        trainer.update(step, x)
    assert 0 < float(bias_of(trainer.ae).abs().max()) <= 5 * LR * 3


@pytest.mark.parametrize("name", ["TopKTrainer", "StandardTrainer", "GatedSAETrainer"])
@pytest.mark.parametrize("fraction", [0.0, 0.1])
def test_the_bias_learns_at_the_prescribed_fraction_of_the_rate(name: str, fraction: float) -> None:
    """Adam's first step is as long as the learning rate; ConstrainedAdam's step calls that of its parent class."""
    trainer = cured(name, prescribed(center(MEDIAN, "median"), bias=Bias(lr_fraction=fraction)))
    trainer.update(0, next(batches()))
    expected = torch.full((D_IN,), fraction * LR)
    torch.testing.assert_close(bias_of(trainer.ae).abs(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "scale"), [("TopKTrainer", 0.25), ("BatchTopKTrainer", 0.25), ("StandardTrainer", 1.0)]
)
def test_an_encoder_of_the_prescribed_length_turns_as_fast_as_one_of_length_1(name: str, scale: float) -> None:
    """A penalty, as StandardTrainer has one, is set for codes of the usual size."""
    torch.manual_seed(0)
    usual = cured(name, CENTERED).ae.encoder.weight.detach().clone()
    torch.manual_seed(0)
    trainer = cured(name, replace(CENTERED, encoder_scale=0.25))
    start = trainer.ae.encoder.weight.detach().clone()
    torch.testing.assert_close(start, usual * scale)
    trainer.update(0, next(batches()))
    moved = (trainer.ae.encoder.weight.detach() - start).abs()
    assert float(moved.max()) == pytest.approx(scale * LR, rel=1e-2)
    assert float(bias_of(trainer.ae).abs().max()) == pytest.approx(LR, rel=1e-2)


def test_a_bias_of_the_decoder_alone_is_refused_unless_it_acts_so_anyway() -> None:
    prescription = prescribed(center(MEDIAN, "median"), bias=BIASES["decoder"])
    with pytest.raises(InputError, match="which dictionary_learning cannot train; train with autopsae or SAELens"):
        cured("TopKTrainer", prescription)
    cured("JumpReluTrainer", prescription)


def test_a_cured_trainer_goes_through_train_sae(tmp_path: Path) -> None:
    from dictionary_learning.training import trainSAE

    base, settings = trainer_of("TopKTrainer")
    _, whole = peek(batches(), 1000)

    def train(**more: Any) -> None:
        config = {"trainer": cure_dictionary_learning(base, WHITENED), **settings}
        trainSAE(
            data=whole,
            trainer_configs=[config],
            steps=20,
            save_dir=str(tmp_path),
            autocast_dtype=torch.float32,
            device="cpu",
            **more,
        )

    train()
    sae = load_sae(tmp_path / "trainer_0")
    assert fvu(sae(X).detach()) < 1
    assert float((sae.b_dec.detach() - MEDIAN).norm() / MEDIAN.norm()) < 0.05
    with pytest.raises(InputError, match=r"got trainSAE\(normalize_activations=True\); leave it out"):
        train(normalize_activations=True)


def test_what_is_logged_of_raw_tokens_is_mapped_too() -> None:
    trainer = cured("TopKTrainer", WHITENED)
    log = trainer.loss(X[:64], step=0, logging=True)
    torch.testing.assert_close(log.x, mapped(WHITENED, X[:64]).float(), rtol=1e-4, atol=1e-4)


def test_rows_begin_in_the_subspace() -> None:
    assert NARROW.remedy.subspace is not None
    basis = NARROW.remedy.subspace.float()
    for name in ("TopKTrainer", "JumpReluTrainer"):
        ae = cured(name, NARROW).ae
        W = (ae.encoder.weight if hasattr(ae, "encoder") else ae.W_enc.T).detach()
        torch.testing.assert_close(W @ basis.T @ basis, W, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(W.norm(dim=1), torch.ones(D_SAE))


def test_a_dictionary_without_a_bias_before_the_encoder_is_centered_by_its_tokens() -> None:
    from dictionary_learning.dictionary import AutoEncoderNew

    trainer = cured("StandardTrainer", dict_class=AutoEncoderNew)
    trainer.update(0, next(batches()))
    raw = AutoEncoderNew(D_IN, D_SAE)
    raw.load_state_dict(trainer.ae.state_dict())
    y = mapped(CENTERED).float()
    torch.testing.assert_close(raw.encode(X), trainer.ae.encode(y) / CENTERED.scale, rtol=1e-3, atol=1e-3)


def test_a_wrong_width_is_refused_when_the_dictionary_is_made() -> None:
    base, settings = trainer_of("TopKTrainer")
    with pytest.raises(InputError, match="d_in = 7"):
        cure_dictionary_learning(base, CENTERED)(**{**settings, "activation_dim": 7})


def test_mapped_tokens_train_any_trainer() -> None:
    base, settings = trainer_of("TopKTrainer")
    trainer = base(**settings)
    for step, y in enumerate(itertools.islice(map_tokens(WHITENED, batches()), 3)):
        trainer.update(step, y)
    assert float(bias_of(trainer.ae).norm()) < 0.1 * float(MEDIAN.norm())
