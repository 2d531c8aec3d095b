"""What is scored: weights, a Model, anything with ``iter_samples``, a folder of images, or an image tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo import hub
from zoo.data import ImageData, open_data
from zoo.data import facts as facts_of
from zoo.data.folder import OPTIONS, parse_options
from zoo.files import tensor_hash
from zoo.metrics.images import Images, from_data, from_folder, from_sampler
from zoo.models import Model
from zoo.recipe import Recipe, Stage, Stream, decode

COUNT = 10_000  # images of a generator by default


@dataclass
class ImageSource:
    """A source of images, or a model that predicts something about images.

    ``model``: None for images that exist already, which are in ``folder`` (``folder:PATH``) or ``data``. ``weights``:
    which checkpoint it is and how it was chosen."""

    name: str
    model: Any = None
    folder: str | None = None
    data: ImageData | None = None
    weights: dict[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> Mapping[str, Any]:
        return getattr(self.model, "card", {})

    @property
    def task(self) -> Model | None:
        """The Model, if it is one: it knows how it is scored."""
        return self.model if isinstance(self.model, Model) else None

    @property
    def generates(self) -> bool:
        """Whether there are images to score."""
        return getattr(self.model, "generates", True)

    @property
    def classifies(self) -> bool:
        return getattr(self.model, "classifies", False)

    @property
    def recognizes(self) -> bool:
        """Whether it reads categorical codes off images."""
        return getattr(self.model, "recognizes", False)

    @property
    def classes(self) -> int:
        """The number of classes that can be requested; 0 if none can."""
        return getattr(self.model, "class_count", 0)

    def requested_classes(self, n: int) -> list[int] | None:
        """The class of each of n generated images: all classes in turn; None if there are none."""
        return [k % self.classes for k in range(n)] if self.classes else None

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of its Card's recipe; none if it has none."""
        return tuple(self.stage.data.streams.values()) if self.stage else ()

    def stream(self, domain: str) -> Stream:
        """The stream that a model's domain was trained on. Raises ValueError if its Card does not have it."""
        for stream in self.streams:
            if domain in stream.keys.values():
                return stream
        raise ValueError(f"'{self.name}': its Card must have the stream of '{domain}', got none")

    @property
    def recipe(self) -> Recipe | None:
        """The recipe in the Card of the weights; None if it has none."""
        return decode(self.card["recipe"]) if self.card.get("recipe") else None

    @property
    def stage(self) -> Stage | None:
        return self.recipe.stages[-1] if self.recipe else None

    @property
    def device(self) -> torch.device:
        return getattr(self.model, "device", torch.device("cpu"))

    @property
    def dataset(self) -> str:
        """The data set that the weights were trained on: a registered one, or a folder that is still there. Raises
        ValueError if their Card has none, or another."""
        from zoo.registry import DATASETS

        name = self.card.get("dataset", {}).get("name")
        if name is None:
            raise ValueError(f"dataset: '{self.name}' has no data set to be compared with; name one (--dataset)")
        if name not in DATASETS:
            own = self.recipe.dataset if self.recipe else ""
            with contextlib.suppress(ValueError):
                if own.startswith("folder:") and facts_of(own).name == name:
                    return own
            raise ValueError(
                f"dataset: '{self.name}' was trained on '{name}', which is not registered; name it, "
                "such as --dataset folder:PATH"
            )
        return name

    def images(self, n: int | None, seed: int, channels: int, to: str | None = None) -> tuple[Images, str]:
        """The images to score, and how their classes were chosen, in words ("" without classes).

        Args:
            n: Images; by default 10,000 of a generator, all of a folder or data set.
            seed: Of the first image of a generator.
            channels: Of the images of a folder.
            to: Of several domains the one.
        """
        if self.folder is not None:
            images, _ = from_folder(self.folder, channels)
            return images.at_most(n or images.count), ""
        if self.data is not None:
            return from_data(self.data).at_most(n or len(self.data)), ""
        n = n or COUNT
        classes = f"each of the {self.classes} in turn" if self.classes else ""
        return from_sampler(self.model, n, seed, self.requested_classes(n), to=to), classes


def find(what: Any, device: str = "cpu", code: str | Path | None = None) -> ImageSource:
    """The source that a name, a path or an object means. ``code``: as for :func:`zoo.load`. Raises ValueError if it is
    none."""
    if isinstance(what, (str, Path)):
        text = str(what) if str(what).startswith("folder:") else f"folder:{what}"
        path = Path(parse_options(text, tuple(OPTIONS))[0])
        run = (path / "recipe.json").exists() or (path / hub.WEIGHTS).exists()
        if (path.is_dir() or path.suffix == ".zip") and not run:
            if code is not None:
                raise ValueError(f"code={code}: must be left out with a folder of images")
            return ImageSource(str(what), folder=text)
        model = hub.load(what, device, code)
        file = hub.find(what)
        rule = "last" if path.is_dir() else model.card.get("checkpoint", "unknown: not in its Card")
        weights: dict[str, Any] = {"file": file.name, "tensors": tensor_hash(file)[:16], "checkpoint": rule}
        weights |= {key: model.card.get(key) for key in ("name", "images")}
        return check_images(ImageSource(str(what), model, weights=weights))
    if isinstance(what, Model) or hasattr(what, "iter_samples"):
        name = getattr(what, "name", None) or getattr(what, "card", {}).get("name") or type(what).__name__
        return check_images(ImageSource(name, what, weights={"checkpoint": "given as an object"}))
    data = open_data(what)
    return ImageSource(data.facts.name, data=data)


def check_images(source: ImageSource) -> ImageSource:
    """The same source. Raises ValueError if its model generates points."""
    if getattr(source.model, "resolution", None) == 0:
        raise ValueError(f"'{source.name}' must generate images to be scored, got points")
    return source
