"""SAEs made, saved, loaded and run by the libraries themselves, which are slow to import.

SPARSIFY_DISABLE_TRITON=1 is expected where Triton is installed: it cannot decode tensors in main memory.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.nnsight_patches import take_back_patches
from dictionary_learning import AutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from sae_lens import SAE as SaeLensSAE
from sae_lens import TrainingSAE
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.training.activation_scaler import ActivationScaler
from sae_lens.training.sae_trainer import SAETrainer
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor, nn

take_back_patches()

Outputs = tuple[Tensor, Tensor]
"""Codes [tokens, d_sae] and reconstructions [tokens, d_in]."""
Run = Callable[[Tensor], Outputs]


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> None:
    """Weights as of a trained SAE: nothing zero, nothing tied, norms of all sizes; thresholds of both signs."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "threshold":
            parameter.copy_(0.6 * noise.abs() - 0.1)
        elif parameter.ndim == 2:
            parameter.copy_(noise * (0.2 + torch.rand(parameter.shape[0], 1, generator=generator)) / 4)
        else:
            parameter.copy_(0.3 * noise)


def make_saelens(folder: Path, d_in: int, d_sae: int, architecture: str, **settings: Any) -> Run:
    """An inference SAE of SAELens."""
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, **settings))
    randomize(sae)
    sae.save_model(folder)
    return load_saelens(folder)


def load_saelens(folder: Path) -> Run:
    sae = SaeLensSAE.load_from_disk(folder)

    @torch.no_grad()
    def run(x: Tensor) -> Outputs:
        return sae.encode(x), sae(x)

    return run


def train_saelens(folder: Path, x: Tensor, d_sae: int, architecture: str, **settings: Any) -> tuple[Path, Path]:
    """(a checkpoint in the midst, the last one) of SAELens' own training."""
    sae_class, config_class = get_sae_training_class(architecture)
    sae = sae_class(config_class(d_in=x.shape[1], d_sae=d_sae, **settings))
    randomize(sae)
    config = SAETrainerConfig(
        total_training_samples=6 * len(x),
        train_batch_size_samples=len(x),
        lr=1e-3,
        lr_end=1e-3,
        n_batches_for_norm_estimate=1,
        n_checkpoints=1,
        checkpoint_path=str(folder),
        save_final_checkpoint=True,
    )
    SAETrainer(config, sae, data_provider=itertools.repeat(x)).fit()
    [midst] = [path for path in folder.iterdir() if not path.name.startswith("final")]
    return midst, folder / f"final_{6 * len(x)}"


def load_checkpoint(folder: Path, inference: Path) -> Run:
    """A checkpoint as SAELens' trainer uses it: its scaler before and after it. BatchTopK is judged by its
    threshold, as in the inference SAE that is made of it.
    """
    sae, scaler = TrainingSAE.load_from_disk(folder), ActivationScaler()
    scaler.load(folder / "activation_scaler.json")
    if sae.cfg.architecture() == "batchtopk":
        sae.save_inference_model(inference)
        sae = SaeLensSAE.load_from_disk(inference)

    @torch.no_grad()
    def run(x: Tensor) -> Outputs:
        return sae.encode(scaler(x)), scaler.unscale(sae(scaler(x)))

    return run


def make_dictionary_learning(folder: Path, d_in: int, d_sae: int, name: str, **settings: Any) -> Run:
    """A dictionary of dictionary_learning, stored as its training stores it."""
    classes = {c.__name__: c for c in (AutoEncoder, AutoEncoderTopK, BatchTopKSAE, JumpReluAutoEncoder)}
    threshold = settings.pop("threshold", None)
    dictionary = classes[name](d_in, d_sae, **settings)
    randomize(dictionary)
    if threshold is not None:
        dictionary.threshold.fill_(threshold)
    folder.mkdir(parents=True)
    torch.save(dictionary.state_dict(), folder / "ae.pt")
    trainer = {"dict_class": name, "activation_dim": d_in, "dict_size": d_sae, **settings}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return load_dictionary_learning(folder)


def load_dictionary_learning(folder: Path) -> Run:
    dictionary, _ = load_dictionary(str(folder), "cpu")

    @torch.no_grad()
    def run(x: Tensor) -> Outputs:
        return dictionary.encode(x), dictionary(x)

    return run


def make_sparsify(folder: Path, d_in: int, d_sae: int, activation: str, k: int) -> Run:
    """A coder of sparsify."""
    coder = SparseCoder(d_in, SparseCoderConfig(num_latents=d_sae, k=k, activation=activation))
    randomize(coder)
    coder.save_to_disk(folder)
    return load_sparsify(folder)


def load_sparsify(folder: Path) -> Run:
    coder = SparseCoder.load_from_disk(folder)

    @torch.no_grad()
    def run(x: Tensor) -> Outputs:
        values, latents, _ = coder.encode(x)
        return values.new_zeros(len(x), coder.num_latents).scatter(1, latents, values), coder(x).sae_out

    return run


LOADERS = {"saelens": load_saelens, "dictionary_learning": load_dictionary_learning, "sparsify": load_sparsify}
