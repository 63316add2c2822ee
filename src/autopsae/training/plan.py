"""What a training would take on this machine: tokens, hours and bytes, from steps that are really taken."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.activations.room import in_words, room_for
from autopsae.activations.shards import SHARD_TOKENS
from autopsae.sae.model import SAE
from autopsae.tables import Result
from autopsae.training.config import TrainConfig
from autopsae.training.devices import DEVICES, DevicesPlan, plan_devices, share_to_measure, usable_devices
from autopsae.training.loop import Training
from autopsae.training.memory import bytes_of
from autopsae.training.sources import Member

WARM_UP = 3
"""Steps before the measured ones: loops are compiled, and memory is taken."""
MEASURED = 5
"""Steps that are measured at least, and for at least a second. Their median is taken."""
_BATCHES = 4
"""Batches that the measured steps draw from, so that tokens are read and shuffled as in a training."""


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainingPlan(Result):
    """What training one SAE takes on this machine."""

    layers: tuple[str, ...]
    """The layers that it is for: on all of them a step does the same work. It was measured on the first."""
    d_in: int
    """Width of the tokens."""
    d_sae: int
    """Number of latents."""
    tokens: int
    """Number of tokens that the training reads: steps times `batch_tokens`."""
    steps: int
    """Number of training steps."""
    batch_tokens: int
    """Number of tokens in a batch."""
    seconds_per_step: float
    """Measured: the median of at least five steps, which took at least a second together."""
    hours: float
    """seconds_per_step * steps / 3600. Measurements on held-out tokens, checkpoints and a slow disk come on top."""
    memory_bytes: int
    """What the training takes of memory at most, its buffer of tokens included (`training.memory.bytes_of`)."""
    disk_bytes: int
    """What the activations of all these tokens take on disk, in the type in which they are stored."""
    device: str
    """Where the steps were taken."""
    threads: int
    """Number of threads of the processor that took them."""
    on_devices: tuple[DevicesPlan, ...] = ()
    """Estimates for the SAE spread over several devices like this one, the first for this one alone; only this one
    where the SAE cannot be spread (docs/ranks.md)."""

    def __str__(self) -> str:
        others = len(self.layers) - 1
        layers = self.layers[0] + (f" (and {others} more alike)" if others else "")
        where = self.device if self.device != "cpu" else f"{self.threads} thread{'s' * (self.threads > 1)}"
        return (
            f"training one SAE of {self.d_sae:,} latents on {layers}: {self.tokens:,} tokens "
            f"({self.steps:,} steps of {self.batch_tokens:,}) take {duration(self.hours)} here, "
            f"{self.seconds_per_step:.3g} s a step on {where}, and {in_words(self.memory_bytes)} of memory; "
            f"activations of so many tokens take {in_words(self.disk_bytes)} on disk"
        )


def plan_training(
    sae: SAE,
    sample: Float[Tensor, "sample d_in"],
    config: TrainConfig,
    *,
    layer: str = "layer",
    stored: torch.dtype = torch.float32,
    devices: Sequence[int] = DEVICES,
) -> TrainingPlan:
    """What training `sae` by `config` takes on this machine, from a measured second of its steps.

    A copy of the SAE takes real steps of the real size on the sample, which is repeated where it has fewer tokens
    than a few batches: three to warm up, then at least five and at least a second of them. The SAE stays as it is.
    For several devices, as many steps are taken with the latents that one of the largest number of devices has.

    sample: raw tokens of the layer; layer: its name; stored: the type in which activations are stored on disk;
    devices: numbers of devices over which the latents may be spread (docs/ranks.md).

    Raises InputError as `Training`, for example for tokens of another width than the SAE's.
    """
    member = Member(sae=deepcopy(sae), config=config)
    enough = -(-_BATCHES * config.batch_tokens // len(sample))
    tokens = sample.to(sae.W_enc.dtype).repeat(enough, 1)[: _BATCHES * config.batch_tokens]
    total = config.steps * config.batch_tokens
    seconds = _time_steps(Training([member], tokens), sae.W_enc.device)
    usable = usable_devices(sae, config, devices)
    least = seconds
    if len(usable) > 1:
        share = Member(sae=share_to_measure(sae, usable[-1]), config=config)
        least = _time_steps(Training([share], tokens), sae.W_enc.device)
    room = room_for(
        {layer: sample[:1].to(stored)},
        tokens=total,
        batch_tokens=config.batch_tokens,
        shard_tokens=SHARD_TOKENS,
    )
    return TrainingPlan(
        layers=(layer,),
        d_in=sae.d_in,
        d_sae=sae.d_sae,
        tokens=total,
        steps=config.steps,
        batch_tokens=config.batch_tokens,
        seconds_per_step=seconds,
        hours=seconds * config.steps / 3600,
        memory_bytes=bytes_of([member], total),
        disk_bytes=room.disk,
        device=str(sae.W_enc.device),
        threads=torch.get_num_threads(),
        on_devices=plan_devices(sae, config, usable, tokens=total, whole=seconds, least=least),
    )


def _time_steps(training: Training, device: torch.device) -> float:
    """The median second of a step after the warm-up; of a training that is shorter, of the steps that it has."""
    seconds: list[float] = []
    try:
        while training.step < training.config.steps and not training.diverged:
            start = time.perf_counter()
            training.advance()
            if device.type == "cuda":  # a step ends when the device has done it, not when it was told to
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
            measured = seconds[WARM_UP:]
            if len(measured) >= MEASURED and sum(measured) >= 1:
                break
    finally:
        training.close()
    return median(seconds[WARM_UP:] or seconds)


def duration(hours: float) -> str:
    """Hours in the largest unit of which there is at least one."""
    if hours >= 48:
        return f"{hours:,.0f} hours ({hours / 24:.1f} days)"
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.1f} seconds"
