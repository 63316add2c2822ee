"""AntiBERTy: a BERT of antibodies' amino acids, 8 layers, d_in 512 (Ruffolo et al. 2021, arXiv:2112.07782)."""

import importlib
from pathlib import Path

import torch

from autopsae.activations.wheels import file_in_wheel
from autopsae.extras import package_error
from autopsae.models.sequences import Letters, ProteinNetwork
from autopsae.models.weights import load_weights
from autopsae.reading import input_errors, read_object

WHEEL = "antiberty==0.1.3"
"""Version 1.0.0 has no weights."""
CHECKPOINT = "trained_models/AntiBERTy_md_smooth"


def load_antiberty(name: str = "antiberty") -> ProteinNetwork:
    """AntiBERTy out of its wheel: a token for each residue, and one before and after each piece.

    Raises InputError for a missing or damaged wheel, and without transformers.
    """
    folder = file_in_wheel(name, WHEEL, f"{CHECKPOINT}/pytorch_model.bin").parent
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise package_error(name, "transformers", error, install="autopsae[models]") from error
    with input_errors(WHEEL, "AntiBERTy's weights", "install it again"):
        settings = read_object(folder / "config.json")
        for of_another_version in ("model_type", "transformers_version", "architectures"):
            settings.pop(of_another_version, None)
        model = transformers.BertModel(transformers.BertConfig(**settings))
        stored = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
        weights = {key.removeprefix("bert."): value for key, value in stored.items() if key.startswith("bert.")}
        # The numbers 0, 1, 2, ..., which are no weights and which newer versions do not store.
        weights.pop("embeddings.position_ids", None)
        load_weights(model, weights, WHEEL)
        letters = read_vocabulary(folder.parent / "vocab.txt", model.config.max_position_embeddings)
    return ProteinNetwork(name, model.eval(), letters=letters)


def read_vocabulary(path: Path, longest: int) -> Letters:
    """The letters of a `vocab.txt` of BERT, one word a line, whose number is its id."""
    ids = {word: number for number, word in enumerate(path.read_text(encoding="utf-8").split())}
    return Letters(
        ids={word: number for word, number in ids.items() if len(word) == 1},
        unknown=ids["[UNK]"],
        before=(ids["[CLS]"],),
        after=(ids["[SEP]"],),
        pad=ids["[PAD]"],
        longest=longest,
    )
