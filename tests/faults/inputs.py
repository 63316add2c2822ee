"""What networks are fed with, and networks of images and proteins: files of every kind, made whole and read."""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autopsae.models import ImageNetwork, pictures_in, sequences_in
from autopsae.models.load import load_other


def make_records(name: str, folder: Path) -> None:
    from tests.models.test_records import EMBL, SWISS

    fasta = "".join(f">protein {n}\n{'MKTAYIAKQR' * (n + 1)}\n" for n in range(5))
    content = (SWISS * 3 if "swiss" in name else EMBL * 3 if "embl" in name else fasta).encode()
    (folder / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)


def read_records(name: str, folder: Path) -> Any:
    return list(sequences_in(folder / name))


def make_image(suffix: str, folder: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (24, 30, 4), dtype=np.uint8)
    mode = {".jpg": "RGB", ".gif": "P", ".tif": "CMYK", ".bmp": "RGB"}.get(suffix, "RGBA")
    image = Image.fromarray(pixels).convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)
    image.save(folder / f"a{suffix}")


def make_cifar(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes(np.random.default_rng(0).bytes(3073 * 3))


def read_pictures(folder: Path) -> Any:
    network = ImageNetwork("tiny", torch.nn.Linear(1, 1), patch=4, special=1)
    pieces = [
        piece for document in pictures_in(folder) for piece in network.pieces(document.content, "a document", 8)
    ]
    return network.batch(pieces, 8)["pixel_values"].tolist()


def make_network_of_images(folder: Path) -> None:
    from tests.models.test_load import vision_folder

    vision_folder(folder / "v", "dinov2")


def make_network_of_proteins(folder: Path) -> None:
    from tests.models.test_load import esm_folder

    esm_folder(folder / "e")


def read_network(name: str, folder: Path) -> Any:
    network = load_other(str(folder / name))
    if network is None:
        return None
    document: Any = "MKTAYIAKQR"
    if isinstance(network, ImageNetwork):
        document = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return [tensor.tolist() for tensor in network.batch(network.pieces(document, "a", 8), 8).values()]


INPUTS: dict[str, tuple[Callable[[Path], object], Callable[[Path], Any]]] = {
    **{
        f"records {name}": (partial(make_records, name), partial(read_records, name))
        for name in ("a.fasta", "a.fasta.gz", "swiss.dat", "embl.dat")
    },
    **{
        f"image {suffix}": (partial(make_image, suffix), read_pictures)
        for suffix in (".png", ".jpg", ".gif", ".tif", ".webp", ".bmp")
    },
    "cifar-10": (make_cifar, read_pictures),
    "network of images": (make_network_of_images, partial(read_network, "v")),
    "network of proteins": (make_network_of_proteins, partial(read_network, "e")),
}
