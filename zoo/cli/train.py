"""``zoo train``: what it will cost, then the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo import overrides
from zoo.cli import processes
from zoo.cli.output import amount, device_option, duration, print_json
from zoo.cli.progress import LONG, Progress

if TYPE_CHECKING:
    from zoo.recipe import Recipe


@click.command("train", short_help="Train a model into a new run's folder.", context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--dataset",
    help="A registered set, folder:PATH of your own images or shards:PATTERN.  [default: that of the model's first setting]",
)
@click.option(
    "--variant",
    default="",
    show_default=False,
    help="Another setting than the main one, such as small (reduced); `zoo show MODEL` lists them.",
)
@click.option("--images", type=click.IntRange(min=1), help="Budget in real images; stages and schedules are rescaled.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop early, after so many minutes.")
@click.option("--out", type=click.Path(), help="The run's folder, a new one.  [default: runs/RECIPE-seedS]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Of first weights, noise and the order of the images."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a field; may be repeated. KEY is a dotted path (optimizers.D.lr=1e-4, stages.1.batch=32); "
    "`zoo show RECIPE --json` lists them under settings.",
)
@click.option("--init", help="Weights to begin from: a name, a file or a run's folder.")
@device_option
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="bf16: autocast, for GPUs.")
@click.option("--compile", is_flag=True, help="torch.compile the losses: a minute's wait, then faster.")
@click.option("--deterministic", is_flag=True, help="Bit-equal repetition on CUDA too, slower.")
@click.option(
    "--eval-every",
    type=click.IntRange(min=1),
    metavar="IMAGES",
    help="Score 2,000 samples so often: fd and kid, into log.jsonl.",
)
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    default=1,
    help="Processes on this machine, a GPU each; every batch must be a multiple.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would cost and stop; nothing is fetched or written.")
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
    deterministic: bool,
    eval_every: int | None,
    nproc: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train MODEL: a model's id with --dataset, a recipe's name, or the path of a recipe file of your own.

    Without --variant it is the main setting for the data set: the paper's in full where the paper used it, else a reduced
    one. Where there is none for it, the model's first setting is used, and told. The run can be stopped (Ctrl-C) and
    resumed at any time.
    """
    from zoo import api, hub, settings
    from zoo.engine.dry_run import describe

    found = settings.find(model, dataset, variant)
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {text}: must be KEY=VALUE, as in --set optimizers.D.lr=1e-4")
        found = overrides.override(found, key, value)
    if init is not None and not Path(init).exists():
        hub.find(init)  # a wrong name is told before anything else
    if out is None and processes.launched():
        raise ValueError("--out: several processes need it named, so that all write to one folder")
    path = Path(out) if out else api.fresh_folder(found.name, seed)
    if processes.main_process():
        check_new(path)
    rescaled = found.rescaled(images) if images else found
    if dry_run or not processes.launched():
        cost = describe(rescaled)
        for size in sorted({turn["batch"] for stage in cost["stages"] for turn in stage["turns"]}):
            if size % nproc:
                raise ValueError(f"--nproc {nproc}: batch={size} must be a multiple of it")
        for name, stream in ((k, s) for stage in rescaled.stages for k, s in stage.data.streams.items() if s.batch):
            if stream.batch % nproc:
                raise ValueError(f"--nproc {nproc}: batch={stream.batch} of stream '{name}' must be a multiple of it")
        tell_cost(rescaled, cost, dataset, as_json, dry_run)
    if dry_run:
        return
    if nproc > 1 and not processes.launched():
        processes.run(nproc, [*_without(sys.argv[1:], "--nproc", "--out"), "--out", str(path)])
        return

    from zoo.engine.runtime import Runtime
    from zoo.engine.train import train

    runtime = Runtime(device, precision, compile=compile, deterministic=deterministic, eval_every=eval_every)
    progress = Progress(as_json, minutes, lambda on, seconds: advice(found, on, seconds))
    try:
        train(found, path, runtime=runtime, seed=seed, images=images, minutes=minutes, init=init, progress=progress)
    finally:
        progress.close()


def check_new(path: Path) -> None:
    """ValueError where there is something at the output folder already."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path}: is a file; choose another --out")
    if path.exists() and any(path.iterdir()):
        on = f", or go on with it: zoo resume {path}" if (path / "recipe.json").exists() else ""
        raise ValueError(f"--out {path}: exists and is not empty; choose another --out{on}")


def tell_cost(recipe: Recipe, cost: dict[str, Any], asked: str | None, as_json: bool, whole: bool) -> None:
    """Parameters, images and rounds (``cost`` is the plan's), before anything is fetched."""
    if as_json:
        if whole:
            print_json(cost)
        return
    each = ", ".join(f"{name} {count:,}" for name, count in cost["parameters"].items())
    click.echo(f"{recipe.name}: parameters {each}")
    note = substitute(recipe, asked)
    if note:
        click.echo(note)
    for stage, planned in zip(recipe.stages, cost["stages"], strict=True):
        side = f" of {stage.resolution} pixels" if stage.resolution else ""
        work = amount(planned["multiply_adds_a_round"] * planned["rounds"])
        click.echo(
            f"{planned['images']:,} images{side} in {planned['rounds']:,} rounds, batch {stage.batch}, {work} multiply-adds"
        )
        if whole:
            for turn in planned["turns"]:
                click.echo(f"  {' and '.join(turn['players'])}: {turn['times']:g} times a round, batch {turn['batch']}")


def substitute(recipe: Recipe, asked: str | None) -> str:
    """A line where the model has no setting of its own for the data set asked for."""
    from zoo.settings import RECIPES

    entries = [e for e in RECIPES.values() if (e["model"], e["variant"]) == (recipe.model, recipe.variant)]
    if asked is None or any(e["dataset"] == asked for e in entries):
        return ""
    return f"{recipe.model} has no setting of its own for {asked}: its setting for {entries[0]['dataset']} is used"


def advice(recipe: Recipe, device: str, seconds: float) -> str:
    """For a full setting that takes long on a CPU: how long, and which command takes minutes."""
    from zoo.settings import RECIPES

    def small(variant: str) -> bool:
        return variant.split("-")[-1] == "small"  # what reduced settings are called

    if seconds < LONG or not device.startswith("cpu") or small(recipe.variant):
        return ""
    said = f"{recipe.name} in full takes about {duration(seconds)} on this CPU; what it has is usable whenever it is stopped"
    reduced = []
    for entry in RECIPES.values():
        images = entry["build"]().images
        if entry["model"] == recipe.model and (small(entry["variant"]) or images < recipe.images / 10):
            near = entry["dataset"] == recipe.dataset
            alike = near and entry["variant"].startswith(recipe.variant)
            reduced.append(((not alike, not near, not small(entry["variant"]), images), entry))
    if not reduced:
        return said
    best = min(reduced, key=lambda pair: pair[0])[1]
    variant = f" --variant {best['variant']}" if best["variant"] else ""
    return f"{said}. A reduced setting takes minutes: zoo train {best['model']} --dataset {best['dataset']}{variant}"


def _without(args: list[str], *names: str) -> list[str]:
    """The arguments without some options and their values."""
    kept: list[Any] = []
    skip = False
    for arg in args:
        if skip:
            skip = False
        elif arg in names:
            skip = True
        elif arg.split("=")[0] not in names:
            kept.append(arg)
    return kept
