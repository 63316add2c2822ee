"""The SAEs of public suites, on small files of each layout: against definitions, and against SAELens' loaders."""

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autopsae.arrays import InputError
from autopsae.interop.convert import load_sae, save_sae
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, TopK
from tests.interop import suites
from tests.interop.suites import D_IN, D_SAE, GEMMA_2, SCALE, K, Made, tokens

TOLERANCE = 1e-5


def assert_same(found: Tensor, expected: Tensor) -> None:
    """To `TOLERANCE`, of the largest value where that is over 1."""
    largest = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= TOLERANCE * largest
    assert bool(expected.any())


@torch.no_grad()
def assert_defined(sae: SAE, made: Made, codes_per_theirs: Tensor | float = 1.0) -> None:
    codes, reconstructions = made.run(tokens())
    assert_same(sae.encode(tokens()), codes * codes_per_theirs)
    assert_same(sae(tokens()), reconstructions)
    assert not sae.training


@pytest.mark.parametrize("suite", suites.ALL)
def test_each_layout_is_read_as_its_definition_says_and_goes_on_to_our_own_format(
    tmp_path: Path, suite: str
) -> None:
    made = suites.ALL[suite](tmp_path)
    assert_defined(load_sae(made.path), made)
    save_sae(load_sae(made.path), tmp_path / "ours", to="autopsae")
    assert_defined(load_sae(tmp_path / "ours"), made)


def test_gemma_scope_in_other_types_and_orders_of_bytes(tmp_path: Path) -> None:
    made = suites.gemma_scope(tmp_path / "x")
    arrays: dict[str, Any] = dict(np.load(made.path / "params.npz"))
    changed: dict[str, Any] = {name: np.asfortranarray(array.astype(">f8")) for name, array in arrays.items()}
    np.savez_compressed(made.path / "params.npz", **changed)
    sae = load_sae(made.path)
    assert sae.W_enc.dtype == torch.float64
    with torch.no_grad():
        assert_same(sae(tokens().double()), made.run(tokens())[1].double())
    changed = {f"w_{name[2:]}" if name[0] == "W" else name: array for name, array in arrays.items()}
    np.savez(made.path / "params.npz", **{name: array.astype(np.float16) for name, array in changed.items()})
    assert load_sae(made.path).W_enc.dtype == torch.float32


def test_gemma_scopes_embedding_saes_want_to_be_told_their_scale(tmp_path: Path) -> None:
    made = suites.gemma_scope(tmp_path / "embedding" / "width_4k" / "average_l0_6")
    with pytest.raises(
        InputError, match="expected a scale for an SAE of embeddings, got none; pass scale = 1/sqrt"
    ):
        load_sae(made.path)
    assert_defined(load_sae(made.path, scale=1.0), made)
    scale, x = 1 / math.sqrt(D_IN), tokens()
    codes, reconstructions = made.run(x)
    sae = load_sae(made.path, scale=scale)
    with torch.no_grad():
        assert_same(sae.encode(x / scale), codes)
        assert_same(sae(x / scale), reconstructions / scale)


