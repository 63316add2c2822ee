"""One rule for numbers that count: integers of Python and NumPy, no truth values, no floats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autopsae
from autopsae.activations.synthetic import gaussian_tokens, synthetic_features
from autopsae.arguments import check_whole, whole, whole_arguments
from autopsae.arrays import InputError
from autopsae.run.data import hold_out
from autopsae.run.folder import Plan
from autopsae.statistics.spectrum import Spectrum
from tests import processes

pytestmark = pytest.mark.quick

WRONG = [16.0, 1.5, True, np.float64(16), np.bool_(True), "16", [16], torch.tensor(16)]


@pytest.mark.parametrize("value", [16, np.int64(16), np.uint8(16)])
def test_integers_become_ints(value: Any) -> None:
    assert whole("k", value) == 16
    assert type(whole("k", value)) is int
    check_whole("k", value, least=16, most=16)


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_integer_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InputError, match=r"^k: expected a whole number, got .*; pass an int$"):
        whole("k", value)
    with pytest.raises(InputError, match=r"^k: expected a whole number from 1 to 99, got "):
        check_whole("k", value, least=1, most=99)


@pytest.mark.parametrize("value", [0, 100, 10**5000, -(10**5000)], ids=range(4))
def test_what_is_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InputError, match=r"^k: expected a whole number from 1 to 99, got "):
        check_whole("k", value, least=1, most=99)


def test_a_decorated_function_gets_ints_and_keeps_none_and_defaults() -> None:
    @whole_arguments("k", "rank")
    def function(x: float, k: Any = 3, *, rank: Any = None) -> tuple[float, Any, Any]:
        """Words."""
        return x, k, rank

    assert function(1.5) == (1.5, 3, None)
    assert type(function(1.5, np.int64(4))[1]) is int
    assert function(1.5, k=4, rank=np.int64(5)) == (1.5, 4, 5)
    assert (function.__name__, function.__doc__) == ("function", "Words.")
    with pytest.raises(InputError, match=r"rank: expected a whole number, got 5\.0"):
        function(1.5, rank=5.0)


X = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def spectrum() -> Any:
    return Spectrum.of(torch.eye(8, dtype=torch.float64))


SAE = autopsae.born(
    autopsae.untouched(8), d_sae=32, sparsity=autopsae.TopK(k=4), scaled=False, generator=generator()
)

CALLS: dict[str, Callable[[Any], object]] = {
    "TopK.k": lambda n: autopsae.TopK(k=n),
    "BatchTopK.k": lambda n: autopsae.BatchTopK(k=n),
    "GroupMax.k": lambda n: autopsae.GroupMax(k=n),
    "AmongLargest.k": lambda n: autopsae.TopK(k=n),
    "AmongLargestOfBatch.k": lambda n: autopsae.BatchTopK(k=n),
    "born: d_sae": lambda n: autopsae.born(
        autopsae.untouched(8), d_sae=n, sparsity=autopsae.ReLU(), scaled=False, generator=generator()
    ),
    "diagnose: d_sae": lambda n: autopsae.diagnose(X, d_sae=n, k=2),
    "diagnose: k": lambda n: autopsae.diagnose(X, d_sae=32, k=n),
    "diagnose: steps": lambda n: autopsae.diagnose(X, d_sae=32, k=2, steps=n),
    "diagnose: seed": lambda n: autopsae.diagnose(X, d_sae=32, k=2, seed=n),
    "diagnose: at_tokens": lambda n: autopsae.diagnose(X, d_sae=32, k=2, at_tokens=n),
    "diagnose: ranks": lambda n: autopsae.diagnose(X, d_sae=32, k=2, ranks=[n]),
    "measure_birth: d_sae": lambda n: autopsae.measure_birth(
        X, [autopsae.untouched(8)], d_sae=n, k=2, generator=generator()
    ),
    "measure_birth: k": lambda n: autopsae.measure_birth(
        X, [autopsae.untouched(8)], d_sae=32, k=n, generator=generator()
    ),
    "forecast_births: d_sae": lambda n: autopsae.forecast_births(
        X, [autopsae.untouched(8)], autopsae.TopK(k=2), d_sae=n, generator=generator()
    ),
    "dead_by_relu: tokens": lambda n: autopsae.predicted_dead_by_relu(1.0, n),
    "dead_by_topk: k": lambda n: autopsae.predicted_dead(1.0, 100, d_sae=32, k=n),
    "revival: steps": lambda n: autopsae.recovery(X, X[:20], lr=0.1, steps=n),
    "collect: sample_tokens": lambda n: autopsae.collect(X, sample_tokens=n),
    "whiten: rank": lambda n: autopsae.whiten(spectrum(), torch.zeros(8, dtype=torch.float64), rank=n),
    "active_subspace: rank": lambda n: autopsae.active_subspace(
        spectrum(), torch.zeros(8, dtype=torch.float64), rank=n
    ),
    "autopsy: steps": lambda n: autopsae.autopsy(SAE, X, steps=n),
    "hold_out: held_out": lambda n: hold_out(X, n),
    "Plan.checkpoint_every": lambda n: Plan(checkpoint_every=n),
    "TrainConfig.steps": lambda n: autopsae.TrainConfig(steps=n, lr=0.1),
    "TrainConfig.batch_tokens": lambda n: autopsae.TrainConfig(steps=9, lr=0.1, batch_tokens=n),
    "TrainConfig.k_start": lambda n: autopsae.TrainConfig(steps=9, lr=0.1, k_start=n, k_steps=2),
    "TrainConfig.seed": lambda n: autopsae.TrainConfig(steps=9, lr=0.1, seed=n),
    "AuxK.k_aux": lambda n: autopsae.AuxK(k_aux=n),
    "GhostGradients.dead_after_tokens": lambda n: autopsae.GhostGradients(dead_after_tokens=n),
    "Resampling.every_steps": lambda n: autopsae.Resampling(every_steps=n),
    "L1.warmup_steps": lambda n: autopsae.L1(coefficient=1.0, warmup_steps=n),
}


# In processes of their own, without the checks of types, as users have it.
REFUSED = """
import numpy as np
from autopsae.arrays import InputError
from tests.test_arguments import CALLS
for value in (1.5, 4.0, True, np.float64(4), np.bool_(True), "4"):
    for name, call in CALLS.items():
        try:
            call(value)
        except InputError as error:
            argument = name.replace(": ", ".").split(".")[1]
            assert f"{argument}: expected a whole number" in str(error), (name, str(error))
        else:
            raise AssertionError(f"{name} took {value!r}")
