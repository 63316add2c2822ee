"""What would not fit in memory is refused before it is taken, with the numbers."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import autopsae
from autopsae.arrays import InputError
from autopsae.diagnosis.room import bytes_of_diagnosis
from autopsae.memory import SMALL, available_bytes, check_memory
from autopsae.statistics.room import bytes_of_moments, bytes_of_spectrum, matrices
from autopsae.statistics.spectrum import Spectrum

CPU = torch.device("cpu")
FREE = SMALL + 2**30

PEAK = """
import re, sys, torch, autopsae
def peak():  # of this program alone: ru_maxrss is also that of whoever started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
x = torch.randn(4200, int(sys.argv[1]))
autopsae.statistics.collect(x[:50, :16])  # what is imported and compiled is none of it
before = peak()
autopsae.statistics.collect(x)
print(1024 * (peak() - before))
"""


DIAGNOSIS = """
import sys, torch, autopsae
def diagnosed(x, d_sae=int(sys.argv[2])):
    autopsae.diagnose(x, d_sae=d_sae, k=8, acceptable=0.0, alphas=[0.1], ranks=[8])
diagnosed(torch.randn(300, 16), 32)  # what is imported and compiled is none of it
"""


class Wide:
    """Tokens of which no more may be read than one chunk."""

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.ones(2048, 64)
        raise AssertionError("was read on")


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: FREE)


@pytest.mark.usefixtures("scarce")
def test_memory_is_refused_over_what_is_free_and_not_up_to_it() -> None:
    check_memory(FREE, CPU, "for x", "try y")
    with pytest.raises(InputError, match=r"^expected 1\.3 GiB of free memory for x, got 1\.2; try y$"):
        check_memory(FREE + 2**26, CPU, "for x", "try y")


@pytest.mark.quick
def test_little_memory_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: 0)
    check_memory(SMALL, CPU, "for x", "try y")
    with pytest.raises(InputError, match=r"expected 0\.3 GiB"):
        check_memory(SMALL + 1, CPU, "for x", "try y")


@pytest.mark.quick
def test_where_the_system_does_not_tell_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: torch.device) -> int:
        raise InputError("memory: expected a system that tells")

    monkeypatch.setattr("autopsae.memory.available_bytes", silent)
    check_memory(2**60, CPU, "for x", "try y")


def test_free_memory_is_told() -> None:
    assert 2**20 < available_bytes(CPU) < 2**50


@pytest.mark.quick
def test_a_layer_that_is_too_wide_is_refused_at_its_first_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.memory.SMALL", 0)
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: bytes_of_moments(64, streams=2) - 1)
    expected = r"^expected 0\.[03] GiB of free memory for tokens of d_in = 64, whose .* or a narrower layer$"
    with pytest.raises(InputError, match=expected):
        autopsae.statistics.collect(Wide())
    with pytest.raises(InputError, match=expected):
        autopsae.diagnose(Wide(), d_sae=2048, k=8)


def test_an_autopsy_and_a_spectrum_that_are_too_wide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autopsae.memory.SMALL", 0)
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: bytes_of_spectrum(16) - 1)
    with pytest.raises(InputError, match="for the principal directions of d_in = 16"):
        Spectrum.of(torch.eye(16, dtype=torch.float64))
    sae = autopsae.born(
        autopsae.remedies.untouched(16),
        d_sae=32,
        sparsity=autopsae.TopK(k=4),
        scaled=False,
        generator=torch.Generator(),
    )
    with pytest.raises(InputError, match="for the covariance of d_in = 16"):
        autopsae.autopsy(sae, torch.randn(200, 16, generator=torch.Generator().manual_seed(0)))


def test_what_is_stated_for_a_collection_is_what_it_takes() -> None:
    d_in = 2048
    command = [sys.executable, "-c", PEAK, str(d_in)]
    # One thread: pools of threads keep buffers of their own, which are not what is stated.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert 0.5 < int(done.stdout) / bytes_of_moments(d_in, streams=2) < 1.1


def test_a_diagnosis_is_stated_to_take_more_than_its_statistics() -> None:
    wider = bytes_of_diagnosis(10_000, d_sae=1, alphas=1)
    assert wider - bytes_of_diagnosis(10_000, d_sae=1) == matrices(2, 10_000)
    assert bytes_of_diagnosis(1000, d_sae=1) >= bytes_of_moments(1000, streams=2)
    assert 14 < bytes_of_diagnosis(65_536, d_sae=1) / matrices(1, 65_536) < 15
    many = [bytes_of_diagnosis(1000, d_sae=2**20, alphas=n, ranks=n) for n in (0, 1)]
    assert many[1] - many[0] == matrices(2, 1000) + 2 * 4 * 1000 * 2**20


def test_what_is_stated_for_a_diagnosis_is_what_it_takes() -> None:
    """With all remedies forecast and counted; of one process, with one thread."""
    d_in, d_sae = 512, 256
    code = DIAGNOSIS + PEAK.replace("autopsae.statistics.collect(x)", "diagnosed(x)")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(d_in), str(d_sae)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    stated = bytes_of_diagnosis(d_in, d_sae=d_sae, alphas=1, ranks=1)
    assert 0.5 < int(done.stdout) / stated <= 1


def test_the_widest_layers_are_those_that_the_docs_state() -> None:
    free = 21 * 2**30
    assert bytes_of_diagnosis(11_750, d_sae=8192) < free < bytes_of_diagnosis(12_250, d_sae=8192)
    assert bytes_of_moments(27_500, streams=1) < free < bytes_of_moments(28_500, streams=1)
    assert round(bytes_of_diagnosis(65_536, d_sae=8192) / 2**30) == 478
