"""What is scored: weights by any name, a Model, anything with ``iter_samples``, a folder of images, an image tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import hub
from zoo.data import ImageData, open_data
from zoo.data import facts as facts_of
from zoo.data.store import Progress
from zoo.files import tensor_hash
from zoo.metrics.images import Images, from_data, from_folder, from_sampler, quantized, spread
from zoo.recipe import Recipe, Stage, Stream, decode

COUNT = 10_000  # images that a generator is asked for unless told otherwise


@dataclass
class ImageSource:
    """``name``; ``model`` (None for images that lie there already); ``folder`` or ``data`` of those; ``weights``: which
    checkpoint it is and how it was chosen."""

    name: str
    model: Any = None
    folder: Path | None = None
    data: ImageData | None = None
    weights: dict[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> Mapping[str, Any]:
        return getattr(self.model, "card", {})

    @property
    def translates(self) -> bool:
        return getattr(self.model, "verb", "") == "translate"

    @property
    def couples(self) -> bool:
        """Whether it makes images of two domains from one noise."""
        return hasattr(self.model, "pairs")

    @property
    def makes_images(self) -> bool:
        return getattr(self.model, "verb", "") != "classify"

    @property
    def classifies(self) -> bool:
        return "classifier" in getattr(self.model, "spec", {})

    @property
    def recognizes(self) -> bool:
        """Whether it reads categorical codes off images."""
        return "recognition" in getattr(self.model, "spec", {}) and any(self.model.codes.values())

    @property
    def classes(self) -> int:
        """How many classes it can be asked for; 0 where none."""
        return getattr(self.model, "class_count", 0)

    def asked(self, n: int) -> list[int] | None:
        """The class that each of n generated images is asked to be of, each in turn; None where there are none."""
        return [k % self.classes for k in range(n)] if self.classes else None

    def stream(self, to: str | None) -> Stream:
        """What the images of a coupled model's domain (by default the first) are made like. ValueError where its Card does
        not say."""
        domain = self.model.direction(to or next(iter(self.model.domains)))
        for stream in self.stage.data.streams.values() if self.stage else ():
            if domain in stream.keys.values():
                return stream
        raise ValueError(f"'{self.name}': its Card does not say which images of the data set are like its own")

    @property
    def recipe(self) -> Recipe | None:
        """What the weights were trained by, where their Card says."""
        return decode(self.card["recipe"]) if self.card.get("recipe") else None

    @property
    def stage(self) -> Stage | None:
        return self.recipe.stages[-1] if self.recipe else None

    @property
    def device(self) -> torch.device:
        return getattr(self.model, "device", torch.device("cpu"))

    @property
    def dataset(self) -> str:
        """The registered set that the weights were trained on. ValueError where they don't say, or it is none."""
        from zoo.registry import DATASETS

        name = self.card.get("dataset", {}).get("name")
        if name is None:
            raise ValueError(f"dataset: '{self.name}' does not say what it is to be compared with; name it (--dataset)")
        if name not in DATASETS:
            raise ValueError(
                f"dataset: '{self.name}' was trained on '{name}', which is no registered set; name it (--dataset)"
            )
        return name

    def images(self, n: int | None, seed: int, channels: int, **which: str) -> tuple[Images, str]:
        """The images to score, and in words how their classes were chosen ('' where there are none). ``which``: of several
        domains (``to``)."""
        if self.folder is not None:
            images, _ = from_folder(self.folder, channels)
            return images.at_most(n or images.count), ""
        if self.data is not None:
            return from_data(self.data).at_most(n or len(self.data)), ""
        n = n or COUNT
        said = f"each of the {self.classes} in turn" if self.classes else ""
        return from_sampler(self.model, n, seed, self.asked(n), **which), said


def find(what: Any, device: str = "cpu") -> ImageSource:
    """The subject that a name, a path or an object means. ValueError where it is none."""
    if isinstance(what, (str, Path)):
        path = Path(str(what).removeprefix("folder:"))
        run = (path / "recipe.json").exists() or (path / hub.WEIGHTS).exists()
        if path.is_dir() and not run:
            return ImageSource(str(what), folder=path)
        model = hub.load(what, device)
        file = hub.find(what)
        rule = "last" if path.is_dir() else model.card.get("checkpoint", "unknown: not in its Card")
        weights = {"file": file.name, "tensors": tensor_hash(file)[:16], "checkpoint": rule}
        weights |= {key: model.card.get(key) for key in ("name", "images")}
        return _checked(ImageSource(str(what), model, weights=weights))
    if hasattr(what, "iter_samples") or getattr(what, "verb", ""):
        name = getattr(what, "name", None) or getattr(what, "card", {}).get("name") or type(what).__name__
        return _checked(ImageSource(name, what, weights={"checkpoint": "given as an object"}))
    data = open_data(what)
    return ImageSource(data.facts.name, data=data)


def _checked(source: ImageSource) -> ImageSource:
    if not source.model.resolution:
        raise ValueError(f"'{source.name}' makes points, and these are scores of images")
    return source


# Translators ----------------------------------------------------------------------------------------------------------


@dataclass
class Translation:
    """One direction of a translator on one split: rows of the data set that go in, and those that should come out."""

    to: str
    source: Tensor
    target: Tensor
    paired: bool


def translation(
    source: ImageSource, to: str | None, dataset: Any, split: str, progress: Progress | None
) -> Translation:
    """Which rows belong to the two domains, as the recipe's streams say. ValueError where ``to`` is to be named, or the
    streams can't be told apart."""
    model = source.model
    if to is None and len(model.to_network) > 1:
        names = [model.domains.get(d, d) for d in model.to_network]
        raise ValueError(f"to: '{source.name}' translates to {' and to '.join(names)}; say which (--to)")
    to = model.direction(to or next(iter(model.to_network)))
    streams = source.stage.data.streams.values() if source.stage else ()
    ends = {key: stream.where for stream in streams for key in stream.keys.values()}
    if to not in ends or len(ends) != 2:
        raise ValueError(f"'{source.name}': its Card does not say which images of the data set are to be translated")
    data = open_data(dataset, model.resolution, split, progress)

    (other,) = (where for key, where in ends.items() if key != to)
    source, target = rows(data, other), rows(data, ends[to])
    return Translation(to, source, target, facts_of(dataset).paired and len(source) == len(target))


def rows(data: ImageData, where: Mapping[str, int]) -> Tensor:
    """The rows with these labels, int64."""
    keep = torch.ones(len(data), dtype=torch.bool)
    for key, value in where.items():
        keep &= data.labels(key) == value
    return keep.nonzero().flatten()


def translated(model: Any, data: ImageData, rows: Tensor, to: str) -> Images:
    """The translations of some rows."""
    sources = from_data(data, rows)

    def stream() -> Iterator[Tensor]:
        for x in sources.stream():
            yield quantized(model.translate(x.float() / 255, to))

    return Images(sources.count, stream, lambda k: translated(model, data, rows[spread(len(rows), k)], to))
