"""Networks of images and proteins for which transformers has a class, from a folder or the Hugging Face Hub."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autopsae.activations.presets import check_weights, silent
from autopsae.activations.sources import one_line
from autopsae.arrays import InputError
from autopsae.extras import package_error
from autopsae.kinds import list_of, number
from autopsae.models.images import ImageNetwork
from autopsae.models.network import Network
from autopsae.models.sequences import AMINO_ACIDS, Letters, ProteinNetwork
from autopsae.reading import read_object
from autopsae.words import reason, show

_UNUSED = ("pooler", "contact_head")
"""Parts of a network that come after its layers, and that not every file has."""

Source = dict[str, Any]
"""What transformers' `from_pretrained` is given."""


def folder_type(folder: Path) -> str | None:
    """The `model_type` that the folder's config.json tells; None where it tells none.

    Raises InputError where it is no JSON.
    """
    path = folder / "config.json"
    told = read_object(path).get("model_type") if path.is_file() else None
    return told if isinstance(told, str) else None


def load_pretrained(name: str, source: Source, *, dtype: torch.dtype, device: torch.device | str) -> Network | None:
    """The network of a folder or of the Hub, in evaluation mode; None where it reads neither images nor proteins.

    No code that comes with a model is run. Raises InputError for a model that cannot be had, is damaged or lacks
    weights, and without transformers.
    """
    try:
        transformers = importlib.import_module("transformers")
        with silent(transformers):
            source = source | {"trust_remote_code": False}
            read = _READERS.get(transformers.AutoConfig.from_pretrained(**source).model_type)
            if read is None:
                return None
            model, told = transformers.AutoModel.from_pretrained(**source, dtype=dtype, output_loading_info=True)
            network = read(transformers, name, model.to(device).eval(), source)
    except ImportError as error:
        raise package_error(name, "transformers", error, install="autopsae[models]") from error
    except InputError:
        raise
    # A reader of damaged weights may raise anything; Ctrl-C is no Exception.
    except Exception as error:
        if "trust_remote_code" in str(error):
            return None
        raise InputError(
            f"{name}: expected a model folder or a name on the Hugging Face Hub, but transformers could not load "
            f"it ({one_line(error)}); check the name, and for a Hub model the connection, or pass the folder of a "
            "downloaded copy"
        ) from error
    check_weights(name, told, _UNUSED)
    return network


def _vision(transformers: Any, name: str, model: Any, source: Source) -> Network:
    """A vision transformer; the image processor's file tells the normalisation."""
    processing = transformers.image_processing_base.ImageProcessingMixin
    where = {key: value for key, value in source.items() if key == "local_files_only"}
    try:
        settings, _ = processing.get_image_processor_dict(source["pretrained_model_name_or_path"], **where)
    except OSError as error:
        raise InputError(
            f"{name}: expected preprocessor_config.json beside the weights, with the colours' mean and standard "
            f"deviation, could not read it ({reason(error)}); get it from the model's page"
        ) from error
    config = model.config
    return ImageNetwork(
        name,
        model,
        patch=config.patch_size,
        special=1 + (getattr(config, "num_register_tokens", None) or 0),
        mean=_three_numbers(name, settings, "image_mean", over=-1e9),
        std=_three_numbers(name, settings, "image_std", over=0.0),
        # Its position embeddings are for one size, unless it is told to interpolate them; the others always do.
        extra={"interpolate_pos_encoding": True} if config.model_type == "vit" else None,
    )


def _three_numbers(name: str, settings: dict[str, Any], key: str, over: float) -> list[float]:
    value = settings.get(key)
    wrong = list_of(number(over=over, under=1e9))(value)
    if wrong is not None or len(value or ()) != 3:
        raise InputError(
            f"{name}: preprocessor_config.json: {key}: expected three numbers over {over:g}, got {show(value)}; "
            "get it again"
        )
    return [float(one) for one in value or ()]


def _esm(transformers: Any, name: str, model: Any, source: Source) -> Network:
    """A protein language model of the ESM family."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    words: dict[str, int] = tokenizer.get_vocab()
    if lacking := set(AMINO_ACIDS) - words.keys():
        raise InputError(
            f"{name}: expected a token for each amino acid, but {', '.join(sorted(lacking))} have none; is it "
            "a network of proteins?"
        )
    letters = Letters(
        ids={word: number for word, number in words.items() if len(word) == 1 and word.isalpha()},
        unknown=tokenizer.unk_token_id,
        before=(tokenizer.cls_token_id,),
        after=(tokenizer.eos_token_id,),
        pad=tokenizer.pad_token_id,
        longest=model.config.max_position_embeddings,
    )
    return ProteinNetwork(name, model, letters=letters)


_READERS: dict[str, Callable[[Any, str, Any, Source], Network]] = {
    "dinov2": _vision,
    "dinov2_with_registers": _vision,
    "dinov3_vit": _vision,
    "vit": _vision,
    "esm": _esm,
}
"""transformers' `model_type` -> what makes it a network."""


def model_types() -> list[str]:
    """The types of transformers that read images or proteins here."""
    return list(_READERS)
