from collections.abc import Iterator

import pytest
import torch

from autopsae.kernels import dispatch
from tests.ways import without_numba


@pytest.fixture(params=["compiled", "PyTorch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels by both of their ways: Numba's loops, and PyTorch's operators."""
    if request.param == "PyTorch":
        without_numba(monkeypatch)
    else:
        pytest.importorskip("numba")
    return str(request.param)


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """So many spans, however few the values."""
    before = torch.get_num_threads()
    monkeypatch.setattr(dispatch, "SMALL", 0)
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
