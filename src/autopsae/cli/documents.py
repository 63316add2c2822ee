"""What a model reads that is the SOURCE of `diagnose` or `features`, and whether SOURCE is one or activations."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from autopsae.activations.formats.layouts import FILES
from autopsae.activations.hub import can_be_hub_name
from autopsae.activations.texts import documents_in
from autopsae.arrays import InputError
from autopsae.cli.options.shared import Reading
from autopsae.models.dataset import texts_of_dataset
from autopsae.models.named import load_network
from autopsae.models.network import Network
from autopsae.models.pictures import pictures_in
from autopsae.models.pretrained import folder_type
from autopsae.models.records import sequences_in
from autopsae.urls import url_of

_INPUTS = ("text", "dataset", "images", "sequences")


def is_model(source: str) -> bool:
    """Whether a SOURCE is a model: a folder that says so, a `.gguf` file, or what is no path."""
    if url_of(source):
        return False
    path = Path(source)
    if path.is_dir():
        return _has_model_type(path) or (path / "model_index.json").is_file()
    if path.exists():
        return path.suffix.lower() == ".gguf"
    # A name that ends in .gguf is left to what loads models, which says what it expects.
    if not can_be_hub_name(source.removesuffix(".gguf")) or path.suffix in FILES:
        raise InputError(f"{source}: no such file or folder")
    return True


def _has_model_type(folder: Path) -> bool:
    try:
        return folder_type(folder) is not None
    except InputError:  # what reads the folder says what is wrong with it
        return False


def documents_of(reading: Reading) -> Iterable[Any] | None:
    """The documents that were asked for; None where none were.

    Raises InputError for more than one source, and for one that cannot be read.
    """
    given = [name for name in _INPUTS if getattr(reading, name) is not None]
    if len(given) > 1:
        raise InputError(f"expected one of --{' --'.join(_INPUTS)}, got --{' and --'.join(given)}")
    if reading.text:
        return documents_in(reading.text)
    if reading.dataset:
        return _rows(reading.dataset)
    if reading.images:
        return pictures_in(reading.images)
    if reading.sequences:
        return sequences_in(reading.sequences)
    return None


def check_unread(reading: Reading) -> None:
    """InputError where something is given to read, but SOURCE is activations."""
    given = [
        field.name
        for field in fields(reading)
        if field.default is None and getattr(reading, field.name) is not None
    ]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')}: expected with a model, got activations; leave it out")


def load_source(source: str, device: str | None) -> Network:
    """The network of a SOURCE that is a model. Raises InputError for what is no model."""
    try:
        return load_network(source, device=device or "cpu")
    except InputError as error:
        if Path(source).exists():
            raise
        raise InputError(f"{source}: no such file or folder, and no model: {error}") from error


def _rows(name: str) -> Iterator[str]:
    if not name.startswith("hf:"):
        raise InputError(f"--dataset {name}: expected hf:NAME, a dataset of the Hugging Face Hub")
    return texts_of_dataset(name.removeprefix("hf:"))
