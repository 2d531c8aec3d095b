"""A user's own objects as data sets: image tensors and map-style torch Datasets."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, MapDataset
from zoo.data.fields import Field, Image, Label, Text, infer, pack
from zoo.data.files import natural
from zoo.data.images import FITS, DataWarning, fit_sentence, is_gray, open_picture, read, square, to_array, to_pil
from zoo.data.layout import DOMAINS
from zoo.data.store import ImageData

if TYPE_CHECKING:
    import torch


class Images:
    """A user's own images, and how those that are no squares become squares::

        zoo.train("dcgan", zoo.data.Images(photos, fit="pad"))

    Args:
        images: an image tensor [N, C, H, W], or anything with items by index: a map-style Dataset, or a list, of
            images, paths, pairs (image, label) or dicts of fields.
        fit: ``crop``, the center square; ``pad``, black borders; ``stretch``, the proportions change.

    Raises ValueError for another ``fit``.
    """

    def __init__(self, images: torch.Tensor | MapDataset, fit: str = "crop"):
        if fit not in FITS:
            raise ValueError(f"fit={fit!r}: must be one of {', '.join(FITS)}")
        self.images, self.fit = images, fit

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        return self.images[i]


def from_object(dataset: torch.Tensor | MapDataset, resolution: int | None = None) -> ImageData:
    """An image tensor [N, C, H, W], a list of images or paths, or a map-style Dataset as ImageData.

    Images are uint8, or float in [0, 1]; they are made squares (of :class:`Images` by its ``fit``, of others by their
    center) and resized to ``resolution`` pixels a side, by default their own. Raises ValueError for anything else.
    """
    import torch

    images, fit = (dataset.images, dataset.fit) if isinstance(dataset, Images) else (dataset, "crop")
    if isinstance(images, torch.Tensor):
        return _from_tensor(images, resolution, fit)
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        return DatasetData(images, resolution, fit)
    inner = "; give its .dataset" if isinstance(images, torch.utils.data.DataLoader) else ""
    raise ValueError(
        "a data set must be a name, folder:PATH, shards:PATTERN, a map-style Dataset, a list of images or a tensor "
        f"[N, C, H, W], got a {type(images).__name__}{inner}"
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


def _fit(images: torch.Tensor, resolution: int | None, fit: str) -> torch.Tensor:
    """uint8 [N, C, H, W] to squares [N, C, R, R], resized with PIL as in prepared files."""
    import torch

    height, width = images.shape[-2:]
    side = min(height, width)
    if height != width and fit == "crop":
        top, left = (height - side) // 2, (width - side) // 2
        images = images[..., top : top + side, left : left + side].contiguous()
    if images.shape[-2:] == (resolution or side, resolution or side):
        return images
    pictures = (to_pil(image.permute(1, 2, 0).cpu().numpy(), len(image)) for image in images)  # from [H, W, C]
    return torch.stack([torch.from_numpy(to_array(square(picture, resolution, fit))) for picture in pictures])


def _from_tensor(images: torch.Tensor, resolution: int | None, fit: str) -> ImageData:
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"a tensor of images must be [N, 1 or 3, H, W], got {list(images.shape)}")
    x = _fit(to_uint8(images.detach().cpu()), resolution, fit).contiguous()
    facts = Facts(
        "tensor",
        "A tensor",
        x.shape[1],
        x.shape[-1],
        splits={"train": len(x)},
        license="the user's own",
        about=f"{fit_sentence(fit, REMEDY)}.",
    )
    return ImageData(facts, {"x": x}, hashlib.sha256(x.numpy().data).hexdigest())


REMEDY = "zoo.data.Images(..., fit='pad') or 'stretch'"


class PairRows:
    """A Dataset of pairs as rows of two domains: row 2k is the first image of pair k, row 2k + 1 the second."""

    def __init__(self, pairs: MapDataset):
        self.pairs = pairs

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": pair_of(self.pairs[i // 2])[i % 2], "domain": i % 2}


def pair_of(item: Any) -> tuple[Any, ...]:
    """The two images of an item, {"a": image, "b": image} or (image, image); () if it is no pair."""
    if isinstance(item, Mapping):
        return (item["a"], item["b"]) if {*item} == {*DOMAINS} else ()
    return tuple(item) if isinstance(item, (tuple, list)) and len(item) == 2 and _is_image(item[1]) else ()


def _is_image(value: Any) -> bool:
    try:
        return isinstance(infer(value), Image)
    except ValueError:
        return False


class DatasetData(ImageData):
    """A map-style Dataset, read item by item, so that its own random augmentation goes on.

    Items are images, pairs (image, label), or dicts of fields: {"x": image, "attributes": [0, 1, 1], "caption": "..."};
    "image", "label" and "text" are other names of x, y and caption, as Hugging Face's datasets have them. A field's
    type is that of its value in item 0 (:func:`zoo.data.fields.infer`); labels are those of :class:`Labels`. An image
    is PIL, a path, or a tensor or array [C, H, W], [H, W, C] or [H, W]. Items {"a": image, "b": image} and (image,
    image) are pairs, which must not be changed at random, since the two are read one after the other.

    ``hash``: of its length and 64 items spread over it, since reading all may take hours.
    """

    def __init__(self, dataset: MapDataset, resolution: int | None, fit: str = "crop"):
        import torch

        name = type(dataset).__name__
        if len(dataset) == 0:
            raise ValueError(f"the {name} is empty")
        paired = bool(pair_of(dataset[0]))
        self.dataset = dataset = PairRows(dataset) if paired else dataset
        self.fit = fit
        self._labels: dict[str, torch.Tensor] = {}
        if paired:
            self._labels["domain"] = torch.arange(len(dataset)) % 2
        chosen = torch.linspace(0, len(dataset) - 1, 64).long().unique().tolist()
        sample = [fields_of(dataset[i]) for i in chosen]
        first = sample[0]
        if "x" not in first:
            raise ValueError(f"an item of the {name} must have an image 'x', got {', '.join(first)}")
        fields: dict[str, Field] = {"x": Image(max(channels_of(item["x"]) for item in sample))}
        self.y: Labels | None = None
        if "y" in first:
            self.y = labels_of(
                name, dataset, dict(zip(chosen, (field_of(name, item, "y") for item in sample), strict=True))
            )
        for key, value in first.items():
            if key == "y" and self.y is not None and self.y.field is not None:
                fields[key] = self.y.field
            elif key != "x":
                fields[key] = Label(DOMAINS) if paired and key == "domain" else infer(value)
            if isinstance(fields[key], Image) and key != "x":
                fields[key] = Image(max(channels_of(item[key]) for item in sample))
        self.side = _image(first["x"], None, resolution, fit).shape[-1]
        fields = {key: Image(f.channels, self.side) if isinstance(f, Image) else f for key, f in fields.items()}
        about = [fit_sentence(fit, REMEDY), *(self.y.notes if self.y else [])]
        y = fields.get("y")
        self.facts = Facts(
            name,
            name,
            classes=y.names if isinstance(y, Label) else (),
            keys=tuple(fields),
            fields=fields,
            splits={"train": len(dataset)},
            license="the user's own",
            about=". ".join(about) + ".",
            paired=paired,
        )
        for note in self.y.notes if self.y else []:
            warnings.warn(f"{name}: {note}", DataWarning, stacklevel=2)
        content = hashlib.sha256(str(len(dataset)).encode())
        for values in self._rows(sample).values():
            content.update(repr(values).encode() if isinstance(values, list) else values.numpy().tobytes())
        super().__init__(self.facts, {}, content.hexdigest())

    def __len__(self) -> int:
        return len(self.dataset)

    def _rows(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The fields of some items, each in one tensor, texts in a list."""
        import torch

        rows: dict[str, Any] = {}
        for key, field in self.facts.fields.items():
            values = [field_of(self.facts.name, item, key) for item in items]
            if key == "y" and self.y is not None and self.y.field is not None:
                values = self.y.numbers(values)
            if isinstance(field, Image):
                rows[key] = torch.stack([_image(value, field.channels, self.side, self.fit) for value in values])
            elif isinstance(field, Text):
                rows[key] = values
            else:
                rows[key] = torch.from_numpy(pack(key, field, values))
        return rows

    def rows(self, indices: torch.Tensor) -> dict[str, Any]:
        """As in ImageData. Raises ValueError if a label is not that of the Dataset's targets."""
        rows = self._rows([fields_of(self.dataset[i]) for i in indices.tolist()])
        if self.y is not None and self.y.field is not None and self.y.from_targets:
            for i, label, other in zip(
                indices.tolist(), rows["y"].tolist(), self.labels("y")[indices].tolist(), strict=True
            ):
                if label != other:
                    raise ValueError(f"the {self.facts.name}: item {i} has the label {self._class(label)}, its targets "
                                     f"have {self._class(other)}; they must be the same")  # fmt: skip
        return rows

    def _class(self, number: int) -> str:
        return self.facts.classes[number] if number >= 0 else "none"

    def labels(self, key: str) -> torch.Tensor:
        """All values of one label or attribute: for "y" see :func:`labels_of`; otherwise every item is read, once."""
        import torch

        name, column = self.facts.column(key)
        if name not in self._labels:
            if name == "y" and self.y is not None and self.y.field is not None:
                values = self.y.numbers(self.y.values)
            else:
                items = (self.dataset[i] for i in range(len(self.dataset)))
                values = [field_of(self.facts.name, item, name) for item in items]
            self._labels[name] = torch.as_tensor(pack(name, self.facts.fields[name], values)).long()
        return self._labels[name] if column is None else self._labels[name][:, column]


