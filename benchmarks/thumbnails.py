"""16 images of each shipped file as a small picture, results/thumbnails/NAME.png, and their comparison.

    python benchmarks/thumbnails.py                       # of every shipped file
    python benchmarks/thumbnails.py sngan-fashion-mnist   # of one of them
    python benchmarks/thumbnails.py --check               # draw them again: is a pixel another one?

The images are 16 of what the task's probe gives, evenly spaced; those larger than 64 pixels are averaged down. A pixel
may differ by 1/255: half of it is the rounding of the picture, the rest is for machines whose kernels round otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import rows
import torch
from PIL import Image
from torch import Tensor

import zoo
from zoo.metrics.image_source import find
from zoo.metrics.images import spread
from zoo.metrics.inputs import ScoreInputs
from zoo.models import Model
from zoo.pictures import tile

COUNT, COLUMNS, SIDE = 16, 4, 64
TOLERANCE = 1.0  # of 255


def folder() -> Path:
    """The folder of the committed pictures."""
    return rows.RESULTS / "thumbnails"


def draw(model: Model) -> Tensor:
    """The picture of a model's images, [3, H, W] from 0 to 255. What is no image (the probabilities [N, K] of a
    classifier) becomes a row of gray pixels."""
    outputs = [x.cpu() if x.ndim == 4 else x.cpu()[:, None, None].expand(-1, -1, 4, -1) for x in model.probe()]
    images = torch.cat(outputs)
    images = images[spread(len(images), COUNT)]
    if max(images.shape[-2:]) > SIDE:
        images = torch.nn.functional.interpolate(images, (SIDE, SIDE), mode="area")
    return tile(images, COLUMNS) * 255


def translations(what: str | Path, columns: int) -> Tensor:
    """Of a translator for each direction a row of held-out images and a row of their translations, the latter alone if
    the images may not be passed on: [N, C, H, W] in [0, 1]."""
    images = []
    for to in zoo.load(what).direction_names:
        inputs = ScoreInputs(find(what), to=to)
        model = inputs.source.model
        x = torch.cat([*model.input_images(inputs).at_most(columns).stream()]).float() / 255
        images += [*([] if inputs.facts.by_hand else [x]), model.translate(x, to).cpu()]
    return torch.cat(images)


def check(names: Sequence[str]) -> list[str]:
    """Draw the images of shipped files again: which pictures differ from the committed ones, a line each."""
    errors = []
    for name in names:
        path = folder() / f"{name}.png"
        if not path.is_file():
            errors.append(f"{name}: has no thumbnail; run benchmarks/thumbnails.py {name}")
            continue
        now = draw(zoo.load(name))
        with Image.open(path) as picture:
            committed = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()
        if committed.shape != now.shape:
            sizes = [f"{x.shape[2]}x{x.shape[1]}" for x in (committed, now)]
            errors.append(f"{name}: the thumbnail must have {sizes[1]} pixels, got {sizes[0]}")
            continue
        difference = (committed - now).abs().max().item()
        if not difference <= TOLERANCE:  # a NaN is not
            message = f"must be those of its thumbnail to 1/255, got a difference of {difference:.3g}/255"
            errors.append(f"{name}: its 16 images {message}")
    return errors


def write(name: str) -> None:
    """Draw and write the picture of a shipped file."""
    path = folder() / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    array = draw(zoo.load(name)).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(path, optimize=True)
    print(f"{name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("names", nargs=-1)
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if an image differs from its thumbnail.")
def command(names: tuple[str, ...], checking: bool) -> int:
    """Draw 16 images of NAMES, shipped weights, by default all, into results/thumbnails/."""
    if checking:
        errors = check(names or zoo.list_weights())
        print("\n".join(errors) or "thumbnails: the images are the committed ones")
        return int(bool(errors))
    for name in names or zoo.list_weights():
        write(name)
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