def test_gemma_scopes_transcoders_are_known_by_the_name_of_the_repository(tmp_path: Path) -> None:
    cache = tmp_path / "models--google--gemma-scope-2b-pt-transcoders" / "snapshots" / "abc" / "layer_3"
    made = suites.gemma_scope(cache / "width_16k" / "average_l0_9")
    with pytest.raises(InputError, match="expected an SAE, got a transcoder: it reconstructs other activations"):
        load_sae(made.path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "transcoder"}, "got 'transcoder' from 'model.layers.3.output' to 'model.layers.3.output': it"),
        ({"hf_hook_point_out": "model.layers.3.mlp"}, "to 'model.layers.3.mlp': it reconstructs other activ"),
        ({"affine_connection": True}, "affine_connection: expected False, None, got True"),
        ({"architecture": "topk"}, "architecture: expected 'jump_relu', got 'topk'"),
    ],
)
def test_gemma_scope_2_says_in_its_configuration_what_is_no_sae(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    made = suites.gemma_scope_2(tmp_path / "x", {**GEMMA_2, **settings})
    with pytest.raises(InputError, match=message):
        load_sae(made.path)


def test_gemma_scope_2_without_its_configuration_is_an_sae_unless_a_folders_name_says_otherwise(
    tmp_path: Path,
) -> None:
    made = suites.gemma_scope_2(tmp_path / "resid_post_all" / "layer_3_width_16k_l0_small")
    assert_defined(load_sae(made.path), made)
    made = suites.gemma_scope_2(tmp_path / "transcoder_all" / "layer_3_width_16k_l0_small")
    with pytest.raises(InputError, match="expected an SAE, got transcoder_all: it reconstructs other activations"):
        load_sae(made.path)
    skip = {"affine_skip_connection": torch.ones(D_IN, D_IN)}
    with pytest.raises(InputError, match=r"got .*'affine_skip_connection'.*; is it the SAE that its configuration"):
        load_sae(suites.gemma_scope_2(tmp_path / "skip", None, **skip).path)


@pytest.mark.parametrize("act_fn", ["jumprelu", "topk", "relu"])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
@pytest.mark.parametrize("by_norm", [True, False])
def test_llama_scope_scales_tokens_and_chooses_by_the_decoders_norms(
    tmp_path: Path, act_fn: str, norm: str, by_norm: bool
) -> None:
    settings = {"act_fn": act_fn, "norm_activation": norm, "sparsity_include_decoder_norm": by_norm}
    made = suites.llama_scope(tmp_path / "x", is_unit=False, **settings)
    sae = load_sae(made.path)
    norms = suites.matrices(is_unit=False)["W_dec"].norm(dim=1) if by_norm and act_fn == "topk" else 1.0
    assert_defined(sae, made, norms)
    assert sae.scale == pytest.approx(SCALE if norm == "dataset-wise" else 1.0)
    assert isinstance(sae.sparsity, {"jumprelu": JumpReLU, "topk": TopK, "relu": ReLU}[act_fn])


@pytest.mark.parametrize("is_old", [True, False], ids=["lm-saes", "llamascopium"])
@pytest.mark.parametrize("act_fn", ["jumprelu", "topk", "batchtopk", "relu"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sparsity_include_decoder_norm": False},
        {"norm_activation": "inference"},
        {"use_decoder_bias": False},
        {"apply_decoder_bias_to_pre_encoder": True},
    ],
    ids=str,
)
def test_llamascopium_of_both_ages_is_read_as_its_definition_says(
    tmp_path: Path, is_old: bool, act_fn: str, changes: dict[str, Any]
) -> None:
    made = suites.llamascopium(tmp_path / "x", is_old=is_old, act_fn=act_fn, **changes)
    by_norm = changes.get("sparsity_include_decoder_norm", True) and act_fn in ("topk", "batchtopk")
    norms = suites.matrices(is_unit=False)["W_dec"].norm(dim=1) if by_norm else 1.0
    assert_defined(load_sae(made.path), made, norms)


def test_a_norm_that_no_file_has_is_told_and_not_guessed(tmp_path: Path) -> None:
    made = suites.llamascopium(tmp_path / "x", is_old=True, has_norm=False)
    with pytest.raises(
        InputError, match=r"expected dataset_average_activation_norm in sae_weights\.safetensors, got"
    ):
        load_sae(made.path)
    assert_defined(load_sae(made.path, scale=SCALE), made)
    for norm in ("dataset-wise", "inference"):
        made = suites.llamascopium(tmp_path / norm, norm_activation=norm)
        with pytest.raises(InputError, match="expected no scale, as its files say it"):
            load_sae(made.path, scale=SCALE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hook_point_out": "blocks.3.mlp"}, "a transcoder from 'blocks.3.hook_resid_post' to 'blocks.3.mlp': it"),
        ({"hook_point_in": None}, "hook_point_in: expected a name, got None"),
        ({"use_glu_encoder": True}, "use_glu_encoder: expected False, got True, which autopsae's SAE cannot expre"),
        ({"norm_activation": "token-wise"}, "expected 'dataset-wise', 'inference', got 'token-wise'"),
        ({"act_fn": "layertopk"}, "act_fn: expected 'relu', 'jumprelu', 'topk', 'batchtopk', got 'layertopk'"),
        ({"sae_type": "crosscoder"}, "sae_type: expected 'sae', got 'crosscoder'"),
        ({"top_k": 0, "act_fn": "topk"}, "top_k: expected a whole number from 1 to 2,147,483,648, got 0"),
        ({"top_k": 99, "act_fn": "topk"}, "expected .* k"),
    ],
)  # fmt: skip
def test_what_of_openmoss_is_no_sae_of_ours_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_sae(suites.llamascopium(tmp_path / "x", **changes).path)
    if "sae_type" not in changes:
        with pytest.raises(InputError, match=message):
            load_sae(suites.llama_scope(tmp_path / "y", **changes).path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_sae": 16}, "d_sae: expected that of the weights, 15, got 16"),
        ({"dataset_average_activation_norm": {"in": 64.0, "out": 3.4}}, "expected one norm for an SAE, got"),
        (
            {"dataset_average_activation_norm": None},
            "expected an object dataset_average_activation_norm, got None",
        ),
        ({"dataset_average_activation_norm": {"in": 0, "out": 0}}, "in: expected a number > 0, got 0"),
        ({"jump_relu_threshold": "high"}, "jump_relu_threshold: expected a number > 0, got 'high'"),
        ({"jump_relu_threshold": -1.0}, "jump_relu_threshold: expected a number > 0, got -1.0"),
    ],
)
def test_a_llama_scope_that_does_not_fit_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_sae(suites.llama_scope(tmp_path / "x", **changes).path)


