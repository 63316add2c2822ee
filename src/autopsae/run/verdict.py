"""Is the result of a run one that training should give? What must be said of it where it is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from autopsae.evaluation.reconstruction import Evaluation
from autopsae.training.config import TrainConfig
from autopsae.training.revival import resampling_until
from autopsae.words import fvu_text

MEAN = 1.0
"""FVU of predicting the mean of the tokens: an SAE over it explains nothing."""

ABSURD = 1e4
"""How many times worse than both the mean and the SAE at birth a result is where training has diverged: its errors
are then a hundred times as long as theirs. Measured against birth too, as an SAE that starts far from the tokens
(b_dec = 0 at gamma 100 and more) may be as far off without having diverged.
"""


def divergence(end: Evaluation, birth: Mapping[str, Any], *, steps: int, lr: float) -> str | None:
    """What befell a run whose error on held-out tokens is not finite, or absurdly large; None for any other, and
    for held-out tokens that do not differ, against which nothing is large.

    birth: the same numbers before training, None where they were not finite.
    """
    advice = f"lower the learning rate ({lr:g})"
    fvu = end.fvu_raw
    if not (isfinite(end.mse_raw) and (fvu is None or isfinite(fvu))):
        return f"step {steps - 1}: the error on held-out tokens is not finite; {advice}"
    born = birth["fvu_raw"]
    if fvu is None or fvu <= ABSURD * max(MEAN, born or 0.0):
        return None
    before = "not finite" if born is None else fvu_text(born)
    return (
        f"step {steps - 1}: the raw FVU on {end.tokens:,} held-out tokens is {fvu_text(fvu)} (predicting their "
        f"mean gives 1, and at birth it was {before}): training has diverged; {advice}"
    )


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Latents that were drawn afresh so late that the result is not what training gives."""

    latents: int
    steps_before_end: int

    @staticmethod
    def of(last: tuple[int, int], *, steps: int) -> "Resampled | None":
        """None where none were. last: as of `Training.last_resampling`; steps: how many the run had."""
        at, latents = last
        late = latents > 0 and at > resampling_until(steps)
        return Resampled(latents=latents, steps_before_end=steps - at) if late else None


def idle_resampling(config: TrainConfig, *, steps: int) -> list[str]:
    """A sentence where resampling was asked for, but no step of the run was one for it. steps: that the run had."""
    method = config.resampling
    if method is None or any(config.resamples(s) for s in range(method.every_steps - 1, steps, method.every_steps)):
        return []
    return [
        f"resampling: no latent could be drawn afresh in {steps:,} steps, as it is done every "
        f"{method.every_steps:,} steps, while no more than {config.last_resampling():,} are done; train longer, or "
        "choose another revival"
    ]


def warnings_of(end: Evaluation, birth: Mapping[str, Any], resampled: Resampled | None, *, lr: float) -> list[str]:
    """What a reader of the numbers must be told, a sentence each; none for most runs."""
    said = []
    born = birth["fvu_raw"]
    if end.fvu_raw is None:
        said.append(
            f"no FVU: the {end.tokens:,} held-out tokens do not differ, so that there is no variance to explain; "
            "hold out more (--held-out), and check the source"
        )
    elif end.fvu_raw > MEAN:
        cure = f"lower the learning rate ({lr:g})" if born is not None and end.fvu_raw > born else "train longer"
        before = "" if born is None else f" (at birth: {fvu_text(born)})"
        said.append(
            f"raw FVU {fvu_text(end.fvu_raw)} on {end.tokens:,} held-out tokens{before}: worse than predicting "
            f"their mean, which gives 1; {cure}"
        )
    elif end.fvu_typical is not None and end.fvu_typical > MEAN:
        said.append(
            f"FVU {fvu_text(end.fvu_typical)} on the held-out tokens without the {end.strays:.2%} of over ten "
            "times the median norm: worse than predicting their mean, which gives 1; leave the latter out of "
            "training, or weigh them down (`without_strays`, --strays)"
        )
    if resampled is not None:
        said.append(
            f"{resampled.latents:,} latents were drawn afresh {resampled.steps_before_end:,} steps before the end, "
            "in the last tenth of the run: its numbers are not what training gives; train on, or stop resampling "
            "earlier (Resampling(until_step=...))"
        )
    return said
