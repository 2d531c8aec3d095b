"""What is known of a data set before anything is fetched, and the sources of its files. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.data.fields import Attributes, Field, Image, Label, Text, Vector, decode, encode
from zoo.registry import FrozenDict, nearest

Row = Mapping[str, Any]  # the values of the fields by key, as zoo.data.fields describes them


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
        channels: of an image; for a set of points their dimension. By default those of the first field.
        resolution: side of the square images as published, in pixels; 0 for points; None if the images have many
            sizes, so that the caller has to choose one. By default that of the first field.
        classes: the names of the values of ``y``; () without labels. By default those of the field ``y``.
        keys: of a batch: "x", "y", ...; by default those of ``fields``.
        splits: the number of images of each split; empty if it is unknown before reading.
        license: of the data.
        about: what else a user should know, in a sentence or two.
        paired: rows of the domains show the same thing: those with the same ``pair_key``.
        pair_key: the label that the rows of a pair have in common, each domain once at most; "" if they are those of
            equal rank.
        features: the feature network of scores, if none is named; by default the zoo's own of that data set.
        retrieval: the weights of the retrieval network of scores, an image and a text encoder; "" if there are none.
        scored_on: the data set that models are scored on, if not this one, since it has no held-out images.
        by_hand: users have to get its files themselves; nothing fetches them, or only with a package that is no
            requirement.
        cropped: the published images are not square, and ``resolution`` is that of our crop; so scores compare with
            real images at the model's resolution, not at this one.
        fields: the type of each key. Those that are not given follow from the other facts: "x" is an image (or a
            point), "caption" a Text, any other a Label.
    """

    name: str
    title: str
    channels: int = 0
    resolution: int | None = None
    classes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    license: str = "not stated"
    about: str = ""
    paired: bool = False
    pair_key: str = ""
    features: str = ""
    retrieval: str = ""
    scored_on: str = ""
    by_hand: bool = False
    cropped: bool = False
    fields: Mapping[str, Field] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("keys", tuple(self.keys or self.fields or ("x",)))
        main = next((f for f in self.fields.values() if isinstance(f, (Image, Vector))), None)
        if not self.channels and main is not None:
            put("channels", main.channels if isinstance(main, Image) else main.n)
            put("resolution", main.size if isinstance(main, Image) else 0)
        y = self.fields.get("y")
        put("classes", tuple(self.classes or (y.names if isinstance(y, Label) else ())))
        put("splits", FrozenDict(self.splits))
        put("fields", FrozenDict({key: self._typed(key) for key in self.keys}))

    def _typed(self, key: str) -> Field:
        """The field of a key: as declared, with the resolution and the classes of these facts."""
        declared = self.fields.get(key)
        if isinstance(declared, Image) and self.resolution != 0:
            return Image(declared.channels if key != "x" else self.channels, self.resolution)
        if declared is not None and not (key == "y" and isinstance(declared, Label)):
            return declared
        return self.default_field(key)

    def default_field(self, key: str) -> Field:
        """The field that ``key`` has if it is not declared."""
        if key == "x":
            return Vector(self.channels) if self.resolution == 0 else Image(self.channels, self.resolution)
        return Text() if key == "caption" else Label(self.classes if key == "y" else ())

    @property
    def images(self) -> tuple[str, ...]:
        """The keys of the images of a row; () for points."""
        return tuple(key for key, f in self.fields.items() if isinstance(f, Image))

    def column(self, key: str) -> tuple[str, int | None]:
        """A label as ``where`` names it: its key and, of attributes (``attributes.Smiling``), the column. Raises
        ValueError if there is none."""
        name, _, attribute = key.partition(".")
        f = self.fields.get(name)
        if isinstance(f, Label) and not attribute:
            return name, None
        if isinstance(f, Attributes) and attribute in f.names:
            return name, f.names.index(attribute)
        options = [k for k, v in self.fields.items() if isinstance(v, Label)]
        options += [f"{k}.{n}" for k, v in self.fields.items() if isinstance(v, Attributes) for n in v.names]
        raise ValueError(f"{self.name} has no label '{key}'{nearest(key, options)}")

    def to_json(self) -> dict[str, Any]:
        """These facts as plain JSON values; of the fields only those that do not follow from the rest."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "fields"}
        for name in ("features", "retrieval", "scored_on", "by_hand"):
            if not plain[name]:
                del plain[name]
        own = {k: encode(f) for k, f in self.fields.items() if f != self.default_field(k)}
        return {**plain, **({"fields": own} if own else {})}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Facts:
        """The inverse of :meth:`to_json`."""
        fields = {key: decode(value) for key, value in plain.get("fields", {}).items()}
        return Facts(**{**plain, "fields": fields})


@dataclass
class Rows:
    """The rows of one split, as a source reads them.

    Args:
        rows: dicts of the values of the fields, see ``Row``.
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
        large: photographs of many sizes, prepared once as encoded bytes at native size (:mod:`zoo.data.native`).
    """

    facts: Facts
    sources: tuple[Source, ...]
    mean: tuple[float, ...] = ()
    together: bool = True
    large: bool = False
