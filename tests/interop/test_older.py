"""Files from before today's versions: SAELens up to 5, dictionary_learning before it stored a threshold."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.interop.convert import load_sae
from autopsae.sae.sparsity import BatchTopK, TopK
from tests.interop.suites import D_IN, D_SAE, K, above, largest, linear, matrices, plain, tokens
from tests.interop.test_suites import assert_same

VERSION_5: dict[str, Any] = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "activation_fn_str": "relu",
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "context_size": 128,
    "model_name": "gpt2-small",
    "hook_name": "blocks.3.hook_resid_pre",
    "hook_layer": 3,
    "hook_head_index": None,
    "prepend_bos": True,
    "dataset_path": "Skylion007/openwebtext",
    "dataset_trust_remote_code": True,
    "normalize_activations": "none",
    "dtype": "torch.float32",
    "device": "cuda",
    "sae_lens_training_version": "5.10.7",
    "activation_fn_kwargs": {},
    "neuronpedia_id": None,
    "model_from_pretrained_kwargs": {},
}
"""Every field that version 5 wrote."""
OLDEST = {
    **{name: value for name, value in VERSION_5.items() if name not in ("architecture", "hook_name", "hook_layer")},
    "hook_point": "blocks.3.hook_resid_pre",
    "hook_point_layer": 3,
    "hook_point_head_index": None,
    "use_cached_activations": False,
    "expansion_factor": 2,
    "lr": 4e-4,
    "l1_coefficient": 8e-5,
    "normalize_activations": False,
}
"""As the training runner dumped all its settings."""


def saelens(folder: Path, settings: dict[str, Any], **tensors: Tensor) -> Path:
    """A folder as the older versions left it, with the sparsity of the latents in it."""
    folder.mkdir(parents=True)
    (folder / "cfg.json").write_text(json.dumps(settings))
    weights = {name: tensor for name, tensor in matrices(is_unit=False).items() if name != "threshold"}
    save_file({**weights, **tensors}, folder / "sae_weights.safetensors")
    save_file({"sparsity": torch.zeros(D_SAE)}, folder / "sparsity.safetensors")
    return folder


@torch.no_grad()
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("factor", ["scaling_factor", "finetuning_scaling_factor"])
def test_what_fine_tuning_learned_multiplies_codes_before_they_are_decoded(
    tmp_path: Path, factor: str, subtract: bool
) -> None:
    m, factors = matrices(is_unit=False), torch.linspace(0.5, 2, D_SAE)
    settings = {**VERSION_5, "finetuning_scaling_factor": True, "apply_b_dec_to_input": subtract}
    sae = load_sae(saelens(tmp_path / "x", settings, **{factor: factors}))
    codes, _ = plain(m, tokens(), torch.relu, subtract=subtract)
    assert_same(sae.encode(tokens()), codes)
    assert_same(sae(tokens()), (codes * factors) @ m["W_dec"] + m["b_dec"])


def test_a_factor_that_the_configuration_denies_is_refused_and_one_of_ones_is_not(tmp_path: Path) -> None:
    folder = saelens(tmp_path / "x", VERSION_5, scaling_factor=torch.full((D_SAE,), 1.5))
    with pytest.raises(
        InputError, match=r"scaling_factor: expected ones, as cfg\.json says finetuning_scaling_factor"
    ):
        load_sae(folder)
    load_sae(saelens(tmp_path / "y", VERSION_5, scaling_factor=torch.ones(D_SAE)))
    load_sae(saelens(tmp_path / "z", {**VERSION_5, "finetuning_scaling_factor": None}))


TOPK = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        VERSION_5,
        OLDEST,
        {**OLDEST, "finetuning_scaling_factor": ...},
        {**VERSION_5, **TOPK},
        {**OLDEST, **TOPK, "apply_b_dec_to_input": False},
        {**VERSION_5, **TOPK, "normalize_activations": "layer_norm"},
        {**VERSION_5, "normalize_activations": "expected_average_only_in"},
        {**VERSION_5, "architecture": "jumprelu"},
        {**VERSION_5, "hook_name": "blocks.3.attn.hook_z"},
    ],
    ids=range(9),
)
def test_saelens_today_reads_its_older_folders_as_we_do(tmp_path: Path, settings: dict[str, Any]) -> None:
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("sae_lens is not installed; make test installs it")
    settings = {name: value for name, value in settings.items() if value is not ...}
    threshold = {"threshold": matrices()["threshold"]} if settings.get("architecture") == "jumprelu" else {}
    folder = saelens(tmp_path / "x", {**settings, "device": "cpu"}, **threshold)
    theirs = importlib.import_module("sae_lens").SAE.load_from_disk(folder)
    theirs.turn_off_forward_pass_hook_z_reshaping()
    ours = load_sae(folder)
    assert_same(ours.encode(tokens()), theirs.encode(tokens()))
    assert_same(ours(tokens()), theirs(tokens()))


@torch.no_grad()
@pytest.mark.parametrize("normalize", ["expected_average_only_in", True])
def test_the_scale_of_saelens_trainer_can_be_told_where_no_file_has_it(tmp_path: Path, normalize: Any) -> None:
    folder = saelens(tmp_path / "x", {**VERSION_5, "normalize_activations": normalize})
    codes, reconstructions = plain(matrices(is_unit=False), 0.3 * tokens(), torch.relu, subtract=True)
    sae = load_sae(folder, scale=0.3)
    assert_same(sae.encode(tokens()), codes)
    assert_same(sae(tokens()), reconstructions / 0.3)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.5}')
    with pytest.raises(InputError, match="expected no scale, as its files say how tokens are scaled"):
        load_sae(folder, scale=0.3)
    with pytest.raises(InputError, match=r"how tokens are scaled \(none\), got 0.3"):
        load_sae(saelens(tmp_path / "y", VERSION_5), scale=0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "gated"}, "got 'gated': its gate has weights of its own"),
        ({"normalize_activations": "constant_norm_rescale"}, "normalize_activations: expected 'none'"),
        ({"activation_fn_str": "tanh-relu"}, "expected 'relu', got 'tanh-relu'"),
        ({"activation_fn_str": "topk"}, "k: expected a whole number from 1 to .*, got None"),
        ({"finetuning_scaling_factor": "yes"}, "finetuning_scaling_factor: expected True, False, None, got 'yes'"),
    ],
)
def test_what_older_versions_had_and_ours_has_not_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_sae(saelens(tmp_path / "x", {**VERSION_5, **settings}))


def dictionary(folder: Path, name: str, *, missing: tuple[str, ...] = (), **tensors: Tensor) -> Path:
    """A folder of dictionary_learning; missing: what it did not store yet, of k in its settings too."""
    m = matrices()
    state = {**linear(m), "b_dec": m["b_dec"], "k": torch.tensor(K), "threshold": torch.tensor(0.7), **tensors}
    del state["decoder.bias"]
    trainer = {"trainer_class": "TrainerTopK", "dict_class": name, "k": K}
    if "settings k" in missing:
        del trainer["k"]
    folder.mkdir(parents=True)
    torch.save({name: tensor for name, tensor in state.items() if name not in missing}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("missing", [("threshold",), ("threshold", "k"), ("k",), ("settings k", "threshold"), ()])
def test_a_topk_dictionary_needs_no_threshold_and_one_k(tmp_path: Path, missing: tuple[str, ...]) -> None:
    sae = load_sae(dictionary(tmp_path / "x", "AutoEncoderTopK", missing=missing))
    codes, reconstructions = plain(matrices(), tokens(), largest, subtract=True)
    assert sae.sparsity == TopK(k=K)
    assert_same(sae.encode(tokens()), codes)
    assert_same(sae(tokens()), reconstructions)


@torch.no_grad()
@pytest.mark.parametrize("missing", [("threshold",), ("threshold", "k"), ()])
def test_a_batch_topk_dictionary_without_a_threshold_judges_its_batch(
    tmp_path: Path, missing: tuple[str, ...]
) -> None:
    def choose(pre: Tensor) -> Tensor:
        floor = pre.relu().flatten().topk(K * len(pre)).values[-1]
        return pre.relu() * (pre >= floor) if missing else above(pre, 0.7)

    sae = load_sae(dictionary(tmp_path / "x", "BatchTopKSAE", missing=missing))
    codes, reconstructions = plain(matrices(), tokens(), choose, subtract=True)
    assert sae.sparsity == BatchTopK(k=K)
    assert_same(sae.encode(tokens()), codes)
    assert_same(sae(tokens()), reconstructions)


def test_a_dictionary_without_any_k_is_refused(tmp_path: Path) -> None:
    folder = dictionary(tmp_path / "x", "AutoEncoderTopK", missing=("settings k", "k"))
    with pytest.raises(InputError, match=r"config\.json: k: expected a whole number from 1 to .*, got None"):
        load_sae(folder)
