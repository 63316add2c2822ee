import pytest

from autopsae.sae import kernels


@pytest.fixture(params=["compiled", "PyTorch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels by both of their ways: Numba's loops, and PyTorch's operators."""
    if request.param == "PyTorch":
        monkeypatch.setattr(kernels, "_loops", lambda: None)
    else:
        pytest.importorskip("numba")
    return str(request.param)
