"""What an autopsy prescribes for the next SAE of the layer, and the call by which each library takes it."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.diagnosis.finding import Finding
from autopsae.diagnosis.prescription import Prescription
from autopsae.evaluation.autopsy import autopsy
from autopsae.evaluation.fresh_start import fresh_start
from autopsae.evaluation.result import Autopsy
from autopsae.remedies.affine import Affine
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import ReLU, Sparsity, TopK
from autopsae.statistics.median import geometric_median

D_IN, D_SAE = 24, 128
X = gaussian_tokens(3000, D_IN, 5.0, generator=torch.Generator().manual_seed(0))


def an_sae(
    *, sparsity: Sparsity | None = None, affine: Affine | None = None, b_dec: Tensor | None = None, **options: Any
) -> SAE:
    rows = normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(1)), dim=1)
    start = torch.zeros(D_IN) if b_dec is None else b_dec
    return SAE(W_enc=rows, W_dec=rows, b_dec=start, sparsity=sparsity or TopK(k=4), affine=affine, **options).eval()


def the_shift(found: Autopsy) -> Finding:
    [finding] = [finding for finding in found.findings if finding.name == "shift"]
    return finding


def test_the_prescribed_centre_is_one_of_raw_tokens_whatever_the_sae_does_with_them() -> None:
    moved = Affine(center=torch.linspace(-1, 1, D_IN), scale=0.25)
    for sae in (an_sae(), an_sae(affine=moved)):
        prescription = fresh_start(sae, autopsy(sae, X), layer="hs7")
        assert torch.allclose(prescription.b_dec.double(), geometric_median(X), atol=2e-3)
        assert (prescription.remedy.name, prescription.layer) == ("median", "hs7")
        assert (prescription.d_sae, prescription.sparsity.l0, prescription.remedy.affine.linear) == (D_SAE, 4, None)


def test_a_whitening_of_the_sae_stays_in_what_is_prescribed() -> None:
    gain = torch.linspace(1, 3, D_IN)
    whitened = Affine(center=torch.ones(D_IN), linear=gain.diag(), inverse=(1 / gain).diag(), scale=0.5)
    sae = an_sae(affine=whitened)
    found = autopsy(sae, X)
    prescription = fresh_start(sae, found, layer="hs7")
    assert prescription.remedy.affine.linear is not None
    assert torch.equal(prescription.remedy.affine.linear, gain.diag())
    # Its centre is where the SAE sees the centre of the autopsy.
    assert torch.allclose(sae.affine(prescription.b_dec[None])[0].double(), found.center, atol=1e-4)


def test_an_sae_born_from_it_has_no_dead_latent(tmp_path: Path) -> None:
    sae = an_sae()
    found = autopsy(sae, X)
    assert found.causes["shift"] > 50
    fresh_start(sae, found, layer="hs7").save(tmp_path / "cure")
    read = Prescription.load(tmp_path / "cure")
    assert f"{found.causes['shift']:,} of 128 latents of an SAE of this layer are dead of the shift" in read.reason
    again = born(read, d_sae=D_SAE, sparsity=TopK(k=4), sample=X, generator=torch.Generator().manual_seed(2))
    assert fates(again, X).dead == 0


def test_the_sparsity_is_that_of_the_sae() -> None:
    sae = an_sae(sparsity=ReLU())
    assert fresh_start(sae, autopsy(sae, X), layer="").sparsity == ReLU()


def test_no_prescription_for_normalised_tokens_nor_for_another_sae() -> None:
    normalised = an_sae(layer_norm=True)
    with pytest.raises(InputError, match="expected an SAE of raw tokens, got layer_norm = True"):
        fresh_start(normalised, autopsy(normalised, X), layer="")
    other = SAE(W_enc=torch.eye(D_IN), W_dec=torch.eye(D_IN), b_dec=torch.zeros(D_IN), sparsity=TopK(k=4))
    with pytest.raises(
        InputError, match="expected the SAE that was examined, of d_in = 24 and d_sae = 128, got 24"
    ):
        fresh_start(other, autopsy(an_sae(), X), layer="")


def test_the_advice_is_the_call_for_the_library_that_wrote_the_sae() -> None:
    sae = an_sae()
    for library, call in (
        ("autopsae", "autopsae train ACTIVATIONS --out NEW --prescription cure`"),
        ("saelens", 'cure_saelens(trainer, autopsae.Prescription.load("cure"))`'),
        ("dictionary_learning", 'cure_dictionary_learning(TrainerClass, autopsae.Prescription.load("cure"))`'),
        ("sparsify", 'cure_sparsify(trainer, {hookpoint: autopsae.Prescription.load("cure")})`'),
    ):
        found = autopsy(sae, X, written_by=library)
        assert call in the_shift(found).advice
        assert "`autopsae autopsy ... --prescription cure` writes it" in the_shift(found).advice
        assert found.to_dict()["written_by"] == library
    written = the_shift(autopsy(sae, X, written_by="saelens", prescription="runs/c")).advice
    assert "runs/c.json has it, then" in written
    assert 'Prescription.load("runs/c")' in written
    normalised = the_shift(autopsy(an_sae(layer_norm=True), X))
    told = '`autopsae train ACTIVATIONS --out NEW --config FILE` where FILE says {"layer_norm": true}'
    assert told in normalised.advice
    with pytest.raises(InputError, match="expected written_by of autopsae, saelens, dictionary_learning, sparsify"):
        autopsy(sae, X, written_by="nobody")


def test_each_call_of_the_advice_starts_the_librarys_own_object_at_the_centre(tmp_path: Path) -> None:
    from dictionary_learning.trainers import StandardTrainer
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer
    from sparsify import SparseCoder, SparseCoderConfig

    sae, place = an_sae(), str(tmp_path / "cure")
    fresh_start(sae, autopsy(sae, X), layer="hs7").save(place)
    coder = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=4))
    options = SimpleNamespace(finetune=None, micro_acc_steps=1, grad_acc_steps=1)
    theirs = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=4))
    config = SAETrainerConfig(total_training_samples=64, train_batch_size_samples=64, lr=1e-3, lr_end=1e-3)
    trainers = {
        "sparsify": SimpleNamespace(saes={"layers.3": coder}, cfg=options, optimizers=[], global_step=0),
        "saelens": SAETrainer(cfg=config, sae=theirs, data_provider=iter(())),
    }

    def called(library: str) -> Any:
        said = the_shift(autopsy(sae, X, written_by=library, prescription=place)).advice
        needed, call = re.findall(r"`(.*?)`", said)
        given = {"TrainerClass": StandardTrainer, "hookpoint": "layers.3", "trainer": trainers.get(library)}
        exec(needed, given)  # both are ours
        return eval(call, given)

    trainer = called("dictionary_learning")(
        steps=5000, activation_dim=D_IN, dict_size=D_SAE, layer=0, lm_name="", device="cpu", seed=0
    )
    called("sparsify")
    centers = called("saelens").activation_scaler.whitening.mean, trainer.ae.state_dict()["bias"]
    for bias in (*centers, coder.state_dict()["b_dec"]):
        assert torch.allclose(bias.detach().double(), geometric_median(X), atol=2e-3)