@pytest.mark.parametrize("activation", ["TopK", "ReLU", None])
def test_openais_topk_saes_take_normalised_tokens_and_its_relu_saes_do_not(
    tmp_path: Path, activation: str | None
) -> None:
    made = suites.openai(tmp_path / "6.pt", activation)
    sae = load_sae(made.path)
    assert sae.layer_norm == (activation == "TopK")
    assert_defined(sae, made)


def test_what_of_openai_may_have_negative_codes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="activation: expected 'ReLU', 'TopK', got 'Identity'"):
        load_sae(suites.openai(tmp_path / "a.pt", "Identity").path)
    with pytest.raises(InputError, match="postact_fn: expected 'ReLU', got 'Identity': its codes may be negative"):
        load_sae(suites.openai(tmp_path / "b.pt", postact_fn="Identity").path)
    with pytest.raises(InputError, match="k: expected a whole number from 1 to 2,147,483,648, got None"):
        load_sae(suites.openai(tmp_path / "c.pt", k=None).path)


@pytest.mark.parametrize("schema", [None, 2, 3, 4, 5])
@pytest.mark.parametrize("activation", ["Relu", "TopK"])
def test_saevs_checkpoints_subtract_b_dec_only_from_before_there_was_a_schema(
    tmp_path: Path, schema: int | None, activation: str
) -> None:
    made = suites.saev(tmp_path / "sae.pt", schema, "Relu" if schema is None else activation)
    assert_defined(load_sae(made.path), made)


@pytest.mark.parametrize("threshold", [2.0, 0.0, -1.0])
def test_saevs_batch_topk_has_learned_a_threshold_or_is_refused(tmp_path: Path, threshold: float) -> None:
    made = suites.saev(tmp_path / "sae.pt", 5, "BatchTopK", threshold=threshold)
    sae = load_sae(made.path)
    assert sae.sparsity == BatchTopK(k=K)
    assert_defined(sae, made)
    made = suites.saev(tmp_path / "old.pt", 2, "BatchTopK")
    with pytest.raises(InputError, match=r"expected activation.threshold for BatchTopK, got none: how it chooses"):
        load_sae(made.path)


def test_saevs_schema_1_says_too_little_unless_b_dec_is_zero(tmp_path: Path) -> None:
    made = suites.saev(tmp_path / "sae.pt", 1, "TopK")
    with pytest.raises(
        InputError, match="expected another schema than 1, under which some versions of saev subtract"
    ):
        load_sae(made.path)
    header, rest = made.path.read_bytes().split(b"\n", 1)
    (tmp_path / "rest").write_bytes(rest)
    state = torch.load(tmp_path / "rest", weights_only=True)
    torch.save({**state, "b_dec": torch.zeros(D_IN)}, tmp_path / "rest")
    made.path.write_bytes(header + b"\n" + (tmp_path / "rest").read_bytes())
    assert load_sae(made.path).sparsity == TopK(k=K)
    with pytest.raises(InputError, match="schema: expected none or 1 to 5, got 6"):
        load_sae(suites.saev(tmp_path / "new.pt", 6).path)


