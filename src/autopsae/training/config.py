"""`TrainConfig`, the settings of a training, and `Record`, what training reports every few steps."""

from dataclasses import dataclass
from math import ceil, isfinite
from typing import Literal

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError
from autopsae.kernels.screen import PRODUCTS, Products
from autopsae.tables import Result
from autopsae.training.bias import BIASES, Bias
from autopsae.training.objective import L1, L0Target, take_sizes
from autopsae.training.revival import AuxK, GhostGradients, Resampling, resampling_until
from autopsae.words import number_text

Optimizer = Literal["adam", "sparse_adam", "sign_sgd"]


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainConfig(Result):
    """The settings of a training. Raises InputError, which lists every setting that is out of range."""

    steps: int
    """Number of training steps. Each step is on one batch."""
    lr: float
    """Learning rate. One step of Adam or SignSGD moves each coordinate of a weight by about this much."""
    batch_tokens: int = 4096
    """Number of tokens in a batch."""
    optimizer: Optimizer = "adam"
    """adam: Adam. sparse_adam: Adam that does not change a latent without a gradient in the step. sign_sgd: each
    step moves each coordinate by the learning rate, against the sign of its gradient; it keeps no moments."""
    bias: Bias = BIASES["learned"]
    """How `b_dec` learns: its rate, in which steps, and whether the encoder subtracts what it learns. It limits
    recovery, because without ghost gradients or resampling only a `b_dec` that the encoder subtracts can make
    dead-by-ReLU latents positive (docs/forecast.md)."""
    relative_encoder_lr: bool = False
    """True: the encoder (W_enc, b_enc, thresholds) learns at `lr` times the mean norm that the rows of W_enc have
    as training begins. Rows of any length then turn as fast as rows of length 1, where Adam would turn short rows
    faster. For SAEs that were born with `fit_encoder` (docs/cures.md)."""
    frozen: tuple[str, ...] = ()
    """Names of the parameters that training does not change, such as ("b_dec",) or ("W_enc", "W_dec")."""
    warmup_steps: int = 0
    """Number of first steps over which the learning rate rises linearly from 0."""
    decay_steps: int = 0
    """Number of last steps over which the learning rate falls linearly to 0."""
    k_start: int | None = None
    """For TopK and BatchTopK: the k of the first step. From it, k changes linearly to the k of the SAE over the
    first `k_steps` steps. None for the k of the SAE in every step."""
    k_steps: int = 0
    """Number of steps over which k changes: at least 1 with `k_start`, 0 without."""
    penalty: L1 | L0Target | None = None
    """Term of the loss that keeps the codes sparse: L1 for ReLU, L0Target for JumpReLU. None for no term."""
    nested: tuple[int, ...] = ()
    """Matryoshka training (Bussmann et al. 2025): sizes m_1 < m_2 < ... < d_sae of prefixes of the latents. Each
    prefix reconstructs the tokens without the other latents, and so do all latents together. The loss is the mean
    of these squared errors, so the first latents learn what is most general. () for no prefixes."""
    revival: AuxK | GhostGradients | None = None
    """Term of the loss that makes silent latents fire again. None for no term."""
    resampling: Resampling | None = None
    """When and how silent latents are drawn afresh, which is never near the end (`resamples`). None for never."""
    dead_after_tokens: int = 256_000
    """A record counts a latent as dead if it has not fired on this many tokens, the last ones. Before training has
    seen this many, the dead fractions of the records are None."""
    clip_norm: float | None = None
    """Largest norm of the gradient of an SAE (all its weights together, without frozen ones): a longer gradient is
    shortened to this norm. None for no limit."""
    unit_decoder: bool = True
    """True: decoder rows have norm 1 after every step, and the part of their gradient along them is removed."""
    products: Products = "auto"
    """Type of the encoder product that finds, for each token, the latents that may be selected; "auto" for the
    fastest type that the processor has. The result does not depend on the type: exact values decide what is
    selected. Only small SAEs (d_in under 128 or d_sae under 1024) take the whole product under "auto", whose values
    may differ in their last bits (docs/exact-selection.md)."""
    buffer_tokens: int = 262_144
    """Number of tokens in the buffer from which batches are drawn at random."""
    record_every: int = 1
    """Number of steps from one record to the next. A record counts deaths and revivals over all of these steps."""
    seed: int = 0
    """Seed for the order of the tokens and for resampling."""

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
            f"b_dec frozen or a bias of its own, got {self.frozen} and {self.bias}": "b_dec" not in self.frozen
            or self.bias == Bias(),
            f"warmup_steps + decay_steps <= steps = {self.steps}, got {self.warmup_steps} + {self.decay_steps}": (
                min(self.warmup_steps, self.decay_steps) >= 0 and self.warmup_steps + self.decay_steps <= self.steps
            ),
            f"W_enc, W_dec, b_enc unfrozen to resample, got {self.frozen}": self.resampling is None
            or not {"W_enc", "W_dec", "b_enc"} & {*self.frozen},
            f"k_start >= 1 with k_steps >= 1 or neither, got {self.k_start} and {self.k_steps}": (
                self.k_steps == 0 if self.k_start is None else min(self.k_start, self.k_steps) >= 1
            ),
            # Else the last step has another k than the SAE that is saved.
            f"k_steps <= steps = {self.steps}, got {self.k_steps}": self.k_steps <= self.steps,
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
        """The k in a step (from 0) for an SAE whose own k is `k`."""
        if self.k_start is None or step >= self.k_steps:
            return k
        return round(self.k_start + (k - self.k_start) * step / self.k_steps)

    def last_resampling(self) -> int:
        """How many steps may be done when latents are last drawn afresh: 0 without `resampling`, and `until_step`
        at most. After it there is a tenth of the steps, in which those latents learn, and as many tokens as it
        takes, by `resampling` and by the records, to find that one of them has not fired.
        """
        if self.resampling is None:
            return 0
        # A shorter training has no record that counts dead latents.
        counted = self.dead_after_tokens if self.dead_after_tokens <= self.steps * self.batch_tokens else 0
        silence = ceil(max(self.resampling.dead_after_tokens, counted) / self.batch_tokens)
        last = max(0, min(resampling_until(self.steps), self.steps - silence))
        return last if self.resampling.until_step is None else min(last, self.resampling.until_step)

    def resamples(self, step: int) -> bool:
        """Whether silent latents are drawn afresh after a step (from 0): every so many steps, as `resampling` says,
        up to `last_resampling`.
        """
        return self.resampling is not None and self.resampling.due(step) and step < self.last_resampling()

    def rate(self, step: int) -> float:
        """The learning rate in a step (from 0), as a fraction of `lr`, in (0, 1]."""
        # step + 1, and `remaining` counts this step too: a rate of 0 would waste the first and the last step.
        rising = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        remaining = self.steps - step
        return min(rising, remaining / self.decay_steps if remaining < self.decay_steps else 1.0)


