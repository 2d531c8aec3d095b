"""README's picture: what the shipped weights make, docs/images/readme.png.

    python benchmarks/picture.py

Samples have seeds 0, 1, 2, ...: nothing is chosen by hand. Translators show held-out emoji above their translations.
"""

from __future__ import annotations

import rows
import torch
from pairs import domains
from PIL import Image

import zoo
from zoo.engine.run import tile

OUT, SCALE, ROWS, COLUMNS = rows.ROOT / "docs" / "images" / "readme.png", 2, 4, 8


def panel(name: str) -> Image.Image:
    """One shipped file's images, magnified."""
    model = zoo.load(name)
    if model.verb == "translate":
        a, b = (x[:: len(x) // COLUMNS][:COLUMNS] for x in domains("test", model.resolution))
        images = torch.cat([a, model.translate(a, "b"), b, model.translate(b, "a")])
    else:
        images = model.sample(ROWS * COLUMNS, seed=0)
    grid = (tile(images, COLUMNS) * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(grid)
    return picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)


def main() -> None:
    panels = [panel(name) for name in zoo.list_weights()]
    gap = 12
    width = sum(p.width for p in panels) + gap * (len(panels) - 1)
    canvas = Image.new("RGB", (width, max(p.height for p in panels)), "white")
    at = 0
    for p in panels:
        canvas.paste(p, (at, 0))
        at += p.width + gap
    OUT.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(OUT, optimize=True)
    print(OUT.relative_to(rows.ROOT), canvas.size)


if __name__ == "__main__":
    main()
