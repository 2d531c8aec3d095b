"""``zoo eval``: scores of weights or of a folder of images, each with what it depends on."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from zoo.cli.output import choose_device, device_option, json_option, print_json, print_table
from zoo.cli.progress import LINES


@click.command("eval", short_help="Score weights or a folder of images.")
@click.argument("what")
@click.option(
    "--metrics", help="Scores, separated by commas: fd,kid,is,precision,recall,density,coverage,near-copies,..."
)
@click.option("--dataset", help="The reference: a registered set or folder:PATH.  [default: what it was trained on]")
@click.option("--split", help="Of the reference.  [default: test where it holds 10,000 images, else train]")
@click.option(
    "--features", help="A feature network, inception or timm:NAME.  [default: the data set's feature network]"
)
@click.option("-n", "count", type=click.IntRange(min=2), help="Generated images.  [default: 10,000; of a folder all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Image k has the seed SEED + k.")
@click.option(
    "--to", help="A domain, by its letter or name: a translator's direction, or which of a coupled model's two."
)
@click.option(
    "--inception", type=click.Path(), metavar="FILE", help="The Inception-v3's weights, where they can't be fetched."
)
@device_option
@json_option
def command(
    what: str,
    metrics: str | None,
    dataset: str | None,
    split: str | None,
    features: str | None,
    count: int | None,
    seed: int,
    to: str | None,
    inception: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Score WHAT: the name of weights, a run's folder, a weights file, or a folder of images.

    Only scores with --features inception are called FID; those of the zoo's own feature networks bear their names (fd-cifar10).
    """
    from zoo.metrics.evaluate import evaluate

    bar = Bar()
    try:
        found = evaluate(
            what,
            None if metrics is None else [m for m in map(str.strip, metrics.split(",")) if m],
            dataset=dataset,
            split=split,
            features=features,
            n=count,
            seed=seed,
            to=to,
            inception=inception,
            device=choose_device(device),
            progress=bar,
        )
    finally:
        bar.close()
    if as_json:
        print_json(found)
        return
    print_table(rows(found), False)
    for text in (*found["notes"], protocol(found["protocol"])):
        click.echo(text)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A line a score: its value and, where it has one, its error."""
    errors = found["errors"]
    return [
        {"score": name, "value": f"{value:.5g}", "±": f"{errors[name]:.2g}" if name in errors else None}
        for name, value in found["scores"].items()
    ]


def protocol(said: dict[str, Any]) -> str:
    """What the scores depend on, in a line."""
    parts = (
        [f"checkpoint {said['weights']['checkpoint']} ({said['weights']['tensors']})"]
        if "tensors" in said["weights"]
        else []
    )
    if "generated" in said:
        parts.append(f"{said['generated']:,} images, seed {said['seed']}")
    if "reference" in said:
        held = said["reference"]
        parts.append(f"against {held['images']:,} of {said['dataset']} {said['split']} ({held['content']})")
    if "pairs" in said:
        content = f" ({said['pairs_content']})" if "pairs_content" in said else ""
        parts.append(f"{said['pairs']:,} pairs of {said['dataset']} {said['split']}{content}")
    if "near_copies" in said:
        near = said["near_copies"]
        parts.append(f"copies sought among {near['train']:,} of {said['dataset']} train ({near['train_content']})")
    if "labeled" in said:
        held = said["labeled"]
        parts.append(f"{held['images']:,} labeled images of {said['dataset']} {held['split']} ({held['content']})")
    if "features" in said:
        parts.append(f"features {said['features']} ({said['features_hash']}): {said['resize']}")
    return "; ".join([*parts, said["quantization"], f"torch-fidelity {said['versions']['torch-fidelity']}"])


class Bar:
    """Progress on stderr, called as ``bar(done, total, what)``: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        if not sys.stderr.isatty():
            if time.monotonic() - self.last > LINES:
                self.last = time.monotonic()
                click.echo(f"{what}: {done:,} of {total:,}", err=True)
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total)
        self.bar.update(self.tasks[what], completed=done, total=total)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
