"""One optimiser step of three other libraries' own TopK training code, to be timed beside ours.

Every adapter drives the library's own modules in float32 with Adam at a constant learning rate. What the library
does around them (clipping, projections, counters, its schedule's bookkeeping) stays; what a run does now and then
(checkpoints, logging, progress bars) does not. Where a library offers a way that may be faster, it is here under a
name of its own (SAELens). `make test` installs the libraries; they are imported when an adapter is made.

    python -m benchmarks.peers      # a self-check: do they train here, and what counts as dead?
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.nnsight_patches import take_back_patches

AUXK_COEFFICIENT = 1 / 32
ENDLESS = 10**9  # steps of a schedule of which a benchmark sees only the start

DISTRIBUTIONS = {"SAELens": "sae-lens", "dictionary_learning": "dictionary-learning", "sparsify": "eai-sparsify"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contestants train: shapes, sparsity, learning rate, and how much AuxK has to do."""

    d_in: int
    d_sae: int
    k: int
    batch_tokens: int
    lr: float = 3e-4
    auxk_dead: float = 0.0
    """Fraction of the latents that count as dead on every step; AuxK works on them, and is off at 0."""
    device: str = "cpu"
    """Where everyone trains; a step is given batches that are there."""

    @property
    def dead(self) -> int:
        """How many latents count as dead."""
        return round(self.auxk_dead * self.d_sae)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One library in training: call it with a batch [batch_tokens, d_in] to take a step."""

    step: Callable[[Tensor], object]
    model: nn.Module
    reconstruct: Callable[[Tensor], Tensor]
    count_dead: Callable[[], int]
    """How many latents the library itself takes for dead, by its own expression."""

    def __call__(self, x: Tensor) -> None:
        self.step(x)


def saelens(setting: Setting, *, compiled: bool = False, sparse: bool = False) -> Peer:
    """The body of `SAETrainer.fit`: forward, loss, backward, clipping, Adam and the firing counters.

    `compiled` is its runner's `compile_sae=True`: it needs a C++ compiler and a few steps of warming up.
    `sparse` is `use_sparse_activations=True`. On a CPU its backward pass fails together with the default
    `rescale_acts_by_decoder_norm=True` (a view of a sparse tensor), so it goes without it.
    """
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae_config = TopKTrainingSAEConfig(
        d_in=setting.d_in,
        d_sae=setting.d_sae,
        k=setting.k,
        device=setting.device,
        aux_loss_coefficient=AUXK_COEFFICIENT,
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,
    )
    sae = TopKTrainingSAE(sae_config)
    if compiled:  # the call of LanguageModelSAETrainingRunner
        sae.training_forward_pass = torch.compile(sae.training_forward_pass, mode=None, backend="inductor")
    config = SAETrainerConfig(
        total_training_samples=ENDLESS * setting.batch_tokens,
        train_batch_size_samples=setting.batch_tokens,
        lr=setting.lr,
        lr_end=setting.lr,
        device=setting.device,
    )
    trainer = SAETrainer(config, sae, data_provider=iter(()))
    trainer.cfg.dead_feature_window = _silence_allowed(setting)

    def step(x: Tensor) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(x)
        trainer.n_training_steps += 1

    return Peer(step=step, model=sae, reconstruct=sae, count_dead=lambda: int(trainer.dead_neurons.sum()))


def dictionary_learning(setting: Setting) -> Peer:
    """`TopKTrainer.update`: forward, loss, backward, projection, clipping, Adam, schedule, unit-norm decoder."""
    trainer = top_k_trainer()(
        steps=ENDLESS,
        activation_dim=setting.d_in,
        dict_size=setting.d_sae,
        k=setting.k,
        layer=0,
        lm_name="none",
        lr=setting.lr,
        auxk_alpha=AUXK_COEFFICIENT if setting.dead else 0.0,
        warmup_steps=0,
        device=setting.device,
    )
    trainer.dead_feature_threshold = _silence_allowed(setting)
    steps = itertools.count(1)  # step 0 would also compute a geometric median: initialisation, not training
    return Peer(
        step=lambda x: trainer.update(next(steps), x),
        model=trainer.ae,
        reconstruct=trainer.ae,
        count_dead=lambda: int(trainer.dead_features),
    )


def top_k_trainer() -> Any:
    from dictionary_learning.trainers.top_k import TopKTrainer

    take_back_patches()
    return TopKTrainer


def sparsify(setting: Setting) -> Peer:
    """The body of `Trainer.fit` around a `SparseCoder`, since the Trainer itself wants a language model.

    Its Triton kernels need a GPU, where its forward pass is in bfloat16 too (its own autocast); on a CPU its one
    decoder is `embedding_bag`. Chunks of the batch (`micro_acc_steps`) only slow it down there, so the batch is
    whole, which is its default.
    """
    if setting.dead:
        raise ValueError(
            f"sparsify: auxk_dead {setting.auxk_dead}, but its AuxK has no gradient to the encoder "
            "(fused_encoder.py ignores that of the pre-activations); pass auxk_dead=0"
        )
    if setting.device == "cpu":
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # read at import: Triton cannot decode CPU tensors
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(setting.d_in, SparseCoderConfig(num_latents=setting.d_sae, k=setting.k), setting.device)
    return Peer(
        step=SparsifyLoop(coder, setting.lr).step,
        model=coder,
        reconstruct=lambda x: coder(x).sae_out,
        count_dead=lambda: 0,
    )


class SparsifyLoop:
    """What sparsify's `Trainer` keeps for one coder with optimizer="adam", and what it does with a batch."""

    def __init__(self, coder: Any, lr: float) -> None:
        from transformers import get_linear_schedule_with_warmup

        self.coder = coder
        self.optimizer = torch.optim.Adam([{"params": coder.parameters(), "lr": lr}])
        self.scheduler = get_linear_schedule_with_warmup(self.optimizer, 0, ENDLESS)
        self.did_fire = torch.zeros(coder.num_latents, dtype=torch.bool, device=coder.device)
        self.tokens_since_fired = torch.zeros(coder.num_latents, dtype=torch.long, device=coder.device)
        self.fvu = 0.0

    def step(self, x: Tensor) -> None:
        self.coder.set_decoder_norm_to_unit_norm()
        out = self.coder(x=x, y=x, dead_mask=None, total_variance=(x - x.mean(0)).pow(2).sum())
        self.did_fire[out.latent_indices.flatten()] = True
        self.fvu = float(out.fvu.detach())
        out.fvu.backward()  # its other two loss terms are the constant 0 by default
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        self.tokens_since_fired += len(x)
        self.tokens_since_fired[self.did_fire] = 0
        self.did_fire.zero_()