class Labels:
    """The labels of a Dataset, as classes 0, 1, ....

    - Texts are classes in natural order; None and -1 are "no label".
    - K numbers of which one is 1 and the others 0 are the class of the 1.
    - Numbers are classes as they are if the Dataset names that many; otherwise numbers that do not occur below the
      largest are closed up, and each class is named after its number.

    Args:
        name: of the Dataset, for messages.
        values: all labels.
        names: of the classes, if the Dataset has them.

    ``field``: Label, or None if these are no classes (real numbers, several classes at once). ``notes``: what its owner
    should know. ``from_targets``: whether they were read without the items. Raises ValueError for a number without a
    name, or below -1.
    """

    def __init__(self, name: str, values: Sequence[Any], names: Sequence[str]):
        self.values, self.notes, self.from_targets = values, list[str](), False
        self.field: Label | None = None
        self._number: dict[Any, int] = {}
        plain = [plain_label(value) for value in values]
        if any(value is NO_CLASS for value in plain):
            return
        known = [value for value in plain if value not in (None, -1)]
        if len(known) < len(plain):
            self.notes.append(f"{len(plain) - len(known):,} of {len(plain):,} images have no label (-1)")
        texts = {value for value in known if isinstance(value, str)}
        if texts and len(texts) < len({*known}):
            raise ValueError(f"labels of the {name}: must be all text or all numbers")
        if texts:
            names = names if texts <= set(names) else sorted(texts, key=natural)
            self._number = {value: i for i, value in enumerate(names)}
        else:
            low, high = min(known, default=0), max(known, default=0)
            if low < 0:
                raise ValueError(f"labels of the {name}: must be from 0, or -1 for no label, got {low}")
            if names and high >= len(names):
                raise ValueError(f"labels of the {name}: it names {len(names)} classes, but has a label {high}")
            distinct = sorted(set(known))
            if not names and len(distinct) <= high:
                listed = ", ".join(map(str, distinct[:10])) + (", ..." if len(distinct) > 10 else "")
                self.notes.append(
                    f"its labels are {listed}: they become classes 0 to {len(distinct) - 1} of these names"
                )
                self._number, names = {v: i for i, v in enumerate(distinct)}, [*map(str, distinct)]
            else:
                names = names or [*map(str, range(high + 1))]
                self._number = {i: i for i in range(len(names))}
            empty = [
                n for n, i in zip(names, range(len(names)), strict=True) if i not in set(map(self._number.get, known))
            ]
            if empty:
                self.notes.append(f"{len(empty)} of its {len(names)} classes have no images: {', '.join(empty[:5])}")
        self.field = Label(tuple(map(str, names)))

    def numbers(self, values: Iterable[Any]) -> list[int]:
        """The class of each label; -1 for no label. Raises ValueError for one that was not among all labels."""
        result = []
        for value in values:
            plain = plain_label(value)
            if plain not in self._number and plain not in (None, -1):
                raise ValueError(f"label {value!r}: must be one of {', '.join(map(str, self._number))}")
            result.append(self._number.get(plain, -1))
        return result


