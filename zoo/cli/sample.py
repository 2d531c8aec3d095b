"""``zoo sample``: what a model makes, as grids, single files or walks; the model's task decides what it writes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import click

from zoo.cli.output import check_finite, choose_device, code_option, device_option, echo

Chunk = TypeVar("Chunk", bound=Sized)


@click.command("sample", short_help="Make images with trained weights.")
@click.argument("name")
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many images; with --classes or several --text in each row, with --interpolate the number of seeds.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Image k has the seed SEED + k.")
@click.option(
    "--out",
    required=True,
    help="A .png for one grid, a folder (DIR/) for a PNG an image, a .gif or .mp4 for --interpolate.",
)
@click.option("--y", help="A class (number or name) for all, or one an image, separated by commas.")
@click.option("--classes", is_flag=True, help="A grid with a row for each class, -n images in each.")
@click.option(
    "--interpolate", type=click.IntRange(min=1), metavar="STEPS", help="A walk through -n seeds, as a GIF or MP4."
)
@click.option("--codes", metavar="c1=3,c2=0.5", help="Values of codes, for all images (InfoGAN).")
@click.option("--traverse", metavar="CODE", help="A grid in which only this code changes along a row; -n rows.")
@click.option(
    "--truncation",
    type=float,
    callback=check_finite,
    help="Sample noise beyond so many standard deviations again; small: cleaner, less varied images. Of a model that "
    "truncates in w: the factor of w's distance from its mean.",
)
@click.option(
    "--input",
    "source",
    help="What the model makes something of: an image or a folder of images that a translator translates, an upscaler "
    "enlarges, a model with an encoder reconstructs, and of which any other generator finds its nearest image.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    help="What the images of a model of texts should show. Several: a grid with a row for each, -n images in each, or "
    "with --interpolate a walk from text to text.",
)
@click.option(
    "--to",
    help="A domain, by its letter or name: the direction of a two-way translator (required), or one of the two of a "
    "coupled model.  [default: both, side by side]",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    help="Images in one pass, of those from seeds.  [default: 16, or as the recipe's sampling says]",
)
@click.option(
    "--scale", type=click.IntRange(min=1), default=1, show_default=True, help="Enlarge each pixel so many times."
)
@code_option
@device_option
def command(
    name: str,
    count: int,
    seed: int,
    out: str,
    y: str | None,
    classes: bool,
    interpolate: int | None,
    codes: str | None,
    traverse: str | None,
    truncation: float | None,
    source: str | None,
    texts: tuple[str, ...],
    to: str | None,
    chunk: int | None,
    scale: int,
    code: str | None,
    device: str,
) -> None:
    """Images from NAME: the name of weights, a run's folder, or a weights file.

    With a folder as --out each image is a file, named by its seed; files that exist are not made again.
    """
    from zoo import hub
    from zoo.models.request import Request

    hub.find(name)  # a wrong name is reported before anything else
    y_values, code_values = parse_classes(y), parse_codes(codes)
    request = Request(
        name,
        out,
        count=count,
        seed=seed,
        y=y_values,
        classes=classes,
        interpolate=interpolate,
        codes=code_values,
        traverse=traverse,
        truncation=truncation,
        source=source,
        text=None if not texts else texts[0] if len(texts) == 1 else [*texts],
        to=to,
        chunk=chunk,
        scale=scale,
        given=given_options(),
        tell=lambda line: echo(line, err=True),
        bar=progress_bar,
    )
    hub.load(name, choose_device(device), code).write(request)
    echo(out)


def given_options() -> frozenset[str]:
    """The parameters that the user gave, at their default values too."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    names = frozenset(name for name in context.params if context.get_parameter_source(name) is source)
    return names - {"texts"} | {"text"} if "texts" in names else names


def parse_classes(y: str | None) -> str | list[str] | None:
    """``3``, ``cat`` or ``0,cat,2`` -> a class as the user names it, or a list of them."""
    if y is None:
        return None
    values = [v.strip() for v in y.split(",")]
    return values[0] if len(values) == 1 else values


def parse_codes(text: str | None) -> dict[str, float] | None:
    """``c1=3,c2=0.5`` -> {"c1": 3.0, "c2": 0.5}. Raises ValueError for another form."""
    if text is None:
        return None
    values = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            raise ValueError(f"--codes {text}: '{part}' must be NAME=NUMBER, such as c1=3") from None
    return values


def progress_bar(chunks: Iterable[Chunk], total: int) -> Iterator[Chunk]:
    """The chunks, with a progress bar on a terminal. ``total``: the sum of their lengths."""
    if not sys.stderr.isatty():
        yield from chunks
        return
    with click.progressbar(length=total, file=sys.stderr, show_pos=True) as bar:
        for images in chunks:
            yield images
            bar.update(len(images))
