"""Death at birth that is estimated from a sample, against the count on all tokens."""

import pytest
import torch

import autopsae
from autopsae.activations.synthetic import gaussian_tokens
from autopsae.defaults import SAMPLE_TOKENS

TOKENS = 20_000


@pytest.fixture(scope="module")
def both() -> tuple[autopsae.Diagnosis, autopsae.Diagnosis]:
    seeded = torch.Generator().manual_seed(0)
    tokens = gaussian_tokens(TOKENS, 64, gamma=2.0, spectrum=1.0, generator=seeded)
    first, second = (autopsae.diagnose(tokens, d_sae=1024, k=16, exact=exact) for exact in (True, False))
    return first, second


def test_an_estimate_has_the_count_within_its_interval(both: tuple[autopsae.Diagnosis, ...]) -> None:
    counted, estimated = both
    assert counted.birth.keys() == estimated.birth.keys()
    assert counted.birth["none"].dead > 0.1
    for name, birth in estimated.birth.items():
        assert birth.dead_interval is not None
        assert counted.birth[name].dead_interval is None
        low, high = birth.dead_interval
        assert low <= birth.dead <= high
        assert low - 0.01 <= counted.birth[name].dead <= high + 0.01
        assert birth.dead == pytest.approx(birth.dead_by_relu + birth.dead_by_topk)
        assert birth.tokens == TOKENS


def test_all_else_is_the_same(both: tuple[autopsae.Diagnosis, ...]) -> None:
    counted, estimated = (diagnosis.to_dict() for diagnosis in both)
    for name in ("severity", "gamma", "predicted", "expected", "outlier_dimensions"):
        assert counted.get(name) == estimated.get(name)
    assert counted["prescription"]["remedy"] == estimated["prescription"]["remedy"]
    assert estimated["birth"]["none"]["dead_interval"] == both[1].birth["none"].dead_interval


def test_on_no_more_tokens_than_the_sample_the_estimate_is_the_count() -> None:
    tokens = gaussian_tokens(SAMPLE_TOKENS, 32, gamma=2.0, spectrum=1.0, generator=torch.Generator().manual_seed(1))
    counted, estimated = (autopsae.diagnose(tokens, d_sae=512, k=16, exact=exact) for exact in (True, False))
    for name, birth in estimated.birth.items():
        assert birth.dead == pytest.approx(counted.birth[name].dead, abs=1e-3), name


def test_one_pass_is_enough() -> None:
    passes = []

    class Once:
        def __iter__(self) -> object:
            passes.append(1)
            return iter([torch.randn(500, 16, generator=torch.Generator().manual_seed(2))])

    autopsae.diagnose(Once(), d_sae=64, k=4, exact=False)  # type: ignore[arg-type]
    assert len(passes) == 1
