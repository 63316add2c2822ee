"""Tokens made to measure: sparse features in superposition, and clouds of chosen gamma, spectrum and tail.

Nothing here looks at a sample: offsets and scales come from the population's moments, so what was asked for
is true up to sampling noise.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from autopsae.arguments import whole_arguments
from autopsae.arrays import InputError, check_device
from autopsae.seeds import stream

# Coefficients are c = 0.5 + |z|, z ~ Normal(0, 1), with E|z| = sqrt(2 / pi): the moments E[c] and E[c^2].
_MEAN = 0.5 + math.sqrt(2 / math.pi)
_SQUARE = 1.25 + math.sqrt(2 / math.pi)


@dataclass(frozen=True, kw_only=True)
class SyntheticFeatures:
    """A re-iterable of [tokens, d_in] batches x = F a + o, the same ones each time. See `synthetic_features`.

    `dataclasses.replace(data, seed=...)` gives other tokens of the same features, to hold out.
    """

    features: Float[Tensor, "n_features d_in"]
    """The true unit directions F, one per row."""
    offset: Float[Tensor, " d_in"]
    """o: zero except in one coordinate."""
    mean: Float[Tensor, " d_in"]
    """mu of the population."""
    sigma_norm: float
    """||sigma|| of the population."""
    n_active: int
    """Features that are active on each token."""
    tokens: int
    """Number of tokens."""
    batch_tokens: int
    """Tokens per batch."""
    seed: int
    """Each batch is drawn from its own generator, so that every pass sees the same tokens."""

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        for start in range(0, self.tokens, self.batch_tokens):
            generator = stream(self.seed, f"synthetic tokens from {start}")
            yield self._batch(min(self.batch_tokens, self.tokens - start), generator)

    def _batch(self, tokens: int, generator: torch.Generator) -> Tensor:
        n_features, n_active = len(self.features), self.n_active
        # The largest of independent uniforms: every subset of n_active features is equally likely.
        kind: dict[str, Any] = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
        active = torch.rand(tokens, n_features, **kind).topk(n_active).indices
        coefficients = 0.5 + torch.randn(tokens, n_active, **kind).abs()
        summed = F.embedding_bag(
            active.to(self.features.device),
            self.features,
            per_sample_weights=coefficients.to(self.features),
            mode="sum",
        )
        return summed + self.offset


@whole_arguments("tokens", "d_in", "n_features", "n_active", "offset_coordinate", "batch_tokens")
def synthetic_features(
    tokens: int,
    gamma: float,
    *,
    d_in: int = 50,
    n_features: int = 100,
    n_active: int = 5,
    offset_coordinate: int = 0,
    batch_tokens: int = 4096,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SyntheticFeatures:
    """The paper's superposition data: x = F a + o with exactly `n_active` active features per token.

    F: random unit directions; which are active is uniform; coefficients 0.5 + |Normal(0, 1)|; o is zero but
    for one coordinate j. `gamma` = ||mu|| / ||sigma|| of the population, on the tokens as they are (gamma_raw).

    With c a coefficient, p = k / n and q = p (k - 1) / (n - 1) for k of n features active, and s = sum_i f_i,
        m = E[F a] = p E[c] s
        ||sigma||^2 = n (p E[c^2] - q E[c]^2) + (q - p^2) E[c]^2 ||s||^2
    and ||m + o_j e_j|| = gamma ||sigma|| gives
        o_j = -m_j + sqrt(m_j^2 - ||m||^2 + gamma^2 ||sigma||^2).

    Raises InputError for sizes that cannot be, and for a gamma below what the features' own mean allows.
    Source: Simon, Adams and Zou 2026, A.1.2.
    """
    check_device(device, dtype)
    positive = min(tokens, d_in, batch_tokens, n_active) >= 1
    if not (positive and n_active <= n_features and 0 <= offset_coordinate < d_in):
        raise InputError(
            f"expected tokens, d_in, batch_tokens >= 1, got {tokens}, {d_in}, {batch_tokens}; n_active in "
            f"[1, n_features], got {n_active} of {n_features}; offset_coordinate in [0, d_in), got "
            f"{offset_coordinate}"
        )
    drawn = stream(generator, "synthetic features")
    features = F.normalize(_normal(drawn, n_features, d_in), dim=1)
    mean, sigma_norm = _moments(features, n_active)
    offset = torch.zeros_like(mean)
    offset[offset_coordinate] = _offset(mean, offset_coordinate, gamma, sigma_norm)
    return SyntheticFeatures(
        features=features.to(device, dtype),
        offset=offset.to(device, dtype),
        mean=(mean + offset).to(device, dtype),
        sigma_norm=sigma_norm,
        n_active=n_active,
        tokens=tokens,
        batch_tokens=batch_tokens,
        seed=int(torch.randint(2**62, (), generator=drawn, device="cpu")),
    )


@whole_arguments("tokens", "d_in", "tail")
def gaussian_tokens(
    tokens: int,
    d_in: int,
    gamma: float,
    *,
    spectrum: float | Float[Tensor, " d_in"] = 0.0,
    tail: int | None = None,
    outlier_fraction: float = 0.0,
    outlier_norm: float = 100.0,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "tokens d_in"]:
    """Tokens x = mu + R sqrt(lambda) z around a mean in a random direction, with ||mu|| = gamma ||sigma||.

    gamma: of the tokens as they are (gamma_raw). spectrum: the eigenvalues lambda of the covariance, or an
    exponent s for lambda_j proportional to j^-s with mean 1; R is a random rotation. tail: degrees of freedom
    (3 or more) of a multivariate Student-t with unit variances, heavier the fewer: every direction has an
    excess kurtosis of 6 / (tail - 4) (infinite up to 4); None: Gaussian. outlier_fraction: the share of
    tokens, at random places, whose mean is `outlier_norm` ||sigma|| in one other random direction, as for
    attention sinks; gamma and spectrum are those of the other tokens.

    Raises InputError for values out of range.
    """
    check_device(device, dtype)
    _check(tokens, d_in, gamma, tail, outlier_fraction, outlier_norm)
    eigenvalues = _eigenvalues(spectrum, d_in)
    sigma_norm = math.sqrt(eigenvalues.sum())
    drawn = stream(generator, "Gaussian tokens")
    mean, away = F.normalize(_normal(drawn, 2, d_in), dim=1) * sigma_norm
    rotation = torch.linalg.qr(_normal(drawn, d_in, d_in)).Q
    z = _normal(drawn, tokens, d_in)
    if tail is not None:
        chi_square = _normal(drawn, tokens, tail).square().sum(dim=1, keepdim=True)
        z *= ((tail - 2) / chi_square).sqrt()
    centers = (gamma * mean).repeat(tokens, 1)
    places = torch.randperm(tokens, generator=drawn, device="cpu")
    centers[places[: round(outlier_fraction * tokens)]] = outlier_norm * away
    x: Tensor = centers + (z * eigenvalues.sqrt()) @ rotation.T
    return x.to(device, dtype)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def _moments(features: Tensor, n_active: int) -> tuple[Tensor, float]:
    """E[F a] and the root of the trace of its covariance (the formula in `synthetic_features`)."""
    n = len(features)
    one = n_active / n
    both = one * (n_active - 1) / max(n - 1, 1)
    total = features.sum(dim=0)
    own = n * (one * _SQUARE - both * _MEAN**2)
    shared = (both - one**2) * _MEAN**2 * float(total @ total)
    return one * _MEAN * total, math.sqrt(own + shared)


def _offset(mean: Tensor, coordinate: int, gamma: float, sigma_norm: float) -> float:
    at = float(mean[coordinate])
    elsewhere = float(mean @ mean) - at**2
    if not gamma * sigma_norm >= math.sqrt(elsewhere) or math.isinf(gamma):
        raise InputError(
            f"gamma: expected a finite number, at least {math.sqrt(elsewhere) / sigma_norm:.3g} (the features' "
            f"own mean, which an offset in one coordinate cannot take away), got {gamma}"
        )
    return math.sqrt((gamma * sigma_norm) ** 2 - elsewhere) - at


def _eigenvalues(spectrum: float | Tensor, d_in: int) -> Tensor:
    if not isinstance(spectrum, Tensor):
        if not math.isfinite(spectrum):
            raise InputError(f"spectrum: expected a finite exponent or {d_in} eigenvalues, got {spectrum}")
        powers = torch.arange(1, d_in + 1, dtype=torch.float64, device="cpu") ** -spectrum
        return powers * (d_in / powers.sum())
    eigenvalues = spectrum.detach().cpu().double()
    if eigenvalues.shape != (d_in,) or not (eigenvalues >= 0).all() or not eigenvalues.sum() > 0:
        raise InputError(
            f"spectrum: expected {d_in} eigenvalues >= 0, not all zero, or one exponent, got "
            f"shape {tuple(spectrum.shape)} with minimum {spectrum.min() if spectrum.numel() else None}"
        )
    return eigenvalues


def _check(
    tokens: int, d_in: int, gamma: float, tail: int | None, outlier_fraction: float, outlier_norm: float
) -> None:
    rules = {
        f"tokens >= 1, got {tokens}": tokens >= 1,
        f"d_in >= 1, got {d_in}": d_in >= 1,
        f"gamma finite and >= 0, got {gamma}": 0 <= gamma < math.inf,
        f"tail None or at least 3 degrees of freedom, got {tail}": tail is None or tail >= 3,
        f"outlier_fraction in [0, 1], got {outlier_fraction}": 0 <= outlier_fraction <= 1,
        f"outlier_norm finite and >= 0, got {outlier_norm}": 0 <= outlier_norm < math.inf,
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise InputError(f"expected {'; '.join(broken)}")
