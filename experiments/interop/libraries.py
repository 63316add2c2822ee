"""Other libraries' own training on a layer, as each starts it and cured, behind one face.

`step(batch)` is the body of the library's own loop. `sae()` goes through the files that the library writes, and
reads them as users do: what is measured is the SAE of raw tokens that users get. `state()` and `load` let a run go
on. All train with Adam at a constant rate; everything else is the library's default, but for what a docstring says.
"""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.peers import ENDLESS, SparsifyLoop, top_k_trainer
from torch import Tensor

from autopsae import SAE, Prescription, load_sae
from autopsae.cure import cure_dictionary_learning, cure_saelens, cure_sparsify


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained."""

    d_in: int
    d_sae: int
    k: int
    batch: int
    lr: float
    weight: float
    """The squared scale of the layer: an error of raw tokens times this is one of scaled tokens."""
    sample: Tensor
    """Some raw tokens of the layer."""
    device: str = "cpu"
    """Where it is trained; `step` is given batches that are there."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """One library in training."""

    step: Callable[[Tensor], object]
    write: Callable[[Path], object]
    """Save the SAE for raw tokens as the library does."""
    parts: dict[str, Any]
    """{name: what has a state_dict}."""
    counters: dict[str, Tensor]
    resumed: Callable[[int], object]
    """Told the number of steps that were taken before."""

    def sae(self) -> SAE:
        """As users get it."""
        with TemporaryDirectory() as folder:
            self.write(Path(folder))
            return load_sae(folder)

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on."""
        return {name: part.state_dict() for name, part in self.parts.items()} | {"counters": self.counters}

    def load(self, state: dict[str, Any], steps: int) -> None:
        """Go on from what `state` gave after `steps` steps."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for name, counter in self.counters.items():
            counter.copy_(state["counters"][name])
        self.resumed(steps)


def saelens(setting: Setting, prescription: Prescription, architecture: str, arm: str) -> Learner:
    """JumpReLU: the quadratic penalty towards an L0 of k. On raw tokens its weight is larger, as their errors are.
    A step of Adam moves a threshold by the rate at most, too little to hold what the encoder learns, so
    "jumprelu_at_l0" has three settings of SAELens besides: one threshold at birth, with which an L0 of k is counted
    on the sample, a bandwidth in units of the tokens' scale, and a penalty that reaches the encoder too.
    "jumprelu_held" has two more: a penalty of ten times the weight (SAELens sums the error over all d_in entries,
    beside which a penalty of 1 is small), and the loss on the pre-activations of dead latents, at the coefficient
    that SAELens names.

    Besides "default" and "cured", an arm may have a part of the cure: "long_rows" (of length 1), "centred" (`b_dec`
    at the centre), "centred_long_rows", and "mapped" (all but the long rows).
    """
    import sae_lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    jumps = architecture.startswith("jumprelu")
    name = "JumpReLU" if jumps else {"topk": "TopK", "batchtopk": "BatchTopK"}[architecture]
    options: dict[str, Any] = {"k": setting.k}
    common: dict[str, Any] = {"d_in": setting.d_in, "d_sae": setting.d_sae, "device": setting.device}
    maps = arm in ("cured", "mapped")
    if jumps:
        options = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(setting.k)}
        options["l0_coefficient"] = 1.0 if maps else 1 / setting.weight
    at_l0 = architecture in ("jumprelu_at_l0", "jumprelu_held")
    if at_l0:
        options["jumprelu_bandwidth"] = 0.05 if maps else 0.05 / setting.weight**0.5
        options["jumprelu_ste_to_input"] = True
    if architecture == "jumprelu_held":
        options["l0_coefficient"] *= 10
        options["pre_act_loss_coefficient"] = 3e-6
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(**common, **options)
    sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=ENDLESS * setting.batch,
            train_batch_size_samples=setting.batch,
            lr=setting.lr,
            lr_end=setting.lr,
            device=setting.device,
        ),
        sae=sae,
        data_provider=iter(()),
    )
    if maps:
        cure_saelens(trainer, prescription)
    with torch.no_grad():
        if arm.startswith("centred"):
            sae.b_dec.copy_(prescription.b_dec)
        if arm != "cured":
            length = 1.0 if arm.endswith("long_rows") else config.decoder_init_norm
            for weight, dim in ((sae.W_dec, 1), (sae.W_enc, 0)):
                weight.copy_(length * torch.nn.functional.normalize(weight, dim=dim))
        if at_l0:
            before = sae.encode_with_hidden_pre(trainer.activation_scaler(setting.sample))[1].flatten()
            sae.threshold.fill_(before.kthvalue(len(before) - setting.k * len(setting.sample)).values)

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    def write(folder: Path) -> None:
        """As `fit` ends, on a copy."""
        copy = deepcopy(sae)
        if (whitening := trainer.activation_scaler.whitening) is not None:
            copy.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
        copy.save_inference_model(folder)

    def resumed(steps: int) -> None:
        trainer.n_training_steps, trainer.n_training_samples = steps, steps * setting.batch

    parts = {"sae": sae, "optimizer": trainer.optimizer, "scheduler": trainer.lr_scheduler}
    counters = {"silent": trainer.n_forward_passes_since_fired}
    return Learner(step=step, write=write, parts=parts, counters=counters, resumed=resumed)


def dictionary_learning(setting: Setting, prescription: Prescription, _architecture: str, arm: str) -> Learner:
    """Without its warm-up of 1,000 steps, as the others."""
    base = top_k_trainer()
    trainer = (cure_dictionary_learning(base, prescription) if arm == "cured" else base)(
        steps=ENDLESS,
        activation_dim=setting.d_in,
        dict_size=setting.d_sae,
        k=setting.k,
        lr=setting.lr,
        warmup_steps=0,
        layer=0,
        lm_name="",
        device=setting.device,
    )
    taken = SimpleNamespace(steps=0)

    def step(x: Tensor) -> None:
        trainer.update(taken.steps, x)
        taken.steps += 1

    def write(folder: Path) -> None:
        torch.save(trainer.ae.state_dict(), folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"trainer": trainer.config}))

    parts = {"sae": trainer.ae, "optimizer": trainer.optimizer, "scheduler": trainer.scheduler}
    counters = {"silent": trainer.num_tokens_since_fired}
    return Learner(
        step=step,
        write=write,
        parts=parts,
        counters=counters,
        resumed=lambda steps: vars(taken).update(steps=steps),
    )


def sparsify(setting: Setting, prescription: Prescription, _architecture: str, arm: str) -> Learner:
    """Its Trainer wants a language model, so the body of its `fit` is driven (benchmarks/peers.py)."""
    if setting.device == "cpu":
        os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(setting.d_in, SparseCoderConfig(num_latents=setting.d_sae, k=setting.k), setting.device)
    loop = SparsifyLoop(coder, setting.lr)
    options = SimpleNamespace(finetune=None, micro_acc_steps=1, grad_acc_steps=1)
    trainer = SimpleNamespace(
        saes={"layers.0": coder}, cfg=options, optimizers=[loop.optimizer], global_step=0, scheduler=loop.scheduler
    )
    if arm == "cured":
        cure_sparsify(trainer, {"layers.0": prescription})

    def step(x: Tensor) -> None:
        if trainer.global_step == 0 and not options.finetune:
            coder.b_dec.data = x.mean(0)
        loop.step(x)
        trainer.global_step += 1

    return Learner(
        step=step,
        write=coder.save_to_disk,
        parts={"sae": coder, "optimizer": loop.optimizer, "scheduler": loop.scheduler},
        counters={},
        resumed=lambda steps: vars(trainer).update(global_step=steps),
    )


LIBRARIES = {"SAELens": saelens, "dictionary_learning": dictionary_learning, "sparsify": sparsify}
KINDS = (
    ("SAELens", "topk"),
    ("SAELens", "batchtopk"),
    ("SAELens", "jumprelu"),
    ("SAELens", "jumprelu_at_l0"),
    ("SAELens", "jumprelu_held"),
    ("dictionary_learning", "topk"),
    ("sparsify", "topk"),
)
"""(library, architecture), in the order of the table."""
