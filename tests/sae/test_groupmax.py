import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import GroupMax
from autopsae.training.config import TrainConfig
from autopsae.training.one import train
from autopsae.training.revival import AuxK

pytestmark = pytest.mark.quick

D_IN, D_SAE = 6, 24


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(k: int, *, bias: bool = True) -> SAE:
    def rows(seed: int) -> Tensor:
        return torch.randn(D_SAE, D_IN, generator=generator(seed), dtype=torch.float64)

    b_enc = rows(2)[:, 0] - 0.5 if bias else None
    return SAE(W_enc=rows(0), W_dec=rows(1), b_dec=rows(3)[0], b_enc=b_enc, sparsity=GroupMax(k=k)).eval()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("k", [1, 4, 8, D_SAE])
def test_the_largest_of_each_group_fires_if_it_is_positive(k: int, bias: bool) -> None:
    sae = trained(k, bias=bias)
    x = torch.randn(700, D_IN, generator=generator(5), dtype=torch.float64)
    pre = sae.pre_activations(x).detach()
    expected = torch.zeros_like(pre)
    size = D_SAE // k
    for token in range(len(x)):
        for group in range(k):
            best = group * size + int(pre[token, group * size : (group + 1) * size].argmax())
            expected[token, best] = pre[token, best].clamp_min(0)
    assert torch.allclose(sae.encode(x), expected, atol=1e-12)
    assert torch.allclose(sae(x), expected @ sae.W_dec + sae.b_dec, atol=1e-12)
    assert sae.select(x).positive.tolist() == (pre > 0).any(dim=0).tolist()


def test_groups_of_unequal_size_are_refused() -> None:
    with pytest.raises(InputError, match="GroupMax: expected d_sae that is a multiple of k, got 24 latents, k = 5"):
        trained(5)
    with pytest.raises(InputError, match="expected 1 <= k <= d_sae = 24, got k = 25"):
        trained(25)


def test_it_is_trained_as_the_others_are() -> None:
    x = torch.randn(2000, D_IN, generator=generator(1))
    sae = born(untouched(D_IN), d_sae=D_SAE, sparsity=GroupMax(k=4), sample=x, generator=generator())
    revival = AuxK(dead_after_tokens=500)
    config = TrainConfig(steps=60, lr=1e-2, batch_tokens=256, revival=revival)
    records = train(sae, x, config)
    first, last = records[0].fvu, records[-1].fvu
    assert first is not None
    assert last is not None
    assert last < 0.8 * first
    assert 1 < records[-1].l0 <= 4
