"""Prescriptions, SAEs and finished runs of the first version are read; its checkpoints are refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.remedy import whiten
from autopsae.run.folder import Entry, Plan
from autopsae.run.many import run_sweep
from autopsae.run.one import run
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, Sparsity, TopK
from autopsae.saved import save_object
from autopsae.statistics.spectrum import Spectrum
from autopsae.training.config import TrainConfig
from autopsae.training.objective import L0Target
from autopsae.training.sources import Member

SAVED = Path(__file__).parent / "first_version"
CONFIG, PLAN = TrainConfig(steps=8, lr=1e-3, batch_tokens=64), Plan(checkpoint_every=2, evaluate_every=2)
# Without random numbers: what was saved was made of the same.
SPREAD = torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64)
PLACES = torch.arange(400.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 1.7, 2.3, 3.1], dtype=torch.float64)
X = torch.sin(PLACES) * SPREAD + 0.5
WHITENED = whiten(Spectrum.of(torch.cov(X.T)), X.mean(dim=0), alpha=0.5).affine


def an_sae(sparsity: Sparsity) -> SAE:
    W = torch.cos(torch.arange(32.0).view(8, 4) * 1.3)
    return SAE(
        W_enc=W,
        W_dec=W,
        b_dec=torch.zeros(4),
        b_enc=torch.linspace(-0.1, 0.1, 8),
        sparsity=sparsity,
        threshold=torch.linspace(0.1, 0.2, 8) if isinstance(sparsity, JumpReLU) else None,
        affine=WHITENED,
    )


def entry(name: str) -> Entry:
    return Entry(member=Member(sae=an_sae(TopK(k=2)), config=CONFIG, name=name), about={"init": "mine"})


def test_prescriptions_of_the_first_version_are_read() -> None:
    whitened, rows = Prescription.load(SAVED / "whiten_0.5"), Prescription.load(SAVED / "asi_2")
    assert (whitened.remedy.name, whitened.layer, whitened.d_sae) == ("whiten_0.5", "hs1", 8)
    assert (whitened.sparsity, whitened.scale) == (TopK(k=2), None)
    assert torch.allclose(whitened.remedy.affine(X), WHITENED(X), atol=1e-12)
    assert rows.remedy.subspace is not None
    assert rows.remedy.subspace.shape == (2, 4)


def test_a_prescription_of_the_first_version_needs_a_sample_to_be_born_from() -> None:
    with pytest.raises(InputError, match="expected a sample of raw tokens, which tells the scale"):
        born(Prescription.load(SAVED / "whiten_0.5"))
    assert born(Prescription.load(SAVED / "whiten_0.5"), sample=X).d_sae == 8


@pytest.mark.parametrize("sparsity", [TopK(k=2), JumpReLU(), BatchTopK(k=2)], ids=lambda one: one.name)
def test_saes_of_the_first_version_are_read(sparsity: Sparsity) -> None:
    loaded, made = SAE.load(SAVED / sparsity.name), an_sae(sparsity).eval()
    assert loaded.sparsity == sparsity
    assert torch.allclose(loaded(X.float()), made(X.float()), atol=1e-5)


REFUSED = (
    r"/{}: expected a checkpoint of version 3, got 2 \(it has no checksum, and tokens were drawn and held out "
    r"otherwise\); go on with the autopsae that wrote it, or start afresh in a new folder$"
)


def test_a_checkpoint_of_the_first_version_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    for kind in ("run", "sweep"):
        shutil.copytree(SAVED / kind, tmp_path / kind)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=REFUSED.format("checkpoint.safetensors")):
        run(entry("m"), X[:300], X[300:], tmp_path / "run", plan=PLAN, resume=True)
    both = [entry("a"), entry("b")]
    with pytest.raises(InputError, match=REFUSED.format("checkpoint-0.safetensors")):
        run_sweep(both, X[:300], X[300:], tmp_path / "sweep", plan=PLAN, resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_summary_of_a_finished_run_of_the_first_version_is_read(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "finished", tmp_path / "run")
    summary = run(entry("m"), X[:300], X[300:], tmp_path / "run", plan=PLAN, resume=True)
    assert (summary["steps"], summary["diverged"]) == (8, None)


def test_a_setting_that_there_was_not_yet_is_at_its_default_in_a_finished_run(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "finished", tmp_path / "run")
    other = replace(entry("m"), member=replace(entry("m").member, config=replace(CONFIG, nested=(2,))))
    with pytest.raises(InputError, match=r"nested \[\], got \[2\]; pass another name"):
        run(other, X[:300], X[300:], tmp_path / "run", plan=PLAN, resume=True)


def test_so_is_a_setting_of_its_penalty(tmp_path: Path) -> None:
    def with_factor(times_d_in: bool) -> Entry:
        config = replace(CONFIG, penalty=L0Target(l0=2.0, times_d_in=times_d_in))
        member = Member(sae=an_sae(JumpReLU()), config=config, name="m")
        return Entry(member=member, about={"init": "mine"})

    done = run(with_factor(True), X[:300], X[300:], tmp_path / "run", plan=PLAN)
    path = tmp_path / "run" / "summary.json"
    del done["training"]["penalty"]["times_d_in"]
    save_object(path, format="autopsae-summary", content=done)
    assert run(with_factor(True), X[:300], X[300:], tmp_path / "run", plan=PLAN, resume=True)["steps"] == 8
    with pytest.raises(InputError, match=r"penalty .*; pass another name"):
        run(with_factor(False), X[:300], X[300:], tmp_path / "run", plan=PLAN, resume=True)


def test_a_checkpoint_of_an_older_version_than_that_is_refused_in_one_line(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "run", tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b'\\"version\\": 2', b'\\"version\\": 1'))
    with pytest.raises(InputError, match="expected a checkpoint of version 3, got 1; go on with the autopsae"):
        run(entry("m"), X[:300], X[300:], tmp_path / "run", plan=PLAN, resume=True)
