"""Tokens at the ends of what numbers can hold, and parameters out of range: the right answer, or one clear line."""

import json
import math
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.arrays import InputError
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.survey import survey
from autopsae.evaluation import autopsy, evaluate
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK

ASKED: dict[str, Any] = {"d_sae": 96, "k": 4}


def tokens(**options: Any) -> torch.Tensor:
    return gaussian_tokens(800, 12, 0.7, spectrum=1.0, **options, generator=torch.Generator().manual_seed(3))


def numbers(nested: Any) -> list[float]:
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list):
        return [number for part in nested for number in numbers(part)]
    return [nested] if isinstance(nested, float) else []


@pytest.mark.parametrize("stray", [1e9, 1e20, 3e38])
@pytest.mark.parametrize("zeros", [0, 100, 500])
def test_one_huge_token_leaves_every_number_finite_and_the_others_diagnosed(
    stray: float, zeros: int, tmp_path: Path
) -> None:
    x = tokens()
    x[1 : 1 + zeros] = 0
    x[0] = stray
    found = survey({"layer": x}, **ASKED)
    found.save(tmp_path / "s.json")  # refuses NaN
    assert all(map(math.isfinite, numbers(json.loads((tmp_path / "s.json").read_text()))))
    x[0] = 1e5
    usual = diagnose(x, **ASKED)
    diagnosis = found["layer"]
    for remedy in ("none", "median"):
        assert diagnosis.birth[remedy] == usual.birth[remedy]
        assert diagnosis.expected[remedy].dead.value == pytest.approx(usual.expected[remedy].dead.value, abs=0.01)


SCALED = ("mean_norm", "median_norm", "token_norm_median", "token_norm_p99", "token_norm_max")


@pytest.mark.parametrize("exponent", [-100, -37, 100])
@pytest.mark.parametrize("options", [{}, {"outlier_fraction": 0.01}], ids=["plain", "strays"])
def test_a_power_of_two_changes_no_number_that_has_no_scale(exponent: int, options: dict[str, Any]) -> None:
    x = tokens(**options).double()
    one, other = (diagnose(x * scale, **ASKED).to_dict() for scale in (1.0, 2.0**exponent))
    for name in SCALED:
        assert other[name] == pytest.approx(one[name] * 2.0**exponent, rel=1e-9)
    for found in (one, other):
        for name in (*SCALED, "findings"):
            del found[name]
    assert numbers(other) == pytest.approx(numbers(one), rel=1e-5, abs=1e-9)
    assert other["birth"] == one["birth"]
    assert other["prescription"] == one["prescription"]


@pytest.mark.parametrize("scale", [1e-140, 1e-100, 1e100, 1e140])
def test_float64_tokens_of_any_size_that_can_be_squared_are_diagnosed_as_ever(scale: float) -> None:
    x = tokens().double()
    one, other = diagnose(x, **ASKED), diagnose(x * scale, **ASKED)
    assert other.birth == one.birth
    assert other.severity.gamma == pytest.approx(one.severity.gamma, rel=1e-9)
    assert other.severity.token_norm_median == pytest.approx(one.severity.token_norm_median * scale, rel=1e-2)
    assert all(map(math.isfinite, numbers(other.to_dict())))


@pytest.mark.parametrize("scale", [1e150, 1e200, 1e300])
def test_tokens_too_large_to_be_squared_are_refused_with_what_to_do(scale: float) -> None:
    with pytest.raises(InputError, match="whose squares overflow; divide all tokens by a constant first"):
        diagnose(tokens().double() * scale, **ASKED)


