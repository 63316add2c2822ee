"""Files that are damaged, or made to do harm: one clear error, and nothing in them is run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from autopsae.arrays import InputError
from autopsae.interop.convert import load_sae
from autopsae.sae.sparsity import BatchTopK, JumpReLU
from tests.interop.formats import CONFIGS, D_IN, D_SAE, WEIGHTS, an_sae, change_settings, change_tensors, written

OTHERS = ["saelens", "dictionary_learning", "sparsify"]
ALL = [*OTHERS, "autopsae"]
ENCODER = {"saelens": "W_enc", "dictionary_learning": "encoder_0_weight", "sparsify": "encoder_0_weight"}
DEEP = 100_000


def refused(folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(InputError) as raised:
        load_sae(folder)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 700
    assert str(folder) in message
    return message


@pytest.mark.parametrize("library", ALL)
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"text"', "\x00\xff", "[" * DEEP, '{"trainer": []}'], ids=range(9)
)
def test_a_configuration_that_is_no_object(tmp_path: Path, library: str, text: str) -> None:
    folder = written(tmp_path / "x", library)
    (folder / CONFIGS[library]).write_text(text, encoding="latin1")
    assert "expected" in refused(folder)


@pytest.mark.parametrize("library", ALL)
@pytest.mark.parametrize("keep", [0, 1, 7, 100, 600])
def test_weights_that_are_cut_off(tmp_path: Path, library: str, keep: int) -> None:
    folder = written(tmp_path / "x", library)
    path = folder / WEIGHTS[library]
    path.write_bytes(path.read_bytes()[:keep])
    assert ("not the tensors that sae.json describes" if library == "autopsae" else "expected") in refused(folder)


@pytest.mark.parametrize("library", ALL)
def test_a_file_that_is_missing(tmp_path: Path, library: str) -> None:
    for place, name in enumerate((CONFIGS[library], WEIGHTS[library])):
        folder = written(tmp_path / str(place), library)
        (folder / name).unlink()
        assert "expected" in refused(folder)


class Harm:
    """What a pickle may do when it is loaded: here, write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "done")


@pytest.mark.parametrize("how", ["torch", "torch, old", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")  # by PyTorch, of Python's own pickles
def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path, how: str) -> None:
    folder, mark = written(tmp_path / "x", "dictionary_learning"), tmp_path / "mark"
    content = {"encoder.weight": Harm(mark)}
    if how == "pickle":
        (folder / "ae.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, folder / "ae.pt", _use_new_zipfile_serialization=how == "torch")
    assert "expected a torch.save of tensors alone" in refused(folder)
    assert "pickles that hold code are not run" in refused(folder)
    assert not mark.exists()
    torch.load(folder / "ae.pt", weights_only=False) if how != "pickle" else pickle.loads(
        (folder / "ae.pt").read_bytes()
    )
    assert mark.exists()  # it would have


@pytest.mark.parametrize("library", OTHERS)
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (..., "expected tensors"),
        (torch.ones(3), "in floating point, got (3,) of torch.float32"),
        (torch.ones(()), "expected"),
        (torch.ones(0, 0), "expected"),
        (torch.ones(D_SAE, D_IN, dtype=torch.int64), "expected"),
        (torch.full((D_SAE, D_IN), torch.nan), "expected finite weights, got NaN or infinite ones in 90 of 90"),
        (torch.full((D_SAE, D_IN), -torch.inf), "expected finite weights"),
    ],
    ids=["missing", "flat", "scalar", "empty", "int64", "nan", "inf"],
)
def test_an_encoder_that_is_none(tmp_path: Path, library: str, tensor: Any, message: str) -> None:
    folder = written(tmp_path / "x", library)
    if library == "saelens" and isinstance(tensor, torch.Tensor) and tensor.ndim == 2:
        tensor = tensor.T.contiguous()
    change_tensors(folder, library, **{ENCODER[library]: tensor})
    found = refused(folder)
    assert message in found or (library == "dictionary_learning" and "expected the encoder's matrix" in found)


@pytest.mark.parametrize("library", OTHERS)
def test_tensors_that_do_not_belong(tmp_path: Path, library: str) -> None:
    folder = written(tmp_path / "x", library)
    change_tensors(folder, library, W_skip=torch.ones(D_IN, D_IN))
    assert "W_skip" in refused(folder)
    assert "is it the SAE that its configuration describes?" in refused(folder)


