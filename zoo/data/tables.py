"""Captions, labels, attributes and splits of a user's images, from text files and tables beside them. Needs no torch.

- A text file with an image's name (``7.txt`` for ``7.png``) has its captions, one a line.
- A CSV (or TSV) has a column of file names and a row for each image, or several with a caption each.
- JSON is a list of objects with a file name each (JSON lines too), an object from file names to captions, classes or
  objects, ``{"labels": [[name, class], ...]}`` as in StyleGAN's sets, or COCO's captions.

Columns are read by their names: ``split``, ``partition``, ``set`` or ``subset`` (names, or 0, 1, 2 for train, val,
test); ``caption``, ``text``, ``description`` or ``prompt``; ``label``, ``class``, ``category`` or ``target``. All other
columns of 0 and 1 (or -1 and 1, or true and false) are attributes, in their order; the rest is left out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
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
IMAGE = "\0image"  # the column of a table that names images

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

    Raises ValueError for a table that cannot be read or has no row for some images.
    """
    result = Annotations()
    _captions_of_texts(name, images, texts, result)
    names = Names(images)
    for table in tables:
        rows = read_table(name, table)
        column = image_column(rows, names, table)
        if column is None:
            result.notes.append(f"{table.name} names none of the images")
            continue
        if table.path.name != table.name and not table.member:  # a table in a folder names that folder's images
            inside = [i for i in images if i.name.startswith("/".join(table.folders) + "/")]
        else:
            inside = list(images)
        _read_rows(name, table, rows, column, names, inside, result, wanted)
    for key in wanted:
        known = result.fields.get("attributes")
        if not isinstance(known, Attributes) or key not in known.names:
            columns = ", ".join(known.names) if isinstance(known, Attributes) else "none"
            raise ValueError(f"{name}: attributes: no column '{key}' of 0 and 1; there are {columns}")
    return result


class Names:
    """From the names in a table to images: by path, by file name, by file name without suffix; only if one image has
    it."""

    def __init__(self, images: Sequence[File]):
        self.by_path = {image.name: image.name for image in images}
        self.by_name: dict[str, str | None] = {}
        for image in images:
            base = PurePosixPath(image.name)
            for short in {base.name, base.stem, image.stem}:
                self.by_name[short] = None if short in self.by_name else image.name

    def find(self, value: Any, folders: Sequence[str] = ()) -> str | None:
        text = str(value).strip().replace("\\", "/").removeprefix("./")
        inside = "/".join((*folders, text))
        return self.by_path.get(inside) or self.by_path.get(text) or self.by_name.get(text) or self._end(text)

    def _end(self, text: str) -> str | None:
        """For a longer path than ours: ``data/train/7.png`` for ``train/7.png`` or ``7.png``."""
        parts = PurePosixPath(text).parts
        ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
        return next((image for end in ends if (image := self.by_path.get(end) or self.by_name.get(end))), None)


# Reading files --------------------------------------------------------------------------------------------------------


def read_table(name: str, table: File) -> list[Row]:
    """The rows of a CSV or JSON file. Raises ValueError if it is damaged."""
    try:
        text = table.read().decode("utf-8-sig")
        if table.suffix in (".csv", ".tsv"):
            return _csv_rows(text, table.suffix)
        if table.suffix == ".jsonl":
            return [row for line in text.splitlines() if line.strip() and isinstance(row := json.loads(line), dict)]
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


def _json_rows(content: Any) -> list[Row]:
    if isinstance(content, list):
        return [row for row in content if isinstance(row, dict)]
    if not isinstance(content, dict):
        return []
    labels, annotations = content.get("labels"), content.get("annotations")
    if isinstance(labels, list):  # StyleGAN
        return [{"image": row[0], "label": row[1]} for row in labels if isinstance(row, list) and len(row) == 2]
    if isinstance(annotations, list) and isinstance(content.get("images"), list):  # COCO
        files = {image["id"]: image["file_name"] for image in content["images"]}
        return [{"image": files[a["image_id"]], "caption": a["caption"]} for a in annotations if "caption" in a]
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


def image_column(rows: Sequence[Row], names: Names, table: File) -> str | None:
    """The column whose values name images, most of them; None if no column names any."""
    best, column = (0, 0), None
    for key in rows[0] if rows else ():
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
        except ValueError:
            raise ValueError(f"{name}: {by_stem[image.stem].name} must be UTF-8 text") from None
        result.values.setdefault(image.name, {})["caption"] = [line.strip() for line in lines if line.strip()]
    _add_captions(name, result)


