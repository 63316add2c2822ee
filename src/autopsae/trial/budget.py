"""What a trial costs, and how old its SAEs become, said before it starts."""

from dataclasses import dataclass, replace
from math import ceil, log2

from autopsae.tables import Result
from autopsae.training.bias import Bias
from autopsae.training.config import TrainConfig
from autopsae.training.objective import L1

CURVE = 4
"""Number of measurements of each candidate, the last one included."""

SHARE = 0.1
"""Share of the user's own training that all candidates together shall take at most, in tokens."""

LEAST_STEPS = 1000
"""Steps of each candidate at least."""

OLDEST = 3.0
"""Highest learning rate of a trial, in those of the training."""

FASTEST = 1e-3
"""Learning rate that a trial does not go beyond. Where the training has a higher one, so has the trial."""

BATCH_SHARE = 4
"""Tokens of a step of the training over those of a step of an aged trial."""

LEAST_BATCH = 256
"""Tokens of a step of an aged trial at least."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Budget(Result):
    """The steps of a trial, and what they are of the training that it is made for."""

    candidates: int
    """Number of SAEs that are trained side by side."""
    steps: int
    """Steps of each."""
    batch_tokens: int
    """Tokens of a step."""
    age: float
    """Learning rate of the trial, in those of the training. Adam moves a weight by about the rate in each step, so
    a step of the trial ages an SAE as about `age` steps of the training do (docs/trial.md: how well that holds)."""
    for_steps: int
    """Steps of the training that the trial is made for."""
    for_batch_tokens: int
    """Tokens of a step of that training."""

    @staticmethod
    def of(candidates: int, config: TrainConfig, *, steps: int | None = None) -> "Budget":
        """The budget of a trial for a training by `config`: as many steps as age SAEs as much as the training does,
        but at most a tenth of its tokens for all candidates together, at least 1,000 for each, and no more than it
        has itself. A trial of a training that brings latents back is not aged, as that goes by tokens and steps.
        steps: of each candidate, where they are chosen.
        """
        aged = config.revival is None and config.resampling is None
        oldest = max(1.0, min(OLDEST, FASTEST / config.lr)) if aged else 1.0
        smaller = max(LEAST_BATCH, config.batch_tokens // BATCH_SHARE) if aged else config.batch_tokens
        batch = min(config.batch_tokens, smaller)
        if steps is None:
            affordable = int(SHARE * config.steps * config.batch_tokens) // (candidates * batch)
            wanted = max(LEAST_STEPS, min(affordable, round(config.steps / oldest)))
            steps = min(wanted, config.steps)
        return Budget(
            candidates=candidates,
            steps=steps,
            batch_tokens=batch,
            age=max(1.0, min(oldest, config.steps / steps)),
            for_steps=config.steps,
            for_batch_tokens=config.batch_tokens,
        )

    @property
    def share(self) -> float:
        """The tokens of all candidates over those of the training."""
        return self.candidates * self.steps * self.batch_tokens / (self.for_steps * self.for_batch_tokens)

    @property
    def old(self) -> int:
        """Steps of the training as which the trial is as old at its end."""
        return round(self.age * self.steps)

    @property
    def doublings(self) -> float:
        """How often the number of steps doubles from the trial's age to the end of the training."""
        return log2(self.for_steps / self.old)

    def __str__(self) -> str:
        faster = (
            f" at {self.age:.3g} times the learning rate, which ages them as {self.old:,} do"
            if self.age > 1
            else ""
        )
        said = (
            f"the trial trains {self.candidates} SAEs for {self.steps:,} steps of {self.batch_tokens:,} "
            f"tokens{faster}: {self.share:.0%} of one training of {self.for_steps:,} steps"
        )
        if self.share <= SHARE:
            return said
        return f"{said}, which is over a tenth; fewer candidates or fewer steps cost less, and say less"


def config_of_trial(
    config: TrainConfig, bias: Bias, budget: Budget, *, seed: int, fitted: bool = False
) -> TrainConfig:
    """The training `config`, as long as the trial is. What happens at a step of the training happens at the same
    age of the trial. bias, fitted: of a candidate, and whether its encoder is fitted.
    """

    def younger(steps: int) -> int:
        return ceil(steps / budget.age)

    start, end, penalty = younger(bias.from_step), bias.until_step, config.penalty
    if isinstance(penalty, L1):
        penalty = replace(penalty, warmup_steps=younger(penalty.warmup_steps))
    return replace(
        config,
        steps=budget.steps,
        batch_tokens=budget.batch_tokens,
        lr=budget.age * config.lr,
        bias=replace(bias, from_step=start, until_step=None if end is None else max(start + 1, younger(end))),
        relative_encoder_lr=fitted or config.relative_encoder_lr,
        penalty=penalty,
        k_steps=younger(config.k_steps),
        warmup_steps=min(younger(config.warmup_steps), budget.steps),
        decay_steps=0,
        record_every=max(1, budget.steps // CURVE),
        seed=seed,
    )
