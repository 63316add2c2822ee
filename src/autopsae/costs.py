"""What work costs: how much of each resource it takes, and how long that lasts at given rates (docs/scaling.md)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from autopsae.arrays import InputError


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much of each resource some work takes. Work can be added, and multiplied by a number."""

    float64: float | int = 0
    """Floating-point operations of matrix products in float64."""
    float32: float | int = 0
    """Floating-point operations of matrix products in float32."""
    bfloat16: float | int = 0
    """Floating-point operations of matrix products in bfloat16."""
    streamed: float | int = 0
    """Bytes that are read from memory, or written to it, in the order in which they lie."""
    gathered: float | int = 0
    """Bytes of matrix rows that are read from memory here and there."""
    updated: float | int = 0
    """Weights that a compiled loop moves by a step of Adam, and rounds for the screen: a pair of an entry of W_enc
    and one of W_dec counts once."""
    compared: float | int = 0
    """Scores of a token and a latent that a compiled loop goes through, to choose the latents of a token."""
    counted: float | int = 0
    """Numbers of tokens that go through a pass of statistics, its products aside."""
    stored: float | int = 0
    """Bytes that are read from a store."""
    sent: float | int = 0
    """Bytes that are sent to other processes."""
    steps: float | int = 0
    """Steps of training, for what a step takes whatever its size."""

    def __add__(self, other: "Work") -> "Work":
        return Work(**{name: amount + getattr(other, name) for name, amount in asdict(self).items()})

    def __mul__(self, times: float | int) -> "Work":
        return Work(**{name: times * amount for name, amount in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How much of each resource a machine gives in a second; None where that is not known."""

    float64: float | int | None = None
    """Floating-point operations a second of products in float64."""
    float32: float | int | None = None
    """The same in float32."""
    bfloat16: float | int | None = None
    """The same in bfloat16."""
    streamed: float | int | None = None
    """Bytes a second of memory in order."""
    gathered: float | int | None = None
    """Bytes a second of rows here and there."""
    updated: float | int | None = None
    """Pairs of weights a second that a step of Adam moves."""
    compared: float | int | None = None
    """Scores a second that a choice goes through, products and rows aside."""
    counted: float | int | None = None
    """Numbers a second through a pass of statistics, products aside."""
    stored: float | int | None = None
    """Bytes a second from the store."""
    sent: float | int | None = None
    """Bytes a second that a process sends to others."""
    steps: float | int | None = None
    """Steps a second that have next to nothing to compute."""


def seconds_of(work: Work, rates: Rates) -> dict[str, float]:
    """{resource: amount / rate}, the seconds that each resource is busy with the work, of those that it takes.

    Their sum is the time where nothing runs beside anything else, as on one thread; the largest is the least time,
    where everything runs at once.

    Raises InputError for a resource that the work takes and whose rate is not known.
    """
    seconds = {}
    for name, amount in asdict(work).items():
        if not amount:
            continue
        rate = getattr(rates, name)
        if rate is None:
            raise InputError(f"costs: expected a rate for {name!r}, which the work takes, got none")
        seconds[name] = amount / rate
    return seconds


def first_wall(
    needed: Mapping[str, float | int], there: Mapping[str, float | int], seconds: Mapping[str, float | int]
) -> str:
    """The name of the wall that is met first: of the capacities (bytes of memory, of disk) of which more is needed
    than there is, that which is exceeded most; if none is, the resource that is busy longest.

    needed, there: bytes by name; seconds: as of `seconds_of`.
    """
    exceeded = {name: bytes / there[name] for name, bytes in needed.items() if bytes > there[name]}
    walls = exceeded or seconds
    return max(walls, key=lambda name: walls[name])
