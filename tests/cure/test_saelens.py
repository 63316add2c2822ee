"""SAELens' own training, cured by one call: it starts and learns as prescribed; its SAE takes raw tokens."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.cure import cure_saelens
from autopsae.interop import load_sae
from autopsae.remedies.remedy import center
from autopsae.training.bias import BIASES, Bias
from tests.cure.cases import (
    CENTERED,
    D_IN,
    D_SAE,
    MEDIAN,
    NARROW,
    UNTOUCHED,
    WHITENED,
    K,
    X,
    batches,
    fvu,
    mapped,
    prescribed,
    silent,
)

sae_lens = pytest.importorskip("sae_lens")
LR, STEPS = 1e-3, 20
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "topk": ("TopKTrainingSAE", {"k": K}),
    "batchtopk": ("BatchTopKTrainingSAE", {"k": K}),
    "jumprelu": ("JumpReLUTrainingSAE", {}),
    "standard": ("StandardTrainingSAE", {"l1_coefficient": 0.1}),
    "gated": ("GatedTrainingSAE", {"l1_coefficient": 0.1}),
}


def saelens(architecture: str = "topk", **settings: Any) -> Any:
    name, own = ARCHITECTURES[architecture]
    config = getattr(sae_lens, name + "Config")(d_in=D_IN, d_sae=D_SAE, **own, **settings)
    torch.manual_seed(0)
    return getattr(sae_lens, name)(config)


def trainer(sae: Any, steps: int = STEPS, **settings: Any) -> Any:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = SAETrainerConfig(
        total_training_samples=steps * 256,
        train_batch_size_samples=256,
        lr=LR,
        lr_end=LR,
        n_batches_for_norm_estimate=4,
        **settings,
    )
    return SAETrainer(cfg=config, sae=sae, data_provider=batches())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("prescription", [CENTERED, WHITENED], ids=["centre", "whitening"])
def test_a_cured_sae_ends_as_one_of_raw_tokens(architecture: str, prescription: Any) -> None:
    own = trainer(saelens(architecture))
    assert silent(own.sae.encode(X)) > 0.2
    assert cure_saelens(own, prescription) is own
    assert silent(own.sae.encode(mapped(prescription).float())) < 0.02
    trained = own.fit()
    assert trained.cfg.normalize_activations == "none"
    assert silent(trained.encode(X)) < 0.05
    assert fvu(trained(X)) < 1
    assert fvu(trainer(saelens(architecture)).fit()(X)) > fvu(trained(X))


def test_saelens_maps_tokens_as_prescribed() -> None:
    for prescription in (CENTERED, WHITENED, UNTOUCHED):
        own = cure_saelens(trainer(saelens()), prescription)
        torch.testing.assert_close(own.activation_scaler.scale(X.double()), mapped(prescription))
        torch.testing.assert_close(own.activation_scaler.unscale(mapped(prescription)), X.double())


@pytest.mark.parametrize("theirs", ["none", "expected_average_only_in", "covariance_whitening"])
def test_the_prescribed_map_takes_the_place_of_saelens_own(theirs: str) -> None:
    own = cure_saelens(trainer(saelens(normalize_activations=theirs)), CENTERED)
    trained, plain = own.fit(), cure_saelens(trainer(saelens()), CENTERED).fit()
    torch.testing.assert_close(trained.encode(X), plain.encode(X))


def test_rows_are_of_length_one_where_latents_compete_for_places() -> None:
    for architecture, length in (("topk", 1.0), ("batchtopk", 1.0), ("standard", 0.1), ("jumprelu", 0.1)):
        sae = cure_saelens(trainer(saelens(architecture)), CENTERED).sae
        torch.testing.assert_close(sae.W_dec.detach().norm(dim=1), torch.full((D_SAE,), length))
        assert torch.equal(sae.W_enc.detach(), sae.W_dec.detach().T)


def test_saelens_rows_begin_in_the_subspace() -> None:
    assert NARROW.remedy.subspace is not None
    basis = NARROW.remedy.subspace.float()
    W = cure_saelens(trainer(saelens()), NARROW).sae.W_dec.detach()
    torch.testing.assert_close(W @ basis.T @ basis, W, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_the_bias_learns_at_the_prescribed_fraction_of_the_rate(fraction: float) -> None:
    """Adam's first step is as long as the learning rate in every coordinate."""
    own = cure_saelens(trainer(saelens()), prescribed(center(MEDIAN, "median"), bias=Bias(lr_fraction=fraction)))
    own.step(next(batches()))
    torch.testing.assert_close(own.sae.b_dec.detach().abs(), torch.full((D_IN,), fraction * LR), rtol=1e-3, atol=0)


