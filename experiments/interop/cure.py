"""Three libraries' own TopK training on a layer, as each starts it and as prescribed: who dies, and what it costs.

    python -m experiments.interop.cure ACTIVATIONS LAYER [--steps 500] [--out results/cure.json]

In the environment of `make test`, which holds the libraries. d_sae 2048, k 32, 1,024 tokens a step, Adam
3e-4, raw tokens; everything else is the library's default. 20,480 tokens, evenly spaced, are held out:
death by pathway is counted and FVU measured on them by us, and death by each library's own expression beside it.
sparsify's Trainer wants a language model, so the body of its `fit` is driven (benchmarks/peers.py), its first-batch
mean put in as it would be.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.peers import SparsifyLoop, top_k_trainer, versions
from torch import Tensor

from autopsae import SAE, Prescription, TopK, evaluate, open_activations
from autopsae.cure import cure_dictionary_learning, cure_saelens, cure_sparsify
from autopsae.files import write_text
from autopsae.remedies import center
from autopsae.statistics import collect, geometric_median

HELD_OUT, D_SAE, K, LR, BATCH = 20_480, 2048, 32, 3e-4, 1024


def batches(x: Tensor) -> Iterator[Tensor]:
    """Random ones, the same for every library."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield x[torch.randint(len(x), (BATCH,), generator=generator)]


def as_ours(W_enc: Tensor, W_dec: Tensor, b_enc: Tensor, b_dec: Tensor) -> SAE:
    """Rows [d_sae, d_in]."""
    return SAE(W_enc=W_enc, W_dec=W_dec, b_enc=b_enc, b_dec=b_dec, sparsity=TopK(k=K)).eval()


def saelens(x: Tensor, cure: Prescription | None, steps: int) -> Iterator[tuple[SAE, Callable[[Tensor], Tensor]]]:
    """Its SAE at birth and at the end, and which latents fired by its own expression."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=D_SAE, k=K))
    sae = sae if cure is None else cure_saelens(sae, cure)

    def now() -> SAE:
        # Its decoder norms are folded as it does itself when it saves for inference.
        norms = sae.W_dec.detach().norm(dim=1, keepdim=True)
        W_enc, W_dec = sae.W_enc.detach().T * norms, sae.W_dec.detach() / norms
        return as_ours(W_enc, W_dec, sae.b_enc.detach() * norms[:, 0], sae.b_dec.detach())

    yield now(), lambda batch: (sae.encode(batch) != 0).any(dim=0)
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=LR,
        lr_end=LR,
    )
    SAETrainer(cfg=config, sae=sae, data_provider=batches(x)).fit()
    yield now(), lambda batch: (sae.encode(batch) != 0).any(dim=0)


def dictionary_learning(
    x: Tensor, cure: Prescription | None, steps: int
) -> Iterator[tuple[SAE, Callable[[Tensor], Tensor]]]:
    """As `saelens`. Its own start is the median of the first batch, put in at the first step."""
    base = top_k_trainer()
    trainer = (base if cure is None else cure_dictionary_learning(base, cure))(
        activation_dim=x.shape[1],
        dict_size=D_SAE,
        k=K,
        lr=LR,
        steps=10**9,
        warmup_steps=0,
        layer=12,
        lm_name="",
        device="cpu",
        seed=0,
    )
    ae = trainer.ae

    def now() -> SAE:
        return as_ours(
            ae.encoder.weight.detach(), ae.decoder.weight.detach().T, ae.encoder.bias.detach(), ae.b_dec.detach()
        )

    def fired(batch: Tensor) -> Tensor:
        did = torch.zeros(D_SAE, dtype=torch.bool)
        did[ae.encode(batch, return_topk=True)[2].flatten()] = True
        return did

    stream = batches(x)
    for step, batch in enumerate(islice(stream, steps)):
        if step == 0:
            kept = ae.b_dec.data.clone()
            if cure is None:
                from dictionary_learning.trainers.top_k import geometric_median as theirs

                ae.b_dec.data = theirs(batch)
            yield now(), fired
            ae.b_dec.data = kept
        trainer.update(step, batch)
    yield now(), fired


def sparsify(x: Tensor, cure: Prescription | None, steps: int) -> Iterator[tuple[SAE, Callable[[Tensor], Tensor]]]:
    """As `saelens`. Its own start is the mean of the first batch."""
    import os

    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=D_SAE, k=K))
    if cure is None:
        coder.b_dec.data = next(batches(x)).mean(0)
    else:
        trainer = SimpleNamespace(saes={"layers.11": coder}, cfg=SimpleNamespace(finetune=None))
        cure_sparsify(trainer, {"layers.11": cure})
    loop = SparsifyLoop(coder, LR)

    def now() -> SAE:
        weight, bias = coder.encoder.weight.detach(), coder.encoder.bias.detach()
        return as_ours(weight, coder.W_dec.detach(), bias, coder.b_dec.detach())

    def fired(batch: Tensor) -> Tensor:
        did = torch.zeros(D_SAE, dtype=torch.bool)
        did[coder.encode(batch).top_indices.flatten()] = True
        return did

    yield now(), fired
    for batch in islice(batches(x), steps):
        loop.step(batch)
    yield now(), fired


LIBRARIES = {"SAELens": saelens, "dictionary_learning": dictionary_learning, "sparsify": sparsify}


@torch.no_grad()
def measured(sae: SAE, fired: Callable[[Tensor], Tensor], held_out: Tensor) -> dict[str, float]:
    """Our count, their count, the error."""
    ours, theirs = evaluate(sae, held_out), torch.zeros(D_SAE, dtype=torch.bool)
    for batch in held_out.split(BATCH):
        theirs |= fired(batch)
    return {
        "dead": ours.fates.dead,
        "relu": ours.fates.dead_by_relu,
        "topk": ours.fates.dead_by_topk,
        "dead_by_their_count": float((~theirs).float().mean()),
        "fvu_raw": ours.fvu_raw,
        "fvu_typical": ours.fvu_typical,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("activations", type=Path)
    parser.add_argument("layer")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cure.json")
    asked = parser.parse_args()
    training, held_out = open_activations(asked.activations, asked.layer).split(HELD_OUT)
    x, kept = torch.cat(list(training)).float(), torch.cat(list(held_out)).float()
    remedy = center(geometric_median(collect(training).sample), "median")
    cure = Prescription(remedy=remedy, reason="", layer=asked.layer, d_sae=D_SAE, sparsity=TopK(k=K))
    rows: list[dict[str, Any]] = []
    for library, train in LIBRARIES.items():
        for start, prescription in (("default", None), ("cured", cure)):
            torch.manual_seed(0)
            birth, end = (measured(sae, fired, kept) for sae, fired in train(x, prescription, asked.steps))
            rows.append({"library": library, "start": start, "birth": birth, "end": end})
            print(library, start, birth, end, flush=True)
            about = {
                "versions": versions(),
                "steps": asked.steps,
                "model": asked.activations.name,
                "layer": asked.layer,
            }
            write_text(asked.out, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
