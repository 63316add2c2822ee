"""From expected death to what to change: the least intrusive remedy under which few are born dead or will die."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.defaults import ACCEPTABLE
from autopsae.files import pair_files
from autopsae.kinds import anything, fields, flag, nothing_or, number, one_of, text, whole
from autopsae.remedies.affine import Affine, check_inverse
from autopsae.remedies.remedy import Remedy
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import SPARSITIES, Sparsity, TopK, read_sparsity
from autopsae.saved import Layout, check_tensors, load_pair, save_pair
from autopsae.survival.outlook import Outlook
from autopsae.tables import Result
from autopsae.training.bias import BIASES, Bias
from autopsae.words import printable

DOMINATED = 0.9
"""Share of the variance in one direction over which a little whitening is prescribed in any case."""

LOPSIDED = 0.6
"""Share of the variance in one direction over which latents die in training unless they are used evenly."""

EVEN = 0.52
"""Usage at birth that is even enough there. docs/forecast.md has the evidence for the three."""

PAPER_RANK = 0.015
"""Effective rank / d_in under which the paper whitens (App. E, Table S8)."""

FORMAT = "autopsae-prescription"

UNNAMED = ("", "layer")
"""What the layer of a prescription is called where whoever diagnosed it gave no name."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prescription(Result):
    """What to change on a layer before training an SAE on it, and why; all that `born` needs."""

    remedy: Remedy
    """What to change; its name is "none" where nothing is."""
    reason: str
    """Why this one."""
    layer: str
    """The layer's name; "layer" where whoever diagnosed it gave none."""
    d_sae: int
    """Latents of the SAE that it was made for."""
    sparsity: Sparsity
    """Of that SAE."""
    scale: float | None = None
    """Of the layer (`View.scale`), at which the median token has the norm sqrt(d_in) in the SAE; None in files of
    the first version, with which `born` needs a sample."""
    bias: Bias = BIASES["learned"]
    """How `b_dec` shall learn: pass it to `TrainConfig`. Only a trial prescribes another way than the usual one."""

    @property
    def d_in(self) -> int:
        """Dimensions of a token."""
        return len(self.b_dec)

    @property
    def b_dec(self) -> Float[Tensor, "d_in"]:
        """The centre, in the space of the raw activations: what `b_dec` should start from."""
        return self.remedy.affine.center

    def made_for(self) -> dict[str, Any]:
        """The layer and the SAE that it was made for, by name."""
        return {
            "remedy": self.remedy.name,
            "layer": self.layer,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "k": self.sparsity.l0,
            "sparsity": self.sparsity.name,
        }

    def differences(self, sae: SAE, *, layer: str = "") -> list[str]:
        """In what an SAE that was born from it is not the one that it was made for: "d_sae 128, here 64".

        What a diagnosis found for one layer, d_sae or sparsity need not hold for another. Every setting of the
        sparsity is compared; for another sparsity, the settings that both have. layer: on which the SAE is trained;
        layers without a name are not compared.
        """
        intended = {"layer": self.layer, "d_sae": self.d_sae, **_settings(self.sparsity)}
        here = {"layer": layer, "d_sae": sae.d_sae, **_settings(sae.sparsity)}
        compared = [name for name in intended if name in here]
        if not layer or self.layer in UNNAMED:
            compared.remove("layer")
        return [f"{n} {intended[n]!r}, here {here[n]!r}" for n in compared if intended[n] != here[n]]

    def save(self, path: str | Path) -> None:
        """Write `path`.json (words and numbers) and `path`.safetensors (tensors), each whole or not at all."""
        affine = self.remedy.affine
        content = {
            "remedy": self.remedy.name,
            "instruction": self.remedy.instruction,
            "reason": self.reason,
            "layer": self.layer,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "k": self.sparsity.l0,
            "sparsity": self.sparsity.to_dict(),
            "scale": self.scale,
            # Versions without it can read all others.
            **({} if self.bias == BIASES["learned"] else {"bias": asdict(self.bias)}),
        }
        tensors = {
            "center": affine.center,
            "linear": affine.linear,
            "inverse": affine.inverse,
            "subspace": self.remedy.subspace,
        }
        save_pair(path, format=FORMAT, content=content, tensors=tensors)

    @staticmethod
    def load(path: str | Path) -> "Prescription":
        """Read what `save` wrote; `path` with or without a suffix.

        Raises InputError for a pair that is missing, foreign or damaged, as `load_pair`; for words, numbers or
        tensors of another type or shape, NaN and infinite values; and for maps that do not undo each other.
        """
        content, tensors = load_pair(path, format=FORMAT, kind=_content)
        described, stored = pair_files(path)
        d_in = content["d_in"]
        rank = len(tensors["subspace"]) if "subspace" in tensors and tensors["subspace"].ndim else 0
        square = Layout(shape=(d_in, d_in), needed=False)
        rows = Layout(shape=(min(max(rank, 1), d_in), d_in), needed=False)
        layouts = {"center": Layout(shape=(d_in,)), "linear": square, "inverse": square, "subspace": rows}
        check_tensors(stored, tensors, layouts)
        linear, inverse, subspace = (tensors.get(name) for name in ("linear", "inverse", "subspace"))
        check_inverse(linear, inverse, str(stored))
        _check_orthonormal(subspace, stored)
        affine = Affine(center=tensors["center"], linear=linear, inverse=inverse)
        return Prescription(
            remedy=Remedy(
                name=content["remedy"],
                instruction=content["instruction" if "instruction" in content else "advice"],
                affine=affine,
                subspace=subspace,
            ),
            reason=content["reason"],
            layer=content["layer"],
            d_sae=content["d_sae"],
            sparsity=_sparsity(content, described),
            scale=content.get("scale"),
            bias=Bias(**content.get("bias", {})),
        )

    def __str__(self) -> str:
        return f"{printable(self.layer)}: {self.remedy.instruction}: {self.reason}"


