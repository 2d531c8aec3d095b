"""``zoo resume RUN``: go on with a run that was stopped or killed."""

from __future__ import annotations

import click

from zoo.cli import processes
from zoo.cli.progress import Progress


@click.command("resume")
@click.argument("run", type=click.Path())
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop early, after so many minutes.")
@click.option("--nproc", type=click.IntRange(min=1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one an event.")
def command(run: str, minutes: float | None, nproc: int, as_json: bool) -> None:
    """Go on with the run in folder RUN from its last checkpoint, as if it had not been stopped."""
    from zoo.engine.run import RunFolder

    RunFolder(run).facts()  # a folder that is no run's is told before anything is started
    if nproc > 1 and not processes.launched():
        given = [f"--minutes={minutes}"] * (minutes is not None) + ["--json"] * as_json
        processes.run(nproc, ["resume", run, *given])
        return
    from zoo.engine.train import resume

    progress = Progress(as_json, minutes)
    try:
        resume(run, minutes=minutes, progress=progress)
    finally:
        progress.close()