def test_an_encoder_of_the_prescribed_length_turns_as_fast_as_one_of_length_1() -> None:
    prescription = replace(CENTERED, encoder_scale=0.25)
    own = cure_saelens(trainer(saelens()), prescription)
    start = own.sae.W_enc.detach().clone()
    torch.testing.assert_close(start, 0.25 * own.sae.W_dec.detach().T)
    own.step(next(batches()))
    moved = (own.sae.W_enc.detach() - start).abs()
    assert float(moved.max()) == pytest.approx(0.25 * LR, rel=1e-2)
    assert float(own.sae.b_dec.detach().abs().max()) == pytest.approx(LR, rel=1e-2)
    # A penalty is set for codes of the usual size.
    jumprelu = cure_saelens(trainer(saelens("jumprelu")), prescription)
    assert torch.equal(jumprelu.sae.W_enc.detach(), jumprelu.sae.W_dec.detach().T)


def test_the_bias_learns_in_the_prescribed_steps() -> None:
    bias = Bias(from_step=2, until_step=4)
    own = cure_saelens(trainer(saelens()), prescribed(center(MEDIAN, "median"), bias=bias))
    at = [own.sae.b_dec.detach().clone()]
    for x, _ in zip(batches(), range(6), strict=False):
        own.step(x)
        own.n_training_steps += 1
        at.append(own.sae.b_dec.detach().clone())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(at)]
    assert moved == [False, False, True, True, False, False]


def test_a_bias_of_the_decoder_alone_leaves_the_encoders_centre() -> None:
    own = cure_saelens(trainer(saelens()), prescribed(center(MEDIAN, "median"), bias=BIASES["decoder"]))
    trained = own.fit()
    assert float((trained.b_dec.detach() - MEDIAN.float()).norm()) > 0
    assert not trained.cfg.apply_b_dec_to_input
    zero = trained.encode_with_hidden_pre(MEDIAN.float()[None])[
        1
    ]  # pre-activations of the centre: b_enc as learned
    assert float(zero.detach().abs().max()) < STEPS * LR * 2


def test_what_saelens_saves_for_inference_is_read_as_the_same_sae(tmp_path: Path) -> None:
    trained = cure_saelens(trainer(saelens("batchtopk")), WHITENED).fit()
    trained.save_inference_model(tmp_path)
    theirs, ours = sae_lens.SAE.load_from_disk(tmp_path), load_sae(tmp_path)
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-3, atol=1e-2)


def test_a_checkpoint_goes_on_with_its_weights_and_the_map(tmp_path: Path) -> None:
    whole = cure_saelens(trainer(saelens(), steps=2), WHITENED).fit()
    first = cure_saelens(trainer(saelens(), steps=2, checkpoint_path=str(tmp_path)), WHITENED)
    data = batches()
    first.step(next(data))
    first.n_training_steps += 1
    first.save_checkpoint("one")
    again = trainer(saelens(), steps=2)
    again.load_trainer_state(tmp_path / "one")
    again.sae.load_weights_from_checkpoint(tmp_path / "one")
    again.data_provider = data
    torch.testing.assert_close(cure_saelens(again, WHITENED).fit().encode(X), whole.encode(X))


def test_a_runner_cures_the_trainer_that_it_makes() -> None:
    from sae_lens import LanguageModelSAETrainingRunner

    runner = object.__new__(LanguageModelSAETrainingRunner)  # without its language model
    runner.sae = saelens()
    assert cure_saelens(runner, CENTERED) is runner
    trained = runner.run_trainer_with_interruption_handling(trainer(runner.sae))
    assert torch.equal(trained.b_dec, cure_saelens(trainer(saelens()), CENTERED).fit().b_dec)
    runner.sae = saelens(normalize_activations="layer_norm")
    with pytest.raises(InputError, match="expected raw tokens"):
        cure_saelens(runner, CENTERED)


def test_what_saelens_cannot_be_given_is_refused() -> None:
    with pytest.raises(InputError, match='expected raw tokens, got normalize_activations="layer_norm"; set it to'):
        cure_saelens(trainer(saelens(normalize_activations="layer_norm")), CENTERED)
    wide = sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(d_in=7, d_sae=9, k=2))
    with pytest.raises(InputError, match="expected a prescription for d_in = 7, got one for 24"):
        cure_saelens(trainer(wide), CENTERED)
    with pytest.raises(InputError, match="not cured yet, got one that is; make a new one"):
        cure_saelens(cure_saelens(trainer(saelens()), CENTERED), CENTERED)
    pursuit = sae_lens.MatchingPursuitTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, decoder_init_norm=1.0)
    with pytest.raises(InputError, match="can fold a map of the tokens, got matching_pursuit; train it on map_tok"):
        cure_saelens(trainer(sae_lens.MatchingPursuitTrainingSAE(pursuit)), CENTERED)
