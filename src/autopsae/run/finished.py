"""Is the run in a folder finished, is it the one that is asked for, and is all of it still there?"""

import errno
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from autopsae.arrays import InputError
from autopsae.files import changes, tensors_digest
from autopsae.kinds import Kind, anything, fields, mapping_of, nothing_or, number, text, whole
from autopsae.run.same_data import KIND
from autopsae.sae.model import SAE
from autopsae.saved import as_json, load_object
from autopsae.training.bias import OLD_BIAS_RATE, Bias, bias_of_rate
from autopsae.training.config import RENAMED, TrainConfig
from autopsae.training.terms import WITHOUT_EFFECT
from autopsae.urls import refuse_url
from autopsae.words import printable, reason

BIRTH, SUMMARY = "autopsae-birth", "autopsae-summary"

_NUMBERS = mapping_of(nothing_or(number()))
_ENDED: dict[str, Kind] = {
    "birth": _NUMBERS,
    "scale": number(over=0.0),
    "diverged": nothing_or(text),
    "steps": whole(0),
    "training": mapping_of(anything),
}
_MEASURED: dict[str, Kind] = dict.fromkeys(("dead", "dead_by_relu", "dead_by_topk", "mse_raw", "l0"), number())
_MEASURED["fvu_raw"] = nothing_or(number())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What tells a run from others before a token is read."""

    about: Mapping[str, Any]
    """What else its summary says."""
    config: TrainConfig
    """How it is trained."""


def is_present(path: Path) -> bool:
    """Is there a file or a folder of this name?

    Raises InputError for a symbolic link to nothing, as a result may lie where it led to, and where the system does
    not let one look.
    """
    try:
        path.stat()
    except OSError as error:
        if path.is_symlink() and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise InputError(
                f"{path}: expected a file or a folder, got a symbolic link to {printable(os.readlink(path), 200)}, "
                "which is not there; bring it back (is its disk mounted?), or remove the link to start afresh"
            ) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise InputError(
            f"{path}: could not look there ({reason(error)}); check the name and the rights"
        ) from error
    return True


def check_folder(path: Path) -> None:
    """InputError where `path` is there and no folder, and for a URL: a run locks its folder and goes on in it."""
    refuse_url(path, "a local folder, which can be locked", "name one on this machine, and copy it when it is done")
    if is_present(path) and not path.is_dir():
        raise InputError(f"{path}: expected a folder, or nothing yet, got a file; pass another name")


def load_finished(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The summary of a run or a member that is done; None where there is none.

    Raises InputError as `is_present` and `load_object`, for a run with other settings, and where the SAE that the
    summary tells of is not there, is damaged, or is another one.
    """
    path = out / "summary.json"
    if not is_present(path):
        return None
    summary = with_names_of_now(load_object(path, format=SUMMARY, kind=summary_kind))
    _check_settings(out, summary, settings)
    if summary["diverged"] is None:
        _check_sae(out, summary)
    return summary


def with_names_of_now(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary of the first version with the names that its numbers have now."""
    numbers = {RENAMED.get(name, name): value for name, value in summary.items()}
    birth = summary.get("birth")
    if isinstance(birth, Mapping):
        numbers["birth"] = {RENAMED.get(name, name): value for name, value in birth.items()}
    return numbers


def summary_kind(value: object) -> str | None:
    """What a summary must say: of a member that diverged, less."""
    if isinstance(value, dict):
        value = with_names_of_now(value)
    diverged = isinstance(value, dict) and value.get("diverged") is not None
    return fields(_ENDED if diverged else _ENDED | _MEASURED, others=anything)(value)


def load_begun(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a run began with; InputError where it was about something else."""
    kind = fields({"about": mapping_of(anything), "birth": _NUMBERS}, others=KIND)
    before = with_names_of_now(load_object(out / "birth.json", format=BIRTH, kind=kind))
    if changed := changes(before["about"], about):
        raise InputError(f"{out}: expected the settings that the run began with: {changed}")
    return before


def name_kinds(config: TrainConfig) -> dict[str, Any]:
    """The settings, with the names of those that are a choice of kinds."""
    parts = {name: getattr(config, name) for name in ("penalty", "revival", "resampling")}
    of_kinds = {name: part and {"name": type(part).__name__, **asdict(part)} for name, part in parts.items()}
    return {**asdict(config), **of_kinds}


def _check_settings(out: Path, summary: dict[str, Any], settings: Settings) -> None:
    load_begun(out, as_json(settings.about))
    asked = as_json(name_kinds(settings.config))
    changed = changes(_complete(summary["training"], settings.config), asked)
    if changed:
        raise InputError(f"{out}: expected the settings of the finished run in it: {changed}; pass another name")


def _complete(was: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """The settings of a summary; one that there was not yet when it was written is at its default."""
    was = dict(was)
    if OLD_BIAS_RATE in was:
        was["bias"] = asdict(bias_of_rate(was.pop(OLD_BIAS_RATE), lr=was["lr"]))
    # What has no effect is as it is asked for.
    completed = {**_defaults(config), **was, **{name: getattr(config, name) for name in WITHOUT_EFFECT}}
    for name, value in completed.items():
        part = getattr(config, name, None)
        if part is not None and isinstance(value, Mapping) and value.get("name") == type(part).__name__:
            completed[name] = {**_defaults(part), **value}
    return completed


def _defaults(part: Any) -> dict[str, Any]:
    """Of the settings that have one."""
    defaults: dict[str, Any] = as_json(
        {f.name: _plain(f.default) for f in fields_of(part) if f.default is not MISSING}
    )
    return defaults


def _plain(default: Any) -> Any:
    """A default as `asdict` gives it."""
    return asdict(default) if isinstance(default, Bias) else default


def _check_sae(out: Path, summary: dict[str, Any]) -> None:
    try:
        digest = tensors_digest(SAE.load(out / "sae").state_dict())
        # Versions before 0.1.0 did not write it.
        if digest != summary.get("sae_sha256", digest):
            raise InputError(f"{out / 'sae.safetensors'}: another SAE than the one that was trained here")
    except InputError as error:
        raise InputError(
            f"{out}: expected the SAE that the summary.json of this finished run tells of, but {error}; put "
            f"it back from a copy, or remove {out / 'summary.json'} and resume to train it again"
        ) from error
