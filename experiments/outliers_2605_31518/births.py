"""Death at birth on the paper's synthetic data (A.1.2), averaged over draws of features, tokens and rows.

The defaults are the paper's: d_in 50, 100 features of which 5 are active, an SAE with d_sae 100 and k 5, rows
uniform on the sphere, b = 0. Draw s has the same features, coefficients and rows for every gamma: along a curve
only the offset changes, so that its course is not the draws' noise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autopsae.activations.synthetic import synthetic_features
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import draw_rows
from autopsae.survival.birth import measure_birth
from autopsae.survival.closed_form import predicted_dead, predicted_dead_by_relu

GAMMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 100.0, 200.0)
"""The paper's own values are lost with its Figure 4; these span what its text names (5, 10, 20, 40, ...)."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Sizes of the data and the SAE."""

    d_in: int = 50
    n_features: int = 100
    n_active: int = 5
    d_sae: int = 100
    k: int = 5


def draw_tokens(setting: Setting, gamma: float, tokens: int, seed: int) -> Tensor:
    """[tokens, d_in] of one draw."""
    data = synthetic_features(
        tokens,
        gamma,
        d_in=setting.d_in,
        n_features=setting.n_features,
        n_active=setting.n_active,
        generator=torch.Generator().manual_seed(seed),
    )
    return torch.cat(list(data))


def birth(x: Tensor, setting: Setting, seed: int) -> tuple[float, float]:
    """(dead-by-ReLU, dead in all) of one draw of rows on raw tokens."""
    remedy = untouched(setting.d_in)
    generator = _row_generator(seed)
    born = measure_birth(x, [remedy], d_sae=setting.d_sae, k=setting.k, generator=generator)[remedy.name]
    return born.dead_by_relu, born.dead


def encoder_rows(setting: Setting, seed: int) -> Tensor:
    """[d_sae, d_in]: the rows that `birth` measures under this seed, for figures that look at single latents."""
    return draw_rows(setting.d_sae, setting.d_in, generator=_row_generator(seed))


def births(setting: Setting, gamma: float, *, tokens: int, draws: int) -> dict[str, Any]:
    """Mean and spread over draws at one gamma, beside the closed forms for as many tokens."""
    return summary(
        [birth(draw_tokens(setting, gamma, tokens, seed), setting, seed) for seed in range(draws)],
        setting,
        gamma,
        tokens,
    )


def summary(measured: list[tuple[float, float]], setting: Setting, gamma: float, tokens: int) -> dict[str, Any]:
    """relu, dead: means over draws; *_std: their standard deviations; *_theory: the closed forms."""
    relu, dead = np.array(measured).T
    return {
        "gamma": gamma,
        "relu": round(float(relu.mean()), 5),
        "relu_std": round(float(relu.std(ddof=min(1, len(relu) - 1))), 5),
        "relu_theory": predicted_dead_by_relu(gamma, tokens),
        "dead": round(float(dead.mean()), 5),
        "dead_std": round(float(dead.std(ddof=min(1, len(dead) - 1))), 5),
        "dead_theory": predicted_dead(gamma, tokens, d_sae=setting.d_sae, k=setting.k),
    }


def closed_forms(setting: Setting, tokens: int, least: float, most: float) -> dict[str, list[float]]:
    """The closed forms on a fine grid from the least to the largest gamma."""
    gammas = [float(gamma) for gamma in np.geomspace(least, most, 120)]
    return {
        "gamma": gammas,
        "relu": [predicted_dead_by_relu(gamma, tokens) for gamma in gammas],
        "dead": [predicted_dead(gamma, tokens, d_sae=setting.d_sae, k=setting.k) for gamma in gammas],
    }


def rank_correlation(rows: list[dict[str, Any]], pathway: str) -> float:
    """Spearman's between gamma and death, over the gammas at which a latent is dead in some draw: below them all
    deaths are zero, and ties are no order.
    """
    from scipy.stats import spearmanr

    some = [row for row in rows if row[pathway] > 0]
    return float(spearmanr([row["gamma"] for row in some], [row[pathway] for row in some]).statistic)


def mean_deviation(rows: list[dict[str, Any]], pathway: str) -> float:
    """Mean |measured - closed form|."""
    return float(np.mean([abs(row[pathway] - row[f"{pathway}_theory"]) for row in rows]))


def _row_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_000 + seed)
