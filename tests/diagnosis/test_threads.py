"""The number of threads changes no result by more than rounding, and no count at all."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Degenerate and low-rank spectra, a dominant mean, repeated and stray tokens: where rounding could be blown up.
DIAGNOSES = """
import json, sys
import torch, autopsae
g = torch.Generator().manual_seed(0)
x = torch.randn(3000, 96, generator=g)
mean = torch.randn(96, generator=g)
repeated, stray = x.clone(), x.clone()
repeated[:1500] = x[0]
stray[::50] *= 1000
layers = {
    "degenerate": x,
    "low rank": x[:, :8] @ torch.randn(8, 96, generator=g) + mean,
    "mean": x + 20 * mean,
    "few": x[:60],
    "repeated": repeated,
    "stray": stray,
}
found = {name: autopsae.diagnose(x, d_sae=256, k=8, alphas=[0.7]).to_dict() for name, x in layers.items()}
found["one of each"] = autopsae.diagnose(repeated, d_sae=256, k=8, repeated="leave_out").to_dict()
sae = autopsae.born(
    autopsae.remedies.center(mean, "mean"), d_sae=256, sparsity=autopsae.TopK(k=8), scaled=False, generator=g
)
found["autopsy"] = {"table": autopsae.autopsy(sae, x.double() + mean).columns()}
print(json.dumps(found))
"""


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and word with the place where it is."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield place, value
    for name, inner in pairs or ():
        yield from leaves(inner, f"{place}.{name}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found = []
    for threads in "12":
        command = [sys.executable, "-c", DIAGNOSES]
        names = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **names})
        assert not done.returncode, done.stderr[-600:]
        found.append(dict(leaves(json.loads(done.stdout))))
    return found


def test_one_and_two_threads_agree_to_1e_12(runs: list[dict[str, Any]]) -> None:
    one, two = runs
    assert [*one] == [*two]
    assert len(one) > 1000
    exact = {place for place, value in one.items() if not isinstance(value, float)}
    assert {place: one[place] for place in exact} == {place: two[place] for place in exact}
    far = {
        place: (value, two[place])
        for place, value in one.items()
        # The table of an autopsy is float32, as the SAE is.
        if place not in exact
        and not math.isclose(value, two[place], rel_tol=1e-5 if place.startswith(".autopsy") else 1e-12)
    }
    assert not far


def test_fractions_of_dead_latents_are_the_same_with_one_and_two_threads(runs: list[dict[str, Any]]) -> None:
    one, two = runs
    dead = [place for place in one if ".birth." in place]
    assert len(dead) > 50
    assert all(one[place] == two[place] for place in dead)
