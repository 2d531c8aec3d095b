"""Pictures: grids of images and scatter plots of points, as PNG."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from zoo.files import beside


def tile(images: Tensor, columns: int) -> Tensor:
    """[N, C, H, W] -> [3, rows * (H + 2) + 2, columns * (W + 2) + 2], two white pixels around each image. As
    torchvision's ``make_grid``, whose import alone takes two seconds."""
    images = images.clamp(0, 1)
    n, _, height, width = images.shape
    columns = min(columns, n)
    grid = images.new_ones(3, -(-n // columns) * (height + 2) + 2, columns * (width + 2) + 2)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 2) + 2, i % columns * (width + 2) + 2
        grid[:, top : top + height, left : left + width] = image
    return grid


def write_grid(path: Path, images: Tensor, columns: int) -> None:
    """Images [N, C, H, W] in [0, 1], or points [N, D], as one PNG."""
    from PIL import Image, ImageDraw

    if images.dim() == 2:  # points: a scatter plot (one dimension: a histogram) over [-4, 4]
        canvas = Image.new("RGB", (256, 256), "white")
        draw = ImageDraw.Draw(canvas)
        positions = ((images.clamp(-4, 4) + 4) / 8 * 255).tolist()
        if images.shape[1] == 1:
            counts = torch.histc(images, 128, -4, 4)
            for i, h in enumerate((counts / counts.max().clamp(min=1) * 250).tolist()):
                draw.rectangle((2 * i, 255 - h, 2 * i + 1, 255), fill="black")
        else:
            for u, v, *_ in positions:
                draw.point((u, 255 - v), fill="black")
    else:
        canvas = Image.fromarray((tile(images, columns) * 255 + 0.5).byte().permute(1, 2, 0).numpy())

    with beside(path) as partial:
        canvas.save(partial, format="PNG")
