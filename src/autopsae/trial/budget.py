"""What a trial costs, said before it starts."""

from dataclasses import dataclass

from autopsae.tables import Result

SHARE = 0.1
"""Share of the user's own training that all candidates together shall take at most."""

LEAST_STEPS = 1000
"""Steps of each candidate at least: who lives after fewer says little of who will (docs/trial.md)."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Budget(Result):
    """The steps of a trial, and what they are of the training that it is made for."""

    candidates: int
    """Number of SAEs that are trained side by side."""
    steps: int
    """Steps of each."""
    batch_tokens: int
    """Tokens of a step."""
    for_steps: int
    """Steps of the training that the trial is made for."""

    @staticmethod
    def of(candidates: int, *, for_steps: int, batch_tokens: int, steps: int | None = None) -> "Budget":
        """A budget of at most a tenth of `for_steps` for all candidates together, but at least 1,000 steps for
        each, and no more than `for_steps`. steps: of each candidate, where they are chosen.
        """
        affordable = max(LEAST_STEPS, int(SHARE * for_steps) // candidates)
        each = min(affordable, for_steps) if steps is None else steps
        return Budget(candidates=candidates, steps=each, batch_tokens=batch_tokens, for_steps=for_steps)

    @property
    def share(self) -> float:
        """The steps of all candidates over `for_steps`."""
        return self.candidates * self.steps / self.for_steps

    def __str__(self) -> str:
        said = (
            f"the trial trains {self.candidates} SAEs for {self.steps:,} steps of {self.batch_tokens:,} tokens: "
            f"{self.share:.0%} of one training of {self.for_steps:,} steps"
        )
        if self.share <= SHARE:
            return said
        return f"{said}, which is over a tenth; fewer candidates or fewer steps cost less, and say less"
