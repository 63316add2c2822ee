from typing import Any

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.remedies.remedy import Remedy, active_subspace, center, untouched, whiten, z_score
from autopsae.sae.init import draw_rows
from autopsae.sae.sparsity import JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import Spectrum
from autopsae.survival.birth import measure_birth
from autopsae.survival.closed_form import predicted_dead, predicted_dead_by_relu
from tests import oracles


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(tokens: int, d_in: int, gamma: float, seed: int = 0) -> torch.Tensor:
    # Not the seed of the rows: latents that are tokens themselves would fire on them.
    x = torch.randn(tokens, d_in, generator=generator(1000 + seed))
    x[:, 0] += gamma * d_in**0.5
    return x


def every_remedy(x: torch.Tensor) -> list[Remedy]:
    statistics = collect(x)
    median = geometric_median(statistics.sample)
    spectrum = Spectrum.of(statistics.raw.covariance)
    return [
        untouched(statistics.d_in),
        center(statistics.raw.mean, "mean"),
        center(median, "median"),
        z_score(statistics.raw.std, median),
        whiten(spectrum, median),
        whiten(spectrum, median, alpha=0.3),
        active_subspace(spectrum, median, rank=3),
    ]


@pytest.mark.parametrize(("d_sae", "k"), [(300, 4), (300, 300), (61, 7), (2048, 16)])
@pytest.mark.parametrize("gamma", [0.2, 3.0])
def test_death_equals_a_loop_over_tokens_under_every_remedy(d_sae: int, k: int, gamma: float) -> None:
    x = gaussian(1100, 16, gamma) * torch.logspace(0, -1.5, 16)
    x[::50] *= 40
    remedies = every_remedy(x)
    found = measure_birth(list(x.split(300)), remedies, d_sae=d_sae, k=k, generator=generator())
    rows = draw_rows(d_sae, 16, generator=generator()).double()
    assert list(found) == [remedy.name for remedy in remedies]
    for remedy in remedies:
        W, c = remedy.enters().encoder(rows)
        positive, fired = oracles.fates(((x.double() - c) @ W.T).numpy(), k)
        birth = found[remedy.name]
        # One latent may differ where two float32 pre-activations are equal to the last bit.
        assert birth.dead_by_relu == pytest.approx(1 - positive.mean(), abs=1.5 / d_sae), remedy.name
        assert birth.dead == pytest.approx(1 - fired.mean(), abs=1.5 / d_sae), remedy.name
        assert birth.dead_by_topk == pytest.approx(birth.dead - birth.dead_by_relu)


def test_with_fewer_than_k_positive_the_rest_does_not_fire() -> None:
    x = torch.zeros(8, 2)
    x[:, 0] = torch.arange(1.0, 9.0)
    birth = measure_birth(x, [untouched(2)], d_sae=64, k=64, generator=generator())["none"]
    rows = draw_rows(64, 2, generator=generator())
    assert birth.dead == birth.dead_by_relu == pytest.approx(float((rows[:, 0] <= 0).double().mean()))
    assert 0.2 < birth.dead < 0.8


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("scale", [1e-100, 1e-40, 1.0, 1e40, 1e100])
def test_neither_scale_nor_the_order_of_remedies_changes_who_dies(scale: float, order: int) -> None:
    x = gaussian(1500, 16, 3.0).double()
    expected = measure_birth(x, every_remedy(x), d_sae=256, k=4, generator=generator())
    found = measure_birth(x * scale, every_remedy(x * scale)[::order], d_sae=256, k=4, generator=generator())
    for name, birth in expected.items():
        assert found[name].dead == pytest.approx(birth.dead, abs=1.5 / 256), name
        assert found[name].dead_by_relu == pytest.approx(birth.dead_by_relu, abs=1.5 / 256), name


def test_remedies_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="expected remedies of different names"):
        measure_birth(torch.randn(9, 4), [untouched(4)] * 2, d_sae=10, k=2, generator=generator())


def test_a_huge_mean_costs_no_precision() -> None:
    d_in = 32
    x = gaussian(2000, d_in, gamma=0.0).double()
    mean = 1e8 * torch.nn.functional.normalize(torch.randn(d_in, generator=generator(1)), dim=0).double()
    centered = measure_birth(x, [center(x.mean(dim=0), "mean")], d_sae=512, k=4, generator=generator())
    shifted = measure_birth(
        x + mean, [center((x + mean).mean(dim=0), "mean")], d_sae=512, k=4, generator=generator()
    )
    assert shifted["mean"].dead == pytest.approx(centered["mean"].dead, abs=1.5 / 512)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 5.0, 15.0, 50.0])
