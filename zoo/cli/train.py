"""``zoo train``: the cost, then the run."""

from __future__ import annotations

import math
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo import hub, overrides, settings
from zoo.cli import processes
from zoo.cli.output import PRECISIONS, amount, device_option, echo, log_option, minutes_option, print_json, times
from zoo.files import Json, check_new, shell_word
from zoo.own_code import Code
from zoo.reports.progress import LONG, Progress
from zoo.reports.values import duration
from zoo.seeds import MAX_SEED

if TYPE_CHECKING:
    from zoo.choice import Choice
    from zoo.engine.runtime import Runtime
    from zoo.recipe import Recipe


HINTS = {  # options of other programs, and what does the same here
    (
        "--epochs",
        "--epoch",
        "--n-epochs",
        "--num-epochs",
        "--max-epochs",
    ): "--images N, real images in all: epochs times the images of the data set",
    ("--steps", "--iterations", "--iters", "--max-steps", "--kimg"): "--images N, real images in all: steps times the "
    "batch",
    ("--batch-size", "--batch", "--bs", "--batch_size"): "--set batch=N",
    ("--lr", "--learning-rate", "--learning_rate"): "--set optimizers.G.lr=2e-4 --set optimizers.D.lr=2e-4",
    ("--resolution", "--image-size", "--img-size", "--size", "--image_size"): "--set resolution=N",
    ("--data", "--data-dir", "--dataroot", "--data-path", "--data_dir"): "--dataset folder:PATH",
    ("--outdir", "--output", "--save-dir", "--name"): "--out RUN",
    ("--workers", "--num-workers", "--num_workers"): "no option: images are read ahead by themselves",
    ("--gpu", "--gpus", "--gpu-ids", "--gpu_ids", "--cuda"): "--device cuda:0, and --nproc N for several",
    ("--amp", "--fp16", "--bf16", "--mixed-precision"): "--precision bf16",
    ("--resume", "--continue", "--checkpoint"): "zoo resume RUN",
    ("--pretrained", "--weights", "--init-from"): "--init NAME",
}


