"""An SAE is made of weights that fit, or of none: kernels read them by their shapes alone."""

from typing import Any

import jaxtyping
import pytest
import torch

from autopsae.arrays import InputError
from autopsae.evaluation import evaluate
from autopsae.remedies.affine import Affine
from autopsae.sae.death import fates
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, TopK

pytestmark = pytest.mark.quick

D_IN, D_SAE = 8, 64

FITTING: dict[str, Any] = {
    "W_enc": torch.ones(D_SAE, D_IN),
    "W_dec": torch.ones(D_SAE, D_IN),
    "b_dec": torch.zeros(D_IN),
    "b_enc": torch.zeros(D_SAE),
    "b_pre": torch.zeros(D_IN),
}


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the type checks of these tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def wrong(part: torch.Tensor) -> dict[str, Any]:
    """What may stand where this part belongs, and must not."""
    return {
        "one too many": torch.cat([part, part[:1]]),
        "one alone": part[:1],
        "none": part[:0],
        "one dimension more": part[..., None],
        "a single value": torch.ones(()),
        "integers": part.int(),
        "of another type": part.double(),
        "NumPy": part.numpy(),
        "a list": part.tolist(),
    }


BAD = [(name, kind) for name, part in FITTING.items() for kind in wrong(part)]


@pytest.mark.parametrize(("name", "kind"), BAD)
def test_a_part_of_another_shape_or_type_is_refused_before_any_kernel_reads_it(name: str, kind: str) -> None:
    assert SAE(**FITTING, sparsity=TopK(k=2)).d_sae == D_SAE
    with pytest.raises(InputError, match=r"^SAE: expected (W_enc|W_dec|b_dec|b_enc|b_pre) as a tensor .*, got "):
        SAE(**{**FITTING, name: wrong(FITTING[name])[kind]}, sparsity=TopK(k=2))


def test_a_threshold_is_refused_where_a_sparsity_has_none_and_where_it_has_one_for_all() -> None:
    with pytest.raises(InputError, match=r"expected no threshold with TopK\(k=2\)"):
        SAE(**FITTING, sparsity=TopK(k=2), threshold=torch.ones(()))
    with pytest.raises(InputError, match="BatchTopK: expected one threshold for all latents, got"):
        SAE(**FITTING, sparsity=BatchTopK(k=2), threshold=torch.ones(D_SAE))


def test_a_map_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match=rf"expected an affine map of d_in = {D_IN} dimensions, got one of 3"):
        SAE(**FITTING, sparsity=TopK(k=2), affine=Affine(center=torch.zeros(3)))


@pytest.mark.parametrize("shape", [(5, D_IN + 1), (5, 1), (D_IN,), (2, 5, D_IN)])
def test_tokens_of_another_shape_are_refused_wherever_an_sae_takes_them(shape: tuple[int, ...]) -> None:
    sae, tokens = SAE(**FITTING, sparsity=TopK(k=2)), torch.ones(shape)
    for take in (sae, sae.encode, lambda x: fates(sae, x), lambda x: evaluate(sae, x)):
        with pytest.raises(InputError, match="expected"):
            take(tokens)


def test_the_number_of_a_wrong_bias_is_never_computed() -> None:
    """A short bias was read past its end: another error in each run."""
    x = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="b_enc"):
        evaluate(SAE(**{**FITTING, "b_enc": torch.full((D_IN,), 0.5)}, sparsity=TopK(k=3)), x, at_tokens=None)
