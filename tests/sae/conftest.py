import pytest

from tests.ways import without_numba


@pytest.fixture(params=["compiled", "PyTorch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels by both of their ways: Numba's loops, and PyTorch's operators."""
    if request.param == "PyTorch":
        without_numba(monkeypatch)
    else:
        pytest.importorskip("numba")
    return str(request.param)
