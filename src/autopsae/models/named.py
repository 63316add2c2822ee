"""Any network by its name."""

from pathlib import Path

import torch

from autopsae.activations.presets import load_model
from autopsae.models.catalogue import find_entry
from autopsae.models.load import load_other
from autopsae.models.network import Network
from autopsae.models.text import TextNetwork


def load_network(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Network:
    """A preset or a name of the catalogue (docs/models.md), a folder, a `.gguf` file, or a model of the Hugging
    Face Hub, in evaluation mode.

    Raises InputError as `load_other` and, for what reads text, as `load_model`.
    """
    other = load_other(name, dtype=dtype, device=device)
    if other is not None:
        return other
    entry = None if Path(name).expanduser().exists() else find_entry(name)
    known = (entry and entry.hub) or name
    return TextNetwork(load_model(known, dtype=dtype, device=device))
