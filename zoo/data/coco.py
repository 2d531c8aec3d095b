"""Photographs with captions: COCO, read from the archives of its authors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from zoo.data.facts import Facts, ImageSet, Row, Rows, Source
from zoo.data.fields import Image, Text
from zoo.data.sources import fetch_manual
from zoo.registry import DATASETS

ARCHIVES = "train2014.zip, val2014.zip and annotations_trainval2014.zip of cocodataset.org"


def _rows(folder: Path, split: str) -> Rows:
    """The photographs in the order of their numbers, each with all its captions."""
    table = folder / "annotations" / f"captions_{split}2014.json"
    if not table.is_file():
        raise OSError(f"{table} is missing")
    content = json.loads(table.read_text(encoding="utf-8"))
    captions: dict[int, list[str]] = {}
    for entry in sorted(content["annotations"], key=lambda entry: entry["id"]):
        captions.setdefault(entry["image_id"], []).append(" ".join(entry["caption"].split()))
    files = sorted((entry["id"], entry["file_name"]) for entry in content["images"])

    def rows() -> Iterator[Row]:
        for number, name in files:
            yield {"x": (folder / f"{split}2014" / name).read_bytes(), "caption": captions.get(number, [])}

    return Rows(rows(), len(files))


@DATASETS.register("coco")
def coco() -> ImageSet:
    facts = Facts(
        name="coco",
        title="COCO 2014 (Lin et al. 2014), with captions (Chen et al. 2015)",
        fields={"x": Image(3, None), "caption": Text(5)},
        splits={"train": 82_783, "val": 40_504},
        license="captions CC BY 4.0; photographs from Flickr, under licenses of their own",
        about="Read from $ZOO_RAW/coco: the folders train2014, val2014 and annotations. At least five captions each.",
    )
    return ImageSet(facts, (Source("archives", partial(fetch_manual, "coco", origin=ARCHIVES), _rows),), large=True)
