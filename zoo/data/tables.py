"""Captions, labels, attributes and splits of a user's images, from text files and tables beside them. Needs no torch.

- A text file with an image's name (``7.txt`` for ``7.png``) has its captions, one a line.
- A CSV (or TSV) has a column of file names and a row for each image, or several with a caption each.
- JSON is a list of objects with a file name each (JSON lines too), an object from file names to captions, classes or
  objects, ``{"labels": [[name, class], ...]}`` as in StyleGAN's sets, or COCO's captions.

Columns are read by their names: ``split``, ``partition``, ``set`` or ``subset`` (names, or 0, 1, 2 for train, val,
test); ``caption``, ``text``, ``description`` or ``prompt``; ``label``, ``class``, ``category`` or ``target``. All other
columns of 0 and 1 (or -1 and 1, or true and false) are attributes, in their order; the rest is left out.

Several tables (``train/metadata.csv`` and ``test/metadata.csv``, as Hugging Face has them) are read as one: classes are
numbered over the labels of all, and attributes are columns of equal names. A table in a folder with images is about
those.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from zoo.data.fields import Attributes, Field, Label, Text
from zoo.data.files import File, listed, natural
from zoo.data.layout import SPLITS

SPLIT_COLUMNS = {"split", "partition", "set", "subset"}
TEXT_COLUMNS = {"caption", "captions", "text", "texts", "description", "prompt", "sentence"}
LABEL_COLUMNS = {"label", "labels", "class", "class_name", "category", "target", "y"}
NUMBERED_SPLITS = {"0": "train", "1": "val", "2": "test"}  # CelebA's
FLAGS = {"0": 0, "1": 1, "-1": 0, "true": 1, "false": 0}

Row = Mapping[str, Any]


@dataclass
class Annotations:
    """What tables say of images. ``fields``: by key; ``values``: of each image, by its file's name; ``splits``: of each
    image if a table says it; ``notes``: what is left out."""

    fields: dict[str, Field] = field(default_factory=dict)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def annotate(
    name: str, images: Sequence[File], texts: Sequence[File], tables: Sequence[File], wanted: Sequence[str] = ()
) -> Annotations:
    """Read the tables of a data set ``name``. ``wanted``: the columns that are attributes; by default all that can be.

    Raises ValueError for a table that cannot be read or has no row for some images, and for tables that do not fit
    together.
    """
    result = Annotations()
    _captions_of_texts(name, images, texts, result)
    columns: list[Column] = []
    scopes = Scopes(images)
    for table in tables:
        columns += _read_columns(name, table, scopes, result)
    captions = [c for c in columns if c.kind in TEXT_COLUMNS]
    single = [c for c in columns if c.kind not in TEXT_COLUMNS and not c.differs]
    splits = [c for c in single if c.kind in SPLIT_COLUMNS and c.key not in wanted]
    labels = [c for c in single if c.kind in LABEL_COLUMNS]
    chosen = {*captions, *splits, *labels}
    flags = _flag_columns([c for c in columns if c not in chosen], wanted)
    chosen |= {*flags}
    _add_captions(name, captions, result)
    for column in splits:
        _read_splits(name, column, result)
    _add_labels(name, labels, result)
    _add_attributes(name, flags, result)
    left_out: dict[str, list[str]] = {}
    for column in columns:
        if column not in chosen:
            left_out.setdefault(column.table.name, []).append(column.key)
    for table_name, keys in left_out.items():
        result.notes.append(f"columns of {table_name} that are left out: {listed(keys)}")
    for key in wanted:
        known = result.fields.get("attributes")
        if not isinstance(known, Attributes) or key not in known.names:
            flag_names = ", ".join(known.names) if isinstance(known, Attributes) else "none"
            raise ValueError(f"{name}: attributes: no column '{key}' of 0 and 1; there are {flag_names}")
    return result


class Names:
    """From the names in a table to images: by path, by file name, by file name without suffix; only if one image has
    it. ``inside``: the images that the table may call by a name without folders."""

    def __init__(self, by_path: Mapping[str, str], inside: Sequence[File]):
        self.by_path = by_path
        self.by_name: dict[str, str | None] = {}
        for image in inside:
            base = PurePosixPath(image.name)
            for short in {base.name, base.stem, image.stem}:
                self.by_name[short] = None if short in self.by_name else image.name

    def find(self, value: Any, folders: Sequence[str] = ()) -> str | None:
        """The image that a value of a table names, None if it names none."""
        if not isinstance(value, str):
            return None
        text = value.strip().replace("\\", "/").removeprefix("./")
        inside = "/".join((*folders, text))
        return self.by_path.get(inside) or self.by_path.get(text) or self.by_name.get(text) or self._end(text)

    def _end(self, text: str) -> str | None:
        """For a longer path than ours: ``data/train/7.png`` for ``train/7.png`` or ``7.png``."""
        parts = PurePosixPath(text).parts
        ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
        return next((image for end in ends if (image := self.by_path.get(end) or self.by_name.get(end))), None)


class Scopes:
    """The images that a table is about: those in its folder and under it. One that has none there names any image."""

    def __init__(self, images: Sequence[File]):
        self.by_path = {image.name: image.name for image in images}
        self.by_folder: dict[tuple[str, ...], list[File]] = {(): [*images]}
        for image in images:
            folders = image.folders
            for depth in range(1, len(folders) + 1):
                self.by_folder.setdefault(folders[:depth], []).append(image)
        self._names: dict[tuple[str, ...], Names] = {}

    def images(self, table: File) -> list[File]:
        """The images in the table's folder."""
        return self.by_folder.get(table.folders, [])

    def names(self, table: File) -> Names:
        """How the table names images."""
        folder = table.folders if table.folders in self.by_folder else ()
        if folder not in self._names:
            self._names[folder] = Names(self.by_path, self.by_folder[folder])
        return self._names[folder]


