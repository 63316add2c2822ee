"""Laws of loading networks by name: what a folder says it is, it is loaded as, whole or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from autopsae.activations import harvest, load_model
from autopsae.arrays import InputError
from autopsae.models import ImageNetwork, Network, ProteinNetwork, catalogue, find_entry
from autopsae.models.load import load_other
from tests.activations.test_presets import WORDS, gpt2_folder, words_tokenizer

transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
pytest.importorskip("PIL", reason="needs the extra [images]")

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
ESM_WORDS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


def vision(kind: str, **own: Any) -> Any:
    """(a tiny random vision model, its configuration)."""
    configs = {
        "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config, {"patch_size": 4, "image_size": 8}),
        "dinov2_with_registers": (
            transformers.Dinov2WithRegistersModel,
            transformers.Dinov2WithRegistersConfig,
            {"patch_size": 4, "image_size": 8, "num_register_tokens": 3},
        ),
        "dinov3_vit": (
            transformers.DINOv3ViTModel,
            transformers.DINOv3ViTConfig,
            {"patch_size": 4, "image_size": 8, "num_register_tokens": 4},
        ),
        "vit": (transformers.ViTModel, transformers.ViTConfig, {"patch_size": 4, "image_size": 8}),
    }
    model, config, sizes = configs[kind]
    torch.manual_seed(0)
    return model(config(**SMALL, **sizes, **own)).eval()


def vision_folder(folder: Path, kind: str) -> Any:
    model = vision(kind)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(NORMAL))
    return model


def esm_folder(folder: Path, words: list[str] = ESM_WORDS) -> Any:
    torch.manual_seed(0)
    config = transformers.EsmConfig(
        vocab_size=len(ESM_WORDS),
        **SMALL,
        position_embedding_type="rotary",
        max_position_embeddings=40,
        token_dropout=True,
        mask_token_id=ESM_WORDS.index("<mask>"),
        pad_token_id=1,
    )
    model = transformers.EsmForMaskedLM(config).eval()
    model.save_pretrained(folder)
    (folder / "words.txt").write_text("\n".join(words))
    transformers.EsmTokenizer(str(folder / "words.txt")).save_pretrained(folder)
    return model


def states(network: Network, documents: list[Any], context: int, folder: Path) -> dict[str, torch.Tensor]:
    """All hidden states of one batch, as a harvest keeps them."""
    pieces = [piece for n, document in enumerate(documents) for piece in network.pieces(document, f"{n}", context)]
    layers = harvest(network.model, [network.batch(pieces, context)], folder, points=network.points)
    sizes = sum(network.size(piece, context) for piece in pieces)
    tokens = {point: torch.cat(list(layer)) for point, layer in layers.items()}
    assert {len(layer) for layer in tokens.values()} == {sizes}
    return tokens


# Images


@pytest.mark.parametrize(
    ("kind", "special"), [("dinov2", 1), ("dinov2_with_registers", 4), ("dinov3_vit", 5), ("vit", 1)]
)
def test_a_vision_transformer_is_loaded_from_its_folder_with_its_own_colours(
    kind: str, special: int, tmp_path: Path
) -> None:
    model = vision_folder(tmp_path / "model", kind)
    network = load_other(str(tmp_path / "model"))
    assert isinstance(network, ImageNetwork)
    assert network.modality == "image"
    assert not network.model.training
    assert network.points == ["hs0", "hs1", "hs2"]
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    tokens = states(network, [image, image[::-1].copy()], 16, tmp_path / "out")
    assert network.size(None, 16) == 16 + special
    pixels = torch.from_numpy(np.stack([image, image[::-1]])).permute(0, 3, 1, 2) / 255
    more = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        by_hand = model(pixel_values=(pixels - 0.5) / 0.25, output_hidden_states=True, **more)
    for point, expected in zip(("hs0", "hs1", "hs2"), by_hand.hidden_states, strict=True):
        assert torch.allclose(tokens[point], expected.flatten(0, 1), atol=1e-4), point


def test_a_vision_transformer_without_its_colours_or_weights_is_refused(tmp_path: Path) -> None:
    vision_folder(tmp_path, "dinov2")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(
        InputError, match=r"expected preprocessor_config.json beside the weights, .* get it from the m"
    ):
        load_other(str(tmp_path))
    vision_folder(tmp_path, "dinov2")
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("encoder.layer.1.mlp.fc1.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"expected all weights of the model, got none for 1 of them, such as enc"):
        load_other(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [("image_std", [0.5, 0.0, 0.5]), ("image_std", None), ("image_mean", [0.5]), ("image_mean", ["0.5"] * 3)],
)
def test_colours_that_are_no_three_numbers_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    vision_folder(tmp_path, "dinov2")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**NORMAL, key: value}))
    with pytest.raises(InputError, match=rf"preprocessor_config.json: {key}: expected three numbers over \S+, got"):
        load_other(str(tmp_path))


# Proteins


def test_esm_is_loaded_from_its_folder_and_padding_changes_nothing(tmp_path: Path) -> None:
    model = esm_folder(tmp_path / "model")
    network = load_other(str(tmp_path / "model"))
    assert isinstance(network, ProteinNetwork)
    assert network.modality == "protein"
    assert network.points == ["hs0", "hs1", "hs2"]
    proteins = ["MKTAYJAK", "MK"]
    tokens = states(network, proteins, 38, tmp_path / "out")
    rows = []
    for protein in proteins:
        ids = [0, *(ESM_WORDS.index(a) if a in ESM_WORDS else 3 for a in protein), 2]
        with torch.no_grad():
            rows.append(model.esm(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states)
    for layer, point in enumerate(("hs0", "hs1", "hs2")):
        expected = torch.cat([of_protein[layer][0] for of_protein in rows])
        assert torch.allclose(tokens[point], expected, atol=1e-5), point
    with pytest.raises(InputError, match=r"context: expected 1 to 38 letters for .*, got 39"):
        network.pieces("MK", "a", 39)


def test_esm_of_other_words_is_refused(tmp_path: Path) -> None:
    esm_folder(tmp_path, [word for word in ESM_WORDS if word not in "WC"])
    with pytest.raises(
        InputError, match=r"a token for each amino acid, but C, W have none; is it a network of prot"
    ):
        load_other(str(tmp_path))


def test_another_type_and_device_are_those_asked_for(tmp_path: Path) -> None:
    esm_folder(tmp_path)
    network = load_other(str(tmp_path), dtype=torch.float64)
    assert network is not None
    assert {weight.dtype for weight in network.model.parameters()} == {torch.float64}
    with pytest.raises(InputError, match=r"device 'nowhere': expected one that computes in float32"):
        load_other(str(tmp_path), device="nowhere")


# Stable Diffusion


def diffusion_folder(folder: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs the extra [diffusers]")
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        out_channels=4,
        pos_embed_max_size=8,
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        shift_factor=0.1,
        scaling_factor=1.5,
    )
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))


def test_stable_diffusion_is_loaded_from_its_folder_and_its_tokens_are_those_of_the_image(tmp_path: Path) -> None:
    diffusion_folder(tmp_path / "model")
    network = load_other(str(tmp_path / "model"))
    assert isinstance(network, ImageNetwork)
    assert network.points == [f"transformer.transformer_blocks.{n}:input" for n in (1, 2)]
    images = list(np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8))
    # 2 x 2 pixels make a latent, and 2 x 2 latents a token.
    assert network.size(None, 16) == 16
    tokens = states(network, images, 16, tmp_path / "out")
    assert {layer.shape for layer in tokens.values()} == {(32, 16)}
    alone = states(network, images[1:], 16, tmp_path / "alone")
    for point, layer in tokens.items():
        assert torch.allclose(layer[16:], alone[point], atol=1e-4), point
        assert not torch.allclose(layer[:16], layer[16:], atol=1e-2)
    entry = find_entry("stabilityai/stable-diffusion-3.5-large")
    assert entry is not None
    assert network.points == list(entry.points[:2])


def test_stable_diffusion_without_a_part_is_refused(tmp_path: Path) -> None:
    diffusion_folder(tmp_path)
    (tmp_path / "vae" / "config.json").unlink()
    with pytest.raises(
        InputError, match="expected a pipeline of Stable Diffusion 3, but diffusers could not load it"
    ):
        load_other(str(tmp_path))


# Text, and what is no network


def test_text_is_left_to_the_loader_of_text(tmp_path: Path) -> None:
    assert load_other(str(gpt2_folder(tmp_path / "gpt2"))) is None
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for name in ("smollm2", "gpt2", "EleutherAI/pythia-410m", "bert-base-uncased", str(tmp_path / "model.gguf")):
        assert load_other(name) is None, name
    (tmp_path / "nothing").mkdir()
    assert load_other(str(tmp_path / "nothing")) is None


def gpt_neox() -> Any:
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(vocab_size=len(WORDS), **SMALL))


def modern_bert() -> Any:
    ids = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.ModernBertConfig(vocab_size=len(WORDS), **SMALL, **ids)
    return transformers.ModernBertForMaskedLM(config)


@pytest.mark.parametrize(("build", "body"), [(gpt_neox, "gpt_neox"), (modern_bert, "model")])
def test_the_papers_text_models_are_loaded_by_the_loader_of_text(build: Any, body: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build().eval()
    model.save_pretrained(tmp_path)
    words_tokenizer(bos_token="<s>", pad_token="[UNK]").save_pretrained(tmp_path)
    assert load_other(str(tmp_path)) is None
    loaded = load_model(str(tmp_path))
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        one = loaded.model(ids, output_hidden_states=True).hidden_states
        other = getattr(model, body)(ids, output_hidden_states=True).hidden_states
    assert len(one) == 3
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


def test_a_network_that_is_only_described_says_where() -> None:
    described = [entry for entry in catalogue() if entry.how == "described"]
    assert [entry.name for entry in described] == [
        "esm3",
        "progen2-large",
        "progen2-base",
        "glm2-650m",
        "alphafold3",
        "evo1",
    ]
    for entry in described:
        with pytest.raises(InputError, match=rf"{entry.name}: .* docs/models.md says what to hook and how"):
            load_other(entry.name)


def test_a_misspelt_name_of_the_catalogue_is_told_at_once() -> None:
    with pytest.raises(InputError, match=r"unknown model 'esm2-650'; did you mean 'esm2-650m'\?"):
        load_other("esm2-650")


def test_a_hub_model_that_cannot_be_reached_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # As without a network, but without the client's minute of retries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", "dinov2-base"):
        with pytest.raises(InputError, match=rf"{name}: .* check the name, and for a Hub model the connection"):
            load_other(name)


def test_a_model_with_code_of_its_own_is_left_to_the_loader_of_text_which_refuses_it(tmp_path: Path) -> None:
    own = {"AutoConfig": "conf.C", "AutoModel": "modeling.M"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": own}))
    assert load_other(str(tmp_path)) is None
