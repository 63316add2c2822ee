"""autopsae train SOURCE --out DIR: an SAE, its records, and what held-out tokens say of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from autopsae.activations.store import Activations, open_activations
from autopsae.arrays import InputError
from autopsae.cli.terminal import checked_device, progress_bar
from autopsae.diagnosis.closed_form import check_k
from autopsae.diagnosis.prescribe import Prescription
from autopsae.run import LayerNormed, Plan, check_out, load_start, run, start_from
from autopsae.sae.init import born
from autopsae.sae.model import SAE
from autopsae.sae.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity, TopK
from autopsae.statistics.collect import collect
from autopsae.training.config import Record, TrainConfig
from autopsae.training.logs import Csv, Logger, TensorBoard
from autopsae.training.objective import L1, L0Target
from autopsae.training.revival import AuxK, GhostGradients, Resampling


@dataclass(frozen=True, kw_only=True)
class Birth:
    """The SAE as it is born."""

    prescription: Path | None = None
    """Start from what `diagnose --prescriptions` wrote; instead of --init."""
    init: Literal["zero", "mean", "median", "whiten", "asi"] = "median"
    """Where b_dec starts, or what else is done to the layer."""
    alpha: float = 0.3
    """Whitening exponent of --init whiten."""
    rank: int = 64
    """Rank of --init asi."""
    d_sae: int = 8192
    """Latents."""
    k: int = 64
    """Latents that fire per token: topk exactly, batch_topk and jumprelu on average; relu takes --l1 instead."""
    sparsity: Literal["topk", "batch_topk", "relu", "jumprelu"] = "topk"
    """Which latents fire."""
    firing_rate: float | None = None
    """Set biases or thresholds so that each latent fires on this share of the tokens (jumprelu: k / d_sae)."""
    scale: bool = True
    """Scale the layer to a median token norm of sqrt(d_in); --no-scale for the paper's setting."""
    layer_norm: bool = False
    """Normalise every token before the SAE and undo it after; the SAE can then not be folded."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How it is trained."""

    steps: int = 10_000
    """Training steps."""
    lr: float = 3e-4
    """Learning rate of Adam."""
    b_dec_lr: float | None = None
    """Learning rate of b_dec alone."""
    batch_tokens: int = 4096
    """Tokens per step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    decay_steps: int = 0
    """Last steps, over which it falls to 0."""
    l1: float | None = None
    """L1 coefficient of --sparsity relu."""
    revive: Literal["auxk", "ghost", "resample"] | None = None
    """Let latents silent for 256,000 tokens explain the residual, or draw them afresh every 1,000 steps."""
    bfloat16: bool = False
    """Choose latents in bfloat16, for speed; their values stay float32."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is measured and kept on the way."""

    held_out: int = 4096
    """Tokens, evenly spaced, that are kept for the summary."""
    evaluate_every: int | None = None
    """Steps between measurements on held-out tokens (held_out.jsonl)."""
    target_fvu: float | None = None
    """Stop once the raw FVU on held-out tokens is no greater."""
    checkpoint_every: int | None = 1000
    """Steps between checkpoints."""
    resume: bool = False
    """Go on from the checkpoint in OUT, with the same settings."""
    csv: bool = False
    """Write records.csv beside records.jsonl."""
    tensorboard: bool = False
    """Write the records for TensorBoard into OUT."""


