"""autopsae: know how many latents of a sparse autoencoder will be born dead on a layer, why, and what to change.

The rooms, in the order in which the data pass through them; a room imports only rooms named before it:

    words            names and values from anywhere, fit for a message
    arrays           what a token matrix is, its checks, the one error class
    arguments        counts that callers give: integers, no truth values and no floats
    seeds, passes    a random stream for each purpose of a seed; whether two passes see the same tokens
    memory           what is free of it, and a refusal of what would not fit
    reading, pickles files that may be anything: regular ones only, JSON within bounds, harmless pickles
    disk, files      a full disk, locks, partial files of dead processes; files written whole or not at all
    kinds, saved     what our own files must hold; written with checksums, and checked when they are read back
    activations      where tokens come from: files, shards, models harvested with hooks, synthetic tokens
    statistics       tokens -> moments, norms, a uniform sample, geometric median, spectrum; one pass, float64
    remedies         what can be changed: a centre, a metric (z-score, whitening), a subspace for the rows
    survival         death at birth: by the paper's formula, counted, and forecast for any number of tokens
    diagnosis        severity, findings, the prescription
    sae              the model alone: born from a prescription, encode, decode, fold, save; who is alive
    training         fit one or many at once: objectives, revival, optimizers, the loop, checkpoints, logs
    evaluation       measure it: error in raw space, death and its causes, true directions found, loss recovered
    interop          SAEs of other libraries and public suites: loaded as ours, ours written for the libraries
    run              training from activations to folders: one SAE, or a sweep
    report           results -> tables and figures; computes nothing
    cli              the command line

The common way through: `survey(open_layers(folder), d_sae=..., k=...)`, or `diagnose(tokens, ...)` for one layer;
then `born(diagnosis.prescription, ...)` and `train(sae, tokens, TrainConfig(...))`.
"""

from functools import cache
from importlib import import_module
from typing import Any


@cache
def _homes() -> dict[str, str]:
    """name -> the module that it comes from, as the stub says, which type checkers and editors read too."""
    import ast
    from pathlib import Path

    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    lines = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(line.module) for line in lines for alias in line.names}


def _rooms() -> set[str]:
    return {home.split(".")[1] for home in _homes().values()}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: PyTorch takes seconds, and Ctrl-C must find the command line ready."""
    if name == "__all__":
        return sorted(_homes())
    if name.startswith("__") or (name not in _homes() and name not in _rooms()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _rooms():
        # With all that the public names come from, as if they had been imported with this module.
        for home in set(_homes().values()):
            import_module(home)
        return import_module(f"{__name__}.{name}")
    found = globals()[name] = getattr(import_module(_homes()[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
