"""An encoder that is fitted at birth: the same latents fire, and reconstructions have the best length."""

from typing import Any

import numpy as np
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.remedies.remedy import Remedy, untouched
from autopsae.run.start import start_from
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics import collect

pytestmark = pytest.mark.quick

D_IN, D_SAE = 8, 32


def sample(n: int = 5000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, D_IN, generator=generator, dtype=torch.float64) * torch.logspace(0, -1, D_IN) + 2
    return x.float()


def remedy(name: str) -> Remedy:
    return start_from(name, collect(sample()), alpha=0.5, rank=4)


def pair(sparsity: Sparsity, start: str, **more: Any) -> tuple[SAE, SAE]:
    """(as usual, fitted)."""
    settings: dict[str, Any] = {"d_sae": D_SAE, "sparsity": sparsity, "sample": sample(), "dtype": torch.float64}
    plain, fitted = (born(remedy(start), **settings, **more, fit_encoder=fit) for fit in (False, True))
    return plain, fitted


@pytest.mark.parametrize("more", [{}, {"firing_rate": 0.2}, {"layer_norm": True}], ids=str)
@pytest.mark.parametrize("start", ["zero", "mean", "whiten"])
@pytest.mark.parametrize("sparsity", [TopK(k=5), BatchTopK(k=5), GroupMax(k=4)], ids=str)
def test_a_fitted_encoder_is_the_usual_one_times_the_least_squares_factor(
    sparsity: Sparsity, start: str, more: dict[str, Any]
) -> None:
    plain, fitted = pair(sparsity, start, **more)
    errors, codes = [], []
    y = plain.enter(sample().double())[0].detach()
    for part in y.split(4096):  # a batch of BatchTopK
        selection = plain.select(part)
        z = selection.pairs.matrix(selection.values).detach()
        codes.append((z @ plain.W_dec.detach()).flatten())
        errors.append((part - plain.b_dec.detach()).flatten())
    [factor] = np.linalg.lstsq(torch.cat(codes)[:, None].numpy(), torch.cat(errors).numpy())[0]
    assert torch.allclose(fitted.W_enc, plain.W_enc * factor, rtol=1e-6)
    assert factor < 1 or "firing_rate" in more  # unit rows overshoot here
    for name, tensor in plain.state_dict().items():
        if name == "b_enc":
            assert torch.allclose(fitted.state_dict()[name], tensor * factor, rtol=1e-6)
        elif name != "W_enc":
            assert torch.equal(fitted.state_dict()[name].nan_to_num(7), tensor.nan_to_num(7)), name


@pytest.mark.parametrize("sparsity", [TopK(k=5), GroupMax(k=4)], ids=str)
def test_the_same_latents_fire_with_a_fitted_encoder(sparsity: Sparsity) -> None:
    plain, fitted = pair(sparsity, "zero")
    held_out = sample(300).double() + 0.1
    assert torch.equal(fitted.encode(held_out) > 0, plain.encode(held_out) > 0)
    errors = [float((held_out - sae(held_out).detach()).square().sum()) for sae in (fitted, plain)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("sparsity", [ReLU(), JumpReLU()], ids=str)
def test_an_encoder_is_not_fitted_under_a_penalty_that_is_set_for_usual_codes(sparsity: Sparsity) -> None:
    with pytest.raises(InputError, match=rf"such as topk, got {sparsity.name}, whose penalty is set for codes"):
        born(untouched(D_IN), d_sae=D_SAE, sparsity=sparsity, sample=sample(), fit_encoder=True)


def test_an_encoder_is_not_fitted_without_a_sample_or_to_tokens_that_no_reconstruction_points_to() -> None:
    settings: dict[str, Any] = {"d_sae": D_SAE, "sparsity": TopK(k=5), "fit_encoder": True, "scaled": False}
    with pytest.raises(InputError, match=r"born: fit_encoder expected a sample and a sparsity.*got no sample"):
        born(untouched(D_IN), **settings)
    with pytest.raises(InputError, match=r"reconstructions that point to the tokens of the sample, got 0 for"):
        born(untouched(D_IN), **settings, sample=torch.zeros(5, D_IN))
