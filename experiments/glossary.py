"""The picture of docs/glossary.md: where the mean outweighs the spread, most latents never fire.

`python -m experiments.glossary` writes docs/gamma.png from synthetic tokens in two dimensions.
"""

from math import sqrt
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from autopsae.sae.sparsity import TopK

FIGURE = Path(__file__).parents[1] / "docs" / "gamma.png"
TOKENS, ROWS, K = 400, 16, 2
GAMMAS = (0.5, 5.0)
MEAN_ANGLE = 0.45  # radians, of the mean's direction in both panels
ARROW = 2.2  # length at which the unit rows are drawn
FATES = (
    ("fires on some token", "#0072B2"),
    ("dead-by-TopK: positive on some token, never among the k largest", "#E69F00"),
    ("dead-by-ReLU: positive on no token", "#B2182B"),
)


def draw_tokens(gamma: float) -> Float[Tensor, "tokens 2"]:
    """Gaussian tokens, moved and scaled so that the sample itself has the standard deviation 1 in both dimensions,
    hence ||std|| = sqrt(2), and a mean of norm gamma * sqrt(2).
    """
    noise = torch.randn(TOKENS, 2, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean(dim=0)) / noise.std(dim=0)
    direction = torch.tensor([MEAN_ANGLE]).cos().item(), torch.tensor([MEAN_ANGLE]).sin().item()
    return noise + gamma * sqrt(2) * torch.tensor(direction)


def encoder_rows() -> Float[Tensor, "rows 2"]:
    """Unit rows at equal angles."""
    angles = torch.arange(ROWS) * (2 * torch.pi / ROWS)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def fates(tokens: Float[Tensor, "tokens 2"], rows: Float[Tensor, "rows 2"]) -> Int[Tensor, "rows"]:
    """The place in FATES of each latent of a TopK SAE with these rows and b_dec = 0."""
    pre = tokens @ rows.T
    fires = (TopK(k=K).margins(pre) > 0).any(dim=0)
    positive = (pre > 0).any(dim=0)
    return torch.where(fires, 0, torch.where(positive, 1, 2))


def draw_panel(axes: Axes, gamma: float) -> None:
    """Tokens, their mean, the origin and the rows, each in the colour of its fate."""
    tokens, rows = draw_tokens(gamma), encoder_rows()
    fate = fates(tokens, rows)
    axes.scatter(tokens[:, 0].numpy(), tokens[:, 1].numpy(), s=5, color="0.75", linewidths=0, label="token")
    for (x, y), number in zip(rows.tolist(), fate.tolist(), strict=True):
        arrow = {"arrowstyle": "-|>", "color": FATES[number][1], "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (ARROW * x, ARROW * y), (0, 0), arrowprops=arrow)
    axes.plot(*tokens.mean(dim=0).tolist(), "X", color="black", markersize=9, markeredgecolor="white")
    axes.plot(0, 0, "o", color="black", markersize=4)
    axes.set_title(f"gamma {gamma:g}: {int((fate > 0).sum())} of {ROWS} latents are dead", fontsize=11)
    axes.set(xlim=(-4.2, 10.5), ylim=(-4.2, 6.8), xticks=[], yticks=[], aspect="equal")


def main() -> None:
    """Draw both panels and the legend."""
    figure, panels = plt.subplots(1, len(GAMMAS), figsize=(10.5, 4.9), layout="constrained")
    for axes, gamma in zip(panels, GAMMAS, strict=True):
        draw_panel(axes, gamma)
    marks = [Line2D([], [], color=colour, lw=2.5, label=label) for label, colour in FATES]
    marks.append(Line2D([], [], ls="", marker="o", color="0.75", markersize=5, label="token"))
    marks.append(Line2D([], [], ls="", marker="X", color="black", markersize=8, label="mean of the tokens"))
    marks.append(Line2D([], [], ls="", marker="o", color="black", markersize=4, label="origin, b_dec = 0"))
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(FIGURE, dpi=100)


if __name__ == "__main__":
    main()
