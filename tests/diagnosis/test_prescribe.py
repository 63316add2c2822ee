import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.diagnosis.prescribe import prescribe
from autopsae.diagnosis.prescription import Prescription
from autopsae.disk import DiskFull
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.outlook import Expected, Outlook

pytestmark = pytest.mark.quick

D_IN = 5
SPECTRUM = Spectrum.of(torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64)))
POINT = torch.arange(5.0, dtype=torch.float64)
LADDER = [
    untouched(D_IN),
    center(POINT, "median"),
    whiten(SPECTRUM, POINT, alpha=0.3),
    whiten(SPECTRUM, POINT),
    active_subspace(SPECTRUM, POINT, rank=2),
]


def deaths(
    *dead: float, usage: Sequence[float] = (1.0,) * 5, dominance: Sequence[float] = (0.5,) * 5
) -> dict[str, Outlook]:
    nothing = Expected(value=0.0, low=0.0, high=0.0)
    expected = [Expected(value=d, low=d / 2, high=d) for d in dead]
    return {
        remedy.name: Outlook(
            tokens=10**6, dead=d, dead_by_relu=nothing, usage=u, dominance=top, effective_tokens=4096.0
        )
        for remedy, d, u, top in zip(LADDER, expected, usage, dominance, strict=True)
    }


def choose(*dead: float, acceptable: float = 0.01) -> Prescription:
    return prescribe(deaths(*dead), LADDER, layer="hs1", d_sae=100, sparsity=TopK(k=4), acceptable=acceptable)


@pytest.mark.parametrize(
    ("dead", "remedy"),
    [
        ((0.01, 0.0, 0.0, 0.0, 0.0), "none"),
        ((0.011, 0.01, 0.0, 0.0, 0.0), "median"),
        ((0.5, 0.011, 0.01, 0.0, 0.0), "whiten_0.3"),
        ((0.5, 0.2, 0.011, 0.0, 0.0), "whiten"),
        ((0.5, 0.2, 0.1, 0.1, 0.0), "asi_2"),
        ((0.5, 0.2, 0.1, 0.09, 0.3), "whiten"),
    ],
)
def test_the_least_intrusive_sufficient_remedy_is_prescribed(dead: tuple[float, ...], remedy: str) -> None:
    assert choose(*dead).remedy.name == remedy


LEFT = "leaves # of 100 latents dead on 1,000,000 tokens"
LIVE = "the others are expected to survive 1,000 steps at 3e-4 (longer trainings kill more on some layers: --trial)"
DIE = "latents would die in training: one direction holds 89% of the variance, usage is"
NONE = "No remedy leaves at most 1.0% dead and lets the others live; this one comes nearest"


@pytest.mark.parametrize(
    ("dead", "usage", "reason"),
    [
        ((0.0,), (1.0,) * 5, f"{LEFT}, and {LIVE}"),
        ((0.5, 0.2, 0.005), (1.0,) * 5, f"{LEFT}, and {LIVE}. Not enough: none (50.0% dead), median (20.0% dead)"),
        (
            (0.5, 0.0, 0.0),
            (0.3, 0.3, 1.0, 1.0, 1.0),
            f"{LEFT}, and {LIVE}. Not enough: none (50.0% dead), median ({DIE} 30%)",
        ),
        ((0.0, 0.0, 0.0), (0.3, 0.4, 0.1, 0.1, 0.1), f"{LEFT}, but {DIE} 40%. {NONE}"),
        ((0.5, 0.2, 0.3), (0.9,) * 5, f"{LEFT}, and {LIVE}. {NONE}"),
    ],
)
def test_the_reason_says_what_is_left_and_what_was_not_enough(
    dead: tuple[float, ...], usage: tuple[float, ...], reason: str
) -> None:
    expected = deaths(*dead, *[1.0] * (5 - len(dead)), usage=usage, dominance=(0.89,) * 5)
    chosen = prescribe(expected, LADDER, layer="hs1", d_sae=100, sparsity=TopK(k=4))
    left = expected[chosen.remedy.name].dead
    assert chosen.reason == reason.replace("#", f"{left.value:.1%} ({left.low:.1%} to {left.high:.1%})")


