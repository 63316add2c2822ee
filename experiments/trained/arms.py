"""The ways to train an SAE that are compared: how it is born, and what is set in its training.

All arms of a layer see the same tokens in the same order from the same rows (those of a seed) at the same constant
rate, without warm-up. All work at the layer's scale (`born(scaled=True)`), so that the rate means the same on every
layer; the paper does not scale. A latent that was silent for 62 batches is dead to AuxK, ghost gradients and
resampling, as the paper's 256,000 tokens are 62 of its batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from autopsae.arrays import InputError
from autopsae.sae.sparsity import Sparsity, TopK
from autopsae.training import AuxK, GhostGradients, Resampling, jumprelu_paper, relu_lindsey

BATCH = 1024
LR = 1e-3
SILENT = 62 * BATCH
"""Tokens of silence after which a latent is dead to whatever revives it."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train an SAE."""

    label: str
    """In pictures."""
    start: Literal["zero", "median", "prescription"] = "zero"
    """zero: `b_dec` at 0, as a user without a diagnosis starts; median: at the geometric median, the paper's cure;
    prescription: what `diagnose` prescribes for the layer."""
    kind: Literal["topk", "relu", "jumprelu"] = "topk"
    """relu and jumprelu have the published settings of `training.recipes`."""
    layer_norm: bool = False
    """Whether each token is normalised, and its reconstruction scaled back."""
    rate_bias: bool = False
    """Whether an encoder bias makes each latent positive on k / d_sae of the tokens at birth (Conerly et al.)."""
    revives: Literal["", "auxk", "ghost", "resampling"] = ""
    optimizer: Literal["adam", "sparse_adam"] = "adam"
    everywhere: bool = False
    """Whether it is trained on all layers of a scale, or on some alone (`plan.Scale.all_arms`)."""

    def sparsity(self, k: int, steps: int) -> Sparsity:
        """Which latents fire. k: of TopK, and the L0 that JumpReLU aims at."""
        return TopK(k=k) if self.kind == "topk" else self._recipe(k, steps).sparsity

    def birth(self, *, k: int, d_sae: int, steps: int) -> dict[str, Any]:
        """Arguments of `born`."""
        recipe = {} if self.kind == "topk" else dict(self._recipe(k, steps).birth)
        rate = {"encoder_bias": True, "firing_rate": k / d_sae} if self.rate_bias else {}
        return {"layer_norm": self.layer_norm, **recipe, **rate}

    def training(self, *, k: int, steps: int) -> dict[str, Any]:
        """Settings of `TrainConfig`, besides those that all arms have."""
        made: dict[str, Any] = {"optimizer": self.optimizer}
        if self.kind != "topk":
            made |= self._recipe(k, steps).training
        if self.revives == "auxk":
            made["revival"] = AuxK(dead_after_tokens=SILENT)
        elif self.revives == "ghost":
            made["revival"] = GhostGradients(dead_after_tokens=SILENT)
        elif self.revives == "resampling":
            every = max(1, steps // 10)
            made["resampling"] = Resampling(every_steps=every, until_step=steps // 2, dead_after_tokens=SILENT)
        return made

    def _recipe(self, k: int, steps: int) -> Any:
        return relu_lindsey(steps=steps) if self.kind == "relu" else jumprelu_paper(l0=float(k))


ARMS: Mapping[str, Arm] = {
    "baseline": Arm(label="baseline (b = 0)", everywhere=True),
    "auxk": Arm(label="AuxK", revives="auxk", everywhere=True),
    "centered": Arm(label="centered (geometric median)", start="median", everywhere=True),
    "prescribed": Arm(label="prescribed", start="prescription", everywhere=True),
    "layer norm": Arm(label="LayerNorm, scaled back", layer_norm=True, everywhere=True),
    "relu": Arm(label="ReLU", kind="relu"),
    "relu centered": Arm(label="ReLU, centered", kind="relu", start="median"),
    "jumprelu": Arm(label="JumpReLU", kind="jumprelu"),
    "jumprelu centered": Arm(label="JumpReLU, centered", kind="jumprelu", start="median"),
    "ghost": Arm(label="ghost gradients", revives="ghost"),
    "resampling": Arm(label="resampling", revives="resampling"),
    "sparse adam": Arm(label="SparseAdam", optimizer="sparse_adam"),
    "sparse adam centered": Arm(label="SparseAdam, centered", optimizer="sparse_adam", start="median"),
    "rate bias": Arm(label="target-rate encoder bias", rate_bias=True),
}
"""By name, in the order in which they are trained."""

CONTROLS = {"neurons": "raw neurons", "random rows": "random rows"}
"""What is measured without training, on the same tokens: both are centred at their mean."""
SIZED = ("baseline", "centered", "prescribed")
"""The arms of Table 1."""


def check_arms(names: list[str]) -> list[str]:
    """The names. Raises InputError for an unknown one."""
    if unknown := [name for name in names if name not in {**ARMS, **CONTROLS}]:
        raise InputError(f"arms: expected some of {', '.join([*ARMS, *CONTROLS])}, got {unknown[0]!r}")
    return names
