"""A prescription is one for a layer, a d_sae and a sparsity with its settings; another use is said."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.init import born, draw_rows
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK

pytestmark = pytest.mark.quick

PRESCRIPTION = Prescription(
    remedy=center(torch.ones(6), "median"), reason="", layer="hs3", d_sae=32, sparsity=TopK(k=4), scale=2.0
)


def sae(d_sae: int = 32, sparsity: Sparsity | None = None) -> SAE:
    drawn = torch.Generator().manual_seed(0)
    return born(PRESCRIPTION, d_sae=d_sae, sparsity=sparsity or TopK(k=4), generator=drawn)


@pytest.mark.parametrize(
    ("d_sae", "sparsity", "layer", "expected"),
    [
        (32, TopK(k=4), "hs3", []),
        (32, TopK(k=4), "", []),
        (32, TopK(k=4), "hs2", ["layer 'hs3', here 'hs2'"]),
        (31, TopK(k=4), "hs3", ["d_sae 32, here 31"]),
        (32, TopK(k=5), "hs3", ["k 4, here 5"]),
        (32, BatchTopK(k=4), "hs3", ["sparsity 'topk', here 'batch_topk'"]),
        (32, ReLU(), "hs3", ["sparsity 'topk', here 'relu'"]),
        (
            64,
            JumpReLU(),
            "hs2",
            ["layer 'hs3', here 'hs2'", "d_sae 32, here 64", "sparsity 'topk', here 'jumprelu'"],
        ),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:born. the prescription was made for another SAE")  # which is tested below
def test_what_differs_from_what_a_prescription_was_made_for_is_named(
    d_sae: int, sparsity: Sparsity, layer: str, expected: list[str]
) -> None:
    assert PRESCRIPTION.differences(sae(d_sae, sparsity), layer=layer) == expected


def test_a_training_of_over_twice_the_length_that_was_judged_is_named() -> None:
    short = replace(PRESCRIPTION, lr_steps=0.3)
    assert short.differences(sae(), lr_steps=0.6) == []
    assert short.differences(sae(), lr_steps=30.0) == ["lr x steps 0.3, here 30"]
    assert PRESCRIPTION.differences(sae(), lr_steps=30.0) == []  # made for any


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (JumpReLU(start=0.2, bandwidth=0.25), []),
        (JumpReLU(start=0.3, bandwidth=0.25), ["start 0.2, here 0.3"]),
        (JumpReLU(start=0.2), ["bandwidth 0.25, here 0.3"]),
        (JumpReLU(start=0.001, bandwidth=0.001), ["bandwidth 0.25, here 0.001", "start 0.2, here 0.001"]),
        (TopK(k=4), ["sparsity 'jumprelu', here 'topk'"]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:born. the prescription was made for another SAE")
def test_every_setting_of_the_sparsity_is_compared(sparsity: Sparsity, expected: list[str]) -> None:
    prescription = replace(PRESCRIPTION, sparsity=JumpReLU(start=0.2, bandwidth=0.25))
    assert prescription.differences(born(prescription, sparsity=sparsity)) == expected
    # Equal settings are an equal sparsity: nothing that a sparsity may have is left out.
    assert (not expected) == (prescription.sparsity == sparsity)


def test_for_another_sparsity_the_settings_that_both_have_are_compared() -> None:
    with pytest.warns(UserWarning, match="another SAE"):
        found = sae(sparsity=BatchTopK(k=5))
    assert PRESCRIPTION.differences(found) == ["k 4, here 5", "sparsity 'topk', here 'batch_topk'"]


@pytest.mark.parametrize("name", ["", "layer"])
def test_a_layer_that_was_given_no_name_is_not_compared(name: str) -> None:
    assert replace(PRESCRIPTION, layer=name).differences(sae(), layer="hs2") == []


def test_a_prescription_says_what_it_was_made_for() -> None:
    assert PRESCRIPTION.made_for() == {
        "remedy": "median",
        "layer": "hs3",
        "d_in": 6,
        "d_sae": 32,
        "k": 4,
        "sparsity": "topk",
    }


@pytest.mark.parametrize(
    ("d_sae", "sparsity", "said"),
    [
        (64, TopK(k=4), "d_sae 32, here 64"),
        (32, TopK(k=5), "k 4, here 5"),
        (32, BatchTopK(k=4), "here 'batch_topk'"),
    ],
)
def test_an_sae_born_from_a_prescription_for_another_warns(d_sae: int, sparsity: Sparsity, said: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    with pytest.warns(
        UserWarning, match=f"born: the prescription was made for another SAE: .*{said}; diagnose again"
    ):
        born(PRESCRIPTION, d_sae=d_sae, sparsity=sparsity, generator=drawn)


def test_an_sae_that_a_prescription_was_made_for_is_born_without_a_warning() -> None:
    with warnings.catch_warnings(action="error"):
        drawn = torch.Generator().manual_seed(0)
        born(PRESCRIPTION, d_sae=32, sparsity=TopK(k=4), generator=drawn)


@pytest.mark.filterwarnings("ignore:born. the prescription was made for another SAE")
def test_an_encoder_is_born_with_the_prescribed_length_where_a_number_of_latents_is_fixed() -> None:
    fitted = replace(PRESCRIPTION, encoder_scale=0.25)
    drawn = [torch.Generator().manual_seed(0) for _ in range(4)]
    usual, short = born(PRESCRIPTION, generator=drawn[0]), born(fitted, generator=drawn[1])
    assert torch.allclose(short.W_enc, usual.W_enc / 4)
    assert torch.equal(short.W_dec, usual.W_dec)
    # A penalty is set for codes of the usual size.
    assert torch.equal(born(fitted, sparsity=ReLU(), generator=drawn[2]).W_enc, usual.W_enc)
    # What is given takes its place.
    sample = torch.randn(500, 6, generator=torch.Generator().manual_seed(1))
    again = born(fitted, sample=sample, fit_encoder=True, generator=drawn[3])
    length = float(again.W_enc.detach()[0].norm())
    assert length != pytest.approx(0.25)
    assert length < 1


def test_a_prescription_keeps_the_length_of_the_encoder(tmp_path: Path) -> None:
    for scale in (1.0, 0.25):
        replace(PRESCRIPTION, encoder_scale=scale).save(tmp_path / "p")
        loaded = Prescription.load(tmp_path / "p")
        assert loaded.encoder_scale == scale
        assert loaded.training["relative_encoder_lr"] == (scale != 1)
        # Files without it are those of earlier versions, and are read by them.
        assert ("encoder_scale" in json.loads((tmp_path / "p.json").read_text())) == (scale != 1)
    content = json.loads((tmp_path / "p.json").read_text())
    for name in ("encoder_scale", "lr_steps"):
        for wrong in (0, -1, None, "1"):
            (tmp_path / "p.json").write_text(json.dumps({**content, name: wrong}))
            with pytest.raises(InputError, match=rf"{name}|checksum"):
                Prescription.load(tmp_path / "p")


def test_a_prescription_keeps_the_length_of_training_that_was_judged(tmp_path: Path) -> None:
    for judged in (None, 0.3):
        replace(PRESCRIPTION, lr_steps=judged).save(tmp_path / "p")
        assert Prescription.load(tmp_path / "p").lr_steps == judged
        assert ("lr_steps" in json.loads((tmp_path / "p.json").read_text())) == (judged is not None)


@pytest.mark.parametrize(("d_sae", "d_in"), [(9, 2), (4096, 3), (10_001, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_some_rows_of_an_sae_are_those_of_all(d_sae: int, d_in: int, dtype: torch.dtype) -> None:
    def draw(latents: range | None = None) -> Tensor:
        return draw_rows(d_sae, d_in, generator=torch.Generator().manual_seed(5), dtype=dtype, latents=latents)

    whole = draw()
    assert len({tuple(row) for row in whole.tolist()}) > 0.5 * d_sae
    for latents in (range(d_sae), range(1), range(3, d_sae), range(d_sae // 2, d_sae - 2)):
        assert torch.equal(draw(latents), whole[latents.start : latents.stop])


def test_latents_that_an_sae_has_not_are_refused() -> None:
    settings: dict[str, Any] = {"d_sae": 16, "sparsity": TopK(k=2), "sample": torch.randn(50, 4)}
    for latents in (range(3, 17), range(5, 5), range(0, 16, 2), range(-1, 3)):
        with pytest.raises(InputError, match=r"born: expected latents as a range in d_sae = 16, got range\("):
            born(untouched(4), **settings, latents=latents)
    with pytest.raises(InputError, match="born: expected all latents with fit_encoder, got range"):
        born(untouched(4), **settings, latents=range(3), fit_encoder=True)