@pytest.mark.parametrize(
    ("dead", "usage", "dominance", "remedy"),
    [
        # Uneven use is no trouble while no direction dominates,
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.1, 0.1, 0.1, 0.1, 0.1), (0.6, 0.6, 0.6, 0.6, 0.6), "none"),
        # and a direction that does is none while the latents are used evenly,
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.52, 0.1, 0.1, 0.1, 0.1), (0.9, 0.9, 0.9, 0.9, 0.9), "none"),
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.51, 0.52, 0.9, 1.0, 0.9), (0.61, 0.61, 0.5, 0.5, 0.5), "median"),
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.1, 0.51, 0.3, 1.0, 0.9), (0.8, 0.7, 0.6, 0.1, 0.5), "whiten_0.3"),
        # unless it holds nearly everything: then a little whitening, which need not change that.
        ((0.0, 0.0, 0.0, 0.0, 0.0), (0.9, 0.9, 0.9, 1.0, 0.9), (0.91, 0.91, 0.91, 0.1, 0.9), "whiten_0.3"),
        (
            (0.5, 0.02, 0.0, 0.0, 0.0),
            (0.3, 0.9, 0.3, 0.4, 0.2),
            (0.9,) * 5,
            "whiten",
        ),  # none suffices: the most even
        ((0.5, 0.02, 0.3, 0.3, 0.4), (0.3, 0.2, 0.4, 0.5, 0.2), (0.9,) * 5, "median"),  # too many: the fewest
    ],
)
def test_latents_are_expected_to_die_in_training_where_one_direction_dominates(
    dead: tuple[float, ...], usage: tuple[float, ...], dominance: tuple[float, ...], remedy: str
) -> None:
    expected = deaths(*dead, usage=usage, dominance=dominance)
    assert prescribe(expected, LADDER, layer="hs1", d_sae=100, sparsity=TopK(k=4)).remedy.name == remedy


@pytest.mark.parametrize(
    "sparsity", [TopK(k=4), BatchTopK(k=4), ReLU(), JumpReLU(bandwidth=0.001, start=0.001)], ids=str
)
@pytest.mark.parametrize("remedy", LADDER, ids=lambda remedy: remedy.name)
def test_a_saved_prescription_is_the_same_when_loaded(tmp_path: Path, remedy: Remedy, sparsity: Sparsity) -> None:
    dead = [0.0 if candidate is remedy else 1.0 for candidate in LADDER]
    saved = replace(choose(*dead), sparsity=sparsity, scale=0.25)
    saved.save(tmp_path / "new" / "layers.3.mlp")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["layers.3.mlp.json", "layers.3.mlp.safetensors"]
    for name in ("layers.3.mlp", "layers.3.mlp.json", "layers.3.mlp.safetensors"):
        loaded = Prescription.load(tmp_path / "new" / name)
        was, now = saved.remedy, loaded.remedy
        assert (now.name, now.instruction, loaded.reason) == (was.name, was.instruction, saved.reason)
        assert (loaded.layer, loaded.d_in, loaded.d_sae) == ("hs1", D_IN, 100)
        assert (loaded.sparsity, loaded.scale) == (sparsity, 0.25)
        x = torch.randn(7, D_IN, dtype=torch.float64)
        assert torch.equal(now.affine(x), was.affine(x))
        assert torch.equal(now.affine.invert(x), was.affine.invert(x))
        assert (now.subspace is None) == (was.subspace is None)
        if was.subspace is not None and now.subspace is not None:
            assert torch.equal(now.subspace, was.subspace)


def test_damaged_foreign_or_mixed_up_prescriptions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    with pytest.raises(InputError, match="expected a saved autopsae-prescription, could not read it"):
        Prescription.load(path)
    choose(1.0, 0.0, 1.0, 1.0, 1.0).save(path)
    good = (tmp_path / "p.json").read_text()
    (tmp_path / "p.json").write_text(good[: len(good) // 2])
    with pytest.raises(InputError, match="expected a saved autopsae-prescription, could not read it"):
        Prescription.load(path)
    (tmp_path / "p.json").write_text(json.dumps({"format": "another"}))
    with pytest.raises(
        InputError, match="expected format 'autopsae-prescription' version 2 or 1, got 'another' version None"
    ):
        Prescription.load(path)
    (tmp_path / "p.json").write_text(good)
    choose(1.0, 1.0, 0.0, 1.0, 1.0).save(path)
    (tmp_path / "p.json").write_text(good)
    with pytest.raises(InputError, match=r"not the tensors that p\.json describes"):
        Prescription.load(path)


def test_a_prescription_that_lacks_something_says_what(tmp_path: Path) -> None:
    choose(1.0, 0.0, 1.0, 1.0, 1.0).save(tmp_path / "p")
    content = json.loads((tmp_path / "p.json").read_text())
    del content["instruction"], content["k"]
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"expected remedy, instruction, .*, but it lacks instruction, k; take an earlier copy"
    ):
        Prescription.load(tmp_path / "p")


def test_a_failed_save_leaves_the_old_prescription_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p"
    old = choose(1.0, 0.0, 1.0, 1.0, 1.0)
    old.save(path)

    def full_disk(*_: object) -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autopsae.files._blocks", full_disk)
    with pytest.raises(DiskFull, match=r"p\.safetensors: the disk is full"):
        choose(1.0, 1.0, 0.0, 1.0, 1.0).save(path)
    assert Prescription.load(path).remedy.name == old.remedy.name
    assert len(list(tmp_path.iterdir())) == 2


def test_b_dec_is_the_centre_in_raw_space() -> None:
    prescription = choose(1.0, 1.0, 0.0, 1.0, 1.0)
    at_center = prescription.remedy.affine(prescription.b_dec[None])
    assert torch.equal(at_center, torch.zeros(1, D_IN, dtype=torch.float64))
    assert isinstance(prescription.remedy.affine, Affine)