NO_CLASS = object()
SYNONYMS = {"image": "x", "img": "x", "label": "y", "labels": "y", "text": "caption"}


def plain_label(value: Any) -> Any:
    """A label as a text, a whole number or None; ``NO_CLASS`` if it is none of these."""
    import numpy as np

    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "iubf":
        return NO_CLASS
    if array.size > 1:
        one_hot = array.ndim == 1 and set(np.unique(array).tolist()) <= {0, 1} and array.sum() == 1
        return int(array.argmax()) if one_hot else NO_CLASS
    number = array.reshape(-1)[0] if array.size else 0.5
    return int(number) if float(number).is_integer() else NO_CLASS


def labels_of(name: str, dataset: Any, sample: Mapping[int, Any]) -> Labels:
    """The labels of a Dataset ``name``: its targets after its ``target_transform``, if they agree with ``sample``, the
    labels of some items by index; otherwise those of every item.

    If the labels of items are other numbers than the targets, the names of the classes are not theirs."""
    targets, names = targets_of(dataset), class_names_of(dataset)
    values = transformed(dataset, targets) if targets is not None else None
    from_targets = values is not None and same_labels(values, sample)
    if values is None or not from_targets:
        values = [field_of(name, dataset[i], "y") for i in range(len(dataset))]
    other = names and targets is not None and not same_labels(targets, sample) and are_numbers(targets, sample)
    labels = Labels(name, values, () if other else names)
    labels.from_targets = from_targets
    if other:
        labels.notes.append("its labels are not its targets: the names of its classes are left out")
    return labels


