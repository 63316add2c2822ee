"""The tokens that both trees read: drawn with NumPy from fixed seeds, so that they need nothing of the library."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def mild() -> Matrix:
    """Sparse features, and a mean that is small beside the spread (gamma about 0.3)."""
    return _sparse(_random("mild"), tokens=3000, d_in=32, gamma=0.3)


def severe() -> Matrix:
    """Sparse features, and a mean five times as long as the spread."""
    return _sparse(_random("severe"), tokens=3000, d_in=48, gamma=5.0)


def low_rank() -> Matrix:
    """Gaussian tokens whose variance lies in a few directions, with a mean of twice their spread."""
    random = _random("low_rank")
    scales = np.arange(1, 65) ** -2.0
    tokens = random.standard_normal((2600, 64)) * scales @ _rotation(random, 64)
    return _with_mean(tokens, random.standard_normal(64), gamma=2.0)


def strays() -> Matrix:
    """Sparse features; one token of 100 is 60 times as long, and one of 10 is a copy of another."""
    random = _random("strays")
    tokens = _sparse(random, tokens=3000, d_in=40, gamma=1.0)
    tokens[::100] = 60 * tokens[7]
    tokens[5::10] = tokens[6::10]
    return tokens


def write_inputs(folder: Path) -> None:
    """`layers/NAME.npy`, one for each of the layers above, and padded sequences with their lengths."""
    (folder / "layers").mkdir(parents=True, exist_ok=True)
    for make in (mild, severe, low_rank, strays):
        np.save(folder / "layers" / f"{make.__name__}.npy", make())
    sequences = _sparse(_random("sequences"), tokens=64 * 24, d_in=32, gamma=3.0).reshape(64, 24, 32)
    np.save(folder / "sequences.npy", sequences)
    np.save(folder / "lengths.npy", _random("lengths").integers(5, 25, size=64))


def _random(purpose: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([2605, *purpose.encode()]))


def _sparse(random: np.random.Generator, *, tokens: int, d_in: int, gamma: float) -> Matrix:
    """Sums of 5 of 2 d_in random directions, with a mean of `gamma` times their spread along one coordinate."""
    features = random.standard_normal((2 * d_in, d_in))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    chosen = np.argsort(random.random((tokens, 2 * d_in)), axis=1)[:, :5]
    codes = random.random((tokens, 5)) + 0.5
    summed = np.einsum("ta,tad->td", codes, features[chosen])
    return _with_mean(summed, np.eye(d_in)[3] + 0.1 * random.standard_normal(d_in), gamma=gamma)


def _with_mean(tokens: NDArray[np.float64], direction: NDArray[np.float64], *, gamma: float) -> Matrix:
    centered = tokens - tokens.mean(axis=0)
    spread = np.sqrt(np.square(centered).sum(axis=1).mean())
    moved: Matrix = (centered + gamma * spread * direction / np.linalg.norm(direction)).astype(np.float32)
    return moved


def _rotation(random: np.random.Generator, d_in: int) -> NDArray[np.float64]:
    return np.linalg.qr(random.standard_normal((d_in, d_in)))[0]
