"""Any network by its name."""

from pathlib import Path

import torch

from autopsae.activations.presets import load_model
from autopsae.models.catalogue import find_entry
from autopsae.models.load import load_other
from autopsae.models.network import Network
from autopsae.models.text import TextNetwork


def load_network(name: str, *, device: torch.device | str = "cpu") -> Network:
    """In evaluation mode: a name of the catalogue, a folder with a model, a `.gguf` file, or a model of the Hub.

    Raises InputError as `load_other` and `load_model`.
    """
    other = load_other(name, device=device)
    if other is not None:
        return other
    entry = None if Path(name).expanduser().exists() else find_entry(name)
    return TextNetwork(load_model((entry and entry.hub) or name, device=device))