print("all")
"""
TAKEN = """
import pathlib, sys
import numpy as np
import autopsae
from tests.test_arguments import CALLS, generator
for name, call in CALLS.items():
    call(np.int64({"AuxK.k_aux": 4}.get(name, 8)))
nothing = autopsae.untouched(8)
few = autopsae.TopK(k=np.int64(4))
sae = autopsae.born(nothing, d_sae=np.int64(32), sparsity=few, scaled=False, generator=generator())
sae.save(sys.argv[1])
assert autopsae.SAE.load(sys.argv[1]).sparsity == autopsae.TopK(k=4)
print("all")
"""


def test_every_public_count_that_is_no_integer_is_refused() -> None:
    done = processes.run(processes.code, REFUSED)
    assert done.stdout == "all\n", done.stderr[-600:]


def test_every_public_count_may_be_an_integer_of_numpy_and_is_saved_as_one(tmp_path: Path) -> None:
    done = processes.run(processes.code, TAKEN, tmp_path / "sae")
    assert done.stdout == "all\n", done.stderr[-600:]


# Devices.

DEVICES: dict[str, Callable[[Any], object]] = {
    "diagnose": lambda d: autopsae.diagnose(X, d_sae=32, k=2, device=d),
    "collect": lambda d: autopsae.collect(X, device=d),
    "measure_birth": lambda d: autopsae.measure_birth(
        X, [autopsae.untouched(8)], d_sae=32, k=2, generator=generator(), device=d
    ),
    "load_model": lambda d: autopsae.load_model("nowhere", device=d),
    "gaussian_tokens": lambda d: gaussian_tokens(9, 4, 1.0, generator=generator(), device=d),
    "synthetic_features": lambda d: synthetic_features(9, 4.0, generator=generator(), device=d),
}


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("device", ["nowhere", "meta", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_before_the_work(name: str, device: str) -> None:
    with pytest.raises(InputError, match=rf"^device '{device}': expected one that computes in .*; try cpu$"):
        DEVICES[name](device)
