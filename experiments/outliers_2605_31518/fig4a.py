"""Figure 4a: death at birth by pathway against outlier severity on synthetic data, with the closed forms.

    python -m experiments.outliers_2605_31518.fig4a --scale quick|full

Dots: the library's measured death, mean and standard deviation over draws of features, tokens and rows. Lines:
Phi(-C / gamma) and Phi(t_k - C / gamma), C = Phi^-1(1 - 1/N) for the N tokens of the scale. Left: the sizes of the
paper's synthetic data (App. A.1.2). Right: d_sae 8192 and k 64, where 1 - k / d_sae is the 99.2 % of its caption.
"""

from typing import Any

from experiments.outliers_2605_31518.births import (
    GAMMAS,
    Setting,
    births,
    closed_forms,
    mean_deviation,
    rank_correlation,
)
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_most, main, near
from experiments.outliers_2605_31518.style import RELU, TOPK, death_axis, gamma_axis, legend_below, sheet
from matplotlib.figure import Figure

SMALL, WIDE = Setting(), Setting(d_sae=8192, k=64)
WIDE_DRAWS = 3


def compute(scale: Scale) -> Data:
    """A row per gamma, of both sizes."""
    return {
        "tokens": scale.tokens,
        "draws": scale.draws,
        "rows": [births(SMALL, gamma, tokens=scale.tokens, draws=scale.draws) for gamma in GAMMAS],
        "topk_limit": 1 - SMALL.k / SMALL.d_sae,
        "wide": [births(WIDE, gamma, tokens=scale.tokens, draws=WIDE_DRAWS) for gamma in GAMMAS],
    }


def draw(data: Data) -> Figure:
    figure, axes = sheet(1, 2, width=11.6, height=4.8, sharey=True)
    panels = ((SMALL, data["rows"], data["draws"]), (WIDE, data["wide"], WIDE_DRAWS))
    for axis, (setting, rows, draws) in zip(axes[0], panels, strict=True):
        _draw_panel(axis, setting, rows, data["tokens"])
        sizes = f"d_sae {setting.d_sae}, k {setting.k}"
        axis.set_title(f"{sizes}; {data['tokens']:,} tokens, {draws} draws", fontsize=10, loc="left")
    death_axis(axes[0, 0])
    legend_below(figure, axes[0, 0], 4)
    return figure


def _draw_panel(axis: Any, setting: Setting, rows: list[dict[str, Any]], tokens: int) -> None:
    for limit in (0.5, 1 - setting.k / setting.d_sae):
        axis.axhline(limit, color="0.6", linestyle=":", linewidth=1)
        axis.annotate(f"{limit:.3g}", (0.46, limit), fontsize=8, color="0.35", va="bottom")
    named = {
        "dead": (TOPK, "^", "dead-by-TopK (never fires)", "closed form Φ($t_k$ − C/γ)"),
        "relu": (RELU, "o", "dead-by-ReLU (never positive)", "closed form Φ(−C/γ)"),
    }
    gammas = [row["gamma"] for row in rows]
    curve = closed_forms(setting, tokens, gammas[0], gammas[-1])
    for pathway, (colour, marker, label, formula) in named.items():
        axis.plot(curve["gamma"], curve[pathway], color=colour, linewidth=1.3, label=formula)
        mean, spread = ([row[pathway + end] for row in rows] for end in ("", "_std"))
        style = {"color": colour, "marker": marker, "ms": 4.5, "linestyle": "", "lw": 1, "capsize": 2}
        axis.errorbar(gammas, mean, yerr=spread, label=label, **style)
    gamma_axis(axis)
    axis.set_xlim(0.43, 235)


def claims(data: Data) -> list[Claim]:
    rows = data["rows"]
    some = [f"{min(row['gamma'] for row in rows if row[pathway] > 0):g}" for pathway in ("relu", "dead")]
    last, high = rows[-1], [row for row in rows if row["gamma"] > 3]
    return [
        near(
            "fig4a",
            f"Spearman(gamma, dead-by-ReLU), gamma from {some[0]}, where the first die",
            paper=1.0,
            ours=rank_correlation(rows, "relu"),
            by=0,
            key="Spearman(gamma, dead-by-ReLU)",
        ),
        near(
            "fig4a",
            f"Spearman(gamma, dead-by-TopK), gamma from {some[1]}, where the first die",
            paper=1.0,
            ours=rank_correlation(rows, "dead"),
            by=0,
            key="Spearman(gamma, dead-by-TopK)",
        ),
        at_most(
            "fig4a",
            "mean |dead-by-ReLU - Phi(-C/gamma)| over all gammas",
            paper="matches closely",
            ours=mean_deviation(rows, "relu"),
            limit=0.03,
        ),
        at_most(
            "fig4a",
            "mean |dead-by-TopK - Phi(t_k - C/gamma)| over gamma > 3",
            paper="accurate for gamma > 3",
            ours=mean_deviation(high, "dead"),
            limit=0.05,
        ),
        *(
            at_most(
                "fig4a",
                f"largest |{name} - closed form| over gamma > 3",
                paper="matches closely",
                ours=max(mean_deviation([row], pathway) for row in high),
                limit=0.05,
            )
            for pathway, name in (("relu", "dead-by-ReLU"), ("dead", "dead-by-TopK"))
        ),
        near("fig4a", f"dead-by-ReLU at gamma {last['gamma']:g}", paper=0.5, ours=last["relu"], by=0.03),
        near(
            "fig4a",
            f"dead-by-TopK at gamma {last['gamma']:g}: 1 - k / d_sae",
            paper=data["topk_limit"],
            ours=last["dead"],
            by=0.02,
        ),
        *_wide_claims(data["wide"]),
    ]


def _wide_claims(rows: list[dict[str, Any]]) -> list[Claim]:
    last, high = rows[-1], [row for row in rows if row["gamma"] > 3]
    size = f"d_sae {WIDE.d_sae}, k {WIDE.k}"
    return [
        near(
            "fig4a",
            f"{size}: dead-by-TopK at gamma {last['gamma']:g}",
            paper=0.992,
            ours=last["dead"],
            by=0.005,
            draws=WIDE_DRAWS,
        ),
        near(
            "fig4a",
            f"{size}: Spearman(gamma, dead-by-TopK)",
            paper=1.0,
            ours=rank_correlation(rows, "dead"),
            by=0,
            draws=WIDE_DRAWS,
        ),
        at_most(
            "fig4a",
            f"{size}: mean |dead-by-TopK - Phi(t_k - C/gamma)| over gamma > 3",
            paper="tight for gamma > 3",
            ours=mean_deviation(high, "dead"),
            limit=0.05,
            draws=WIDE_DRAWS,
        ),
    ]


FIGURE = Reproduction(name="fig4a", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
