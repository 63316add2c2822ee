"""Screens: whatever type the products have, what is chosen is right by float64, and the same to the bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autopsae.kernels import screen, screen_choices
from autopsae.kernels.screen import PRODUCTS, Screen, choose_screen
from autopsae.kernels.workspace import Workspace
from tests.ways import without_numba

SCREENS = PRODUCTS[1:]
TOKENS, D_IN, D_SAE, K = 300, 96, 640, 20


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(*, seed: int = 1) -> Tensor:
    return torch.nn.functional.normalize(normal(D_SAE, D_IN, seed=seed), dim=1)


Case = tuple[Tensor, Tensor, Tensor | None]


def outlier() -> Case:
    x = normal(TOKENS, D_IN)
    x[:, 3] *= 1e4
    return x, unit(), None


def pairs_of_rows(factor: float) -> Case:
    W = unit()
    W[1::2] = W[::2] * factor
    return normal(TOKENS, D_IN), W, None


def some_at(value: float) -> Case:
    b_enc = 0.3 * normal(D_SAE, seed=2)
    b_enc[::3] = value
    return normal(TOKENS, D_IN), unit(), b_enc


def with_zeros() -> Case:
    x, W = normal(TOKENS, D_IN), unit()
    x[7], W[5] = 0, 0
    return x, W, None


CASES: dict[str, Callable[[], Case]] = {
    "plain": lambda: (normal(TOKENS, D_IN), unit(), None),
    "biased": lambda: (normal(TOKENS, D_IN), unit(), normal(D_SAE, seed=2) - 1),
    "a huge mean": lambda: (normal(TOKENS, D_IN) + 30 * normal(D_IN, seed=3), unit(), None),
    "an outlier dimension": outlier,
    "twins": lambda: pairs_of_rows(1.0),
    "near ties": lambda: pairs_of_rows(1 + 1e-6),
    "scale 1e-20": lambda: (1e-20 * normal(TOKENS, D_IN), unit(), None),
    "scale 1e-38": lambda: (1e-38 * normal(TOKENS, D_IN), unit(), None),
    "scale 1e20": lambda: (1e20 * normal(TOKENS, D_IN), unit(), None),
    "products under the range": lambda: (1e-25 * normal(TOKENS, D_IN), 1e-15 * unit(), None),
    "rows of all sizes": lambda: (normal(TOKENS, D_IN), unit() * torch.logspace(-4, 4, D_SAE)[:, None], None),
    "tokens of all sizes": lambda: (normal(TOKENS, D_IN) * torch.logspace(-9, 9, TOKENS)[:, None], unit(), None),
    "few are positive": lambda: (normal(TOKENS, D_IN), unit(), torch.full((D_SAE,), -2.8)),
    "none is positive": lambda: (normal(TOKENS, D_IN).abs(), -unit().abs(), None),
    "forbidden": lambda: some_at(-torch.inf),
    "zeros": with_zeros,
    "one token": lambda: (normal(1, D_IN), unit(), None),
    "exact in bfloat16": lambda: (normal(TOKENS, D_IN).sign(), unit().sign() / 8, None),
}


def exact_and_rounding(case: Case) -> tuple[Tensor, Tensor]:
    """The pre-activations in float64, and how far float32 may be from them: d_in + 1 products and sums."""
    x, W, b_enc = (None if t is None else t.double() for t in case)
    assert x is not None
    assert W is not None
    pre = x @ W.T if b_enc is None else x @ W.T + b_enc
    sizes = x.norm(dim=1, keepdim=True) * W.norm(dim=1)
    return pre, (D_IN + 2) * 2.0**-23 * (sizes + pre.abs().where(pre.isfinite(), 0)) + D_IN * 2.0**-126


def made(case: Case, kind: screen.Products) -> tuple[Screen, Tensor]:
    x, W, b_enc = case
    one = Screen.of(kind, W, b_enc, Workspace())
    assert one is not None
    return one, x


def no_one() -> Tensor:
    return torch.zeros(D_SAE, dtype=torch.bool)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [1, K, D_SAE])
def test_the_k_largest_are_those_of_float64_but_for_rounding(name: str, k: int) -> None:
    case = CASES[name]()
    pre, rounding = exact_and_rounding(case)
    kth = pre.topk(k, dim=1).values[:, -1:]
    first = None
    for kind in SCREENS:
        positive = no_one()
        values, latents = screen_choices.largest(*made(case, kind), positive, k)
        assert (latents.diff(dim=1) > 0).all() or not (values > 0).all()
        chosen = torch.zeros_like(pre, dtype=torch.bool).scatter(1, latents, True)
        assert (chosen.sum(dim=1) == k).all()
        # A latent on the wrong side of the k-th is within rounding of it, or does not fire.
        assert (chosen | (pre <= kth + rounding) | (pre <= rounding)).all()
        assert (~chosen | (pre >= kth - rounding) | (pre <= rounding)).all()
        fired = values > 0
        assert ((values - pre.gather(1, latents)).abs() <= rounding.gather(1, latents))[fired].all()
        assert (positive | ~(pre > rounding).any(dim=0)).all()
        assert (~positive | (pre > -rounding).any(dim=0)).all()
        first = first or (values, latents, positive)
        assert all(torch.equal(a, b) for a, b in zip(first, (values, latents, positive), strict=True)), kind


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("share", [0.001, 0.03, 0.6])
def test_those_over_a_threshold_are_those_of_float64_but_for_rounding(name: str, share: float) -> None:
    case = CASES[name]()
    pre, rounding = exact_and_rounding(case)
    most = pre.where(pre.isfinite(), pre[pre.isfinite()].min()).flatten()
    thresholds = most.sort(descending=True).values[int(share * len(most))].clamp_min(0).float().expand(D_SAE)
    thresholds = thresholds * torch.linspace(0.8, 1.2, D_SAE)
    first = None
    for kind in SCREENS:
        positive = no_one()
        values, latents, counts = screen_choices.above(*made(case, kind), positive, thresholds)
        tokens = torch.arange(len(pre)).repeat_interleave(counts)
        over = torch.zeros_like(pre, dtype=torch.bool)
        over[tokens, latents] = True
        near = (pre - thresholds).abs() <= rounding
        assert torch.equal(over | near, (pre > thresholds) | near)
        assert (values > thresholds[latents]).all()
        assert ((values - pre[tokens, latents]).abs() <= rounding[tokens, latents]).all()
        first = first or (values, latents, counts, positive)
        new = (values, latents, counts, positive)
        assert all(torch.equal(a, b) for a, b in zip(first, new, strict=True)), kind


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [1, 16, D_SAE])
def test_the_largest_of_a_group_is_that_of_float64_but_for_rounding(name: str, k: int) -> None:
    case = CASES[name]()
    pre, rounding = exact_and_rounding(case)
    best = pre.unflatten(1, (k, -1)).amax(dim=2)
    first = None
    for kind in SCREENS:
        positive = no_one()
        values, latents = screen_choices.largest_of_groups(*made(case, kind), positive, k)
        assert torch.equal(latents // (D_SAE // k), torch.arange(k).expand(len(pre), -1))
        finite = best.isfinite()
        assert (pre.gather(1, latents) >= best - 2 * rounding.gather(1, latents))[finite].all()
        first = first or (values, latents, positive)
        assert all(torch.equal(a, b) for a, b in zip(first, (values, latents, positive), strict=True)), kind


@pytest.mark.parametrize("kind", SCREENS)
def test_tokens_without_a_bound_are_computed_whole_and_nan_does_not_go_unseen(kind: screen.Products) -> None:
    x, W = normal(6, D_IN), unit()
    x[1], x[2, 5], x[3] = 1e30 * x[1], torch.nan, 3e38 * x[3].sign()
    W[:, 0] *= 1e9
    one = Screen.of(kind, W, None, Workspace())
    assert one is not None
    values, latents = screen_choices.largest(one, x, no_one(), K)
    assert values[2].isnan().any()
    expected = (x.double() @ W.double().T).topk(K, dim=1)
    for row in (0, 1, 4, 5):
        assert torch.equal(latents[row], expected.indices[row].sort().values)
    assert values[3].isinf().any() or values[3].isnan().any()


@pytest.mark.parametrize("kind", SCREENS)
def test_a_tiny_token_before_a_usual_one_ends_and_loses_nothing(kind: screen.Products) -> None:
    """What was the k-th largest of a token over its size is the guess for the next: 1 / 1e-38 here."""
    x = normal(4, D_IN)
    x[0] *= 1e-38
    x[2] *= 1e-17
    one = Screen.of(kind, unit(), torch.ones(D_SAE), Workspace())
    assert one is not None
    _, latents = screen_choices.largest(one, x, no_one(), K)
    expected = (x.double() @ unit().double().T).topk(K, dim=1).indices.sort(dim=1).values
    assert torch.equal(latents[1::2], expected[1::2])


def test_a_forbidden_latent_stays_so_whatever_the_token() -> None:
    b_enc = torch.zeros(D_SAE)
    b_enc[::2] = -torch.inf
    one = Screen.of("bfloat16", 1e15 * unit(), b_enc, Workspace())
    assert one is not None
    values, latents = screen_choices.largest(one, 1e20 * normal(5, D_IN), no_one(), K)
    assert not (values[latents % 2 == 0] > 0).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1e35, 1e31])
def test_weights_without_a_bound_have_no_screen(value: float) -> None:
    b_enc = torch.zeros(D_SAE)
    b_enc[4] = value
    assert Screen.of("bfloat16", unit(), b_enc, Workspace()) is None
    W = unit()
    W[3, 3] = value if value in (torch.inf,) or value != value else torch.inf
    assert Screen.of("bfloat16", W, None, Workspace()) is None


def test_a_bound_that_is_too_small_is_seen_by_these_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rounding of rows and tokens in it, the screen loses latents that it should keep."""
    monkeypatch.setitem(screen._RELATIVE, "bfloat16", 0.0)
    case = CASES["plain"]()
    one, x = made(case, "bfloat16")
    one._rows.errors.zero_()
    monkeypatch.setattr(screen, "_round", lambda *a: _round_without_error(*a))
    _, latents = screen_choices.largest(one, x, no_one(), K)
    _, right = screen_choices.largest(*made(case, "float32"), no_one(), K)
    assert not torch.equal(latents, right)


