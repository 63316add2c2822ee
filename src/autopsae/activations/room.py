"""What a harvest will take on disk and in memory, known before it takes it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autopsae.arrays import InputError
from autopsae.disk import nearest_folder
from autopsae.urls import url_of

_LABELS = 3 * 8
"""Bytes of a token's document, position and id."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a harvest takes, in bytes."""

    tokens: int
    """Tokens that will be kept."""
    layers: int
    token_bytes: int
    """Of one token: its activations in all layers, and its labels."""
    held_tokens: int
    """Tokens held in memory at most: a shard that is filled, and a batch."""

    @property
    def disk(self) -> int:
        """Bytes on the disk for all tokens."""
        return self.tokens * self.token_bytes

    @property
    def memory(self) -> int:
        """Beside the network itself."""
        return self.held_tokens * self.token_bytes

    def __str__(self) -> str:
        layers = f"{self.layers} layer{'s' if self.layers > 1 else ''}"
        return (
            f"{self.tokens:,} tokens x {layers}, {self.token_bytes:,} bytes a token: "
            f"{in_words(self.disk)} on disk, up to {in_words(self.memory)} in memory beside the network"
        )


def room_for(one: Mapping[str, Tensor], *, tokens: int, batch_tokens: int, shard_tokens: int) -> Room:
    """What `tokens` tokens take. one: a token or more of each layer, as stored."""
    return Room(
        tokens=tokens,
        layers=len(one),
        token_bytes=sum(layer.shape[-1] * layer.element_size() for layer in one.values()) + _LABELS,
        # Of the last batch there are two: what the hooks caught, and what of it is kept.
        held_tokens=min(tokens, shard_tokens) + 2 * batch_tokens,
    )


def check_disk(folder: str | Path, room: Room) -> None:
    """InputError where the disk has less free than what is still to be written into `folder`."""
    if url_of(folder):  # of a store nobody knows how much it takes
        return
    place = Path(folder).absolute()
    written = sum(shard.stat().st_size for shard in place.glob("shard-*.safetensors"))
    free = shutil.disk_usage(nearest_folder(place)).free
    if (needed := room.disk - written) > free:
        raise InputError(
            f"{folder}: expected {in_words(needed)} free on the disk ({room}), got {in_words(free)}; free some, "
            "ask for fewer tokens or layers, or store in bfloat16"
        )


def in_words(size: int) -> str:
    """Bytes as 3.4 GB, in powers of 1,000 as disks are sold."""
    if size < 1000:
        return f"{size} bytes"
    amount = size / 1000
    for unit in ("kB", "MB"):
        if amount < 999.95:
            return f"{amount:,.1f} {unit}"
        amount /= 1000
    return f"{amount:,.1f} GB"
