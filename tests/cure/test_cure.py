"""Each library's own training, started as prescribed: what it trains begins at our centre and stays there."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.nnsight_patches import take_back_patches

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.cure import (
    center_only,
    cure_dictionary_learning,
    cure_saelens,
    cure_sparsify,
    map_tokens,
    peek,
    saelens_scaler,
    unmap_sae,
)
from autopsae.cure.prescribed import check_prescription
from autopsae.diagnosis.prescribe import Prescription
from autopsae.remedies.remedy import Remedy, active_subspace, center, whiten
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.bias import BIASES

D_IN, D_SAE, K, TOKENS = 24, 96, 4, 4000
X = gaussian_tokens(TOKENS, D_IN, 12.0, spectrum=1.0, generator=torch.Generator().manual_seed(0))
STATISTICS = collect(X)
MEDIAN = geometric_median(STATISTICS.sample)
SPECTRUM = Spectrum.of(STATISTICS.raw.covariance)


def prescribed(remedy: Remedy) -> Prescription:
    return Prescription(remedy=remedy, reason="", layer="hs1", d_sae=D_SAE, sparsity=TopK(k=K))


CENTERED = prescribed(center(MEDIAN, "median"))
WHITENED = prescribed(whiten(SPECTRUM, MEDIAN, alpha=0.3))
NARROW = prescribed(active_subspace(SPECTRUM, MEDIAN, rank=3))


def batches(x: torch.Tensor = X, size: int = 256) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield x[torch.randint(len(x), (size,), generator=generator)]


def silent(codes: torch.Tensor) -> float:
    return float((codes == 0).all(dim=0).float().mean())


# SAELens


def saelens(architecture: str = "topk", **settings: Any) -> Any:
    sae_lens = pytest.importorskip("sae_lens")
    made = {
        "topk": ("TopKTrainingSAE", {"k": K}),
        "standard": ("StandardTrainingSAE", {}),
        "gated": ("GatedTrainingSAE", {}),
    }[architecture]
    config = getattr(sae_lens, made[0] + "Config")(d_in=D_IN, d_sae=D_SAE, **made[1], **settings)
    torch.manual_seed(0)
    return getattr(sae_lens, made[0])(config)


def saelens_trainer(sae: Any, steps: int = 20) -> Any:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = SAETrainerConfig(
        total_training_samples=steps * 256,
        train_batch_size_samples=256,
        lr=1e-3,
        lr_end=1e-3,
        n_batches_for_norm_estimate=4,
    )
    return SAETrainer(cfg=config, sae=sae, data_provider=batches())


@pytest.mark.parametrize("architecture", ["topk", "standard", "gated"])
def test_a_cured_saelens_sae_is_trained_from_our_centre(architecture: str) -> None:
    plain, cured = saelens(architecture), saelens(architecture)
    assert cure_saelens(cured, CENTERED) is cured
    assert silent(plain.encode(X)) > 0.2
    assert silent(cured.encode(X)) < 0.02
    trained = saelens_trainer(cured).fit()
    moved = (trained.b_dec.detach() - MEDIAN.float()).abs().max()
    assert 0 < float(moved) <= 20 * 1e-3 * 1.5
    assert silent(trained.encode(X)) < 0.05


def test_the_centre_is_scaled_as_saelens_scales_the_tokens() -> None:
    sae = saelens(normalize_activations="expected_average_only_in")
    cure_saelens(sae, CENTERED, sample=X)
    factor = D_IN**0.5 / float(X.norm(dim=1).mean())
    torch.testing.assert_close(sae.b_dec.detach(), MEDIAN.float() * factor)
    trained = saelens_trainer(sae).fit()  # folds the scale back
    assert float((trained.b_dec.detach() - MEDIAN.float()).abs().max()) < 0.05 * float(MEDIAN.norm())
    with pytest.raises(InputError, match="expected a sample of raw tokens"):
        cure_saelens(saelens(normalize_activations="expected_average_only_in"), CENTERED)


def test_the_encoder_bias_centers_where_b_dec_is_not_applied() -> None:
    sae = cure_saelens(saelens("standard", apply_b_dec_to_input=False), CENTERED)
    expected = (X - MEDIAN.float()) @ sae.W_enc
    torch.testing.assert_close(sae.encode(X), expected.relu(), rtol=1e-3, atol=1e-3)


def test_a_gate_has_two_biases_that_center() -> None:
    sae = cure_saelens(saelens("gated", apply_b_dec_to_input=False), CENTERED)
    free = cure_saelens(saelens("gated"), CENTERED)
    torch.testing.assert_close(sae.encode(X), free.encode(X), rtol=1e-3, atol=1e-3)


def test_saelens_whitens_as_prescribed_and_folds_it() -> None:
    from_their_own = saelens(normalize_activations="covariance_whitening")
    sae = cure_saelens(from_their_own, WHITENED)
    assert not bool(sae.b_dec.detach().any())
    trainer = saelens_trainer(sae)
    trainer.activation_scaler = saelens_scaler(WHITENED)
    y = trainer.activation_scaler.scale(X)
    torch.testing.assert_close(y, WHITENED.remedy.affine(X.double()).float(), rtol=1e-4, atol=1e-4)
    trained = trainer.fit()
    assert silent(trained.encode(X)) < 0.02
    error = trained(X).detach() - X
    assert float(error.square().sum() / (X - X.mean(dim=0)).square().sum()) < 1
    with pytest.raises(InputError, match=r'expected normalize_activations="covariance_whitening", got "none"'):
        cure_saelens(saelens(), WHITENED)
    with pytest.raises(InputError, match="expected a prescription of whitening, got 'median'"):
        saelens_scaler(CENTERED)


def test_saelens_rows_begin_in_the_subspace_as_long_as_they_were() -> None:
    plain, sae = saelens(), cure_saelens(saelens(), NARROW)
    assert NARROW.remedy.subspace is not None
    basis = NARROW.remedy.subspace.float()
    W = sae.W_dec.detach()
    torch.testing.assert_close(W @ basis.T @ basis, W, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(W.norm(dim=1), plain.W_dec.detach().norm(dim=1))
    torch.testing.assert_close(sae.W_enc.detach(), W.T)


def test_a_prescription_whose_bias_learns_otherwise_is_refused_by_every_cure() -> None:
    frozen = replace(CENTERED, bias=BIASES["frozen"])
    check_prescription(CENTERED, CENTERED.d_in)
    with pytest.raises(InputError, match=r"got Bias\(lr_fraction=0.0, .*; train with autopsae, or set"):
        check_prescription(frozen, CENTERED.d_in)


def test_what_saelens_cannot_be_given_is_refused() -> None:
    with pytest.raises(InputError, match="a subspace of raw tokens is prescribed"):
        cure_saelens(saelens(normalize_activations="covariance_whitening"), NARROW)
    with pytest.raises(InputError, match="expected raw tokens"):
        cure_saelens(saelens(normalize_activations="layer_norm"), CENTERED)
    sae_lens = pytest.importorskip("sae_lens")
    wide = sae_lens.TopKTrainingSAE(sae_lens.TopKTrainingSAEConfig(d_in=7, d_sae=9, k=2))
    with pytest.raises(InputError, match="expected a prescription for d_in = 7, got one for 24"):
        cure_saelens(wide, CENTERED)


# dictionary_learning


def trainer_of(name: str) -> tuple[Any, dict[str, Any]]:
    library = pytest.importorskip("dictionary_learning.trainers")
    take_back_patches()
    settings: dict[str, Any] = {
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "lr": 1e-3,
        "steps": 20,
        "layer": 1,
        "lm_name": "none",
        "device": "cpu",
        "warmup_steps": 0,
    }
    if "TopK" in name:
        settings |= {"k": K}
    else:
        settings |= {"sparsity_warmup_steps": None}
    return getattr(library, name), settings


def bias_of(ae: Any) -> torch.Tensor:
    names = [name for name in ("b_dec", "bias", "decoder_bias") if hasattr(ae, name)]
    bias: torch.Tensor = getattr(ae, names[0]).detach()
    return bias


GATED = "GatedSAETrainer"


@pytest.mark.parametrize("name", ["TopKTrainer", "BatchTopKTrainer", "StandardTrainer", "JumpReluTrainer", GATED])
def test_the_first_step_of_a_cured_trainer_leaves_our_centre(name: str) -> None:
    base, settings = trainer_of(name)
    off = prescribed(center(MEDIAN + 1.0, "median"))  # the first batch's median would be seen
    trainer = cure_dictionary_learning(base, off)(**settings)
    assert type(trainer).__name__ == name
    assert isinstance(trainer, base)
    torch.testing.assert_close(bias_of(trainer.ae), (MEDIAN + 1).float())
    for step, x in enumerate(itertools.islice(batches(), 5)):
        trainer.update(step, x)
    assert float((bias_of(trainer.ae) - (MEDIAN + 1).float()).abs().max()) <= 5 * 1e-3 * 3


@pytest.mark.parametrize("name", ["TopKTrainer", "StandardTrainer", "JumpReluTrainer", GATED])
def test_cured_dictionaries_are_born_alive(name: str) -> None:
    base, settings = trainer_of(name)
    plain, cured = base(**settings).ae, cure_dictionary_learning(base, CENTERED)(**settings).ae
    assert silent(plain.encode(X)) > 0.2
    assert silent(cured.encode(X)) < 0.02


def test_a_cured_trainer_goes_through_train_sae(tmp_path: Path) -> None:
    trainer_of("TopKTrainer")
    from dictionary_learning.training import trainSAE

    base, settings = trainer_of("TopKTrainer")
    looked_at, whole = peek(batches(), 1000)
    scale = looked_at.square().sum(dim=1).mean().sqrt()
    cured = cure_dictionary_learning(base, CENTERED, normalized_by=looked_at)
    config = {"trainer": cured, **settings, "steps": 3}
    trainSAE(
        data=whole,
        trainer_configs=[config],
        steps=3,
        save_dir=str(tmp_path),
        normalize_activations=True,
        autocast_dtype=torch.float32,
        device="cpu",
    )
    state = torch.load(tmp_path / "trainer_0" / "ae.pt", weights_only=True)
    assert float((state["b_dec"] - MEDIAN.float()).norm() / MEDIAN.norm()) < 0.05
    torch.testing.assert_close(cured(**settings).ae.b_dec.detach(), MEDIAN.float() / scale)


def test_dictionary_learning_whitens_through_its_tokens() -> None:
    base, settings = trainer_of("TopKTrainer")
    with pytest.raises(InputError, match="map_tokens\\(prescription, data\\)"):
        cure_dictionary_learning(base, WHITENED)
    trainer = base(**settings)
    for step, y in enumerate(itertools.islice(map_tokens(WHITENED, batches()), 3)):
        trainer.update(step, y)
    assert float(bias_of(trainer.ae).norm()) < 0.1 * float(MEDIAN.norm())


def test_a_dictionary_that_centers_nothing_is_refused() -> None:
    base, settings = trainer_of("StandardTrainer")
    from dictionary_learning.dictionary import AutoEncoderNew

    with pytest.raises(
        InputError, match="expected a dictionary that subtracts a bias from tokens, got AutoEncoderN"
    ):
        cure_dictionary_learning(base, CENTERED)(**settings, dict_class=AutoEncoderNew)


def test_a_wrong_width_is_refused_when_the_dictionary_is_made() -> None:
    base, settings = trainer_of("TopKTrainer")
    with pytest.raises(InputError, match="d_in = 7"):
        cure_dictionary_learning(base, CENTERED)(**{**settings, "activation_dim": 7})


# sparsify


def sparsify_trainer(**settings: Any) -> Any:
    import os

    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    sparsify = pytest.importorskip("sparsify")
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=D_IN,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=50,
            max_position_embeddings=16,
        )
    )
    ids = torch.randint(50, (8, 16), generator=torch.Generator().manual_seed(2))
    dataset = Dataset.from_dict({"input_ids": ids.tolist()}).with_format("torch")
    config = sparsify.TrainConfig(
        sparsify.SparseCoderConfig(num_latents=D_SAE, k=K, **settings),
        batch_size=2,
        hookpoints=["layers.0", "layers.1"],
        log_to_wandb=False,
        optimizer="adam",
        lr=1e-3,
        lr_warmup_steps=0,
        save_every=10**6,
    )
    return sparsify.Trainer(config, dataset, model)


def test_the_first_batch_of_sparsify_leaves_our_centre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = sparsify_trainer()
    prescriptions = dict.fromkeys(trainer.saes, CENTERED)
    assert cure_sparsify(trainer, prescriptions) is trainer
    trainer.fit()
    assert trainer.global_step == 4
    for coder in trainer.saes.values():
        assert float((coder.b_dec.detach() - MEDIAN.float()).abs().max()) <= 4 * 1e-3 * 1.5


def test_sparsify_rows_begin_in_the_subspace() -> None:
    trainer = sparsify_trainer()
    cure_sparsify(trainer, {"layers.0": NARROW, "layers.1": CENTERED})
    coder = trainer.saes["layers.0"]
    assert NARROW.remedy.subspace is not None
    basis = NARROW.remedy.subspace.float()
    W = coder.W_dec.detach()
    torch.testing.assert_close(W @ basis.T @ basis, W, rtol=1e-4, atol=1e-6)
    encoder, plain = coder.encoder.weight.detach(), sparsify_trainer().saes["layers.0"].encoder.weight.detach()
    torch.testing.assert_close(encoder @ basis.T @ basis, encoder, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(encoder.norm(dim=1), plain.norm(dim=1))
    torch.testing.assert_close(W.norm(dim=1), torch.ones(D_SAE))


def test_what_sparsify_cannot_be_given_is_refused() -> None:
    trainer = sparsify_trainer()
    with pytest.raises(InputError, match=r"for each of layers.0, layers.1, got layers.0"):
        cure_sparsify(trainer, {"layers.0": CENTERED})
    with pytest.raises(
        InputError, match=r"layers\.1: expected an autoencoder and a centre or a subspace, got whiten"
    ):
        cure_sparsify(trainer, {"layers.0": CENTERED, "layers.1": WHITENED})
    with pytest.raises(InputError, match="got a transcoder"):
        cure_sparsify(sparsify_trainer(transcode=True), dict.fromkeys(trainer.saes, CENTERED))


# what they count


def two_alive() -> SAE:
    """Of 96 latents only two are ever positive, where k = 4 are selected."""
    b_enc = torch.full((D_SAE,), -1e4)
    b_enc[[5, 60]] = 1e4
    W = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(3)), dim=1)
    return SAE(W_enc=W, W_dec=W, b_enc=b_enc, b_dec=MEDIAN.float(), sparsity=TopK(k=K)).eval()


def test_dictionary_learning_counts_zeros_among_the_selected_as_firings() -> None:
    base, settings = trainer_of("TopKTrainer")
    trainer, sae = base(**settings), two_alive()
    with torch.no_grad():
        trainer.ae.encoder.weight.copy_(sae.W_enc)
        trainer.ae.decoder.weight.copy_(sae.W_dec.T)
        trainer.ae.encoder.bias.copy_(sae.b_enc)
        trainer.ae.b_dec.copy_(sae.b_dec)
    trainer.num_tokens_since_fired += 10**6
    trainer.loss(X[:256], step=1)
    theirs = int((trainer.num_tokens_since_fired < 10**6).sum())
    assert int((fates(sae, X[:256]).fired > 0).sum()) == 2
    assert theirs >= K  # the surplus places of the k go to zeros


def test_sparsify_counts_zeros_among_the_selected_as_firings_and_saelens_does_not() -> None:
    sparsify, sae = pytest.importorskip("sparsify"), two_alive()
    coder = sparsify.SparseCoder(D_IN, sparsify.SparseCoderConfig(num_latents=D_SAE, k=K))
    theirs = saelens(rescale_acts_by_decoder_norm=False)
    with torch.no_grad():
        coder.encoder.weight.copy_(sae.W_enc)
        coder.encoder.bias.copy_(sae.b_enc)
        coder.b_dec.copy_(sae.b_dec)
        theirs.W_enc.copy_(sae.W_enc.T)
        theirs.b_enc.copy_(sae.b_enc)
        theirs.b_dec.copy_(sae.b_dec)
    assert len(coder.encode(X[:256]).top_indices.unique()) >= K
    assert int((theirs.encode(X[:256]) != 0).any(dim=0).sum()) == 2


# any library


def test_an_sae_of_mapped_tokens_is_made_one_of_raw_tokens() -> None:
    [y] = map_tokens(WHITENED, [X])
    generator = torch.Generator().manual_seed(0)
    inner = born(CENTERED_AT_ZERO, d_sae=D_SAE, sparsity=TopK(k=K), scaled=False, generator=generator).eval()
    whole = unmap_sae(inner, WHITENED)
    torch.testing.assert_close(whole.encode(X), inner.encode(y), rtol=1e-3, atol=1e-4)
    raw = WHITENED.remedy.affine.invert(inner(y).double()).float()
    torch.testing.assert_close(whole(X), raw, rtol=1e-3, atol=1e-2)
    with pytest.raises(InputError, match="expected an SAE of plain weights"):
        unmap_sae(born(WHITENED, d_sae=D_SAE, sparsity=TopK(k=K), sample=X, generator=generator), WHITENED)


CENTERED_AT_ZERO = center(torch.zeros(D_IN, dtype=torch.float64), "median")


def test_without_whitening_a_prescription_is_its_centre() -> None:
    for whole in (WHITENED, NARROW, CENTERED):
        alone = center_only(whole)
        assert (alone.remedy.name, alone.remedy.affine.linear, alone.remedy.subspace) == ("median", None, None)
        assert torch.equal(alone.b_dec, MEDIAN)
