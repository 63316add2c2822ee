"""A diagnosis that is read back is the one that was saved."""

import json
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch

import autopsae
from autopsae.arrays import InputError
from autopsae.diagnosis.stored import load_diagnosis, save_diagnosis
from autopsae.saved import checksum

pytestmark = pytest.mark.quick


def diagnosis_of(*, mean: float) -> autopsae.Diagnosis:
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) + mean
    return autopsae.diagnose(x, d_sae=32, k=2, exact=False)


@pytest.mark.parametrize("mean", [0.0, 8.0])
def test_a_diagnosis_is_read_back_whole(tmp_path: Path, mean: float) -> None:
    made = diagnosis_of(mean=mean)
    save_diagnosis(tmp_path / "hs1.mlp.json", made)
    read = load_diagnosis(tmp_path / "hs1.mlp.json")
    assert read.to_dict() == made.to_dict()
    assert str(read) == str(made)
    assert torch.equal(read.landscape, made.landscape)
    for name in ("center", "linear", "inverse"):
        mine, theirs = (getattr(of.prescription.remedy.affine, name) for of in (read, made))
        assert mine is theirs is None or torch.equal(mine, theirs)
    same = ("scale", "layer", "reason", "bias", "encoder_scale")
    assert [getattr(read.prescription, name) for name in same] == [
        getattr(made.prescription, name) for name in same
    ]
    assert (read.recovery is None) == (mean == 0)


def test_numbers_that_json_lacks_are_read_back(tmp_path: Path) -> None:
    made = diagnosis_of(mean=0.0)
    save_diagnosis(tmp_path / "d", replace(made, severity=replace(made.severity, kurtosis=nan)))
    assert load_diagnosis(tmp_path / "d").severity.kurtosis != made.severity.kurtosis


def test_what_is_no_diagnosis_is_refused(tmp_path: Path) -> None:
    save_diagnosis(tmp_path / "d", diagnosis_of(mean=0.0))
    content = json.loads((tmp_path / "d.json").read_text())
    for name, value, said in (("tokens", "many", "tokens: expected .*int"), ("severity", {}, "severity: expected")):
        changed = {**content, name: value}
        rest = {n: v for n, v in changed.items() if n not in ("format", "version", "content_sha256")}
        (tmp_path / "d.json").write_text(json.dumps({**changed, "content_sha256": checksum(rest)}))
        with pytest.raises(InputError, match=said):
            load_diagnosis(tmp_path / "d")
