"""One image of any kind to PIL and to uint8 [C, H, W]: alpha over white, center crop, antialiased resize.

This is the project's only reader of images, so that a file looks the same in training, in scores and to a model:

    to_array(square(read("photo.jpg", 3), 64))    # uint8 [3, 64, 64]
    to_array(to_pil(image, 1)) / 255              # [1, H, W] in [0, 1], at the image's own size
"""

from __future__ import annotations

import io
import os
import re
import warnings
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
}  # fmt: skip
FITS = ("crop", "pad", "stretch")  # how an image that is no square becomes one
Range = tuple[float, float]  # the values of black and white

# Of Pillow's formats those that it decodes itself: for others it starts programs (EPS), whatever the file's ending.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 1 << 26  # of an image, decoded: a file of a few kilobytes can claim billions


def open_picture(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """An image file, not decoded yet. Raises ValueError if it has more than ``MAX_PIXELS`` pixels; the exceptions of
    Pillow if it is none of ``FORMATS``."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            Image.init()
            image = Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
        except Image.DecompressionBombError:
            raise ValueError(f"an image that must have at most {MAX_PIXELS:,} pixels, and has many more") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ValueError(f"an image of {width}x{height} pixels; must have at most {MAX_PIXELS:,}")
    return image


class DataWarning(UserWarning):
    """Something about a data set that is probably not as its owner expects."""


def read(
    source: str | os.PathLike[str] | bytes, channels: int, range: Range | None = None, transparent: bool = False
) -> Image.Image:
    """An image file, or its bytes, as :func:`to_pil` makes it; with ``transparent`` a transparent one as RGBA. Raises
    ValueError in a few words if it is not an image that can be read."""
    from PIL import ImageOps

    try:
        with open_picture(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if transparent and is_transparent(image):
                return ImageOps.exif_transpose(image).convert("RGBA")
            return to_pil(image, channels, range)
    except Exception as error:  # Pillow's decoders raise many kinds
        text = re.sub(r" ?<[^<>]*BytesIO object at \w+>", "", " ".join(str(error).split()))
        raise ValueError(text[:300] or type(error).__name__) from error


def is_gray(image: Image.Image) -> bool:
    """Whether an image has no colors, by its mode."""
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def is_transparent(image: Image.Image) -> bool:
    """Whether a pixel of an image is not opaque. False for modes of more than 8 bits: what PNG calls a transparent gray
    value of them is not read."""
    if image.mode.startswith("I") or image.mode == "F":
        return False
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return False
    return image.convert("RGBA").getchannel("A").tobytes().count(255) < image.width * image.height


def to_pil(image: Image.Image | np.ndarray, channels: int, range: Range | None = None) -> Image.Image:
    """An image as PIL of mode L (``channels`` 1) or RGB (``channels`` 3), of the same size.

    Transparent images (modes RGBA, LA, PA and those with a transparent color) are composited over white, 16-bit gray is
    scaled to 8 bits, and the camera's orientation tag is applied. The input is not changed.

    Args:
        image: PIL of any mode, or a uint8 array [H, W] or [H, W, C].
        channels: of the result.
        range: the values of black and white of images of more than 8 bits; by default 0 and 65,535 for 16 bits.

    Raises ValueError for whole numbers of 32 bits and real numbers without ``range``: nothing says which value is
    white.
    """
    import numpy as np
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":  # PIL would clip them at 255
        values = np.asarray(image, dtype=np.float64)
        if range is None and not sixteen:
            kind = "real numbers" if image.mode == "F" else "whole numbers of 32 bits"
            least, most = (f"{value:.6g}" for value in (values.min(), values.max()))
            raise ValueError(f"its pixels are {kind} from {least} to {most}, and nothing says which are black and "
                             f"white: give the range, folder:PATH?range={least},{most}")  # fmt: skip
        low, high = range or (0.0, 65_535.0)
        image = Image.fromarray(((values - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8))
    if is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def square(image: Image.Image, resolution: int | None, fit: str = "crop") -> Image.Image:
    """``image`` as a square, resized with Lanczos (antialiased) to ``resolution`` pixels a side; None keeps its size.

    ``fit``: what becomes of an image that is no square: ``crop``, its center square; ``pad``, black borders;
    ``stretch``, its proportions change.
    """
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    if width != height and fit == "pad":
        side = max(width, height)
        padded = Image.new(image.mode, (side, side))
        padded.paste(image, ((side - width) // 2, (side - height) // 2))
        image = padded
    elif width != height and fit == "stretch":
        side = resolution or side
        return image.resize((side, side), Image.Resampling.LANCZOS)
    elif width != height:
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if resolution is not None and side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return image


def fit_sentence(fit: str, remedy: str) -> str:
    """What becomes of images that are no squares, in words. ``remedy``: the option that changes it."""
    how = {
        "crop": f"cut to their center square ({remedy})",
        "pad": "padded with black to squares",
        "stretch": "stretched to squares",
    }
    return f"images that are no squares are {how[fit]}"


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