def targets_of(dataset: Any) -> list[Any] | None:
    """All ``targets`` of a Dataset, or the column of its labels; None if it has none."""
    inner, indices = base_of(dataset)
    column = getattr(inner, "targets", None)
    if column is None:
        names = getattr(inner, "column_names", None) or ()
        key = next((name for name in ("y", "label", "labels") if name in names), None)
        column = inner[key] if key else None
    if column is None or len(column) != len(inner):
        return None
    values = column.tolist() if hasattr(column, "tolist") else list(column)
    return values if indices is None else [values[i] for i in indices]


def base_of(dataset: Any) -> tuple[Any, list[int] | None]:
    """A Dataset and None; of a ``torch.utils.data.Subset`` the whole one, and the indices."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return dataset.dataset, list(dataset.indices)
    return dataset, None


def transformed(dataset: Any, targets: list[Any]) -> list[Any] | None:
    """The targets after the Dataset's ``target_transform``, if it has one; None if that fails."""
    change = getattr(base_of(dataset)[0], "target_transform", None)
    if change is None:
        return targets
    try:
        return [change(value) for value in targets]
    except Exception:  # the user's own code, which may need more than the target
        return None


def same_labels(values: Sequence[Any], sample: Mapping[int, Any]) -> bool:
    """Whether ``values`` has the labels of ``sample`` at its indices; None and -1 are both "no label"."""
    pairs = ((plain_label(values[i]), plain_label(label)) for i, label in sample.items())
    return all(a == b or {a, b} <= {None, -1} for a, b in pairs)


