"""``zoo resume RUN``: go on with a run that was stopped or killed."""

from __future__ import annotations

import click

from zoo.cli import processes
from zoo.cli.progress import Progress


@click.command("resume", short_help="Go on with a run that was stopped or killed.")
@click.argument("run", type=click.Path())
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop early, after so many minutes.")
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on this machine, a GPU each; every batch must be a multiple.",
)
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.  [default: as it was begun]")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="[default: as it was begun]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one an event.")
def command(
    run: str, minutes: float | None, nproc: int, device: str | None, precision: str | None, as_json: bool
) -> None:
    """Go on with the run in folder RUN from its last checkpoint, as if it had not been stopped.

    On another device or with another precision it goes on to the same end, but for rounding.
    """
    from zoo.engine.run_folder import RunFolder

    runtime = RunFolder(run).runtime(device=device, precision=precision)  # what is no run's is told before all else
    if nproc > 1 and not processes.launched():
        chosen = {"minutes": minutes, "device": device, "precision": precision}
        given = [f"--{key}={value}" for key, value in chosen.items() if value is not None] + ["--json"] * as_json
        processes.run(nproc, ["resume", run, *given])
        return
    from zoo.engine.train import resume

    progress = Progress(as_json, minutes)
    try:
        resume(run, runtime=runtime, minutes=minutes, progress=progress)
    finally:
        progress.close()
