"""An SAE, a network, a prescription or a run is never diagnosed as if it were activations."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import autopsae
from autopsae.activations.store import open_layers
from autopsae.arrays import InputError

X = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)) + 1
SAE_TAKES = "`autopsae autopsy` takes it, before the activations"
MODEL_TAKES = "`autopsae harvest` takes the network, and writes its activations"


@pytest.fixture(scope="module")
def diagnosis() -> autopsae.Diagnosis:
    return autopsae.diagnose(X, d_sae=32, k=4)


@pytest.fixture(scope="module")
def sae(diagnosis: autopsae.Diagnosis) -> autopsae.SAE:
    generator = torch.Generator().manual_seed(0)
    return autopsae.born(
        diagnosis.prescription, d_sae=32, sparsity=autopsae.TopK(k=4), sample=X, generator=generator
    )


def refused(path: Path) -> str:
    with pytest.raises(InputError, match="expected activations, got") as caught:
        open_layers(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("library", "what"),
    [
        ("saelens", "an SAE of SAELens"),
        ("dictionary_learning", "an SAE of dictionary_learning"),
        ("sparsify", "an SAE of sparsify"),
    ],
)
def test_an_sae_of_another_library_is_sent_to_the_autopsy(
    tmp_path: Path, sae: autopsae.SAE, library: str, what: str
) -> None:
    autopsae.save_sae(sae.fold(), tmp_path / "sae", to=library)
    message = refused(tmp_path / "sae")
    assert f"got {what}; {SAE_TAKES}" in message
    for file in (tmp_path / "sae").glob("*.safetensors"):
        assert f"got the weights of an SAE; {SAE_TAKES}" in refused(file)


def test_our_own_sae_is_sent_to_the_autopsy(tmp_path: Path, sae: autopsae.SAE) -> None:
    sae.save(tmp_path / "mine")
    assert f"got an SAE; {SAE_TAKES}" in refused(tmp_path)
    assert f"got an SAE; {SAE_TAKES}" in refused(tmp_path / "mine.safetensors")
    (tmp_path / "mine.json").unlink()
    assert f"got the weights of an SAE; {SAE_TAKES}" in refused(tmp_path)


@pytest.mark.parametrize("how", ["mean", "zscore"])
def test_a_prescription_is_sent_to_training(tmp_path: Path, how: str) -> None:
    remedy = (
        autopsae.remedies.center(X.mean(dim=0), "mean")
        if how == "mean"
        else autopsae.remedies.z_score(std=X.double().std(dim=0), point=X.double().mean(dim=0))
    )
    made = autopsae.Prescription(remedy=remedy, reason="", layer="hs0", d_sae=32, sparsity=autopsae.TopK(k=4))
    made.save(tmp_path / "hs0")
    for path in (tmp_path, tmp_path / "hs0.safetensors"):
        assert "got a prescription; `autopsae train ACTIVATIONS --prescription` takes it" in refused(path)
    (tmp_path / "hs0.json").unlink()
    assert "got a prescription" in refused(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["summary.json", "sae.json", "sae.safetensors"],
            "a run of `train`; `autopsae autopsy` takes its SAE, as FOLDER/sae",
        ),
        (["sweep.json"], "a sweep of `train`; `autopsae autopsy` takes one of its SAEs, as FOLDER/NAME/sae"),
        (["checkpoint.safetensors", "records.jsonl"], "an unfinished run of `train`; `autopsae train` finishes it"),
        (["portions.json"], "an unfinished sweep; `autopsae train` finishes it with --resume"),
        (["config.json", "ae.pt"], f"an SAE of dictionary_learning; {SAE_TAKES}"),
        (["params.npz"], f"an SAE (of Gemma Scope); {SAE_TAKES}"),
        (["params.safetensors"], f"an SAE (of Gemma Scope 2); {SAE_TAKES}"),
        (["hyperparams.json"], f"an SAE (of Llama Scope); {SAE_TAKES}"),
        (["config.json", "model.safetensors"], f"a network; {MODEL_TAKES}"),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], f"a network; {MODEL_TAKES}"),
        (["pytorch_model.bin"], f"a network; {MODEL_TAKES}"),
        (["adapter_model.safetensors"], f"a network; {MODEL_TAKES}"),
        (["smollm2-q8.gguf"], f"a network; {MODEL_TAKES}"),
    ],
)
def test_a_folder_is_known_by_the_files_that_lie_beside_each_other(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    # Something that could be read as activations, were the folder not looked at.
    save_file({"x": X}, tmp_path / "x.safetensors")
    assert f"expected activations, got {message}" in refused(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "smollm2-q8.gguf"])
def test_a_network_s_file_is_sent_to_the_harvest(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    assert f"got a network; {MODEL_TAKES}" in refused(tmp_path / name)


def test_a_model_without_weights_is_known_by_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert f"got a network; {MODEL_TAKES}" in refused(tmp_path)


def test_a_model_of_transformers_is_sent_to_the_harvest(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=1, n_positions=8)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert f"got a network; {MODEL_TAKES}" in refused(tmp_path)
    assert MODEL_TAKES in refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["W_enc", "W_dec"], "the weights of an SAE"),
        (["encoder.weight", "decoder.weight", "pre_bias"], "the weights of an SAE"),
        (["W_E", "W_D"], "the weights of an SAE"),
        (["encoder_linear.weight"], "the weights of an SAE"),
        (["h.0.attn.c_attn.weight"], "weights (h.0.attn.c_attn.weight)"),
        (["params/Dense_0/kernel"], "weights (params/Dense_0/kernel)"),
        (["blocks.0.attn.W_Q", "embed.W_E"], "weights (blocks.0.attn.W_Q)"),
        (["layers.0.q_proj.lora_A"], "weights (layers.0.q_proj.lora_A)"),
    ],
)
def test_weights_are_known_by_the_names_of_parameters(tmp_path: Path, names: list[str], what: str) -> None:
    save_file(
        dict.fromkeys(names, X) if len(names) == 1 else dict(zip(names, (X, X + 1, X + 2), strict=False)),
        tmp_path / "x.safetensors",
    )
    assert f"got {what};" in refused(tmp_path / "x.safetensors")
    assert f"got {what};" in refused(tmp_path)


def test_a_checkpoint_is_known_by_its_metadata(tmp_path: Path) -> None:
    save_file({"state.x": X}, tmp_path / "renamed.safetensors", {"about": "{}"})
    assert "got a checkpoint of `train`; `autopsae train` goes on from it with --resume" in refused(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["hs3", "model.layers.3.mlp", "blocks.3.hook_resid_post", "weighted", "bias_free", "encoder", "embeddings"],
)
@pytest.mark.parametrize("beside", [{}, {"config.json": "{}"}, {"notes.json": "broken"}, {"mask.json": "[1]"}])
def test_layers_are_not_taken_for_weights(tmp_path: Path, name: str, beside: dict[str, str]) -> None:
    save_file({name: X}, tmp_path / "x.safetensors")
    for file, content in beside.items():
        (tmp_path / file).write_text(content)
    (tmp_path / "x.json").write_text('{"model": "gpt2"}')
    assert [*open_layers(tmp_path)] == [name]


def test_an_sae_named_without_suffix_is_told_from_a_typing_error(tmp_path: Path) -> None:
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"sae{suffix}").touch()
    with pytest.raises(
        InputError, match="sae: no such file or folder; there is an SAE or a prescription of that name"
    ):
        open_layers(tmp_path / "sae")
    with pytest.raises(InputError, match="sea: no such file or folder; check the name"):
        open_layers(tmp_path / "sea")