# Reading files --------------------------------------------------------------------------------------------------------


def read_table(name: str, table: File) -> list[Row]:
    """The rows of a CSV or JSON file. Raises ValueError if it is damaged."""
    try:
        text = table.read().decode("utf-8-sig")
        if table.suffix in (".csv", ".tsv"):
            return _csv_rows(text, table.suffix)
        if table.suffix == ".jsonl":
            return _objects(json.loads(line) for line in text.splitlines() if line.strip())
        return _json_rows(json.loads(text))
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise ValueError(f"{name}: {table.name} can't be read: {' '.join(str(error).split())[:120]}; "
                         f"repair it, or leave all tables out with {name}?labels=no") from None  # fmt: skip


def _csv_rows(text: str, suffix: str) -> list[Row]:
    first = text.split("\n", 1)[0]
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    lines = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if not lines:
        return []
    header = [cell.strip() for cell in lines[0]]
    if any(PurePosixPath(cell).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") for cell in header):
        header, lines = _guess_header(lines), [[], *lines]  # no header: an image is named in the first line
    for number, row in enumerate(lines[1:], 2):
        if len(row) != len(header):
            raise ValueError(f"line {number} has {len(row)} columns, its header {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in lines[1:]]


def _guess_header(lines: Sequence[Sequence[str]]) -> list[str]:
    """Names of the columns of a table without a header: the second is a caption if it has words, else a label."""
    second = [row[1] for row in lines if len(row) > 1]
    kind = "caption" if any(" " in text.strip() for text in second) else "label"
    return ["image", kind, *(f"column{i}" for i in range(2, len(lines[0])))][: len(lines[0])]


def _objects(content: Iterable[Any]) -> list[Row]:
    """Values of JSON as rows; what is no object is a row that names no image."""
    return [row if isinstance(row, dict) else {} for row in content]


def _json_rows(content: Any) -> list[Row]:
    if isinstance(content, list):
        return _objects(content)
    if not isinstance(content, dict):
        return []
    labels, images, annotations = (content.get(key) for key in ("labels", "images", "annotations"))
    if isinstance(labels, list):  # StyleGAN
        pairs = [row if isinstance(row, list) and len(row) == 2 else (None, None) for row in labels]
        return [{"image": image, "label": label} for image, label in pairs]
    if isinstance(annotations, list) and isinstance(images, list):
        return _coco_rows(images, annotations)
    rows: list[Row] = []
    for image, value in content.items():
        if isinstance(value, dict):
            rows.append({"image": image, **value})
        else:
            texts = isinstance(value, str) or (
                isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
            )
            rows.append({"image": image, "caption" if texts else "label": value})
    return rows


def _coco_rows(images: Sequence[Any], annotations: Sequence[Any]) -> list[Row]:
    """A row for each caption; it names no image if no entry of ``images`` has its id. Raises ValueError for an entry
    that is not as in COCO."""
    for number, entry in enumerate(images):
        _check_entry(f"images: entry {number}", entry, {"id": (str, int, float), "file_name": (str,)})
    for number, entry in enumerate(annotations):
        captioned = isinstance(entry, dict) and "caption" in entry
        _check_entry(f"annotations: entry {number}", entry, {"image_id": (str, int, float)} if captioned else {})
    files = {image["id"]: image["file_name"] for image in images}
    return [{"image": files.get(a["image_id"]), "caption": a["caption"]} for a in annotations if "caption" in a]


def _check_entry(place: str, entry: Any, types: Mapping[str, tuple[type, ...]]) -> None:
    """Raises ValueError if ``entry`` is no object with values of these types."""
    if not isinstance(entry, dict):
        raise ValueError(f"{place} must be an object, got {json.dumps(entry)[:40]}")
    for key, kinds in types.items():
        if key not in entry:
            raise ValueError(f"{place} has no {key}")
        if not isinstance(entry[key], kinds):
            expected = "text or a number" if int in kinds else "text"
            raise ValueError(f"{place}: {key} must be {expected}, got {json.dumps(entry[key])[:40]}")


def columns_of(rows: Iterable[Row]) -> list[str]:
    """The columns of a table, in their order: JSON may leave some out of a row."""
    return [*dict.fromkeys(key for row in rows for key in row)]


def image_column(rows: Sequence[Row], names: Names, table: File) -> str | None:
    """The column whose values name images, most of them; None if no column names any."""
    best, column = (0, 0), None
    for key in columns_of(rows):
        texts = [text for row in rows if isinstance(text := row.get(key), str)]
        images = [text for text in texts if names.find(text, table.folders)]
        count = (
            sum(bool(PurePosixPath(text).suffix) for text in images),
            len(images),
        )  # a class may be "1", as "1.png"
        if count > best:
            best, column = count, key
    return column


def _captions_of_texts(name: str, images: Sequence[File], texts: Sequence[File], result: Annotations) -> None:
    """The captions of text files beside the images."""
    by_stem = {text.stem: text for text in texts}
    having = [image for image in images if image.stem in by_stem]
    rest = len(texts) - len({image.stem for image in having})
    if rest:
        result.notes.append(f"{rest} text files have no image's name")
    if not having:
        return
    missing = [image.name for image in images if image.stem not in by_stem]
    if missing:
        raise ValueError(f"{name}: {len(missing)} of {len(images)} images have no caption in a .txt beside them: "
                         f"{listed(missing)}; add them, or leave all captions out with {name}?labels=no")  # fmt: skip
    for image in images:
        try:
            lines = by_stem[image.stem].read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{name}: {by_stem[image.stem].name} must be UTF-8 text") from None
        except OSError as error:
            raise ValueError(f"{name}: {by_stem[image.stem].name} can't be read: {error.strerror or error}; "
                             f"repair it, or leave all captions out with {name}?labels=no") from None  # fmt: skip
        result.values.setdefault(image.name, {})["caption"] = [line.strip() for line in lines if line.strip()]


# From rows to fields --------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Column:
    """One column of a table. ``key``: its name; ``rows``: of the table, by image."""

    table: File
    key: str
    rows: Mapping[str, Sequence[Row]]

    @property
    def kind(self) -> str:
        return self.key.casefold()

    @functools.cached_property
    def differs(self) -> bool:
        """Whether it differs among the rows of an image."""
        return any(len({str(row.get(self.key)) for row in group}) > 1 for group in self.rows.values() if len(group) > 1)

    def values(self) -> Iterator[tuple[str, Any]]:
        """Each image and its value, that of its first row."""
        for image, group in self.rows.items():
            yield image, group[0].get(self.key)


def _read_columns(name: str, table: File, scopes: Scopes, result: Annotations) -> list[Column]:
    """The columns of a table, except the one that names images; none if it names none of them."""
    rows, names = read_table(name, table), scopes.names(table)
    column = image_column(rows, names, table)
    if column is None:
        result.notes.append(f"{table.name} names none of the images")
        return []
    by_image: dict[str, list[Row]] = {}
    unknown = 0
    for row in rows:
        image = names.find(row.get(column), table.folders)
        if image is None:
            unknown += 1
        else:
            by_image.setdefault(image, []).append(row)
    if unknown:
        result.notes.append(f"{unknown} rows of {table.name} name no image here")
    images = scopes.images(table)
    missing = [image.name for image in images if image.name not in by_image]
    if missing:
        raise ValueError(f"{name}: {table.name} has no row for {len(missing)} of {len(images)} images: "
                         f"{listed(missing)}; add them, or leave all tables out with {name}?labels=no")  # fmt: skip
    return [Column(table, key, by_image) for key in columns_of(rows) if key != column]


def _add_captions(name: str, columns: Sequence[Column], result: Annotations) -> None:
    """Those of the tables after those of text files."""
    for column in columns:
        for image, group in column.rows.items():
            texts = result.values.setdefault(image, {}).setdefault("caption", [])
            for row in group:
                value = row.get(column.key)
                several = value if isinstance(value, list) else [value]
                texts += [text.strip() for text in several if isinstance(text, str) and text.strip()]
    captions = {image: values["caption"] for image, values in result.values.items() if "caption" in values}
    empty = [image for image, texts in captions.items() if not texts]
    if empty:
        raise ValueError(f"{name}: {len(empty)} images have an empty caption: {listed(empty)}")
    if captions:
        result.fields["caption"] = Text(max(map(len, captions.values())))


def _flag_columns(columns: Sequence[Column], wanted: Sequence[str]) -> list[Column]:
    """The columns that are attributes: of 0 and 1 in each table that has them."""
    by_key: dict[str, list[Column]] = {}
    for column in columns:
        by_key.setdefault(column.key, []).append(column)
    flags = []
    for key, group in by_key.items():
        if not wanted or key in wanted:
            plain = all(not c.differs and all(_flag(value) is not None for _, value in c.values()) for c in group)
            flags += group if plain else []
    return flags


def _add_attributes(name: str, columns: Sequence[Column], result: Annotations) -> None:
    """Raises ValueError if a column is missing in one of several tables."""
    if not columns:
        return
    keys = [*dict.fromkeys(column.key for column in columns)]
    flags: dict[str, list[int | None]] = {}
    for column in columns:
        position = keys.index(column.key)
        for image, value in column.values():
            flags.setdefault(image, [None] * len(keys))[position] = _flag(value)
    for image, values in flags.items():
        if None in values:
            key = keys[values.index(None)]
            owner = next(c.table.name for c in columns if c.key == key)
            other = next(c.table.name for c in columns if image in c.rows)
            common = [k for i, k in enumerate(keys) if all(row[i] is not None for row in flags.values())]
            option = f"attributes={','.join(common)}" if common else "labels=no"
            raise ValueError(
                f"{name}: the column '{key}' of {owner} is missing in {other}; add it, or use {name}?{option}"
            )
        result.values.setdefault(image, {})["attributes"] = values
    result.fields["attributes"] = Attributes(tuple(keys))


def _flag(value: Any) -> int | None:
    text = str(value).strip().casefold()
    return FLAGS.get(text.removesuffix(".0"))


def _read_splits(name: str, column: Column, result: Annotations) -> None:
    for image, value in column.values():
        text = str(value).strip().casefold()
        split = SPLITS.get(text) or NUMBERED_SPLITS.get(text)
        if split is None:
            raise ValueError(f"{name}: {column.key} of {image} in {column.table.name} must be train, val, test or "
                             f"0, 1, 2, got {repr(value)[:40]}")  # fmt: skip
        result.splits[image] = split


def _add_labels(name: str, columns: Sequence[Column], result: Annotations) -> None:
    """Classes, of all tables together. If an image has several labels the last one counts.

    Raises ValueError if tables have their labels in columns of different names.
    """
    labels: dict[str, Any] = {}
    owners: dict[str, Column] = {}
    for column in columns:
        for image, value in column.values():
            labels[image], owners[image] = value, column
    if not labels:
        return
    first, *others = {owner.kind: owner for owner in owners.values()}.values()
    if others:
        raise ValueError(f"{name}: labels must be in one column, got '{first.key}' of {first.table.name} and "
                         f"'{others[0].key}' of {others[0].table.name}")  # fmt: skip
    for image, value in labels.items():
        if isinstance(value, dict):
            owner = owners[image]
            raise ValueError(f"{name}: {owner.key} of {image} in {owner.table.name} must be text or a number, got "
                             f"{json.dumps(value)[:40]}")  # fmt: skip
    several = next((value for value in labels.values() if isinstance(value, list)), None)
    if several is not None:  # several classes at once
        count = len(several)
        for image, value in labels.items():
            if not isinstance(value, list) or len(value) != count or not all(v in (0, 1) for v in value):
                owner = owners[image]
                raise ValueError(f"{name}: {owner.key} in {owner.table.name} must be one class, or {count} numbers "
                                 "0 or 1")  # fmt: skip
        labels = {image: [int(v) for v in value] for image, value in labels.items()}
        if all(sum(value) == 1 for value in labels.values()):
            labels = {image: value.index(1) for image, value in labels.items()}
        else:
            result.fields["attributes"] = Attributes(tuple(map(str, range(count))))
            for image, value in labels.items():
                result.values.setdefault(image, {})["attributes"] = value
            return
    names = class_names(labels.values())
    result.fields["y"] = Label(names)
    numbers = {value: i for i, value in enumerate(names)}
    for image, value in labels.items():
        result.values.setdefault(image, {})["y"] = numbers.get(str(value).strip(), -1)


def class_names(values: Iterable[Any]) -> tuple[str, ...]:
    """The distinct labels in natural order; an empty one, None and -1 are "no label"."""
    distinct = {str(value).strip() for value in values if value is not None}
    return tuple(sorted(distinct - {"", "-1"}, key=natural))
