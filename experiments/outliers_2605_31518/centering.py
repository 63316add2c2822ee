"""What the remedies leave dead on our own layers, also in the long run: the project's own questions.

    python -m experiments.outliers_2605_31518.centering

Left: dead latents that are forecast on a million tokens after centering by the geometric median, against the
effective rank, with the interval of the forecast. Right: the same against what is forecast without a remedy.
"""

from collections import Counter
from typing import Any

from experiments.outliers_2605_31518.frame import (
    REAL,
    Claim,
    Data,
    Reproduction,
    Scale,
    at_least,
    at_most,
    main,
    near,
)
from experiments.outliers_2605_31518.own import LAYER_FILES, LOW_RANK, own_layers
from experiments.outliers_2605_31518.released import MODALITIES, Row
from experiments.outliers_2605_31518.style import death_axis, error_bars, legend_below, sheet
from matplotlib.figure import Figure

from autopsae.diagnosis.prescribe import LOPSIDED

FEW = 0.01
"""Dead latents that are accepted."""


def compute(scale: Scale) -> Data:
    """A row per layer: death forecast on a million tokens, and counted, under the remedies."""
    rows = []
    for row in own_layers():
        expected = row["expected"]
        rows.append(
            {
                **{
                    name: row[name]
                    for name in ("model", "modality", "point", "tokens", "gamma", "rank", "prescribed")
                },
                "dominance": expected["median"]["dominance"],
                "expected": {name: expected[name]["dead"] for name in expected},
                "interval": expected["median"]["interval"],
                "counted": {name: row["counted"][name]["dead"] for name in ("none", "mean", "median", "whiten")},
                "left": row["counted"][row["prescribed"]]["dead"],
            }
        )
    return {"draws": scale.draws, "rows": rows}


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=13, height=5.6)
    ranks, without = axes[0]
    for modality, colour in MODALITIES.items():
        rows = [row for row in data["rows"] if row["modality"] == modality]
        dead = [row["expected"]["median"] for row in rows]
        span = error_bars(dead, [row["interval"] for row in rows])
        ranks.errorbar(
            [row["rank"] for row in rows], dead, yerr=span, fmt="o", ms=4, lw=0.8, color=colour, label=modality
        )
        without.scatter([row["expected"]["none"] for row in rows], dead, s=18, color=colour)
    ranks.axvline(LOW_RANK, color="0.4", linestyle=":", linewidth=1.2)
    for axis in (ranks, without):
        axis.axhline(FEW, color="0.6", linestyle=":", linewidth=1.2)
        death_axis(axis, "expected dead on 1,000,000 tokens, centered by the median")
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set_ylim(-0.0005, 1.2)
        axis.set_yticks((0, 0.01, 0.1, 1), ("0", "1 %", "10 %", "100 %"))
    ranks.set_xscale("log")
    ticks = (0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.2, 0.5, 1)
    ranks.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    ranks.set_xticks((), minor=True)
    ranks.set_xlabel("effective rank / d_in")
    without.set_xscale("symlog", linthresh=0.01)
    without.set_xlim(-0.0005, 1.2)
    without.set_xticks((0, 0.01, 0.1, 1), ("0", "1 %", "10 %", "100 %"))
    without.plot((0, 1), (0, 1), color="0.4", linewidth=1)
    without.set_xlabel("expected dead on 1,000,000 tokens, no remedy")
    for row in exceptions(data["rows"]):
        ranks.annotate(
            f"{row['model']} {row['point']}", (row["rank"], row["expected"]["median"]), fontsize=7, va="bottom"
        )
    ranks.set_title(
        f"{len(data['rows'])} layers, d_sae 8192, k 64; dotted: rank 4 %, 1 % dead; named: exceptions",
        fontsize=9.5,
        loc="left",
    )
    legend_below(figure, ranks, 4)
    return figure


def exceptions(rows: list[Row]) -> list[Row]:
    """Layers of more than 4 % effective rank on which centering is not expected to suffice."""
    return [row for row in rows if row["rank"] > LOW_RANK and row["expected"]["median"] >= FEW]


