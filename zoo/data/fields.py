"""Typed fields: what a row of a data set consists of, how it is stored and what it is in a batch. Needs no torch.

    fields={"x": Image(3, 148), "attributes": Attributes(("Smiling", "Young"))}

| field | in a row | stored | in a batch |
|---|---|---|---|
| Image | PIL, or uint8 [H, W] or [H, W, C] | uint8 [N, C, H, W] | float32 [n, C, H, W] |
| Label | a whole number, -1 for "no label" | int64 [N] | int64 [n] |
| Attributes | K numbers, each 0 or 1 | uint8 [N, K] | int64 [n, K] |
| Text | a string, or several | UTF-8 bytes and offsets | n strings, one of each row |
| Vector | K numbers | float32 [N, K] | float32 [n, K] |
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from zoo.data.images import is_gray
from zoo.registry import nearest

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Image:
    """An image. ``size``: side of the squares in pixels; None if they have many sizes. All images of a row are cropped
    and mirrored together."""

    channels: int
    size: int | None = None


@dataclass(frozen=True)
class Label:
    """One class of several. ``names``: of the classes; () if they have none."""

    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attributes:
    """Several properties, each 0 or 1. ``names``: of the properties, in the order of the columns."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """Captions. ``captions``: the number of captions of a row; a batch has one of them, drawn at random."""

    captions: int = 1


@dataclass(frozen=True)
class Vector:
    """``n`` real numbers: a point, an embedding. ``of``: the Text field whose captions have one each; a batch has that
    of its caption, or the ``mean`` of so many captions, of its own and of others of the row."""

    n: int
    of: str = ""
    mean: int = 1


Field = Image | Label | Attributes | Text | Vector
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Image, Label, Attributes, Text, Vector)}


def encode(field: Field) -> dict[str, Any]:
    """A field as plain JSON values."""
    return {"kind": type(field).__name__, **dataclasses.asdict(field)}


def decode(value: Mapping[str, Any]) -> Field:
    """The inverse of :func:`encode`. Raises ValueError for an unknown kind."""
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k != "kind"}
    if value["kind"] not in KINDS:
        raise ValueError(f"unknown kind of field '{value['kind']}'{nearest(str(value['kind']), KINDS)}")
    field: Field = KINDS[value["kind"]](**arguments)
    return field


def describe(field: Field) -> str:
    """A field in a few words: ``image 3x64x64``, ``10 classes``."""
    if isinstance(field, Image):
        return f"image {field.channels}x{field.size}x{field.size}" if field.size else f"image {field.channels}x?x?"
    if isinstance(field, Label):
        return f"{len(field.names)} classes" if field.names else "label"
    if isinstance(field, Attributes):
        return f"{len(field.names)} attributes"
    if isinstance(field, Text):
        return "caption" if field.captions == 1 else f"{field.captions} captions"
    return f"vector of {field.n}"


def infer(value: Any) -> Field:
    """The field of one value of a row: a string is Text, an array of two or three dimensions an Image, whole numbers
    are a Label or Attributes, other numbers a Vector. Raises ValueError for anything else."""
    import numpy as np
    from PIL import Image as PilImage

    if isinstance(value, str):
        return Text()
    if isinstance(value, (list, tuple)) and value and all(isinstance(text, str) for text in value):
        return Text(len(value))
    if isinstance(value, PilImage.Image):
        return Image(1 if is_gray(value) else 3)
    array = np.asarray(value)
    if array.dtype.kind not in "iubf":
        raise ValueError(f"a field must be an image, text or numbers, got a {type(value).__name__}")
    if array.ndim > 1:
        return Image(1 if array.ndim == 2 or 1 in (array.shape[0], array.shape[-1]) else 3)
    if array.dtype.kind == "f":
        return Vector(array.size)
    return Attributes(tuple(map(str, range(array.size)))) if array.ndim else Label()


def pack(key: str, field: Field, values: Sequence[Any]) -> np.ndarray:
    """The column of a field that is made of numbers, as it is stored.

    Raises ValueError if a value does not fit: no number is rounded or cut to the field's type.
    """
    import numpy as np

    try:
        array = np.asarray(values)
        whole = array.dtype.kind in "iub"
    except ValueError:
        raise ValueError(f"{key}: all rows must have equally many numbers") from None
    if array.dtype.kind not in "iubf":
        raise ValueError(f"{key}: must be numbers, got {array.dtype}")
    if isinstance(field, Vector):
        array = array.reshape(len(values), -1)
        if array.shape[1] != field.n:
            raise ValueError(f"{key}: must be {field.n} numbers a row, got {array.shape[1]}")
        return np.ascontiguousarray(array, dtype="<f4")
    if not whole:
        raise ValueError(f"{key}: must be whole numbers, got {array.flat[0]}; declare real numbers as a Vector")
    if isinstance(field, Attributes):
        if array.ndim != 2 or array.shape[1] != len(field.names):
            raise ValueError(f"{key}: must be {len(field.names)} attributes a row, got {list(array.shape[1:])}")
        if array.size and (array.min() < 0 or array.max() > 1):
            raise ValueError(f"{key}: attributes must be 0 or 1, got [{array.min()}, {array.max()}]")
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.ndim != 1:
        raise ValueError(f"{key}: must be one label a row, got {list(array.shape[1:])}")
    return np.ascontiguousarray(array, dtype="<i8")


class Captions(Sequence[tuple[str, ...]]):
    """The captions of each row, of any number and length: UTF-8 bytes and offsets into them, which may be
    memory-mapped.

    Args:
        content: all captions, one after the other, uint8 [bytes].
        offsets: the first byte of each caption, and the end, int64 [captions + 1].
        rows: the first caption of each row, and the end, int64 [N + 1].
        check: called with the range of the bytes that are about to be read; it raises OSError if they are damaged.
    """

    def __init__(
        self,
        content: torch.Tensor,
        offsets: torch.Tensor,
        rows: torch.Tensor,
        check: Callable[[slice], None] | None = None,
    ):
        self.content, self.offsets, self.rows, self.check = content, offsets, rows, check

    def __len__(self) -> int:
        return len(self.rows) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[str, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        first, last = self.rows[index % len(self)].item(), self.rows[index % len(self) + 1].item()
        ends = self.offsets[first : last + 1].tolist()
        if self.check and ends[-1] > ends[0]:
            self.check(slice(ends[0], ends[-1]))
        return tuple(self.content[a:b].numpy().tobytes().decode() for a, b in itertools.pairwise(ends))


def pack_text(key: str, values: Sequence[str | Sequence[str]]) -> dict[str, np.ndarray]:
    """The tensors of a Text field as they are stored: the arguments of :class:`Captions` under ``key``,
    ``key.offsets`` and ``key.rows``. Raises ValueError for a value that is no text."""
    import numpy as np

    rows, texts = [0], []
    for value in values:
        captions = [value] if isinstance(value, str) else list(value)
        for text in captions:
            if not isinstance(text, str):
                raise ValueError(f"{key}: must be text, got a {type(text).__name__}")
            texts.append(text.encode())
        rows.append(len(texts))
    content = np.frombuffer(b"".join(texts), np.uint8).copy()
    offsets = np.cumsum([0, *map(len, texts)], dtype="<i8")
    return {key: content, f"{key}.offsets": offsets, f"{key}.rows": np.asarray(rows, "<i8")}
