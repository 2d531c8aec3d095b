"""Sets of images to be scored: streams of uint8, never all at once.

All images, generated and real, are rounded to uint8 first, as in a PNG.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

from zoo.data.folder import OPTIONS, Folder, open_folder, parse_options
from zoo.data.images import square, to_array
from zoo.data.layout import Item
from zoo.data.store import ImageData

CHUNK = 100  # images in one pass of a feature network, whatever pieces they come in
PATCH = 32  # pixels of a side of a patch
READ = 1000  # images read from a data set at once
ROUNDING = 1e-3  # by which a generated image may be below black or above white


class Sampler(Protocol):
    """Anything that generates images."""

    @property
    def iter_samples(self) -> Callable[..., Iterator[Tensor]]:
        """``iter_samples(n, seed=, chunk=)``: n images, float [<= chunk, C, H, W] in [0, 1] at a time."""
        ...


@dataclass(frozen=True)
class Images:
    """``count`` images in a fixed order.

    ``stream``: called for each pass, yields uint8 [n, C, H, W] with any n; in a folder H and W may differ from piece to
    piece. ``fewer``: so many of them, without generating all.
    """

    count: int
    stream: Callable[[], Iterator[Tensor]]
    fewer: Callable[[int], Images]

    def chunks(self, size: int = CHUNK) -> Iterator[Tensor]:
        """The images in pieces of ``size`` (fewer before a change of shape and at the end), so that rounding does not
        depend on how they are read."""
        pieces: list[Tensor] = []
        for x in self.stream():
            if pieces and x.shape[1:] != pieces[0].shape[1:]:
                yield torch.cat(pieces)
                pieces = []
            pieces.append(x)
            if sum(map(len, pieces)) >= size:
                *whole, rest = torch.cat(pieces).split(size)
                yield from whole
                pieces = [rest]
        if pieces:
            yield torch.cat(pieces)

    def content(self) -> str:
        """SHA-256 of shapes and bytes, in hexadecimal."""
        digest = hashlib.sha256()
        for x in self.chunks(READ):
            digest.update(f"{list(x.shape)}".encode())
            digest.update(x.contiguous().numpy().data)
        return digest.hexdigest()

    def at_most(self, count: int) -> Images:
        """These images, or ``count`` of them if there are more."""
        return self if self.count <= count else self.fewer(count)

    def map(self, change: Callable[[Tensor], Tensor]) -> Images:
        """The images after ``change``, a function of uint8 [n, C, H, W]."""
        return Images(self.count, lambda: map(change, self.stream()), lambda n: self.fewer(n).map(change))


def spread(total: int, count: int) -> Tensor:
    """``count`` of the numbers 0 ... total - 1, evenly spread; all if there are fewer: int64 [<= count]."""
    return torch.arange(min(total, count)) * total // min(total, count)


def quantize(x: Tensor) -> Tensor:
    """Float [n, C, H, W] in [0, 1] -> uint8 on the CPU, rounded half up as in a PNG. Raises RuntimeError for NaN or
    Inf."""
    if not x.isfinite().all():
        raise RuntimeError("a generated image contains NaN or Inf")
    return (x * 255 + 0.5).clamp_(0, 255).byte().cpu()


def check_range(x: Tensor) -> Tensor:
    """The same images. Raises ValueError unless they are float in [0, 1], up to rounding, or not finite."""
    if not x.is_floating_point():
        raise ValueError(f"generated images: must be float in [0, 1], got {x.dtype}")
    if (x.isfinite() & ((x < -ROUNDING) | (x > 1 + ROUNDING))).any():
        raise ValueError(f"generated images: must be from 0 to 1, got [{x.min():.3g}, {x.max():.3g}]")
    return x


def pass_size(model: Any, chunk: int) -> int:
    """Images in one pass of a generator: ``chunk``, unless it samples with the statistics of a number of its own."""
    return getattr(getattr(model, "sampling", None), "together", None) or chunk


def from_sampler(
    model: Sampler, n: int, seed: int, y: list[int] | list[str] | None = None, chunk: int = 50, to: str | None = None
) -> Images:
    """n images of anything that has ``iter_samples`` as a Model has it.

    Args:
        model: The sampler.
        n: Images.
        seed: Of the first image.
        y: The class or text of each image; without it the argument is not passed.
        chunk: Images in one pass of the generator, unless its recipe has a number.
        to: Of several domains the one; without it the argument is not passed.
    """
    options: dict[str, object] = {} if to is None else {"to": to}
    size = pass_size(model, chunk)
    if y is not None:
        options["y"] = y

    def stream() -> Iterator[Tensor]:
        return (quantize(check_range(x)) for x in model.iter_samples(n, seed=seed, chunk=size, **options))

    return Images(n, stream, lambda k: from_sampler(model, k, seed, y and y[:k], chunk, to))


def from_data(data: ImageData, rows: Tensor | None = None, whole: bool = False) -> Images:
    """The images of a data set, or those of some ``rows`` (int64). Labels are not read if they are arrays of their
    own. ``whole``: photographs at native size, without a cut to their center square."""
    indices = torch.arange(len(data)) if rows is None else rows

    def stream() -> Iterator[Tensor]:
        if whole:
            yield from (data.whole(index)[None] for index in indices.tolist())
            return
        for part in indices.split(READ):
            yield data.arrays["x"].index_select(0, part) if data.stored else data.rows(part)["x"]

    return Images(len(indices), stream, lambda k: from_data(data, indices[spread(len(indices), k)], whole))


def from_folder(
    path: str | Path, channels: int, split: str | None = None, whole: bool = False
) -> tuple[Images, list[Item]]:
    """The images of a folder (of a split, by default of all), in their order and, unless ``whole``, as squares, and
    their files. ``path``: with the options of ``folder:PATH``. Raises ValueError for a folder without images, and for
    an unreadable file when it is read, if the folder's options do not leave it out."""
    name = str(path).removeprefix("folder:")
    options = parse_options(f"folder:{name}", tuple(OPTIONS))[1]
    more = "" if "channels" in options else f"{'&' if options else '?'}channels={channels}"
    folder = open_folder(f"folder:{name}{more}")
    items = [item for part, rows in folder.items.items() if split in (None, part) for item in rows]
    if folder.skip:
        items = [item for item in items if readable(folder, item)]

    def images_of(items: list[Item]) -> Images:
        def stream() -> Iterator[Tensor]:
            for item in items:
                try:
                    image = folder.image(item)
                    image = image if whole else square(image, None, folder.fit)
                except ValueError as error:
                    raise ValueError(f"{item.file}: not a readable image ({error}); repair or remove it, or leave it "
                                     f"out with {folder.name}?skip=corrupt") from None  # fmt: skip
                yield torch.from_numpy(to_array(image))[None]

        return Images(len(items), stream, lambda k: images_of([items[i] for i in spread(len(items), k)]))

    return images_of(items), items


