"""autopsae train SOURCE --out DIR: an SAE, its records, and what held-out tokens say of it."""

from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from tyro.conf import Positional

from autopsae.activations.store import open_activations
from autopsae.cli.terminal import checked_device, progress_bar
from autopsae.run import check_out, load_start, run, start_from
from autopsae.sae.init import born
from autopsae.sae.sparsity import TopK
from autopsae.statistics.collect import collect
from autopsae.training.loop import Record, TrainConfig
from autopsae.training.objective import AuxK


def train(
    source: Positional[Path],
    /,
    *,
    out: Path,
    layer: str | None = None,
    prescription: Path | None = None,
    init: Literal["zero", "mean", "median", "whiten", "asi"] = "median",
    alpha: float = 0.3,
    rank: int = 64,
    d_sae: int = 8192,
    k: int = 64,
    steps: int = 10_000,
    lr: float = 3e-4,
    b_dec_lr: float | None = None,
    batch_tokens: int = 4096,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    auxk: bool = False,
    scale: bool = True,
    held_out: int = 4096,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Train a TopK SAE on one layer of SOURCE, from a prescription or a chosen start; OUT receives the SAE
    (sae.safetensors + sae.json), a record per step (records.jsonl) and what held-out tokens say (summary.json).

    Args:
        source: Activations: a .npy or .safetensors file, or a folder of shards (as `harvest` writes).
        out: Folder for the results.
        layer: Layer to train on, where the source holds several; N stands for hsN.
        prescription: Start from what `diagnose --prescriptions` wrote; instead of --init.
        init: Where b_dec starts, or what else is done to the layer.
        alpha: Whitening exponent of --init whiten.
        rank: Rank of --init asi.
        d_sae: Latents.
        k: Latents that fire per token.
        steps: Training steps.
        lr: Learning rate of Adam.
        b_dec_lr: Learning rate of b_dec alone.
        batch_tokens: Tokens per step.
        warmup_steps: Steps over which the learning rate rises.
        decay_steps: Last steps, over which it falls to 0.
        auxk: Let silent latents explain the residual (coefficient 1/32, silent for 256,000 tokens).
        scale: Scale the layer to a median token norm of sqrt(d_in); --no-scale for the paper's setting.
        held_out: Tokens, evenly spaced, that are kept for the summary.
        seed: Of the drawn rows and of the order of the tokens.
        device: Where to train, for example cuda.
    """

    check_out(out)
    device = checked_device(device)
    config = TrainConfig(
        steps=steps,
        lr=lr,
        b_dec_lr=b_dec_lr,
        batch_tokens=batch_tokens,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        auxk=AuxK() if auxk else None,
        seed=seed,
    )
    TopK(k=k).check(d_sae)
    activations = open_activations(source, layer)
    training, held = activations.split(held_out)
    saved = load_start(prescription, activations.d_in) if prescription else None
    with progress_bar("reading the statistics") as (bar, task):
        statistics = collect(training, seed=seed, device=device)
        start = saved or start_from(init, statistics, alpha=alpha, rank=rank)
        sae = born(
            start,
            d_sae=d_sae,
            sparsity=TopK(k=k),
            sample=statistics.sample if scale else None,
            generator=torch.Generator(device or "cpu").manual_seed(seed),
        )

        def advance(record: Record) -> None:
            description = f"step {record.step + 1:,}: FVU {record.fvu:.4f}, dead {record.dead:.1%}"
            bar.update(task, completed=record.step + 1, total=steps, description=description)

        about = {"layer": activations.layer, "start": saved.remedy if saved else init, "d_sae": d_sae, "k": k}
        summary = run(sae, training, held, config, out, about=about, progress=advance)
    born_dead, dead = summary["birth"]["dead"], summary["dead"]
    Console().print(
        f"{out}: {born_dead:.1%} of {d_sae:,} latents were born dead, {dead:.1%} are dead after {steps:,} steps "
        f"({summary['relu']:.1%} by ReLU, {summary['topk']:.1%} by TopK); raw FVU {summary['fvu_raw']:.4f}",
        highlight=False,
        soft_wrap=True,
    )
