"""A network by its name."""

import torch

from autopsae.activations.presets import load_model
from autopsae.models.network import Network
from autopsae.models.text import TextNetwork


def load_network(name: str, *, device: torch.device | str = "cpu") -> Network:
    """A preset, a folder with a model, a `.gguf` file, or a model of the Hugging Face Hub, in evaluation mode.

    Raises InputError as `load_model`.
    """
    return TextNetwork(load_model(name, device=device))
