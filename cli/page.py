"""`milanx page`: write a run's page anew."""

from __future__ import annotations

from milanx.cli import common as c


@c.explained
def page(
    run: c.AnyRun = None,
    sort: c.Sort = "sure",
    debug: c.Debug = False,
) -> None:
    """Write the page of a run: exemplars, masks and descriptions of every unit."""
    c.hush()
    from milanx.report.page import write_page
    from milanx.report.sure import check_sort
    from milanx.runs import newest_run, open_run

    opened = newest_run() if run is None else open_run(run)
    c.say(str(write_page(opened, check_sort(sort, opened.rows))))
