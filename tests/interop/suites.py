"""Small files in the layouts of public suites, and what their SAEs do by definition, told slowly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K = 6, 15, 3
SCALE, NORM = 2.5, D_IN**0.5 / 2.5


class Made(NamedTuple):
    """Where an SAE was written, and its (codes, reconstructions) by definition."""

    path: Path
    run: Callable[[Tensor], tuple[Tensor, Tensor]]


def matrices(d_sae: int = D_SAE, *, is_unit: bool = True) -> dict[str, Tensor]:
    """Encoder [d_in, d_sae], decoder [d_sae, d_in], two biases, and thresholds of both signs."""
    generator = torch.Generator().manual_seed(3)
    W_enc, W_dec = torch.randn(D_IN, d_sae, generator=generator), torch.randn(d_sae, D_IN, generator=generator)
    if is_unit:
        W_dec /= W_dec.norm(dim=1, keepdim=True)
    biases = {"b_enc": torch.randn(d_sae, generator=generator), "b_dec": torch.randn(D_IN, generator=generator)}
    threshold = torch.randn(d_sae, generator=generator) + 0.5
    return {"W_enc": W_enc, "W_dec": W_dec, **biases, "threshold": threshold}


def tokens(n: int = 50) -> Tensor:
    """With a mean, and a spread of each token that hides the 1e-5 that libraries add to it."""
    return 10 * (torch.randn(n, D_IN, generator=torch.Generator().manual_seed(9)) + 1)


def above(pre: Tensor, threshold: Tensor | float) -> Tensor:
    """Values over a threshold, and over zero."""
    return pre.relu() * (pre > threshold)


def largest(pre: Tensor, k: int = K) -> Tensor:
    """The k largest of each token, if positive."""
    values, latents = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, latents, values.relu())


def plain(
    m: dict[str, Tensor], x: Tensor, choose: Callable[[Tensor], Tensor], *, subtract: bool
) -> tuple[Tensor, Tensor]:
    pre = (x - m["b_dec"] * subtract) @ m["W_enc"] + m["b_enc"]
    codes = choose(pre)
    return codes, codes @ m["W_dec"] + m["b_dec"]


def gemma_scope(folder: Path) -> Made:
    """`params.npz`."""
    m = matrices()
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in m.items()}
    np.savez(folder / "params.npz", **arrays)
    return Made(folder, lambda x: plain(m, x, lambda pre: above(pre, m["threshold"]), subtract=False))


GEMMA_2 = {
    "architecture": "jump_relu",
    "model_name": "google/gemma-3-1b-pt",
    "hf_hook_point_in": "model.layers.3.output",
    "hf_hook_point_out": "model.layers.3.output",
    "width": D_SAE,
    "l0": 5,
    "affine_connection": False,
    "type": "sae",
}


def gemma_scope_2(folder: Path, settings: dict[str, Any] | None = None, **more: Tensor) -> Made:
    """`params.safetensors` and, unless None, `config.json`."""
    m = matrices()
    folder.mkdir(parents=True)
    renamed = {name.replace("W_", "w_"): tensor for name, tensor in m.items()}
    save_file({**renamed, **more}, folder / "params.safetensors")
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return Made(folder, lambda x: plain(m, x, lambda pre: above(pre, m["threshold"]), subtract=False))


HYPERPARAMS = {
    "hook_point_in": "blocks.3.hook_resid_post",
    "hook_point_out": "blocks.3.hook_resid_post",
    "use_decoder_bias": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "expansion_factor": 2.5,
    "d_model": D_IN,
    "d_sae": D_SAE,
    "act_fn": "jumprelu",
    "jump_relu_threshold": 0.4,
    "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": NORM, "out": NORM},
    "sparsity_include_decoder_norm": True,
    "use_glu_encoder": False,
    "top_k": K,
}


def linear(m: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of two Linear layers, [out, in]."""
    weights = {"encoder.weight": m["W_enc"].T.contiguous(), "decoder.weight": m["W_dec"].T.contiguous()}
    return {**weights, "encoder.bias": m["b_enc"], "decoder.bias": m["b_dec"]}


