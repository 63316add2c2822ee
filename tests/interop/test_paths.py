"""What a user may name instead of an SAE's folder: loaded where that is clear, else one line that helps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autopsae.arrays import InputError
from autopsae.interop import checks
from autopsae.interop.convert import format_of, load_sae
from autopsae.interop.layouts import LAYOUTS
from autopsae.sae.sparsity import JumpReLU
from tests.interop import suites
from tests.interop.formats import D_IN, WEIGHTS, an_sae, change_settings, change_tensors, tokens, written


def refused(path: Path | str, **told: Any) -> str:
    """The one line with which a path is refused."""
    with pytest.raises(InputError) as raised:
        load_sae(path, **told)
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 800
    assert "save it again" not in message
    return message


@pytest.mark.parametrize("library", ["saelens", "dictionary_learning", "sparsify", "autopsae"])
def test_any_file_of_an_sae_leads_to_its_folder(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "x", library)
    for file in folder.iterdir():
        assert torch.allclose(load_sae(file)(tokens()), an_sae()(tokens()), atol=1e-5)
    monkeypatch.chdir(folder)
    assert torch.allclose(load_sae(WEIGHTS[library])(tokens()), an_sae()(tokens()), atol=1e-5)


@pytest.mark.parametrize("suite", ["gemma_scope", "gemma_scope_2", "llama_scope", "llamascopium"])
def test_any_file_of_a_suites_folder_leads_to_it(tmp_path: Path, suite: str) -> None:
    made = suites.ALL[suite](tmp_path)
    files = [file for file in made.path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert torch.equal(load_sae(file).W_enc, load_sae(made.path).W_enc)


@pytest.mark.parametrize("suite", ["openai", "saev", "qwen_scope", "goodfire", "hook_z"])
def test_a_folder_with_one_file_that_is_an_sae_is_that_file(tmp_path: Path, suite: str) -> None:
    made = suites.ALL[suite](tmp_path)
    assert torch.equal(load_sae(made.path.parent).W_enc, load_sae(made.path).W_enc)
    shutil.copy(made.path, made.path.with_name(f"another{made.path.suffix}"))
    assert "got several files: [" in refused(made.path.parent)
    assert refused(made.path.parent).endswith("; name one of them")


def test_what_is_not_there_what_is_not_whole_and_what_is_damaged_are_three_messages(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == f"{tmp_path}/nowhere: no such file or folder; check the path of the SAE"
    folder = written(tmp_path / "x", "dictionary_learning")
    (folder / "config.json").rename(tmp_path / "config.json")
    assert refused(folder) == (
        f"{folder}: expected the folder of one SAE, got ae.pt without config.json (dictionary_learning); get the "
        "missing file"
    )
    assert refused(folder / "ae.pt") == (
        f"{folder}/ae.pt: expected config.json with it, as dictionary_learning writes, got none; name the folder "
        "that holds all files of the SAE"
    )
    (tmp_path / "config.json").rename(folder / "config.json")
    (folder / "ae.pt").write_bytes(b"x" * 100)
    for path in (folder, folder / "ae.pt"):
        with pytest.raises(InputError, match=f"{folder}/ae.pt: expected a torch.save of tensors alone, could not"):
            load_sae(path)


def test_a_folder_whose_files_are_of_two_formats_names_both(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "sparsify")
    suites.gemma_scope(tmp_path / "y")
    (tmp_path / "y" / "params.npz").rename(folder / "params.npz")
    assert "got files of 2 formats: sparsify (cfg.json, sae.safetensors) and Gemma Scope (params.npz)" in refused(
        folder
    )


@pytest.mark.parametrize("library", ["saelens", "dictionary_learning", "sparsify", "autopsae"])
def test_the_library_that_wrote_an_sae_is_told_from_its_files(tmp_path: Path, library: str) -> None:
    folder = written(tmp_path / "x", library)
    for path in (folder, *folder.iterdir()):
        assert format_of(path) == library
    suites.gemma_scope(tmp_path / "y")
    (tmp_path / "y" / "params.npz").rename(folder / "params.npz")
    with pytest.raises(InputError, match="expected the folder of one SAE, got files of 2 formats"):
        format_of(folder)


@pytest.mark.parametrize("suite", suites.ALL)
def test_saes_of_suites_are_nobodys_to_train(tmp_path: Path, suite: str) -> None:
    made = suites.ALL[suite](tmp_path)
    assert format_of(made.path) == "autopsae"
    if made.path.is_file():
        assert format_of(made.path.parent) == "autopsae"


def test_half_a_folder_names_what_it_lacks(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "saelens")
    (folder / "sae_weights.safetensors").unlink()
    assert "got cfg.json without sae_weights.safetensors (SAELens) or cfg.json without sae.safetensors" in refused(
        folder
    )


def activations(folder: Path) -> Path:
    folder.mkdir()
    save_file({"hs3": torch.ones(9, D_IN)}, folder / "shard_00000.safetensors")
    (folder / "index.json").write_text("{}")
    return folder


def test_activations_and_models_are_named_with_the_verb_that_takes_them(tmp_path: Path) -> None:
    place = activations(tmp_path / "acts")
    assert f"got activations; `autopsae diagnose {place}` takes them" in refused(place)
    np.save(tmp_path / "x.npy", np.ones((9, D_IN), np.float32))
    assert f"got activations; `autopsae diagnose {tmp_path}/x.npy` takes them" in refused(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", x=np.ones((9, D_IN), np.float32))
    assert "got arrays; call the file params.npz if it is Gemma Scope's" in refused(tmp_path / "x.npz")
    torch.save(torch.ones(9, D_IN), tmp_path / "x.pt")
    message = "expected a state_dict of tensors (`autopsae diagnose` takes activations), got Tensor"
    assert message in refused(tmp_path / "x.pt")
    file = place / "shard_00000.safetensors"
    assert "got tensors that no configuration describes; name the folder of an SAE" in refused(file)
    assert f"`autopsae diagnose {file}` takes them" in refused(file)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["Llama"]}))
    for path in (model, model / "config.json"):
        assert "got a model; `autopsae harvest" in refused(path) or "another file" in refused(path)
    assert f"got a model; `autopsae harvest {model} OUT` makes activations of it" in refused(model)
    (model / "model.safetensors").write_bytes(b"x")
    assert "got a model" in refused(model)


def test_a_run_of_several_saes_asks_for_one_and_an_empty_folder_lists_what_is_known(tmp_path: Path) -> None:
    for layer in ("layers.3", "layers.4"):
        written(tmp_path / "run" / layer, "sparsify")
    assert "got a folder of folders: ['layers.3', 'layers.4']; name one of them" in refused(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert "got files of 0 formats" in refused(tmp_path / "empty")
    assert "params.npz (Gemma Scope)" in refused(tmp_path / "empty")


def test_a_state_dict_that_nothing_describes_names_its_tensors(tmp_path: Path) -> None:
    torch.save({"W": torch.ones(2), "b": torch.ones(2)}, tmp_path / "ae_1000.pt")
    assert "(of OpenAI, Goodfire, Qwen-Scope or saev), got tensors ['W', 'b']; name" in refused(
        tmp_path / "ae_1000.pt"
    )
    made = suites.qwen_scope(tmp_path / "layer3.pt")  # of the right names, but not called *.sae.pt
    assert "got tensors ['W_dec', 'W_enc', 'b_dec', 'b_enc']" in refused(made.path, k=3)


def test_pipes_devices_broken_links_and_impossible_names_end_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        assert "expected a folder or a file, got neither" in refused(path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "expected a folder or a file, got neither" in refused(tmp_path / "link")
    assert "could not read it (OSError" in refused(tmp_path / ("x" * 300))
    assert "no such file" in refused("x\0y")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.library)
def test_a_layout_is_not_told_what_its_files_say(tmp_path: Path, layout: Any) -> None:
    for file in layout.files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    for name in {"scale", "k"} - {*layout.told}:
        message = refused(tmp_path, **{name: 3 if name == "k" else 3.0})
        assert f"expected no {name}, as its files say everything; leave it out" in message


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none(tmp_path: Path, scale: float) -> None:
    assert "load_sae: expected a scale > 0 and under 1e+15, got" in refused(tmp_path, scale=scale)


@pytest.mark.parametrize("k", [0, -1, True])
def test_a_k_that_is_none(tmp_path: Path, k: int) -> None:
    assert f"load_sae: expected k >= 1, got {k}" in refused(tmp_path, k=k)


def test_a_file_on_the_hub_is_fetched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = suites.openai(tmp_path / "resid" / "6.pt")
    asked = []

    def snapshot_download(repository: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    hub = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert torch.equal(load_sae("hf:owner/repo/resid/6.pt").W_enc, load_sae(made.path).W_enc)
    assert asked == [["resid/6.pt"]]
    assert "hf:owner/repo/7.pt: expected one of 7.pt there, got none; check the name" in refused(
        "hf:owner/repo/7.pt"
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("library", ["saelens", "dictionary_learning", "sparsify"])
def test_narrow_weights_are_read_as_the_numbers_that_they_are(
    tmp_path: Path, library: str, dtype: torch.dtype
) -> None:
    folder = written(tmp_path / "x", library)
    name, is_turned = ("W_enc", True) if library == "saelens" else ("encoder_0_weight", False)
    narrow = an_sae().W_enc.detach().to(dtype)
    change_tensors(folder, library, **{name: narrow.T.contiguous() if is_turned else narrow})
    found = load_sae(folder)
    assert torch.equal(found.W_enc.float(), narrow.float())
    assert found.W_enc.dtype == (torch.bfloat16 if dtype == torch.bfloat16 and not is_turned else torch.float32)


def test_weights_that_pytorch_stores_and_does_not_read_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "sparsify")
    packed = torch.zeros(15, D_IN, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    state = {"encoder.weight": packed}
    with pytest.raises(InputError, match=r"encoder\.weight: expected weights that PyTorch computes with, got"):
        checks.take_tensors(state, {"encoder.weight": (15, D_IN)}, folder)


@pytest.mark.parametrize("library", ["saelens", "dictionary_learning", "sparsify"])
@pytest.mark.parametrize(("size", "is_refused"), [(1e38, True), (1.1e15, True), (0.9e15, False)])
def test_weights_with_which_nothing_would_be_finite_are_refused(
    tmp_path: Path, library: str, size: float, is_refused: bool
) -> None:
    folder = written(tmp_path / "x", library)
    name = "decoder_0_weight" if library == "dictionary_learning" else "W_dec"
    shape = (D_IN, 15) if library == "dictionary_learning" else (15, D_IN)
    change_tensors(folder, library, **{name: torch.full(shape, size)})
    if is_refused:
        assert "W_dec: expected weights under 1e+15, got 1" in refused(folder)
    else:
        assert bool(load_sae(folder)(1000 * tokens()).isfinite().all())


def test_our_own_weights_and_scale_are_no_exception(tmp_path: Path) -> None:
    sae = an_sae()
    with torch.no_grad():
        sae.W_enc[3, 2] = 1e38
    assert "W_enc: expected weights under 1e+15, got 1.0e+38" in refused(written(tmp_path / "x", "autopsae", sae))
    sae = an_sae()
    sae.scale = 1e30
    assert "scale: expected weights under 1e+15, got 1.0e+30" in refused(written(tmp_path / "y", "autopsae", sae))


def test_thresholds_over_every_number_are_those_of_latents_that_never_fire(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", "saelens", an_sae(JumpReLU()))
    change_tensors(folder, "saelens", threshold=torch.full((15,), 3e38))
    sae = load_sae(folder)
    assert not bool(sae.encode(tokens()).any())
    sae.save(tmp_path / "again")
    assert not bool(load_sae(tmp_path / "again").encode(tokens()).any())


PEAK = """
import sys
from pathlib import Path
from autopsae.interop.convert import load_sae
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
before = peak()
sae = load_sae(sys.argv[1])
print((peak() - before) / (2 * sae.W_enc.numel()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory was taken at most")
@pytest.mark.parametrize("suite", ["saelens", "gemma_scope"])
def test_reading_takes_no_more_memory_than_is_asked_for(tmp_path: Path, suite: str) -> None:
    W = torch.ones(16_384, 256)
    if suite == "saelens":  # the norms go over to the encoder: a copy more
        folder = written(tmp_path / "x", "saelens")
        change_settings(folder, "saelens", d_in=256, d_sae=16_384, rescale_acts_by_decoder_norm=True)
        sizes = {"W_enc": W.T.contiguous(), "W_dec": W, "b_enc": W[:, 0].clone(), "b_dec": W[0].clone()}
        change_tensors(folder, "saelens", **sizes)
    else:
        folder = tmp_path / "x"
        folder.mkdir()
        m = W.numpy()
        biases = {"b_enc": m[:, 0], "threshold": m[:, 0], "b_dec": m[0]}
        np.savez(folder / "params.npz", W_enc=m.T, W_dec=m, **biases)
    done = subprocess.run([sys.executable, "-c", PEAK, folder], capture_output=True, text=True, check=True)
    assert 4 < float(done.stdout) < checks.BYTES_PER_WEIGHT


def test_a_relative_path_is_known_by_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = suites.gemma_scope(tmp_path / "embedding" / "width_4k" / "average_l0_6")
    monkeypatch.chdir(made.path)
    for path in (".", "params.npz"):
        assert "expected a scale for an SAE of embeddings" in refused(path)


def test_memory_is_asked_for_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "x", "sparsify")
    monkeypatch.setattr("autopsae.memory.available_bytes", lambda _: 4000)
    load_sae(folder)  # of few weights nobody asks
    monkeypatch.setattr("autopsae.memory.SMALL", 100)
    message = refused(folder)
    assert "expected 0.0 GiB of free memory to read 201 weights, got 0.0; read it on a larger machine" in message

    def silent(_: torch.device) -> int:
        raise InputError("memory: expected a system that tells")

    monkeypatch.setattr("autopsae.memory.available_bytes", silent)
    load_sae(folder)
