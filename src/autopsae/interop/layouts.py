"""Which files are whose: a table of layouts, and where a path that a user names leads in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autopsae.arrays import InputError
from autopsae.files import pair_files
from autopsae.interop import (
    dictionary_learning,
    gemma_scope,
    goodfire,
    hook_z,
    llama_scope,
    openai,
    qwen_scope,
    saelens,
    saev,
    sparsify,
)
from autopsae.interop.checks import names
from autopsae.interop.foreign import what_it_is
from autopsae.interop.reading import read_state_dict
from autopsae.sae.model import SAE
from autopsae.words import printable, reason

OURS = "sae"
"""The name of an SAE in the folder of its training."""
OUR_LIBRARY = "autopsae"
PICKLES = (".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder of one library or suite."""

    library: str
    files: tuple[str, ...]
    """What makes a folder one of these, by paths in it."""
    read: Callable[..., SAE]
    """From the folder to the SAE."""
    told: tuple[str, ...] = ()
    """What `read` may be told that no file says."""
    more: tuple[str, ...] = ()
    """What it reads if it is there."""


LAYOUTS = (
    Layout(
        library="SAELens",
        files=(saelens.CONFIG, saelens.WEIGHTS),
        read=saelens.read,
        told=("scale",),
        more=(saelens.SCALER, saelens.WHITENING),
    ),
    Layout(library="sparsify", files=(sparsify.CONFIG, sparsify.WEIGHTS), read=sparsify.read),
    Layout(
        library="dictionary_learning",
        files=(dictionary_learning.CONFIG, dictionary_learning.WEIGHTS),
        read=dictionary_learning.read,
    ),
    Layout(library="Gemma Scope", files=(gemma_scope.ARRAYS,), read=gemma_scope.read, told=("scale",)),
    Layout(
        library="Gemma Scope 2",
        files=(gemma_scope.WEIGHTS,),
        read=gemma_scope.read_2,
        more=(gemma_scope.CONFIG,),
    ),
    Layout(
        library="Llama Scope",
        files=(llama_scope.HYPERPARAMS, llama_scope.CHECKPOINT),
        read=llama_scope.read_scope,
    ),
    Layout(
        library="llamascopium",
        files=(llama_scope.CONFIG, llama_scope.WEIGHTS),
        read=llama_scope.read,
        told=("scale",),
    ),
    Layout(
        library=OUR_LIBRARY,
        files=(f"{OURS}.json", f"{OURS}.safetensors"),
        read=lambda folder: SAE.load(folder / OURS),
    ),
)
FILES = sorted({file for layout in LAYOUTS for file in (*layout.files, *layout.more)})


def read_path(path: Path, told: Mapping[str, float | int]) -> SAE:
    """The SAE that a path leads to: a folder of one of the layouts, one of its files, a file that is an SAE by
    itself, or the name of one of our pairs.

    told: what the user says because no file does. Raises InputError for what is not there, what is something else,
    and what could be several.
    """
    try:
        return _read_path(path, told)
    except OSError as error:
        raise InputError(f"{path}: expected an SAE, could not read it ({reason(error)})") from error


def _read_path(path: Path, told: Mapping[str, float | int]) -> SAE:
    if path.is_dir():
        return _from_folder(path, told)
    if all(file.is_file() for file in pair_files(path)):
        return _call(SAE.load, path, path, told, ())
    if path.is_file():
        return _from_file(path, told)
    if any(file.is_file() for file in pair_files(path)):
        return SAE.load(path)  # says which of the two is missing
    if path.exists() or path.is_symlink():
        raise InputError(f"{path}: expected a folder or a file, got neither; name the folder that holds an SAE")
    far = "" if path.is_absolute() else ", or begin its name with hf: (Hugging Face Hub) or saelens: (its releases)"
    raise InputError(f"{path}: no such file or folder; check the path of the SAE{far}")


def library_of(path: Path) -> str | None:
    """The library or suite of the SAE that a path leads to, by the names of its files alone; None for one that is a
    file by itself.

    Raises InputError where the path leads to a folder that holds no SAE or several.
    """
    if path.is_dir():
        layouts = _layouts_in(path)
        if len(layouts) == 1:
            return layouts[0].library
        pickles = _pickles_in(path)
        if not layouts and len(pickles) == 1:
            return None
        raise InputError(_not_one(path, layouts, pickles))
    if all(file.is_file() for file in pair_files(path)):
        return OUR_LIBRARY
    folder = _folder_of(path) if path.is_file() else None
    return None if folder is None else library_of(folder)


def _layouts_in(folder: Path) -> list[Layout]:
    return [layout for layout in LAYOUTS if all((folder / file).is_file() for file in layout.files)]


