"""From a name to a network that reads images, proteins or DNA."""

import difflib
from collections.abc import Callable
from pathlib import Path

import torch

from autopsae.activations.hub import can_be_hub_name, hub_source
from autopsae.arrays import InputError, check_device
from autopsae.models.antiberty import load_antiberty
from autopsae.models.catalogue import CatalogueEntry, catalogue, find_entry
from autopsae.models.diffusion import is_diffusion, load_diffusion
from autopsae.models.dinov2_small import load_dinov2_small
from autopsae.models.network import Network
from autopsae.models.pretrained import folder_type, load_pretrained, model_types
from autopsae.models.spliceai import load_spliceai
from autopsae.models.unirep import load_unirep

_WHEELS: dict[str, Callable[[str], Network]] = {
    "antiberty": load_antiberty,
    "dinov2-small": load_dinov2_small,
    "spliceai": load_spliceai,
    "unirep64": load_unirep,
    "unirep256": load_unirep,
    "unirep1900": load_unirep,
}


def load_other(
    name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Network | None:
    """The network of a name of the catalogue, a folder, or a name of the Hugging Face Hub, in evaluation mode; None
    for what reads text, which `load_model` loads, and for a path that holds no model.

    A folder is known by the `model_type` of its config.json (dinov2, dinov3_vit, vit, esm) or by the index of a
    pipeline of Stable Diffusion 3. No code that comes with a model is run.

    Raises InputError for a network that is only described (docs/models.md), for a misspelt name of the catalogue, a
    missing wheel or extra, a model that cannot be had, is damaged or lacks weights, and a device that is not there.
    """
    check_device(device)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(name, folder, dtype, device)
    if folder.exists():
        return None
    entry = find_entry(name)
    if entry is not None:
        return _load_entry(entry, dtype, device)
    if "/" not in name or not can_be_hub_name(name):
        _check_spelling(name)
        # A name without a folder is one of text: the Hub's oldest, such as `bert-base-uncased`.
        return None
    return load_pretrained(name, hub_source(name), dtype=dtype, device=device)


def _from_folder(name: str, folder: Path, dtype: torch.dtype, device: torch.device | str) -> Network | None:
    if is_diffusion(folder):
        return load_diffusion(name, str(folder), dtype=dtype, device=device)
    if folder_type(folder) not in model_types():
        return None
    source = {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    return load_pretrained(name, source, dtype=dtype, device=device)


def _load_entry(entry: CatalogueEntry, dtype: torch.dtype, device: torch.device | str) -> Network | None:
    if entry.modality == "text":
        return None
    if entry.how == "described":
        raise InputError(
            f"{entry.name}: expected a network that is loaded here, got one that needs {entry.model_class}; "
            "docs/models.md says what to hook and how, and diagnose reads what harvest has written"
        )
    if entry.wheels:
        network = _WHEELS[entry.name](entry.name)
        network.model.to(device=device, dtype=dtype)
        return network
    place = str(entry.hub)
    if "diffusers" in entry.model_class:
        return load_diffusion(entry.name, place, dtype=dtype, device=device)
    return load_pretrained(entry.name, hub_source(place), dtype=dtype, device=device)


def _check_spelling(name: str) -> None:
    names = [entry.name for entry in catalogue()]
    if near := difflib.get_close_matches(name, names, n=1, cutoff=0.85):
        raise InputError(f"unknown model {name!r}; did you mean {near[0]!r}? ({', '.join(names)})")
