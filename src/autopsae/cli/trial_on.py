"""diagnose --trial --on: the candidates of a trial in processes of their own, here or on a cluster."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autopsae.activations.store import open_layers
from autopsae.cli.config import settings_of
from autopsae.cli.firing import sparsity_of
from autopsae.cli.interrupts import delay_signals, job_signals
from autopsae.cli.options.diagnose import DiagnoseOptions
from autopsae.cluster.engine import open_engine
from autopsae.cluster.groups import run_groups
from autopsae.defaults import K
from autopsae.passes import same_passes
from autopsae.progress import Progress
from autopsae.provenance import add_provenance
from autopsae.run.many import Elsewhere
from autopsae.run.members import penalty_for
from autopsae.run.observer import Observer
from autopsae.sae.sparsity import Sparsity, read_sparsity
from autopsae.training.config import TrainConfig
from autopsae.trial.entered import Entered, train_candidates
from autopsae.urls import absolute


def training_asked(options: DiagnoseOptions) -> dict[str, Any]:
    """The arguments of `training_for`."""
    k = K if options.firing.k is None else options.firing.k
    return {
        "l0": float(k),
        "steps": options.steps,
        "lr": options.lr,
        "batch_tokens": options.trialing.batch_tokens,
    }


def training_for(sparsity: Sparsity, *, l0: float, steps: int, lr: float, batch_tokens: int) -> TrainConfig:
    """A training with the penalty that goes with the sparsity. l0: of a penalty that has one."""
    # For a plan any coefficient does, as steps take equally long; a trial of relu is refused.
    l1 = 1.0 if sparsity.usual_penalty == "l1" else None
    penalty = penalty_for(sparsity, l0=l0, l1=l1)
    return TrainConfig(steps=steps, lr=lr, batch_tokens=batch_tokens, penalty=penalty)


def spread_candidates(
    options: DiagnoseOptions, layer: str, folder: Path, tokens: int, progress: Progress
) -> Elsewhere:
    """What trains the candidates of a layer on the engine that is asked for, in `folder`. tokens: that the trial
    reads at most; progress: told the candidates done, as "jobs".
    """
    on, padding = options.spreading.on, options.padding
    assert on is not None
    request = {
        "source": str(absolute(options.source)),
        "layer": layer,
        "lengths": padding.lengths and str(absolute(padding.lengths)),
        "mask": padding.mask and str(absolute(padding.mask)),
        "tokens": tokens,
        "d_sae": options.d_sae,
        "sparsity": sparsity_of(options.firing).to_dict(),
        "training": training_asked(options),
        "seed": options.seed,
    }
    settings = settings_of(options)
    made_by = {"command": "diagnose", "source": settings.pop("source"), "settings": settings}

    def elsewhere(groups: Mapping[int, Sequence[str]]) -> None:
        run_groups(
            partial(open_engine, on, folder),
            train_candidates_of_job,
            groups,
            folder,
            task={**request, "folder": str(folder), "made_by": made_by},
            request=request,
            again="run the same again",
            progress=progress,
        )

    return elsewhere


def train_candidates_of_job(
    *,
    source: str,
    layer: str,
    lengths: str | None,
    mask: str | None,
    tokens: int,
    d_sae: int,
    sparsity: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    folder: str,
    made_by: dict[str, Any],
    number: int,
    names: list[str],
) -> None:
    """The task of some candidates of a trial: into their folders in `folder`. made_by: what results say of it."""
    with job_signals(), add_provenance(**made_by):
        paths = {"lengths": lengths and Path(lengths), "mask": mask and Path(mask)}
        chosen = read_sparsity(Path(folder), sparsity, d_sae)
        entered = Entered.of(
            same_passes(open_layers(source, [layer], **paths)[layer].take(tokens)),
            config=training_for(chosen, **training),
            d_sae=d_sae,
            sparsity=chosen,
            layer=layer,
            seed=seed,
        )
        train_candidates(entered, names, number, folder, observer=Observer(delay=delay_signals))
