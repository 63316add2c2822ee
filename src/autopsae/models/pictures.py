"""Pictures: files in a folder and CIFAR-10's own files, opened as RGB.

Pillow is imported only when a file is opened: `pip install 'autopsae[images]'`.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.models.network import Document
from autopsae.reading import check_regular, input_errors, is_folder
from autopsae.words import show

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Of the files in a folder that are taken for pictures."""

Picture = Path | NDArray[Any]
"""A file, or RGB as [height, width, 3] of bytes."""

_CIFAR = (3, 32, 32)
"""Channels, rows and columns of a picture of CIFAR-10; the byte before them is its label."""


def pictures_in(folder: str | Path) -> Iterator[Document]:
    """All pictures of a folder, named: those of `image_files`, or CIFAR-10 in its binary version.

    CIFAR-10 is a folder with `data_batch_1.bin` and so on; those and `test_batch.bin` are read in the order of
    their names. Its version for Python is pickles, which could run any code: it is refused.

    Raises InputError for what is no folder, a folder without pictures, and a file of CIFAR-10 that is cut.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise InputError(f"{folder}: expected a folder with images, got a file; pass the folder that it is in")
    if binary := sorted(folder.glob("*_batch*.bin")):
        for path in binary:
            yield from _cifar(path)
        return
    if next(folder.glob("data_batch_*"), None):
        raise InputError(
            f"{folder}: expected images, got CIFAR-10 as pickles, which may run code when they are read; take its "
            "binary version (cifar-10-binary.tar.gz)"
        )
    yield from (Document(str(path), path) for path in image_files(folder))


def image_files(folder: str | Path) -> list[Path]:
    """The image files of a folder and of the folders within, in the order of their paths; hidden ones are left out.

    An image is known by its suffix (`SUFFIXES`, in small or capital letters). Raises InputError where there is
    none.
    """
    folder = Path(folder)
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    images = [path for path in paths if path.is_file() and not is_hidden(path.relative_to(folder))]
    if not images:
        raise InputError(f"{folder}: expected images ({', '.join(SUFFIXES)}), got none; check the folder")
    return sorted(images)


def is_hidden(path: Path) -> bool:
    """Whether a part of the path begins with a dot, as the files do that macOS puts beside each image."""
    return any(part.startswith(".") for part in path.parts)


def _cifar(path: Path) -> Iterator[Document]:
    size = 1 + int(np.prod(_CIFAR))
    with input_errors(path, "CIFAR-10's binary version"):
        check_regular(path)
        content = np.fromfile(path, dtype=np.uint8)
        if not len(content) or len(content) % size:
            raise ValueError(f"{len(content):,} bytes, no multiple of {size:,}")
    for number, record in enumerate(content.reshape(-1, size)):
        yield Document(f"{path}: image {number}", record[1:].reshape(_CIFAR).transpose(1, 2, 0))


def open_picture(picture: Picture, where: str, *, whole: bool = True) -> Any:
    """A picture as a Pillow image in RGB, turned as its EXIF data say, transparent parts over white.

    The first picture of a file of several; 16 bits are brought to 8. whole: read all of it; else its header alone,
    which says what it is and its size, in which case the mode may be another.

    Raises InputError that names it for a file that is no image, is damaged, or is larger than Pillow takes for
    safe, for an image without pixels, and for numbers of which nobody knows the range (floating point, 32 bits).
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise package_error("images", "PIL", error, install="autopsae[images]") from error
    with input_errors(where, "an image", "leave it out, or save it again"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Of more pixels than any photograph has: a small file could fill the memory.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if isinstance(picture, np.ndarray):
            return Image.fromarray(_check(picture))
        check_regular(picture)
        with Image.open(picture) as opened:
            if not whole:
                return opened
            turned = ImageOps.exif_transpose(opened)
            return _to_rgb(Image, turned)


def _check(picture: NDArray[Any]) -> NDArray[Any]:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"expected bytes of shape [height, width, 3], got {picture.dtype} {picture.shape}")
    return np.ascontiguousarray(picture)


def _to_rgb(image_class: Any, image: Any) -> Any:
    if image.mode.startswith("I;16"):
        bytes_of = (np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8)
        image = image_class.fromarray(bytes_of)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {show(image.mode)}, whose range is not known")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = image_class.new("RGBA", rgba.size, "white")
    return image_class.alpha_composite(white, rgba).convert("RGB")