def worsened_rows(rows: list[Row]) -> list[Row]:
    """Layers with more expected dead after centering than without a remedy."""
    return [row for row in rows if row["expected"]["median"] > row["expected"]["none"] + 1e-9]


def named(rows: list[Row], *, dominance: bool = False) -> str:
    """Layers for the words of a claim."""
    said = [
        f"{row['model']} {row['point']} ({row['expected']['median']:.1%}"
        + (f", dominance {row['dominance']:.0%})" if dominance else ")")
        for row in rows
    ]
    return ", ".join(said) or "none"


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    high, low = ([row for row in rows if (row["rank"] > LOW_RANK) == side] for side in (True, False))
    odd = exceptions(rows)
    worse = worsened_rows(rows)
    more = [row for row in rows if row["counted"]["median"] > row["counted"]["none"]]
    return [
        *_size_claims(rows),
        _claim(
            at_most,
            f"layers with an effective rank over 4 % ({len(high)}): 1 % or more expected dead on a million tokens "
            f"after centering by the median: {named(odd, dominance=True)}",
            "layers with an effective rank over 4 %: 1 % or more expected dead after centering by the median",
            len(odd),
            0,
        ),
        _claim(
            at_most,
            f"all {len(rows)} layers: those with more expected dead after centering by the median than without a "
            f"remedy: {named(worse)}",
            "layers with more expected dead after centering by the median than without a remedy",
            len(worse),
            0,
        ),
        _claim(
            at_most,
            f"all {len(rows)} layers: those with more counted dead after centering by the median than without a "
            f"remedy: {named(more)}",
            "layers with more counted dead after centering by the median than without a remedy",
            len(more),
            0,
        ),
        near(
            "centering",
            f"layers with an effective rank of 4 % or less ({len(low)}): dead after whitening, most",
            paper=0.0,
            ours=max((row["counted"]["whiten"] for row in low), default=0.0),
            by=0,
            key="layers with an effective rank of 4 % or less: dead after whitening, most",
            own=True,
        ),
        near(
            "centering",
            f"all {len(rows)} layers: dead after whitening, most",
            paper=0.0,
            ours=max(row["counted"]["whiten"] for row in rows),
            by=0,
            key="all our layers: dead after whitening, most",
            own=True,
        ),
        _claim(
            at_most,
            f"all {len(rows)} layers: expected dead on a million tokens as prescribed, most",
            "all our layers: expected dead as prescribed, most",
            max(row["expected"][row["prescribed"]] for row in rows),
            FEW,
        ),
        at_least(
            "centering",
            f"exceptions: one direction holds over {LOPSIDED:.0%} of the variance, fraction of {len(odd)}",
            paper="-",
            ours=sum(row["dominance"] > LOPSIDED for row in odd) / len(odd) if odd else 1.0,
            limit=0.5,
            key="exceptions: one direction holds most of the variance, fraction",
        ),
    ]


def _size_claims(rows: list[Row]) -> list[Claim]:
    """How many layers the other claims rest on."""
    models, modalities = (Counter(row[of] for row in rows) for of in ("model", "modality"))
    few = min(MODALITIES, key=lambda modality: modalities[modality])
    return [
        _claim(at_least, "our layers that were measured", "our layers that were measured", len(rows), 120),
        _claim(at_least, "our networks", "our networks", len(models), 8),
        _claim(at_most, "our layers of one network, most", "our layers of one network", max(models.values()), 40),
        _claim(
            at_least,
            f"our layers of one modality, least ({few})",
            "our layers of one modality",
            modalities[few],
            10,
        ),
    ]


def _claim(make: Any, words: str, key: str, ours: float, limit: float) -> Claim:
    made: Claim = make("centering", words, paper="-", ours=float(ours), limit=limit, key=key)
    return made


FIGURE = Reproduction(name="centering", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=LAYER_FILES)

if __name__ == "__main__":
    main(FIGURE)
