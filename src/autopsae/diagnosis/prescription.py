"""What a diagnosis or a trial prescribes for a layer: an object that `born` takes, and a pair of files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import pair_files
from autopsae.kinds import anything, fields, flag, nothing_or, number, one_of, text, whole
from autopsae.remedies.affine import Affine, check_inverse
from autopsae.remedies.remedy import Remedy
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import SPARSITIES, Sparsity, TopK, read_sparsity
from autopsae.saved import Layout, check_tensors, load_pair, save_pair
from autopsae.tables import Result
from autopsae.training.bias import BIASES, Bias
from autopsae.words import printable

FORMAT = "autopsae-prescription"

_LONGER = 2.0
"""How many times as long as the training that was judged another one is no longer like it."""

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
    """How `b_dec` shall learn. Only a trial prescribes another way than the usual one."""
    encoder_scale: float = 1.0
    """What the encoder's rows are multiplied by at birth: 1, or what `fit_encoder` found. A diagnosis prescribes
    another number than 1 for short trainings alone."""
    lr_steps: float | None = None
    """Learning rate times steps of the training that it was judged for: of a trial, and of a diagnosis for a short
    training. None for one that holds for any."""

    @property
    def d_in(self) -> int:
        """Dimensions of a token."""
        return len(self.b_dec)

    @property
    def b_dec(self) -> Float[Tensor, "d_in"]:
        """The centre, in the space of the raw activations: what `b_dec` should start from."""
        return self.remedy.affine.center

    @property
    def instruction(self) -> str:
        """What to do, to be followed: "center by the median"."""
        return self.remedy.instruction + ("" if self.encoder_scale == 1 else ", and fit the encoder at birth")

    @property
    def training(self) -> dict[str, Any]:
        """Settings of `TrainConfig` that go with it: `TrainConfig(steps=..., lr=..., **prescription.training)`."""
        return {"bias": self.bias, "relative_encoder_lr": self.encoder_scale != 1}

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

    def differences(self, sae: SAE, *, layer: str = "", lr_steps: float = 0.0) -> list[str]:
        """In what an SAE that was born from it is not the one that it was made for: "d_sae 128, here 64".

        What a diagnosis found for one layer, d_sae or sparsity need not hold for another. Every setting of the
        sparsity is compared; for another sparsity, the settings that both have. layer: on which the SAE is trained;
        layers without a name are not compared. lr_steps: learning rate times steps of its training, which is named
        where it is over twice the one that was judged: latents die, and errors cross, as a training goes on.
        """
        intended = {"layer": self.layer, "d_sae": self.d_sae, **_settings(self.sparsity)}
        here = {"layer": layer, "d_sae": sae.d_sae, **_settings(sae.sparsity)}
        compared = [name for name in intended if name in here]
        if not layer or self.layer in UNNAMED:
            compared.remove("layer")
        wrong = [f"{n} {intended[n]!r}, here {here[n]!r}" for n in compared if intended[n] != here[n]]
        if self.lr_steps is not None and lr_steps > _LONGER * self.lr_steps:
            wrong.append(f"lr x steps {self.lr_steps:.3g}, here {lr_steps:.3g}")
        return wrong

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
            **({} if self.encoder_scale == 1 else {"encoder_scale": self.encoder_scale}),
            **({} if self.lr_steps is None else {"lr_steps": self.lr_steps}),
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
            encoder_scale=content.get("encoder_scale", 1.0),
            lr_steps=content.get("lr_steps"),
        )

    def __str__(self) -> str:
        return f"{printable(self.layer)}: {self.instruction}: {self.reason}"


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
    return fields(told, optional={"bias": _BIAS, "encoder_scale": number(over=0.0), "lr_steps": number(over=0.0)})(
        content
    )


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
    off = (exact @ exact.T - torch.eye(len(rows), dtype=torch.float64, device="cpu")).abs()
    if not bool((off <= len(rows) ** 0.5 * 0.01).all()):
        raise InputError(f"{stored}: subspace: expected orthonormal rows, got others; save it again")
