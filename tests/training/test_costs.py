"""The cost of a step against slow counts of it, and its limits."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.kernels import screen_choices
from autopsae.kernels.screen import Products, Screen
from autopsae.kernels.workspace import Workspace
from autopsae.sae.sparsity import BatchTopK, JumpReLU, TopK
from autopsae.training import AuxK, TrainConfig, bytes_of_step
from autopsae.training.costs import candidates, work_of_step

CONFIG = TrainConfig(steps=1, lr=1e-3, batch_tokens=512)


def test_the_product_and_the_choice_are_counted_as_a_loop_counts_them() -> None:
    work = work_of_step(CONFIG, TopK(k=8), 16, 64, products="float32")
    scores = sum(1 for _ in range(512) for _ in range(64))
    assert (work.float32, work.bfloat16, work.compared) == (2 * 16 * scores, 0, scores)
    screened = work_of_step(CONFIG, TopK(k=8), 16, 64, products="bfloat16")
    assert (screened.float32, screened.bfloat16) == (0, work.float32)


def test_rows_are_those_of_the_candidates_and_four_for_each_selected_pair() -> None:
    work = work_of_step(CONFIG, BatchTopK(k=8), 16, 64, products="float32")
    assert work.gathered == 4 * 512 * 16 * (8 + 4 * 8)


@pytest.mark.parametrize("products", ["bfloat16", "float32", None])
def test_what_grows_with_the_latents_is_proportional_to_them(products: Products | None) -> None:
    at = [work_of_step(CONFIG, TopK(k=8), 256, d_sae, products=products) for d_sae in (2048, 4096, 6144)]
    moved = [step.updated if products else step.streamed for step in at]
    first, second = (late - early for early, late in pairwise(moved))
    assert first == second > 0
    assert at[1].float32 == 2 * at[0].float32


def test_ranks_share_latents_and_exchange_what_is_predicted_for_them() -> None:
    one, four = (work_of_step(CONFIG, TopK(k=8), 256, 4096, products="float32", ranks=ranks) for ranks in (1, 4))
    assert one.sent == 0
    assert four.sent == sum(bytes_of_step(CONFIG, TopK(k=8), 256, ranks=4).values())
    assert four.float32 == one.float32 / 4
    # Each rank still has k candidates, and a quarter of the selected pairs.
    assert one.gathered / four.gathered == (8 + 4 * 8) / (8 + 8)


def test_groups_share_tokens_and_each_rank_sums_the_gradients_of_its_latents() -> None:
    asked = CONFIG, TopK(k=8), 256, 4096
    four = work_of_step(*asked, products="float32", ranks=4)
    shared = work_of_step(*asked, products="float32", ranks=4, groups=2)
    assert shared.sent == sum(bytes_of_step(*asked[:3], ranks=4, groups=2, latents=2048).values())
    assert shared.float32 == four.float32  # half the tokens, twice the latents
    assert shared.updated == 2 * four.updated
    gradients = bytes_of_step(*asked[:3], ranks=4, groups=2, latents=2048)["gradients"]
    assert gradients == 2048 * (2 * 256 + 1) * 4  # 2 (P - 1) / P = 1
    with pytest.raises(InputError, match="expected groups that divide 4 ranks"):
        bytes_of_step(*asked[:3], ranks=4, groups=3, latents=2048)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: replace(c, revival=AuxK()), "no revival"),
        (lambda c: replace(c, nested=(4, 16)), "no nested prefixes"),
        (lambda c: replace(c, clip_norm=1.0), "no clip_norm"),
        (lambda c: replace(c, optimizer="sign_sgd"), "the optimizer adam, got sign_sgd"),
    ],
)
def test_a_setting_that_is_not_counted_is_refused(change: Callable[[TrainConfig], TrainConfig], said: str) -> None:
    with pytest.raises(InputError, match=said):
        work_of_step(change(CONFIG), TopK(k=8), 16, 64, products="float32")


def test_a_sparsity_without_k_and_int8_are_refused() -> None:
    with pytest.raises(InputError, match=r"a sparsity with a k, got jumprelu.*float32 or None, got int8"):
        work_of_step(CONFIG, JumpReLU(), 16, 64, products="int8")


@pytest.mark.parametrize(("d_in", "d_sae", "k"), [(128, 4096, 32), (512, 4096, 64), (1024, 2048, 16)])
def test_candidates_are_about_as_many_as_a_screen_leaves(d_in: int, d_sae: int, k: int) -> None:
    """Counted with the bounds of a real screen, token by token, latent by latent."""
    torch.manual_seed(0)
    x, W = torch.randn(64, d_in), torch.randn(d_sae, d_in)
    screen = Screen.of("bfloat16", W, torch.zeros(d_sae), Workspace())
    assert screen is not None
    exact = x.double() @ W.double().T
    rounded = (x.bfloat16().double() @ W.bfloat16().double().T).bfloat16().double()
    errors = [
        (rounded_rows.double() - rows.double()).norm(dim=1)
        for rows, rounded_rows in ((x, x.bfloat16()), (W, W.bfloat16()))
    ]
    bound = errors[0][:, None] * W.double().norm(dim=1) + x.double().norm(dim=1)[:, None] * errors[1]
    bound += 2.0**-8 * rounded.abs()
    last = (rounded - bound).topk(k, dim=1).values[:, -1:]
    counted = float((rounded + bound >= last).sum(dim=1).double().mean())
    assert counted >= k
    assert candidates(k, d_sae, d_in, products="bfloat16") == pytest.approx(counted, rel=0.2)
    positive = torch.zeros(d_sae, dtype=torch.bool)
    values, _ = screen_choices.largest(screen, x, positive, k)
    assert torch.allclose(
        values.double().sort(dim=1, descending=True).values, exact.topk(k, dim=1).values, atol=1e-3
    )


def test_candidates_are_between_k_and_all() -> None:
    assert candidates(8, 8, 64, products="bfloat16") == 8
    assert candidates(8, 64, 64, products="float32") == 8
    assert candidates(8, 64, 10**6, products="bfloat16") == 64
