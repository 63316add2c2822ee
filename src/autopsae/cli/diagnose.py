"""autopsae diagnose SOURCE: a table, findings and prescriptions, layer by layer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from autopsae.activations.names import file_names
from autopsae.activations.store import open_layers
from autopsae.arguments import check_k
from autopsae.cli.options import Padding
from autopsae.cli.printing import print_text, write_all
from autopsae.cli.terminal import check_places, checked_device, progress_bar, progress_on
from autopsae.diagnosis.diagnose import AT_TOKENS, LR, STEPS
from autopsae.diagnosis.parameters import Repeated
from autopsae.diagnosis.prescribe import ACCEPTABLE
from autopsae.diagnosis.survey import survey
from autopsae.report.plots import check_figure, save_figure
from autopsae.report.text import survey_text


def diagnose(
    source: Positional[Path],
    /,
    *,
    layers: tuple[str, ...] = (),
    padding: Annotated[Padding, OmitArgPrefixes] = Padding(),
    d_sae: int = 8192,
    k: int = 64,
    tokens: int = 100_000,
    at_tokens: int = AT_TOKENS,
    alphas: tuple[float, ...] = (),
    ranks: tuple[int, ...] = (),
    acceptable: float = ACCEPTABLE,
    lr: float = LR,
    steps: int = STEPS,
    repeated: Repeated = "keep",
    json: Path | None = None,
    figure: Path | None = None,
    prescriptions: Path | None = None,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """How many latents of an SAE will be born dead on each layer of SOURCE, why, and what to change.

    Args:
        source: Activations, as a file or a folder: what `harvest` writes, or a layout of docs/files.md.
        layers: Layers to diagnose, all by default; N stands for hsN.
        padding: Which tokens are padding, and left out.
        d_sae: Latents of the SAE to be trained.
        k: Latents that fire per token.
        tokens: Tokens per layer at most, spread over the source.
        at_tokens: Tokens on which death is forecast, from a sample of 4,096.
        alphas: Further whitening exponents to measure, from 0 (centering) to 1 (full).
        ranks: Active subspace ranks to measure.
        acceptable: Fraction of latents that may be born dead before something is prescribed.
        lr: Learning rate by which it is judged whether training brings the dead-by-ReLU back.
        steps: Steps of that training.
        repeated: Tokens that are the same vector: keep all, or leave_out all but one of each.
        json: Write all numbers there.
        figure: Write death by layer and remedy there (.png, .pdf, .svg).
        prescriptions: Write each layer's prescription into this folder.
        seed: Of the drawn SAE and of the token sample.
        device: Where to compute, for example cuda.
    """
    if figure:
        check_figure(figure)
    check_k(k, d_sae)
    check_places(json, figure, prescriptions)
    device = checked_device(device)
    opened = open_layers(source, layers, lengths=padding.lengths, mask=padding.mask)
    with progress_bar("opening") as (bar, task):
        result = survey(
            {name: layer.take(tokens) for name, layer in opened.items()},
            d_sae=d_sae,
            k=k,
            at_tokens=at_tokens,
            alphas=alphas,
            ranks=ranks,
            acceptable=acceptable,
            lr=lr,
            steps=steps,
            repeated=repeated,
            seed=seed,
            device=device,
            progress=progress_on(bar, task),
        )
    names = file_names([diagnosis.layer for diagnosis in result])
    writers: list[Callable[[], object]] = []
    if json:
        writers.append(partial(result.save, json))
    if figure:
        writers.append(partial(save_figure, result, figure))
    if prescriptions:
        writers += [partial(d.prescription.save, prescriptions / names[d.layer]) for d in result]
    write_all(writers)
    print_text(survey_text(result))
