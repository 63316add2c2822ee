"""What needs none of the libraries: ours to each format and back, refusals, the hub, whole folders."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from autopsae.arrays import InputError
from autopsae.interop import saelens
from autopsae.interop.convert import format_of, load_sae, save_sae
from autopsae.remedies.affine import Affine
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, GroupMax, JumpReLU, ReLU, Sparsity, TopK
from tests.interop.formats import D_IN, D_SAE, K, an_sae, change_settings, change_tensors, tokens, written

pytestmark = pytest.mark.quick

FORMATS = ["autopsae", "saelens", "dictionary_learning", "sparsify"]
LEARNED = {"threshold": torch.tensor(0.7)}


def assert_same(one: SAE, other: SAE) -> None:
    x = tokens()
    assert torch.allclose(one.encode(x), other.encode(x), atol=1e-5)
    assert torch.allclose(one(x), other(x), atol=1e-5)


@pytest.mark.parametrize(
    ("to", "sparsity"),
    [(to, TopK(k=K)) for to in FORMATS]
    + [
        ("sparsify", GroupMax(k=K)),
        ("saelens", ReLU()),
        ("saelens", JumpReLU()),
        ("dictionary_learning", JumpReLU()),
    ],
    ids=str,
)
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_written_is_read_as_the_same_sae(tmp_path: Path, to: str, sparsity: Sparsity, bias: bool) -> None:
    maps = {"affine": Affine(center=torch.linspace(-1, 1, D_IN), scale=0.7)}
    sae = an_sae(sparsity, **maps, **({} if bias else {"b_enc": None}))
    found = load_sae(written(tmp_path / "out", to, sae))
    assert found.sparsity == sparsity
    assert not found.training
    assert_same(found, sae)


def test_batch_topk_keeps_its_threshold_and_is_a_jumprelu_for_saelens(tmp_path: Path) -> None:
    sae = an_sae(BatchTopK(k=K), **LEARNED)
    found = load_sae(written(tmp_path / "dl", "dictionary_learning", sae))
    assert found.sparsity == BatchTopK(k=K)
    assert_same(found, sae)
    found = load_sae(written(tmp_path / "sl", "saelens", sae))
    assert found.threshold is not None
    assert torch.allclose(found.threshold, torch.full((D_SAE,), 0.7))
    assert_same(found, sae)


def test_dictionary_learning_gets_unit_rows_for_relu_and_a_latent_without_a_row_never_fires(tmp_path: Path) -> None:
    sae = an_sae(ReLU())
    with torch.no_grad():
        sae.W_dec[4] = 0
    found = load_sae(written(tmp_path / "dl", "dictionary_learning", sae))
    assert torch.allclose(found.W_dec.norm(dim=1), torch.ones(D_SAE))
    x = tokens()
    assert torch.allclose(found.encode(x), sae.encode(x) * sae.W_dec.norm(dim=1), atol=1e-5)
    assert torch.allclose(found(x), sae(x), atol=1e-5)
    assert not bool(found.encode(x)[:, 4].any())


def test_bfloat16_stays_and_float16_becomes_float32(tmp_path: Path) -> None:
    for to in FORMATS:
        assert load_sae(written(tmp_path / to, to, an_sae().to(torch.bfloat16))).W_enc.dtype == torch.bfloat16
    half = {
        name: t.half() for name, t in load_file(written(tmp_path / "half", "sparsify") / "sae.safetensors").items()
    }
    change_tensors(tmp_path / "half", "sparsify", **{name.replace(".", "_0_"): t for name, t in half.items()})
    found = load_sae(tmp_path / "half")
    assert found.W_enc.dtype == torch.float32
    assert torch.equal(found.W_enc, half["encoder.weight"].float())


@pytest.mark.parametrize("by_norm", [False, True])
def test_the_norms_of_saelens_are_in_the_codes_and_so_in_the_encoder(tmp_path: Path, by_norm: bool) -> None:
    sae = an_sae()
    folder = written(tmp_path / "sl", "saelens", sae)
    change_settings(folder, "saelens", rescale_acts_by_decoder_norm=by_norm, apply_b_dec_to_input=False)
    found, x = load_sae(folder), tokens()
    assert sae.b_enc is not None
    pre = (x @ sae.W_enc.T + sae.b_enc) * (sae.W_dec.norm(dim=1) if by_norm else 1)
    codes = torch.zeros_like(pre).scatter(1, pre.topk(K).indices, pre.topk(K).values.relu())
    assert torch.allclose(found.encode(x), codes, atol=1e-5)
    rows = sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True) if by_norm else sae.W_dec
    assert torch.allclose(found(x), codes @ rows + sae.b_dec, atol=1e-5)


def test_thresholds_of_zero_and_less_let_all_positive_latents_fire(tmp_path: Path) -> None:
    folder = written(tmp_path / "sl", "saelens", an_sae(JumpReLU()))
    change_tensors(folder, "saelens", threshold=torch.linspace(-1, 0, D_SAE))
    assert_same(load_sae(folder), an_sae(ReLU()))


def test_older_files_say_the_same_in_other_words(tmp_path: Path) -> None:
    """SAELens' thresholds were stored as logarithms, and sparsify's width as a multiple of d_in."""
    sae = an_sae(JumpReLU())
    assert sae.threshold is not None
    folder = written(tmp_path / "sl", "saelens", sae)
    change_tensors(folder, "saelens", threshold=..., log_threshold=sae.threshold.detach().log())
    assert_same(load_sae(folder), sae)
    wide = SAE(
        W_enc=torch.eye(4).repeat(2, 1), W_dec=torch.eye(4).repeat(2, 1), b_dec=torch.ones(4), sparsity=TopK(k=2)
    )
    folder = written(tmp_path / "sp", "sparsify", wide)
    change_settings(folder, "sparsify", num_latents=0, expansion_factor=2, activation=...)
    assert torch.equal(load_sae(folder).W_enc, wide.W_enc)


def test_version_5_of_saelens_named_top_k_an_activation_function(tmp_path: Path) -> None:
    folder = written(tmp_path / "sl", "saelens")
    (folder / "cfg.json").write_text(
        json.dumps(
            {
                "d_in": D_IN,
                "d_sae": D_SAE,
                "dtype": "torch.float32",
                "architecture": "standard",
                "activation_fn_str": "topk",
                "activation_fn_kwargs": {"k": K},
                "normalize_activations": False,
                "hook_name": "blocks.0.hook_resid_pre",
            }
        )
    )
    change_tensors(folder, "saelens", scaling_factor=torch.ones(D_SAE))
    assert_same(load_sae(folder), an_sae())


def test_a_scaler_beside_a_checkpoint_is_part_of_the_sae(tmp_path: Path) -> None:
    folder = written(tmp_path / "sl", "saelens")
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 2.5, "has_whitening": False}))
    assert_same(load_sae(folder), an_sae(affine=Affine(center=torch.zeros(D_IN), scale=2.5)))


def test_layer_norm_goes_to_saelens_and_back(tmp_path: Path) -> None:
    sae = an_sae(layer_norm=True, affine=Affine(center=torch.linspace(-1, 1, D_IN), scale=0.7))
    found = load_sae(written(tmp_path / "sl", "saelens", sae))
    assert found.layer_norm
    assert_same(found, sae)


def test_our_own_pair_is_found_by_name_and_in_the_folder_of_its_training(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", "autopsae")
    for path in (folder, folder / "sae", str(folder / "sae.json")):
        assert_same(load_sae(path), an_sae())


def test_names_are_stored_where_there_is_a_place(tmp_path: Path) -> None:
    names = {"model_name": "gpt2", "hook_name": "blocks.0.hook_resid_pre"}
    save_sae(an_sae(), tmp_path / "sl", to="saelens", **names)
    metadata = json.loads((tmp_path / "sl" / "cfg.json").read_text())["metadata"]
    assert metadata == {"sae_lens_version": saelens.VERSION, **names}
    save_sae(an_sae(), tmp_path / "dl", to="dictionary_learning", **names)
    trainer = json.loads((tmp_path / "dl" / "config.json").read_text())["trainer"]
    assert (trainer["lm_name"], trainer["submodule_name"]) == tuple(names.values())
    with pytest.raises(InputError, match="expected no model_name or hook_name, as sparsify has no place for them"):
        save_sae(an_sae(), tmp_path / "sp", to="sparsify", **names)


@pytest.mark.parametrize(
    ("to", "sae", "message"),
    [
        (
            "sparsify",
            an_sae(JumpReLU()),
            "sparsify: expected topk or groupmax, got jumprelu, for which it has no thr",
        ),
        ("sparsify", an_sae(ReLU()), "sparsify: expected topk or groupmax, got relu"),
        ("sparsify", an_sae(BatchTopK(k=K), **LEARNED), "sparsify: expected topk or groupmax, got batch_topk"),
        ("sparsify", an_sae(layer_norm=True), "sparsify: expected an SAE of tokens as they are, got layer_norm"),
        (
            "dictionary_learning",
            an_sae(layer_norm=True),
            "dictionary_learning: expected an SAE of tokens as they are",
        ),
        ("dictionary_learning", an_sae(GroupMax(k=K)), "dictionary_learning: expected no groupmax"),
        (
            "dictionary_learning",
            an_sae(BatchTopK(k=K)),
            "has learned its threshold, got one that has not; train it",
        ),
        ("saelens", an_sae(BatchTopK(k=K)), "SAELens: expected a BatchTopK SAE that has learned its threshold"),
        ("saelens", an_sae(GroupMax(k=K)), "SAELens: expected topk, batch_topk, relu or jumprelu, got groupmax"),
        ("pickle", an_sae(), "expected a format of autopsae, saelens, dictionary_learning, sparsify, got 'pickle'"),
    ],
)
def test_what_a_library_cannot_express_is_refused_with_the_reason_and_nothing_is_written(
    tmp_path: Path, to: str, sae: SAE, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save_sae(sae, tmp_path / "out", to=to)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_already_stays_as_it_is(tmp_path: Path, to: str) -> None:
    folder = written(tmp_path / "out", to)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="expected a new"):
        written(folder, to, an_sae(TopK(k=1)))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("to", FORMATS[1:])
def test_a_failure_in_the_midst_of_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(f"autopsae.interop.{to}.write_text", full)
    with pytest.raises(OSError, match="no space"):
        written(tmp_path / "out", to)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_on_the_hub_is_fetched_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "layers.3", "sparsify")
    asked = []

    def snapshot_download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert_same(load_sae("hf:owner/repo/layers.3"), an_sae())
    [(repository, patterns)] = asked
    assert repository == "owner/repo"
    assert {"layers.3/cfg.json", "layers.3/sae.safetensors", "layers.3/ae.pt"} < set(patterns)
    assert not any("*" in pattern for pattern in patterns)
    written(tmp_path / "top", "saelens")
    for path in (tmp_path / "top").iterdir():
        path.rename(tmp_path / path.name)
    assert_same(load_sae("hf:owner/repo"), an_sae())


@pytest.mark.parametrize(
    "name", ["owner", "owner/", "/repo", "owner/repo/", "owner/repo/../..", "owner/repo//x", ""]
)
def test_a_name_that_is_none_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"hf:{name}: expected hf:owner/repository"):
        load_sae(f"hf:{name}")


def test_the_hubs_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise ConnectionError("offline\nand more")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(InputError) as raised:
        load_sae("hf:owner/repo")
    assert str(raised.value) == (
        "hf:owner/repo: could not be fetched (ConnectionError: offline): no connection; "
        "check the network, and HF_ENDPOINT if it is set"
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        InputError, match=r"expected the package huggingface_hub \(.*\); pip install 'autopsae\[hub\]'"
    ):
        load_sae("hf:owner/repo")


@pytest.mark.parametrize("suffix", ["", ".json", ".safetensors"])
def test_our_pair_is_not_written_over_by_any_of_its_names(tmp_path: Path, suffix: str) -> None:
    save_sae(an_sae(), tmp_path / "old", to="autopsae")
    before = (tmp_path / "old.safetensors").read_bytes()
    for other in (an_sae(b_dec=torch.ones(D_IN)), an_sae(TopK(k=1))):
        with pytest.raises(InputError, match="expected a new name, got one that is taken"):
            save_sae(other, tmp_path / f"old{suffix}", to="autopsae")
    # A process that was killed after the whole pair was written can be run again.
    save_sae(an_sae(), tmp_path / f"old{suffix}", to="autopsae")
    assert (tmp_path / "old.safetensors").read_bytes() == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="expected a new name, got one that is taken"):
        save_sae(an_sae(), tmp_path / "folder", to="autopsae")


@pytest.mark.parametrize("library", FORMATS)
def test_the_library_that_wrote_a_folder_is_told_from_its_files(tmp_path: Path, library: str) -> None:
    folder = written(tmp_path / "an_sae", library)
    assert format_of(folder) == library
    # The other's configuration has another name: config.json here, cfg.json there.
    other = written(tmp_path / "other", "sparsify" if library == "dictionary_learning" else "dictionary_learning")
    for file in other.iterdir():
        file.rename(folder / file.name)
    with pytest.raises(InputError, match="expected the folder of one SAE"):
        format_of(folder)


def test_a_name_of_ours_was_written_by_us(tmp_path: Path) -> None:
    an_sae().save(tmp_path / "mine")
    assert format_of(tmp_path / "mine") == "autopsae"


def test_a_pair_of_which_a_kill_left_the_tensors_is_completed_and_another_s_is_not(tmp_path: Path) -> None:
    save_sae(an_sae(), tmp_path / "whole", to="autopsae")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "new.safetensors").write_bytes(tensors)
    save_sae(an_sae(), tmp_path / "new", to="autopsae")
    assert (tmp_path / "new.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    (tmp_path / "other.safetensors").write_bytes(tensors[:-1] + bytes([tensors[-1] ^ 1]))
    (tmp_path / "foreign.safetensors").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("other", "foreign"):
        with pytest.raises(InputError, match="expected a new name, got one that is taken"):
            save_sae(an_sae(), tmp_path / name, to="autopsae")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("to", ["saelens", "sparsify", "dictionary_learning"])
def test_the_files_of_one_sae_are_the_same_bytes_and_readable_as_the_umask_says(tmp_path: Path, to: str) -> None:
    for name in ("a", "b"):
        save_sae(an_sae(), tmp_path / name, to=to)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second
    umask = os.umask(0)
    os.umask(umask)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "a").iterdir()} == {0o666 & ~umask}
    # Whoever runs it again after it was killed at the very end is told that all is well.
    save_sae(an_sae(), tmp_path / "a", to=to)
