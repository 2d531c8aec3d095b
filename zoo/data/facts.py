"""What is known of a data set before anything is fetched, and the sources of its files. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.registry import FrozenDict

# "x": an image (PIL, or uint8 array [H, W] or [H, W, C]); labels: integers or integer arrays; "caption": a string.
Row = Mapping[str, Any]


class MapDataset(Protocol):
    """A map-style Dataset, such as torch's: items by index, each an image or a tuple (image, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Facts:
    """The facts of a data set.

    Args:
        name: the registered name.
        title: what it is, with its citation.
        channels: of an image; for a toy set the dimension of its points.
        resolution: side of the square images as published, in pixels; 0 for points; None if the images have many
            sizes, so that the caller has to choose one.
        classes: the names of the values of ``y``; () without labels.
        keys: of a batch: "x", "y", ...
        splits: the number of images of each split; empty if it is unknown before reading.
        license: of the data.
        about: what else a user should know, in a sentence or two.
        paired: rows of equal rank in the two domains show the same thing.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "keys", tuple(self.keys))
        object.__setattr__(self, "splits", FrozenDict(self.splits))


@dataclass
class Rows:
    """The rows of one split, as a source reads them.

    Args:
        rows: dicts of images and labels, see ``Row``.
        count: how many rows there should be, or at most if not ``exact``.
        exact: fewer rows than ``count`` are an error.
        classes: names of the classes, if only the files know them.
    """

    rows: Iterable[Row]
    count: int
    exact: bool = True
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """One place from which a set can be fetched.

    Args:
        name: as shown in messages.
        fetch: ``fetch(folder)`` puts the set's files into an empty folder and returns the path from which to read. It
            may raise any exception: the caller then tries the next source and reports the messages of all.
        read: ``read(path, split)`` reads the rows of a split; exceptions as in ``fetch``.
        digest: SHA-256 of each split's unresized images and labels, if known.
    """

    name: str
    fetch: Callable[[Path], Path]
    read: Callable[[Path, str], Rows]
    digest: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSet:
    """A registered set of images.

    Args:
        facts: of the set.
        sources: in the order in which they are tried.
        mean: of each channel over the train split, in [0, 1]; checked while the set is prepared.
        together: one fetch brings all splits, so that all are prepared at once.
    """

    facts: Facts
    sources: tuple[Source, ...]
    mean: tuple[float, ...] = ()
    together: bool = True
