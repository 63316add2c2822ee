"""Every combination of what the members of a sweep have of their own, and what each is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a member of a sweep has of its own."""

    start: str
    """Where it starts: a name of `start.STARTS`, or any other word for a start that is given."""
    alpha: float
    """The exponent of whitening."""
    lr: float
    """The learning rate."""
    l1: float | None
    """The coefficient of an L1 penalty; None without one."""
    bias: str = "learned"
    """How `b_dec` learns: a name of `training.bias.BIASES`."""
    seed: int
    """The seed of the drawn rows and of the order of the tokens."""


def combinations(
    *,
    starts: Sequence[str] = ("median",),
    alphas: Sequence[float] = (0.3,),
    lrs: Sequence[float] = (3e-4,),
    l1s: Sequence[float] = (),
    biases: Sequence[str] = ("learned",),
    seeds: Sequence[int] = (0,),
) -> dict[str, Choice]:
    """Every combination by its name, in the order of the arguments. Only whitening has an exponent, so that other
    starts are combined with the first one alone.

    A name says in what a member differs from others, as "median_lr0.001_seed1"; that of a single member is "".
    """
    started = [(start, alpha) for start in starts for alpha in (alphas if start == "whiten" else alphas[:1])]
    choices = [
        Choice(start=start, alpha=alpha, lr=lr, l1=l1, bias=bias, seed=seed)
        for (start, alpha), lr, l1, bias, seed in product(started, lrs, l1s or (None,), biases, seeds)
    ]
    differing = [name for name in vars(choices[0]) if len({getattr(choice, name) for choice in choices}) > 1]
    return {_name(choice, differing): choice for choice in choices}


def _name(choice: Choice, differing: Sequence[str]) -> str:
    values = {name: getattr(choice, name) for name in differing}
    if choice.start != "whiten":
        values.pop("alpha", None)
    return "_".join(value if name == "start" else f"{name}{value}" for name, value in values.items())
