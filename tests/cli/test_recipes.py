"""`train --config` with `recipe` and `nested`: the settings of the paper, and Matryoshka training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autopsae.cli.verbs import run
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, ReLU

SMALL = ["--d-sae", "32", "--steps", "20", "--batch-tokens", "50"]


@pytest.fixture(autouse=True)
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32) + 2)


def train(settings: dict[str, object], *more: str) -> int:
    Path("c.json").write_text(json.dumps(settings))
    return run(["train", "a.npy", "--out", "out", "--config", "c.json", *SMALL, *more])


def summary_of(settings: dict[str, object], *more: str) -> dict[str, Any]:
    assert train(settings, *more) == 0
    summary: dict[str, Any] = json.loads(Path("out/summary.json").read_text())
    return summary


@pytest.mark.parametrize("scale", [True, False])
def test_jumprelu_of_the_paper_begins_at_a_thousandth_and_aims_at_k_without_the_factor_d_in(scale: bool) -> None:
    summary = summary_of({"recipe": "paper", "scale": scale}, "--sparsity", "jumprelu", "--k", "4")
    settings = summary["training"]
    assert settings["penalty"] == {"name": "L0Target", "l0": 4.0, "coefficient": 1.0, "times_d_in": False}
    assert summary["recipe"] == "paper"
    sae = SAE.load("out/sae")
    assert sae.sparsity == JumpReLU(start=0.001, bandwidth=0.001)
    assert (sae.scale == 1) == (not scale)
    assert sae.threshold is not None
    # Adam moves the logarithm of a threshold by about the learning rate in a step.
    assert float((sae.threshold.detach() / 0.001).log().abs().max()) < 0.1


def test_relu_of_lindsey_has_free_rows_a_rising_penalty_and_a_falling_rate() -> None:
    summary = summary_of({"recipe": "paper"}, "--sparsity", "relu")
    settings = summary["training"]
    assert settings["penalty"] == {"name": "L1", "coefficient": 5.0, "warmup_steps": 1}
    assert (settings["decay_steps"], settings["clip_norm"], settings["unit_decoder"]) == (4, 1.0, False)
    sae = SAE.load("out/sae")
    assert sae.sparsity == ReLU()
    assert float((sae.W_dec.detach().norm(dim=1) - 1).abs().max()) > 1e-6


def test_nested_prefixes_are_trained() -> None:
    summary = summary_of({"nested": [8, 16]}, "--sparsity", "batch_topk", "--k", "4")
    settings = summary["training"]
    assert settings["nested"] == [8, 16]


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        ({"recipe": "paper"}, ("--sparsity", "topk"), "recipe: expected the sparsity jumprelu or relu"),
        (
            {"recipe": "paper"},
            ("--sparsity", "jumprelu", "--start", "0.5"),
            "recipe: expected it alone, as it sets start too; leave one of them out",
        ),
        ({"nested": [40]}, ("--k", "4"), "nested: expected"),
    ],
)
def test_what_a_recipe_does_not_go_with_is_refused(
    settings: dict[str, object], more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(settings, *more) == 2
    assert message in capsys.readouterr().err
    assert not Path("out/summary.json").exists()