def _pickles_in(folder: Path) -> list[Path]:
    """Files that may be SAEs by themselves."""
    pickles = [file for file in sorted(folder.iterdir()) if file.suffix in PICKLES and file.is_file()]
    return [file for file in pickles if file.name != dictionary_learning.WEIGHTS]


def _from_folder(folder: Path, told: Mapping[str, float | int]) -> SAE:
    layouts = _layouts_in(folder)
    if len(layouts) == 1:
        return _call(layouts[0].read, folder, folder, told, layouts[0].told)
    pickles = _pickles_in(folder)
    if not layouts and len(pickles) == 1:
        return _from_file(pickles[0], told)
    raise InputError(_not_one(folder, layouts, pickles))


def _not_one(folder: Path, layouts: list[Layout], pickles: list[Path]) -> str:
    """The message for a folder that is not that of one SAE."""
    if layouts:
        both = " and ".join(f"{layout.library} ({', '.join(layout.files)})" for layout in layouts)
        return (
            f"{folder}: expected the folder of one SAE, got files of {len(layouts)} formats: {both}; move one away"
        )
    return f"{folder}: expected the folder of one SAE, got {_got(folder, pickles)}"


def _got(folder: Path, pickles: list[Path]) -> str:
    """What a folder is that holds no SAE, and what to do, for a message."""
    other = what_it_is(folder)
    if other:
        return other
    partial = []
    for layout in LAYOUTS:
        missing = [file for file in layout.files if not (folder / file).is_file()]
        there = [file for file in layout.files if file not in missing]
        if there:
            partial.append(f"{', '.join(there)} without {', '.join(missing)} ({layout.library})")
    if partial:
        return f"{' or '.join(partial)}; get the missing file"
    if len(pickles) > 1:
        return f"several files: {names(file.name for file in pickles)}; name one of them"
    inner = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    if inner:
        return f"a folder of folders: {names(inner)}; name one of them"
    known = "; ".join(f"{' and '.join(layout.files)} ({layout.library})" for layout in LAYOUTS)
    return printable(f"files of 0 formats; name the folder that holds an SAE's own files: {known}", 480)


def _from_file(path: Path, told: Mapping[str, float | int]) -> SAE:
    folder = _folder_of(path)
    if folder is not None:
        return _from_folder(folder, told)
    with path.open("rb") as file:
        first = file.read(1)
    if path.suffix in PICKLES:
        if first == saev.FIRST_BYTE:
            return _call(saev.read, path, path, told, ())
        return _from_state(read_state_dict(path), path, told)
    raise InputError(
        f"{path}: expected an SAE, got {what_it_is(path) or 'another file; name the folder of an SAE'}"
    )


def _folder_of(path: Path) -> Path | None:
    """The folder of a layout that this is a file of; None where it is of none.

    Raises InputError where the layout's other files are not there.
    """
    path, missing = path.absolute(), ""
    for layout in LAYOUTS:
        for file in layout.files + layout.more:
            depth = len(Path(file).parts)
            folder = path.parents[depth - 1] if depth <= len(path.parents) else path.parent
            if folder / file != path:
                continue
            lacking = [other for other in layout.files if not (folder / other).is_file()]
            if not lacking:
                return folder
            missing = missing or f"{', '.join(lacking)} with it, as {layout.library} writes, got none"
    if missing and not what_it_is(path.parent):
        raise InputError(f"{path}: expected {missing}; name the folder that holds all files of the SAE")
    return None


def _from_state(state: Mapping[str, object], path: Path, told: Mapping[str, float | int]) -> SAE:
    """The SAE of a state_dict that is alone in its file: known by the names of its tensors."""
    if all(name in state for name in openai.NAMES):
        return _call(openai.read, state, path, told, (), path)
    if all(name in state for name in goodfire.NAMES):
        return _call(goodfire.read, state, path, told, (), path)
    if {"W_enc", "W_dec", "b_enc", "b_dec"} == {*state}:
        if hook_z.config_of(path).is_file():
            return _call(hook_z.read, state, path, told, (), path)
        if path.name.endswith(qwen_scope.SUFFIX):
            return _call(qwen_scope.read, state, path, told, ("k",), path)
    raise InputError(
        f"{path}: expected an SAE that its file alone describes (of OpenAI, Goodfire, Qwen-Scope or saev), got "
        f"tensors {names(state)}; name the folder that holds its configuration too (if these are activations, "
        f"`autopsae diagnose {path}` takes them)"
    )


def _call(
    read: Callable[..., SAE],
    source: object,
    path: Path,
    told: Mapping[str, float | int],
    takes: tuple[str, ...],
    *more: Path,
) -> SAE:
    """`read(source)`, told what it takes; InputError for what it does not: it would be silently without effect."""
    useless = [name for name in told if name not in takes]
    if useless:
        raise InputError(
            f"{path}: expected no {' and no '.join(useless)}, as its files say everything; leave it out"
        )
    return read(source, *more, **told)
