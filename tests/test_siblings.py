"""Input that is nearly right: what cannot be used is an InputError that names it, and what can gives the same."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import autopsae
from autopsae.arrays import InputError
from autopsae.run.data import hold_out
from tests import processes

D_IN = 12


def tokens(n: int = 400) -> torch.Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(3)) + 2


def masked(x: torch.Tensor, kept: int) -> Any:
    """A masked array whose masked rows hold what must not be read."""
    data, mask = x.numpy().copy(), np.zeros(tuple(x.shape), dtype=bool)
    data[kept:], mask[kept:] = np.nan, True
    return np.ma.MaskedArray(data, mask=mask)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def an_sae(sample: Any = None, **options: Any) -> autopsae.SAE:
    start = autopsae.remedies.untouched(D_IN)
    made: dict[str, Any] = {"d_sae": 48, "sparsity": autopsae.TopK(k=4), "generator": generator(), **options}
    return autopsae.born(start, sample=sample, **{"scaled": sample is not None, **made})


def expected(sample: Any) -> autopsae.survival.Expected:
    remedies, firing = [autopsae.remedies.untouched(D_IN)], autopsae.TopK(k=4)
    found = autopsae.survival.forecast_births(sample, remedies, firing, d_sae=48, generator=generator())
    return found["none"].at(100_000).dead


OF_A_SAMPLE: dict[str, Callable[[Any], Any]] = {
    "born": lambda sample: an_sae(sample).scale,
    "born with a firing rate": lambda sample: an_sae(sample, firing_rate=0.1).b_enc,
    "forecast_births": expected,
    "forecast": lambda y: autopsae.survival.forecast(y, an_sae().W_enc.detach(), autopsae.TopK(k=4)).at(10_000),
    "revival": lambda y: autopsae.survival.recovery(y, an_sae().W_enc.detach(), lr=1e-3, steps=100),
    "geometric_median": lambda sample: autopsae.statistics.geometric_median(tokens(), sample=sample),
}


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


@pytest.mark.parametrize("use", OF_A_SAMPLE.values(), ids=OF_A_SAMPLE)
def test_a_sample_may_be_an_array_and_masked_rows_are_left_out(use: Callable[[Any], Any]) -> None:
    x = tokens()
    found = use(x[:300])
    assert same(use(x[:300].numpy()), found)
    assert same(use(masked(x, 300)), found)


@pytest.mark.parametrize("use", OF_A_SAMPLE.values(), ids=OF_A_SAMPLE)
def test_a_sample_with_nan_is_refused(use: Callable[[Any], Any]) -> None:
    x = tokens()
    x[7, 3] = torch.nan
    with pytest.raises(
        InputError, match="expected finite activations, got NaN or infinite values in 1 of 400 tokens"
    ):
        use(x)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x]], ids=["matrix", "list"])
def test_masked_rows_are_neither_held_out_nor_counted(wrap: Callable[[Any], Any]) -> None:
    training, held = hold_out(wrap(masked(tokens(), 300)), 50)
    plain_training, plain_held = hold_out(tokens()[:300], 50)
    assert (training.tokens, held.tokens) == (250, 50)
    assert torch.equal(torch.cat(list(training)), torch.cat(list(plain_training)))
    assert torch.equal(torch.cat(list(held)), torch.cat(list(plain_held)))


class Claims:
    """A source that says that it has another number of tokens than it has."""

    def __init__(self, said: int) -> None:
        self.tokens = said

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(tokens().split(100))


class Changing:
    """A source of which every pass is another one."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.passes += 1
        return iter((tokens() + self.passes).split(100))


def test_the_geometric_median_of_a_stream_needs_the_same_tokens_in_every_pass() -> None:
    with pytest.raises(InputError, match="expected a source that yields the same tokens in every pass"):
        autopsae.statistics.geometric_median(Changing(), sample=tokens(50))


@pytest.mark.parametrize("said", [100, 399, 401, 4000])
def test_a_source_that_says_another_number_of_tokens_than_it_has_is_refused(said: int) -> None:
    training, held = hold_out(Claims(said), 10)
    with pytest.raises(InputError, match="expected a source of as many tokens as its attribute `tokens`"):
        sum(len(batch) for part in (training, held) for batch in part)


WRONG_TYPES = """
import numpy as np, torch, autopsae
from autopsae.arrays import InputError
start, sparsity, x = autopsae.remedies.untouched(4), autopsae.TopK(k=2), torch.randn(50, 4)
def born(k=2, generator=torch.Generator()):
    return autopsae.born(start, d_sae=8, sparsity=autopsae.TopK(k=k), scaled=False, generator=generator)
tries = [lambda name=name, value=value: autopsae.TrainConfig(**({"steps": 9, "lr": 1e-3} | {name: value}))
         for name in ("steps", "batch_tokens", "buffer_tokens", "record_every", "seed", "k_steps")
         for value in (2.5, 64.0, True, "3")]
tries += [lambda k=k: born(k=k) for k in (2.0, True, "2")]
tries += [lambda g=g: born(generator=g) for g in (0, "0", np.random.default_rng(0))]
tries += [lambda: autopsae.survival.measure_birth(x, [start], d_sae=8, k=2, generator=0)]
tries += [lambda: autopsae.AuxK(k_aux=2.5)]
for one in tries:
    try:
        one()
        print("accepted")
    except InputError as error:
        print(error)
"""