RENAMED = {"relu": "dead_by_relu", "topk": "dead_by_topk"}
"""{name in the records and summaries of the first version: its name now}."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Record(Result):
    """What training reports of one step, and of the latents that died or revived since the record before it.

    The three dead fractions are None until training has seen `dead_after_tokens` tokens (a setting of
    `TrainConfig`), because no latent can have been silent for that long. `never_fired` is never None.
    """

    step: int
    """Number of the step, from 0."""
    tokens: int
    """Number of tokens trained on, from the beginning up to and with this step."""
    loss: float
    """The loss of the step: squared error per token (with `nested`, its mean over the reconstructions), plus the
    penalty and the revival term, if there are any."""
    fvu: float | None
    """Fraction of variance unexplained, on the batch and in the SAE's space: the squared error over the squared
    distance from the mean of the batch. None if all tokens of the batch are equal, as in a batch of one token."""
    l0: float
    """Mean number of latents that fired on a token."""
    threshold: float
    """The smallest code greater than zero of each token, averaged over the tokens that have one."""
    bias_captured: float
    """Share of the mean of all tokens so far that `b_dec` has reached: b_dec . mean / ||mean||^2 in raw space. Over
    1 if `b_dec` has gone further than the mean."""
    never_fired: float
    """Fraction of the latents that have not fired since training began, in [0, 1]. Drawing a latent afresh does not
    change whether it has fired."""
    dead: float | None
    """Fraction of the latents that did not fire on the last `dead_after_tokens` tokens: the sum of `dead_by_relu`
    and `dead_by_topk`. For a latent that was drawn afresh, these tokens are counted from then on."""
    dead_by_relu: float | None
    """Fraction of the latents that are dead and were not positive on any of these tokens."""
    dead_by_topk: float | None
    """Fraction of the latents that are dead and were positive on some of these tokens."""
    dead_tokens: int | None
    """Number of tokens on which dead latents are counted: `dead_after_tokens`. None if `dead` is None."""
    died: int
    """Number of latents that became dead since the last record."""
    revived_from_relu: int
    """Number of dead-by-ReLU latents that fired again since the last record."""
    revived_from_topk: int
    """Number of dead-by-TopK latents that fired again since the last record."""
    resampled: int
    """Number of silent latents that were drawn afresh since the last record."""

    def __str__(self) -> str:
        fvu = "" if self.fvu is None else f", FVU {self.fvu:.4f}"
        dead = "death not known yet" if self.dead is None else f"{self.dead:.1%} dead"
        return f"step {self.step:,}: loss {number_text(self.loss)}{fvu}, L0 {self.l0:.1f}, {dead}"