def test_qwen_scope_has_its_k_from_the_repositorys_name_or_is_told(tmp_path: Path) -> None:
    bare = suites.qwen_scope(tmp_path / "layer3.sae.pt")
    with pytest.raises(
        InputError, match="expected one number of active latents per token, which is not in the file"
    ):
        load_sae(bare.path)
    assert_defined(load_sae(bare.path, k=K), bare)
    folder = tmp_path / "models--Qwen--SAE-Res-Qwen3-1.7B-Base-W1K-L0_3" / "snapshots" / "abc"
    made = suites.qwen_scope(folder / "layer3.sae.pt", 1024)
    for path in (made.path, folder):
        assert_defined(load_sae(path), made)
    with pytest.raises(InputError, match="which is not in the file, got 3 and 4; pass k"):
        load_sae(made.path, k=4)
    made = suites.qwen_scope(tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3" / "layer3.sae.pt")
    with pytest.raises(InputError, match=r"expected the 32K latents of SAE-Res-Qwen3-1\.7B-Base-W32K-L0_3, got 15"):
        load_sae(made.path)


def test_a_hook_z_sae_and_its_configuration_say_the_same(tmp_path: Path) -> None:
    made = suites.hook_z(tmp_path / "gpt2.pt")
    (tmp_path / "gpt2_cfg.json").write_text(json.dumps({"act_size": D_IN, "dict_size": 99}))
    with pytest.raises(InputError, match=r"gpt2_cfg\.json: dict_size: expected that of gpt2\.pt, 15"):
        load_sae(made.path)


LOADERS: dict[str, tuple[str, str, str]] = {
    "gemma_scope": ("gemma_2", "google/gemma-scope-2b-pt-res", "layer_3/width_16k/average_l0_9"),
    "gemma_scope_2": ("gemma_3", "google/gemma-scope-2-1b-pt", "resid_post/layer_3_width_16k_l0_small"),
    "llama_scope": ("llama_scope", "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L3R-8x"),
    "lm-saes": ("llama_scope_r1_distill", "fnlp/Llama-Scope-R1-Distill", "400M-Slimpajama/L3R"),
    "qwen_scope": ("qwen_scope", "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_3", "layer3.sae.pt"),
    "hook_z": ("connor_rob_hook_z", "ckkissane/attn-saes-gpt2", "gpt2.pt"),
    "goodfire": ("goodfire", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
}
"""(the name of SAELens' loader, a repository, a folder or file in it)"""
MADE: dict[str, Callable[[Path], Made]] = {
    "gemma_scope": suites.gemma_scope,
    "gemma_scope_2": lambda folder: suites.gemma_scope_2(folder, GEMMA_2),
    "llama_scope": suites.llama_scope,
    "lm-saes": lambda folder: suites.llamascopium(folder, is_old=True, sparsity_include_decoder_norm=False),
    "qwen_scope": lambda path: suites.qwen_scope(path, 1024),
    "hook_z": suites.hook_z,
    "goodfire": suites.goodfire,
}


@torch.no_grad()
@pytest.mark.parametrize("suite", LOADERS)
def test_saelens_loader_of_a_suite_gives_the_same_sae_of_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: str
) -> None:
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("sae_lens is not installed; make test installs it")
    peer = importlib.import_module("tests.interop.saelens_suites")
    loader, repository, inside = LOADERS[suite]
    made = MADE[suite](tmp_path / repository / inside)
    scale = SCALE if suite in ("llama_scope", "lm-saes") else None
    d_sae = 1024 if suite == "qwen_scope" else D_SAE
    run = peer.load(
        monkeypatch, tmp_path, loader, repository, inside, {"d_in": D_IN, "d_sae": d_sae}, norm_scaling_factor=scale
    )
    codes, reconstructions = run(tokens())
    ours = load_sae(made.path)
    assert_same(ours.encode(tokens()), codes)
    assert_same(ours(tokens()), reconstructions)