def test_subnormal_tokens_are_diagnosed_or_refused() -> None:
    small = diagnose(tokens() * 2.0**-120, **ASKED)
    assert small.birth["median"].dead == diagnose(tokens(), **ASKED).birth["median"].dead
    with pytest.raises(InputError, match="whose squares vanish; multiply all tokens by a constant first"):
        diagnose(tokens().double() * 1e-310, **ASKED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1.5}, r"k: expected a whole number, got 1\.5"),
        ({"d_sae": 96.5}, r"d_sae: expected a whole number, got 96\.5"),
        ({"at_tokens": 10**30}, "at_tokens: expected a whole number from 1 to 1,000,000,000,000,000, got 10"),
        ({"at_tokens": 1e6}, r"at_tokens: expected a whole number, got 1000000\.0"),
        ({"ranks": [2.5]}, r"ranks: expected a whole number from 1 to .*, got 2\.5"),
        ({"ranks": [13]}, r"rank 13 is not in 1 \.\.\. d_in = 12"),
        ({"alphas": [math.nan]}, r"expected alpha in \[0, 1\], got nan"),
        ({"seed": 2**64}, r"seed: expected a whole number from 0 to .*, got 18446744073709551616"),
        ({"seed": -1}, r"seed: expected a whole number from 0 to .*, got -1"),
        ({"seed": None}, r"seed: expected a whole number from 0 to .*, got None"),
        ({"device": "nope"}, "device 'nope': expected one that computes in float64"),
        ({"lr": math.nan}, "lr: expected a finite number of at least 0, got nan"),
        ({"lr": math.inf}, "lr: expected a finite number of at least 0, got inf"),
        ({"lr": -1e-3}, r"lr: expected a finite number of at least 0, got -0\.001"),
        ({"steps": -1}, r"steps: expected a whole number from 0 to .*, got -1"),
        ({"steps": 2.5}, r"steps: expected a whole number, got 2\.5"),
        ({"acceptable": math.nan}, r"acceptable: expected a fraction in \[0, 1\], got nan"),
        ({"repeated": "drop"}, "repeated: expected one of keep, leave_out, got 'drop'"),
    ],
)
def test_a_parameter_out_of_range_is_refused_in_one_line(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no type checks either
    with pytest.raises(InputError, match=message) as refused:
        diagnose(tokens(), **{**ASKED, **options})
    assert "\n" not in str(refused.value)


def test_the_largest_seed_and_number_of_tokens_are_accepted() -> None:
    diagnosis = diagnose(tokens(), **ASKED, seed=2**63 - 1, at_tokens=10**15)
    assert diagnosis.expected["none"].tokens == 10**15


def test_where_most_tokens_are_one_vector_the_mean_has_no_distance_in_their_spread() -> None:
    x = torch.randn(1000, 12, generator=torch.Generator().manual_seed(0))
    x[:600] = x[0]
    diagnosis = diagnose(x, d_sae=24, k=4)
    assert diagnosis.severity.mean_median_distance is None
    assert '"mean_median_distance": null' in json.dumps(diagnosis.to_dict(), allow_nan=False)


def test_tokens_without_a_dimension_are_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        diagnose(torch.zeros(50, 0), d_sae=24, k=4)


@pytest.mark.parametrize("layers", [[tokens()], {0: tokens()}, tokens()])
def test_layers_without_names_are_refused(layers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users have no type checks either
    with pytest.raises(InputError, match=r"survey: expected \{name: tokens\}, with a text as the name of a layer"):
        survey(layers, d_sae=24, k=4)


@pytest.mark.parametrize("at_tokens", [0, 10**15 + 1, 10**20])
def test_numbers_of_tokens_that_nobody_has_are_refused_everywhere(at_tokens: int) -> None:
    x = tokens()
    sae = born(untouched(x.shape[1]), d_sae=24, sparsity=TopK(k=4), sample=x)
    for take in (lambda: evaluate(sae, x, at_tokens=at_tokens), lambda: autopsy(sae, x, at_tokens=at_tokens)):
        with pytest.raises(InputError, match="at_tokens"):
            take()
    with pytest.raises(InputError, match="at_tokens"):
        diagnose(x, d_sae=24, k=4, at_tokens=at_tokens)
