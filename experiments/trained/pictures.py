"""What the figures of trained SAEs share: rows become numbers over seeds, titles, and a strip of bars per layer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale
from experiments.outliers_2605_31518.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from experiments.trained import rows as kept
from experiments.trained.arms import ARMS, CONTROLS, LR
from experiments.trained.layers import layer_of
from experiments.trained.plan import SCALES
from experiments.trained.rows import COMPARED, CONCEPTS, TRAINED, Row, read_rows

HERE = Path(__file__).parent
FRAME_SCALES = {name: Scale(name=name, tokens=100_000, draws=len(scale.seeds)) for name, scale in SCALES.items()}
"""tokens: on which death is counted, at most."""
LOOKS = {
    "baseline": (RED, "o"),
    "auxk": (ORANGE, "o"),
    "centered": (BLUE, "o"),
    "prescribed": (GREEN, "o"),
    "layer norm": (PURPLE, "o"),
    "relu": (RED, "s"),
    "relu centered": (BLUE, "s"),
    "jumprelu": (ORANGE, "D"),
    "jumprelu centered": (SKY, "D"),
    "ghost": (BLACK, "s"),
    "resampling": (PURPLE, "D"),
    "sparse adam": (SKY, "^"),
    "sparse adam centered": (BLUE, "^"),
    "rate bias": (GREEN, "v"),
    "random rows": (SKY, "o"),
    "neurons": (BLACK, "o"),
}
"""Colour and marker of each arm and control, the same in all figures; no two of one figure are alike."""
COLOURS = {name: colour for name, (colour, _) in LOOKS.items()}
STYLES = {"auxk": "--", "prescribed": "--", "layer norm": ":"}
"""Of lines that may lie on others."""


def figure(
    name: str,
    compute: Callable[[Scale], Data],
    draw: Callable[[Data], Any],
    claims: Callable[[Data], Sequence[Claim]],
) -> Reproduction:
    """A figure that is made from the rows alone."""
    inputs = tuple(kept.FOLDER / file for file in (TRAINED, CONCEPTS, COMPARED))
    return Reproduction(name=name, compute=compute, draw=draw, claims=claims, scales=tuple(SCALES), inputs=inputs)


def label(arm: str) -> str:
    """An arm or a control in a legend."""
    return ARMS[arm].label if arm in ARMS else CONTROLS[arm]


def at_own_size(rows: Sequence[Row], arm: str) -> list[Row]:
    """The rows of an arm with as many latents as the layer's SAEs have, not those of other sizes."""
    return [row for row in rows if row["arm"] == arm and row["d_sae"] == layer_of(row["layer"]).d_sae]


def spread(values: Sequence[float | None]) -> list[float] | None:
    """[mean, least, largest] over seeds; None where one is not known."""
    known = [value for value in values if value is not None]
    if not values or len(known) < len(values):
        return None
    return [float(f"{value:.4g}") for value in (sum(known) / len(known), min(known), max(known))]


def last_tenth(row: Row) -> float:
    """By how much the dead fraction moved over the last tenth of the steps."""
    curve = row["curve"]
    dead = [relu + topk for relu, topk in zip(curve["relu"], curve["topk"], strict=True)]
    before = max((n for n, step in enumerate(curve["step"]) if step <= 0.9 * row["steps"]), default=0)
    return float(abs(dead[-1] - dead[before]))


def about(rows: Mapping[str, Sequence[Row]]) -> Data:
    """What `caption` says: steps, batch, rate, seeds, how far death still moved; of each layer, gamma and sizes."""
    every = [row for of in rows.values() for row in of]
    trained = [row for row in every if row["arm"] in ARMS]
    first = trained[0]
    seeds = [len({row["seed"] for row in trained if row["layer"] == name}) for name in rows]
    return {
        "steps": first["steps"],
        "batch_tokens": first["batch_tokens"],
        "lr": first["lr"],
        "draws": min(seeds),  # of the layer that has the fewest
        "most_draws": max(seeds),
        "curve_tokens": max(row["curve_tokens"] for row in trained),
        "moved": float(f"{max(map(last_tenth, trained)):.3g}"),
        "layers": {
            name: {key: of[0][key] for key in ("title", "gamma", "d_in", "k", "train_tokens", "test_tokens")}
            | {"d_sae": layer_of(name).d_sae}
            for name, of in rows.items()
        },
    }


def caption(data: Data) -> str:
    """n, k, tokens, draws, at which step training was cut, and how fast it still moved."""
    layers = data["layers"].values()
    tested = _range([layer["test_tokens"] for layer in layers])
    trained = _range([layer["train_tokens"] for layer in layers])
    seeds = _range([data["draws"], data["most_draws"]])
    return (
        f"n {_range([layer['d_sae'] for layer in layers])}, k {_range([layer['k'] for layer in layers])}; "
        f"{seeds} seed{'s' * (seeds != '1')}; cut after {data['steps']:,} steps of "
        f"{data['batch_tokens']:,} tokens ({trained} different ones), lr {data['lr']:g};\n"
        f"measured on {tested} tokens of other documents; over the last tenth of the steps the dead fraction of an "
        f"SAE moved by up to {data['moved']:.1%}"
    )


def caption_of_courses(data: Data) -> str:
    """`caption` of a figure with courses: on fewer tokens more latents are silent."""
    said = f"courses: dead on {data['curve_tokens']:,} of these tokens, so more than on all at the end"
    return f"{caption(data)}\n{said}"


def entitle(picture: Any, text: str) -> None:
    """A caption over all panels, its lines broken where the picture ends."""
    size = 8
    most = int(picture.get_figwidth() * 72 / (0.56 * size))  # letters; 0.56 of the size is a letter's mean width
    lines = [part for line in text.splitlines() for part in wrap(line, most)]
    picture.suptitle("\n".join(lines), fontsize=size)


def _range(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def log_axis(axis: Any) -> None:
    """A logarithmic y axis with plain numbers, also where it spans less than a power of ten."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axis.get_ylim()
    axis.yaxis.set_minor_formatter((lambda value, _: f"{value:g}") if high < 10 * low else "")


def tick(layer: Row) -> str:
    """A layer under an axis."""
    return f"{layer['title'].replace(' ', chr(10), 1)}\nγ {layer['gamma']:.2g}"


def strips(axis: Any, data: Data, arms: Sequence[str], key: str) -> None:
    """A marker per layer and arm, with a line from the least seed to the largest. key: of `data["ends"]`."""
    for place, name in enumerate(data["layers"]):
        for n, arm in enumerate(arms):
            at = place + 0.7 * ((n + 0.5) / len(arms) - 0.5)
            numbers = data["ends"][name][arm][key]
            if numbers is None:
                continue
            colour, marker = LOOKS[arm]
            axis.plot((at, at), numbers[1:], color=colour, lw=1.4, alpha=0.7)
            axis.plot(at, numbers[0], marker, color=colour, ms=5, label=label(arm) if place == 0 else None)
    axis.set_xticks(range(len(data["layers"])), [tick(layer) for layer in data["layers"].values()], fontsize=8)


def concepts_at(steps: int) -> dict[str, Row]:
    """{key: the row of concepts} of trainings of so many steps at the usual rate."""
    return {row["key"]: row for row in read_rows(CONCEPTS) if (row["steps"], row["lr"]) == (steps, LR)}


def steps_of(scale: Scale) -> int:
    """Of the trainings that a scale shows."""
    return SCALES[scale.name].steps
