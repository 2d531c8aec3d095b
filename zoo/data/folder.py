"""``folder:PATH``: the user's own images, of any size and mode, in a folder or a zip archive.

How folders become splits, classes, domains and pairs: :mod:`zoo.data.layout`. Captions, labels and attributes come from
files beside the images: :mod:`zoo.data.tables`. Options follow a question mark, ``folder:PATH?fit=pad&channels=1``:

| option | what it does |
|---|---|
| ``skip=corrupt`` | leaves out unreadable images instead of naming them in an error |
| ``channels=1``, ``3`` | makes the images gray, or color; by default gray if all are |
| ``size=native`` | keeps photographs at native size: training takes random crops of them (:mod:`zoo.data.native`) |
| ``fit=crop``, ``pad``, ``stretch`` | an image that is no square is cut to its center, gets borders, or is distorted |
| ``range=0,4095`` | the values of black and white of images with more than 8 bits |
| ``splits=no`` | folders named like splits are classes |
| ``pairs=no``, ``yes`` | whether two folders, or the halves of pictures, are pairs |
| ``labels=no`` | leaves out the tables and captions beside the images |
| ``attributes=A,B`` | the columns of a table that are attributes |

The prepared file is named after the folder's content (names, sizes, times), so that a changed folder is prepared again.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, Row, Rows
from zoo.data.fields import Attributes, Field, Image, Label, Text
from zoo.data.files import Contents, File, contents, counts, listed
from zoo.data.images import FITS, SUFFIXES, DataWarning, Range, fit_sentence, is_gray, open_picture, read, square
from zoo.data.layout import DOMAINS, Item, Layout, arrange, pair_folders, split_halves
from zoo.data.store import Progress, lock, write
from zoo.data.tables import Annotations, annotate

if TYPE_CHECKING:
    from PIL import Image as pil

OPTIONS: dict[str, tuple[str, ...]] = {  # and the values of each; () if they are free
    "skip": ("corrupt",),
    "channels": ("1", "3"),
    "size": ("native",),
    "fit": FITS,
    "range": (),
    "splits": ("no",),
    "pairs": ("no", "yes"),
    "labels": ("no",),
    "attributes": (),
}
NARROW = 64  # of 256 levels: a set that uses fewer has probably another range


def parse_options(name: str, allowed: Sequence[str]) -> tuple[str, dict[str, str]]:
    """``KIND:PATH?key=value&key=value`` to PATH and its options. A question mark not followed by key=value belongs to
    the path. Raises ValueError for an option that is not in ``allowed``."""
    if not name.split(":", 1)[1]:
        raise ValueError(f"{name}: must be followed by a path (. is the current folder)")
    path, _, query = name.split(":", 1)[1].rpartition("?")
    pairs = [pair.split("=", 1) for pair in query.split("&")]
    if not path or any(len(pair) != 2 for pair in pairs):
        return name.split(":", 1)[1], {}
    for key, _ in pairs:
        if key not in allowed:
            raise ValueError(f"{name}: unknown option '{key}'; must be one of {', '.join(allowed)}")
        if [other for other, _ in pairs].count(key) > 1:
            raise ValueError(f"{name}: the option '{key}' must be given once")
    return path, dict(pairs)


def parse_range(name: str, text: str) -> Range:
    """``0,4095`` -> (0.0, 4095.0). Raises ValueError for anything else."""
    try:
        low, high = map(float, text.split(","))
        if not low < high < float("inf"):
            raise ValueError
    except ValueError:
        raise ValueError(f"{name}: range must be the values of black and white, such as 0,4095, got {text}") from None
    return low, high


class Folder:
    """A folder, or a zip archive, of images.

    ``facts``: of its images; ``items``: by split; ``contents``: what is in it. Raises ValueError if there are no
    images, or it is not clear what a part of them is.
    """

    def __init__(self, name: str, inside: Contents | None = None):
        path, options = parse_options(name, tuple(OPTIONS))
        for key, value in options.items():
            if OPTIONS[key] and value not in OPTIONS[key]:
                words = {"1": "1 (gray)", "3": "3 (color)"}
                expected = " or ".join(words.get(v, v) for v in OPTIONS[key])
                raise ValueError(f"{name}: {key} must be {expected}, got {value}")
        self.root, self.options = Path(path).expanduser().resolve(), options
        self.name = f"folder:{path}"
        self.skip, self.large = "skip" in options, "size" in options
        self.range = parse_range(name, options["range"]) if "range" in options else None
        self.fit = options.get("fit", "crop")
        if self.large and "fit" in options:
            raise ValueError(f"{name}: fit must be without size=native, which crops at random")
        self.contents = contents(self.root) if inside is None else inside
        self._check_contents()
        self.annotations = self._annotations()
        layout = self._layout()
        self._check_values(layout)
        self.items, self.paired = layout.splits, layout.paired
        self.domains = layout.classes
        fields = self._fields(layout)
        self.notes = self._notes(layout)
        self.facts = Facts(
            name=f"folder-{self.root.stem if self.root.is_file() else self.root.name}",
            title=f"Images in {self.root}",
            fields=fields,
            splits={s: len(items) for s, items in self.items.items() if items},
            license="the user's own",
            about=". ".join([f"From {self.root}", *self._about(layout), *self.notes]) + ".",
            paired=layout.paired,
        )

    def _check_contents(self) -> None:
        """Raises ValueError if there are no images, or files that cannot be read."""
        inside: Contents = self.contents
        if not inside.images and not inside.problems:
            archives = [name for name in inside.others if name.lower().endswith(".zip")]
            if archives:
                raise ValueError(f"{self.name}: no images in it, but archives; name one: {self.name}/{archives[0]}")
            suffixes = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            others = f"; it has {counts(inside.others)}" if inside.others else ""
            raise ValueError(f"{self.name}: no images in it; looked for {suffixes}{others}")
        if inside.problems and not self.skip:
            raise ValueError(f"{self.name}: {len(inside.problems)} entries can't be read: {listed(inside.problems)}; "
                             f"repair or remove them, or leave them out with {self.name}?skip=corrupt")  # fmt: skip

    def _annotations(self) -> Annotations:
        if "labels" in self.options:
            return Annotations()
        wanted = [w for w in self.options.get("attributes", "").split(",") if w]
        return annotate(self.name, self.contents.images, self.contents.texts, self.contents.tables, wanted)

    def _layout(self) -> Layout:
        pairs, splits = self.options.get("pairs"), self.annotations.splits
        layout = arrange(self.name, self.contents.images, self.contents.empty, splits="splits" not in self.options)
        if splits and [*layout.splits] == ["train"]:
            missing = [item.file.name for item in layout.splits["train"] if item.file.name not in splits]
            if missing:
                raise ValueError(self._without("split", missing, len(layout.splits["train"])))
            by_split: dict[str, list[Item]] = {}
            for item in layout.splits["train"]:
                by_split.setdefault(splits[item.file.name], []).append(item)
            layout.splits = {s: by_split[s] for s in ("train", "val", "test") if s in by_split}
        if pairs != "no":
            in_folders = pair_folders(self.name, layout, required=pairs == "yes")
            if not in_folders and (pairs == "yes" or not layout.classes) and self._all_wide(pairs == "yes"):
                split_halves(layout)
        return layout

    def _check_values(self, layout: Layout) -> None:
        """Raises ValueError if tables give a field to some of the images only."""
        values = self.annotations.values
        for split, items in layout.splits.items():
            names = [*dict.fromkeys(item.file.name for item in items)]
            for key in self.annotations.fields:
                missing = [name for name in names if key not in values.get(name, ())]
                if missing:
                    word = "label" if key == "y" else key
                    raise ValueError(self._without(word, missing, len(names), f" of {split}"))

    def _without(self, what: str, missing: list[str], total: int, of_split: str = "") -> str:
        """The message for images that no table gives a value."""
        return (
            f"{self.name}: {len(missing)} of {total} images{of_split} have no {what} in a table: {listed(missing)}; "
            f"add a table of them, or leave all tables out with {self.name}?labels=no"
        )

    def _all_wide(self, required: bool) -> bool:
        """Whether all pictures are twice as wide as high, as pairs are stored. Raises ValueError if ``required`` and
        one is not."""
        wide = 0
        for file in self.contents.images:
            try:
                width, height = image_size(file)
            except ValueError:
                continue  # the error comes when the images are read
            wide += 1
            if width != 2 * height:
                if required:
                    raise ValueError(f"{self.name}: pairs=yes: pictures must be twice as wide as high, or in two "
                                     f"folders with equal names, got {file.name} of {width}x{height}")  # fmt: skip
                return False
        return wide > 0

    def _all_gray(self) -> bool:
        """Whether no image has colors, from the headers."""
        grays = 0
        for file in self.contents.images:
            try:
                with open_picture(file.open()) as image:
                    if not is_gray(image):
                        return False
                    grays += 1
            except Exception:  # the error comes when the images are read
                continue
        return grays > 0

    def _fields(self, layout: Layout) -> dict[str, Field]:
        """The typed fields of a row."""
        fields: dict[str, Field] = {"x": Image(int(self.options.get("channels") or (1 if self._all_gray() else 3)))}
        own = dict(self.annotations.fields)
        labels = own.pop("y", None)
        halves = any(item.half is not None for items in self.items.values() for item in items)
        if labels is not None or layout.classes:
            fields["y"] = labels or Label(layout.classes)
        if halves or layout.classes:
            fields["domain"] = Label(DOMAINS if halves else layout.classes)
        if isinstance(own.get("attributes"), Attributes):
            fields["attributes"] = own["attributes"]
        if isinstance(own.get("caption"), Text):
            fields["caption"] = own["caption"]
        return fields

    def _about(self, layout: Layout) -> list[str]:
        """How the folder was read, in words."""
        about = [layout.form] if layout.form else []
        if layout.classes and not layout.paired:
            about.append(f"the folders are classes and domains, {listed([*layout.classes])}")
        fit = fit_sentence(self.fit, "?fit=pad or stretch")
        return [*about, "native size, cropped at random" if self.large else fit]

    def _notes(self, layout: Layout) -> list[str]:
        """What was left out, in words."""
        inside = self.contents
        notes = [*inside.notes, *layout.notes, *self.annotations.notes]
        if inside.problems:
            notes.append(f"left out since they can't be read: {listed(inside.problems)}")
        if inside.others:
            notes.append(f"left out since they are no images: {len(inside.others)} files ({counts(inside.others)})")
        if inside.empty:
            notes.append(f"folders without images: {listed(inside.empty)}")
        return notes

    def _state(self, split: str) -> str:
        """A hash of the names, sizes and times of a split's images, of what tables say of them, of the tables, and of
        the options."""
        state = hashlib.sha256(f"{self.root} {sorted(self.options.items())} {self.facts.to_json()}".encode())
        for item in self.items[split]:
            if item.file.name in self.annotations.values:
                state.update(f"{sorted(self.annotations.values[item.file.name].items())}\n".encode())
        files = [item.file for item in self.items[split]] + [*self.contents.tables, *self.contents.texts]
        for file in dict.fromkeys(files):
            state.update(f"{file.stamp()}\n".encode())
        return state.hexdigest()[:12]

    def prepare(self, resolution: int | None, split: str, progress: Progress | None, check: bool) -> Path:
        """The prepared file of a split; arguments as in :func:`zoo.data.prepare`.

        Raises ValueError with the names of unreadable images, or if ``resolution`` is None and the images are not all
        squares of one size.
        """
        from zoo.data.preparation import check_split, damage, target

        check_split(self.facts, split)
        resolution = None if self.large else resolution or self._resolution(split)
        path = target(f"{self.facts.name}-{self._state(split)}", resolution, split)
        if path.exists() and not damage(path, check):
            return path
        with lock(path.parent):
            if not path.exists() or damage(path, check):
                items = self.items[split]
                unreadable: list[str] = []
                rows = Rows(self._rows(split, unreadable, resolution), len(items), exact=False)
                try:
                    write(path, self.facts, rows, resolution=resolution, source="folder", progress=progress)
                except OSError:
                    if len(unreadable) == len({item.file for item in items}):
                        raise ValueError(f"{self.name}: none of its {len(unreadable)} images can be read: "
                                         f"{listed(unreadable, 2)}") from None  # fmt: skip
                    raise
                for note in self.notes:
                    warnings.warn(f"{self.name}: {note}", DataWarning, stacklevel=2)
        return path

    def _rows(self, split: str, unreadable: list[str], resolution: int | None) -> Iterator[Row]:
        """Rows of the readable images; the names of the others are added to ``unreadable``."""
        items = self.items[split]
        low, high, partners = 255, 0, 0
        group = 2 if self.paired else 1
        for start in range(0, len(items), group):
            rows: list[dict[str, Any]] = []
            for item in items[start : start + group]:
                try:
                    rows.append(self._row(item, resolution))
                except (OSError, ValueError) as error:
                    reason = f"{item.file.name} ({' '.join(str(error).split())[:160]})"
                    unreadable += [reason] if reason not in unreadable[-2:] else []
            if len(rows) < group:  # with it its pair
                partners += len(rows)
                continue
            for row in rows:
                if self.facts.channels and not isinstance(row["x"], bytes):
                    extremes = row["x"].getextrema()
                    bands = extremes if isinstance(extremes[0], tuple) else (extremes,)
                    low, high = min(low, *(b[0] for b in bands)), max(high, *(b[1] for b in bands))
                yield row
        total = len({item.file for item in items})
        if unreadable and not self.skip and len(unreadable) < total:
            raise ValueError(
                f"{self.name}: {len(unreadable)} of {total} images can't be read: {listed(unreadable)}; "
                f"repair or remove them, or leave them out with {self.name}?skip=corrupt"
            )
        if unreadable and len(unreadable) < total:
            warnings.warn(
                f"{self.name}: {len(unreadable)} of {total} images are left out since they can't be read: "
                f"{listed(unreadable)}" + f", and {partners} that were their pairs" * bool(partners),
                DataWarning, stacklevel=2,
            )  # fmt: skip
        if 0 <= high - low < NARROW and len(items) > 1:
            warnings.warn(
                f"{self.name}: its images use only the values {low} to {high} of 0 to 255; if they have another range, "
                f"give it, such as {self.name}?range=0,4095 for 12 bits in 16", DataWarning, stacklevel=2,
            )  # fmt: skip

    def _row(self, item: Item, resolution: int | None) -> dict[str, Any]:
        """One row as it is written. Raises ValueError or OSError if its image cannot be read."""
        content = item.file.read()
        image: pil.Image | bytes = self.image(item, content)
        plain = item.file.suffix in (".jpg", ".jpeg", ".png", ".webp") and item.half is None and self.range is None
        row: dict[str, Any] = {"x": content if self.large and plain else image}
        values = self.annotations.values.get(item.file.name, {})
        for key in self.facts.keys:
            if key == "domain":
                row[key] = self.domains.index(str(item.class_name)) if item.half is None else item.half
            elif key == "y":
                row[key] = values["y"] if "y" in values else self.facts.classes.index(str(item.class_name))
            elif key != "x":
                row[key] = values[key]
        if not self.large:
            row["x"] = square(row["x"], resolution, self.fit)
        return row

    def image(self, item: Item, content: bytes | None = None) -> pil.Image:
        """One image as PIL, of any size, with the folder's channels. Raises ValueError if it cannot be read."""
        try:
            image = read(item.file.read() if content is None else content, self.facts.channels, self.range)
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from None
        if item.half is None:
            return image
        width, height = image.size
        return image.crop((item.half * (width // 2), 0, (item.half + 1) * (width // 2), height))

    def _resolution(self, split: str) -> int:
        """The common side of the images, from their headers."""
        sizes = set()
        for item in self.items[split]:
            try:
                width, height = image_size(item.file)
            except ValueError:  # the error comes when the images are read
                continue
            sizes.add((width if item.half is None else width // 2, height))
            if len(sizes) > 1 or len(set(next(iter(sizes)))) > 1:
                raise ValueError(f"{self.name}: images are not squares of one size: give a resolution, such as 64")
        return next(iter(sizes), (64, 64))[0]

    def sides(self, most: int = 200) -> list[int]:
        """The shorter sides of some images, spread over all, in ascending order."""
        items = [item for rows in self.items.values() for item in rows]
        sides = []
        for item in items[:: max(1, len(items) // most)]:
            with contextlib.suppress(ValueError):
                width, height = image_size(item.file)
                sides.append(min(width if item.half is None else width // 2, height))
        return sorted(sides)


def open_folder(name: str) -> Folder:
    """The folder that ``folder:PATH?...`` names; its tables are read again only if something in it has changed."""
    root = Path(parse_options(name, tuple(OPTIONS))[0]).expanduser().resolve()
    inside = contents(root)
    files = (*inside.images, *inside.tables, *inside.texts)
    state = hashlib.sha256("".join(f"{file.path} {file.stamp()}\n" for file in files).encode()).hexdigest()
    key = (name, str(root), state, str(inside.others), str(inside.problems), str(inside.empty))
    if key not in _FOLDERS:
        folder = Folder(name, inside)
        while len(_FOLDERS) > 3:
            _FOLDERS.pop(next(iter(_FOLDERS)))
        _FOLDERS[key] = folder
    return _FOLDERS[key]


_FOLDERS: dict[tuple[str, ...], Folder] = {}  # the last ones


def image_size(file: File) -> tuple[int, int]:
    """Width and height as they are seen, from the header. Raises ValueError if it is no image."""
    try:
        with open_picture(file.open()) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # the orientation tag
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception as error:  # Pillow's decoders raise many kinds
        raise ValueError(str(error)) from error
