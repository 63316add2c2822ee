"""The effective rank of wide layers from a sample, beside that of the covariance of all tokens.

    python -m experiments.survival.wide_layers

Gaussian tokens of d_in 2,304 with known principal variances, from white to eight directions, 20,000 of each. The
correlations come from two and four tokens a dimension (`statistics.wide.PER_DIMENSION` is four), and from all. A
row is written as soon as it is measured, and what is in the file already is not measured again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from scipy.fft import dct
from torch import Tensor

from autopsae.diagnosis.severity import severity
from autopsae.files import write_text
from autopsae.statistics import wide
from autopsae.statistics.collect import collect
from autopsae.statistics.median import geometric_median
from autopsae.statistics.spectrum import effective_rank

RESULT = Path(__file__).parent / "results" / "wide_layers.json"
TOKENS = 20_000
RATIOS = (2, 4)
"""Tokens of the sample for each dimension."""


def spectra(d_in: int) -> dict[str, Tensor]:
    """Principal variances by name."""
    place = torch.arange(1, d_in + 1, dtype=torch.float64)
    return {
        "white": torch.ones(d_in),
        "eight": torch.cat([torch.ones(8), torch.full((d_in - 8,), 1e-4)]),
        "power_1": place**-1.0,
        "one_direction": torch.cat([torch.tensor([3.0 * d_in]), torch.ones(d_in - 1)]),
        "tenth": torch.cat([torch.ones(d_in // 10), torch.full((d_in - d_in // 10,), 0.01)]),
    }


def tokens_of(spectrum: Tensor, seed: int) -> list[Tensor]:
    """Blocks of tokens with these principal variances, with a mean in three dimensions.

    The principal directions are those of a cosine transform, none of them along a dimension: the variances of
    dimensions, which are from all tokens anyway, then tell nothing of the spectrum.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = torch.zeros(len(spectrum))
    mean[-3:] = float(spectrum.sum().sqrt())
    scale = spectrum.float().sqrt()

    def block() -> Tensor:
        x = torch.randn(2000, len(spectrum), generator=generator) * scale
        return torch.from_numpy(dct(x.numpy(), norm="ortho")) + mean

    return [block() for _ in range(TOKENS // 2000)]


def measure(x: list[Tensor], ratio: int | None) -> dict[str, Any]:
    """The rank from `ratio` tokens a dimension, None for all tokens, with and without its bias taken off."""
    if ratio:
        wide.PER_DIMENSION = ratio
    statistics = collect(x, sample_tokens=2048, wide=wide.WIDE if ratio else None)
    judged = severity(statistics, geometric_median(statistics.sample))
    plain = effective_rank(torch.linalg.eigvalsh(statistics.normed.covariance))
    return {
        "covariance_tokens": statistics.covariance_tokens,
        "effective_rank": judged.effective_rank,
        "interval": list(judged.effective_rank_interval),
        "with_bias": plain,
        "gamma": judged.gamma,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--widths", type=int, nargs="+", default=[2304])
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    done = {(row["d_in"], row["spectrum"]) for row in rows}
    for d_in in options.widths:
        for seed, (name, spectrum) in enumerate(spectra(d_in).items()):
            if (d_in, name) in done:
                continue
            x = tokens_of(spectrum, seed)
            row: dict[str, Any] = {"d_in": d_in, "spectrum": name, "tokens": TOKENS, "all": measure(x, None)}
            row |= {f"per_dimension_{ratio}": measure(x, ratio) for ratio in RATIOS}
            rows.append(row)
            write_text(options.out, json.dumps({"rows": rows}, indent=1) + "\n")
            errors = [
                row[f"per_dimension_{r}"]["effective_rank"] / row["all"]["effective_rank"] - 1 for r in RATIOS
            ]
            print(
                d_in,
                name,
                f"{row['all']['effective_rank']:.1f}",
                *(f"{error:+.1%}" for error in errors),
                flush=True,
            )


if __name__ == "__main__":
    main()
