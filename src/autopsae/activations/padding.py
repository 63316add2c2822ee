"""Leaving out padding: which tokens of a source are real, told by the lengths of its sequences or by a mask."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from autopsae.activations.formats.npy import only_array
from autopsae.activations.formats.pt import load_pt
from autopsae.activations.parts import Part, keep_rows
from autopsae.arrays import InputError
from autopsae.mirror import copy_of
from autopsae.reading import input_errors, is_folder
from autopsae.words import show

Numbers = str | Path | Tensor | NDArray[Any] | Sequence[Any]
"""Whole numbers or booleans, or the file that holds them (.npy, .npz, .pt, .txt)."""

BYTES_IN_TEXT = 32
"""Of a number in a text file, at most; with the spaces around it."""
MOST_COMMENTS = 2**16
"""Bytes of a text file that are no numbers, at most."""


def without_padding(
    layer: str, parts: Sequence[Part], lengths: Numbers | None, mask: Numbers | None
) -> Sequence[Part]:
    """The parts of a layer without its padding; as they are where neither is given.

    lengths: tokens of each sequence that are real, the first ones. mask: True or 1 where a token is real, one for
    each token, as [sequences, tokens] or in a row. Raises InputError for both, for other values, and for a number
    of them that is not the layer's.
    """
    where = f"layer {show(layer, 80)}"
    if lengths is not None and mask is not None:
        raise InputError("expected lengths or a mask, got both; give the mask alone")
    if lengths is not None:
        is_real = _by_lengths(lengths, parts, where)
    elif mask is not None:
        is_real = _by_mask(mask, parts, where)
    else:
        return parts
    if not is_real.any():
        raise InputError(f"{where}: expected a token to keep, got only padding; is the mask the other way round?")
    ends = np.cumsum([part.tokens for part in parts])
    return [
        keep_rows(part, mine) for part, mine in zip(parts, np.split(is_real, ends[:-1]), strict=True) if mine.any()
    ]


def _by_lengths(lengths: Numbers, parts: Sequence[Part], where: str) -> Bool[np.ndarray, "tokens"]:
    most = np.concatenate([np.full(part.tokens // (part.sequence or 1), part.sequence or 1) for part in parts])
    numbers = _numbers(lengths, "lengths", len(most))
    if numbers.dtype == np.bool_ or numbers.ndim != 1:
        raise InputError(
            f"lengths: expected a whole number for each sequence, got shape {list(numbers.shape)} of "
            f"{numbers.dtype}; "
            "give a mask as mask"
        )
    if any(part.sequence is None for part in parts):
        raise InputError(
            f"{where}: lengths go with activations [sequences, tokens, d_in], got [tokens, d_in]; give a mask, one "
            "for each token"
        )
    if len(numbers) != len(most):
        raise InputError(f"{where}: expected a length for each of {len(most):,} sequences, got {len(numbers):,}")
    wrong = (numbers < 0) | (numbers > most)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{where}: lengths: expected 0 to {most[first]:,} tokens of sequence {first:,}, got {numbers[first]:,}"
        )
    return np.concatenate([np.arange(whole) < length for whole, length in zip(most, numbers, strict=True)])


def _by_mask(mask: Numbers, parts: Sequence[Part], where: str) -> Bool[np.ndarray, "tokens"]:
    tokens = sum(part.tokens for part in parts)
    numbers = _numbers(mask, "mask", tokens)
    _check_shape(numbers, tokens, {part.sequence for part in parts}, where)
    if numbers.dtype != np.bool_:
        other = numbers[(numbers != 0) & (numbers != 1)]
        if len(other):
            added = "; a mask that is added (0 and a large negative number) is True where it is 0: give mask == 0"
            raise InputError(
                f"mask: expected True and False, or 1 and 0 (1: a real token), got {other[0]:g}"
                f"{added if other[0] < 0 else ''}"
            )
        numbers = numbers == 1
    return numbers.reshape(-1)


def _check_shape(numbers: NDArray[Any], tokens: int, sequences: set[int | None], where: str) -> None:
    """InputError unless there is a number for each token. sequences: tokens of a sequence in each part."""
    sequence = next(iter(sequences)) if len(sequences) == 1 else None
    if (
        numbers.size != tokens
        or numbers.ndim > 2
        or (numbers.ndim == 2 and sequence not in (None, numbers.shape[1]))
    ):
        held = f"[{tokens // sequence:,}, {sequence:,}]" if sequence else f"{tokens:,} tokens"
        raise InputError(
            f"{where}: expected a mask of {held}, got shape {list(numbers.shape)}; is it of this source?"
        )


def _numbers(source: Numbers, what: str, most: int) -> NDArray[Any]:
    """Lengths or a mask as an array of numbers or booleans. most: as many of them fit the layer."""
    if isinstance(source, np.ma.MaskedArray):
        raise InputError(f"{what}: expected a plain array, got a masked one; give numpy.asarray of what is meant")
    if isinstance(source, str | Path):
        numbers = _read(Path(source), what, most)
    else:
        with input_errors(what, "an array of numbers", "give a NumPy array or a tensor"):
            numbers = source.detach().cpu().numpy() if isinstance(source, Tensor) else np.asarray(source)
    fits = numbers.dtype.kind in ("iub" if what == "lengths" else "iubf")
    if not fits or not numbers.size:
        raise InputError(
            f"{what}: expected {'whole numbers' if what == 'lengths' else 'True and False, or 1 and 0'}, got shape "
            f"{list(numbers.shape)} of {numbers.dtype}"
        )
    return numbers


def _read(path: Path, what: str, most: int) -> NDArray[Any]:
    """The one array in a .npy, .npz, .pt, .pth or .txt file; none is read that tells of more than `most` values."""
    path = copy_of(path)
    if is_folder(path):
        raise InputError(f"{path}: expected a file of {what}, got a folder")
    with input_errors(path, f"a file of {what}", "save one array of whole numbers or booleans"):
        if path.suffix in (".npy", ".npz"):
            return only_array(path, most)
        if path.suffix in (".pt", ".pth"):
            return np.asarray(load_pt(path))
        if path.suffix == ".txt":
            if path.stat().st_size > MOST_COMMENTS + BYTES_IN_TEXT * most:
                raise ValueError(f"{path.stat().st_size:,} bytes, which are too many for {most:,} values")
            return np.loadtxt(path, dtype=np.int64, ndmin=1)
        raise ValueError(f"expected .npy, .npz, .pt, .pth or .txt, got {path.suffix or 'no suffix'}")
