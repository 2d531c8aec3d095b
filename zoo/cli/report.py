"""``zoo report RUN``: a run's folder as one HTML page."""

from __future__ import annotations

import click

from zoo.cli.output import echo


@click.command("report", short_help="Write one HTML page of a run.")
@click.argument("run", type=click.Path())
@click.option("--out", type=click.Path(), help="The .html file to write.  [default: RUN/report.html]")
def command(run: str, out: str | None) -> None:
    """One HTML page of the run in folder RUN: losses, scores, grids over time, recipe, Card, machine.

    The page is self-contained and opens offline. The run may be finished, still training, or killed.
    """
    from zoo.reports.page import report

    echo(report(run, out))
