"""A plan for several devices: what is shared, what is exchanged, and what the estimate is made of."""

from dataclasses import replace

import pytest
import torch

from autopsae.remedies.remedy import untouched
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, Sparsity, TopK
from autopsae.training import Member, TrainConfig, bytes_of_step, plan_training
from autopsae.training.devices import FAST, SLOW, largest_share, plan_devices, share_to_measure, usable_devices
from autopsae.training.memory import bytes_of

X = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
CONFIG = TrainConfig(steps=1000, lr=1e-3, batch_tokens=64, buffer_tokens=1024)


def small(sparsity: Sparsity | None = None, d_sae: int = 64) -> SAE:
    return born(untouched(16), d_sae=d_sae, sparsity=sparsity or TopK(k=8), sample=X)


def test_hours_are_those_of_the_line_through_two_measurements_and_of_the_exchange() -> None:
    # a = 2, b = 6: 8 seconds on one device, 2 + 6 / 4 on four.
    plans = plan_devices(small(), CONFIG, [1, 2, 4], tokens=64_000, whole=8.0, least=3.5)
    assert [plan.seconds_per_step for plan in plans] == [8.0, 5.0, 3.5]
    for plan in plans:
        sent = sum(bytes_of_step(CONFIG, TopK(k=8), 16, ranks=plan.devices).values()) if plan.devices > 1 else 0
        assert plan.sent_bytes == sent
        assert plan.hours_10_gbit == pytest.approx(1000 * (plan.seconds_per_step + sent / SLOW) / 3600)
        assert plan.hours_400_gbit == pytest.approx(1000 * (plan.seconds_per_step + sent / FAST) / 3600)


def test_the_memory_of_a_device_is_that_of_its_share_and_of_what_it_receives() -> None:
    sae = small()
    one, two = plan_devices(sae, CONFIG, [1, 2], tokens=64_000, whole=1.0, least=1.0)
    assert one.memory_bytes == bytes_of([Member(sae=sae, config=CONFIG)], 64_000)
    share = bytes_of([Member(sae=largest_share(sae, 2), config=CONFIG)], 64_000)
    assert two.memory_bytes == share + 4 * 64 * (16 + 2 * 8)


def test_a_share_is_of_the_first_latents_and_changes_nothing() -> None:
    sae = small(d_sae=65)
    before = sae.W_enc.detach().clone()
    share = largest_share(sae, 4)
    assert share.d_sae == 17
    assert torch.equal(share.W_enc, before[:17])
    share.W_enc.data.zero_()
    assert torch.equal(sae.W_enc, before)


def test_the_share_to_measure_has_as_many_latents_of_a_token_as_cost_the_same() -> None:
    # 48 candidates of two rows, 48 / 4 pairs of four rows: 144 rows, as 24 latents of six.
    assert share_to_measure(small(TopK(k=48), d_sae=256), 4).sparsity == TopK(k=24)
    assert share_to_measure(small(TopK(k=48), d_sae=256), 1).sparsity == TopK(k=48)
    assert share_to_measure(small(BatchTopK(k=1)), 4).sparsity == BatchTopK(k=1)
    assert isinstance(share_to_measure(small(JumpReLU()), 4).sparsity, JumpReLU)


def test_only_numbers_of_devices_over_which_the_latents_can_be_spread_are_planned() -> None:
    assert usable_devices(small(TopK(k=8), d_sae=32), CONFIG, (1, 2, 4, 8)) == [1, 2, 4]
    assert usable_devices(small(), CONFIG, (4, 2)) == [1, 2, 4]
    assert usable_devices(small(GroupMax(k=8)), CONFIG, (1, 2, 4)) == [1]
    assert usable_devices(small(), replace(CONFIG, nested=(8, 16)), (1, 2)) == [1]


def test_a_plan_has_an_estimate_for_each_number_of_devices() -> None:
    plan = plan_training(small(), X, replace(CONFIG, steps=3))
    assert [on.devices for on in plan.on_devices] == [1, 2, 4, 8]
    assert plan.on_devices[0].hours_10_gbit == pytest.approx(plan.hours)
    assert plan.on_devices[0].memory_bytes == plan.memory_bytes
    [alone] = plan_training(small(GroupMax(k=8)), X, replace(CONFIG, steps=3)).on_devices
    assert (alone.devices, alone.sent_bytes) == (1, 0)
