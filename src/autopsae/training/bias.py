"""How the bias of the decoder, `b_dec`, learns: at which rate, where it acts, and in which steps."""

from dataclasses import dataclass
from math import isfinite

from autopsae.arguments import whole_fields
from autopsae.arrays import InputError


@dataclass(frozen=True, kw_only=True)
class Bias:
    """How `b_dec` learns: by default at the learning rate of all other weights, and in every step.

    An SAE subtracts `b_dec` before the encoder and adds it after the decoder, so a `b_dec` that learns moves the
    point from which all latents see the tokens. docs/bias.md measures what each setting does.

    Raises InputError for a fraction that is negative or not finite, and for steps that do not rise.
    """

    lr_fraction: float = 1.0
    """Learning rate of `b_dec`, as a fraction of that of the other weights: 0 keeps it where it starts, which is
    the centre of the remedy."""
    decoder_only: bool = False
    """True: the encoder goes on subtracting the `b_dec` that training begins with (it becomes `SAE.b_pre`), and
    what `b_dec` learns acts after the decoder alone. This stays so in later trainings of the SAE."""
    from_step: int = 0
    """Number of first steps in which `b_dec` stays as it is."""
    until_step: int | None = None
    """Number of first steps after which `b_dec` stays as it is. None for never."""

    def __post_init__(self) -> None:
        whole_fields(self, "from_step", "until_step")
        if not (isfinite(self.lr_fraction) and self.lr_fraction >= 0):
            raise InputError(f"Bias: expected lr_fraction >= 0 and finite, got {self.lr_fraction}")
        if self.from_step < 0 or (self.until_step is not None and self.until_step <= self.from_step):
            raise InputError(
                f"Bias: expected 0 <= from_step < until_step, got {self.from_step} and {self.until_step}; "
                "lr_fraction=0 keeps b_dec as it is in all steps"
            )

    def learns(self, step: int) -> bool:
        """Whether `b_dec` learns in a step (from 0)."""
        within = self.from_step <= step and (self.until_step is None or step < self.until_step)
        return within and self.lr_fraction > 0


OLD_BIAS_RATE = "b_dec_lr"
"""The setting of earlier versions: the learning rate of `b_dec` itself, None for that of the others."""


def bias_of_rate(b_dec_lr: float | None, *, lr: float) -> Bias:
    """What the setting `b_dec_lr` of a file of an earlier version is now."""
    return Bias() if b_dec_lr is None else Bias(lr_fraction=b_dec_lr / lr)


SLOW = 0.1
"""`lr_fraction` of the way "slow"."""

BIASES = {
    "learned": Bias(),
    "slow": Bias(lr_fraction=SLOW),
    "frozen": Bias(lr_fraction=0.0),
    "decoder": Bias(decoder_only=True),
}
"""{name: the way in which `b_dec` learns}, for options and tables."""
