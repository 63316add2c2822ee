"""What a trial compares: a remedy, how `b_dec` learns after it, and how long the encoder is at birth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autopsae.arrays import InputError
from autopsae.remedies.remedy import Remedy
from autopsae.run.members import Layer
from autopsae.sae.sparsity import Sparsity
from autopsae.tables import Result
from autopsae.training.bias import BIASES, Bias
from autopsae.trial.later import Slower

USUAL = (
    *("none", "median", "median_slow", "median_frozen"),
    *("whiten_0.05_slow", "whiten_0.15_frozen", "whiten_0.3", "whiten_0.15_fitted", "whiten_0.3_fitted"),
)
"""The candidates of a trial where nothing else is asked."""

FITTED = "fitted"
"""Ends the name of a candidate with `fit_encoder`."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Candidate(Result):
    """One way to train an SAE on a layer."""

    remedy: Remedy
    """What is changed about the tokens."""
    bias: Bias = BIASES["learned"]
    """How `b_dec` learns."""
    fit_encoder: bool = False
    """Whether the SAE is `born` with `fit_encoder`, and trained with `TrainConfig.relative_encoder_lr`."""

    @property
    def name(self) -> str:
        """The remedy's name, behind it how `b_dec` learns, unless it learns as usual, and then "fitted" where the
        encoder is: "median_frozen", "whiten_0.15_fitted". A bias that has no name is "own".
        """
        bias = next((name for name, bias in BIASES.items() if bias == self.bias), "own")
        parts = [self.remedy.name, *([] if bias == "learned" else [bias]), *([FITTED] if self.fit_encoder else [])]
        return "_".join(parts)

    def __str__(self) -> str:
        return self.name


def candidates_by_name(layer: Layer, names: Sequence[str] = USUAL, *, seed: int = 0) -> list[Candidate]:
    """Candidates by their names: `none`, `mean`, `median` or `whiten_ALPHA`, behind it `_slow`, `_frozen` or
    `_decoder` for a `b_dec` that learns so, and last `_fitted` for `fit_encoder`. layer: the training tokens; seed:
    chooses the statistics' sample.

    Raises InputError for another name, and for an ALPHA outside [0, 1].
    """
    return [_candidate_of(layer, name, seed) for name in names]


def slower_of(candidates: Sequence[Candidate]) -> dict[str, Slower]:
    """Those whose `b_dec` learns slowly, by name, where another one differs from them in this alone."""
    named = {(one.remedy.name, one.bias, one.fit_encoder): one.name for one in candidates}
    slower = {}
    for one in candidates:
        full = named.get((one.remedy.name, replace(one.bias, lr_fraction=1.0), one.fit_encoder))
        if full and 0 < one.bias.lr_fraction < 1:
            slower[one.name] = Slower(than=full, fraction=one.bias.lr_fraction)
    return slower


def usual_candidates(sparsity: Sparsity) -> tuple[str, ...]:
    """The names in `USUAL`, without fitted ones where the sparsity does not fix how many latents fire."""
    return tuple(name for name in USUAL if sparsity.l0 is not None or not parts_of(name)[2])


def parts_of(name: str) -> tuple[str, str, bool]:
    """(the remedy's name, that of how `b_dec` learns, whether the encoder is fitted) from a candidate's name."""
    unfitted = name.removesuffix(f"_{FITTED}")
    remedy, _, bias = unfitted.rpartition("_")
    return (remedy, bias, unfitted != name) if bias in BIASES else (unfitted, "learned", unfitted != name)


def _candidate_of(layer: Layer, name: str, seed: int) -> Candidate:
    start, bias, fitted = parts_of(name)
    kind, _, number = start.partition("_")
    try:
        alpha = float(number) if kind == "whiten" else 0.0
    except ValueError:
        kind = ""
    if kind not in ("none", "mean", "median", "whiten") or (number and kind != "whiten"):
        raise InputError(
            "candidates: expected none, mean, median or whiten_ALPHA, with or without _slow, _frozen or _decoder, "
            f"and with or without _fitted, behind it, got {name!r}; pass a Candidate of your own instead"
        )
    remedy = layer.start("zero" if kind == "none" else kind, alpha=alpha, seed=seed)
    return Candidate(remedy=remedy, bias=BIASES[bias], fit_encoder=fitted)
