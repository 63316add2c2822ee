"""What a training would take: its parts, and that the SAE it is asked about stays as it is."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import autopsae
from autopsae.diagnosis.plan import Planner
from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import TopK
from autopsae.training import Member, TrainConfig, Training, TrainingPlan, plan_training
from autopsae.training.memory import bytes_of

X = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
CONFIG = TrainConfig(steps=5000, lr=1e-3, batch_tokens=64, buffer_tokens=1024)


def small() -> SAE:
    return born(untouched(16), d_sae=32, sparsity=TopK(k=4), sample=X)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], list[int]]:
    """A clock on which steps take the given seconds, the last one from then on; it tells how many were taken."""

    def set_clock(seconds: list[float]) -> list[int]:
        now, taken = [0.0], [0]
        advance = Training.advance

        def timed(self: Training) -> object:
            now[0] += seconds[min(taken[0], len(seconds) - 1)]
            taken[0] += 1
            return advance(self)

        monkeypatch.setattr(Training, "advance", timed)
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])
        return taken

    return set_clock


def test_hours_are_the_median_second_of_a_step_after_the_warm_up_times_the_steps(
    clock: Callable[[list[float]], list[int]],
) -> None:
    taken = clock([9.0, 9.0, 9.0, 0.5, 0.5, 8.0, 0.5, 0.5])
    plan = plan_training(small(), X, CONFIG, layer="hs3", devices=(1,))
    assert taken == [3 + 5]
    assert plan.seconds_per_step == 0.5
    assert plan.hours == pytest.approx(0.5 * 5000 / 3600)


def test_short_steps_are_measured_for_a_second(clock: Callable[[list[float]], list[int]]) -> None:
    taken = clock([0.125])
    assert plan_training(small(), X, CONFIG, devices=(1,)).seconds_per_step == 0.125
    assert taken == [3 + 8]


def test_a_training_shorter_than_the_warm_up_is_measured_as_it_is(
    clock: Callable[[list[float]], list[int]],
) -> None:
    taken = clock([2.0])
    plan = plan_training(small(), X, replace(CONFIG, steps=2), devices=(1,))
    assert (plan.seconds_per_step, taken) == (2.0, [2])
    assert plan.hours == pytest.approx(4 / 3600)


def test_tokens_memory_and_disk_are_those_of_the_whole_training() -> None:
    plan = plan_training(small(), X, CONFIG, stored=torch.bfloat16)
    assert plan.tokens == 5000 * 64
    # A token is stored with three labels of 8 bytes: its document, its position and its id.
    assert plan.disk_bytes == 5000 * 64 * (16 * 2 + 24)
    assert plan.memory_bytes == bytes_of([Member(sae=small(), config=CONFIG)], 5000 * 64)
    assert plan_training(small(), X, CONFIG).disk_bytes == 5000 * 64 * (16 * 4 + 24)


def test_the_sae_and_the_sample_stay_as_they_are() -> None:
    sae, sample = small(), X.clone()
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    plan_training(sae, sample, CONFIG)
    assert torch.equal(sample, X)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sae.state_dict().items())


def test_a_plan_is_a_sentence_with_hours_memory_and_disk() -> None:
    plan = TrainingPlan(
        layers=("hs0", "hs1", "hs2"),
        d_in=576,
        d_sae=8192,
        tokens=409_600_000,
        steps=100_000,
        batch_tokens=4096,
        seconds_per_step=0.8125,
        hours=22.6,
        memory_bytes=1_500_000_000,
        disk_bytes=953_000_000_000,
        device="cpu",
        threads=2,
    )
    assert str(plan) == (
        "training one SAE of 8,192 latents on hs0 (and 2 more alike): 409,600,000 tokens (100,000 steps of 4,096) "
        "take 22.6 hours here, 0.812 s a step on 2 threads, and 1.5 GB of memory; activations of so many tokens "
        "take 953.0 GB on disk"
    )
    assert " take 96 hours (4.0 days) here, " in str(replace(plan, hours=96.0))
    assert " take 30.0 minutes here, " in str(replace(plan, hours=0.5))
    assert " take 36.0 seconds here, 0.812 s a step on cuda:0, " in str(replace(plan, hours=0.01, device="cuda:0"))


def test_layers_on_which_a_step_does_the_same_work_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def plan(
        sae: SAE, sample: torch.Tensor, config: TrainConfig, *, layer: str, stored: torch.dtype
    ) -> TrainingPlan:
        measured.append(layer)
        return plan_training(sae, sample, config, layer=layer, stored=stored)

    monkeypatch.setattr("autopsae.diagnosis.plan.plan_training", plan)
    diagnosis = autopsae.diagnose(X, d_sae=32, k=4)
    planner = Planner(replace(CONFIG, steps=2))
    wide = autopsae.diagnose(torch.randn(100, 24), d_sae=32, k=4, layer="wide").prescription
    planner.show(replace(diagnosis.prescription, layer="a"), X)
    planner.show(wide, torch.randn(100, 24))
    planner.show(replace(diagnosis.prescription, layer="b"), X)
    assert measured == ["a", "wide"]
    assert [plan.layers for plan in planner.plans] == [("a", "b"), ("wide",)]


def test_a_survey_has_the_plans_that_were_asked_for_and_else_none() -> None:
    layers = {"a": X, "b": X + 1}
    asked = autopsae.survey(layers, d_sae=32, k=4, plan=replace(CONFIG, steps=2))
    [plan] = asked.plans
    assert plan.layers == ("a", "b")
    assert asked.to_dict()["training"][0]["hours"] == plan.hours
    assert [on["devices"] for on in asked.to_dict()["training"][0]["on_devices"]] == [1, 2, 4, 8]
    plain = autopsae.survey(layers, d_sae=32, k=4)
    assert plain.plans == ()
    assert plain.to_dict()["training"] is None
