"""Pictures: grids of images and scatter plots of points as PNG, walks as GIF and MP4."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.files import beside

if TYPE_CHECKING:
    from PIL.Image import Image

VIDEO = (".mp4",)
FRAMES = 20  # of a walk, a second
BORDER = 2  # white pixels around each image of a grid
CANVAS = 256  # width and height of a plot of points
MAX_PIXELS = 100_000_000  # of a picture that `zoo sample` makes of several images, or enlarges


def grid_size(width: int, height: int, rows: int, columns: int) -> tuple[int, int]:
    """Width and height of a grid of images of one size."""
    return columns * (width + BORDER) + BORDER, rows * (height + BORDER) + BORDER


def tile(images: Tensor, columns: int) -> Tensor:
    """[N, C, H, W] -> [3, rows * (H + 2) + 2, columns * (W + 2) + 2], ``BORDER`` white pixels around each image. As
    torchvision's ``make_grid``, whose import alone takes two seconds."""
    images = images.clamp(0, 1)
    n, _, height, width = images.shape
    columns = min(columns, n)
    across, down = grid_size(width, height, -(-n // columns), columns)
    grid = images.new_ones(3, down, across)
    for i, image in enumerate(images):
        top, left = i // columns * (height + BORDER) + BORDER, i % columns * (width + BORDER) + BORDER
        grid[:, top : top + height, left : left + width] = image
    return grid


def grid_picture(images: Tensor, columns: int | None = None) -> Image:
    """Images [N, C, H, W] in [0, 1], or points [N, D], as one picture. ``columns``: by default about as many as
    rows."""
    from PIL import Image, ImageDraw

    if images.dim() > 2:
        grid = tile(images, columns or math.ceil(math.sqrt(len(images))))
        return Image.fromarray((grid * 255 + 0.5).byte().permute(1, 2, 0).numpy())
    canvas = Image.new("RGB", (CANVAS, CANVAS), "white")  # a scatter plot (one dimension: a histogram) over [-4, 4]
    draw = ImageDraw.Draw(canvas)
    positions = ((images.clamp(-4, 4) + 4) / 8 * 255).tolist()
    if images.shape[1] == 1:
        counts = torch.histc(images, 128, -4, 4)
        for i, h in enumerate((counts / counts.max().clamp(min=1) * 250).tolist()):
            draw.rectangle((2 * i, 255 - h, 2 * i + 1, 255), fill="black")
    else:
        for u, v, *_ in positions:
            draw.point((u, 255 - v), fill="black")
    return canvas


def write_grid(path: Path, images: Tensor, columns: int, scale: int = 1) -> None:
    """Images [N, C, H, W] in [0, 1], or points [N, D], as one PNG, ``scale`` times as large."""
    write(magnified(grid_picture(images, columns), scale), path, "PNG")


def to_picture(image: Tensor, scale: int = 1) -> Image:
    """[C, H, W] in [0, 1] -> a picture, ``scale`` times as large."""
    from PIL import Image

    array = (image.cpu() * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    return magnified(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array), scale)


def magnified(image: Image, scale: int) -> Image:
    """The picture with each pixel ``scale`` times as wide and high."""
    from PIL.Image import Resampling

    return image if scale == 1 else image.resize((image.width * scale, image.height * scale), Resampling.NEAREST)


def save(image: Image, path: Path, **options: object) -> None:
    """Write the picture atomically, so that a file that exists is complete."""
    from PIL import Image

    write(image, path, Image.registered_extensions()[path.suffix.lower()], **options)


def write(image: Image, path: Path, form: str, **options: object) -> None:
    """As :func:`save`, in a format of Pillow. (Its own writers do not say that a disk is full.)"""
    content = io.BytesIO()
    image.save(content, format=form, **options)
    with beside(path) as partial:
        partial.write_bytes(content.getbuffer())


def write_walk(path: Path, frames: Iterable[Image]) -> None:
    """Pictures of one size as a GIF that repeats or, if the path ends in .mp4, as a video (H.264). Raises ValueError if
    the package for videos is missing."""
    if path.suffix.lower() in VIDEO:
        write_video(path, frames)
        return
    first, *rest = frames
    save(first, path, save_all=True, append_images=rest, duration=1000 // FRAMES, loop=0)


def write_video(path: Path, frames: Iterable[Image]) -> None:
    """As :func:`write_walk`, an MP4. A side that is odd grows by a pixel, since the format needs even ones."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ValueError(
            f'--out {path}: needs the package imageio-ffmpeg (pip install ".[video]" in the folder of the zoo)'
        ) from None
    frames = iter(frames)
    first = next(frames).convert("RGB")
    size = (first.width, first.height)
    with beside(path) as partial:
        writer = imageio_ffmpeg.write_frames(str(partial), size, fps=FRAMES, quality=8, macro_block_size=2)
        writer.send(None)  # start the encoder
        writer.send(first.tobytes())
        for frame in frames:
            writer.send(frame.convert("RGB").tobytes())
        writer.close()
