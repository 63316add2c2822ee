"""The figures of remedies, rates and sparsity: from training to picture and claims at tiny sizes; their laws."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from experiments.outliers_2605_31518 import fig6, figS13, figS13b, figS15, figS17, four_times, learned
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction

from autopsae.training import Member

TINY: dict[str, Any] = {"steps": 20, "draws": 2, "tokens": 1100, "held_out": 200}


def made(figure: Reproduction, measure: Callable[[], Data]) -> tuple[Data, list[Claim]]:
    """The data as they come back from JSON, drawn and judged."""
    data = json.loads(json.dumps(measure(), allow_nan=False))
    picture = figure.draw(data)
    picture.draw_without_rendering()
    claims = list(figure.claims(data))
    assert {claim.figure for claim in claims} == {figure.name}
    return data, claims


def test_fig6_shows_of_each_start_the_rate_with_the_least_error() -> None:
    size = fig6.Size(**TINY, rates=(1e-4, 1e-2), records=4)
    data, claims = made(fig6.FIGURE, lambda: fig6.measure(size))
    assert len(claims) == 8
    for found in data["starts"].values():
        errors = {end["lr"]: end["mse"] for end in found["ends"]}
        assert found["lr"] == min(errors, key=lambda lr: errors[lr])
        assert found["curve"]["step"] == [0, 5, 10, 15, 20]
        assert found["curve"]["mse"][-1] == errors[found["lr"]]
    births = {start: found["curve"]["dead"][0] for start, found in data["starts"].items()}
    assert births["centered"] < 0.2 < 0.9 < births["baseline"] == births["auxk"]


def test_figS13_has_a_row_per_gamma_start_and_rate() -> None:
    size = figS13.Size(**TINY, rates=(1e-3, 1e-1))
    data, claims = made(figS13.FIGURE, lambda: figS13.measure(size))
    cells = [(row["gamma"], row["start"], row["lr"]) for row in data["rows"]]
    assert len({*cells}) == len(cells) == 2 * 2 * 2
    assert len(claims) == 8


def test_figS13b_goes_as_far_in_every_setting() -> None:
    size = figS13b.Size(**{**TINY, "steps": 8}, lr=1e-2, records=2, batch=64, large_batch=128)
    data, claims = made(figS13b.FIGURE, lambda: figS13b.measure(size))
    for row in data["rows"]:
        assert row["lr"] * row["curve"]["step"][-1] == pytest.approx(data["travel"])
    assert [row["batch"] for row in data["rows"]] == [64] * 6 + [128] * 2
    assert len(claims) == 10


def test_figS13b_sees_that_small_biases_disagree() -> None:
    ends = {"dead": [0.5], "mmcs": [0.5]}
    biases = [0.01, 0.02, 0.01, 0.01]
    rows = [
        {"batch": 512, "start": start, "curve": {**ends, "bias": [bias]}}
        for bias in biases
        for start in figS13b.STARTS
    ]
    holds = {claim.claim: (claim.ours, claim.holds) for claim in figS13b.claims({"rows": rows})}
    assert holds["bias at the end, baseline: largest / smallest over rates"] == (2.0, False)
    assert holds["bias at the end, baseline: largest / smallest over batches"] == (1.0, True)


def test_figS17_starts_death_free_or_says_so_and_has_a_row_per_setting() -> None:
    size = figS17.Size(**TINY, coefficients=3, parts=(0.0, 0.5), ends=(5,))
    data, claims = made(figS17.FIGURE, lambda: figS17.measure(size))
    assert [row["coefficient"] for row in data["l1"]] == [0.01, 0.316, 10.0] * 2
    assert [row["encoder_bias"] for row in data["l1"]] == [True] * 3 + [False] * 3
    assert [(row["k"], row["k_steps"]) for row in data["k"]] == [(5, 0), (5, 10)]
    assert all(row["dead_at_birth"] == 0 for row in data["l1"])
    assert len(claims) == 10


def test_every_figure_has_both_scales() -> None:
    for module in (fig6, figS13, figS13b, figS17):
        assert {*module.SIZES} == {"quick", "full"}


def test_a_draw_keeps_its_features_and_only_the_offset_grows_with_gamma() -> None:
    low, high = (learned.layer(gamma, 3, tokens=500, held_out=100) for gamma in (5.0, 40.0))
    assert torch.equal(low.features, high.features)
    moved = high.tokens - low.tokens
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-4, rtol=0)
    assert int((moved[0].abs() > 1e-3).sum()) == 1
    assert not torch.equal(low.tokens[:100], low.held_out)


def test_curves_start_at_birth_and_a_member_that_diverged_keeps_its_last_numbers() -> None:
    of = learned.layer(5.0, 0, tokens=1100, held_out=100)
    members = [
        Member(
            sae=learned.newborn("baseline", of, 0),
            tokens=of.tokens,
            config=learned.config(steps=4, lr=lr, records=2),
        )
        for lr in (1e-3, 1e38)
    ]
    fine, wild = learned.follow(members, [of, of])
    assert fine["step"] == [0, 2, 4]
    assert fine["dead"][0] == wild["dead"][0]
    assert len(wild["step"]) <= 3


def test_mean_and_spread_over_draws() -> None:
    curves: list[learned.Curve] = [{"step": [0, 5], "dead": [0.0, 0.5]}, {"step": [0, 5], "dead": [0.0, 0.7]}]
    found = learned.mean_spread(curves, ["dead"])
    assert found["step"] == [0, 5]
    assert found["dead"] == [0.0, 0.6]
    assert found["dead_std"] == pytest.approx([0.0, 0.1414], abs=1e-4)
    assert learned.mean_spread(curves[:1], ["dead"])["dead_std"] == [0.0, 0.0]


def test_rank_says_zero_where_nothing_varies() -> None:
    assert learned.rank("f", "c", [1, 2, 3], [0.1, 0.2, 0.9], paper="-").ours == 1.0
    flat = learned.rank("f", "c", [1, 2, 3], [0.0, 0.0, 0.0], paper="-")
    assert (flat.ours, flat.holds) == (0.0, False)


def test_a_feature_is_found_where_a_row_points_along_it() -> None:
    of = learned.layer(5.0, 0, tokens=600, held_out=100)
    sae = learned.newborn("baseline", of, 0, d_sae=150)
    assert sae.d_sae == 150
    with torch.no_grad():
        sae.W_dec[:30] = -of.features[:30]  # the other way round is not found
        sae.W_dec[30:50] = 3 * of.features[30:50]
    others = four_times._found(learned.newborn("baseline", of, 0, d_sae=150), of)
    assert others == 0.0
    assert four_times._found(sae, of) == pytest.approx(0.2)


def test_four_times_has_a_row_per_size_and_start_and_per_way_and_gamma(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four_times, "SIZES_TRIED", (20, 100, 400))
    monkeypatch.setattr(four_times, "GAMMAS", (5.0, 40.0))
    data, claims = made(four_times.FIGURE, lambda: four_times.measure(learned.SizeAtRate(**TINY)))
    assert [(row["start"], row["d_sae"]) for row in data["sizes"]] == [
        (start, d_sae) for start in ("baseline", "centered") for d_sae in (20, 100, 400)
    ]
    assert len(data["revived"]) == 5 * 2
    assert [claim.own for claim in claims] == [False, False, False, True]
    born = {(row["way"], row["gamma"]): row["born"] for row in data["revived"]}
    assert born["ghost", 40.0] == born["auxk", 40.0] == born["baseline", 40.0] > 0.9 > 0.2 > born["centered", 40.0]


def test_figure_s15_takes_of_relu_the_coefficient_whose_l0_is_nearest_to_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figS15, "GAMMAS", (5.0, 40.0))
    monkeypatch.setattr(figS15, "MODERATE", (5.0,))
    monkeypatch.setattr(figS15, "COEFFICIENTS", (0.01, 30.0))
    data, claims = made(figS15.FIGURE, lambda: figS15.measure(learned.SizeAtRate(**TINY)))
    assert len(data["rows"]) == 2 * 2 * 3
    for row in data["rows"]:
        if row["kind"] == "relu":
            about = {key: row[key] for key in ("gamma", "start")}
            tried = [one for one in data["tried"] if about.items() <= one.items()]
            assert [one["l1"] for one in tried] == [0.01, 30.0]
            nearest = min(tried, key=lambda one: max(one["l0"] / 5, 5 / max(one["l0"], 1e-3)))
            assert row == nearest
    born = {(row["kind"], row["start"], row["gamma"]): row["born"] for row in data["rows"]}
    assert born["topk", "baseline", 40.0] > 0.9
    # Without competition only those die that are never positive: half of them.
    assert born["relu", "baseline", 40.0] == born["jumprelu", "baseline", 40.0] == pytest.approx(0.48, abs=0.1)
    assert [claim.own for claim in claims] == [False, False, False, True]