def test_numbers_and_generators_of_another_type_are_refused_by_name() -> None:
    """In a process of its own: here the types in the signatures are checked."""
    done = processes.run(processes.code, WRONG_TYPES)
    said = done.stdout.splitlines()
    assert len(said) == 32
    for name, lines in zip(
        ("steps", "batch_tokens", "buffer_tokens", "record_every", "seed", "k_steps"),
        [said[i : i + 4] for i in range(0, 24, 4)],
        strict=True,
    ):
        assert all(line.startswith(f"TrainConfig.{name}: expected a whole number, got ") for line in lines)
    assert all(line.startswith("TopK.k: expected a whole number, got ") for line in said[24:27])
    of_generator = "generator: expected a torch.Generator such as torch.Generator().manual_seed(0), got "
    assert all(line.startswith(of_generator) for line in said[27:31])
    assert said[31].startswith("AuxK.k_aux: expected a whole number, got 2.5")


@pytest.mark.parametrize("name", ["center", "linear", "inverse"])
def test_a_remedy_of_values_that_are_not_finite_is_refused(name: str) -> None:
    maps: dict[str, Any] = {"center": torch.zeros(D_IN), "linear": torch.eye(D_IN), "inverse": torch.eye(D_IN)}
    maps[name] = torch.full_like(maps[name], torch.nan)
    message = f"remedy 'mine': expected finite numbers, got NaN or infinite values in {name}; check the tokens"
    with pytest.raises(InputError, match=message):
        autopsae.Remedy(name="mine", instruction="", affine=autopsae.remedies.Affine(**maps))


@pytest.mark.parametrize(("size", "refused"), [(1e-37, False), (1e-39, True)])
def test_a_scale_that_the_type_cannot_hold_is_refused(size: float, refused: bool) -> None:
    x = tokens().double() * size
    if refused:
        with pytest.raises(InputError, match=r"born: expected tokens whose scale torch\.float32 can hold"):
            an_sae(x)
    else:
        assert an_sae(x).scale > 1e30
    assert an_sae(x, dtype=torch.float64).scale > 1e30


def test_a_token_that_overflows_is_blamed_and_not_the_learning_rate() -> None:
    x = tokens()
    x[5] = 1e25
    config = autopsae.TrainConfig(steps=50, lr=1e-3, batch_tokens=100)
    with pytest.raises(autopsae.training.Diverged, match=r"have values up to .*: leave stray tokens out"):
        autopsae.train(an_sae(x), x, config)


def test_a_shift_that_is_not_finite_is_refused() -> None:
    config = autopsae.TrainConfig(steps=5, lr=1e-3, batch_tokens=100)
    member = autopsae.training.Member(sae=an_sae(), config=config, shift=torch.full((D_IN,), torch.nan), name="a")
    with pytest.raises(InputError, match="member 'a': expected a finite shift, got NaN or infinite values in it"):
        autopsae.training.Training([member], tokens())


def test_an_autopsy_needs_tokens_that_differ_and_finite_settings() -> None:
    with pytest.raises(InputError, match="autopsy: expected tokens that differ, got 300 copies of one vector"):
        autopsae.autopsy(an_sae(), tokens(1).expand(300, -1))
    with pytest.raises(InputError, match="autopsy: expected lr and steps of at least 0"):
        autopsae.autopsy(an_sae(), tokens(), lr=float("inf"))


def test_a_coefficient_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="AuxK: expected coefficient >= 0"):
        autopsae.AuxK(coefficient=float("inf"))


@pytest.mark.parametrize(("copies", "said"), [(80, False), (82, True)])
def test_an_autopsy_says_that_a_fifth_of_its_tokens_are_one_vector(copies: int, said: bool) -> None:
    x = tokens()
    x[:copies] = 0
    found = autopsae.autopsy(an_sae(), x)
    assert found.repeated == pytest.approx(copies / 400)
    assert (found.findings[0].name == "share of one repeated token") == said
    if said:
        assert "20% of the tokens are one and the same vector: padding" in str(found.findings[0])


def test_no_more_latents_are_expected_to_be_never_positive_than_to_be_dead() -> None:
    """The two are fitted apart, and few latents with long tails drive them apart."""
    for seed in range(8):
        x = tokens() * torch.logspace(0, -3, D_IN) + 3 * (torch.arange(D_IN) == seed)
        remedies, firing = [autopsae.remedies.untouched(D_IN)], autopsae.TopK(k=4)
        made = {"d_sae": 16, "generator": torch.Generator().manual_seed(seed)}
        found = autopsae.survival.forecast_births(x, remedies, firing, **made)["none"]  # type: ignore[arg-type]
        for at in (100, 10_000, 1_000_000):
            dead, relu = found.dead(at), found.dead_by_relu(at)
            assert relu.value <= dead.value
            assert relu.low <= relu.value <= relu.high <= dead.high
