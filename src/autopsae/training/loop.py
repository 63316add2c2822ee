"""The training loop, a page to read: for record in steps(sae, tokens, config)."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError, Tokens
from autopsae.sae.death import Changes, Watch
from autopsae.sae.model import SAE
from autopsae.training.data import shuffled
from autopsae.training.objective import AuxK, squared_error


class Diverged(RuntimeError):
    """The loss is no longer finite. The message says at which step; the SAE is as it was before it."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. Checked once, here."""

    steps: int
    lr: float
    """Learning rate of Adam. One step moves a coordinate by about this much."""
    batch_tokens: int = 4096
    b_dec_lr: float | None = None
    """Learning rate of `b_dec` alone, the bottleneck of revival; None for `lr`."""
    warmup_steps: int = 0
    decay_steps: int = 0
    """The learning rate rises linearly over the first steps, and falls linearly to 0 over the last ones."""
    auxk: AuxK | None = None
    dead_after_tokens: int = 256_000
    """A latent counts as dead in the records once it has been silent for so many tokens."""
    clip_norm: float | None = None
    unit_decoder: bool = True
    """Keep decoder rows at unit norm, and their gradient orthogonal to them."""
    buffer_tokens: int = 262_144
    """Tokens from which batches are drawn at random."""
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            f"steps >= 1, got {self.steps}": self.steps >= 1,
            f"batch_tokens >= 1, got {self.batch_tokens}": self.batch_tokens >= 1,
            f"lr > 0 and finite, got {self.lr}": isfinite(self.lr) and self.lr > 0,
            f"b_dec_lr >= 0 or None, got {self.b_dec_lr}": self.b_dec_lr is None
            or (isfinite(self.b_dec_lr) and self.b_dec_lr >= 0),
            f"warmup_steps + decay_steps <= steps = {self.steps}, got {self.warmup_steps} + {self.decay_steps}": (
                min(self.warmup_steps, self.decay_steps) >= 0 and self.warmup_steps + self.decay_steps <= self.steps
            ),
            f"clip_norm > 0 or None, got {self.clip_norm}": self.clip_norm is None or self.clip_norm > 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise InputError(f"TrainConfig: expected {'; '.join(broken)}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One training step. Fractions in [0, 1].

    dead: silent for `dead_after_tokens` tokens = relu (not positive in them either) + topk.
    """

    step: int
    tokens: int
    loss: float
    fvu: float
    """Of the batch, in the SAE's space: squared error over the squared distance from the batch's mean."""
    l0: float
    """Latents that fired, per token."""
    dead: float
    relu: float
    topk: float
    died: int
    """Latents that died in this step, and that came back in it, by what had kept them dead."""
    revived_from_relu: int
    revived_from_topk: int


def steps(sae: SAE, tokens: Tokens, config: TrainConfig) -> Generator[Record, None, None]:
    """Train `sae` in place on raw tokens, one record per step. Stop iterating to stop training.

    Raises InputError as `chunks`, and Diverged where the loss is not finite, before the step is taken.
    """
    weight = sae.W_enc
    bias = [sae.b_dec]
    others = [p for p in sae.parameters() if p is not sae.b_dec]
    b_dec_lr = config.lr if config.b_dec_lr is None else config.b_dec_lr
    optimizer = torch.optim.Adam(
        [{"params": others, "lr": config.lr}, {"params": bias, "lr": b_dec_lr}], fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    watch = Watch(sae.d_sae, dead_after_tokens=config.dead_after_tokens, device=weight.device)
    batches = shuffled(
        tokens, config.batch_tokens, buffer_tokens=config.buffer_tokens, seed=config.seed, device=weight.device
    )
    for step, x in enumerate(islice(batches, config.steps)):
        y = sae.affine(x.to(weight.dtype))
        values, pairs, pre = sae.select(y)
        y_hat = sae.reconstruct(values, pairs)
        error = squared_error(y, y_hat)
        loss = error
        if config.auxk:
            loss = error + config.auxk.loss(sae, y, y_hat, pre, watch.silent(config.auxk.dead_after_tokens))
        if not torch.isfinite(loss):
            raise Diverged(f"step {step}: the loss is {loss.item()}; lower the learning rate ({config.lr:g})")
        optimizer.zero_grad()
        loss.backward()
        if config.unit_decoder:
            _remove_parallel_gradient(sae.W_dec)
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        if config.unit_decoder:
            _normalize_rows(sae.W_dec)
        changes = watch.see(values, pairs, pre)
        yield _record(step, y, float(loss.detach()), float(error.detach()), values, watch, changes)


def train(sae: SAE, tokens: Tokens, config: TrainConfig) -> list[Record]:
    """`steps` to the end: the SAE is trained in place, and its records are returned. Raises as `steps`."""
    return list(steps(sae, tokens, config))


def _rate(step: int, config: TrainConfig) -> float:
    """The learning rate of this step as a fraction of the full one."""
    rising = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    left = config.steps - step
    return min(rising, left / config.decay_steps if left < config.decay_steps else 1.0)


def _remove_parallel_gradient(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    """Adam would otherwise spend its steps on lengths that the normalisation undoes."""
    assert W_dec.grad is not None
    parallel = (W_dec.grad * W_dec.data).sum(dim=1, keepdim=True)
    W_dec.grad.addcmul_(parallel, W_dec.data, value=-1)


@torch.no_grad()
def _normalize_rows(W_dec: Float[Tensor, "d_sae d_in"]) -> None:
    W_dec.div_(W_dec.norm(dim=1, keepdim=True))


def _record(
    step: int, y: Tensor, loss: float, error: float, values: Tensor, watch: Watch, changes: Changes
) -> Record:
    relu = float(watch.dead_by_relu.double().mean())
    dead = float(watch.dead.double().mean())
    spread = float((y - y.mean(dim=0)).square().sum() / len(y))
    return Record(
        step=step,
        tokens=(step + 1) * len(y),
        loss=loss,
        fvu=error / spread if spread > 0 else 0.0,
        l0=int((values > 0).sum()) / len(y),
        dead=dead,
        relu=relu,
        topk=dead - relu,
        **vars(changes),
    )
