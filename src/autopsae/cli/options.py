"""The options of `train`, and those that verbs share. Values with commas are a sweep over all combinations."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

from autopsae.run.start import STARTS, Strays


def _several(parse: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    def values(words: list[str]) -> tuple[Any, ...]:
        found = tuple(parse(word) for word in words[0].split(","))
        if len({*found}) < len(found):
            raise ValueError(f"expected each value once, got {words[0]}")
        return found

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{metavar}[,{metavar}...]",
        instance_from_str=values,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)],
    )


def _start(word: str) -> str:
    if word not in STARTS:
        raise ValueError(f"expected some of {', '.join(STARTS)}, got {word}")
    return word


Numbers = Annotated[tuple[float, ...], _several(float, "FLOAT")]
Integers = Annotated[tuple[int, ...], _several(int, "INT")]
Words = Annotated[tuple[str, ...], _several(_start, "START")]


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Which tokens of the source are padding, and left out."""

    lengths: Path | None = None
    """Of activations [sequences, tokens, d_in]: how many tokens of each are real (.npy, .npz, .pt, .txt)."""
    mask: Path | None = None
    """Instead of --lengths: True or 1 for each token that is real (.npy, .npz, .pt, .txt)."""


@dataclass(frozen=True, kw_only=True)
class Birth:
    """The SAE as it is born."""

    prescription: Path | None = None
    """Start from what `diagnose --prescriptions` wrote; instead of --init."""
    init: Words = ()
    """Where b_dec starts, or what else is done to the layer: zero, mean, median (the default), whiten, asi."""
    alpha: Numbers = ()
    """Whitening exponent of --init whiten; 0.3 if not given."""
    rank: int | None = None
    """Rank of --init asi; 64 if not given."""
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
    lr: Numbers = (3e-4,)
    """Learning rate of Adam."""
    b_dec_lr: float | None = None
    """Learning rate of b_dec alone."""
    batch_tokens: int = 4096
    """Tokens per step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    decay_steps: int = 0
    """Last steps, over which it falls to 0."""
    l1: Numbers = ()
    """L1 coefficient of --sparsity relu."""
    strays: Strays = "keep"
    """What is done with tokens of over ten times the median norm (attention sinks), often most of the error."""
    revive: Literal["auxk", "ghost", "resample"] | None = None
    """Let latents silent for 256,000 tokens explain the residual, or draw them afresh every 1,000 steps until nine
    tenths of the steps are done."""
    bfloat16: bool = False
    """Choose latents in bfloat16, for speed; their values stay float32."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is measured and kept on the way."""

    held_out: int | None = None
    """Tokens, spread over all, that are kept for the summary; a tenth, at most 100,000, if not given."""
    evaluate_every: int | None = None
    """Steps between measurements on held-out tokens (held_out.jsonl), on 4,096 of them at most."""
    target_fvu: float | None = None
    """Stop once the raw FVU on held-out tokens is no greater."""
    checkpoint_every: int | None = 1000
    """Steps between checkpoints."""
    resume: bool = False
    """Go on from the checkpoint in OUT, with the same settings."""
    record_every: int = 1
    """Steps between records."""
    memory: float | None = None
    """GB that a sweep may take at once; half of what is free if not given."""
    csv: bool = False
    """Write records.csv beside records.jsonl."""
    tensorboard: bool = False
    """Write the records for TensorBoard into OUT."""
