"""Data sets: their facts, their sources, the prepared files, the loader, toy distributions.

    facts("cifar10")                        # needs no torch
    data = open_data("cifar10")             # fetched and prepared once, then memory-mapped
    Loader(data, seed=0).next(64)["x"]      # float32 [64, 3, 32, 32] in [-1, 1]

A data set is a registered name, ``folder:PATH``, ``shards:PATTERN``, any map-style torch Dataset, a list of images or
an image tensor; ``Images(data, fit="pad")`` says what becomes of images that are no squares.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, ImageSet, MapDataset, Rows, Source
from zoo.data.loader import Loader
from zoo.data.store import ImageData, Progress, home, list_files, verify
from zoo.registry import DATASETS, nearest

if TYPE_CHECKING:
    import torch

    from zoo.data.objects import Images
    from zoo.data.toys import ToySet

    DataSource = str | os.PathLike[str] | ImageData | MapDataset | torch.Tensor

__all__ = [
    "Facts", "ImageData", "ImageSet", "Images", "Loader", "MapDataset", "Rows", "Source",
    "facts", "home", "keeps_native_size", "list_files", "open_data", "prepare", "verify",
]  # fmt: skip


def _find(name: str) -> ImageSet | ToySet:
    """The registered set called ``name``. Raises ValueError with the nearest names, and the other ways to name a set,
    if there is none."""
    if name not in DATASETS:
        if Path(name).expanduser().exists():
            raise ValueError(f"unknown data set '{name}'; the folder of your own images is folder:{name}")
        raise ValueError(
            f"unknown data set '{name}'{nearest(name, DATASETS.names()) or ';'} "
            f"your own images are folder:PATH, shards are shards:PATTERN (zoo list datasets)"
        )
    entry: ImageSet | ToySet = DATASETS.build(name)
    return entry


def facts(dataset: DataSource) -> Facts:
    """The facts of any data set that :func:`open_data` takes. Torch is not needed for registered names and folders.

    Raises ValueError for an unknown name or a folder without images.
    """
    if isinstance(dataset, ImageData):
        return dataset.facts
    if not isinstance(dataset, (str, os.PathLike)):
        from zoo.data.objects import from_object

        return from_object(dataset).facts
    name = os.fspath(dataset)
    if name.startswith("folder:"):
        from zoo.data.folder import open_folder

        return open_folder(name).facts
    if name.startswith("shards:"):
        from zoo.data.shards import open_shards

        return open_shards(name, None).facts
    return _find(name).facts


def keeps_native_size(name: str) -> bool:
    """Whether a set is prepared once, as encoded images at native size, for all resolutions."""
    if name.startswith("folder:"):
        from zoo.data.folder import Folder

        return Folder(name).large
    return not name.startswith("shards:") and getattr(_find(name), "large", False)


def prepare(
    name: str,
    resolution: int | None = None,
    split: str = "train",
    progress: Progress | None = None,
    check: bool = False,
) -> Path:
    """Fetch and prepare one split of a registered set or of ``folder:PATH``. Returns the path of the prepared file.

    Args:
        name: a registered name or ``folder:PATH``.
        resolution: side of the square images in pixels; by default as published.
        split: "train", "test", ...
        progress: called now and then as ``progress(images_done, images_in_all, message)``.
        check: read all of a file that exists already and prepare it again if its checksum is wrong.

    Raises ValueError for a user's mistake; OSError if no source answers or the disk is full.
    """
    from zoo.data.preparation import prepare_set

    if name.startswith("folder:"):
        from zoo.data.folder import open_folder

        return open_folder(name).prepare(resolution, split, progress, check)
    if name.startswith("shards:"):
        raise ValueError(f"{name} is read as it streams and can't be prepared")
    entry = _find(name)
    if not isinstance(entry, ImageSet):
        raise ValueError(f"{name} is generated and needs no preparing")
    return prepare_set(entry, resolution, split, progress, check)


def open_data(
    dataset: DataSource,
    resolution: int | None = None,
    split: str = "train",
    progress: Progress | None = None,
) -> ImageData:
    """Open one split of a data set. It is fetched and prepared first if it is not yet.

    Args:
        dataset: a registered name, ``folder:PATH``, ``shards:PATTERN``, a map-style torch Dataset of images or (image,
            label) pairs (PIL, paths, or tensors uint8 or float in [0, 1]), an image tensor [N, C, H, W] (uint8, or
            float in [0, 1]), or :class:`Images` of one of these two.
        resolution: images are cropped to their center square (or as ``fit`` says) and resized to this side in pixels;
            by default the set's own.
        split: "train", "test", ...
        progress: as in :func:`prepare`.

    Raises the errors of :func:`prepare`.
    """
    if isinstance(dataset, ImageData):
        if resolution not in (None, dataset.resolution):
            raise ValueError(f"{dataset.facts.name} is open at {dataset.resolution}, not at {resolution}")
        return dataset
    if not isinstance(dataset, (str, os.PathLike)):
        from zoo.data.objects import from_object

        return from_object(dataset, resolution)
    name = os.fspath(dataset)
    if name.startswith("shards:"):
        from zoo.data.shards import open_shards

        return open_shards(name, resolution)
    if not name.startswith("folder:"):
        entry = _find(name)
        if not isinstance(entry, ImageSet):
            return entry.open(split)
    from zoo.data.native import open_prepared

    return open_prepared(prepare(name, resolution, split, progress), resolution)


def __getattr__(name: str) -> Any:
    if name != "Images":
        raise AttributeError(f"module 'zoo.data' has no attribute '{name}'")
    from zoo.data.objects import Images

    return Images
