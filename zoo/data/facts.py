"""What a data set says of itself before anything is fetched, and where it can be had. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.registry import FrozenDict


@dataclass(frozen=True)
class Facts:
    """The facts of a data set.

    ``channels``: of an image; for a toy set the dimension of its points. ``resolution``: the side of its
    square images as published; 0 for toy points; None where the images have many sizes, so that the caller
    has to choose. ``classes``: the names of the values of ``y``, () without labels. ``keys``: what a batch
    holds. ``splits``: images a split; empty where it is not known before reading. ``paired``: each row of one
    domain shows what the row of the same rank in the other does.
    """

    name: str
    title: str
    channels: int
    resolution: int | None
    classes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ("x",)
    splits: Mapping[str, int] = field(default_factory=dict)
    license: str = "not stated"
    about: str = ""
    paired: bool = False

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "splits", FrozenDict(self.splits))


@dataclass
class Rows:
    """The rows of one split on their way into the store.

    ``rows`` yields dicts: "x" an image (PIL, or uint8 array [H, W] or [H, W, C]), labels as integers or
    integer arrays, "caption" as a string. ``count``: how many there should be at most. ``exact``: fewer are
    an error. ``classes``: names found in the data, where they were not known before.
    """

    rows: Iterable[Mapping[str, Any]]
    count: int
    exact: bool = True
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """One place that holds a set: ``fetch(folder)`` puts its files into an empty folder and returns where
    they lie, ``read(files, split)`` reads them. Both raise anything where they fail; the caller tries the
    next source and reports what each said. ``digest``: SHA-256 of a split's unresized images and labels,
    where it is known."""

    name: str
    fetch: Callable[[Path], Path]
    read: Callable[[Path, str], Rows]
    digest: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSet:
    """A registered set of images. ``mean``: of the train split a channel, in [0, 1], checked while preparing.
    ``together``: one fetch holds all splits, so all are prepared at once."""

    facts: Facts
    sources: tuple[Source, ...]
    mean: tuple[float, ...] = ()
    together: bool = True
