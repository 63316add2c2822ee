"""Death at birth is counted, forecast and diagnosed for every sparsity as a real birth on the same tokens dies."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.diagnose import diagnose
from autopsae.remedies.remedy import Remedy, center, untouched, whiten
from autopsae.sae.death import Census, Fates, fates
from autopsae.sae.init import born
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.sample import spread
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth
from autopsae.survival.forecast import forecast_births

D_IN, D_SAE, MANY = 16, 512, 20_000

BY_TOKEN = [
    TopK(k=4),
    GroupMax(k=16),
    ReLU(),
    JumpReLU(start=0.001),
    JumpReLU(),
    JumpReLU(start=3.0, bandwidth=0.5),
]
SPARSITIES: list[Sparsity] = [*BY_TOKEN, BatchTopK(k=4)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(tokens: int = MANY, gamma: float = 4.0) -> Tensor:
    """Of a far mean, so that raw births die by both pathways."""
    x = gaussian_tokens(tokens, D_IN, gamma, spectrum=0.7, generator=generator(7)).double()
    return 5 * x


def remedies(x: Tensor) -> list[Remedy]:
    statistics = collect(x)
    median = x.median(dim=0).values
    spectrum = Spectrum.of(statistics.raw.covariance)
    return [untouched(D_IN), center(median, "median"), whiten(spectrum, median)]


def as_born(remedy: Remedy, sparsity: Sparsity, x: Tensor) -> Fates:
    """A loop over batches of an SAE that was really born; BatchTopK judges them in training mode, shuffled."""
    sae = born(remedy, d_sae=D_SAE, sparsity=sparsity, sample=x, generator=generator()).double()
    if not sparsity.judges_batches:
        return fates(sae, x)
    census = Census(D_SAE)
    for rows in spread(len(x), x.device).split(512):
        census.see(sae.train().select(sae.enter(x[rows])[0]))
    return census.fates()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("sparsity", BY_TOKEN, ids=str)
def test_the_count_is_that_of_a_real_birth_to_the_latent(sparsity: Sparsity, scale: float) -> None:
    x = layer(6000) * scale
    counted = measure_birth(x, remedies(x), d_sae=D_SAE, sparsity=sparsity, generator=generator(), sample=x)
    for remedy in remedies(x):
        real, birth = as_born(remedy, sparsity, x), counted[remedy.name]
        # The one multiplies in float32, the other in float64: a latent at the edge may differ.
        assert birth.dead == pytest.approx(real.dead, abs=1.5 / D_SAE), remedy.name
        assert birth.dead_by_relu == pytest.approx(real.dead_by_relu, abs=1.5 / D_SAE), remedy.name
        assert birth.dead_by_topk == pytest.approx(birth.dead - birth.dead_by_relu), remedy.name


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("k", [1, 4, 64])
def test_the_count_of_batch_topk_is_near_that_of_its_first_batches(k: int, scale: float) -> None:
    x = layer() * scale
    counted = measure_birth(x, remedies(x), d_sae=D_SAE, sparsity=BatchTopK(k=k), generator=generator())
    for remedy in remedies(x):
        real, birth = as_born(remedy, BatchTopK(k=k), x), counted[remedy.name]
        assert birth.dead_by_relu == pytest.approx(real.dead_by_relu, abs=1.5 / D_SAE), remedy.name
        assert birth.dead == pytest.approx(real.dead, abs=0.02), remedy.name


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=str)
def test_a_forecast_from_a_tenth_of_the_tokens_is_near_the_count_on_all(sparsity: Sparsity) -> None:
    x = layer()
    counted = measure_birth(x, remedies(x), d_sae=D_SAE, sparsity=sparsity, generator=generator(), sample=x[::10])
    found = forecast_births(x[::10], remedies(x), sparsity, d_sae=D_SAE, generator=generator())
    for name, birth in counted.items():
        dead, relu = found[name].dead(MANY), found[name].dead_by_relu(MANY)
        assert dead.value == pytest.approx(birth.dead, abs=0.03), name
        assert dead.low <= birth.dead <= dead.high, name
        assert relu.value == pytest.approx(birth.dead_by_relu, abs=0.03), name


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=str)
def test_a_diagnosis_counts_and_prescribes_for_any_sparsity_in_any_unit(sparsity: Sparsity) -> None:
    x = layer(4000)
    options: dict[str, Any] = {"d_sae": D_SAE, "sparsity": sparsity, "at_tokens": 40_000}
    found = [diagnose(x * scale, **options) for scale in (1.0, 1e-3, 1e3)]
    for other in found[1:]:
        assert other.prescription.remedy.name == found[0].prescription.remedy.name
        for name, birth in found[0].birth.items():
            assert other.birth[name].dead == pytest.approx(birth.dead, abs=1.5 / D_SAE), name
            assert other.birth[name].dead_by_topk == pytest.approx(birth.dead_by_topk, abs=2.5 / D_SAE), name
        for name, outlook in found[0].expected.items():
            assert other.expected[name].dead.value == pytest.approx(outlook.dead.value, abs=0.005), name
    none = found[0].birth["none"]
    assert none.dead > 0.1
    # ReLU and a threshold of almost nothing select all that is positive.
    hardly_any = sparsity in (ReLU(), JumpReLU(start=0.001))
    assert none.dead_by_topk < 0.01 if hardly_any else none.dead_by_topk > 0.01
    sae = born(found[0].prescription)
    assert sae.sparsity == sparsity
    assert fates(sae, x).dead < none.dead
