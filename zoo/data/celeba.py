"""CelebA from the official files, through torchvision, or from finished crops with a table: with the same fields."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, ImageSet, MapDataset, Row, Rows, Source
from zoo.data.fields import Attributes, Image, Text
from zoo.data.files import File, open_archive
from zoo.data.images import read
from zoo.data.sentences import COUNT, sentences
from zoo.data.sources import manual_folder, torchvision
from zoo.registry import DATASETS

if TYPE_CHECKING:
    from PIL import Image as pil

ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)

PAGE = "mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
TABLES = ("list_attr_celeba.txt", "list_eval_partition.txt")
SPLITS = ("train", "valid", "test")  # of the partition 0, 1, 2
SIDE = 148  # pixels at the center of 178 x 218: the face without much of what is around it
CROPS = "attributes.csv"


def crop(image: pil.Image) -> pil.Image:
    """The center 148 x 148 of an aligned image."""
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return image.crop((left, top, left + SIDE, top + SIDE))


def with_captions(image: Any, attributes: Sequence[int]) -> Row:
    """The row of an image: its attributes, and sentences made of them."""
    flags = [int(value) for value in attributes]
    return {"x": image, "attributes": flags, "caption": sentences(dict(zip(ATTRIBUTES, flags, strict=True)))}


def _torchvision() -> Source:
    """torchvision's files."""

    def build(datasets: ModuleType, root: Path, split: str, download: bool) -> MapDataset:
        dataset: MapDataset = datasets.CelebA(root, split, target_type="attr", transform=crop, download=download)
        return dataset

    source = torchvision("celeba", build, label="attributes", manual=False)

    def rows(root: Path, split: str) -> Rows:
        plain = source.read(root, split)
        return dataclasses.replace(plain, rows=(with_captions(row["x"], row["attributes"]) for row in plain.rows))

    return dataclasses.replace(source, read=rows)


def _present(root: Path) -> str:
    return ", ".join(sorted(path.name for path in root.glob("*"))) or "nothing"


# The official files ---------------------------------------------------------------------------------------------------


def _official(folder: Path) -> Path:
    """The folder into which a user has put CelebA's files, in torchvision's layout or without its inner folder. Raises
    OSError with the names of the files if they are not there."""
    root = manual_folder("celeba")
    for place in (root, root / "celeba"):
        has_images = (place / "img_align_celeba.zip").is_file() or (place / "img_align_celeba").is_dir()
        if has_images and all((place / name).is_file() for name in TABLES):
            return place
    raise OSError(
        f"put img_align_celeba.zip (or its folder img_align_celeba), {' and '.join(TABLES)} from {PAGE} "
        f"into {root} ($ZOO_RAW/celeba); it has {_present(root)}"
    )


def _official_rows(folder: Path, split: str) -> Rows:
    """The rows of a partition in the order of the tables."""
    attributes = (folder / TABLES[0]).read_text().splitlines()
    if tuple(attributes[1].split()) != ATTRIBUTES:
        raise OSError(f"{TABLES[0]}: its second line must have the 40 names of CelebA's attributes")
    flags = {(words := line.split())[0]: words[1:] for line in attributes[2:] if line.strip()}
    partition = str(SPLITS.index(split))
    lines = (line.split() for line in (folder / TABLES[1]).read_text().splitlines() if line.strip())
    names = [name for name, number in lines if number == partition]
    archive = folder / "img_align_celeba.zip"

    def rows() -> Iterator[Row]:
        for name in names:
            file = folder / "img_align_celeba" / name
            image = read(file if file.is_file() else File(name, archive, f"img_align_celeba/{name}").read(), 3)
            yield with_captions(crop(image), [int(flag == "1") for flag in flags[name]])

    return Rows(rows(), len(names))


# Finished crops -------------------------------------------------------------------------------------------------------


def _crops(folder: Path) -> Path:
    """The folder into which a user has put finished crops: attributes.csv and one zip. Raises OSError if they are not
    there."""
    root = manual_folder("celeba")
    archives = sorted(root.glob("*.zip"))
    if not (root / CROPS).is_file() or len(archives) != 1:
        raise OSError(
            f"or put finished crops into {root}: one zip of square images, and {CROPS} with the columns image, "
            f"partition (0 train, 1 valid, 2 test) and the 40 attributes as 0 or 1; it has {_present(root)}"
        )
    return root


def _crops_rows(folder: Path, split: str) -> Rows:
    """The rows of a partition whose images are in the zip, in the order of the table."""
    (archive,) = folder.glob("*.zip")
    members = set(open_archive(archive, archive.stat().st_mtime_ns).namelist())
    with open(folder / CROPS, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = {"image", "partition", *ATTRIBUTES} - {*(table.fieldnames or ())}
        if missing:
            raise OSError(f"{CROPS}: must have a column {sorted(missing)[0]}")
        lines = [row for row in table if row["partition"] == str(SPLITS.index(split)) and row["image"] in members]
    if not lines:
        raise OSError(f"{archive}: has no image of the split {split} of {CROPS}")

    def rows() -> Iterator[Row]:
        for line in lines:
            image = read(File(line["image"], archive, line["image"]).read(), 3)
            if image.width != image.height:
                raise OSError(f"{archive}: {line['image']} must be square, got {image.width}x{image.height}")
            yield with_captions(image, [int(line[name] == "1") for name in ATTRIBUTES])

    return Rows(rows(), len(lines), exact=False)  # a zip may have some of the images


@DATASETS.register("celeba")
def celeba() -> ImageSet:
    facts = Facts(
        name="celeba",
        title="CelebA, aligned faces (Liu et al. 2015)",
        fields={"x": Image(3, SIDE), "attributes": Attributes(ATTRIBUTES), "caption": Text(COUNT)},
        splits={"train": 162_770, "valid": 19_867, "test": 19_962},
        license="non-commercial research only",
        by_hand=True,
        cropped=True,
        about="40 attributes, 0 or 1; captions are templates filled with them. The center 148 x 148 of 178 x 218. Put "
        "img_align_celeba.zip (or its folder), list_attr_celeba.txt and list_eval_partition.txt into "
        "$ZOO_RAW/celeba, or a zip of finished crops and attributes.csv (image, partition, the attributes); "
        "fetching it needs gdown.",
    )

    sources = (
        Source("files by hand", _official, _official_rows),
        Source("finished crops", _crops, _crops_rows),
        _torchvision(),
    )
    return ImageSet(facts, sources, together=False)
