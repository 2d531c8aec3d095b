"""One image of any kind to PIL and to uint8 [C, H, W]: alpha over white, center crop, antialiased resize.

This is the project's only reader of PIL images, so that a file looks the same in training, in scores and to a model:

    to_array(square(to_pil(open_picture(path), 3), 64))  # uint8 [3, 64, 64]
    to_array(to_pil(image, 1)) / 255                     # [1, H, W] in [0, 1], at the image's own size
"""

from __future__ import annotations

import io
import os
import warnings
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

# Of Pillow's formats those that it decodes itself: for others it starts programs (EPS), whatever the file's ending.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 1 << 26  # of an image, decoded: a file of a few kilobytes can claim billions


def open_picture(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """An image file, not decoded yet. Raises ValueError if it has more than ``MAX_PIXELS`` pixels; the exceptions of
    Pillow if it is none of ``FORMATS``."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(source, formats=FORMATS)
        except Image.DecompressionBombError:
            raise ValueError(f"an image that must have at most {MAX_PIXELS:,} pixels, and has many more") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ValueError(f"an image of {width}x{height} pixels; must have at most {MAX_PIXELS:,}")
    return image


def to_pil(image: Image.Image | np.ndarray, channels: int) -> Image.Image:
    """An image as PIL of mode L (``channels`` 1) or RGB (``channels`` 3), of the same size.

    ``image``: PIL of any mode, or a uint8 array [H, W] or [H, W, C]. Transparent images (modes RGBA, LA, PA and those
    with a transparent color) are composited over white, 16-bit gray is scaled to 8 bits, and the camera's orientation
    tag is applied. The input is not changed.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit gray, which PIL would clip at 255
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def square(image: Image.Image, resolution: int | None) -> Image.Image:
    """The center square of ``image``, resized with Lanczos (antialiased) to ``resolution`` pixels a side; None keeps
    its size."""
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    if width != height:
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if resolution is not None and side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return image


def to_array(image: Image.Image) -> np.ndarray:
    """PIL of mode L or RGB to a contiguous uint8 array [C, H, W]."""
    import numpy as np

    array = np.array(image, dtype=np.uint8)  # a copy: Pillow's own memory is read-only
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def to_bytes(image: Any, channels: int) -> bytes:
    """An image as the bytes of a file: those of a JPEG, PNG or WebP file as they are, anything else as PNG."""
    if isinstance(image, bytes):
        return image
    content = io.BytesIO()
    to_pil(image, channels).save(content, "PNG", compress_level=1)
    return content.getvalue()
