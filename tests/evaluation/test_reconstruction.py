import pytest
import torch

from autopsae.evaluation.reconstruction import evaluate
from autopsae.remedies.remedy import center
from autopsae.sae.init import born
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
