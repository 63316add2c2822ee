"""Which SAEs are asked for, in which order, and what they would take, from measured seconds per step."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median

from experiments.trained.arms import ARMS, CONTROLS, LR, SIZED
from experiments.trained.fit import newborn
from experiments.trained.layers import LAYERS, Data, layer_of
from experiments.trained.rows import Job, Row

from autopsae.training import plan_training


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is trained."""

    steps: int
    seeds: tuple[int, ...]
    layers: tuple[str, ...]
    all_arms: tuple[str, ...]
    """Layers on which all arms are trained; on the others those that are `everywhere`."""


EVERYWHERE = tuple(name for name, arm in ARMS.items() if arm.everywhere)
SCALES = {
    "quick": Scale(
        steps=1000, seeds=(0,), layers=("unirep64", "spliceai", "unirep"), all_arms=("unirep64", "spliceai")
    ),
    "full": Scale(
        steps=5000,
        seeds=(0, 1, 2),
        layers=tuple(LAYERS),
        all_arms=("unirep64", "spliceai", "unirep", "dinov2"),
    ),
}


def sizes_of(layer: str, arm: str) -> list[int]:
    """Numbers of latents of an arm on a layer, the layer's own first."""
    of = layer_of(layer)
    sizes = [of.d_sae]
    if arm in ("baseline", "random rows"):
        sizes.append(4 * of.d_sae)
    if arm in (*SIZED, "random rows"):
        sizes += of.sizes
    return [*dict.fromkeys(sizes)]


def jobs(
    *,
    layers: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    lr: float = LR,
    all_arms: Sequence[str] = (),
) -> list[Job]:
    """The SAEs of the table among these: first the arms that are trained everywhere, on all layers and seeds.
    all_arms: the layers on which the other arms are trained too.
    """
    asked = [
        Job(layer=layer, arm=arm, d_sae=d_sae, seed=seed, steps=steps, lr=lr)
        for layer in layers
        for seed in seeds
        for arm in arms
        if arm in CONTROLS or ARMS[arm].everywhere or layer in all_arms
        for d_sae in sizes_of(layer, arm)
        if arm != "neurons" or seed == seeds[0]
    ]
    # Stable: within a rank the layers stay in the order of the table, the quickest first.
    return sorted(asked, key=lambda job: (job.arm not in (*EVERYWHERE, *CONTROLS), job.seed))


def like(arm: str) -> str:
    """An arm whose steps take as long."""
    plain = arm.removesuffix(" centered")
    return "baseline" if plain in ("centered", "prescribed", "layer norm", "resampling", "rate bias") else plain


def kind_of(job: Job) -> str:
    """What the time of a step depends on, besides the machine."""
    return f"{job.layer} {like(job.arm)} {job.d_sae}"


class Speeds:
    """Seconds per step and of measuring: of SAEs that were made in WORK, or else measured on a few steps."""

    def __init__(self, rows: Sequence[Row], work: Path) -> None:
        self._work, self._steps, self._measuring = work, dict[str, float](), dict[str, list[float]]()
        for row in rows:
            job = Job(**{each.name: row[each.name] for each in fields(Job)})
            if (work / "saes" / f"{job.file}.course").exists():
                self._steps[kind_of(job)] = row["seconds"] / row["steps"]
                self._measuring.setdefault(job.layer, []).append(row["seconds_measuring"])

    def of_step(self, job: Job, data: Data) -> float:
        """0 for a control."""
        if job.is_control:
            return 0.0
        kind = kind_of(job)
        if kind not in self._steps:
            sae, config, _ = newborn(replace(job, arm=like(job.arm)), data, self._work)
            if config.revival:  # it costs nothing before the first latent is dead
                config = replace(config, revival=replace(config.revival, dead_after_tokens=1))
            self._steps[kind] = plan_training(sae, data.train[:4096], config).seconds_per_step
        return self._steps[kind]

    def of_measuring(self, layer: str) -> float:
        """The median of the layer, in seconds; 0 before one was measured."""
        return median(self._measuring.get(layer, [0.0]))
