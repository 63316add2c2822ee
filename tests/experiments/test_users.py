"""Two users' layers: they have the geometry that was reported, and training confirms what was said of them."""

import json
from typing import Any

import pytest
import torch
from experiments.users import cases

from autopsae import diagnose
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.remedies import center
from autopsae.statistics import geometric_median


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def kept(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(cases.RESULTS.read_text())[name]
    return content


def test_tokens_like_vggts_have_the_reported_cosine_and_variances_whatever_they_were_made_of() -> None:
    x = gaussian_tokens(4000, 64, 0.5, spectrum=1.0, generator=chance())
    described = cases.describe(cases.like_vggt(x, chance()))
    assert described["cosine"] == pytest.approx(0.91, abs=0.005)
    assert described["first_direction"] == pytest.approx(0.30, abs=0.005)
    assert described["directions_with_95_percent"] == 34
    assert float(cases.vggt_variances(1024)[:34].sum()) == pytest.approx(0.95)
    assert bool((cases.vggt_variances(1024).diff() <= 0).all())


def test_artefacts_are_patches_of_fifteen_norms_and_never_class_tokens() -> None:
    x = torch.nn.functional.normalize(torch.randn(50, 197, 96, generator=chance()), dim=2)
    y = cases.with_artefacts(x, chance())
    norms = y.norm(dim=2)
    large = norms > 10
    assert float(large.double().mean()) == pytest.approx(1 / 42, rel=0.2)
    assert not large[:, 0].any()
    assert norms[large].median() == pytest.approx(15, rel=0.05)
    alike = torch.nn.functional.normalize(y[large], dim=1)
    assert float((alike @ alike.T).median()) > 0.95
    assert torch.equal(y[~large], x[~large])


def test_a_file_like_vggts_is_to_be_centered_and_a_short_training_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "D_SAE", 128)
    monkeypatch.setattr(cases, "K", 4)
    monkeypatch.setattr(cases, "SEEDS", (0,))
    x = cases.like_vggt(gaussian_tokens(6000, 48, 0.5, spectrum=0.5, generator=chance()), chance())
    prescription = diagnose(x, d_sae=128, k=4, exact=False).prescription
    assert prescription.remedy.name != "none"
    without, centered = cases.train_both(x, center(geometric_median(x), "median"), steps=60)
    assert (without["remedy"], centered["remedy"]) == ("none", "median")
    assert centered["dead_birth"] < without["dead_birth"]
    assert centered["dead_end"] < without["dead_end"]
    assert centered["fvu_raw"] < without["fvu_raw"]


@pytest.mark.parametrize("name", ["vit", "vggt"])
def test_what_was_said_of_a_users_file_is_what_to_do_and_training_confirms_it(name: str) -> None:
    case = kept(name)
    said = " ".join(case["says"])
    assert said.startswith(f"{name}: make a change before you train an SAE")
    assert f"{name}: center by the median" in said
    assert "expected dead on 1,000,000 tokens" in said
    rows = {(row["remedy"], row["seed"]): row for row in case["trained"]}
    assert len(rows) == 2 * len(cases.SEEDS)
    for seed in cases.SEEDS:
        without, prescribed = rows["none", seed], rows[case["prescribed"], seed]
        assert prescribed["dead_birth"] < without["dead_birth"]
        assert prescribed["dead_end"] < without["dead_end"]


def test_the_users_files_have_the_shapes_and_the_geometry_that_were_reported() -> None:
    vit, vggt = kept("vit"), kept("vggt")
    assert vit["shape"] == [300, 197, 768]
    assert vit["tokens_over_10_norms"] == pytest.approx(1 / 42, rel=0.2)
    assert vggt["cosine"] == pytest.approx(0.91, abs=0.01)
    assert vggt["first_direction"] == pytest.approx(0.30, abs=0.01)
    assert vggt["directions_with_95_percent"] == 34
