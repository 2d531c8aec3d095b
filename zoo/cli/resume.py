"""``zoo resume RUN``: continue a run that was stopped or killed."""

from __future__ import annotations

import sys

import click

from zoo.cli import processes
from zoo.cli.output import PRECISIONS, check_device, code_option, log_option, minutes_option
from zoo.reports.progress import Progress


@click.command("resume", short_help="Continue a run that was stopped or killed.")
@click.argument("run", type=click.Path())
@minutes_option
@click.option("--images", type=click.IntRange(min=1), help="Another budget in real images, past the first one too.")
@click.option("--dataset", help="The same images at another place: folder:PATH, shards:PATTERN.")
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes on this machine, a GPU each; every batch must be a multiple.",
)
@code_option
@click.option(
    "--device",
    callback=check_device,
    help="auto, cpu, cuda, cuda:N or mps.  [default: as at the start of the run]",
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="[default: as at the start of the run]")
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
    code: str | None,
    device: str | None,
    precision: str | None,
    micro_batch: int | None,
    log: str | None,
    as_json: bool,
) -> None:
    """Continue the run in folder RUN from its last checkpoint. The result is that of a run without a stop.

    On another device or with another precision the result is the same to rounding.
    """
    from zoo import api
    from zoo.engine.run_folder import RunFolder

    # An error in RUN is reported first
    folder = RunFolder(run)
    folder.runtime(device=device, precision=precision, micro_batch=micro_batch)
    for stage in folder.recipe().stages:
        if stage.batch % nproc:
            raise ValueError(f"--nproc {str(nproc)[:20]}: batch={stage.batch} must be a multiple of it")
    if nproc > 1 and not processes.launched():
        values = {
            "minutes": minutes,
            "images": images,
            "dataset": dataset,
            "code": code,
            "device": device,
            "precision": precision,
            "micro-batch": micro_batch,
            "log": log,
        }
        options = [f"--{key}={value}" for key, value in values.items() if value is not None] + ["--json"] * as_json
        processes.run(nproc, ["resume", run, *options, *(["--debug"] if "--debug" in sys.argv else [])])
        return
    progress = Progress(as_json, minutes)
    try:
        api.resume(
            run,
            images=images,
            minutes=minutes,
            dataset=dataset,
            device=device,
            precision=precision,
            micro_batch=micro_batch,
            code=code,
            log=log,
            progress=progress,
        )
    finally:
        progress.close()