def _add_captions(name: str, result: Annotations) -> None:
    empty = [image for image, values in result.values.items() if not values.get("caption")]
    if empty:
        raise ValueError(f"{name}: {len(empty)} images have an empty caption: {listed(empty)}")
    result.fields["caption"] = Text(max(len(values["caption"]) for values in result.values.values()))


# From rows to fields --------------------------------------------------------------------------------------------------


def _read_rows(
    name: str,
    table: File,
    rows: Sequence[Row],
    column: str,
    names: Names,
    images: Sequence[File],
    result: Annotations,
    wanted: Sequence[str],
) -> None:
    by_image: dict[str, list[Row]] = {}
    unknown = 0
    for row in rows:
        image = names.find(row.get(column, ""), table.folders)
        if image is None:
            unknown += 1
        else:
            by_image.setdefault(image, []).append(row)
    if unknown:
        result.notes.append(f"{unknown} rows of {table.name} name no image here")
    missing = [image.name for image in images if image.name not in by_image]
    if missing:
        raise ValueError(f"{name}: {table.name} has no row for {len(missing)} of {len(images)} images: "
                         f"{listed(missing)}; add them, or leave all tables out with {name}?labels=no")  # fmt: skip
    columns = [key for key in rows[0] if key != column]
    left_out, flags = [], []
    for key in columns:
        values = {image: [row.get(key) for row in group] for image, group in by_image.items()}
        kind = key.casefold()
        if kind in TEXT_COLUMNS:
            for image, group in values.items():
                texts = [text for value in group for text in (value if isinstance(value, list) else [value])]
                known = result.values.setdefault(image, {}).setdefault("caption", [])
                known += [text.strip() for text in texts if isinstance(text, str) and text.strip()]
            _add_captions(name, result)
            continue
        if any(len(set(map(str, group))) > 1 for group in values.values()):
            left_out.append(key)  # it differs among the rows of an image
            continue
        single = {image: group[0] for image, group in values.items()}
        if kind in SPLIT_COLUMNS and key not in wanted:
            _read_splits(name, table, key, single, result)
        elif kind in LABEL_COLUMNS:
            _read_labels(name, table, key, single, result)
        elif (not wanted or key in wanted) and all(_flag(value) is not None for value in single.values()):
            flags.append((key, single))
        else:
            left_out.append(key)
    if flags:
        result.fields["attributes"] = Attributes(tuple(key for key, _ in flags))
        for image in by_image:
            result.values.setdefault(image, {})["attributes"] = [_flag(single[image]) for _, single in flags]
    if left_out:
        result.notes.append(f"columns of {table.name} that are left out: {listed(left_out)}")


def _flag(value: Any) -> int | None:
    text = str(value).strip().casefold()
    return FLAGS.get(text.removesuffix(".0"))


def _read_splits(name: str, table: File, key: str, single: Mapping[str, Any], result: Annotations) -> None:
    for image, value in single.items():
        text = str(value).strip().casefold()
        split = SPLITS.get(text) or NUMBERED_SPLITS.get(text)
        if split is None:
            raise ValueError(f"{name}: {key} of {image} in {table.name} must be train, val, test or 0, 1, 2, "
                             f"got {value!r}")  # fmt: skip
        result.splits[image] = split


def _read_labels(name: str, table: File, key: str, single: Mapping[str, Any], result: Annotations) -> None:
    first = next(iter(single.values()))
    if isinstance(first, list):  # several classes at once
        count = len(first)
        if any(not isinstance(v, list) or len(v) != count or set(v) - {0, 1} for v in single.values()):
            raise ValueError(f"{name}: {key} in {table.name} must be one class, or {count} numbers 0 or 1")
        if all(sum(v) == 1 for v in single.values()):
            single = {image: value.index(1) for image, value in single.items()}
        else:
            result.fields["attributes"] = Attributes(tuple(map(str, range(count))))
            for image, value in single.items():
                result.values.setdefault(image, {})["attributes"] = value
            return
    names = class_names(single.values())
    result.fields["y"] = Label(names)
    numbers = {value: i for i, value in enumerate(names)}
    for image, value in single.items():
        result.values.setdefault(image, {})["y"] = numbers.get(str(value).strip(), -1)


def class_names(values: Iterable[Any]) -> tuple[str, ...]:
    """The distinct labels in natural order; an empty one, None and -1 are "no label"."""
    distinct = {str(value).strip() for value in values if value is not None}
    return tuple(sorted(distinct - {"", "-1"}, key=natural))
