"""A training run in one file, so that a kill at any moment leaves the old checkpoint or the new one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.files import changes, write_tensors
from autopsae.kernels.ranks import ALONE, Ranks
from autopsae.kernels.screen import choose_screen
from autopsae.kinds import (
    anything,
    check_kind,
    digest,
    fields,
    flag,
    list_of,
    mapping_of,
    nothing_or,
    number,
    text,
    whole,
)
from autopsae.passes import Digest
from autopsae.reading import parse
from autopsae.saved import Layout, check_tensors, input_errors_of_saved, read_tensors, tensors_checksum
from autopsae.training.data import Place
from autopsae.training.layouts import among, place_layouts, sae_layouts
from autopsae.training.rank_files import all_or_none, is_listing, read_on_ranks, save_on_ranks
from autopsae.training.ranks import latents_of_all
from autopsae.training.sources import Member
from autopsae.training.terms import terms, with_defaults
from autopsae.words import show

FORMAT, VERSION = "autopsae-checkpoint", 3
UNREADABLE = 2
"""The version that has no checksum, and says neither how its tokens were drawn nor which of them were held out."""

# What the header must say.
_ABOUT = fields(
    {
        "format": text,
        "version": whole(),
        "step": whole(0),
        "diverged": mapping_of(text),
        "stopped": list_of(whole(0)),
        "stream_of_member": list_of(whole(0)),
        "places": list_of(
            fields(
                {
                    "buffers": whole(0),
                    "batches": whole(0),
                    "read": nothing_or(digest),
                    "epoch": nothing_or(digest),
                }
            )
        ),
        "members": list_of(fields({"settings": mapping_of(nothing_or(text)), "sae": text})),
        "scales": list_of(number(over=0.0)),
        "data": mapping_of(anything),
    },
    optional={"is_screened": flag},  # the first files of this version lack it
)


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
    is_screened: bool
    """Whether latents were chosen from exact values behind a screen, or from a whole product."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What identifies the tokens, as JSON: for whoever loads it to compare."""


def save_checkpoint(path: str | Path, state: State, members: Sequence[Member], ranks: Ranks = ALONE) -> None:
    """Write the state and the members' SAEs; on several ranks, each writes the latents that it owns."""
    tensors = {f"state.{name}": tensor for name, tensor in state.tensors.items()}
    for m, member in enumerate(members):
        tensors |= {f"sae.{m}.{name}": tensor for name, tensor in member.sae.state_dict().items()}
    for p, place in enumerate(state.places):
        tensors |= {f"place.{p}.held": place.held, f"place.{p}.generator": place.generator}
    about = {
        "format": FORMAT,
        "version": VERSION,
        "step": state.step,
        "is_screened": state.is_screened,
        "diverged": state.diverged,
        "stopped": sorted(state.stopped),
        "stream_of_member": state.stream_of_member,
        "places": [
            {
                "buffers": place.buffers,
                "batches": place.batches,
                **{
                    name: digest and asdict(digest)
                    for name, digest in (("read", place.read), ("epoch", place.epoch))
                },
            }
            for place in state.places
        ],
        "members": [terms(member, latents_of_all(member.sae, ranks)) for member in members],
        "scales": [member.sae.scale for member in members],
        "data": state.data,
    }
    if not ranks.everyone.is_alone:
        save_on_ranks(path, about, tensors, ranks)
        return
    words = json.dumps(about, sort_keys=True)
    write_tensors(path, tensors, {"about": words, "sha256": tensors_checksum(words, tensors)})


Saved = tuple[dict[str, Tensor], float]
"""An SAE's state dict, and its scale: measured on the tokens, so that its last bits depend on the machine."""


def load_checkpoint(
    path: str | Path,
    members: Sequence[Member],
    stream_of_member: Sequence[int],
    layouts: Mapping[str, Layout],
    ranks: Ranks = ALONE,
) -> tuple[State, list[Saved]]:
    """(the state, what is to be loaded into the members' SAEs). stream_of_member: of all members, to be compared;
    layouts: as `layouts_of`. A checkpoint of several ranks is read on any number of them, or on one process.

    Raises InputError for a file that is no whole checkpoint, whose checksum is not that of its content, or that is
    of other SAEs or with other settings; the number of steps may be another one, unless there is a decay.
    """
    d_sae = latents_of_all(members[0].sae, ranks)
    with all_or_none(ranks.everyone):
        return _load(path, members, stream_of_member, layouts, ranks, d_sae)


def _load(
    path: str | Path,
    members: Sequence[Member],
    stream_of_member: Sequence[int],
    layouts: Mapping[str, Layout],
    ranks: Ranks,
    d_sae: int,
) -> tuple[State, list[Saved]]:
    about, tensors = _read(Path(path), ranks, d_sae)
    _check(path, about, members, d_sae)
    if about.get("is_screened") and choose_screen("float32", members[0].sae.W_enc) is None:
        raise InputError(
            f"{path}: expected to go on where it began, on a CPU with Numba, got no Numba or another device, where "
            "values differ in their last bits; pip install 'autopsae[fast]', or start afresh"
        )
    gone = {*map(int, about["diverged"]), *about["stopped"]}
    going_on = [stream for m, stream in enumerate(stream_of_member) if m not in gone]
    _check_streams(path, about, going_on)
    state_layouts = {name: among(len(going_on), name, one) for name, one in layouts.items()} if going_on else {}
    expected = {f"state.{name}": layout for name, layout in state_layouts.items()}
    check_tensors(path, tensors, expected | sae_layouts(members) | place_layouts(about, members, tensors))
    state = State(
        step=about["step"],
        diverged={int(m): message for m, message in about["diverged"].items()},
        stopped={*about["stopped"]},
        places=[_place(path, p, place, tensors) for p, place in enumerate(about["places"])],
        stream_of_member=about["stream_of_member"],
        tensors={name: tensors[f"state.{name}"] for name in state_layouts if f"state.{name}" in tensors},
        is_screened=about.get("is_screened", False),
        data=about["data"],
    )
    weights = [_under(f"sae.{m}", tensors, {*member.sae.state_dict()}) for m, member in enumerate(members)]
    return state, list(zip(weights, about["scales"], strict=True))