@pytest.mark.parametrize("library", OTHERS)
def test_matrices_the_wrong_way_round(tmp_path: Path, library: str) -> None:
    folder = written(tmp_path / "x", library)
    name = "decoder_0_weight" if library == "dictionary_learning" else "W_dec"
    shape = (D_SAE, D_IN) if library == "dictionary_learning" else (D_IN, D_SAE)
    change_tensors(folder, library, **{name: torch.ones(shape)})
    assert f"expected shape {shape[::-1]} in floating point, got {shape}" in refused(folder)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(10**6, 10**6),
        torch.empty(D_SAE, D_IN, device="meta"),
        torch.ones(D_SAE, D_IN).to_sparse(),
        [[1.0] * D_IN] * D_SAE,
    ],
    ids=["expanded", "meta", "sparse", "list"],
)
def test_a_pickled_tensor_that_holds_no_values(tmp_path: Path, tensor: Any) -> None:
    folder = written(tmp_path / "x", "dictionary_learning")
    state = torch.load(folder / "ae.pt", weights_only=True)
    for change in ("encoder.weight", "decoder.weight"):
        torch.save({**state, change: tensor}, folder / "ae.pt")
        assert "expected" in refused(folder)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None, [3], 10**30, float("nan"), float("inf")], ids=str)
@pytest.mark.parametrize("library", OTHERS)
def test_sizes_that_are_none(tmp_path: Path, library: str, value: Any) -> None:
    names = {"saelens": ["d_in", "d_sae", "k"], "sparsify": ["d_in", "k"], "dictionary_learning": ["k"]}
    for name in names[library]:
        folder = written(tmp_path / name, library)
        change_settings(folder, library, **{name: value})
        assert "expected" in refused(folder)


@pytest.mark.parametrize(
    ("library", "changes", "message"),
    [
        ("saelens", {"architecture": "gated"}, "got 'gated': its gate has weights of its own"),
        ("saelens", {"architecture": "matryoshka_batchtopk"}, "its nested groups; save_inference_model writes"),
        ("saelens", {"architecture": "jumprelu_skip_transcoder"}, "it reconstructs other activations"),
        ("saelens", {"architecture": "abstopk"}, "its codes may be negative"),
        ("saelens", {"architecture": "matching_pursuit"}, "it selects latents one after another"),
        ("saelens", {"architecture": "temporal"}, "its codes depend on earlier tokens"),
        ("saelens", {"architecture": ["topk"]}, "expected an architecture of topk, batchtopk, standard or"),
        ("saelens", {"architecture": "standard", "activation_fn": "tanh-relu"}, "expected 'relu', got 'tanh-relu'"),
        ("saelens", {"normalize_activations": "constant_norm_rescale"}, "normalize_activations: expected 'none'"),
        ("saelens", {"dtype": "int8"}, "dtype: expected 'float32', 'float64', 'bfloat16', 'float16', got 'int8'"),
        ("saelens", {"apply_b_dec_to_input": 1}, "apply_b_dec_to_input: expected True, False, got 1"),
        ("saelens", {"rescale_acts_by_decoder_norm": "no"}, "expected True, False, got 'no'"),
        ("dictionary_learning", {"dict_class": "GatedAutoEncoder"}, "got 'GatedAutoEncoder': its gate has weights"),
        ("dictionary_learning", {"dict_class": "MatryoshkaBatchTopKSAE"}, "its nested groups"),
        ("dictionary_learning", {"dict_class": "AutoEncoderNew"}, "its codes contain the norms of the decoder"),
        ("dictionary_learning", {"dict_class": ...}, "expected a dict_class of AutoEncoderTopK, BatchTopKSAE"),
        ("dictionary_learning", {"dict_class": {}}, "expected a dict_class of AutoEncoderTopK, BatchTopKSAE"),
        ("sparsify", {"transcode": True}, "transcode: expected False, got True, which autopsae's SAE"),
        ("sparsify", {"skip_connection": True}, "skip_connection: expected False, got True"),
        ("sparsify", {"signed": True}, "signed: expected False, got True"),
        ("sparsify", {"activation": "x" * 10_000}, "activation: expected 'topk', 'groupmax', got 'xxx"),
        ("sparsify", {"activation": "groupmax", "k": 4}, "cfg.json: GroupMax: expected d_sae that is a multi"),
        ("autopsae", {"sparsity": []}, "sparsity: expected"),
        ("autopsae", {"sparsity": {"name": []}}, "expected topk or groupmax or batch_topk"),
        ("autopsae", {"sparsity": {"name": "topk", "k": "3"}}, "got other content than its checksum says"),
        ("autopsae", {"sparsity": {"name": "topk", "k": 3, "code": "x"}}, "got other content than its checksum"),
        ("autopsae", {"scale": "1"}, "scale: expected a number over 0 and under 1e+308, got '1'"),
        ("autopsae", {"scale": float("nan")}, "scale: expected a number over 0 and under 1e+308"),
        ("autopsae", {"layer_norm": 1}, "layer_norm: expected true or false, got 1"),
        ("autopsae", {"d_sae": None}, "d_sae: expected a whole number from 1 to"),
    ],
)  # fmt: skip
def test_what_our_sae_cannot_express_is_named(
    tmp_path: Path, library: str, changes: dict[str, Any], message: str
) -> None:
    folder = written(tmp_path / "x", library)
    change_settings(folder, library, **changes)
    assert message in refused(folder)


