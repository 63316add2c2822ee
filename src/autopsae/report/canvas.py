"""A figure of matplotlib that a notebook shows by itself. Import it only where a figure is drawn."""

from io import BytesIO

from matplotlib.figure import Figure


class Canvas(Figure):
    """A figure that needs neither pyplot nor a backend: a notebook shows it as it shows any result."""

    def __init__(self, width: int | float, height: int | float) -> None:
        """width, height: in inches."""
        super().__init__(figsize=(width, height), layout="constrained")

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self, dpi: int = 100) -> bytes:
        """The picture."""
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=dpi)
        return picture.getvalue()
