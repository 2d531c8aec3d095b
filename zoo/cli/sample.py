"""``zoo sample``: grids, single files, class grids and walks through the noise; --input is translated, or reconstructed
by a model with an encoder."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from zoo.cli.output import choose_device, device_option
from zoo.files import Json, beside, sha256

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from zoo.model import ImageModel, TranslateModel

Y = int | str | list[int | str] | None  # one class for all images, or one for each
Chunk = TypeVar("Chunk", bound=Sized)

MANIFEST = "samples.json"
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@click.command("sample", short_help="Make images with trained weights.")
@click.argument("name")
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many images; with --classes in each row, with --interpolate the number of seeds.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Image k has the seed SEED + k.")
@click.option(
    "--out",
    required=True,
    help="A .png for one grid, a folder (DIR/) for a PNG an image, a .gif for --interpolate.",
)
@click.option("--y", help="A class (number or name) for all, or one an image, separated by commas.")
@click.option("--classes", is_flag=True, help="A grid with a row for each class, -n images in each.")
@click.option("--interpolate", type=click.IntRange(min=1), metavar="STEPS", help="A walk through -n seeds, as a GIF.")
@click.option("--codes", metavar="c1=3,c2=0.5", help="Values of codes, for all images (InfoGAN).")
@click.option("--traverse", metavar="CODE", help="A grid in which only this code changes along a row; -n rows.")
@click.option(
    "--truncation",
    type=float,
    help="Sample noise beyond so many standard deviations again; small: cleaner, less varied images.",
)
@click.option(
    "--input",
    "source",
    type=click.Path(),
    help="An image or a folder of images that a translator translates or a model with an encoder reconstructs.",
)
@click.option(
    "--to",
    help="A domain, by its letter or name: the direction of a two-way translator (required), or one of the two of a "
    "coupled model.  [default: both, side by side]",
)
@click.option("--chunk", type=click.IntRange(min=1), default=16, show_default=True, help="Images in one pass.")
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
    to: str | None,
    chunk: int,
    device: str,
) -> None:
    """Images from NAME: the name of weights, a run's folder, or a weights file.

    With a folder as --out each image is a file, named by its seed; files that exist are not made again.
    """
    from zoo import hub
    from zoo.model import AutoencoderModel, CoupledModel, ImageModel, TranslateModel

    folder = out.endswith(("/", os.sep)) or Path(out).is_dir() or not Path(out).suffix
    one_picture = bool(interpolate or classes or traverse)
    suffix = "" if folder else Path(out).suffix.lower()
    expected = ".gif" if interpolate else ".png"
    if source is None and (one_picture or not folder) and suffix != expected:
        what = "a walk" if interpolate else "a grid of classes" if classes else "a grid"
        raise ValueError(f"--out {out}: {what} is written as {expected}" + ("" if one_picture else ", or name DIR/"))
    model = hub.load(name, choose_device(device))
    if isinstance(model, TranslateModel):
        if source is None:
            raise ValueError(f"--input: '{name}' translates images; give an image or a folder of images")
        return translate(model, Path(source), to, Path(out), folder, chunk)
    if not isinstance(model, ImageModel):
        raise ValueError(f"'{name}' makes no images: its verb is {model.verb} (zoo.load('{name}').{model.verb})")
    if source is not None and to is None and isinstance(model, AutoencoderModel):
        encoder = model
        make = lambda image: encoder.reconstruct(image, chunk=chunk)[0]  # noqa: E731
        return remake(make, model.resolution, Path(source), Path(out), folder)
    options: Json = {"truncation": truncation, "chunk": chunk}
    if isinstance(model, CoupledModel):
        options["to"] = to or "both"
    if source is not None or (to is not None and "to" not in options):
        option = "--input" if source is not None else "--to"
        raise ValueError(f"{option} {source or to}: '{name}' makes images from noise; leave {option} out")
    y_values, code_values = _classes(y), _codes(codes)
    if code_values and one_picture:
        raise ValueError(f"--codes {codes}: must be without --interpolate, --classes and --traverse")
    if not model.resolution and (folder or interpolate):
        raise ValueError(f"--out {out}: '{name}' makes points; give a .png to plot them in")
    seeds = range(seed, seed + count)
    if interpolate:
        walk(model.interpolate(seeds, interpolate, y=y_values, **options), Path(out))
    elif traverse:
        grid(*model.traverse(traverse, seeds, chunk=chunk), Path(out))
    elif classes:
        class_grid(model, count, seed, Path(out), y_values, options)
    elif folder:
        manifest: Json = {"weights": sha256(hub.find(name)), "y": y_values, "truncation": truncation}
        manifest |= {"to": options["to"]} if "to" in options else {}
        manifest |= {"codes": code_values} if code_values else {}
        files(model, seeds, y_values, Path(out), manifest, {**options, "codes": code_values})
    else:
        columns = math.ceil(math.sqrt(count))
        grid(model.sample(count, seed=seed, y=y_values, codes=code_values, **options), columns, Path(out))
    click.echo(out)


def _classes(y: str | None) -> Y:
    """``3``, ``cat`` or ``0,cat,2`` -> a number, a name, or a list of them."""
    if y is None:
        return None
    values = [int(v) if v.lstrip("-").isdigit() else v for v in map(str.strip, y.split(","))]
    return values[0] if len(values) == 1 else values


def _codes(text: str | None) -> dict[str, float] | None:
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


# Images from noise ----------------------------------------------------------------------------------------------------


def grid(images: Tensor, columns: int, out: Path) -> None:
    from zoo.pictures import write_grid

    out.parent.mkdir(parents=True, exist_ok=True)
    write_grid(out, images.cpu(), columns)


def class_grid(model: ImageModel, count: int, seed: int, out: Path, y: Y, options: Json) -> None:
    """A row for each class; the same seeds in each row."""
    if not model.class_count:
        raise ValueError("--classes: this model is not class-conditional; leave --classes out")
    if y is not None:
        raise ValueError(f"--y {y}: must be without --classes, which has a row for every class")
    seeds = list(range(seed, seed + count)) * model.class_count
    numbers = [c for c in range(model.class_count) for _ in range(count)]
    grid(model.sample(seeds=seeds, y=numbers, **options), count, out)


def files(model: ImageModel, seeds: Sequence[int], y: Y, out: Path, manifest: Json, options: Json) -> None:
    """One PNG for each seed that has none yet. Raises ValueError if the folder has samples of another manifest."""
    path = out / MANIFEST
    if path.exists():
        if json.loads(path.read_text()) != manifest:
            raise ValueError(f"--out {out}: has samples of other weights or settings; choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: exists and has other files; choose another folder")
    if isinstance(y, list) and len(y) != len(seeds):
        raise ValueError(f"--y {','.join(map(str, y))}: must be one class for each of {len(seeds)} images")
    missing = [i for i, s in enumerate(seeds) if not (out / f"{s:06d}.png").exists()]
    if not missing:
        return
    classes = [y[i] for i in missing] if isinstance(y, list) else y
    chunks = model.iter_samples(seeds=[seeds[i] for i in missing], y=classes, **options)
    first = next(chunks)  # a mistake is reported before the folder is made
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(manifest))
    names = iter(f"{seeds[i]:06d}.png" for i in missing)
    for images in _with_bar(itertools.chain((first,), chunks), len(missing)):
        for image in images:
            _save(_pil(image), out / next(names))


def walk(chunks: Iterable[Tensor], out: Path) -> None:
    """A closed walk as a GIF of 20 images a second."""
    frames = [_pil(image) for images in chunks for image in images]
    out.parent.mkdir(parents=True, exist_ok=True)
    _save(frames[0], out, save_all=True, append_images=frames[1:], duration=50, loop=0)


def _with_bar(chunks: Iterable[Chunk], total: int) -> Iterator[Chunk]:
    if not sys.stderr.isatty():
        yield from chunks
        return
    with click.progressbar(length=total, file=sys.stderr, show_pos=True) as bar:
        for images in chunks:
            yield images
            bar.update(len(images))


def _pil(image: Tensor) -> Image:
    """[C, H, W] in [0, 1] -> a PIL image."""
    from PIL import Image

    array = (image.cpu() * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def _save(image: Image, path: Path, **options: object) -> None:
    """Write the image atomically, so that a file that exists is complete."""
    from PIL import Image

    with beside(path) as partial, open(partial, "wb") as file:
        image.save(file, format=Image.registered_extensions()[path.suffix.lower()], **options)


# Images from images ---------------------------------------------------------------------------------------------------


def translate(model: TranslateModel, source: Path, to: str | None, out: Path, folder: bool, chunk: int) -> None:
    """Translate each image to the domain ``to``."""
    if to is None:
        if len(model.to_network) > 1:
            names = [model.domains.get(d, d) for d in model.to_network]
            raise ValueError(f"--to: must be a domain of this model, {' or '.join(names)}")
        (to,) = model.to_network
    fixed = getattr(model.network(to), "resolution", None)
    remake(lambda image: model.translate(image, to, chunk=chunk)[0], fixed, source, out, folder)


def remake(make: Callable[[Image], Tensor], fixed: int | None, source: Path, out: Path, folder: bool) -> None:
    """An image to an image, or a folder of images to a folder of PNGs of the same names. ``fixed``: the side that the
    network takes, None if it takes any."""
    if not source.exists():
        raise ValueError(f"--input {source}: no such file or folder")
    sources = [source]
    if source.is_dir():
        sources = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGES)
        if not sources:
            raise ValueError(f"--input {source}: has no images ({', '.join(IMAGES)})")
        if not folder:
            raise ValueError(f"--out {out}: must be a folder (DIR/), as --input is one")
    elif not folder and out.suffix.lower() not in IMAGES:
        raise ValueError(f"--out {out}: must end in one of {', '.join(IMAGES)}")
    for path in sources:  # a mistake in any is reported before anything is written
        _read(path)
    (out if folder else out.parent).mkdir(parents=True, exist_ok=True)
    for paths in _with_bar(([p] for p in sources), len(sources)):
        for path in paths:
            image = make(_fit(fixed, _read(path), path))
            _save(_pil(image), out / f"{path.stem}.png" if folder else out)
    click.echo(out)


def _read(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"--input {path}: not a readable image ({error}); repair or remove it") from None


def _fit(fixed: int | None, image: Image, path: Path) -> Image:
    """The image at the nearest size that the network takes; a change is printed."""
    from PIL import Image

    width, height = (max(4, round(side / 4) * 4) for side in image.size)
    size = (fixed, fixed) if fixed else (width, height)
    if size == image.size:
        return image
    click.echo(f"{path}: {image.width}x{image.height} resized to {size[0]}x{size[1]}", err=True)
    return image.resize(size, Image.Resampling.LANCZOS)
