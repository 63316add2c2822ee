"""The figures on recovery, end to end at a tiny size, and the rules by which they judge."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from experiments.outliers_2605_31518 import (
    curves,
    dynamics,
    fig5a,
    fig5b,
    fig5cd,
    figS6,
    figS8,
    figS9,
    figS10,
    figS11,
    figS12,
    reproduce,
)
from experiments.outliers_2605_31518.frame import Reproduction, Scale, make

from autopsae.sae.death import fates

TINY = Scale(name="tiny", tokens=100, draws=1)
SETTING = dynamics.Setting(
    steps=20,
    lr=0.05,
    batch_tokens=32,
    tokens=256,
    held_out=64,
    records=5,
    gammas=(2.0, 15.0, 20.0, 40.0),
    latents_at=15.0,
    alone_at=15.0,
    slower_at=(15.0,),
    sign_steps=20,
)
FIGURES = [
    module.FIGURE for module in (fig5a, fig5b, fig5cd, figS6, figS8, figS9, figS10, figS11, figS12, dynamics)
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(dynamics.SETTINGS, "tiny", SETTING)
    monkeypatch.setitem(dynamics.DRAWS, "tiny", 2)
    monkeypatch.setattr(dynamics, "HERE", tmp_path)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_of_the_dynamics_is_made_from_end_to_end(figure: Reproduction, tmp_path: Path) -> None:
    entries = make(figure, TINY, tmp_path)
    assert (tmp_path / "figures" / "tiny" / f"{figure.name}.png").exists()
    assert {entry["figure"] for entry in entries} <= {figure.name}
    assert figure.name in reproduce.FIGURES


def test_kept_curves_are_used_where_their_settings_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(dynamics.FIGURE, TINY, tmp_path)
    before = dynamics.sweep(TINY)
    dynamics.trained.cache_clear()
    assert dynamics.sweep(TINY) == before
    assert dynamics.trained.cache_info().currsize == 0
    monkeypatch.setitem(dynamics.SETTINGS, "tiny", replace(SETTING, steps=10))
    assert dynamics.sweep(TINY)["steps"][-1] == 10


def test_every_gamma_has_the_same_tokens_but_for_the_offset() -> None:
    train, held_out = dynamics.stream(SETTING)
    for gamma in (2.0, 40.0):
        tokens = torch.cat(list(dynamics._data(SETTING, gamma)))
        torch.testing.assert_close(train + dynamics.offset(SETTING, gamma), tokens)
    assert not torch.equal(train[: len(held_out)], held_out)


def test_watched_counts_as_the_library_does() -> None:
    train, held_out = dynamics.stream(SETTING)
    for member in list(dynamics._members(SETTING))[:3]:
        watched = dynamics.Watched(member, held_out, train)
        assert member.shift is not None
        fate = fates(member.sae, held_out + member.shift)
        found = {name: float(text) for name, text in watched.packed().items()}
        assert (found["relu"], found["topk"]) == pytest.approx((fate.dead_by_relu, fate.dead_by_topk), abs=1e-4)
        x = held_out + member.shift
        explained = (member.sae.encode(x).mean(dim=0) @ member.sae.W_dec).detach()
        mean = x.mean(dim=0)
        assert found["features"] == pytest.approx(float(explained @ mean / (mean @ mean)), abs=1e-3)
        assert (found["bias"], found["moved"]) == (0, 0)


def test_the_window_goes_from_the_start_of_the_fall_to_its_end() -> None:
    threshold = [8.0, 10.0, 9.8, 9.2, 4.0, 1.0, 0.5, 0.0]
    assert curves.window(threshold, [0.5] * 8) == (3, 5)
    assert curves.window(threshold, [0.5, 0.5, 0.5, 0.5, 0.3, 0.2, 0.1, 0.1]) == (3, 6)
    assert curves.window([1.0, 1.0], [0.0, 0.0]) == (0, 0)


def test_the_ratio_is_that_of_the_rise_and_the_fall_in_the_window() -> None:
    run = {"relu": "0.2 0.2 0.3 0.4", "topk": "0.5 0.5 0.1 0.1", "threshold": "9 9 0 0"}
    data = {"steps": [0, 10, 20, 30], "runs": {"baseline 5": run}, "further": []}
    found = curves.collateral(data, 5.0, "baseline")
    [window] = found["each"]
    assert (window["start"], window["end"], window["ratio"]) == (10, 20, pytest.approx(0.25))
    assert (found["fall"], found["rise"], found["ratio"]) == (0.4, 0.1, 0.25)
    still = {**run, "topk": "0.5 0.5 0.5 0.5"}
    assert curves.collateral({**data, "runs": {"baseline 5": still}}, 5.0, "baseline")["ratio"] is None


def test_the_ratio_of_draws_is_that_of_their_means_and_curves_are_averaged() -> None:
    runs = [
        {"relu": "0.2 0.2 0.3", "topk": "0.5 0.5 0.1", "threshold": "9 9 0"},
        {"relu": "0.2 0.2 0.4", "topk": "0.5 0.5 0.3", "threshold": "9 9 0"},
    ]
    first, second = ({"runs": {"baseline 5": run}} for run in runs)
    data = {"steps": [0, 10, 20], **first, "further": [second]}
    found = curves.collateral(data, 5.0, "baseline")
    assert [each["ratio"] for each in found["each"]] == [0.25, 1.0]
    assert found["ratio"] == pytest.approx(0.15 / 0.3)
    assert curves.curve(data, 5.0, "baseline", *curves.DEAD) == pytest.approx([0.7, 0.7, 0.55])
    assert curves.courses(data, 5.0, "baseline", "relu").tolist() == [[0.2, 0.2, 0.3], [0.2, 0.2, 0.4]]


def test_every_draw_has_features_tokens_and_rows_of_its_own() -> None:
    data = dynamics.sweep(TINY)
    assert data["draws"] == 1 + len(data["further"]) == 2
    birth = {each["runs"]["baseline 15"]["threshold"] for each in curves.draws_of(data)}
    assert len(birth) == 2


def test_curves_are_kept_to_the_digits_asked_for() -> None:
    assert curves.unpacked(curves.packed([0.123456, -12.0, 1e-9])) == [0.1235, -12.0, 0.0]
    assert curves.first_at_least([0, 5, 9], [0.1, 0.5, 0.7], 0.5) == 5
    assert curves.first_at_least([0, 5], [0.1, 0.2], 0.5) is None
