"""sparsify's own training, cured by one call: its coders take raw activations and store weights for them."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.cure import cure_sparsify
from autopsae.interop import load_sae
from autopsae.remedies.remedy import center
from autopsae.training.bias import BIASES, Bias
from tests.cure.cases import CENTERED, D_IN, D_SAE, MEDIAN, NARROW, WHITENED, K, X, mapped, prescribed, silent

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
sparsify = pytest.importorskip("sparsify")
LR = 1e-3


def trainer(folder: Path | None = None, *, optimizer: str = "adam", model: Any = None, **settings: Any) -> Any:
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
    of_training = {name: settings.pop(name) for name in ("micro_acc_steps", "loss_fn") if name in settings}
    config = sparsify.TrainConfig(
        sparsify.SparseCoderConfig(num_latents=D_SAE, k=K, **settings),
        batch_size=2,
        hookpoints=["layers.0", "layers.1"],
        log_to_wandb=False,
        optimizer=optimizer,
        lr=LR,
        lr_warmup_steps=0,
        save_every=10**6,
        save_dir=str(folder),
        **of_training,
    )
    return sparsify.Trainer(config, dataset, model)


def cured(prescription: Any, folder: Path | None = None, **settings: Any) -> Any:
    own = trainer(folder, **settings)
    return cure_sparsify(own, dict.fromkeys(own.saes, prescription))


def test_the_first_batch_leaves_our_centre(tmp_path: Path) -> None:
    own = trainer(tmp_path)
    assert cure_sparsify(own, dict.fromkeys(own.saes, CENTERED)) is own
    own.fit()
    assert own.global_step == 4
    for coder in own.saes.values():
        assert 0 < float(coder.b_dec.detach().abs().max()) <= 4 * LR * 1.5


@pytest.mark.parametrize("prescription", [CENTERED, WHITENED], ids=["centre", "whitening"])
def test_a_coder_takes_and_gives_raw_activations(prescription: Any, tmp_path: Path) -> None:
    plain = trainer().saes["layers.0"]
    assert silent(load_of(plain, tmp_path / "plain").encode(X)) > 0.2
    coder = cured(prescription).saes["layers.0"]
    stored = load_of(coder, tmp_path / "cured")
    assert silent(stored.encode(X)) < 0.02
    torch.testing.assert_close(coder(X).sae_out, stored(X), rtol=1e-3, atol=1e-2)
    y, affine = mapped(prescription).float(), prescription.remedy.affine
    inner = coder.decode(*coder.encode(y)[:2]).double() / prescription.scale
    torch.testing.assert_close(coder(X).sae_out, affine.invert(inner).float(), rtol=1e-3, atol=1e-2)


def load_of(coder: Any, folder: Path) -> Any:
    coder.save_to_disk(folder)
    return load_sae(folder)


def test_the_error_is_measured_between_mapped_activations() -> None:
    coder, y = cured(WHITENED).saes["layers.0"], mapped(WHITENED).float()
    out = coder(x=X, y=X, dead_mask=None, total_variance=torch.tensor(1.0))
    error = (coder.decode(*coder.encode(y)[:2]) - y).square().sum()
    torch.testing.assert_close(out.fvu, error / (y - y.mean(0)).square().sum(), rtol=1e-3, atol=1e-4)


def test_what_is_stored_is_for_raw_activations_and_can_be_trained_on(tmp_path: Path) -> None:
    own = cured(WHITENED, tmp_path)
    own.fit()  # saves
    again = cured(WHITENED, tmp_path)
    again.load_state(str(tmp_path / "unnamed"))
    for name, coder in own.saes.items():
        assert load_sae(tmp_path / "unnamed" / name).linear is None
        for a, b in zip(coder.parameters(), again.saes[name].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "signum", "muon"])
def test_the_bias_learns_at_the_prescribed_fraction_of_the_rate(optimizer: str, tmp_path: Path) -> None:
    def after_a_run(fraction: float) -> torch.Tensor:
        bias = Bias(lr_fraction=fraction)
        own = cured(prescribed(center(MEDIAN, "median"), bias=bias), tmp_path / str(fraction), optimizer=optimizer)
        own.dataset = own.dataset.select(range(2))  # one step
        own.fit()
        b_dec: torch.Tensor = own.saes["layers.0"].b_dec.detach()
        return b_dec

    whole = after_a_run(1.0)
    assert bool(whole.any())
    torch.testing.assert_close(after_a_run(0.1), whole / 10, rtol=1e-3, atol=1e-9)
    assert not after_a_run(0.0).any()


@pytest.mark.parametrize("optimizer", ["adam", "signum", "muon"])
def test_an_encoder_of_the_prescribed_length_learns_at_that_fraction_of_the_rate(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(name: str) -> torch.Tensor:
        own = cured(replace(CENTERED, encoder_scale=0.25), tmp_path / name, optimizer=optimizer)
        coder = own.saes["layers.0"]
        start = coder.encoder.weight.detach().clone()
        torch.testing.assert_close(start, 0.25 * coder.W_dec.detach())
        own.dataset = own.dataset.select(range(2))  # one step
        own.fit()
        moved: torch.Tensor = coder.encoder.weight.detach() - start
        return moved

    slowed = move("slowed")
    monkeypatch.setattr("autopsae.cure.sparsify.teach_encoder", lambda *_: None)
    whole = move("whole")
    assert bool(whole.any())
    torch.testing.assert_close(slowed, whole / 4, rtol=1e-2, atol=1e-7)


def test_rows_begin_in_the_subspace() -> None:
    own = trainer()
    cure_sparsify(own, {"layers.0": NARROW, "layers.1": CENTERED})
    coder = own.saes["layers.0"]
    assert NARROW.remedy.subspace is not None
    basis = NARROW.remedy.subspace.float()
    W = coder.W_dec.detach()
    torch.testing.assert_close(W @ basis.T @ basis, W, rtol=1e-4, atol=1e-6)
    encoder, plain = coder.encoder.weight.detach(), trainer().saes["layers.0"].encoder.weight.detach()
    torch.testing.assert_close(encoder @ basis.T @ basis, encoder, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(encoder.norm(dim=1), plain.norm(dim=1))
    torch.testing.assert_close(W.norm(dim=1), torch.ones(D_SAE))


def test_what_sparsify_cannot_be_given_is_refused() -> None:
    own = trainer()
    with pytest.raises(InputError, match=r"for each of layers.0, layers.1, got layers.0"):
        cure_sparsify(own, {"layers.0": CENTERED})
    with pytest.raises(InputError, match=r"layers\.0: expected an autoencoder, got a transcoder"):
        cured(CENTERED, transcode=True)
    with pytest.raises(InputError, match=r"layers\.0: expected an autoencoder, got a skip connection"):
        cured(CENTERED, skip_connection=True)
    with pytest.raises(InputError, match="expected micro_acc_steps = 1, got 2"):
        cured(CENTERED, micro_acc_steps=2)
    with pytest.raises(InputError, match="which sparsify cannot train"):
        cured(replace(CENTERED, bias=BIASES["decoder"]))
    with pytest.raises(InputError, match="not cured yet, got one that is; make a new one"):
        cure_sparsify(cured(CENTERED), dict.fromkeys(own.saes, CENTERED))
    own.global_step = 3
    with pytest.raises(InputError, match=r"expected a fresh trainer, got one at step 3; cure it before load_state"):
        cure_sparsify(own, dict.fromkeys(own.saes, CENTERED))
