"""`milanx page`: write a run's page anew."""

from __future__ import annotations

from milanx.cli import common as c


@c.explained
def page(
    run: c.RunFolder,
    debug: c.Debug = False,
) -> None:
    """Write the page of a run: exemplars, masks and descriptions of every unit."""
    from milanx.report.page import write_page
    from milanx.runs import open_run

    c.say(str(write_page(open_run(run))))