def openmoss(
    m: dict[str, Tensor], x: Tensor, settings: dict[str, Any], threshold: Tensor | float
) -> tuple[Tensor, Tensor]:
    """What Llama Scope and llamascopium do: scaled tokens, choice by pre-activation times norm."""
    scale = SCALE if settings["norm_activation"] == "dataset-wise" else 1.0
    norms = m["W_dec"].norm(dim=1) if settings["sparsity_include_decoder_norm"] else torch.ones(D_SAE)
    subtract = settings.get("apply_decoder_bias_to_pre_encoder", False)
    pre = ((scale * x - m["b_dec"] * subtract) @ m["W_enc"] + m["b_enc"]) * norms
    if settings["act_fn"] == "batchtopk":
        floor = pre.relu().flatten().topk(K * len(x)).values[-1]
        codes = pre.relu() * (pre >= floor)
    else:
        codes = {"jumprelu": lambda: above(pre, threshold), "relu": pre.relu, "topk": lambda: largest(pre)}[
            settings["act_fn"]
        ]()
    codes = codes / norms
    return codes, (codes @ m["W_dec"] + m["b_dec"]) / scale


def llama_scope(folder: Path, *, is_unit: bool = True, **changes: Any) -> Made:
    """`hyperparams.json` and `checkpoints/final.safetensors`; the threshold is in the unit of raw tokens."""
    m, settings = matrices(is_unit=is_unit), {**HYPERPARAMS, **changes}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hyperparams.json").write_text(json.dumps(settings))
    save_file(linear(m), folder / "checkpoints" / "final.safetensors")
    scale = SCALE if settings["norm_activation"] == "dataset-wise" else 1.0
    return Made(folder, lambda x: openmoss(m, x, settings, 0.4 * scale))


def llamascopium(folder: Path, *, is_old: bool = False, has_norm: bool = True, **changes: Any) -> Made:
    """`config.json` and `sae_weights.safetensors`; is_old: as lm-saes named its tensors."""
    m, settings = matrices(is_unit=False), {**HYPERPARAMS, "sae_type": "sae", **changes}
    del settings["dataset_average_activation_norm"], settings["jump_relu_threshold"], settings["d_sae"]
    short = {"W_E": m["W_enc"], "b_E": m["b_enc"], "W_D": m["W_dec"], "b_D": m["b_dec"]}
    stored, threshold = linear(m) if is_old else short, m["threshold"].abs() + 0.1
    if settings["act_fn"] == "jumprelu":
        stored[f"{'' if is_old else 'activation_function.'}log_jumprelu_threshold"] = threshold.log()
    if not settings["use_decoder_bias"]:
        del stored["decoder.bias" if is_old else "b_D"]
        m["b_dec"] = torch.zeros(D_IN)
    if has_norm:
        stored["dataset_average_activation_norm.blocks.3.hook_resid_post"] = torch.tensor(NORM)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(stored, folder / "sae_weights.safetensors")
    return Made(folder, lambda x: openmoss(m, x, settings, threshold))


def openai(path: Path, activation: str | None = "TopK", **changes: Any) -> Made:
    """`6.pt`; changes: of the stored activation."""
    m = matrices()
    state: dict[str, Any] = {
        "pre_bias": m["b_dec"],
        "latent_bias": m["b_enc"],
        "encoder.weight": m["W_enc"].T,
        "decoder.weight": m["W_dec"].T,
        "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
        "latents_activation_frequency": torch.ones(D_SAE),
        "latents_mean_square": torch.zeros(D_SAE),
    }
    if activation is not None:
        state["activation"] = activation
        state["activation_state_dict"] = {"k": K, "postact_fn": "ReLU"} | changes if activation == "TopK" else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        if activation != "TopK":
            return plain(m, x, torch.relu, subtract=True)
        mean, std = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True)
        codes, y = plain(m, (x - mean) / (std + 1e-5), largest, subtract=True)
        return codes, y * std + mean

    return Made(path, run)


