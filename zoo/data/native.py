"""Photographs of many sizes: a prepared file has their encoded bytes at native size, and each is decoded, resized and
cropped when it is read.

Training crops at random, evaluation at the center:

- without ``load`` a stage takes a square of its resolution from the image's own pixels;
- with ``load`` the shorter side is resized to ``load`` pixels first (Lanczos, antialiased), with the other in
  proportion;
- an image whose shorter side is smaller than the square is enlarged until it fits;
- by index (scores, previews) an image is its center square, resized, as in other sets.

The place of a crop is a function of the loader's seed and of the row's position in the order of images, so it does not
depend on the batch size, the number of processes or where a run was resumed. All images of a row are cropped at the
same place, as a fraction of the room that there is.
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts
from zoo.data.fields import Captions, Image
from zoo.data.images import open_picture, square, to_array, to_pil
from zoo.data.store import Blocks, ImageData, open_file, open_tensors, read_header
from zoo.seeds import seed_for

if TYPE_CHECKING:
    import torch
    from PIL import Image as pil

    from zoo.data.loader import Loader

Cut = Callable[["pil.Image"], "pil.Image"]  # an image at native size -> a square of the batch's resolution


class NativeData(ImageData):
    """A prepared file of encoded images, by index: see :class:`zoo.data.store.ImageData`.

    Args:
        facts: with the resolution at which the set is opened.
        columns: the memory-mapped tensors: of an image its bytes ``x`` and ``x.offsets`` [N + 1], other fields.
        hash, path, texts, blocks: as in ImageData.
    """

    def __init__(
        self,
        facts: Facts,
        columns: dict[str, torch.Tensor],
        hash: str,
        path: Path,
        texts: Mapping[str, Captions],
        blocks: Mapping[str, Blocks],
    ):
        super().__init__(facts, {}, hash, path, texts, blocks)
        self.columns = columns
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="zoo-decode")

    def __len__(self) -> int:
        return len(self.columns[f"{self.facts.images[0]}.offsets"]) - 1

    def labels(self, key: str) -> torch.Tensor:
        name, column = self.facts.column(key)
        self.check([name])
        return self.columns[name] if column is None else self.columns[name][:, column]

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """As in ImageData: center squares, resized to the set's resolution."""
        return self._rows(self.facts.keys, indices, [lambda image: square(image, self.resolution)] * len(indices))

    def whole(self, index: int) -> torch.Tensor:
        key = self.facts.images[0]
        field = self.facts.fields[key]
        assert isinstance(field, Image)
        return self._image(key, index, field.channels, lambda image: image)

    def read(self, indices: torch.Tensor, start: int, loader: Loader) -> dict[str, Any]:
        """The rows at positions ``start``, ``start + 1``, ... of a loader's order, cropped at random."""
        side, load = loader.resolution, self.resolution if loader.crop else None

        def cut(position: int) -> Cut:
            generator = random.Random(seed_for(loader.seed, "crop", position))
            place = generator.random(), generator.random()
            return lambda image: crop(image, side, load, place)

        return self._rows(loader.keys, indices, [cut(start + i) for i in range(len(indices))])

    def _rows(self, keys: Iterable[str], indices: torch.Tensor, cuts: list[Cut]) -> dict[str, Any]:
        import torch

        numbers, rows = indices.tolist(), dict[str, Any]()
        for key in keys:
            field = self.facts.fields[key]
            if isinstance(field, Image):
                channels = [field.channels] * len(numbers)
                rows[key] = torch.stack([*self.pool.map(self._image, [key] * len(numbers), numbers, channels, cuts)])
            elif key in self.texts:
                rows[key] = [self.texts[key][i] for i in numbers]
            else:
                self.check([key], indices)
                rows[key] = self.columns[key].index_select(0, indices)
        return rows

    def _image(self, key: str, index: int, channels: int, cut: Cut) -> torch.Tensor:
        """One image of one row: uint8 [C, R, R]. Raises OSError if it cannot be decoded."""
        import torch

        start, end = self.columns[f"{key}.offsets"][index : index + 2].tolist()
        self.check([key], slice(start, end))
        content = self.columns[key][start:end].numpy().tobytes()
        try:
            image = to_pil(open_picture(io.BytesIO(content)), channels)
        except Exception as error:  # Pillow's decoders raise many kinds
            raise OSError(f"{self.path}: {key} of row {index} can't be decoded: {error}") from error
        return torch.from_numpy(to_array(cut(image)))


def open_prepared(path: Path, resolution: int | None) -> ImageData:
    """Memory-map a prepared file; ``resolution``: of a batch's images if they are stored at native size. Raises
    ValueError if it is missing; OSError if the file is damaged."""
    if read_header(path)[0].resolution is not None:
        return open_file(path)
    facts, hash, blocks, texts = open_tensors(path)
    if not resolution:
        raise ValueError(f"{facts.name} has images of many sizes: give a resolution, such as 64 or 128")
    for key in facts.images:
        blocks[f"{key}.offsets"].check()
    columns = {name: column.value for name, column in blocks.items()}
    return NativeData(dataclasses.replace(facts, resolution=resolution), columns, hash, path, texts, blocks)


def crop(image: pil.Image, side: int, load: int | None, place: tuple[float, float]) -> pil.Image:
    """A square of ``side`` pixels. ``load``: resize the shorter side to it first; None: only images that are too small
    are resized. ``place``: of its left and top corner, each in [0, 1) of the room that there is."""
    from PIL import Image as pil

    shorter = min(image.size)
    target = max(load or shorter, side)
    if target != shorter:
        width, height = (max(target, round(n * target / shorter)) for n in image.size)
        image = image.resize((width, height), pil.Resampling.LANCZOS)
    left, top = (int(p * (n - side + 1)) for p, n in zip(place, image.size, strict=True))
    return image.crop((left, top, left + side, top + side))
