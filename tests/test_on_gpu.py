"""On a GPU: what `test_devices` tries on a pretended one runs, and its numbers are those of the CPU.

Skipped where PyTorch sees no GPU, as on CI; run there by hand:

    python -m pytest tests/test_on_gpu.py
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import autopsae as a
from autopsae import evaluation, survival, training
from tests.test_devices import CASES, D_IN, D_SAE, SPARSITIES, TRAININGS, new_sae, tokens

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")

DEVICES = ("cpu", "cuda")
NAMES = [sparsity.name for sparsity in SPARSITIES]
WAYS = {name: more for name, more in TRAININGS.items() if "dtype" not in more}


@pytest.mark.parametrize("case", CASES)
def test_it_runs(case: str, tmp_path: Path) -> None:
    assert CASES[case](tmp_path)


def trained_on(device: str, sparsity: a.Sparsity, more: dict[str, Any]) -> tuple[dict[str, Tensor], list[Any]]:
    """(weights, records) of 20 steps in float64 on the device."""
    sae = new_sae(sparsity, dtype=torch.float64, device=device)
    base: dict[str, Any] = {"steps": 20, "record_every": 5, "lr": 1e-3, "batch_tokens": 64}
    config = a.TrainConfig(**{**base, "dead_after_tokens": 128, **more})
    # Not near zero, where a rounding decides for the sign and with it for the whole step.
    x = 3 * tokens() + 0.01
    records = a.train(sae, x, config)
    return {name: weight.detach().cpu() for name, weight in sae.named_parameters()}, records


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_training_in_float64_gives_the_weights_of_the_cpu(sparsity: a.Sparsity, way: str) -> None:
    (here, records), (there, others) = (trained_on(device, sparsity, WAYS[way]) for device in DEVICES)
    for name, weight in here.items():
        torch.testing.assert_close(there[name], weight, rtol=1e-8, atol=1e-9)
    for one, other in zip(records, others, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-8)
        assert one.dead == other.dead


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=NAMES)
def test_what_is_measured_of_an_sae_is_what_the_cpu_measures(sparsity: a.Sparsity) -> None:
    sae, x = new_sae(sparsity, dtype=torch.float64, device="cpu"), 1.01 * tokens()
    ends = [evaluation.evaluate(sae.to(device), x.to(device)) for device in DEVICES]
    assert ends[0].fates.dead == ends[1].fates.dead
    assert ends[0].l0 == pytest.approx(ends[1].l0, rel=1e-9)
    assert ends[0].fvu_raw == pytest.approx(ends[1].fvu_raw, rel=1e-9)
    found = [a.autopsy(sae.to(device), x.to(device)) for device in DEVICES]
    assert torch.equal(found[0].is_dead.cpu(), found[1].is_dead.cpu())
    assert str(found[0]) == str(found[1])


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=NAMES)
def test_a_diagnosis_says_what_it_says_on_the_cpu(sparsity: a.Sparsity) -> None:
    here, there = (a.diagnose(tokens(), d_sae=D_SAE, sparsity=sparsity, device=device) for device in DEVICES)
    assert here.prescription.remedy.name == there.prescription.remedy.name
    for name, birth in here.birth.items():
        assert there.birth[name].dead == pytest.approx(birth.dead, abs=1 / D_SAE)


def test_a_short_training_is_prescribed_the_encoder_that_it_is_on_the_cpu() -> None:
    asked: dict[str, Any] = {"d_sae": D_SAE, "sparsity": a.TopK(k=3), "steps": 1000}
    here, there = (a.diagnose(tokens(), **asked, device=device).prescription for device in DEVICES)
    assert here.encoder_scale != 1
    assert there.encoder_scale == pytest.approx(here.encoder_scale, rel=1e-5)


def test_a_forecast_says_what_it_says_on_the_cpu() -> None:
    W = torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    here, there = (survival.forecast(tokens().to(on), W.to(on), a.TopK(k=3)).dead(10**5) for on in DEVICES)
    assert there.value == pytest.approx(here.value, abs=1e-6)
    assert (there.low, there.high) == pytest.approx((here.low, here.high), abs=1e-6)


def test_a_training_goes_on_on_the_other_device(tmp_path: Path) -> None:
    config = a.TrainConfig(steps=12, lr=1e-3, batch_tokens=64, record_every=4)
    ends = []
    for first, then in (("cuda", "cuda"), ("cuda", "cpu")):
        sae = new_sae(dtype=torch.float64, device=first)
        begun = training.Training([training.Member(sae=sae, config=config)], tokens())
        for _ in range(5):
            begun.advance()
        begun.save(tmp_path / f"{first}-{then}")
        sae = new_sae(dtype=torch.float64, device=then)
        resumed = training.Training([training.Member(sae=sae, config=config)], tokens())
        resumed.load(tmp_path / f"{first}-{then}")
        list(resumed)
        ends.append(sae.W_dec.detach().cpu())
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-9)