def complete_tensors(path: str | Path, state: State, members: Sequence[Member]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, and what the first files of this version lack but can be told from the rest.
    Raises InputError where latents may have been drawn afresh, as it cannot be told then who has ever fired.
    """
    tensors, first = dict(state.tensors), members[0].config
    if tensors and "ever_fired" not in tensors:
        if any(member.config.resampling for member in members):
            raise InputError(
                f"{path}: expected a checkpoint that says which latents have ever fired, got one of an earlier "
                "version of autopsae, in which they are resampled; go on with that version, or start afresh"
            )
        # Without resampling only firing sets the count back.
        tensors["ever_fired"] = tensors["since_fired"] < state.step * first.batch_tokens
        tensors["last_resampling"] = torch.zeros(len(members), 2, dtype=torch.int64, device="cpu")
    if tensors and "encoder_lengths" not in tensors:  # of before there was `relative_encoder_lr`
        tensors["encoder_lengths"] = torch.ones(len(tensors["since_fired"]), dtype=torch.float64, device="cpu")
    return tensors


def _read(path: Path, ranks: Ranks, d_sae: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(the header, the tensors) of a file, or of the files of several ranks, whose checksum is right."""
    if is_listing(path):
        about, tensors = read_on_ranks(path, ranks.range_of(d_sae), is_first=ranks.is_first)
        check_kind(path, about, _ABOUT)
        return about, tensors
    if not ranks.everyone.is_alone:
        raise InputError(f"{path}: expected a checkpoint of several ranks, got none; go on with one process")
    with input_errors_of_saved(path, FORMAT):
        metadata, tensors = read_tensors(path)
        about = parse(metadata.get("about", "null").encode())
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path}: expected a saved {FORMAT}, got another file; pass another name, or start afresh")
    version = about.get("version")
    if version != VERSION:
        why = " (it has no checksum, and tokens were drawn and held out otherwise)" if version == UNREADABLE else ""
        raise InputError(
            f"{path}: expected a checkpoint of version {VERSION}, got {show(version)}{why}; go on with the "
            "autopsae that wrote it, or start afresh in a new folder"
        )
    if metadata.get("sha256") != tensors_checksum(metadata["about"], tensors):
        raise InputError(
            f"{path}: expected what was saved, got other content than its checksum says: it is damaged; start "
            "afresh"
        )
    check_kind(path, about, _ABOUT)
    return about, tensors


def _check(path: str | Path, about: dict[str, Any], members: Sequence[Member], d_sae: int) -> None:
    before, now = about["members"], [terms(member, d_sae) for member in members]
    gone = [*about["diverged"], *map(str, about["stopped"])]
    if not {*gone} <= {*map(str, range(len(before)))} or len(about["scales"]) != len(before):
        raise InputError(
            f"{path}: expected members 0 to {len(before) - 1}, got {show(gone)} that ended; start afresh"
        )
    if len(before) != len(now):
        raise InputError(f"{path}: expected a checkpoint of {len(now)} SAEs, got one of {len(before)}")
    for was, described in zip(before, now, strict=True):
        if was["sae"] != described["sae"]:
            raise InputError(f"{path}: expected a checkpoint of {described['sae']}, got one of {was['sae']}")
        if was["settings"].get("products") == "'bfloat16'" and "is_screened" not in about:
            raise InputError(
                f"{path}: expected a training whose selection is exact, got one of an earlier version with inexact "
                "products in bfloat16; go on with that version, or start afresh"
            )
        before = with_defaults(was["settings"])
        # Earlier versions say so of all trainings without a decay, also where resampling now ends with them.
        same_steps = {"steps": before["steps"]} if before.get("steps") == "any" else {}
        changed = changes(before, described["settings"] | same_steps)
        if changed:
            raise InputError(f"{path}: expected the settings it was written under: {changed}")


def _check_streams(path: str | Path, about: dict[str, Any], going_on: Sequence[int]) -> None:
    number = {stream: i for i, stream in enumerate(dict.fromkeys(going_on))}
    there, asked = about["stream_of_member"], [number[stream] for stream in going_on]
    if asked != there or len(about["places"]) != len(number):
        raise InputError(
            f"{path}: expected members that share their tokens as before ({there}, a number for each stream), got "
            f"{asked}; pass the same tokens object to those that shared it"
        )


def _place(path: str | Path, number: int, saved: dict[str, Any], tensors: Mapping[str, Tensor]) -> Place:
    held, generator = tensors[f"place.{number}.held"], tensors[f"place.{number}.generator"]
    try:
        torch.Generator().set_state(generator)
    except RuntimeError as error:
        raise InputError(f"{path}: expected the state of a random generator ({error}); start afresh") from error
    read, epoch = (None if saved[name] is None else Digest(**saved[name]) for name in ("read", "epoch"))
    return Place(
        buffers=saved["buffers"], batches=saved["batches"], held=held, generator=generator, read=read, epoch=epoch
    )


def _under(prefix: str, tensors: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    return {name: tensors[f"{prefix}.{name}"] for name in names}
