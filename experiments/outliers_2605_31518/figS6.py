"""Figure S6: collateral death. Both pathways over training at each gamma, with the collapse window.

    python -m experiments.outliers_2605_31518.figS6 --scale quick|full

Runs and settings: dynamics.py. The window begins where the top-k threshold has fallen by 10 % of the way from
its peak to the lowest value that follows, and ends where it has fallen by 90 %, or later, as long as dead-by-
TopK still falls by 0.01 from record to record. Ratio: rise of dead-by-ReLU in the window / fall of dead-by-TopK
in it. Each draw has a window and a ratio of its own; the ratio of all is that of the mean rise to the mean fall.
"""

from experiments.outliers_2605_31518.curves import about, band, collateral, courses, curve, some_of, step_axis
from experiments.outliers_2605_31518.dynamics import sweep
from experiments.outliers_2605_31518.frame import Claim, Data, Reproduction, Scale, at_least, at_most, main, near
from experiments.outliers_2605_31518.style import ORANGE, PURPLE, RELU, TOPK, death_axis, sheet
from matplotlib.figure import Figure


def compute(scale: Scale) -> Data:
    data = sweep(scale)
    names = ["relu", "topk", "threshold"]
    slower = data["settings"]["slower_at"]
    found = some_of(data, [f"baseline {gamma:g}" for gamma in data["gammas"]], names)
    return {
        **found,
        "windows": [collateral(found, gamma, "baseline") for gamma in data["gammas"]],
        "slower": [collateral(data, gamma, "slower") for gamma in slower],
    }


def draw(data: Data) -> Figure:
    columns = (len(data["gammas"]) + 1) // 2
    figure, axes = sheet(2, columns, width=3.1 * columns, height=6.0, sharey=True)
    for number, (axis, found) in enumerate(zip(axes.flat, data["windows"], strict=False)):
        gamma = found["gamma"]
        start, end = (sum(each[name] for each in found["each"]) / data["draws"] for name in ("start", "end"))
        axis.axvspan(start, end, color=ORANGE, alpha=0.3, linewidth=0, label="collapse window, mean of the draws'")
        for pathway, colour, label in (("topk", TOPK, "dead-by-TopK"), ("relu", RELU, "dead-by-ReLU")):
            band(axis, data["steps"], courses(data, gamma, "baseline", pathway), color=colour, label=label)
        threshold = curve(data, gamma, "baseline", "threshold")
        peak = max(threshold) or 1.0
        label = "mean top-k threshold / its peak"
        axis.plot(data["steps"], [value / peak for value in threshold], ":", color=PURPLE, label=label)
        step_axis(axis, data["steps"])
        ratio = "-" if found["ratio"] is None else f"{found['ratio']:.2f}"
        title = f"γ = {gamma:g}   ΔTopK {-found['fall']:+.2f}, ΔReLU {found['rise']:+.2f}, ratio {ratio}"
        axis.set_title(title, fontsize=8, loc="left")
        if number % columns == 0:
            death_axis(axis, "fraction of latents")
    for axis in list(axes.flat)[len(data["windows"]) :]:
        axis.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9, title=about(data)
    )
    return figure


def claims(data: Data) -> list[Claim]:
    from scipy.stats import spearmanr

    some = [found for found in data["windows"] if found["ratio"] is not None]
    gammas, ratios = [found["gamma"] for found in some], [found["ratio"] for found in some]
    middle = min(range(len(some)), key=lambda place: abs(gammas[place] - 10))
    pairs = [(found["ratio"], ratios[gammas.index(found["gamma"])]) for found in data["slower"] if found["ratio"]]
    lower = sum(slow - fast for slow, fast in pairs) / max(1, len(pairs))
    return [
        near("figS6", f"ratio at gamma {gammas[0]:g}", paper=0.04, ours=ratios[0], by=0.08),
        near(
            "figS6",
            f"ratio at gamma {gammas[middle]:g} (the paper's gamma is lost)",
            paper=0.29,
            ours=ratios[middle],
            by=0.25,
        ),
        near("figS6", f"ratio at gamma {gammas[-1]:g}", paper=1.0, ours=ratios[-1], by=0.15),
        at_least(
            "figS6",
            "Spearman(gamma, ratio)",
            paper="rises",
            ours=float(spearmanr(gammas, ratios).statistic),
            limit=0.85,
        ),
        at_most(
            "figS6",
            f"ratio at half the rate less that at the rate, mean over {len(pairs)} gammas",
            paper="low rates reduce it",
            ours=lower,
            limit=-0.05,
        ),
    ]


FIGURE = Reproduction(name="figS6", compute=compute, draw=draw, claims=claims)

if __name__ == "__main__":
    main(FIGURE)
