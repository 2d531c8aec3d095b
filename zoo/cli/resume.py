"""``zoo resume RUN``: continue a run that was stopped or killed."""

from __future__ import annotations

import click

from zoo import settings
from zoo.cli import processes
from zoo.cli.output import check_device, log_option
from zoo.reports.progress import Progress


@click.command("resume", short_help="Continue a run that was stopped or killed.")
@click.argument("run", type=click.Path())
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop early, after so many minutes.")
@click.option("--images", type=click.IntRange(min=1), help="Another budget in real images, past the first one too.")
@click.option("--dataset", help="The same images at another place: folder:PATH, shards:PATTERN.")
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on this machine, a GPU each; every batch must be a multiple.",
)
@click.option("--recipe", type=click.Path(), help="Your recipe file, if it registers losses, networks, ... of its own.")
@click.option(
    "--device",
    callback=check_device,
    help="auto, cpu, cuda, cuda:N or mps.  [default: as at the start of the run]",
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="[default: as at the start of the run]")
@click.option(
    "--micro-batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="As for train.  [default: as at the start of the run]",
)
@log_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one an event.")
def command(
    run: str,
    minutes: float | None,
    images: int | None,
    dataset: str | None,
    nproc: int,
    recipe: str | None,
    device: str | None,
    precision: str | None,
    micro_batch: int | None,
    log: str | None,
    as_json: bool,
) -> None:
    """Continue the run in folder RUN from its last checkpoint. The result is that of a run without a stop.

    On another device or with another precision the result is the same to rounding.
    """
    from zoo.engine.extend import extend
    from zoo.engine.run_folder import RunFolder

    if recipe is not None:
        settings.load_file(recipe)
    # An error in RUN is reported first
    runtime = RunFolder(run).runtime(device=device, precision=precision, micro_batch=micro_batch)
    if not processes.launched():
        extend(RunFolder(run), images, dataset)
    if nproc > 1 and not processes.launched():
        values = {
            "minutes": minutes,
            "recipe": recipe,
            "device": device,
            "precision": precision,
            "micro-batch": micro_batch,
            "log": log,
        }
        options = [f"--{key}={value}" for key, value in values.items() if value is not None] + ["--json"] * as_json
        processes.run(nproc, ["resume", run, *options])
        return
    from zoo.engine.train import resume
    from zoo.reports.board import listen

    progress = Progress(as_json, minutes)
    try:
        resume(run, runtime=runtime, minutes=minutes, progress=listen(progress, log))
    except ValueError as error:
        if recipe is None and str(error).startswith("unknown "):
            raise ValueError(f"{error}; if a recipe file of yours registers it, add --recipe FILE") from error
        raise
    finally:
        progress.close()