def readable(folder: Folder, item: Item) -> bool:
    try:
        folder.image(item)
    except ValueError:
        return False
    return True


def pad_to(side: int) -> Callable[[Tensor], Tensor]:
    """A function that puts black borders around smaller images, as the loader does."""

    def pad(x: Tensor) -> Tensor:
        before = (side - x.shape[-1]) // 2
        after = side - x.shape[-1] - before
        return torch.nn.functional.pad(x, (before, after, before, after))

    return pad


def count_patches(images: Images) -> int:
    """How many patches :func:`cut_patches` makes of images."""
    return sum(len(x) * (x.shape[2] // PATCH) * (x.shape[3] // PATCH) for x in images.stream())


def cut_patches(images: Images, count: int) -> Images:
    """The images of any size cut into ``count`` squares of ``PATCH`` pixels, uint8 [n, C, PATCH, PATCH], side by side
    from the upper left corner; what remains at the right and below is left out."""

    def stream() -> Iterator[Tensor]:
        for x in images.stream():
            height, width = (side // PATCH * PATCH for side in x.shape[-2:])
            if height and width:
                yield rearrange(x[..., :height, :width], "n c (h p) (w q) -> (n h w) c p q", p=PATCH, q=PATCH)

    def fewer(count: int) -> Images:
        raise ValueError("patches: all of them are compared")

    return Images(count, stream, fewer)