def train(
    source: Positional[Path],
    /,
    *,
    out: Path,
    layer: str | None = None,
    birth: Annotated[Birth, OmitArgPrefixes] = Birth(),
    fit: Annotated[Fit, OmitArgPrefixes] = Fit(),
    keep: Annotated[Keep, OmitArgPrefixes] = Keep(),
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Train an SAE on one layer of SOURCE, from a prescription or a chosen start; OUT receives the SAE
    (sae.safetensors + sae.json), a record per step (records.jsonl) and what held-out tokens say (summary.json).

    Args:
        source: Activations: a .npy or .safetensors file, or a folder of shards (as `harvest` writes).
        out: Folder for the results.
        layer: Layer to train on, where the source holds several; N stands for hsN.
        birth: The SAE as it is born.
        fit: How it is trained.
        keep: What is measured and kept on the way.
        seed: Of the drawn rows and of the order of the tokens.
        device: Where to train, for example cuda.
    """
    check_out(out, resume=keep.resume)
    device = checked_device(device)
    sparsity, config = _sparsity(birth), _config(birth, fit, seed)
    sparsity.check(birth.d_sae)
    if birth.sparsity != "relu":
        check_k(birth.k, birth.d_sae)
    plan = Plan(
        checkpoint_every=keep.checkpoint_every, evaluate_every=keep.evaluate_every, target_fvu=keep.target_fvu
    )
    activations = open_activations(source, layer)
    training, held = activations.split(keep.held_out)
    saved = load_start(birth.prescription, activations.d_in) if birth.prescription else None
    with progress_bar("reading the statistics") as (bar, task):
        sae = _born(training, birth, sparsity, saved, seed, device)

        def advance(record: Record) -> None:
            description = f"step {record.step + 1:,}: FVU {record.fvu:.4f}, dead {record.dead:.1%}"
            bar.update(task, completed=record.step + 1, total=config.steps, description=description)

        def loggers(after: int) -> list[Logger]:
            kept: list[Logger] = [Csv(out / "records.csv", after=after)] if keep.csv else []
            return [*kept, *([TensorBoard(out, after=after)] if keep.tensorboard else [])]

        unused = {"prescription", "init", *(("alpha", "rank") if saved else ())}
        about = {
            "layer": activations.layer,
            "start": saved.remedy if saved else birth.init,
            **{name: value for name, value in vars(birth).items() if name not in unused},
            "held_out": keep.held_out,
            "seed": seed,
        }
        summary = run(
            sae,
            training,
            held,
            config,
            out,
            about=about,
            plan=plan,
            resume=keep.resume,
            loggers=loggers,
            progress=advance,
        )
    _say(out, summary)


def _sparsity(birth: Birth) -> Sparsity:
    if birth.sparsity == "jumprelu":
        return JumpReLU()
    if birth.sparsity == "relu":
        return ReLU()
    return TopK(k=birth.k) if birth.sparsity == "topk" else BatchTopK(k=birth.k)


def _config(birth: Birth, fit: Fit, seed: int) -> TrainConfig:
    if (birth.sparsity == "relu") != (fit.l1 is not None):
        raise InputError(
            f"expected --l1 with --sparsity relu and with no other, got {birth.sparsity}, --l1 {fit.l1}"
        )
    penalty = L1(coefficient=fit.l1) if fit.l1 is not None else None
    return TrainConfig(
        steps=fit.steps,
        lr=fit.lr,
        b_dec_lr=fit.b_dec_lr,
        batch_tokens=fit.batch_tokens,
        warmup_steps=fit.warmup_steps,
        decay_steps=fit.decay_steps,
        penalty=L0Target(l0=float(birth.k)) if birth.sparsity == "jumprelu" else penalty,
        revival=AuxK() if fit.revive == "auxk" else GhostGradients() if fit.revive == "ghost" else None,
        resampling=Resampling(every_steps=1000) if fit.revive == "resample" else None,
        products="bfloat16" if fit.bfloat16 else None,
        seed=seed,
    )


def _born(
    training: Activations,
    birth: Birth,
    sparsity: Sparsity,
    saved: Prescription | None,
    seed: int,
    device: str | None,
) -> SAE:
    if birth.layer_norm and saved:
        raise InputError("--layer-norm: expected --init, as a prescription is one for tokens as they are")
    statistics = collect(training, seed=seed, device=device)
    seen = collect(LayerNormed(training), seed=seed, device=device) if birth.layer_norm else statistics
    # A rate under a few tokens of the sample cannot be set on it.
    least = 4 / len(statistics.sample)
    rate = max(birth.k / birth.d_sae, least) if birth.sparsity == "jumprelu" else None
    return born(
        saved or start_from(birth.init, seen, alpha=birth.alpha, rank=birth.rank),
        d_sae=birth.d_sae,
        sparsity=sparsity,
        sample=statistics.sample,
        generator=torch.Generator(device or "cpu").manual_seed(seed),
        firing_rate=rate if birth.firing_rate is None else birth.firing_rate,
        scaled=birth.scale,
        layer_norm=birth.layer_norm,
    )


def _say(out: Path, summary: dict[str, Any]) -> None:
    born_dead, dead = summary["birth"]["dead"], summary["dead"]
    Console().print(
        f"{out}: {born_dead:.1%} of {summary['d_sae']:,} latents were born dead, {dead:.1%} are dead after "
        f"{summary['steps']:,} steps ({summary['relu']:.1%} by ReLU, {summary['topk']:.1%} by TopK); raw FVU "
        f"{summary['fvu_raw']:.4f}",
        highlight=False,
        soft_wrap=True,
    )