PEERS: dict[str, Callable[[Setting], Peer]] = {
    "SAELens": saelens,
    "SAELens compiled": partial(saelens, compiled=True),
    "SAELens sparse": partial(saelens, sparse=True),
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
}


def versions() -> dict[str, str]:
    """The installed version of each library."""
    return {name: metadata.version(distribution) for name, distribution in DISTRIBUTIONS.items()}


def _silence_allowed(setting: Setting) -> Tensor:
    """How long each latent may be silent before it counts as dead: not at all, or for ever [d_sae].

    SAELens and dictionary_learning compare their counters with one number, and firing sets a counter to 0. A tensor
    in that number's place broadcasts in the same comparison, so the same latents are dead on every step, whatever
    fires, and nothing needs to be set again inside the time that is measured.
    """
    allowed = torch.full((setting.d_sae,), torch.inf)
    scattered = torch.randperm(setting.d_sae, generator=torch.Generator().manual_seed(0))
    allowed[scattered[: setting.dead]] = -1.0
    return allowed.to(setting.device)


def _train(name: str, setting: Setting, steps: int = 3) -> tuple[Peer, list[float], float]:
    """A peer trained on one batch, its mean squared errors (before and after each step), and its largest change."""
    torch.manual_seed(0)
    x = torch.randn(setting.batch_tokens, setting.d_in)
    peer = PEERS[name](setting)
    before = _weights(peer.model)
    errors = [_error(peer, x)]
    for _ in range(steps):
        peer(x)
        errors.append(_error(peer, x))
    change = (_weights(peer.model) - before).abs().max()
    return peer, errors, float(change)


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@torch.no_grad()
def _error(peer: Peer, x: Tensor) -> float:
    return float((peer.reconstruct(x) - x).pow(2).mean())


def _check(name: str, setting: Setting) -> None:
    """One line on a peer's training; an error if its loss does not fall or if the wrong number counts as dead."""
    peer, errors, change = _train(name, setting)
    falls = " > ".join(f"{error:.4f}" for error in errors)
    if errors != sorted(set(errors), reverse=True) or change == 0.0:
        raise RuntimeError(
            f"{name}: the loss should fall and weights change, got {falls}, largest change {change:.1e}"
        )
    line = f"{name}: loss {falls}; largest change of a weight {change:.1e}"
    if setting.dead:
        _, alone, _ = _train(name, replace(setting, auxk_dead=0.0))
        if peer.count_dead() != setting.dead or errors == alone:
            raise RuntimeError(f"{name}: AuxK should work on {setting.dead} latents, got {peer.count_dead()} dead")
        line += f"; AuxK on {peer.count_dead()} of {setting.d_sae} latents"
    print(line)


def main() -> None:
    """Three tiny steps of each peer, without and with AuxK."""
    setting = Setting(d_in=16, d_sae=64, k=4, batch_tokens=32)
    print(" ".join(f"{name} {version}" for name, version in versions().items()))
    for name in PEERS:
        _check(name, setting)
    for name in PEERS:
        if name != "sparsify":
            _check(name, replace(setting, auxk_dead=0.25))


if __name__ == "__main__":
    main()
