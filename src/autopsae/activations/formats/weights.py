"""What is taken for activations and is none: weights of an SAE or a network, prescriptions, checkpoints, runs.

Weight matrices are [rows, columns] as activations are, so what tells them apart is evidence about the file: the
names that libraries give to parameters, the `format` that our own JSON holds, and the files that libraries write
beside each other. A matrix of weights under a name of its own, alone in a file, cannot be told from activations.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from autopsae.arrays import InputError
from autopsae.reading import as_object, read_json
from autopsae.words import printable

AUTOPSY = "`autopsae autopsy` takes it, before the activations"
HARVEST = "`autopsae harvest` takes the network, and writes its activations"

SAE_NAMES = {
    "W_enc",
    "W_dec",
    "b_dec",
    "encoder.weight",
    "decoder.weight",
    "W_D",
    "latent_bias",
    "encoder_linear.weight",
}
"""Tensors that the libraries' SAEs have, each under its whole name."""

PARAMETER = re.compile(
    r"(?:^|[._/])(?:(?:weight|bias)(?:_[gv]|_[ih]h_l\d+\w*)?|kernel|qweight|lora_[AB]|W_\w+|b_\w+)$"
)
"""The end of a parameter's name in PyTorch, Flax and TransformerLens; a hooked module's name has no such end."""

OWN = {
    "autopsae-sae": ("an SAE", AUTOPSY),
    "autopsae-prescription": ("a prescription", "`autopsae train ACTIVATIONS --prescription` takes it"),
    "autopsae-diagnosis": ("the numbers of a diagnosis", "it needs no activations"),
}
"""What our pairs of JSON and tensors are, by the format that the JSON names."""

FOLDERS = [
    (("cfg.json", "sae_weights.safetensors"), "an SAE of SAELens", AUTOPSY),
    (("cfg.json", "sae.safetensors"), "an SAE of sparsify", AUTOPSY),
    (("ae.pt",), "an SAE of dictionary_learning", AUTOPSY),
    (("params.npz",), "an SAE (of Gemma Scope)", AUTOPSY),
    (("params.safetensors",), "an SAE (of Gemma Scope 2)", AUTOPSY),
    (("hyperparams.json",), "an SAE (of Llama Scope)", AUTOPSY),
    (("portions.json",), "an unfinished sweep", "`autopsae train` finishes it with --resume"),
    (("sweep.json",), "a sweep of `train`", "`autopsae autopsy` takes one of its SAEs, as FOLDER/NAME/sae"),
    (("summary.json", "sae.safetensors"), "a run of `train`", "`autopsae autopsy` takes its SAE, as FOLDER/sae"),
    (("checkpoint.safetensors",), "an unfinished run of `train`", "`autopsae train` finishes it with --resume"),
]
"""(files that lie beside each other, what the folder is, what takes it)."""

MODEL_FILES = re.compile(
    r"(?:(?:pytorch_|tf_|flax_|adapter_)?model|diffusion_pytorch_model)(?:[-.]\d+-of-\d+|\.fp16)?"
    r"\.(?:safetensors|bin|h5|msgpack)(?:\.index\.json)?|consolidated[.-].*\.(?:pth|safetensors)|.*\.gguf"
)
"""Files in which networks are distributed."""


def refuse_weights(path: Path, names: Collection[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Raises InputError for a file whose tensors have the names of weights, or which our own JSON describes."""
    if "about" in (metadata or {}):
        _refuse(path, "a checkpoint of `train`", "`autopsae train` goes on from it with --resume")
    described = path.with_name(path.name.removesuffix(path.suffix) + ".json")
    if own := _own(described):
        _refuse(path, *own)
    if SAE_NAMES & set(names):
        _refuse(path, "the weights of an SAE", AUTOPSY)
    if "center" in names and set(names) <= {"center", "linear", "inverse", "subspace"}:
        _refuse(path, *OWN["autopsae-prescription"])
    parameters = [name for name in names if PARAMETER.search(name)]
    if parameters:
        _refuse(path, f"weights ({printable(parameters[0], 60)})", HARVEST)


def refuse_model_file(path: Path) -> None:
    """Raises InputError for a file with a name under which networks are distributed."""
    if MODEL_FILES.fullmatch(path.name):
        _refuse(path, "a network", HARVEST)


def refuse_foreign_folder(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError for a folder that holds an SAE, a network, a run or prescriptions. names: its files."""
    held = set(names)
    for files, what, takes in FOLDERS:
        if held.issuperset(files):
            _refuse(folder, what, takes)
    if any(MODEL_FILES.fullmatch(name) for name in held):
        _refuse(folder, "a network", HARVEST)
    data = any(name.endswith((".npy", ".npz", ".pt", ".parquet")) for name in held)
    if not data and {"model_type", "architectures"} & _content(folder / "config.json").keys():
        _refuse(folder, "a network", HARVEST)
    for name in sorted(name for name in held if name.endswith(".safetensors")):
        described = name.removesuffix(".safetensors") + ".json"
        if described in held and (own := _own(folder / described)):
            _refuse(folder / name, *own)


def _own(described: Path) -> tuple[str, str] | None:
    return OWN.get(str(_content(described).get("format")))


def _content(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; empty where there is none, as any file may lie beside activations."""
    try:
        return as_object(read_json(path), path)
    except InputError:
        return {}


def _refuse(path: Path, what: str, takes: str) -> NoReturn:
    raise InputError(f"{path}: expected activations, got {what}; {takes}")
