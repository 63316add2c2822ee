"""One door to all formats: an SAE of any library is loaded as ours, and ours is written for any of them."""

from hashlib import file_digest
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError

from autopsae.arrays import InputError
from autopsae.defaults import Format
from autopsae.disk import hold_lock
from autopsae.files import pair_files, tensors_digest, write_folder
from autopsae.interop import dictionary_learning, saelens, sparsify
from autopsae.interop.hub import HUB, fetch
from autopsae.interop.layouts import FILES, PICKLES, library_of, read_path
from autopsae.interop.releases import SAELENS, name_on_hub
from autopsae.sae.model import SAE
from autopsae.saved import read_tensors

LARGEST_WEIGHT = 1e15
"""Products of two such weights and a token still fit in float32."""


def load_sae(path: str | Path, *, scale: float | None = None, k: int | None = None) -> SAE:
    """An SAE that a library or a public suite saved, in evaluation mode, on raw tokens.

    path: the folder of an SAE, one of its files, the name of one of our pairs,
    `hf:owner/repository/folder/in/it` on the Hugging Face Hub, or `saelens:RELEASE/ID` as the installed SAELens
    calls it. The format is known by the files: SAELens,
    dictionary_learning, sparsify, Gemma Scope 1 and 2, Llama Scope, llamascopium, OpenAI's, saev's, Qwen-Scope,
    Goodfire's, autopsae (docs/files.md).
    scale: what tokens are multiplied with before the SAE. k: active latents per token. Both only for formats whose
    files may lack them.

    Raises InputError for what is none of these, what our SAE cannot express, what the files do not say, weights too
    large to compute with, and files that are damaged, hostile or do not fit together; nothing in them is run.
    """
    if scale is not None and not (isinstance(scale, float | int) and 0 < scale < LARGEST_WEIGHT):
        raise InputError(f"load_sae: expected a scale > 0 and under {LARGEST_WEIGHT:.0e}, got {scale}")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise InputError(f"load_sae: expected k >= 1, got {k}")
    told = {name: value for name, value in (("scale", scale), ("k", k)) if value is not None}
    place, factor = _place(path)
    if factor is not None and scale is None and saelens.scales_by_average(place):
        told["scale"] = factor
    sae = read_path(place, told)
    _check_magnitude(sae, path)
    return sae


def format_of(path: str | Path) -> Format:
    """The library that wrote the SAE at `path`, as `save_sae` names it; autopsae also for suites that no library of
    these writes. The files are not read.

    Raises InputError for a folder that holds no SAE or several.
    """
    library = (library_of(_place(path)[0]) or "").lower()
    return next((name for name in get_args(Format) if name == library), "autopsae")


def _place(path: str | Path) -> tuple[Path, float | None]:
    """(where the SAE lies on this machine, the factor by which SAELens' registry says that tokens are scaled)."""
    name, factor = str(path), None
    if isinstance(path, str) and name.startswith(SAELENS):
        published, factor = name_on_hub(name.removeprefix(SAELENS))
        name = HUB + published
    is_on_hub = isinstance(path, str) and name.startswith(HUB)
    return (fetch(name.removeprefix(HUB), FILES, PICKLES) if is_on_hub else Path(path)), factor


@torch.no_grad()
def _check_magnitude(sae: SAE, path: str | Path) -> None:
    """InputError for weights with which every reconstruction would be infinite."""
    weights = {
        name: getattr(sae, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec", "b_pre", "center", "linear")
    }
    sizes = {name: float(weight.abs().max()) for name, weight in weights.items() if weight is not None}
    sizes |= {"scale": sae.scale, "1 / scale": 1 / sae.scale}
    name = max(sizes, key=lambda name: sizes[name])
    if not sizes[name] < LARGEST_WEIGHT:
        raise InputError(
            f"{path}: {name}: expected weights under {LARGEST_WEIGHT:.0e}, got {sizes[name]:.1e}: reconstructions "
            "would not be finite; take an earlier checkpoint"
        )


def save_sae(
    sae: SAE, path: str | Path, *, to: str, model_name: str | None = None, hook_name: str | None = None
) -> None:
    """Write an SAE as a new folder that SAELens, dictionary_learning or sparsify loads, or as our pair; whole, or
    not at all.

    model_name, hook_name: where its tokens come from, for SAELens and dictionary_learning, which store it.
    Raises InputError where there is something at `path`, and for what the library cannot express.
    """
    named = {"model_name": model_name, "hook_name": hook_name}
    if to not in get_args(Format):
        raise InputError(f"save_sae: expected a format of {', '.join(get_args(Format))}, got {to!r}")
    if to in ("autopsae", "sparsify") and (model_name is not None or hook_name is not None):
        raise InputError(f"save_sae: expected no model_name or hook_name, as {to} has no place for them")
    if to == "saelens":
        write_folder(path, lambda folder: saelens.write(sae, folder, **named))
    elif to == "dictionary_learning":
        write_folder(path, lambda folder: dictionary_learning.write(sae, folder, **named))
    elif to == "sparsify":
        write_folder(path, lambda folder: sparsify.write(sae, folder))
    else:
        save_new(sae, path)


def save_new(sae: SAE, path: str | Path) -> None:
    """Write an SAE as our pair under a new name, or complete the pair of the same SAE of which a kill has left the
    tensors alone. A whole pair of the same SAE stays as it is, so that what was killed after it can be run again.

    Raises InputError as `check_new_pair`, where another process writes the same pair, and where what lies there is
    another SAE, or the rest of one.
    """
    described, stored = pair_files(path)
    with hold_lock(described.with_name(f".{described.name}.lock"), what=path):
        check_new_pair(path)
        if described.exists():
            if not _same(SAE.load(path), sae):
                raise InputError(_take(path))
            return
        if stored.exists():
            with stored.open("rb") as file:
                same = file_digest(file, "sha256").hexdigest() == tensors_digest(sae.state_dict())
            if not same:
                raise InputError(_take(path))
        sae.save(path)


def check_new_pair(path: str | Path) -> None:
    """InputError where anything but an autopsae SAE of this name is there, or a folder of its name, in which
    `load_sae` would look instead. A kill leaves an SAE, which `save_new` accepts if it is the one to be written,
    or its tensors without their JSON.
    """
    described, stored = pair_files(path)
    is_foreign = not _is_an_sae(path) if described.exists() else stored.exists() and not _are_of_an_sae(stored)
    if is_foreign or Path(path).is_dir():
        raise InputError(_take(path))


def _is_an_sae(path: str | Path) -> bool:
    try:
        SAE.load(path)
    except InputError:
        return False
    return True


def _same(one: SAE, other: SAE) -> bool:
    words = [(sae.sparsity, sae.scale, sae.layer_norm) for sae in (one, other)]
    return words[0] == words[1] and tensors_digest(one.state_dict()) == tensors_digest(other.state_dict())


def _are_of_an_sae(stored: Path) -> bool:
    try:
        return {"W_enc", "W_dec", "b_dec", "center"} <= {*read_tensors(stored)[1]}
    except (OSError, ValueError, SafetensorError):
        return False


def _take(path: str | Path) -> str:
    return f"{path}: expected a new name, got one that is taken; pass another"
