import pytest
from torch import nn

from autopsae.modules import evaluation_mode

pytestmark = pytest.mark.quick


def leave_by_an_error(model: nn.Module) -> None:
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError


def test_modules_are_in_evaluation_mode_within_and_in_their_own_after() -> None:
    frozen, free = nn.Dropout(), nn.Dropout()
    both = nn.Sequential(frozen, free)
    frozen.eval()
    with pytest.raises(RuntimeError):
        leave_by_an_error(both)
    assert (both.training, frozen.training, free.training) == (True, False, True)