def test_gaussian_tokens_die_as_the_closed_forms_say(gamma: float) -> None:
    tokens, d_sae, k = 10_000, 8192, 64
    birth = measure_birth(gaussian(tokens, 512, gamma), [untouched(512)], d_sae=d_sae, k=k, generator=generator())[
        "none"
    ]
    # The form is up to 0.8 points too high: it takes the largest of N tokens at its quantile 1 - 1/N. The standard
    # error of 8,192 latents is 0.5 points.
    assert birth.dead_by_relu == pytest.approx(predicted_dead_by_relu(gamma, tokens), abs=0.02)
    if gamma > 3:
        assert birth.dead == pytest.approx(predicted_dead(gamma, tokens, d_sae=d_sae, k=k), abs=0.02)


def test_the_same_generator_gives_the_same_death_and_reading_stops_when_all_have_fired() -> None:
    x = gaussian(3000, 16, 1.0)
    seen: list[tuple[str, int, int | None]] = []
    options: dict[str, Any] = {"d_sae": 128, "k": 32}
    first = measure_birth(
        x,
        [center(x.mean(dim=0).double(), "mean")],
        **options,
        generator=generator(),
        progress=lambda *told: seen.append(told),
    )
    again = measure_birth(x, [center(x.mean(dim=0).double(), "mean")], **options, generator=generator())
    assert first == again
    assert first["mean"].dead == 0.0
    assert first["mean"].tokens < len(x)
    assert seen[-1] == ("birth", first["mean"].tokens, len(x))


def test_a_count_with_deaths_carries_the_number_of_all_tokens() -> None:
    x = gaussian(1300, 16, 20.0)
    births = measure_birth(
        x, [untouched(16), center(x.median(dim=0).values.double(), "median")], d_sae=64, k=2, generator=generator()
    )
    assert births["none"].dead > births["median"].dead
    assert {birth.tokens for birth in births.values()} == {1300}


@pytest.mark.parametrize("stray", [1e12, 3e38])
def test_a_token_beyond_float32_fires_as_any_long_one_in_its_direction(stray: float) -> None:
    x = gaussian(900, 8, 1.0).double()
    x[5] = 1e9
    long = measure_birth(x, every_remedy(x)[:1], d_sae=128, k=2, generator=generator())
    x[5] = stray
    assert measure_birth(x / 1e3, every_remedy(x / 1e3)[:1], d_sae=128, k=2, generator=generator()) == long
    by_mean = measure_birth(x, every_remedy(x)[:2], d_sae=128, k=2, generator=generator())["mean"]
    # Centered by a mean that one token owns, the others all look the same.
    assert by_mean.dead > 0.9


def test_tokens_that_are_mostly_zero_are_measured_in_units_of_the_others() -> None:
    x = gaussian(1500, 16, 3.0).double()
    x[torch.arange(1500) % 5 > 1] = 0
    births = [
        measure_birth(x * scale, [untouched(16)], d_sae=256, k=4, generator=generator())
        for scale in (1, 1e-60, 1e60)
    ]
    assert births[0] == births[1] == births[2]


def test_k_over_the_dictionary_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"expected 1 <= k <= d_sae = 10, got k = 11"):
        measure_birth(torch.randn(3, 4), [untouched(4)], d_sae=10, k=11, generator=generator())


@pytest.mark.parametrize("repeated", [0.0, 5.0])
def test_no_latent_fires_on_a_token_that_is_the_centre(repeated: float) -> None:
    """Zero rows (padding) fire nothing if nothing is done, and copies of the median nothing if it is the centre."""
    x = gaussian(400, 16, 4.0)
    x[::3] = repeated
    point = torch.full((16,), repeated, dtype=torch.float64)
    remedy = untouched(16) if repeated == 0 else center(point, "median")
    others = [z_score(torch.arange(1.0, 17.0, dtype=torch.float64), point)]
    found = measure_birth(x, [remedy, *others], d_sae=256, k=8, generator=generator())
    rows = draw_rows(256, 16, generator=generator()).double()
    for one in (remedy, *others):
        W, c = one.enters().encoder(rows)
        positive, fired = oracles.fates(((x.double() - c) @ W.T).numpy(), 8)
        assert found[one.name].dead_by_relu == pytest.approx(1 - positive.mean(), abs=1.5 / 256)
        assert found[one.name].dead == pytest.approx(1 - fired.mean(), abs=1.5 / 256)
        assert found[one.name].dead > 0.2


@pytest.mark.parametrize("sparsity", [ReLU(), TopK(k=3), JumpReLU()], ids=lambda s: s.name)
def test_a_block_of_nothing_but_padding_makes_nobody_fire(sparsity: Sparsity) -> None:
    x = gaussian(512, 16, 3.0)
    with_padding = torch.cat([x, torch.zeros(3, 16)])
    remedies = [untouched(16)]
    counted = [
        measure_birth(tokens, remedies, d_sae=64, sparsity=sparsity, generator=generator())["none"]
        for tokens in (x, with_padding)
    ]
    assert counted[0].dead == counted[1].dead
    assert counted[0].dead_by_relu == counted[1].dead_by_relu
