"""What is no SAE: activations and models, known by their files, to say which verb takes them."""

from pathlib import Path

from autopsae.arrays import InputError
from autopsae.interop import gemma_scope
from autopsae.reading import read_object

ACTIVATIONS = ("index.json", "dataset_info.json", "shards.json")
"""Files of autopsae, Hugging Face datasets and saev that stand beside activations."""
MODELS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "tokenizer.json")
MODEL_CONFIG = "config.json"


def what_it_is(path: Path) -> str | None:
    """What a folder or file is instead, with the verb that takes it, as the end of a message; None if unknown."""
    if path.is_dir():
        if any((path / name).is_file() for name in MODELS) or _is_model(path / MODEL_CONFIG):
            return f"a model; `autopsae harvest {path} OUT` makes activations of it"
        is_shards = any((path / name).is_file() for name in ACTIVATIONS) or any(path.glob("*.npy"))
        if is_shards or any(path.glob("shard_*")):
            return f"activations; `autopsae diagnose {path}` takes them"
        return None
    if path.suffix == ".npz":
        return (
            f"arrays; call the file {gemma_scope.ARRAYS} if it is Gemma Scope's (if these are activations, "
            f"`autopsae diagnose {path}` takes them)"
        )
    if path.suffix in (".npy", ".parquet", ".arrow"):
        return f"activations; `autopsae diagnose {path}` takes them"
    if path.suffix == ".gguf":
        return f"a model; `autopsae harvest {path} OUT` makes activations of it"
    if path.suffix == ".safetensors":
        return (
            "tensors that no configuration describes; name the folder of an SAE (if these are activations, "
            f"`autopsae diagnose {path}` takes them)"
        )
    return None


def _is_model(config: Path) -> bool:
    """Whether a configuration is that of a Hugging Face model."""
    try:
        settings = read_object(config) if config.is_file() else {}
    except InputError:
        return False
    return "model_type" in settings or "architectures" in settings
