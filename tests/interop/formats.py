"""Small SAEs in every format, to be damaged."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autopsae.interop.convert import save_sae
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import JumpReLU, Sparsity, TopK

D_IN, D_SAE, K = 6, 15, 3

WEIGHTS: dict[str, str] = {
    "saelens": "sae_weights.safetensors",
    "sparsify": "sae.safetensors",
    "dictionary_learning": "ae.pt",
    "autopsae": "sae.safetensors",
}
CONFIGS = {
    "saelens": "cfg.json",
    "sparsify": "cfg.json",
    "dictionary_learning": "config.json",
    "autopsae": "sae.json",
}


def an_sae(sparsity: Sparsity | None = None, **more: Any) -> SAE:
    """Random weights; thresholds of all sizes for JumpReLU."""

    def rows(seed: int) -> Tensor:
        return torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(seed))

    sparsity = sparsity or TopK(k=K)
    threshold = rows(4)[:, 0].abs() + 0.01 if isinstance(sparsity, JumpReLU) else None
    settings = {"b_dec": rows(2)[0], "b_enc": rows(3)[:, 0], "threshold": threshold, **more}
    return SAE(W_enc=rows(0), W_dec=rows(1), sparsity=sparsity, **settings).eval()


def tokens(n: int = 40) -> Tensor:
    """With a mean."""
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(9)) + 1


def written(folder: Path, to: str, sae: SAE | None = None) -> Path:
    """A folder of one of the formats."""
    save_sae(sae or an_sae(), folder / "sae" if to == "autopsae" else folder, to=to)
    return folder


def change_settings(folder: Path, library: str, **changes: Any) -> None:
    """What a configuration says, changed; `...` leaves a setting out."""
    path = folder / CONFIGS[library]
    content = json.loads(path.read_text())
    settings = content["trainer"] if library == "dictionary_learning" else content
    settings.update(changes)
    for name in [name for name, value in settings.items() if value is ...]:
        del settings[name]
    path.write_text(json.dumps(content))


def change_tensors(folder: Path, library: str, **changes: Any) -> None:
    """Tensors changed; `...` leaves one out; names with `_0_` for a dot."""
    path = folder / WEIGHTS[library]
    is_pickle = library == "dictionary_learning"
    tensors = torch.load(path, weights_only=True) if is_pickle else load_file(path)
    tensors.update({name.replace("_0_", "."): value for name, value in changes.items()})
    tensors = {name: value for name, value in tensors.items() if value is not ...}
    torch.save(tensors, path) if is_pickle else save_file(tensors, path)
