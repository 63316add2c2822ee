"""What a trial compares: a remedy, and how `b_dec` learns after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from autopsae.arrays import InputError
from autopsae.remedies.remedy import Remedy
from autopsae.run.members import Layer
from autopsae.tables import Result
from autopsae.training.bias import BIASES, Bias

USUAL = (
    *("none", "median", "median_slow", "median_frozen"),
    *("whiten_0.05_slow", "whiten_0.15", "whiten_0.15_frozen", "whiten_0.3"),
)
"""The candidates of a trial where nothing else is asked."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Candidate(Result):
    """One way to train an SAE on a layer."""

    remedy: Remedy
    """What is changed about the tokens."""
    bias: Bias = BIASES["learned"]
    """How `b_dec` learns."""

    @property
    def name(self) -> str:
        """The remedy's name, and behind it how `b_dec` learns, unless it learns as usual: "median_frozen". Settings
        that have no name are "own".
        """
        bias = next((name for name, bias in BIASES.items() if bias == self.bias), "own")
        return self.remedy.name if bias == "learned" else f"{self.remedy.name}_{bias}"

    def __str__(self) -> str:
        return self.name


def candidates_by_name(layer: Layer, names: Sequence[str] = USUAL, *, seed: int = 0) -> list[Candidate]:
    """Candidates by their names: `none`, `mean`, `median` or `whiten_ALPHA`, and behind it `_slow`, `_frozen` or
    `_decoder` for a `b_dec` that learns so. layer: the training tokens; seed: chooses the statistics' sample.

    Raises InputError for another name, and for an ALPHA outside [0, 1].
    """
    return [_candidate_of(layer, name, seed) for name in names]


def parts_of(name: str) -> tuple[str, str]:
    """(the remedy's name, that of how `b_dec` learns) from the name of a candidate."""
    remedy, _, bias = name.rpartition("_")
    return (remedy, bias) if bias in BIASES else (name, "learned")


def _candidate_of(layer: Layer, name: str, seed: int) -> Candidate:
    start, bias = parts_of(name)
    kind, _, number = start.partition("_")
    try:
        alpha = float(number) if kind == "whiten" else 0.0
    except ValueError:
        kind = ""
    if kind not in ("none", "mean", "median", "whiten") or (number and kind != "whiten"):
        raise InputError(
            "candidates: expected none, mean, median or whiten_ALPHA, with or without _slow, _frozen or _decoder "
            f"behind it, got {name!r}; pass a Candidate of your own instead"
        )
    remedy = layer.start("zero" if kind == "none" else kind, alpha=alpha, seed=seed)
    return Candidate(remedy=remedy, bias=BIASES[bias])
