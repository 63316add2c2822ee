"""No finding contradicts the verdict, whatever the layer."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch

from autopsae.activations.synthetic import gaussian_tokens
from autopsae.diagnosis.diagnose import diagnose
from autopsae.diagnosis.findings import CLOSED_FORM
from autopsae.diagnosis.result import Diagnosis

N, D = 1500, 24
ASKED: dict[str, Any] = {"d_sae": 192, "k": 6}


def gaussian(gamma: float, **options: Any) -> torch.Tensor:
    return gaussian_tokens(N, D, gamma, **options, generator=torch.Generator().manual_seed(7))


def hidden(mean: float, **options: Any) -> torch.Tensor:
    """A mean along the ones, which LayerNorm takes away."""
    return gaussian(0.1, **options) + mean


def every_second_constant(x: torch.Tensor) -> torch.Tensor:
    x[::2] = torch.linspace(-2, 3, D)
    return x


def padded(x: torch.Tensor, every: int) -> torch.Tensor:
    x[::every] = 0
    return x


def embedding(x: torch.Tensor, distinct: int) -> torch.Tensor:
    return x[torch.randint(distinct, (N,), generator=torch.Generator().manual_seed(1))]


LAYERS: dict[str, Callable[[], torch.Tensor]] = {
    **{
        f"gamma {gamma}, spectrum {spectrum}": partial(gaussian, gamma, spectrum=spectrum)
        for gamma in (0.0, 0.6, 0.9, 1.3, 10.0)
        for spectrum in (0.0, 4.0)
    },
    **{
        f"strays {share}, gamma {gamma}": partial(gaussian, gamma, outlier_fraction=share)
        for share in (0.008, 0.05)
        for gamma in (0.1, 0.8)
    },
    **{
        f"hidden mean {mean}, strays {share}": partial(hidden, mean, outlier_fraction=share, outlier_norm=3000.0)
        for mean in (0.5, 10.0)
        for share in (0.0, 0.008)
    },
    "heavy tails": partial(gaussian, 1.5, tail=3),
    "a third padded": lambda: padded(gaussian(0.8), 3),
    "a third padded, large gamma": lambda: padded(gaussian(4.0), 3),
    "one in a thousand zero": lambda: padded(gaussian(0.2), 1000),
    "constant in every second row": lambda: every_second_constant(gaussian(0.5)),
    "50 vectors": lambda: embedding(gaussian(1.0), 50),
    "400 vectors": lambda: embedding(gaussian(0.3), 400),
}


@cache
def diagnosed(name: str) -> Diagnosis:
    return diagnose(LAYERS[name](), **ASKED)


REMEDIES = ("center", "whiten", "median", "b_dec", "subspace", "deviation", "try ")


@pytest.mark.parametrize("name", LAYERS)
def test_no_finding_contradicts_the_verdict(name: str) -> None:
    diagnosis = diagnosed(name)
    prescription = diagnosis.prescription
    for finding in diagnosis.findings:
        if prescription.remedy.name == "none":
            assert not any(word in finding.advice for word in REMEDIES), finding
            assert finding.name != "dead at birth"
        elif "whiten" in finding.advice or "subspace" in finding.advice:
            assert prescription.remedy.instruction in finding.advice


@pytest.mark.parametrize("name", LAYERS)
def test_death_is_said_to_be_counted_or_expected_and_on_how_many_tokens(name: str) -> None:
    diagnosis = diagnosed(name)
    counted, expected = diagnosis.birth["none"], diagnosis.expected["none"]
    assert {birth.tokens for birth in diagnosis.birth.values()} == {diagnosis.tokens}
    named = {finding.name: finding for finding in diagnosis.findings}
    over = counted.dead > 0.01
    assert ("gamma" in named) == (diagnosis.severity.gamma > 1)
    assert ("dead at birth" in named or "silent so far" in named) == (over and "gamma" not in named)
    for finding in (named.get(name) for name in ("gamma", "dead at birth", "silent so far")):
        assert finding is None or (
            f"{counted.dead:.1%} of 192 latents are born dead, counted on {diagnosis.tokens:,} tokens, and "
            f"{expected.dead.value:.1%} are expected to be on 1,000,000" in finding.meaning
        )


@pytest.mark.parametrize("name", LAYERS)
def test_a_count_changes_no_finding_on_the_closed_form(name: str) -> None:
    """Near its threshold, it would come and go with the noise of the estimate."""
    from_sample = diagnose(LAYERS[name](), **ASKED, exact=False)
    said = [finding.name == CLOSED_FORM for finding in diagnosed(name).findings]
    assert any(said) == any(finding.name == CLOSED_FORM for finding in from_sample.findings)


@pytest.mark.parametrize("name", LAYERS)
def test_a_reason_is_given_only_where_death_ends_without_it(name: str) -> None:
    diagnosis = diagnosed(name)
    dead = {name: birth.dead for name, birth in diagnosis.birth.items()}
    for finding in diagnosis.findings:
        if finding.name not in ("dead at birth", "silent so far"):
            continue
        strays = diagnosis.severity.stray_square > 0.5
        assert ("of the squared norm" in finding.meaning) == strays
        if "directions differ in spread" in finding.meaning:
            assert not strays
            assert dead["whiten"] <= dead["none"] / 2 < dead["median"]
        if "times the spread is enough" in finding.meaning or "LayerNorm hides it" in finding.meaning:
            assert not strays
            assert dead["median"] <= dead["none"] / 2


def test_the_laws_are_tried_on_every_verdict_and_finding() -> None:
    verdicts = {diagnosed(name).prescription.remedy.name.partition("_")[0] for name in LAYERS}
    assert {"none", "median", "whiten"} <= verdicts
    names = {finding.name for name in LAYERS for finding in diagnosed(name).findings}
    assert {"gamma", "dead at birth", "silent so far", "effective rank / d_in", "zero tokens"} <= names
    assert {"share of one repeated token", "distinct tokens", "excess kurtosis", "mean-median distance"} <= names
    assert {"distance of the closed form from the forecast", "stray tokens' share of the squared norm"} <= names


def test_a_mean_that_strays_hide_is_the_reason_for_death() -> None:
    diagnosis = diagnosed("hidden mean 10.0, strays 0.008")
    severity = diagnosis.severity
    assert severity.gamma_raw < 1 < 5 < (severity.gamma_typical or 0)
    [born_dead] = [finding for finding in diagnosis.findings if finding.name == "dead at birth"]
    assert "0.80% of the tokens hold" in born_dead.meaning
    assert f"the mean outweighs the spread {severity.gamma_typical:.3g} times" in born_dead.meaning


def test_padding_is_said_and_leaving_it_out_gives_the_layer_without_it() -> None:
    x = gaussian(0.8)
    copies = torch.cat([x, torch.zeros(N // 2, D)])[torch.randperm(N + N // 2)]
    said = diagnose(copies, **ASKED)
    assert said.findings[0].name == "share of one repeated token"
    assert "33% of the tokens are one and the same vector (all zero): padding" in str(said.findings[0])
    kept = diagnose(copies, **ASKED, repeated="leave_out")
    alone = diagnose(x, **ASKED)
    assert kept.tokens == N + 1  # one zero token stays
    assert kept.severity.gamma == pytest.approx(alone.severity.gamma, rel=2e-3)
    assert kept.prescription.remedy.name == alone.prescription.remedy.name
    assert kept.to_dict()["repeated"] == {
        "tokens": N + N // 2,
        "distinct": N + 1,
        "distinct_estimate": N + 1,
        "zero_rows": N // 2,
        "largest_share": 1 / 3,
        "left_out": N // 2 - 1,
    }
    assert said.to_dict()["repeated"] == {**kept.to_dict()["repeated"], "left_out": 0}
    assert [finding.name for finding in kept.findings if "left out" in finding.name] == ["copies left out"]


def test_the_vectors_of_an_embedding_are_the_sample_size() -> None:
    diagnosis = diagnosed("50 vectors")
    [stated] = [finding for finding in diagnosis.findings if finding.name == "distinct tokens"]
    assert (stated.tokens, stated.advice) == (50, "")
    assert {finding.tokens for finding in diagnosis.findings} == {50}
    assert diagnosis.expected["none"].effective_tokens <= 50
    assert "tokens per dimension" in {finding.name for finding in diagnosis.findings}
