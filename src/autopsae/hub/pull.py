"""A published SAE fetched from the Hugging Face Hub into a new folder: all of it, or nothing."""

import shutil
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.files import write_folder
from autopsae.hub.published import PRESCRIPTION, SUMMARY_FILE
from autopsae.hub.push import CARD
from autopsae.interop.convert import load_sae
from autopsae.interop.hub import HUB, hub_errors, import_hub, split_name
from autopsae.interop.layouts import FILES, PICKLES
from autopsae.interop.releases import SAELENS, name_on_hub
from autopsae.interop.saelens import scales_by_average

MORE = (CARD, SUMMARY_FILE, f"{PRESCRIPTION}.json", f"{PRESCRIPTION}.safetensors")
"""What `push` sends beside the SAE."""


def pull(
    repository: str,
    folder: str | Path,
    *,
    revision: str | None = None,
    scale: float | None = None,
    k: int | None = None,
) -> Path:
    """Fetch an SAE from the Hugging Face Hub into a new folder, and return the path that `load_sae` takes.

    The files of the SAE are fetched, and those that `push` sends beside it. What was fetched before is taken from
    the cache of huggingface_hub. The SAE is loaded once, so that a folder that is there can be read.

    repository: `owner/name`, or `owner/name/folder/in/it`, or a file that is an SAE by itself; also with `hf:`
    before it, and `saelens:RELEASE/ID` as the installed SAELens calls an SAE.
    folder: a new or an empty one. One that holds the same files already stays as it is.
    revision: a branch, a tag or a commit; None for the newest.
    scale, k: as for `load_sae`, where the files do not say them.

    Raises InputError where there is something else in `folder`, where there is no SAE, for what `load_sae` refuses,
    and for whatever the Hub or the network says; nothing is then written.
    """
    name, factor = repository.removeprefix(HUB), None
    if repository.startswith(SAELENS):
        name, factor = name_on_hub(repository.removeprefix(SAELENS))
    where, inside = split_name(name)
    target = Path(folder)
    if target.is_file():
        raise InputError(f"{target}: expected a new folder, got a file; pass another name")
    hub = import_hub(f"pull from {where}")
    is_file = Path(inside).suffix in PICKLES
    at = "" if is_file or not inside else f"{inside}/"
    wanted = [inside] if is_file else [f"{at}{file}" for file in (*FILES, *MORE)]
    with hub_errors(f"{where}: could not be fetched"):
        snapshot = Path(hub.snapshot_download(where, revision=revision, allow_patterns=wanted))
    present = [file for file in wanted if (snapshot / file).is_file()]
    if not any(file.removeprefix(at) not in MORE for file in present):
        raise InputError(f"{repository}: expected an SAE there, got none; check the name, or name a folder in it")

    def write(temporary: Path) -> None:
        for file in present:
            place = temporary / (Path(file).name if is_file else file.removeprefix(at))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(snapshot / file, place)

    if factor is not None and scale is None and scales_by_average(snapshot / inside):
        raise InputError(f"{repository}: expected scale={factor}, which no file says, got none; pass it")
    load_sae(snapshot / inside, scale=scale, k=k)
    write_folder(target, write)
    return target
