"""Data that the caller brings: image tensors and map-style torch Datasets."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts
from zoo.data.images import square, to_array, to_pil
from zoo.data.store import ImageData

if TYPE_CHECKING:
    import torch


def from_object(dataset: Any, resolution: int | None = None) -> ImageData:
    """An image tensor [N, C, H, W] or a map-style Dataset as ImageData, its images cropped to their center
    square and resized to ``resolution``. ValueError for anything else, and for images that are not uint8 or
    in [0, 1]."""
    import torch

    if isinstance(dataset, torch.Tensor):
        return _tensor(dataset, resolution)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return DatasetData(dataset, resolution)
    raise ValueError(
        f"a {type(dataset).__name__} is no data set: wanted a name, folder:PATH, shards:PATTERN, "
        "a map-style Dataset or a tensor [N, C, H, W]"
    )


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """uint8, or float in [0, 1], to uint8. ValueError for other types and values."""
    import torch

    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; uint8 or float in [0, 1] wanted")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"float images lie in [{low:.3g}, {high:.3g}]; [0, 1] wanted")
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)


def _fit(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """uint8 [N, C, H, W] to squares of ``resolution``, with PIL as the store does."""
    import torch

    height, width = images.shape[-2:]
    side = min(height, width)
    if height != width:
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side].contiguous()
    if resolution in (None, side):
        return images
    resized = torch.empty(*images.shape[:2], resolution, resolution, dtype=torch.uint8)
    for i, image in enumerate(images):
        pil = to_pil(image.permute(1, 2, 0).cpu().numpy(), len(image))
        resized[i] = torch.from_numpy(to_array(square(pil, resolution)))
    return resized


def _tensor(images: torch.Tensor, resolution: int | None) -> ImageData:
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"a tensor of shape {list(images.shape)} is no set of images; [N, 1 or 3, H, W] wanted")
    x = _fit(to_uint8(images.detach().cpu()), resolution).contiguous()
    facts = Facts("tensor", "A tensor", x.shape[1], x.shape[-1], splits={"train": len(x)}, license="the user's own")
    return ImageData(facts, {"x": x}, hashlib.sha256(x.numpy().data).hexdigest())


class DatasetData(ImageData):
    """A map-style Dataset, read item by item, so that what it does at random it goes on doing.

    ``hash``: of its length and 64 items spread over it, since reading all may take hours.
    """

    def __init__(self, dataset: Any, resolution: int | None):
        import torch

        if len(dataset) == 0:
            raise ValueError(f"the {type(dataset).__name__} is empty")
        self.dataset, self.channels, self.resolution, self._labels = dataset, None, resolution, None
        first = dataset[0]
        self.labeled = isinstance(first, (tuple, list)) and len(first) > 1
        x = self._image(first[0] if isinstance(first, (tuple, list)) else first)
        self.channels, self.resolution = x.shape[0], x.shape[-1]
        classes: tuple[str, ...] = ()
        if self.labeled:
            count = int(self.labels("y").max()) + 1
            named = getattr(dataset, "classes", ())
            classes = tuple(map(str, named)) if len(named) >= count else tuple(map(str, range(count)))
        name = type(dataset).__name__
        facts = Facts(
            name, name, self.channels, self.resolution, classes, ("x", "y") if self.labeled else ("x",),
            {"train": len(dataset)}, "the user's own",
        )  # fmt: skip
        content = hashlib.sha256(str(len(dataset)).encode())
        some = self._rows(torch.linspace(0, len(dataset) - 1, 64).long().unique().tolist())
        for value in some.values():
            content.update(value.numpy().tobytes())
        super().__init__(facts, {}, content.hexdigest())

    def __len__(self) -> int:
        return len(self.dataset)

    def _image(self, image: Any) -> torch.Tensor:
        """One item's image (PIL, or tensor or array uint8 or in [0, 1], [C, H, W]) as uint8 [C, R, R]."""
        import torch
        from PIL import Image

        if isinstance(image, Image.Image):
            channels = self.channels or (1 if image.mode in ("1", "L", "I;16") else 3)
            return torch.from_numpy(to_array(square(to_pil(image, channels), self.resolution)))
        image = torch.as_tensor(image)
        image = image[None] if image.dim() == 2 else image
        if image.dim() != 3 or image.shape[0] not in (1, 3):
            raise ValueError(f"an item of shape {list(image.shape)} is no image; [1 or 3, H, W] wanted")
        return _fit(to_uint8(image)[None], self.resolution)[0]

    def _rows(self, indices: list[int]) -> dict[str, torch.Tensor]:
        import torch

        items = [self.dataset[i] for i in indices]
        images = [item[0] if isinstance(item, (tuple, list)) else item for item in items]
        rows = {"x": torch.stack([self._image(image) for image in images])}
        if self.labeled:
            rows["y"] = torch.tensor([int(item[1]) for item in items])
        return rows

    def rows(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """As in ImageData."""
        return self._rows(indices.tolist())

    def labels(self, key: str) -> torch.Tensor:
        """All labels: the Dataset's ``targets`` where it has them, else every item is read, once."""
        import torch

        if self._labels is None:
            targets = getattr(self.dataset, "targets", None)
            if targets is None or len(targets) != len(self.dataset):
                targets = [int(self.dataset[i][1]) for i in range(len(self.dataset))]
            self._labels = torch.as_tensor(targets).long()
        return self._labels
