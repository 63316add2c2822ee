from collections.abc import Callable
from typing import Any

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.remedy import center, untouched
from autopsae.sae.death import fates
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK


def test_strays_count_in_the_raw_error_and_not_in_the_typical_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 12, generator=generator) + 2
    x[::40] *= 300
    sae = born(
        center(torch.full((12,), 2.0), "median"), d_sae=30, sparsity=TopK(k=3), sample=x, generator=generator
    )
    found = evaluate(sae, list(x.split(333)))
    typical = x[x.norm(dim=1) <= 10 * x.norm(dim=1).median()].double()
    assert found.strays == pytest.approx(1 - len(typical) / 1000) == 0.025
    with torch.no_grad():
        for tokens, fvu in ((x.double(), found.fvu_raw), (typical, found.fvu_typical)):
            error = (tokens - sae(tokens.float())).square().sum()
            assert fvu == pytest.approx(float(error / (tokens - tokens.mean(dim=0)).square().sum()), rel=1e-5)
    alone = evaluate(sae, typical.float())
    assert alone.strays == 0
    assert alone.fvu_raw == pytest.approx(found.fvu_typical, rel=1e-6)
    assert alone.fvu_typical == pytest.approx(alone.fvu_raw)


def an_sae(d_in: int = 12) -> SAE:
    generator = torch.Generator().manual_seed(1)
    return born(untouched(d_in), d_sae=30, sparsity=TopK(k=3), scaled=False, generator=generator)


@pytest.mark.parametrize(
    "x",
    [
        torch.full((1, 12), 3.0),
        torch.full((777, 12), 0.1, dtype=torch.float64),
        torch.randn(12, generator=torch.Generator().manual_seed(0)).expand(3000, 12),
        torch.zeros(50, 12),
    ],
)
def test_tokens_that_do_not_differ_have_no_fvu(x: torch.Tensor) -> None:
    found = evaluate(an_sae(), x)
    assert found.fvu_raw is None
    assert found.fvu_typical is None
    assert found.mse_raw >= 0


def test_tokens_that_differ_by_more_than_rounding_errors_have_an_fvu() -> None:
    x = torch.full((500, 12), 0.1, dtype=torch.float64)
    x[::2] += 1e-10
    found = evaluate(an_sae(), x)
    with torch.no_grad():
        error = float((x - an_sae()(x).double()).square().sum())
    assert found.fvu_raw == pytest.approx(error / float((x - x.mean(dim=0)).square().sum()), rel=1e-4)


@pytest.mark.parametrize("stray", [1e6, 1e12, 1e18])
def test_a_huge_token_does_not_cost_the_typical_error_a_digit(stray: float) -> None:
    x = torch.randn(600, 12, generator=torch.Generator().manual_seed(0)) + 2
    typical = evaluate(an_sae(), torch.cat([x[:5], x[6:]])).fvu_raw
    x[5] = stray
    assert evaluate(an_sae(), list(x.split(100))).fvu_typical == pytest.approx(typical, rel=1e-9)


def test_a_token_beyond_the_range_of_the_sae_is_named() -> None:
    x = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0)).double()
    x[2500] = 1e39
    message = (
        r"evaluate: expected tokens that an SAE of torch\.float32 can hold in its unit, got one of norm "
        r"3\.46e\+39, token 2,500 of those read; leave it out, or convert the SAE to float64"
    )
    with pytest.raises(InputError, match=message):
        evaluate(an_sae(), x)
    assert evaluate(an_sae().double(), x).strays == pytest.approx(1 / 3000)


@pytest.mark.parametrize("count", [evaluate, fates])
def test_an_sae_with_weights_that_are_not_finite_is_refused(count: Callable[[SAE, torch.Tensor], Any]) -> None:
    sae, x = an_sae(), torch.randn(300, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sae.W_enc[3, 4] = torch.nan
        sae.b_dec[0] = torch.inf
    with pytest.raises(
        InputError, match="expected an SAE of finite weights, got NaN or infinite values in W_enc, b_d"
    ):
        count(sae, x)
