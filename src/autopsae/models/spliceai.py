"""SpliceAI: a residual network of one-dimensional convolutions that reads DNA (Jaganathan et al., Cell 2019)."""

import importlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from autopsae.activations.wheels import file_in_wheel
from autopsae.extras import package_error
from autopsae.models.sequences import NUCLEOTIDES, DnaNetwork, Letters
from autopsae.models.weights import load_weights
from autopsae.reading import input_errors

WHEEL = "spliceai==1.3.1"
DILATIONS = (1, 4, 10, 25)
"""Of the convolutions in each group of four blocks."""
BLOCKS_IN_A_GROUP = 4
EPSILON = 0.001
"""Of batch normalisation in Keras."""


class Convolution(nn.Module):
    """A convolution over time that takes and gives [batch, time, channels]: tokens of `channels` dimensions.

    The transposed views cost no copy; in memory the channels stay first.
    """

    def __init__(self, weight: torch.Size, dilation: int = 1) -> None:
        """weight: the shape [out, in, kernel]."""
        super().__init__()
        zeros = torch.zeros(weight, dtype=torch.float32, device="cpu")
        self.weight, self.bias = nn.Parameter(zeros), nn.Parameter(zeros.new_zeros(weight[0]))
        self.dilation = dilation

    def forward(
        self, x: Float[Tensor, "batch time _"], there: Float[Tensor, "batch time 1"] | None
    ) -> Float[Tensor, "batch time _"]:
        """there: 0 where a piece was padded. Zeros are what a convolution sees beyond the end of a sequence."""
        x = x if there is None else x * there
        padding = self.dilation * (self.weight.shape[2] - 1) // 2
        settings = {"padding": padding, "dilation": self.dilation}
        return functional.conv1d(x.transpose(1, 2), self.weight, self.bias, **settings).transpose(1, 2)


class Block(nn.Module):
    """Twice batch normalisation, ReLU and convolution; added to what came in."""

    def __init__(self, weight: torch.Size, dilation: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(weight[1], eps=EPSILON) for _ in range(2))
        self.convolutions = nn.ModuleList(Convolution(weight, dilation) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "batch time d"], there: Float[Tensor, "batch time 1"] | None
    ) -> Float[Tensor, "batch time d"]:
        """x and what the convolutions make of it. there: 0 where a piece was padded."""
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(norm(y.transpose(1, 2)).transpose(1, 2).relu(), there)
        return x + y


class Skip(nn.Module):
    """What goes past the blocks, and what is added to it after each group."""

    def __init__(self, weight: torch.Size) -> None:
        super().__init__()
        self.convolution = Convolution(weight)

    def forward(
        self, total: Float[Tensor, "batch time d"], x: Float[Tensor, "batch time d"]
    ) -> Float[Tensor, "batch time d"]:
        """The sum after this group."""
        added: Tensor = self.convolution(x, None)
        return total + added


class SpliceAI(nn.Module):
    """16 residual blocks in four groups, and a sum of skips after each group. Its output layer is not run.

    What Keras names `add_5`, `add_10`, `add_15` and `add_20` are `skips.0` to `skips.3`; its other sums, in their
    order, are `blocks.0` to `blocks.15`.
    """

    def __init__(self, first: torch.Size, kernels: list[torch.Size]) -> None:
        """first: the shape of the weights that read the letters; kernels: of those of the blocks in each group."""
        super().__init__()
        square = torch.Size((first[0], first[0], 1))
        self.first, self.past = Convolution(first), Convolution(square)
        groups = list(zip(kernels, DILATIONS, strict=True))
        self.blocks = nn.ModuleList(Block(*group) for group in groups for _ in range(BLOCKS_IN_A_GROUP))
        self.skips = nn.ModuleList(Skip(square) for _ in groups)

    def forward(
        self, one_hot: Float[Tensor, "batch time 4"], attention_mask: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time d"]:
        """The last sum of skips. Padded pieces give the tokens that they give alone."""
        there = None if attention_mask is None else attention_mask[..., None].to(one_hot.dtype)
        x = self.first(one_hot, there)
        total: Tensor = self.past(x, there)
        for number, block in enumerate(self.blocks):
            x = block(x, there)
            if (number + 1) % BLOCKS_IN_A_GROUP == 0:
                total = self.skips[number // BLOCKS_IN_A_GROUP](total, x)
        return total


def load_spliceai(name: str = "spliceai") -> DnaNetwork:
    """The first of SpliceAI's five networks out of its wheel, d_in 32; its points: 16 blocks and 4 sums of skips.

    An unknown letter is a row of zeros. Raises InputError for a missing or damaged wheel, and without h5py.
    """
    path = file_in_wheel(name, WHEEL, "models/spliceai1.h5")
    with input_errors(WHEEL, "SpliceAI's weights", "install it again"):
        model = build_spliceai(read_keras(name, path))
    ids = {letter: number for number, letter in enumerate(NUCLEOTIDES)}
    letters = Letters(ids={**ids, "U": ids["T"]}, unknown=-1, one_hot=True)
    points = [f"blocks.{number}" for number in range(len(model.blocks))]
    points += [f"skips.{number}" for number in range(len(model.skips))]
    return DnaNetwork(name, model.eval(), letters=letters, points=points)


def read_keras(name: str, path: Path) -> dict[str, list[Tensor]]:
    """The weights of each layer of a Keras file, in the layer's own order. name: what needs h5py."""
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise package_error(name, "h5py", error, install="h5py") from error
    with h5py.File(path) as file:
        layers = file["model_weights"]
        return {
            layer: [torch.from_numpy(np.array(group[weight])) for weight in group.attrs["weight_names"]]
            for layer, group in layers.items()
        }


def build_spliceai(layers: Mapping[str, list[Tensor]]) -> SpliceAI:
    """The network of the weights that Keras numbered in the order in which it made them; all of them are used but
    those of the output layer.
    """
    weights: dict[str, Tensor] = {}
    convolutions = iter(range(1, 1 + sum(layer.startswith("conv1d_") for layer in layers)))
    norms = iter(range(1, 1 + sum(layer.startswith("batch_normalization_") for layer in layers)))

    def convolution(to: str) -> None:
        weight, bias = layers[f"conv1d_{next(convolutions)}"]
        weights[f"{to}.weight"] = weight.permute(2, 1, 0).contiguous()  # [kernel, in, out] in Keras
        weights[f"{to}.bias"] = bias

    def norm(to: str) -> None:
        gain, shift, mean, variance = layers[f"batch_normalization_{next(norms)}"]
        weights.update({f"{to}.weight": gain, f"{to}.bias": shift})
        weights.update({f"{to}.running_mean": mean, f"{to}.running_var": variance})
        weights[f"{to}.num_batches_tracked"] = torch.tensor(0, device="cpu")

    convolution("first")
    convolution("past")
    for group in range(len(DILATIONS)):
        for block in range(group * BLOCKS_IN_A_GROUP, (group + 1) * BLOCKS_IN_A_GROUP):
            for half in range(2):
                norm(f"blocks.{block}.norms.{half}")
                convolution(f"blocks.{block}.convolutions.{half}")
        convolution(f"skips.{group}.convolution")
    of_groups = [
        weights[f"blocks.{BLOCKS_IN_A_GROUP * g}.convolutions.0.weight"].shape for g in range(len(DILATIONS))
    ]
    model = SpliceAI(weights["first.weight"].shape, of_groups)
    load_weights(model, weights, WHEEL)
    return model
