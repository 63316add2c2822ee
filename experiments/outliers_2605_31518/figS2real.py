"""Figure S2 on real layers: death at birth against the number of tokens, on our own layers.

    python -m experiments.outliers_2605_31518.figS2real

The first tokens of one random order, so that each number is a uniform sample of the layer. Solid: counted without a
remedy; dotted: the closed form from gamma; dashed: counted after centering by the geometric median.
"""

from experiments.outliers_2605_31518.frame import REAL, Claim, Data, Reproduction, Scale, at_most, main, near
from experiments.outliers_2605_31518.own import DETAIL_FILES, details
from experiments.outliers_2605_31518.released import MODALITIES
from experiments.outliers_2605_31518.style import MARKERS, death_axis, sheet
from matplotlib.figure import Figure

from autopsae.survival.closed_form import predicted_dead

PLATEAU = 5_000
"""Tokens from which on the fall is measured."""


def compute(scale: Scale) -> Data:
    """The curves, with the closed form beside them."""
    rows = []
    for row in details():
        curve = [
            {
                "tokens": point["tokens"],
                "dead": point["none"]["dead"],
                "relu": point["none"]["relu"],
                "centered": point["median"]["dead"],
                "theory": predicted_dead(row["gamma"], point["tokens"], d_sae=row["d_sae"], k=row["k"]),
            }
            for point in row["curve"]
        ]
        rows.append(
            {name: row[name] for name in ("model", "modality", "point", "gamma", "d_sae", "k")} | {"curve": curve}
        )
    return {"draws": scale.draws, "rows": rows}


def draw(data: Data) -> Figure:
    names = [name for name in MODALITIES if any(row["modality"] == name for row in data["rows"])]
    figure, axes = sheet(1, len(names), width=15, height=4.6, sharey=True)
    for axis, modality in zip(axes[0], names, strict=True):
        rows = [row for row in data["rows"] if row["modality"] == modality]
        for row, marker, shade in zip(rows, MARKERS, (1.0, 0.8, 0.6, 0.9, 0.7, 0.5), strict=False):
            tokens, colour = [point["tokens"] for point in row["curve"]], MODALITIES[modality]
            lines = (("dead", "-", colour, 5), ("theory", ":", colour, 3), ("centered", "--", "0.45", 3))
            for name, style, paint, size in lines:
                axis.plot(
                    tokens,
                    [point[name] for point in row["curve"]],
                    style,
                    marker=marker,
                    ms=size,
                    color=paint,
                    alpha=shade,
                    label=f"{row['model']} {row['point']}, γ {row['gamma']:.2g}" if name == "dead" else None,
                )
        axis.set_xscale("log")
        axis.set_xlabel("tokens")
        axis.set_title(modality, fontsize=10, loc="left")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), frameon=False, fontsize=8)
    death_axis(axes[0, 0])
    figure.suptitle(
        f"colour, solid: no remedy; dotted: closed form from γ; grey, dashed: centered by the geometric median; "
        f"d_sae {data['rows'][0]['d_sae']}, k {data['rows'][0]['k']}",
        fontsize=10,
    )
    return figure


def claims(data: Data) -> list[Claim]:
    falls = {}
    for row in data["rows"]:
        late = [point for point in row["curve"] if point["tokens"] >= PLATEAU]
        falls[f"{row['model']} {row['point']}"] = max(late[0]["dead"] - point["dead"] for point in late)
    worst = max(falls, key=lambda name: falls[name])
    last = max(row["curve"][-1]["tokens"] for row in data["rows"])
    rises = max(
        after["dead"] - before["dead"]
        for row in data["rows"]
        for before, after in zip(row["curve"], row["curve"][1:], strict=False)
    )
    return [
        at_most(
            "figS2real",
            f"our layers: fall of dead-by-TopK from 5,000 tokens to {last:,}, most of {len(falls)} ({worst})",
            paper="plateaus",
            ours=falls[worst],
            limit=0.05,
            key="our layers: fall of dead-by-TopK from 5,000 tokens on, most",
            own=True,
        ),
        near(
            "figS2real",
            "our layers: rise of dead-by-TopK with more tokens, most of any step",
            paper=0.0,
            ours=max(0.0, rises),
            by=0,
            own=True,
        ),
    ]


FIGURE = Reproduction(name="figS2real", compute=compute, draw=draw, claims=claims, scales=REAL, inputs=DETAIL_FILES)

if __name__ == "__main__":
    main(FIGURE)
