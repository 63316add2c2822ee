import pytest
import torch

from autopsae.arrays import InputError
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, TopK
from tests import oracles

pytestmark = pytest.mark.quick


def pre(tokens: int = 40, d_sae: int = 30, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(tokens, d_sae, generator=torch.Generator().manual_seed(0)) + shift


@pytest.mark.parametrize("shift", [0.0, -2.0])  # -2: many tokens have fewer than k positive
@pytest.mark.parametrize("k", [1, 5, 29, 30])
def test_a_topk_margin_is_positive_exactly_where_the_latent_fires(k: int, shift: float) -> None:
    x = pre(shift=shift)
    margins = TopK(k=k).margins(x)
    for row, margin in zip(x, margins, strict=True):
        _, fired = oracles.fates(row[None].numpy(), k)
        assert ((margin > 0).numpy() == fired).all()


def test_a_topk_margin_is_the_distance_to_what_changes_the_choice() -> None:
    margins = TopK(k=2).margins(torch.tensor([[5.0, 3.0, 2.0, -1.0]]))
    # 5 and 3 would still be chosen at just over 2; 2 would be at just over 3.
    assert margins.tolist() == [[3.0, 1.0, -1.0, -4.0]]
    # With one positive value, zero is what has to be exceeded.
    assert TopK(k=2).margins(torch.tensor([[5.0, -3.0, -2.0]])).tolist() == [[5.0, -3.0, -2.0]]


@pytest.mark.parametrize("k", [1, 4, 30])
def test_a_batch_topk_margin_is_positive_for_the_largest_of_the_batch(k: int) -> None:
    x = pre(shift=-0.5)
    fired = BatchTopK(k=k).margins(x) > 0
    chosen = x.flatten().sort(descending=True).values[: k * len(x)]
    assert int(fired.sum()) == int((chosen > 0).sum())
    assert float(x[fired].min()) == float(chosen[chosen > 0].min())


def test_thresholds_may_be_common_or_the_latents_own() -> None:
    x = pre()
    assert torch.equal(ReLU().margins(x), x)
    own = torch.linspace(0, 1, 30)
    assert torch.equal(JumpReLU().margins(x, own), x - own)
    assert torch.equal(JumpReLU(start=0.2).margins(x), x - 0.2)
    assert torch.equal(BatchTopK(k=2).margins(x, torch.tensor(0.7)), x - 0.7)


@pytest.mark.parametrize("shift", [0.0, -2.0])
@pytest.mark.parametrize("k", [1, 6, 30])
def test_a_groupmax_margin_is_positive_exactly_where_the_latent_fires(k: int, shift: float) -> None:
    x = pre(shift=shift)
    groups = x.view(len(x), k, -1)
    fires = (groups == groups.amax(dim=2, keepdim=True)) & (groups > 0)
    assert torch.equal(GroupMax(k=k).margins(x) > 0, fires.flatten(1))


def test_a_groupmax_margin_is_the_distance_to_what_changes_the_choice() -> None:
    margins = GroupMax(k=2).margins(torch.tensor([[5.0, 3.0, -2.0, -1.0]]))
    assert margins.tolist() == [[2.0, -2.0, -2.0, -1.0]]


def test_a_k_out_of_range_is_refused() -> None:
    for rule in (TopK(k=31), BatchTopK(k=31)):
        with pytest.raises(InputError, match="1 <= k <= d_sae = 30, got k = 31"):
            rule.margins(pre())
