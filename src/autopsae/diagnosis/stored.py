"""Diagnoses as files from which they are read back whole: what one process found, for another that goes on.

`Survey.save` writes the numbers for people; here nothing is left out or rounded.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from autopsae.arrays import InputError
from autopsae.diagnosis.prescription import Prescription
from autopsae.diagnosis.result import Diagnosis
from autopsae.files import pair_files
from autopsae.kinds import anything
from autopsae.kinds import fields as kind_of_fields
from autopsae.sae.sparsity import read_sparsity
from autopsae.saved import Layout, check_tensors, load_pair, save_pair
from autopsae.words import show

FORMAT = "autopsae-layer"

_TENSORS = ("landscape", "variance_shares")
_APART = ("prescription", "sparsity", *_TENSORS)
"""Fields of a diagnosis that have a form of their own."""
_PLAIN = [field.name for field in fields(Diagnosis) if field.name not in _APART]
_KIND = kind_of_fields(dict.fromkeys([*_PLAIN, "sparsity"], anything))


def save_diagnosis(path: str | Path, diagnosis: Diagnosis) -> None:
    """Write the pairs `path`%prescription and `path`, the JSON of the latter last: where it is, all is there."""
    described, _ = pair_files(path)
    diagnosis.prescription.save(_prescription_of(described))
    content = {name: to_plain(getattr(diagnosis, name)) for name in _PLAIN}
    content["sparsity"] = diagnosis.sparsity.to_dict()
    save_pair(path, format=FORMAT, content=content, tensors={name: getattr(diagnosis, name) for name in _TENSORS})


def load_diagnosis(path: str | Path) -> Diagnosis:
    """What `save_diagnosis` wrote. Raises InputError where a file is missing or damaged, or not such a pair."""
    content, tensors = load_pair(path, format=FORMAT, kind=_KIND)
    described, stored = pair_files(path)
    hints = get_type_hints(Diagnosis)
    plain = {name: from_plain(hints[name], content[name], f"{described}: {name}") for name in _PLAIN}
    shown = len(tensors["landscape"]) if "landscape" in tensors and tensors["landscape"].ndim else 0
    check_tensors(
        stored,
        tensors,
        {"landscape": Layout(shape=(shown, plain["d_in"])), "variance_shares": Layout(shape=(plain["d_in"],))},
    )
    return Diagnosis(
        **plain,
        sparsity=read_sparsity(described, content["sparsity"], plain["d_sae"]),
        prescription=Prescription.load(_prescription_of(described)),
        landscape=tensors["landscape"],
        variance_shares=tensors["variance_shares"],
    )


def _prescription_of(described: Path) -> Path:
    """Where the prescription lies. No layer's file is called so, as % begins an escape (`activations.names`)."""
    return described.with_name(f"{described.stem}%prescription")


def to_plain(value: Any) -> Any:
    """A dataclass and all that it holds as JSON has it, to be read back by `from_plain`."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    # JSON has no NaN and no infinity.
    return {"float": repr(value)} if isinstance(value, float) and not isfinite(value) else value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """What `to_plain` made of a value of this type. Raises InputError, naming the place, for anything else."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        [kind] = [one for one in inner if one is not NoneType]
        return from_plain(kind, value, where)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        if isinstance(value, dict) and value.keys() == {field.name for field in fields(kind)}:
            return kind(**{name: from_plain(hints[name], one, f"{where}.{name}") for name, one in value.items()})
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, dict):
            return {name: from_plain(inner[1], one, f"{where}.{name}") for name, one in value.items()}
    elif origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is ... and isinstance(value, list) else inner
        if isinstance(value, list) and len(value) == len(kinds):
            return tuple(from_plain(one, v, where) for one, v in zip(kinds, value, strict=True))
    elif kind is float and isinstance(value, dict) and value.get("float") in ("nan", "inf", "-inf"):
        return float(value["float"])
    elif type(value) is kind or (kind is float and type(value) is int):
        return kind(value)
    raise InputError(f"{where}: expected {kind}, got {show(value, 60)}; make it anew")