class Train(click.Command):
    """The command, with an answer to options that other programs have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            for names, instead in HINTS.items():
                if error.option_name in names:
                    raise click.UsageError(f"no such option: {error.option_name}; use {instead}", ctx) from None
            raise


@click.command(
    "train", cls=Train, short_help="Train a model into a new run's folder.", context_settings={"show_default": True}
)
@click.argument("model")
@click.option(
    "--dataset",
    help="A registered set, folder:PATH of your own images or shards:PATTERN.  "
    "[default: that of the model's first setting]",
)
@click.option(
    "--variant",
    default="",
    show_default=False,
    help="A setting other than the main one, such as small (reduced); `zoo show MODEL` lists them.",
)
@click.option("--images", type=click.IntRange(min=1), help="Budget in real images; stages and schedules are rescaled.")
@minutes_option
@click.option("--out", type=click.Path(), help="The run's folder, a new one.  [default: runs/RECIPE-seedS]")
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, help="Of first weights, noise and the order of the images."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a field; may be repeated. KEY is a dotted path (optimizers.D.lr=1e-4, stages.1.batch=32); "
    "`zoo show RECIPE --json` lists them under settings.",
)
@click.option("--init", help="Weights to start from: a name, a file or a run's folder.")
@device_option
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="fp32", help="tf32 or bf16 (autocast), for GPUs: faster."
)
@click.option("--compile", is_flag=True, help="torch.compile the losses: faster after minutes of compilation.")
@click.option("--cuda-graphs", is_flag=True, help="The same, and on CUDA replay each loss as one graph.")
@click.option("--deterministic", is_flag=True, help="Bit-equal repetition on CUDA too, slower.")
@click.option(
    "--eval-every",
    type=click.IntRange(min=1),
    metavar="IMAGES",
    help="Score 2,000 samples each IMAGES images: fd and kid, into log.jsonl.",
)
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    default=1,
    help="Processes on this machine, a GPU each; every batch must be a multiple.",
)
@click.option(
    "--micro-batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N samples of a process in memory at a time; gradients add up to the batch's.",
)
@log_option
@click.option("--dry-run", is_flag=True, help="Print the cost and stop; nothing is downloaded or written.")
@click.option(
    "--time", "timed", is_flag=True, help="With --dry-run: play rounds for some seconds, print the time, keep nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one an event.")
def command(
    model: str,
    dataset: str | None,
    variant: str,
    images: int | None,
    minutes: float | None,
    out: str | None,
    seed: int,
    changes: tuple[str, ...],
    init: str | None,
    device: str,
    precision: str,
    compile: bool,
    cuda_graphs: bool,
    deterministic: bool,
    eval_every: int | None,
    nproc: int,
    micro_batch: int | None,
    log: str | None,
    dry_run: bool,
    timed: bool,
    as_json: bool,
) -> None:
    """Train MODEL: a model's id with --dataset, a recipe's name, or the path of a recipe file of your own.

    Without --variant it is the model's main setting for the data set: the paper's in full if the paper used it, else a
    reduced one. For other data the setting is used that fits them best, by their fields, channels, size and number:
    a reduced one for fewer than 50,000 images, otherwise a full one if its resolution is no larger than theirs. The
    first lines name it, and the next larger and smaller. The run can be stopped (Ctrl-C) and resumed at any time.
    """
    from zoo import costs
    from zoo.choice import choose

    if timed:
        check_timed(dry_run, init=init, minutes=minutes, out=out, log=log)
    code = Code.of(model)
    choice = choose(model, dataset, variant)
    recipe = overrides.override_all(choice.recipe, changes, images)
    if init is not None and not Path(init).exists():
        hub.find(init)  # a wrong name is reported before anything else
    if processes.main_process() and out is not None:
        check_new(out)
    rescaled = recipe.rescaled(images) if images else recipe
    if dry_run or not processes.launched():
        cost = costs.cost(recipe, images, from_table=not dry_run, micro_batch=micro_batch if nproc == 1 else None)
        check_processes(rescaled, cost, nproc)
        print_cost(rescaled, cost, choice, as_json, dry_run)
    if dry_run and not timed:
        return
    if nproc > 1 and not processes.launched():
        processes.run(nproc, _without(sys.argv[1:], "--nproc"))
        return

    from zoo.engine.runtime import Runtime
    from zoo.engine.train import train
    from zoo.reports.board import listen

    runtime = Runtime(
        device,
        precision,
        compile=compile,
        cuda_graphs=cuda_graphs,
        deterministic=deterministic,
        eval_every=eval_every,
        micro_batch=micro_batch,
    )
    if timed:
        print_time(cost, time_rounds(rescaled, runtime, seed), as_json)
        return
    progress = Progress(as_json, minutes, lambda device, seconds: advice(recipe, device, seconds))
    try:
        train(
            recipe,
            out,
            runtime=runtime,
            seed=seed,
            images=images,
            minutes=minutes,
            init=init,
            code=code,
            progress=listen(progress, log),
        )
    finally:
        progress.close()


TIMED_SECONDS = 10.0  # of --dry-run --time, after the first rounds


def time_rounds(recipe: Recipe, runtime: Runtime, seed: int) -> float:
    """Real images a second of this machine in the first stage, from rounds that leave nothing but the prepared data."""
    from zoo.engine.train import train

    rates: list[float] = []
    first_tick = math.inf

    def listen(event: str, **facts: Any) -> None:
        nonlocal first_tick
        if event == "tick":
            first_tick = min(first_tick, time.monotonic())
            if facts["stage"] == 0:
                rates.append(facts["images_per_second"])
            if facts["stage"] or time.monotonic() - first_tick >= TIMED_SECONDS:
                signal.raise_signal(signal.SIGTERM)  # stops all processes after their round

    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run", runtime=runtime, seed=seed, progress=listen)
    return statistics.median(rates[1:] or rates)  # the first rounds are slower, and compile


def print_time(cost: Json, rate: float, as_json: bool) -> None:
    """Print the time of the whole budget. ``cost``: of :func:`zoo.costs.cost`. ``rate``: of :func:`time_rounds`."""
    from zoo.engine.dry_run import equivalent_images

    seconds = equivalent_images(cost["stages"]) / rate
    if as_json:
        print_json({"images_per_second": rate, "seconds": seconds})
    else:
        echo(f"{rate:,.1f} images/s on this machine: the whole budget takes about {duration(seconds)}")


def check_timed(dry_run: bool, **options: Any) -> None:
    """Raises ValueError for --time without --dry-run, or with an option that does nothing beside it."""
    if not dry_run:
        raise ValueError("--time: must be with --dry-run; a run prints its time by itself")
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"--{name} {value}: must be left out with --time, which plays new networks and keeps "
                             f"nothing")  # fmt: skip


def check_processes(recipe: Recipe, cost: Json, nproc: int) -> None:
    """Raises ValueError if a batch cannot be split among ``nproc`` processes."""
    for size in sorted({turn["batch"] for stage in cost["stages"] for turn in stage["turns"]}):
        if size % nproc:
            raise ValueError(f"--nproc {nproc}: batch={size} must be a multiple of it")
    for stage in recipe.stages:
        for name, stream in stage.data.streams.items():
            if stream.batch is not None and stream.batch % nproc:
                raise ValueError(f"--nproc {nproc}: batch={stream.batch} of stream '{name}' must be a multiple of it")


def print_cost(recipe: Recipe, cost: Json, choice: Choice, as_json: bool, full: bool) -> None:
    """Print how the setting was chosen, parameters, images and rounds (``cost``: of :func:`zoo.costs.cost`), before
    anything is downloaded. ``full``: with the turns."""
    if as_json:
        if full:
            print_json(cost)
        return
    if choice.note:
        echo(choice.note)
        for size, name in (("larger", choice.larger), ("smaller", choice.smaller)):
            if name:
                echo(f"the next {size} setting: zoo train {name} --dataset {shell_word(recipe.dataset)}")
    parameters = ", ".join(f"{name} {count:,}" for name, count in cost["parameters"].items())
    echo(f"{recipe.name}: parameters {parameters}")
    for stage, facts in zip(recipe.stages, cost["stages"], strict=True):
        side = f" of {stage.resolution} pixels" if stage.resolution else ""
        work = amount(facts["multiply_adds_a_round"] * facts["rounds"])
        budget = f"{facts['images']:,} images{side} in {facts['rounds']:,} rounds"
        echo(f"{budget}, batch {stage.batch}, {work} multiply-adds")
        if full:
            for turn in facts["turns"]:
                echo(f"  {' and '.join(turn['players'])}: {times(turn['times'])} a round, batch {turn['batch']}")
    for text in hub.absence(recipe.pretrained) if full and recipe.pretrained else ():
        echo(f"the run cannot begin yet: {text}")


def advice(recipe: Recipe, device: str, seconds: float) -> str:
    """For a full setting that takes long on a CPU: the time, and the command of a reduced setting for the same data, if
    there is one; else ''."""
    from zoo.choice import reduced, work
    from zoo.costs import multiply_adds
    from zoo.settings import RECIPES

    if seconds < LONG or not device.startswith("cpu") or settings.is_small(recipe.variant):
        return ""
    text = f"{recipe.name} in full takes about {duration(seconds)} on this CPU; it can be stopped and used at any time"
    name = reduced(recipe)
    if not name:
        return text
    best = RECIPES[name]
    model, variant = best["model"], f" --variant {best['variant']}" if best["variant"] else ""
    if best["dataset"] != recipe.dataset:
        model, variant = name, ""
    command = f"zoo train {model} --dataset {shell_word(recipe.dataset)}{variant}"
    return f"{text}. With 1/{multiply_adds(recipe) / work(name):,.0f} of the multiply-adds: {command}"


def _without(args: list[str], *names: str) -> list[str]:
    """The arguments without these options and their values."""
    result: list[str] = []
    skip = False
    for arg in args:
        if skip:
            skip = False
        elif arg in names:
            skip = True
        elif arg.split("=")[0] not in names:
            result.append(arg)
    return result
