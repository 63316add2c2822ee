"""The records of a training, as a list that shows itself."""

from typing import TYPE_CHECKING

from autopsae.tables import draw_result, html_figure, html_table
from autopsae.training.config import Record
from autopsae.words import number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 12  # records of a table


class Records(list[Record]):
    """The records of a training, one for each step: a list that says how it ended, and draws its curves."""

    def plot(self) -> "Figure":
        """The curves: dead latents by pathway, error, threshold, and what `b_dec` holds of the mean, by step.

        Raises InputError where there is no record, and where matplotlib is missing.
        """
        return draw_result(self)

    def _repr_html_(self) -> str:
        every = max(1, -(-len(self) // _SHOWN))
        shown = [*self[: len(self) - 1 : every], *self[-1:]]
        rows = [
            [
                f"{record.step:,}",
                number_text(record.loss),
                "none" if record.fvu is None else f"{record.fvu:.4f}",
                f"{record.l0:.1f}",
                "not known yet" if record.dead is None else f"{record.dead:.1%}",
                f"{record.never_fired:.1%}",
            ]
            for record in shown
        ]
        header = ["step", "loss", "FVU", "L0", "dead", "have not fired since step 0"]
        said = [f"The last of {len(self):,} records: {self[-1]}" if self else "no records"]
        return html_table(header, rows, said=said) + html_figure(self)