def saev(path: Path, schema: int | None, activation: str = "Relu", *, threshold: float | None = None) -> Made:
    """`sae.pt`: a JSON line and a state_dict, as the version of that schema writes it."""
    m = matrices()
    sizes = {"d_vit": D_IN, "exp_factor": 2, "n_reinit_samples": 0, "remove_parallel_grads": True, "seed": 0}
    k = {} if activation == "Relu" else {"top_k": K}
    if schema is None:
        header: dict[str, Any] = {**sizes, "sparsity_coeff": 4e-4, "ghost_grads": False}
    elif schema == 1:
        header = {"schema": 1, "cfg": {**sizes, **k}, "cls": activation, "commit": "abc", "lib": "0.1.0"}
    else:
        named = {"cls": activation, "params": k}
        header = {"schema": schema, "cfg": {**sizes, "activation": named}, "commit": "abc", "lib": "0.1.0"}
    state = {name: tensor for name, tensor in m.items() if name != "threshold"}
    if threshold is not None:
        state["activation.threshold"] = torch.tensor(threshold)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(state, file)
    chosen: dict[str, Callable[[Tensor], Tensor]] = {
        "Relu": torch.relu,
        "TopK": largest,
        "BatchTopK": lambda pre: above(pre, threshold or 0.0),
    }
    return Made(path, lambda x: plain(m, x, chosen[activation], subtract=schema is None))


def qwen_scope(path: Path, d_sae: int = D_SAE) -> Made:
    """`layer3.sae.pt`."""
    m = matrices(d_sae)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"W_enc": m["W_enc"].T, "W_dec": m["W_dec"].T, "b_enc": m["b_enc"], "b_dec": m["b_dec"]}
    torch.save(state, path)
    return Made(path, lambda x: plain(m, x, largest, subtract=False))


def hook_z(path: Path) -> Made:
    """`NAME.pt` and `NAME_cfg.json`."""
    m = matrices()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: tensor for name, tensor in m.items() if name != "threshold"}, path)
    settings = {"act_size": D_IN, "dict_size": D_SAE, "act_name": "blocks.3.attn.hook_z"}
    path.with_name(f"{path.stem}_cfg.json").write_text(json.dumps(settings))
    return Made(path, lambda x: plain(m, x, torch.relu, subtract=True))


def goodfire(path: Path) -> Made:
    """`NAME.pth`."""
    m = matrices()
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {"encoder.": "encoder_linear.", "decoder.": "decoder_linear."}
    state = {names[name[:8]] + name[8:]: tensor for name, tensor in linear(m).items()}
    torch.save(state, path)
    return Made(path, lambda x: plain(m, x, torch.relu, subtract=False))


ALL: dict[str, Callable[[Path], Made]] = {
    "gemma_scope": lambda place: gemma_scope(place / "x"),
    "gemma_scope_2": lambda place: gemma_scope_2(place / "x", GEMMA_2),
    "llama_scope": lambda place: llama_scope(place / "x"),
    "llamascopium": lambda place: llamascopium(place / "x"),
    "openai": lambda place: openai(place / "x" / "6.pt"),
    "saev": lambda place: saev(place / "x" / "sae.pt", 5, "TopK"),
    "qwen_scope": lambda place: qwen_scope(place / "SAE-Res-Qwen3-1B-Base-W1K-L0_3" / "layer3.sae.pt", 1024),
    "hook_z": lambda place: hook_z(place / "x" / "gpt2.pt"),
    "goodfire": lambda place: goodfire(place / "x" / "l19.pth"),
}
"""One of each, below a folder."""
