"""From expected death to what to change: the least intrusive remedy under which few latents are born dead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from autopsae.files import load_pair, save_pair
from autopsae.remedies.affine import Affine
from autopsae.remedies.remedy import Remedy
from autopsae.survival.forecast import Expected, Outlook

ACCEPTABLE = 0.01
"""Fraction of latents that may be born dead before something is prescribed."""

FORMAT = "autopsae-prescription"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prescription:
    """What to change on a layer before training an SAE on it, and why.

    remedy: its name, "none" where nothing is to be changed; advice: the same as an instruction; reason: why this
    one; layer, d_in, d_sae, k: what it
    was measured for; affine: what the tokens pass through (its centre is the start of `b_dec`); subspace: the
    directions in which the SAE's rows begin (active subspace initialisation), or None.
    """

    remedy: str
    advice: str
    reason: str
    layer: str
    d_sae: int
    k: int
    affine: Affine
    subspace: Float[Tensor, "rank d_in"] | None = None

    @property
    def d_in(self) -> int:
        return len(self.affine.center)

    @property
    def b_dec(self) -> Float[Tensor, "d_in"]:
        """The centre, in the space of the raw activations: what `b_dec` should start from."""
        return self.affine.center

    def save(self, path: str | Path) -> None:
        """Write `path`.json (words and numbers) and `path`.safetensors (tensors), each whole or not at all."""
        save_pair(
            path,
            format=FORMAT,
            content={
                "remedy": self.remedy,
                "advice": self.advice,
                "reason": self.reason,
                "layer": self.layer,
                "d_in": self.d_in,
                "d_sae": self.d_sae,
                "k": self.k,
            },
            tensors={
                "center": self.affine.center,
                "linear": self.affine.linear,
                "inverse": self.affine.inverse,
                "subspace": self.subspace,
            },
        )

    @staticmethod
    def load(path: str | Path) -> "Prescription":
        """Read what `save` wrote; `path` with or without a suffix. Raises InputError as `load_pair`."""
        names = ("remedy", "advice", "reason", "layer", "d_sae", "k")
        content, tensors = load_pair(path, format=FORMAT, content=names, tensors=["center"])
        return Prescription(
            **{name: content[name] for name in names},
            affine=Affine(center=tensors["center"], linear=tensors.get("linear"), inverse=tensors.get("inverse")),
            subspace=tensors.get("subspace"),
        )


def prescribe(
    expected: Mapping[str, Outlook],
    remedies: Sequence[Remedy],
    *,
    layer: str,
    d_sae: int,
    k: int,
    acceptable: float = ACCEPTABLE,
) -> Prescription:
    """The first of `remedies` (ordered from the least intrusive) whose expected death is at most `acceptable`, or,
    where none is, the one with the fewest dead; remedies without an expectation are passed over.
    """
    remedies = [remedy for remedy in remedies if remedy.name in expected]
    dead = {remedy.name: expected[remedy.name].dead for remedy in remedies}
    chosen = next((remedy for remedy in remedies if dead[remedy.name].value <= acceptable), None)
    remedy = chosen or min(remedies, key=lambda remedy: dead[remedy.name].value)
    left_over = {r.name: dead[r.name].value for r in remedies[: remedies.index(remedy)]}
    tokens = expected[remedy.name].tokens
    return Prescription(
        remedy=remedy.name,
        advice=remedy.advice,
        reason=_reason(dead[remedy.name], left_over, d_sae, tokens, acceptable, enough=chosen is not None),
        layer=layer,
        d_sae=d_sae,
        k=k,
        affine=remedy.affine,
        subspace=remedy.subspace,
    )


def _reason(
    dead: Expected, left_over: Mapping[str, float], d_sae: int, tokens: int, acceptable: float, *, enough: bool
) -> str:
    """`left_over`: death under the less intrusive remedies, which were passed over."""
    interval = f"{dead.value:.1%} ({dead.low:.1%} to {dead.high:.1%})"
    leaves = f"leaves {interval} of {d_sae:,} latents dead on {tokens:,} tokens"
    if not enough:
        return f"{leaves}; no remedy reaches {acceptable:.1%}, this one comes nearest"
    if not left_over:
        return f"{leaves}, at most {acceptable:.1%}"
    passed_over = ", ".join(f"{name} {other:.1%}" for name, other in left_over.items())
    return f"{leaves}; the less intrusive leave over {acceptable:.1%}: {passed_over}"
