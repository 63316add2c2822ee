"""A training run in one file, so that a kill at any moment leaves either the old checkpoint or the new one."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import differing, write_whole
from autopsae.sae.model import SAE
from autopsae.training.config import TrainConfig
from autopsae.training.data import Place

FORMAT = "autopsae-checkpoint"


def save_checkpoint(
    path: str | Path,
    *,
    step: int,
    config: TrainConfig,
    sae: SAE,
    optimizer: torch.optim.Optimizer,
    place: Place,
    counters: Mapping[str, Tensor],
) -> None:
    """Write everything that the next step depends on. counters: what else the run keeps, by name."""
    tensors = {f"sae.{name}": tensor for name, tensor in sae.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors |= {f"counters.{name}": tensor for name, tensor in counters.items()}
    tensors |= {"place.held": place.held, "place.generator": place.generator}
    about = {"format": FORMAT, "version": 1, "step": step, "settings": _settings(config), "sae": _described(sae)}
    about["scale"] = sae.scale
    about |= {"buffers": place.buffers, "batches": place.batches}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, lambda temporary: save_file(stored, temporary, {"about": json.dumps(about)}))


def load_checkpoint(
    path: str | Path,
    *,
    config: TrainConfig,
    sae: SAE,
    optimizer: torch.optim.Optimizer,
    counters: Mapping[str, Tensor],
) -> tuple[int, Place]:
    """(the next step, the place in the stream); SAE, optimizer and counters are filled in place, and not touched
    unless all fits.

    Raises InputError for a file that is no whole checkpoint, or one of another SAE or with other settings; the
    number of steps may be another one, unless there is a decay.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step = _checked(path, about, config, sae)
        place = Place(
            buffers=about["buffers"],
            batches=about["batches"],
            held=tensors["place.held"],
            generator=tensors["place.generator"],
        )
        restored = optimizer.state_dict()
        restored["state"] = _nested(_under("optimizer", tensors))
        scale = float(about["scale"])  # measured on the tokens, so its last bit depends on the machine
        found = {name: tensors[f"counters.{name}"] for name in counters}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected a checkpoint, could not read it ({error!r}); start afresh") from error
    sae.load_state_dict(_under("sae", tensors))
    sae.scale = scale
    optimizer.load_state_dict(restored)
    for name, tensor in found.items():
        counters[name].copy_(tensor)
    return step, place


def _checked(path: str | Path, about: dict[str, object], config: TrainConfig, sae: SAE) -> int:
    if (about["format"], about["version"]) != (FORMAT, 1):
        raise InputError(f"{path}: expected {FORMAT} version 1, got {about['format']} {about['version']}")
    step = int(str(about["step"]))
    if about["sae"] != _described(sae):
        raise InputError(f"{path}: expected a checkpoint of {_described(sae)}, got one of {about['sae']}")
    before, now = about["settings"], _settings(config)
    assert isinstance(before, dict)
    changed = [f"{name} {before.get(name)}, got {now.get(name)}" for name in differing(before, now)]
    if changed:
        raise InputError(f"{path}: expected the settings it was written under: {'; '.join(changed)}")
    return step


def _settings(config: TrainConfig) -> dict[str, str]:
    """What must be the same for a run to go on; how long it shall last matters to a decay alone."""
    settings = {field.name: repr(getattr(config, field.name)) for field in fields(config)}
    if config.decay_steps == 0:
        settings["steps"] = "any"
    return settings


def _described(sae: SAE) -> str:
    shapes = {name: list(tensor.shape) for name, tensor in sae.state_dict().items()}
    return f"{sae.sparsity!r}, layer_norm {sae.layer_norm}, {sae.W_enc.dtype}, {shapes}"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def _nested(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        found.setdefault(int(number), {})[key] = tensor
    return found