_ROUND = screen._round


def _round_without_error(*arguments: object) -> screen._Rounded:
    rounded = _ROUND(*arguments)  # type: ignore[arg-type]
    rounded.errors.zero_()
    return rounded


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    case = CASES["a huge mean"]()
    one, x = made(case, "bfloat16")
    positive = no_one()
    whole = screen_choices.largest(one, x, positive, K)
    monkeypatch.setattr(screen, "BLOCK", 1)
    monkeypatch.setattr(screen_choices, "threads_for", lambda values: threads)
    again = no_one()
    parts = screen_choices.largest(one, x, again, K)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert torch.equal(positive, again)


def test_a_screen_is_chosen_where_it_can_be_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(asked: screen.Products | None, d_sae: int = 4096, d_in: int = 512, **kind: Any) -> object:
        return choose_screen(asked, torch.empty(1, d_sae, d_in, **kind))

    monkeypatch.setattr(screen, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(screen, "multiplies_int8", lambda: True)
    wide = {"d_in": 1 << 17, "d_sae": 1}
    assert [chosen(asked) for asked in (None, *PRODUCTS)] == [None, "bfloat16", "float32", "bfloat16", "int8"]
    assert [chosen("auto", d_in=64), chosen("auto", d_sae=512), chosen("bfloat16", d_in=64)] == [
        None,
        None,
        "bfloat16",
    ]
    nowhere = [
        chosen("auto", dtype=torch.float64),
        chosen("bfloat16", dtype=torch.bfloat16),
        chosen("auto", device="meta"),
    ]
    assert nowhere == [None] * 3
    assert chosen("int8", **wide) == "float32"
    monkeypatch.setattr(screen, "multiplies_int8", lambda: False)
    assert chosen("int8") == "float32"
    monkeypatch.setattr(screen, "multiplies_bfloat16", lambda: False)
    assert chosen("auto") == "float32"
    monkeypatch.setattr(screen, "multiplies_in_float32", lambda: False)
    assert [chosen(asked) for asked in PRODUCTS] == ["bfloat16"] * 4
    without_numba(monkeypatch)
    assert [chosen("auto"), chosen("bfloat16")] == [None, None]


def test_where_float32_is_multiplied_in_bfloat16_its_screen_is_not_used() -> None:
    assert screen.multiplies_in_float32()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert not screen.multiplies_in_float32()
    finally:
        torch.set_float32_matmul_precision(before)
    assert screen.multiplies_in_float32()


def test_a_run_goes_on_by_the_path_on_which_it_began() -> None:
    small, large = torch.empty(512, 64), torch.empty(4096, 512)
    assert screen.choose_path("auto", small, is_screened=None) is None
    assert screen.choose_path("auto", small, is_screened=True) == "float32"
    assert screen.choose_path("auto", large, is_screened=False) is None
    assert screen.choose_path("int8", large, is_screened=True) is not None