# `Bias` refuses the numbers that it cannot have.
_BIAS = fields(
    {"lr_fraction": number(), "decoder_only": flag, "from_step": whole(0), "until_step": nothing_or(whole())}
)


def _content(content: object) -> str | None:
    """The kind of a prescription's JSON. Files of the first version were for TopK, and said k alone."""
    first = isinstance(content, dict) and "sparsity" not in content
    words = ("remedy", "advice" if first else "instruction", "reason", "layer")
    needed = dict.fromkeys(words, text) | dict.fromkeys(("d_in", "d_sae"), whole())
    if first:
        return fields({**needed, "k": whole()})(content)
    named = fields({"name": one_of(*SPARSITIES)}, others=anything)
    told = {**needed, "k": nothing_or(whole()), "sparsity": named, "scale": nothing_or(number(over=0.0))}
    return fields(told, optional={"bias": _BIAS})(content)


def _settings(sparsity: Sparsity) -> dict[str, Any]:
    """Its settings by their names, then its own name as "sparsity"."""
    settings = sparsity.to_dict()
    name = settings.pop("name")
    return {**settings, "sparsity": name}


def _sparsity(content: Mapping[str, Any], described: Path) -> Sparsity:
    described_as = content.get("sparsity", {"name": TopK.name, "k": content["k"]})
    return read_sparsity(described, described_as, content["d_sae"])


def _check_orthonormal(rows: Tensor | None, stored: Path) -> None:
    if rows is None:
        return
    exact = rows.double()
    if not bool(((exact @ exact.T - torch.eye(len(rows))).abs() <= len(rows) ** 0.5 * 0.01).all()):
        raise InputError(f"{stored}: subspace: expected orthonormal rows, got others; save it again")


def prescribe(
    expected: Mapping[str, Outlook],
    remedies: Sequence[Remedy],
    *,
    layer: str,
    d_sae: int,
    sparsity: Sparsity,
    acceptable: float = ACCEPTABLE,
) -> Prescription:
    """The first of `remedies` (ordered from the least intrusive) that suffices: at most `acceptable` of the latents
    are expected dead, and the others are expected to survive training. Where none does, the most evenly used of
    those that leave so few dead, or the one that leaves the fewest. Remedies without an expectation
    are passed over.
    """
    remedies = [remedy for remedy in remedies if remedy.name in expected]
    remedy = next((remedy for remedy in remedies if suffices(remedy, expected[remedy.name], acceptable)), None)
    enough = remedy is not None
    if remedy is None:
        remedy = min(remedies, key=lambda remedy: _shortfall(expected[remedy.name], acceptable))
    passed_over = {r.name: expected[r.name] for r in remedies[: remedies.index(remedy)]}
    return Prescription(
        remedy=remedy,
        reason=_reason(expected[remedy.name], passed_over, d_sae, acceptable, enough=enough),
        layer=layer,
        d_sae=d_sae,
        sparsity=sparsity,
    )


def paper_rule(effective_rank_fraction: float) -> str:
    """The remedy that the paper would prescribe, to stand beside ours: center by the geometric median, and whiten
    where few directions carry the variance.
    """
    return "whiten" if effective_rank_fraction < PAPER_RANK else "median"


def suffices(remedy: Remedy, outlook: Outlook, acceptable: float) -> bool:
    """Few latents are born dead, and few are expected to die in training."""
    return outlook.dead.value <= acceptable and _survives(remedy, outlook)


def _survives(remedy: Remedy, outlook: Outlook) -> bool:
    """Where one direction holds most of the variance, training turns the latents that fire towards it, and those
    that seldom fire are outdone. Whitening leaves it less.
    """
    if outlook.dominance > DOMINATED and remedy.affine.linear is None:
        return False
    return outlook.dominance <= LOPSIDED or outlook.usage >= EVEN


def _shortfall(outlook: Outlook, acceptable: float) -> tuple[float, float]:
    """Less is better: first the dead past the accepted ones, then uneven use."""
    return max(0.0, outlook.dead.value - acceptable), -outlook.usage


def _reason(
    outlook: Outlook, passed_over: Mapping[str, Outlook], d_sae: int, acceptable: float, *, enough: bool
) -> str:
    """`passed_over`: what the less intrusive remedies would leave."""
    dead = outlook.dead
    interval = f"{dead.value:.1%} ({dead.low:.1%} to {dead.high:.1%})"
    leaves = (
        f"leaves {interval} of {d_sae:,} latents dead on {outlook.tokens:,} tokens, {_describe_training(outlook)}"
    )
    if not enough:
        return (
            f"{leaves}; no remedy suffices for {acceptable:.1%} dead and survival in training, this one is nearest"
        )
    if not passed_over:
        return f"{leaves}: at most {acceptable:.1%}, and they are expected to survive training"
    left = ", ".join(f"{name} {o.dead.value:.1%} ({_describe_training(o)})" for name, o in passed_over.items())
    return (
        f"{leaves}; the less intrusive leave over {acceptable:.1%} or are not expected to survive training: {left}"
    )


def _describe_training(outlook: Outlook) -> str:
    """What survival in training is judged by."""
    return f"usage {outlook.usage:.0%}, {outlook.dominance:.0%} of the variance in one direction"
