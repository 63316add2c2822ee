"""One door to all formats: an SAE of any library is loaded as ours, and ours is written for any of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from autopsae.arrays import InputError
from autopsae.files import pair_files, write_folder
from autopsae.interop import dictionary_learning, saelens, sparsify
from autopsae.sae.model import SAE

Format = Literal["autopsae", "saelens", "dictionary_learning", "sparsify"]
HUB = "hf:"
OURS = "sae"
"""The name of an SAE in the folder of its training."""

# By the files that make a folder one of theirs.
READERS: dict[Format, tuple[tuple[str, ...], Callable[[Path], SAE]]] = {
    "saelens": ((saelens.WEIGHTS,), saelens.read),
    "sparsify": ((sparsify.CONFIG, sparsify.WEIGHTS), sparsify.read),
    "dictionary_learning": ((dictionary_learning.WEIGHTS,), dictionary_learning.read),
    "autopsae": ((f"{OURS}.json", f"{OURS}.safetensors"), lambda folder: SAE.load(folder / OURS)),
}
FILES = sorted(
    {name for names, _ in READERS.values() for name in names}
    | {saelens.CONFIG, saelens.SCALER, saelens.WHITENING, dictionary_learning.CONFIG}
)


def load_sae(path: str | Path) -> SAE:
    """An SAE that SAELens, dictionary_learning, sparsify or autopsae saved, in evaluation mode: a folder, the name
    of one of our pairs, or `hf:owner/repository/folder/in/it` on the Hugging Face hub.

    The format is known by its files. Raises InputError for what is none of these, what our SAE cannot express, and
    files that are damaged, hostile or do not fit together; nothing in them is run.
    """
    folder = _folder(path)
    return READERS[_format(folder, path)][1](folder) if folder.is_dir() else SAE.load(folder)


def format_of(path: str | Path) -> Format:
    """The library that wrote the SAE at `path`, as `load_sae` takes it; the files are not read.

    Raises InputError for a folder that holds no SAE or several.
    """
    folder = _folder(path)
    return _format(folder, path) if folder.is_dir() else "autopsae"


def _folder(path: str | Path) -> Path:
    return _fetched(path.removeprefix(HUB)) if isinstance(path, str) and path.startswith(HUB) else Path(path)


def _format(folder: Path, path: str | Path) -> Format:
    held = [name for name, (files, _) in READERS.items() if all((folder / file).is_file() for file in files)]
    if len(held) != 1:
        known = " or ".join(" and ".join(files) for files, _ in READERS.values())
        raise InputError(
            f"{path}: expected the folder of one SAE, with {known}, got files of {len(held)} formats; name "
            "the folder that holds an SAE's own files"
        )
    return held[0]


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
        check_new_pair(path)
        sae.save(path)


def check_new_pair(path: str | Path) -> None:
    """InputError where one of the two files of an autopsae SAE of this name is there, or a folder of its name, in
    which `load_sae` would look instead.
    """
    if any(file.exists() for file in pair_files(path)) or Path(path).is_dir():
        raise InputError(f"{path}: expected a new name, got one that is taken; pass another")


def _fetched(name: str) -> Path:
    """The folder of `owner/repository/folder/in/it`, with the files that a reader may ask for."""
    owner, repository, *rest = [*name.split("/"), "", ""][: max(2, name.count("/") + 1)]
    if not owner or not repository or {"", ".", ".."} & {*rest}:
        raise InputError(f"{HUB}{name}: expected {HUB}owner/repository, or {HUB}owner/repository/folder/in/it")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"{HUB}{name}: expected huggingface_hub to be installed; pip install huggingface_hub"
        ) from error
    folder = "/".join(rest)
    wanted = [f"{folder}/{file}" if folder else file for file in FILES]
    try:
        fetched = snapshot_download(f"{owner}/{repository}", allow_patterns=wanted)
    except Exception as error:  # the hub's and the network's errors have no common class
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{HUB}{name}: could not be fetched ({type(error).__name__}: {reason}); check the name and the network"
        ) from error
    found = Path(fetched) / folder
    if not any((found / file).is_file() for file in FILES):
        raise InputError(
            f"{HUB}{name}: expected one of {', '.join(FILES)} there, got none; check the folder's name"
        )
    return found
