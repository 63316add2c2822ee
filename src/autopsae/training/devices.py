"""What one training would take on several devices like the one that was measured: an estimate (docs/scaling.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from autopsae.sae.model import SAE
from autopsae.training.config import TrainConfig
from autopsae.training.memory import bytes_of
from autopsae.training.rank_traffic import bytes_of_step
from autopsae.training.ranks import reasons_against_ranks, share_of
from autopsae.training.sources import Member

DEVICES = (1, 2, 4, 8)
"""Numbers of devices that a plan is for."""
SLOW, FAST = 1.25e9, 50e9
"""Bytes a second that a device sends to the others: over a network of 10 Gbit/s, and over one of 400 Gbit/s."""


@dataclass(frozen=True, kw_only=True)
class DevicesPlan:
    """What a training takes where the latents of its SAE are spread over several devices (docs/ranks.md)."""

    devices: int
    """Number of devices, all like the one on which steps were measured; a rank on each."""
    seconds_per_step: float
    """What each device computes in a step, without the exchange. Measured for one device and for the share of one
    of the most devices; for numbers between, on the line a + b / devices through these two."""
    memory_bytes: int
    """What the training takes of memory on each device at most."""
    sent_bytes: int
    """Bytes that each device sends to others in a step (`bytes_of_step`)."""
    hours_10_gbit: float
    """Hours of the training where a device sends 1.25 GB a second. Nothing is computed while it sends."""
    hours_400_gbit: float
    """The same where it sends 50 GB a second."""


def usable_devices(sae: SAE, config: TrainConfig, devices: Sequence[int]) -> list[int]:
    """Those numbers of devices, and 1, over which the latents of the SAE can be spread, in order."""
    several = [n for n in sorted({*devices} - {1}) if not reasons_against_ranks(sae, config, sae.d_sae // n)]
    return [1, *several]


def largest_share(sae: SAE, devices: int) -> SAE:
    """A new SAE of as many latents as one of so many devices has at most."""
    return share_of(sae, range(ceil(sae.d_sae / devices)))


def share_to_measure(sae: SAE, devices: int) -> SAE:
    """The same, with a smaller k, so that a step of it costs what a step of this device does.

    Each device chooses k candidates of its own latents, of which k / devices are selected over all devices on
    average. A candidate costs about two rows of a matrix, and a selected one four more (`work_of_step`). So
    k / 3 + 2 k / (3 devices) latents that are candidates and selected cost as much. Latents over a threshold need
    no such number: each device has only its own.
    """
    share = largest_share(sae, devices)
    if share.sparsity.l0 is not None:
        k = share.sparsity.l0
        share.sparsity = share.sparsity.with_k(max(1, round(k / 3 + 2 * k / (3 * devices))))
    return share


def plan_devices(
    sae: SAE, config: TrainConfig, devices: Sequence[int], *, tokens: int, whole: float, least: float
) -> tuple[DevicesPlan, ...]:
    """A plan for each number of devices, of which the first is 1 and the last is the largest.

    With R devices a step takes a + b / R seconds on each: products, choice, Adam and the rows of selected latents
    are shared, tokens and the rows of candidates are not. a and b follow from two measurements.

    tokens: of the training; whole: measured seconds of a step on one device; least: of `share_to_measure` for the
    most devices.
    """
    shared = (whole - least) / (1 - 1 / devices[-1]) if len(devices) > 1 else 0.0
    return tuple(_plan(sae, config, n, tokens=tokens, seconds=whole - shared * (1 - 1 / n)) for n in devices)


def _plan(sae: SAE, config: TrainConfig, devices: int, *, tokens: int, seconds: float) -> DevicesPlan:
    sent, received, part = 0, 0, sae
    if devices > 1:
        size, part = sae.W_enc.element_size(), largest_share(sae, devices)
        sent = sum(bytes_of_step(config, sae.sparsity, sae.d_in, ranks=devices, dtype=sae.W_enc.dtype).values())
        # What a device holds of the exchange: the sum [batch, d_in], and the candidates of all devices.
        received = size * config.batch_tokens * (sae.d_in + devices * (sae.sparsity.l0 or 0))
    slow, fast = (config.steps * (seconds + sent / rate) / 3600 for rate in (SLOW, FAST))
    return DevicesPlan(
        devices=devices,
        seconds_per_step=seconds,
        memory_bytes=bytes_of([Member(sae=part, config=config)], tokens) + received,
        sent_bytes=sent,
        hours_10_gbit=slow,
        hours_400_gbit=fast,
    )
