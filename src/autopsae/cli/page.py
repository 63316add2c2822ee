"""--report: what a verb has made, shown on a page, which is the last file that it writes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autopsae.cli.options.shared import Paging
from autopsae.cli.printing import write_all
from autopsae.cli.terminal import check_places
from autopsae.provenance import PROVENANCE, provenance
from autopsae.report.page.read import read_content
from autopsae.report.page.write import check_page, save_page
from autopsae.report.run_plots import save_run_figure
from autopsae.saved import as_json


def check_paging(paging: Paging) -> None:
    """InputError for a page that could not be written after all the work."""
    if paging.report is None:
        return
    check_page(paging.report)
    check_places(paging.report)


def page_writers(
    paging: Paging, name: str, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()
) -> list[Callable[[], object]]:
    """The writer of the page; [] where none is asked for.

    name: of the result; content: what its JSON holds, to which what wrote it is added; rows: the latents of an
    autopsy, one by one.
    """
    place = paging.report
    if place is None:
        return []

    def write() -> None:
        told = {**as_json(content), PROVENANCE: as_json(provenance())}
        save_page([read_content(told, name, rows)], place)

    return [write]


def write_run_outputs(paging: Paging, figure: Path | None, out: Path) -> None:
    """Write the figure and the page of a run or a sweep, where they are asked for and the folder `out` holds a
    finished one.
    """
    if not any((out / name).is_file() for name in ("summary.json", "sweep.json")):
        return
    writers = list[Callable[[], object]]()
    if figure is not None:
        writers.append(partial(save_run_figure, out, figure))
    if paging.report is not None:
        writers.append(partial(save_page, [out], paging.report))
    write_all(writers)
