"""How to train, and what a step reports."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError
from autopsae.kernels.screen import PRODUCTS, Products
from autopsae.tables import Result
from autopsae.training.objective import L1, L0Target, take_sizes
from autopsae.training.revival import AuxK, GhostGradients, Resampling

Optimizer = Literal["adam", "sparse_adam", "sign_sgd"]


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainConfig(Result):
    """How to train. Checked once, here."""

    steps: int
    """Steps of training, each on one batch."""
    lr: float
    """Learning rate. One step of Adam or SignSGD moves a coordinate by about this much."""
    batch_tokens: int = 4096
    """Tokens per batch."""
    optimizer: Optimizer = "adam"
    """sparse_adam touches only the latents that had a gradient in the step; sign_sgd keeps no state."""
    b_dec_lr: float | None = None
    """Learning rate of `b_dec` alone, the bottleneck of revival; None for `lr`."""
    frozen: tuple[str, ...] = ()
    """Parameters that stay as they are: ("b_dec",) for a frozen bias, ("W_enc", "W_dec") for frozen features."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    decay_steps: int = 0
    """Last steps, over which it falls linearly to 0."""
    k_start: int | None = None
    """TopK and BatchTopK: k falls linearly from here to the SAE's own over the first `k_steps` steps."""
    k_steps: int = 0
    """Steps over which k falls; 0 where `k_start` is None."""
    penalty: L1 | L0Target | None = None
    """What keeps ReLU (L1) and JumpReLU (L0Target) sparse."""
    nested: tuple[int, ...] = ()
    """Matryoshka training (Bussmann et al. 2025): sizes m_1 < m_2 < ... of prefixes, under d_sae. The mean is
    minimised of the squared errors of the reconstructions from the first m_1 latents, the first m_2, ..., and all
    of them, so that the first ones learn what is most general. () for all latents alone."""
    revival: AuxK | GhostGradients | None = None
    """A loss that brings silent latents back; None for none."""
    resampling: Resampling | None = None
    """When silent latents are drawn afresh; None for never."""
    dead_after_tokens: int = 256_000
    """A latent counts as dead in the records once it has been silent for so many tokens; until so many have passed,
    the records say nothing of death."""
    clip_norm: float | None = None
    """Largest norm of an SAE's gradient, which is shortened to it; None for no limit."""
    unit_decoder: bool = True
    """Keep decoder rows at unit norm, and their gradient orthogonal to them."""
    products: Products = "auto"
    """Type of the products that find the candidates among which latents are chosen; "auto" for the fastest that the
    processor has. The result does not depend on it: the choice is made from exact values."""
    buffer_tokens: int = 262_144
    """Tokens from which batches are drawn at random."""
    record_every: int = 1
    """Steps between records; deaths and revivals are counted over all of them."""
    seed: int = 0
    """Of the order of the tokens, and of what is resampled."""

    def __post_init__(self) -> None:
        whole_fields(
            self,
            "steps",
            "batch_tokens",
            "warmup_steps",
            "decay_steps",
            "k_start",
            "k_steps",
            "dead_after_tokens",
            "buffer_tokens",
            "record_every",
            "seed",
        )
        object.__setattr__(self, "nested", take_sizes("TrainConfig.nested", self.nested))
        rules = {
            f"steps >= 1, got {self.steps}": self.steps >= 1,
            f"batch_tokens >= 1, got {self.batch_tokens}": self.batch_tokens >= 1,
            f"lr > 0 and finite, got {self.lr}": isfinite(self.lr) and self.lr > 0,
            f"optimizer adam, sparse_adam or sign_sgd, got {self.optimizer}": self.optimizer
            in ("adam", "sparse_adam", "sign_sgd"),
            f"b_dec_lr >= 0 or None, got {self.b_dec_lr}": self.b_dec_lr is None
            or (isfinite(self.b_dec_lr) and self.b_dec_lr >= 0),
            f"warmup_steps + decay_steps <= steps = {self.steps}, got {self.warmup_steps} + {self.decay_steps}": (
                min(self.warmup_steps, self.decay_steps) >= 0 and self.warmup_steps + self.decay_steps <= self.steps
            ),
            f"W_enc, W_dec, b_enc unfrozen to resample, got {self.frozen}": self.resampling is None
            or not {"W_enc", "W_dec", "b_enc"} & {*self.frozen},
            f"k_start >= 1 with k_steps >= 1 or neither, got {self.k_start} and {self.k_steps}": (
                self.k_steps == 0 if self.k_start is None else min(self.k_start, self.k_steps) >= 1
            ),
            f"dead_after_tokens >= 1, got {self.dead_after_tokens}": self.dead_after_tokens >= 1,
            f"products {', '.join(PRODUCTS[:-1])} or {PRODUCTS[-1]}, got {self.products}": self.products
            in PRODUCTS,
            f"record_every >= 1, got {self.record_every}": self.record_every >= 1,
            f"buffer_tokens >= 1, got {self.buffer_tokens}": self.buffer_tokens >= 1,
            f"clip_norm > 0 or None, got {self.clip_norm}": self.clip_norm is None or self.clip_norm > 0,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise InputError(f"TrainConfig: expected {'; '.join(broken)}")

    def k(self, step: int, k: int) -> int:
        """The k of a step, for an SAE whose own is `k`."""
        if self.k_start is None or step >= self.k_steps:
            return k
        return round(self.k_start + (k - self.k_start) * step / self.k_steps)

    def rate(self, step: int) -> float:
        """The learning rate of a step as a fraction of the full one."""
        rising = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        left = self.steps - step
        return min(rising, left / self.decay_steps if left < self.decay_steps else 1.0)


RENAMED = {"relu": "dead_by_relu", "topk": "dead_by_topk"}
"""Names in the records and summaries of the first version, and what they are called now."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Record(Result):
    """One training step, and what happened to the latents since the last record. Fractions in [0, 1].

    dead = dead_by_relu + dead_by_topk, all three None until the `dead_after_tokens` of the settings have passed in
    training: no latent can have been silent for so long before. `never_fired` is known in every record.
    """

    step: int
    """The number of the step, from 0."""
    tokens: int
    """Tokens trained on since training began, this step's included."""
    loss: float
    """What was minimised in the step: the squared error, plus penalty and revival."""
    fvu: float | None
    """Of the batch, in the SAE's space: squared error over the squared distance from the batch's mean; None where
    the tokens of the batch do not differ, as in a batch of one."""
    l0: float
    """Latents that fired, per token."""
    threshold: float
    """The smallest value that fired, averaged over the tokens: what a latent must exceed to be heard."""
    bias_captured: float
    """Share of the mean of all tokens so far that `b_dec` has taken over."""
    never_fired: float
    """Fraction of the latents that have not fired since training began. A latent that is drawn afresh counts as
    before: as one that never fired until it does, or as one that has fired."""
    dead: float | None
    """Fraction of the latents that have not fired for `dead_after_tokens` tokens. One that was drawn afresh counts
    as just seen."""
    dead_by_relu: float | None
    """Fraction that was not positive in those tokens either (dead-by-ReLU)."""
    dead_by_topk: float | None
    """Fraction that was positive in them, but did not fire (dead-by-TopK)."""
    dead_tokens: int | None
    """On how many tokens the dead are counted: `dead_after_tokens`; None where `dead` is None."""
    died: int
    """Latents that died since the last record."""
    revived_from_relu: int
    """Latents that came back since the last record, of those that were dead-by-ReLU."""
    revived_from_topk: int
    """Latents that came back since the last record, of those that were dead-by-TopK."""
    resampled: int
    """Dead latents that were drawn afresh."""

    def __str__(self) -> str:
        fvu = "" if self.fvu is None else f", FVU {self.fvu:.4f}"
        dead = "death not known yet" if self.dead is None else f"{self.dead:.1%} dead"
        return f"step {self.step:,}: loss {self.loss:.4g}{fvu}, L0 {self.l0:.1f}, {dead}"
