"""SAELens' own loaders of public suites, on files that lie here instead of on the hub. Slow to import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders as loaders
from safetensors.torch import load_file
from torch import Tensor


def load(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    loader: str,
    repository: str,
    inside: str,
    sizes: dict[str, int],
    *,
    norm_scaling_factor: float | None,
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """(codes, reconstructions) of what SAELens makes of `root / repository / inside`.

    sizes: d_in and d_sae, which its loaders take from the names of models. norm_scaling_factor: what its list of
    SAEs holds for it, folded as `from_pretrained` folds it.
    """

    def download(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        return str(root / repo_id / subfolder / filename)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        return {name: list(tensor.shape) for name, tensor in load_file(root / repo_id / filename).items()}

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    # Llama Scope's own type is bfloat16; the type asked for wins, as in `from_pretrained`.
    overrides = {**sizes, "device": "cpu", "dtype": "float32"}
    settings, state, _ = loaders.NAMED_PRETRAINED_SAE_LOADERS[loader](repository, inside, "cpu", False, overrides)
    settings = loaders.handle_config_defaulting(settings)
    sae_class = SAE.get_sae_class_for_architecture(settings["architecture"])
    sae = sae_class(SAE.get_sae_config_class_for_architecture(settings["architecture"]).from_dict(settings))
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    if norm_scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(norm_scaling_factor)
    sae.turn_off_forward_pass_hook_z_reshaping()  # tokens come with the heads flattened

    @torch.no_grad()
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        return sae.encode(x), sae(x)

    return run
