"""Figure S3: death at birth against outlier severity for several SAE widths, k and input widths, on synthetic data.

    python -m experiments.outliers_2605_31518.figS3 --scale quick|full

One size is varied at a time, the others stay at d_in 50, d_sae 100, k 5 (the paper's values are lost with its
figure). Lines: the closed forms; they know d_sae and k, but not d_in. Five draws at either scale.
"""

from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

from experiments.outliers_2605_31518.births import (
    Setting,
    birth,
    closed_forms,
    draw_tokens,
    mean_deviation,
    rank_correlation,
    summary,
)
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main
from experiments.outliers_2605_31518.style import MARKERS, SERIES, death_axis, gamma_axis, sheet
from matplotlib.figure import Figure

GAMMAS = (0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0)
DRAWS = 5
VARIED = {"d_sae": (50, 100, 200, 400), "k": (2, 5, 10, 20), "d_in": (25, 50, 100, 200)}
NAMES = {"dead": "dead-by-TopK", "relu": "dead-by-ReLU"}


def compute(scale: Scale) -> Data:
    """A row per size that is varied, its value and gamma."""
    draws = min(DRAWS, scale.draws)
    measured: dict[tuple[Setting, float], dict[str, Any]] = {}
    for d_in in VARIED["d_in"]:
        settings = [setting for setting in _settings() if setting.d_in == d_in]
        for gamma in GAMMAS:
            drawn = [draw_tokens(settings[0], gamma, scale.tokens, seed) for seed in range(draws)]
            for setting in settings:
                deaths = [birth(x, setting, seed) for seed, x in enumerate(drawn)]
                measured[setting, gamma] = summary(deaths, setting, gamma, scale.tokens)
    rows = [
        {"varied": name, "value": value, **asdict(setting), **measured[setting, gamma]}
        for name, values in VARIED.items()
        for value, setting in ((value, replace(Setting(), **{name: value})) for value in values)
        for gamma in GAMMAS
    ]
    return {"tokens": scale.tokens, "draws": draws, "rows": rows}


def _settings() -> list[Setting]:
    """Every setting once."""
    return list({replace(Setting(), **{name: value}): None for name, values in VARIED.items() for value in values})


def draw(data: Data) -> Figure:
    figure, axes = sheet(2, 3, width=11, height=6.4, sharex=True, sharey=True)
    for line, (pathway, name) in zip(axes, NAMES.items(), strict=True):
        for axis, (varied, values) in zip(line, VARIED.items(), strict=True):
            for value, colour, marker in zip(values, SERIES, MARKERS, strict=False):
                rows = _line(data, varied, value)
                gammas, dead, spread = ([row[key] for row in rows] for key in ("gamma", pathway, f"{pathway}_std"))
                setting = replace(Setting(), **{varied: value})
                curve = closed_forms(setting, data["tokens"], GAMMAS[0], GAMMAS[-1])
                axis.plot(curve["gamma"], curve[pathway], color=colour, linewidth=1.1, alpha=0.8)
                axis.errorbar(
                    gammas, dead, yerr=spread, color=colour, marker=marker, ms=4, lw=0, elinewidth=0.8, capsize=2,
                    label=f"{value}",
                )  # fmt: skip
            gamma_axis(axis)
            death_axis(axis, f"{name},\nfraction of latents")
            axis.label_outer()
            if pathway == "dead":
                axis.set_title(f"varied: {varied}", fontsize=10, loc="left")
            # Death by TopK leaves its lower right empty, death by ReLU its upper left.
            place = "lower right" if pathway == "dead" else "upper left"
            axis.legend(frameon=False, fontsize=8, title=varied, title_fontsize=8, loc=place)
    figure.suptitle(
        f"dots: measured on {data['tokens']:,} tokens, {data['draws']} draws; lines: closed forms", fontsize=10
    )
    return figure


def claims(data: Data) -> list[Claim]:
    lines = [_line(data, varied, value) for varied, values in VARIED.items() for value in values]
    spearman = {path: min(rank_correlation(line, path) for line in lines) for path in NAMES}
    fall = max(a["dead"] - b["dead"] for line in lines for a, b in pairwise(line))
    high = [[row for row in line if row["gamma"] > 3] for line in lines]
    deviation = {path: [mean_deviation(line, path) for line in high] for path in NAMES}
    return [
        *(
            at_least("figS3", f"Spearman(gamma, {name}), least of the 12 lines", paper=1.0, ours=rho, limit=0.99)
            for name, rho in ((NAMES[path], spearman[path]) for path in NAMES)
        ),
        at_most(
            "figS3",
            "largest fall of dead-by-TopK from one gamma to the next, any line",
            paper=0.0,
            ours=fall,
            limit=0.0,
        ),
        *(
            at_most(
                "figS3",
                f"mean |{NAMES[path]} - closed form| over gamma > 3, largest of the 12 lines",
                paper="follows the formula",
                ours=max(deviation[path]),
                limit=0.08,
            )
            for path in NAMES
        ),
    ]


def _line(data: Data, varied: str, value: int) -> list[dict[str, Any]]:
    return [row for row in data["rows"] if (row["varied"], row["value"]) == (varied, value)]


FIGURE = Reproduction(name="figS3", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
