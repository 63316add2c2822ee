"""What must be the same for a member of a sweep to go on where it broke off: its settings, and its SAE's shapes."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from hashlib import sha256
from typing import Any

from autopsae.sae.model import SAE
from autopsae.training.bias import OLD_BIAS_RATE, bias_of_rate
from autopsae.training.config import TrainConfig
from autopsae.training.ranks import OF_ALL
from autopsae.training.sources import Member

WITHOUT_EFFECT = ("products",)
"""Settings that change how fast a training is, and not what comes of it."""


def terms(member: Member, d_sae: int | None = None) -> dict[str, Any]:
    """What must be the same for a member to go on. d_sae: the number of latents of all ranks, where the member has
    those of one; None where it has all.
    """
    shift = member.shift
    digest = None if shift is None else sha256(shift.detach().cpu().double().numpy().tobytes()).hexdigest()
    return {"settings": {**_settings(member.config), "shift": digest}, "sae": _shapes(member.sae, d_sae)}


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a saved member, by their names of now; one that there was not yet is at its default."""
    settings = dict(settings)
    b_dec_lr = settings.pop(OLD_BIAS_RATE, "None")
    if b_dec_lr != "None":
        settings["bias"] = repr(bias_of_rate(float(b_dec_lr), lr=float(settings["lr"])))
    defaults = {one.name: repr(one.default) for one in fields(TrainConfig) if one.default is not MISSING}
    return defaults | {**settings} | dict.fromkeys(WITHOUT_EFFECT, "any")


def _settings(config: TrainConfig) -> dict[str, str]:
    """How many steps it shall last matters only to a decay, and to a resampling that ends with the training."""
    settings = {one.name: repr(getattr(config, one.name)) for one in fields(config)}
    settings |= dict.fromkeys(WITHOUT_EFFECT, "any")
    resampling_ends = config.resampling is not None and config.last_resampling() != config.resampling.until_step
    if config.decay_steps == 0 and not resampling_ends:
        settings["steps"] = "any"
    return settings


def _shapes(sae: SAE, d_sae: int | None) -> str:
    shapes = {name: list(tensor.shape) for name, tensor in sae.state_dict().items()}
    for name, shape in shapes.items():
        if name not in OF_ALL:
            shape[0] = shape[0] if d_sae is None else d_sae
    return f"{sae.sparsity!r}, layer_norm {sae.layer_norm}, {sae.W_enc.dtype}, {shapes}"
