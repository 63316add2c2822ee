"""The command line: verbs with few flags and no logic; it alone prints and shows progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import Positional

from autopsae.activations.store import open_layers, select_layers
from autopsae.arrays import InputError
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
    available = open_layers(source)
    chosen = select_layers(list(available), layers) if layers else list(available)
    with _progress(len(chosen)) as advance:
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
            diagnosis.prescription.save(prescriptions / diagnosis.layer)


@contextmanager
def _progress(layers: int) -> Iterator[Callable[[str, str, int], None]]:
    """A bar on standard error that counts layers and names the pass and the tokens it has read."""
    columns = (BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} layers"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=layers)
        seen: dict[tuple[str, str], int] = {}

        def advance(layer: str, name: str, tokens: int) -> None:
            seen[layer, name] = seen.get((layer, name), 0) + tokens
            finished = len({layer for layer, _ in seen}) - 1
            bar.update(task, completed=finished, description=f"{layer}: {name}, {seen[layer, name]:,} tokens")

        yield advance
        bar.update(task, completed=layers, description="")


def main() -> None:
    """Run the verb of the command line; bad input ends with one line and exit code 2, Ctrl-C with 130."""
    try:
        tyro.extras.subcommand_cli_from_dict({"diagnose": diagnose}, prog="autopsae")
    except InputError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; what was written before is whole", highlight=False)
        sys.exit(130)
