"""A sweep of training runs in one file, so that a kill at any moment leaves the old checkpoint or the new one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import changes, write_whole
from autopsae.passes import Digest
from autopsae.sae.model import SAE
from autopsae.training.config import TrainConfig
from autopsae.training.data import Place
from autopsae.training.sources import Member

FORMAT, VERSION = "autopsae-checkpoint", 2


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Everything besides the SAEs that the next step depends on."""

    step: int
    """The next one."""
    diverged: dict[int, str]
    """What befell the members whose loss was not finite, by their place."""
    stopped: set[int]
    places: list[Place]
    stream_of_member: list[int]
    """Which of the places each member that goes on is at."""
    tensors: Mapping[str, Tensor]


def save_checkpoint(path: str | Path, state: State, members: Sequence[Member]) -> None:
    """Write the state and the members' SAEs."""
    tensors = {f"state.{name}": tensor for name, tensor in state.tensors.items()}
    for m, member in enumerate(members):
        tensors |= {f"sae.{m}.{name}": tensor for name, tensor in member.sae.state_dict().items()}
    for p, place in enumerate(state.places):
        tensors |= {f"place.{p}.held": place.held, f"place.{p}.generator": place.generator}
    about = {
        "format": FORMAT,
        "version": VERSION,
        "step": state.step,
        "diverged": state.diverged,
        "stopped": sorted(state.stopped),
        "tensors": list(state.tensors),
        "stream_of_member": state.stream_of_member,
        "places": [
            {
                "buffers": place.buffers,
                "batches": place.batches,
                "read": asdict(place.read),
                "epoch": None if place.epoch is None else asdict(place.epoch),
            }
            for place in state.places
        ],
        "members": [terms(member) for member in members],
        "scales": [member.sae.scale for member in members],
    }
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, lambda temporary: save_file(stored, temporary, {"about": json.dumps(about)}))


Saved = tuple[dict[str, Tensor], float]
"""An SAE's state dict, and its scale: measured on the tokens, so that its last bits depend on the machine."""


def load_checkpoint(
    path: str | Path, members: Sequence[Member], stream_of_member: Sequence[int]
) -> tuple[State, list[Saved]]:
    """(the state, what is to be loaded into the members' SAEs). stream_of_member: of all members, to be compared.

    Raises InputError for a file that is no whole checkpoint, or one of other SAEs or with other settings; the
    number of steps may be another one, unless there is a decay.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check(path, about, members)
        state = State(
            step=int(about["step"]),
            diverged={int(m): message for m, message in about["diverged"].items()},
            stopped={*about["stopped"]},
            places=[_place(p, place, tensors) for p, place in enumerate(about["places"])],
            stream_of_member=about["stream_of_member"],
            tensors={name: tensors[f"state.{name}"] for name in about["tensors"]},
        )
        weights = [_under(f"sae.{m}", tensors, {*member.sae.state_dict()}) for m, member in enumerate(members)]
        scales = [float(about["scales"][m]) for m in range(len(members))]
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected a checkpoint, could not read it ({error!r}); start afresh") from error
    _check_streams(path, state, stream_of_member)
    return state, list(zip(weights, scales, strict=True))


def _check(path: str | Path, about: dict[str, Any], members: Sequence[Member]) -> None:
    if (about["format"], about["version"]) != (FORMAT, VERSION):
        raise InputError(f"{path}: expected {FORMAT} version {VERSION}, got {about['format']} {about['version']}")
    before, now = about["members"], [terms(member) for member in members]
    if len(before) != len(now):
        raise InputError(f"{path}: expected a checkpoint of {len(now)} SAEs, got one of {len(before)}")
    for was, described in zip(before, now, strict=True):
        if was["sae"] != described["sae"]:
            raise InputError(f"{path}: expected a checkpoint of {described['sae']}, got one of {was['sae']}")
        changed = changes(was["settings"], described["settings"])
        if changed:
            raise InputError(f"{path}: expected the settings it was written under: {changed}")


def _check_streams(path: str | Path, state: State, stream_of_member: Sequence[int]) -> None:
    gone = {*state.diverged, *state.stopped}
    going_on = [stream for m, stream in enumerate(stream_of_member) if m not in gone]
    number = {stream: i for i, stream in enumerate(dict.fromkeys(going_on))}
    if [number[stream] for stream in going_on] != state.stream_of_member:
        raise InputError(
            f"{path}: expected members that share their tokens as before ({state.stream_of_member}, a number for "
            f"each stream), got {going_on}; pass the same tokens object to those that shared it"
        )


def terms(member: Member) -> dict[str, Any]:
    """What must be the same for a member to go on."""
    shift = member.shift
    digest = None if shift is None else sha256(shift.detach().cpu().double().numpy().tobytes()).hexdigest()
    return {"settings": {**_settings(member.config), "shift": digest}, "sae": _shapes(member.sae)}


def _settings(config: TrainConfig) -> dict[str, str]:
    """How long it shall last matters to a decay alone."""
    settings = {field.name: repr(getattr(config, field.name)) for field in fields(config)}
    if config.decay_steps == 0:
        settings["steps"] = "any"
    return settings


def _shapes(sae: SAE) -> str:
    shapes = {name: list(tensor.shape) for name, tensor in sae.state_dict().items()}
    return f"{sae.sparsity!r}, layer_norm {sae.layer_norm}, {sae.W_enc.dtype}, {shapes}"


def _place(number: int, saved: dict[str, Any], tensors: Mapping[str, Tensor]) -> Place:
    return Place(
        buffers=saved["buffers"],
        batches=saved["batches"],
        held=tensors[f"place.{number}.held"],
        generator=tensors[f"place.{number}.generator"],
        read=Digest(**saved["read"]),
        epoch=None if saved["epoch"] is None else Digest(**saved["epoch"]),
    )


def _under(prefix: str, tensors: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    return {name: tensors[f"{prefix}.{name}"] for name in names}
