"""README's picture: what the shipped weights make, docs/images/readme.png.

    python benchmarks/picture.py

Samples have seeds 0, 1, 2, ...: nothing is chosen by hand. Translators show held-out emoji above their translations.
"""

from __future__ import annotations

import rows
import torch
from pairs import domains
from PIL import Image, ImageDraw, ImageFont

import zoo
from zoo.pictures import tile

OUT, SCALE, ROWS, COLUMNS = rows.ROOT / "docs" / "images" / "readme.png", 2, 4, 8
ACROSS, GAP, CAPTION = 3, 12, 20  # panels side by side; pixels


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
    names = zoo.list_weights()
    panels = [panel(name) for name in names]
    across = min(ACROSS, len(panels))
    width, height = max(p.width for p in panels), max(p.height for p in panels) + CAPTION
    rows_ = -(-len(panels) // across)
    canvas = Image.new("RGB", (across * (width + GAP) - GAP, rows_ * (height + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(CAPTION - 6)
    for i, (name, p) in enumerate(zip(names, panels, strict=True)):
        left, top = i % across * (width + GAP), i // across * (height + GAP)
        draw.text((left, top), name, fill="black", font=font)
        canvas.paste(p, (left, top + CAPTION))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(OUT, optimize=True)
    print(OUT.relative_to(rows.ROOT), canvas.size)


if __name__ == "__main__":
    rows.run(main)
