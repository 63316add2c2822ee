"""What a training would take, here and on several devices, as a sentence and a table."""

from math import ceil

from rich.console import Group, RenderableType
from rich.text import Text

from autopsae.activations.room import in_words
from autopsae.report.fitting import Fitting, empty_table, plain
from autopsae.training.devices import DevicesPlan
from autopsae.training.plan import TrainingPlan, duration

_TITLE = "estimated for its latents spread over several such devices, which send 10 or 400 Gbit/s (1.25 or 50 GB/s)"


def plan_text(plan: TrainingPlan) -> RenderableType:
    """The plan in a sentence; below it, for each number of devices, one SAE whose latents are spread over them, and
    where the plan is for several layers, an SAE of each layer on a device of its own. Only the sentence, where
    neither is possible.
    """
    if len(plan.on_devices) < 2:
        return plain(str(plan))
    table = empty_table(_TITLE)
    for name in ("devices", "10 Gbit/s", "400 Gbit/s", "memory of each", "sent by each in a step"):
        table.add_column(name, justify="right", no_wrap=True)
    layers = len(plan.layers)
    if layers > 1:
        table.add_column(f"{layers} SAEs, one a layer", justify="right", no_wrap=True)
    lines: list[RenderableType] = []
    for on in plan.on_devices:
        sent = in_words(on.sent_bytes) if on.devices > 1 else "nothing"
        cells = [str(on.devices), duration(on.hours_10_gbit), duration(on.hours_400_gbit)]
        cells += [in_words(on.memory_bytes), sent]
        if layers > 1:
            cells.append(duration(_hours_of_layers(plan, on)))
        table.add_row(*cells)
        lines.append(Text(_as_line(cells)))
    return Group(plain(str(plan)), Text(), Fitting(table, lines))


def _hours_of_layers(plan: TrainingPlan, on: DevicesPlan) -> float:
    """Hours for an SAE of each layer, each whole on one device (docs/cluster.md)."""
    return ceil(len(plan.layers) / on.devices) * plan.hours


def _as_line(cells: list[str]) -> str:
    devices, slow, fast, memory, sent, *layers = cells
    several = f"; an SAE of each layer, one to a device: {layers[0]}" if layers else ""
    return f"{devices}: {slow} (10 Gbit/s) or {fast} (400 Gbit/s), {memory} of memory each, {sent} sent{several}"