def test_thresholds_are_checked_as_weights_are(tmp_path: Path) -> None:
    folder = written(tmp_path / "sl", "saelens", an_sae(JumpReLU()))
    change_tensors(folder, "saelens", threshold=torch.full((D_SAE,), torch.nan))
    assert "threshold: expected finite weights" in refused(folder)
    folder = written(tmp_path / "dl", "dictionary_learning", an_sae(BatchTopK(k=3), threshold=torch.tensor(0.5)))
    change_tensors(folder, "dictionary_learning", threshold=torch.ones(D_SAE))
    assert "threshold: expected shape () in floating point, got (15,)" in refused(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling_factor": 0}, "scaling_factor: expected a number > 0, got 0"),
        ({"scaling_factor": "2"}, "scaling_factor: expected a number > 0, got '2'"),
        ({"scaling_factor": float("nan")}, "scaling_factor: expected a number > 0, got nan"),
        ({"scaling_factor": 10**400}, "scaling_factor: expected a number > 0, got 1000"),
        ([], "expected a JSON object, got []"),
    ],
)
def test_a_scaler_that_is_none(tmp_path: Path, settings: Any, message: str) -> None:
    folder = written(tmp_path / "x", "saelens")
    (folder / "activation_scaler.json").write_text(json.dumps(settings))
    assert message in refused(folder)


def test_a_scaler_before_layer_norm(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "saelens", an_sae(layer_norm=True))
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    assert "expected no scaler before layer_norm, got one" in refused(folder)


def test_a_whitening_that_is_none(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "saelens")
    (folder / "activation_scaler.json").write_text('{"scaling_factor": null, "has_whitening": true}')
    assert "expected activation_whitening.safetensors beside it, got none" in refused(folder)
    (folder / "activation_whitening.safetensors").write_bytes(b"x")
    assert "expected safetensors, could not read it" in refused(folder)


def test_a_scaling_that_nobody_applies_and_a_backup_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "sl", "saelens")
    change_tensors(folder, "saelens", scaling_factor=torch.full((D_SAE,), 2.0))
    assert "scaling_factor: expected ones, as cfg.json says finetuning_scaling_factor false" in refused(folder)
    folder = written(tmp_path / "dl", "dictionary_learning")
    torch.save({"step": 3, "ae": {}, "optimizer": {}}, folder / "ae.pt")
    assert "got a backup of an unfinished training; finish it" in refused(folder)


def test_folders_that_hold_no_sae_or_two(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "got files of 0 formats; name the folder that holds an SAE's own files" in refused(tmp_path / "empty")
    assert "no such file or folder; check the path of the SAE" in refused(tmp_path / "nowhere")
    folder = written(tmp_path / "x", "sparsify")
    for path in written(tmp_path / "y", "dictionary_learning").iterdir():
        path.rename(folder / path.name)
    assert "got files of 2 formats" in refused(folder)


def test_our_own_weights_are_finite_or_refused(tmp_path: Path) -> None:
    sae = an_sae()
    with torch.no_grad():
        sae.W_enc[3, 2] = torch.nan
    assert "W_enc: expected finite values, got NaN or infinite" in refused(written(tmp_path / "x", "autopsae", sae))
    assert load_sae(written(tmp_path / "y", "autopsae", an_sae(BatchTopK(k=3)))).threshold is None


@pytest.mark.parametrize("stored", [torch.tensor(4), torch.ones(2), torch.tensor(torch.nan), "3"], ids=str)
def test_a_k_that_is_another_in_the_weights(tmp_path: Path, stored: Any) -> None:
    folder = written(tmp_path / "x", "dictionary_learning")
    change_tensors(folder, "dictionary_learning", k=stored)
    assert "config.json: k: expected that of ae.pt" in refused(folder)


def test_names_of_tensors_are_shown_in_one_line(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "sparsify")
    change_tensors(folder, "sparsify", **{"a\nb" * 500: torch.ones(1)})
    assert "expected tensors encoder.weight, encoder.bias, W_dec, b_dec, got ['W_dec', 'a" in refused(folder)
