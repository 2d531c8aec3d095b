"""A user's own objects as data sets: image tensors and map-style torch Datasets."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, MapDataset
from zoo.data.fields import Field, Image, Label, Text, infer, pack
from zoo.data.images import square, to_array, to_pil
from zoo.data.store import ImageData

if TYPE_CHECKING:
    import torch


def from_object(dataset: torch.Tensor | MapDataset, resolution: int | None = None) -> ImageData:
    """An image tensor [N, C, H, W] or a map-style Dataset as ImageData.

    Images are uint8, or float in [0, 1]; they are cropped to their center square and resized to ``resolution`` pixels a
    side, by default their own. Raises ValueError for anything else.
    """
    import torch

    if isinstance(dataset, torch.Tensor):
        return _from_tensor(dataset, resolution)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return DatasetData(dataset, resolution)
    raise ValueError(
        "a data set must be a name, folder:PATH, shards:PATTERN, a map-style Dataset or a tensor [N, C, H, W], "
        f"got a {type(dataset).__name__}"
    )


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """uint8, or float in [0, 1], to uint8 of the same shape. Raises ValueError for other types and values."""
    import torch

    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or float in [0, 1], got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"float images must be in [0, 1], got [{low:.3g}, {high:.3g}]")
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)


def _fit(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """uint8 [N, C, H, W] to center squares [N, C, R, R], resized with PIL as in prepared files."""
    import torch

    height, width = images.shape[-2:]
    side = min(height, width)
    if height != width:
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side].contiguous()
    if resolution is None or resolution == side:
        return images
    resized = torch.empty(len(images), images.shape[1], resolution, resolution, dtype=torch.uint8)
    for i, image in enumerate(images):
        pil = to_pil(image.permute(1, 2, 0).cpu().numpy(), len(image))  # from [H, W, C]
        resized[i] = torch.from_numpy(to_array(square(pil, resolution)))
    return resized


def _from_tensor(images: torch.Tensor, resolution: int | None) -> ImageData:
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"a tensor of images must be [N, 1 or 3, H, W], got {list(images.shape)}")
    x = _fit(to_uint8(images.detach().cpu()), resolution).contiguous()
    facts = Facts("tensor", "A tensor", x.shape[1], x.shape[-1], splits={"train": len(x)}, license="the user's own")
    return ImageData(facts, {"x": x}, hashlib.sha256(x.numpy().data).hexdigest())


class DatasetData(ImageData):
    """A map-style Dataset, read item by item, so that its own random augmentation goes on.

    Items are images, pairs (image, label), or dicts of fields: {"x": image, "attributes": [0, 1, 1], "caption": "..."}.
    A field's type is that of its value in item 0 (:func:`zoo.data.fields.infer`).

    ``hash``: of its length and 64 items spread over it, since reading all may take hours.
    """

    def __init__(self, dataset: MapDataset, resolution: int | None):
        import torch

        name = type(dataset).__name__
        if len(dataset) == 0:
            raise ValueError(f"the {name} is empty")
        self.dataset = dataset
        self._labels: dict[str, torch.Tensor] = {}
        first = fields_of(dataset[0])
        if "x" not in first:
            raise ValueError(f"an item of the {name} must have an image 'x', got {', '.join(first)}")
        x = _image(first["x"], None, resolution)
        self.side = x.shape[-1]
        fields: dict[str, Field] = {"x": Image(x.shape[0], self.side)}
        for key, value in first.items():
            if key != "x":
                fields[key] = infer(value)
            if isinstance(fields[key], Image) and key != "x":
                fields[key] = Image(_image(value, None, self.side).shape[0], self.side)
        self.facts = Facts(
            name, name, keys=tuple(fields), fields=fields, splits={"train": len(dataset)}, license="the user's own"
        )
        if isinstance(fields.get("y"), Label):
            count = int(self.labels("y").max()) + 1
            names = getattr(dataset, "classes", ())
            classes = tuple(map(str, names if len(names) >= count else range(count)))
            self.facts = dataclasses.replace(self.facts, classes=classes)
        content = hashlib.sha256(str(len(dataset)).encode())
        sample = self._read(torch.linspace(0, len(dataset) - 1, 64).long().unique().tolist())
        for value in sample.values():
            content.update(repr(value).encode() if isinstance(value, list) else value.numpy().tobytes())
        super().__init__(self.facts, {}, content.hexdigest())

    def __len__(self) -> int:
        return len(self.dataset)

    def _read(self, indices: Iterable[int]) -> dict[str, Any]:
        import torch

        items = [fields_of(self.dataset[i]) for i in indices]
        rows: dict[str, Any] = {}
        for key, field in self.facts.fields.items():
            values = [item[key] for item in items]
            if isinstance(field, Image):
                rows[key] = torch.stack([_image(value, field.channels, self.side) for value in values])
            elif isinstance(field, Text):
                rows[key] = values
            else:
                rows[key] = torch.from_numpy(pack(key, field, values))
        return rows

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """As in ImageData."""
        return self._read(indices.tolist())

    def labels(self, key: str) -> torch.Tensor:
        """All values of one label or attribute: for "y" the Dataset's ``targets`` if it has them; otherwise every item
        is read, once."""
        import torch

        name, column = self.facts.column(key)
        if name not in self._labels:
            targets = getattr(self.dataset, "targets", None) if name == "y" else None
            if targets is None or len(targets) != len(self.dataset):
                values = [fields_of(self.dataset[i])[name] for i in range(len(self.dataset))]
                targets = pack(name, self.facts.fields[name], values)
            self._labels[name] = torch.as_tensor(targets).long()
        return self._labels[name] if column is None else self._labels[name][:, column]


def fields_of(item: Any) -> Mapping[str, Any]:
    """The fields of one item of a Dataset: an image, (image, label, ...) or a dict."""
    if isinstance(item, Mapping):
        return item
    if isinstance(item, (tuple, list)):
        return {"x": item[0], "y": item[1]} if len(item) > 1 else {"x": item[0]}
    return {"x": item}


def _image(image: object, channels: int | None, resolution: int | None) -> torch.Tensor:
    """An image of a Dataset (PIL, or tensor or array uint8 or in [0, 1], [H, W] or [C, H, W]) as uint8 [C, R, R].
    ``channels``: of a PIL image; None takes its own."""
    import torch
    from PIL import Image as PilImage

    if isinstance(image, PilImage.Image):
        channels = channels or (1 if image.mode in ("1", "L", "I;16") else 3)
        return torch.from_numpy(to_array(square(to_pil(image, channels), resolution)))
    x = torch.as_tensor(image)
    x = x[None] if x.dim() == 2 else x
    if x.dim() != 3 or x.shape[0] not in (1, 3):
        raise ValueError(f"an image of a Dataset must be [1 or 3, H, W], got {list(x.shape)}")
    return _fit(to_uint8(x)[None], resolution)[0]
