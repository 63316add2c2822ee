"""Any network by its name."""

import torch

from autopsae.activations.presets import load_model
from autopsae.models.load import load_other
from autopsae.models.network import Network
from autopsae.models.text import TextNetwork


def load_network(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Network:
    """A preset or a name of the catalogue (docs/models.md), a folder, a `.gguf` file, or a model of the Hugging
    Face Hub, in evaluation mode.

    Raises InputError as `load_other` and, for what reads text, as `load_model`.
    """
    return load_other(name, dtype=dtype, device=device) or TextNetwork(load_model(name, dtype=dtype, device=device))
