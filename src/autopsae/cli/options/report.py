"""The options of `autopsae report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from autopsae.cli.options.kinds import Written


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Show saved results on one page: an HTML file that opens without a network, to read and to send on.

    docs/page.md says what is on it.
    """

    results: Annotated[tuple[Path, ...], Positional, arg(metavar="RESULTS")]
    """Results, any of them together: what --json of diagnose, autopsy or features wrote, the JSON of a trial, the
    folder that train wrote for one SAE or for a sweep, the table (.csv) of autopsy."""
    out: Written[Path] = Path("report.html")
    """The page, named .html."""
    title: str = ""
    """Its title; the names of the results if not given."""
