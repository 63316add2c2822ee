"""The verdict on a wide layer: from the sample that it has, from one twice as large, and from all tokens."""

from importlib import import_module

import pytest

import autopsae
from autopsae.statistics import wide
from tests.statistics.test_wide import D_IN, SPECTRA, tokens_of


@pytest.mark.parametrize("name", SPECTRA)
def test_the_kind_of_remedy_and_the_findings_of_a_wide_layer_do_not_change_when_its_sample_doubles(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = tokens_of(SPECTRA[name], tokens=3000)
    monkeypatch.setattr(import_module("autopsae.diagnosis.diagnose"), "WIDE", D_IN - 1)

    def diagnose(per_dimension: int, *, exact: bool = False) -> autopsae.Diagnosis:
        monkeypatch.setattr(wide, "PER_DIMENSION", per_dimension)
        return autopsae.diagnose(x, d_sae=256, k=8, exact=exact, sample_tokens=100)

    once, twice, counted = diagnose(4), diagnose(8), diagnose(4, exact=True)
    # Without the exponent of a whitening: where two of them leave about as many dead, the tokens drawn decide.
    assert len({d.prescription.remedy.name.split("_")[0] for d in (once, twice, counted)}) == 1
    assert [f.name for f in once.findings] == [f.name for f in twice.findings]
    # Either side of the 10 % of the finding on the rank, which only the low one is under.
    fractions = [d.severity.effective_rank_fraction for d in (once, twice, counted)]
    assert len({fraction < 0.1 for fraction in fractions}) == 1
    assert once.severity.gamma == pytest.approx(counted.severity.gamma, rel=1e-6)
    assert once.to_dict().keys() == counted.to_dict().keys()


def test_an_exact_diagnosis_takes_the_covariance_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tokens_of(SPECTRA["power law"], tokens=3000)
    exact = autopsae.diagnose(x, d_sae=64, k=4, sample_tokens=100)
    monkeypatch.setattr(import_module("autopsae.diagnosis.diagnose"), "WIDE", D_IN - 1)
    assert autopsae.diagnose(x, d_sae=64, k=4, sample_tokens=100).severity == exact.severity
    sampled = autopsae.diagnose(x, d_sae=64, k=4, sample_tokens=100, exact=False)
    assert sampled.severity.effective_rank != exact.severity.effective_rank
