"""autopsae report RESULT...: saved results on one HTML page."""

from autopsae.arrays import InputError
from autopsae.cli.options.report import ReportOptions
from autopsae.cli.printing import print_line
from autopsae.cli.terminal import check_places
from autopsae.report.page.write import check_page, save_page


def report(options: ReportOptions) -> None:
    """Write the page, and say where it is. Raises InputError."""
    if not options.results:
        raise InputError("report: expected results, got none; pass the JSON or the folder that another verb wrote")
    check_page(options.out)
    check_places(options.out)
    save_page(options.results, options.out, title=options.title)
    print_line(f"{options.out}: open it in a browser")
