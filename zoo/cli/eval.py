"""``zoo eval``: scores of weights or of a folder of images, with the settings that they depend on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from zoo.cli.output import choose_device, code_option, device_option, echo, json_option, plain, print_json, print_table
from zoo.files import Json
from zoo.reports.progress import LINES

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@click.command("eval", short_help="Score weights or a folder of images.")
@click.argument("what")
@click.option(
    "--metrics", help="Scores, separated by commas: fd,kid,is,precision,recall,density,coverage,near-copies,..."
)
@click.option("--dataset", help="The reference: a registered set or folder:PATH.  [default: the training set]")
@click.option("--split", help="Of the reference.  [default: test if it has 10,000 images, else train]")
@click.option(
    "--features",
    help="A feature network, inception or timm:NAME.  [default: the data set's; of your own images cifar10, of gray "
    "ones fashion-mnist]",
)
@click.option(
    "-n", "count", type=click.IntRange(min=2), help="Generated images.  [default: 10,000; all images of a folder]"
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Image k has the seed SEED + k.")
@click.option(
    "--to", help="A domain, by its letter or name: the direction of a translator, or one of the two of a coupled model."
)
@click.option(
    "--inception", type=click.Path(), metavar="FILE", help="Weights of Inception-v3, if they cannot be downloaded."
)
@click.option(
    "--reference",
    type=click.Path(),
    metavar="FILE",
    help="Features of the reference's images, if these are not at hand (benchmarks/quality.py --references).",
)
@code_option
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
    reference: str | None,
    code: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Score WHAT: the name of weights, a run's folder, a weights file, or a folder of images.

    Only scores with --features inception are called FID; others have the name of their feature network (fd-cifar10).
    """
    from zoo.metrics.evaluate import evaluate

    bar = Bar()
    try:
        result = evaluate(
            what,
            None if metrics is None else [m for m in map(str.strip, metrics.split(",")) if m],
            dataset=dataset,
            split=split,
            features=features,
            n=count,
            seed=seed,
            to=to,
            inception=inception,
            reference=reference,
            code=code,
            device=choose_device(device),
            progress=bar,
        )
    finally:
        bar.close()
    if as_json:
        print_json(result)
        return
    print_table(rows(result), False)
    for text in (*result["notes"], protocol_line(result["protocol"])):
        echo(text)


def rows(result: Json) -> list[Json]:
    """A row for each score: its value and its error, if it has one."""
    errors = result["errors"]
    return [
        {"score": name, "value": f"{value:.5g}", "±": f"{errors[name]:.2g}" if name in errors else None}
        for name, value in result["scores"].items()
    ]


def protocol_line(protocol: Json) -> str:
    """The settings that the scores depend on, in a line."""
    parts = []
    weights, dataset, split = protocol["weights"], protocol.get("dataset"), protocol.get("split")
    if "tensors" in weights:
        parts.append(f"checkpoint {weights['checkpoint']} ({weights['tensors']})")
    if "generated" in protocol:
        parts.append(f"{protocol['generated']:,} images, seed {protocol['seed']}")
    if "reference" in protocol:
        reference = protocol["reference"]
        parts.append(f"against {reference['images']:,} of {dataset} {split} ({reference['content']})")
    if "pairs" in protocol:
        content = f" ({protocol['pairs_content']})" if "pairs_content" in protocol else ""
        parts.append(f"{protocol['pairs']:,} pairs of {dataset} {split}{content}")
    if "near_copies" in protocol:
        copies = protocol["near_copies"]
        parts.append(f"copies sought among {copies['train']:,} of {dataset} train ({copies['train_content']})")
    if "labeled" in protocol:
        labeled = protocol["labeled"]
        parts.append(f"{labeled['images']:,} labeled images of {dataset} {labeled['split']} ({labeled['content']})")
    if "features" in protocol:
        parts.append(f"features {protocol['features']} ({protocol['features_hash']}): {protocol['resize']}")
    return "; ".join([*parts, protocol["quantization"], f"torch-fidelity {protocol['versions']['torch-fidelity']}"])


class Bar:
    """Progress on stderr, called as ``bar(done, total, what)``: a bar on a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.last = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        if not sys.stderr.isatty():
            if time.monotonic() - self.last > LINES:
                self.last = time.monotonic()
                echo(f"{what}: {done:,} of {total:,}", err=True)
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(plain(what), total=total)
        self.bar.update(self.tasks[what], completed=done, total=total)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
