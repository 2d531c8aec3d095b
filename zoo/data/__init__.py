"""Data sets: their facts, where they come from, the prepared store, the loader, toy distributions.

    facts("cifar10")                        # known without torch
    data = open_data("cifar10")             # fetched and prepared once, memory-mapped after
    Loader(data, seed=0).next(64)["x"]      # float32 [64, 3, 32, 32] in [-1, 1]

A data set is a registered name, ``folder:PATH``, ``shards:PATTERN``, any map-style torch Dataset or an image
tensor.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from zoo.data.facts import Facts, ImageSet, Rows, Source
from zoo.data.loader import Loader
from zoo.data.store import ImageData, Progress, home, open_prepared, prepared, verify
from zoo.registry import DATASETS, nearest

__all__ = [
    "Facts", "ImageData", "ImageSet", "Loader", "Rows", "Source",
    "facts", "home", "open_data", "prepare", "prepared", "verify",
]  # fmt: skip


def _entry(name: str) -> Any:
    """The registered set called ``name``. ValueError with the nearest names and the other ways to name a
    set."""
    if name not in DATASETS:
        raise ValueError(
            f"unknown data set '{name}'{nearest(name, DATASETS.names()) or ';'} "
            f"your own images are folder:PATH, shards are shards:PATTERN"
        )
    return DATASETS.build(name)


def facts(dataset: Any) -> Facts:
    """The facts of a registered set, ``folder:PATH``, ``shards:PATTERN``, or an adopted Dataset or tensor.

    A registered name is answered without torch. ValueError for an unknown name or a folder without images.
    """
    if not isinstance(dataset, (str, os.PathLike)):
        from zoo.data.objects import from_object

        return dataset.facts if isinstance(dataset, ImageData) else from_object(dataset).facts
    name = os.fspath(dataset)
    if name.startswith("folder:"):
        from zoo.data.folder import Folder

        return Folder(name).facts
    if name.startswith("shards:"):
        from zoo.data.shards import open_shards

        return open_shards(name, None).facts
    return _entry(name).facts


def prepare(
    name: str,
    resolution: int | None = None,
    split: str = "train",
    progress: Progress | None = None,
    check: bool = False,
) -> Path:
    """Fetch and prepare a registered set or ``folder:PATH``: the path of its file in the store.

    ``resolution``: by default as published. ``progress(done, total, what)`` is called now and then.
    ``check``: read all of a file that is there already. ValueError for a user's mistake, OSError where no
    source answers or the disk is full.
    """
    from zoo.data.preparation import prepare_set

    if name.startswith("folder:"):
        from zoo.data.folder import Folder

        return Folder(name).prepare(resolution, split, progress, check)
    if name.startswith("shards:"):
        raise ValueError(f"{name} is read as it streams and can't be prepared")
    entry = _entry(name)
    if not isinstance(entry, ImageSet):
        raise ValueError(f"{name} is generated and needs no preparing")
    return prepare_set(entry, resolution, split, progress, check)


def open_data(
    dataset: Any,
    resolution: int | None = None,
    split: str = "train",
    progress: Progress | None = None,
    fetch: bool = True,
) -> ImageData:
    """Open a data set, preparing it first where that is needed.

    ``dataset``: a registered name, ``folder:PATH``, ``shards:PATTERN``, a map-style torch Dataset that
    yields images or (image, label) (PIL, or tensor uint8 or float in [0, 1]), or an image tensor [N, C, H,
    W] (uint8, or float in [0, 1]). ``resolution``: images are cropped to their center square and resized to
    it; by default the set's own. ``fetch`` False: ValueError rather than a download. Errors as in
    ``prepare``.
    """
    if isinstance(dataset, ImageData):
        if resolution not in (None, dataset.facts.resolution):
            raise ValueError(f"{dataset.facts.name} is open at {dataset.facts.resolution}, not at {resolution}")
        return dataset
    if not isinstance(dataset, (str, os.PathLike)):
        from zoo.data.objects import from_object

        return from_object(dataset, resolution)
    name = os.fspath(dataset)
    if name.startswith("shards:"):
        from zoo.data.shards import open_shards

        return open_shards(name, resolution)
    if not name.startswith("folder:"):
        entry = _entry(name)
        if not isinstance(entry, ImageSet):
            return entry.open(split)
        if not fetch:
            from zoo.data.preparation import check_split, target

            check_split(entry.facts, split)
            path = target(name, resolution or entry.facts.resolution or 0, split)
            if not path.exists():
                raise ValueError(f"{name} is not prepared at {path}: run `zoo data get {name}`")
            return open_prepared(path)
    return open_prepared(prepare(name, resolution, split, progress))