def are_numbers(values: Sequence[Any], sample: Mapping[int, Any]) -> bool:
    """Whether the labels of ``sample``, and ``values`` at its indices, are whole numbers."""
    return all(isinstance(plain_label(value), int) for i, label in sample.items() for value in (label, values[i]))


def class_names_of(dataset: Any) -> tuple[str, ...]:
    """The names that a Dataset gives its classes: ``classes``, or the ``names`` of a feature; () if it has none."""
    inner = base_of(dataset)[0]
    features = getattr(inner, "features", None)
    if isinstance(features, Mapping):
        for key in ("y", "label", "labels"):
            if getattr(features.get(key), "names", None):
                return tuple(features[key].names)
    return tuple(map(str, getattr(inner, "classes", None) or ()))


def fields_of(item: Any) -> Mapping[str, Any]:
    """The fields of one item of a Dataset: an image, (image, label, ...) or a dict."""
    if isinstance(item, Mapping):
        names = {key: str(SYNONYMS.get(key, key)) for key in item}
        return {str(key) if names[key] in item else names[key]: value for key, value in item.items()}
    if isinstance(item, (tuple, list)):
        return {"x": item[0], "y": item[1]} if len(item) > 1 else {"x": item[0]}
    return {"x": item}


def field_of(name: str, item: Any, key: str) -> Any:
    """One field of an item of a Dataset ``name``. Raises ValueError if it lacks it."""
    fields = fields_of(item)
    if key not in fields:
        raise ValueError(f"an item of the {name} has no {key}, which item 0 has; it has {', '.join(fields)}")
    return fields[key]


def channels_of(image: Any) -> int:
    """1 if an image of a Dataset is gray, otherwise 3. Raises ValueError if it is no image."""
    from PIL import Image as PilImage

    if isinstance(image, (str, os.PathLike)):
        try:
            with open_picture(image) as picture:
                return 1 if is_gray(picture) else 3
        except (OSError, ValueError) as error:
            raise ValueError(f"'{os.fspath(image)}': {getattr(error, 'strerror', None) or error}") from None
    if isinstance(image, PilImage.Image):
        return 1 if is_gray(image) else 3
    return len(_channels_first(image))


def _channels_first(image: Any) -> torch.Tensor:
    """A tensor or array [H, W], [C, H, W] or [H, W, C] as [C, H, W]. Raises ValueError for another shape."""
    import numpy as np
    import torch

    x = torch.as_tensor(image if isinstance(image, torch.Tensor) else np.array(image))  # a copy: some are read-only
    x = x[None] if x.dim() == 2 else x
    if x.dim() == 3 and x.shape[0] not in (1, 3) and x.shape[2] in (1, 3):
        x = x.permute(2, 0, 1)  # [C, H, W]
    if x.dim() != 3 or x.shape[0] not in (1, 3):
        raise ValueError(f"an image of a Dataset must be [1 or 3, H, W] or [H, W, 1 or 3], got {list(x.shape)}")
    return x


def _image(image: object, channels: int | None, resolution: int | None, fit: str) -> torch.Tensor:
    """An image of a Dataset (a path, PIL, or tensor or array uint8 or in [0, 1], [H, W], [C, H, W] or [H, W, C]) as
    uint8 [C, R, R]. ``channels``: of the result; None takes its own."""
    import torch
    from PIL import Image as PilImage

    own = channels_of(image)
    channels = channels or own
    if isinstance(image, (str, os.PathLike)):
        image = read(image, channels)
    if isinstance(image, PilImage.Image):
        return torch.from_numpy(to_array(square(to_pil(image, channels), resolution, fit)))
    x = to_uint8(_channels_first(image))
    if own != channels:
        x = torch.from_numpy(to_array(to_pil(x.permute(1, 2, 0).cpu().numpy(), channels)))
    return _fit(x[None], resolution, fit)[0]
