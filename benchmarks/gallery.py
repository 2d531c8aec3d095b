"""The gallery: README's picture, and for docs/gallery.md a strip of each model's last committed grid.

    python benchmarks/gallery.py          # docs/images/readme.png and docs/images/gallery/MODEL.png

No image is selected: README's samples have the seeds 0, 1, 2, ...; a strip takes evenly spaced cells of the grid that
the model's page shows in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import render
import rows
import torch
from PIL import Image, ImageDraw, ImageFont
from thumbnails import translations

import zoo
from zoo import settings
from zoo.metrics.images import spread
from zoo.models import Model
from zoo.pictures import tile

BORDER = 2  # white pixels between the cells of a grid
CELLS, WIDTH = 16, 530  # of a strip: images; pixels at most


def strip(run: Mapping[str, Any]) -> Image.Image:
    """Evenly spaced cells of a run's grid in one row."""
    with Image.open(render.grid(run)) as picture:
        grid = picture.convert("RGB")
    side = settings.find(run["recipe"]).stages[-1].resolution + BORDER
    across, down = grid.width // side, grid.height // side
    count = min(CELLS, across * down, WIDTH // side)
    canvas = Image.new("RGB", (count * side + BORDER, side + BORDER), "white")
    for i, cell in enumerate(spread(across * down, count).tolist()):
        left, top = cell % across * side, cell // across * side
        canvas.paste(grid.crop((left, top, left + side + BORDER, top + side + BORDER)), (i * side, 0))
    return canvas


def write_strips(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the strip of each model: ``runs``, the run that represents it. Those whose rows belong together have
    their grids instead."""
    runs = {model: run for model, run in runs.items() if not render.whole_grid(run)}
    render.STRIPS.mkdir(parents=True, exist_ok=True)
    for model, run in runs.items():
        strip(run).save(render.STRIPS / f"{model}.png", optimize=True)
    for path in render.STRIPS.glob("*.png"):
        if path.stem not in runs:
            path.unlink()


# README's picture -----------------------------------------------------------------------------------------------------

PICTURE = render.GRIDS / "readme.png"
SIDE, ROWS, COLUMNS = 64, 3, 8  # of an image, in pixels; images of a panel
DIRECTIONS = 2  # of a translator, at most; each has a row of inputs and one of outputs
ACROSS, GAP, CAPTION = 3, 12, 20  # columns of panels; pixels


def picture() -> Image.Image:
    """Images in color by the shipped weights, a panel each, under the shortest column of those before it. Samples have
    the seeds 0, 1, 2, ...; translators show held-out images above their translations, in their first directions."""
    models = {name: zoo.load(name) for name in zoo.list_weights()}
    names = [n for n, m in models.items() if m.channels == 3 and (m.seeded or m.translates)]
    panels = {n: panel(n, models[n]) for n in sorted(names, key=lambda n: (not models[n].seeded, n))}
    heights, places = [0] * min(ACROSS, len(panels)), {}
    width = max(p.width for p in panels.values()) + GAP
    for name, image in panels.items():
        column = heights.index(min(heights))
        places[name] = (column * width, heights[column])
        heights[column] += CAPTION + image.height + GAP
    canvas = Image.new("RGB", (len(heights) * width - GAP, max(heights) - GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(CAPTION - 6)
    for name, (left, top) in places.items():
        draw.text((left, top), name, fill="black", font=font)
        canvas.paste(panels[name], (left, top + CAPTION))
    return canvas


def panel(name: str, model: Model) -> Image.Image:
    """One model's images, at 64x64."""
    images = model.outputs(ROWS * COLUMNS) if model.seeded else translations(name, COLUMNS)[: 2 * DIRECTIONS * COLUMNS]
    mode = "area" if images.shape[-1] > SIDE else "nearest"
    grid = tile(torch.nn.functional.interpolate(images, (SIDE, SIDE), mode=mode), COLUMNS)
    return Image.fromarray((grid * 255 + 0.5).byte().permute(1, 2, 0).numpy())


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def command() -> int:
    """Compose README's picture, and the strips of docs/gallery.md from the committed grids."""
    write_strips(render.gallery_runs())
    image = picture()
    image.save(PICTURE, optimize=True)
    print(PICTURE.relative_to(rows.ROOT), image.size)
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
