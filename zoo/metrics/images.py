"""Sets of images on their way to a score: streams of uint8, never all at once.

Whatever is scored is rounded to uint8 first, as a PNG would be: generated and real images alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.folder import Folder
from zoo.data.images import square, to_array
from zoo.data.store import ImageData

CHUNK = 100  # images that go through a network at once, whatever their source hands over
READ = 1000  # images read from a data set at once


@dataclass(frozen=True)
class Images:
    """``count`` images in a fixed order. ``stream``: called for each pass, yields uint8 [n, C, H, W] with n as the source
    likes it; the sizes of a folder's images may differ between its pieces. ``fewer``: that many of them, for scores that want no
    more, without making all."""

    count: int
    stream: Callable[[], Iterator[Tensor]]
    fewer: Callable[[int], Images]

    def chunks(self, size: int = CHUNK) -> Iterator[Tensor]:
        """The images in pieces of ``size`` (fewer before a change of shape and at the end), so that how they are read does
        not change how they round."""
        holdout: list[Tensor] = []
        for x in self.stream():
            if holdout and x.shape[1:] != holdout[0].shape[1:]:
                yield torch.cat(holdout)
                holdout = []
            holdout.append(x)
            if sum(map(len, holdout)) >= size:
                *whole, rest = torch.cat(holdout).split(size)
                yield from whole
                holdout = [rest]
        if holdout:
            yield torch.cat(holdout)

    def content(self) -> str:
        """SHA-256 of shapes and bytes, in hexadecimal."""
        found = hashlib.sha256()
        for x in self.chunks(READ):
            found.update(f"{list(x.shape)}".encode())
            found.update(x.contiguous().numpy())
        return found.hexdigest()

    def at_most(self, count: int) -> Images:
        """These images, or ``count`` of them where there are more."""
        return self if self.count <= count else self.fewer(count)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Images:
        return Images(self.count, lambda: map(change, self.stream()), lambda n: self.fewer(n).mapped(change))


def spread(total: int, count: int) -> Tensor:
    """``count`` of the numbers 0 ... total - 1, evenly spread; all where there are fewer: int64 [<= count]."""
    return torch.arange(min(total, count)) * total // min(total, count)


def quantized(x: Tensor) -> Tensor:
    """Float [n, C, H, W] in [0, 1] -> uint8 on the CPU, rounded half up as in a PNG. RuntimeError at a NaN."""
    if not x.isfinite().all():
        raise RuntimeError("a generated image holds NaN or Inf: there is nothing to score")
    return (x * 255 + 0.5).clamp_(0, 255).byte().cpu()


def from_sampler(model: Any, n: int, seed: int, y: list[int] | None = None, chunk: int = 50, **which: str) -> Images:
    """n images of anything that has ``iter_samples`` as a Model has it. ``which``: further arguments of it."""
    given = which if y is None else {**which, "y": y}

    def stream() -> Iterator[Tensor]:
        return map(quantized, model.iter_samples(n, seed=seed, chunk=chunk, **given))

    return Images(n, stream, lambda k: from_sampler(model, k, seed, y and y[:k], chunk, **which))


def from_data(data: ImageData, rows: Tensor | None = None) -> Images:
    """The images of a data set, or those of some ``rows`` (int64). Labels are not read where the set holds them apart."""
    rows = torch.arange(len(data)) if rows is None else rows

    def stream() -> Iterator[Tensor]:
        for some in rows.split(READ):
            yield data.arrays["x"].index_select(0, some) if data.arrays else data.rows(some)["x"]

    return Images(len(rows), stream, lambda k: from_data(data, rows[spread(len(rows), k)]))


def from_folder(path: str | Path, channels: int, split: str | None = None) -> tuple[Images, list[Path]]:
    """The images under a folder (of a split, by default of all), sorted by path and cut to their center square, and their
    files. ValueError for a folder without images; a file that can't be read is named when its turn comes."""
    name = str(path).removeprefix("folder:")
    folder = Folder(f"folder:{name}" + ("" if "?" in name else f"?channels={channels}"))

    def some(files: list[Path]) -> Images:
        def stream() -> Iterator[Tensor]:
            for file in files:
                try:
                    image = folder.read(file)
                except Exception as error:  # Pillow's decoders raise many kinds
                    said = " ".join(str(error).split())[:80]
                    raise ValueError(f"{file}: not a readable image ({said}); repair or remove it") from None
                yield torch.from_numpy(to_array(square(image, None)))[None]

        return Images(len(files), stream, lambda k: some([files[i] for i in spread(len(files), k)]))

    files = [file for part, inside in folder.files.items() if split in (None, part) for file in inside]
    return some(files), files


def padded(side: int) -> Callable[[Tensor], Tensor]:
    """Black borders around smaller images, as the loader lays them."""

    def pad(x: Tensor) -> Tensor:
        before = (side - x.shape[-1]) // 2
        after = side - x.shape[-1] - before
        return torch.nn.functional.pad(x, (before, after, before, after))

    return pad
