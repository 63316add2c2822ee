"""A figure of matplotlib that a notebook shows by itself. Import it only where a figure is drawn."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

FONTS = ("font.family", "font.serif", "font.sans-serif", "font.monospace", "mathtext.fontset")
"""Settings of the caller that hold for our figures too."""


@contextmanager
def own_style() -> Iterator[None]:
    """In this context matplotlib draws with its defaults and the caller's fonts. Our figures are laid out for them:
    under `text.usetex` a per cent sign begins a comment, and with letters twice the size there is no room for data.
    """
    settings: Any = matplotlib.rcParams
    fonts = {name: settings[name] for name in FONTS}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # but for the backend
        settings.update(fonts)
        yield


class Canvas(Figure):
    """A figure that needs neither pyplot nor a backend: a notebook shows it as it shows any result."""

    def __init__(self, width: int | float, height: int | float) -> None:
        """width, height: in inches."""
        super().__init__(figsize=(width, height), layout="constrained")

    def draw(self, renderer: Any) -> None:
        """As `Figure.draw`. Numbers along an axis are made only then."""
        with own_style():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self, dpi: int = 100) -> bytes:
        """The picture."""
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=dpi)
        return picture.getvalue()
