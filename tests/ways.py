"""What several rooms' tests need of the stacks: the loops switched off, and one SAE's part of a stack of one."""

import pytest
import torch
from torch import Tensor

from autopsae.kernels import dispatch
from autopsae.kernels.sparse_ops import subtract_decoded
from autopsae.sae.model import SAE
from autopsae.sae.selection import Selection


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Numba were not installed."""
    monkeypatch.setattr(dispatch, "load_loops", lambda: None)


def squared_error(sae: SAE, y: Tensor, selection: Selection) -> Tensor:
    """Mean over tokens of ||y - its reconstruction||^2, as training computes it."""
    centered, weights = (y - sae.b_dec.detach())[None], sae.weights
    _, error = subtract_decoded(centered, selection.values, selection.pairs, weights.W_dec, weights.b_dec)
    return error[0] / len(y)


def residual(sae: SAE, y: Tensor) -> Tensor:
    """What the SAE leaves of tokens, without gradient."""
    with torch.no_grad():
        return y - sae.reconstruct(sae.select(y))
