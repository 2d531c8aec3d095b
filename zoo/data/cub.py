"""Caltech-UCSD Birds 200-2011 with ten captions a bird: the original files, and crops of some classes with a table."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.facts import Facts, ImageSet, Row, Rows, Source
from zoo.data.fields import Image, Label, Text
from zoo.data.files import File, open_archive
from zoo.data.images import open_picture, read, to_pil
from zoo.data.sources import manual_folder
from zoo.registry import DATASETS

if TYPE_CHECKING:
    from PIL import Image as pil

CAPTIONS = 10  # a bird
RADIUS = 0.75  # of the square around a bird, in sides of its box: StackGAN's crop
LICENSE = "non-commercial research and education only; the photographs are Flickr users'"
IMAGES_PAGE = "data.caltech.edu/records/65de6-vp158"
CAPTIONS_PAGE = "github.com/reedscot/cvpr2016"
TEST_CLASSES = "testclasses.txt"
TABLE = "captions.csv"
FIRST_TEN = (
    "001.Black_footed_Albatross",
    "002.Laysan_Albatross",
    "003.Sooty_Albatross",
    "004.Groove_billed_Ani",
    "005.Crested_Auklet",
    "006.Least_Auklet",
    "007.Parakeet_Auklet",
    "008.Rhinoceros_Auklet",
    "009.Brewer_Blackbird",
    "010.Red_winged_Blackbird",
)


def crop(image: pil.Image, box: tuple[float, float, float, float]) -> pil.Image:
    """The square around a bird's box (left, top, width, height) with 1.5 times its longer side, cut off at the border
    of the image. What is cut off is stretched to a square, as StackGAN's code does."""
    left, top, width, height = box
    radius = int(max(width, height) * RADIUS)
    x, y = int(left + width / 2), int(top + height / 2)
    part = image.crop(
        (max(0, x - radius), max(0, y - radius), min(image.width, x + radius), min(image.height, y + radius))
    )
    side = max(part.size)
    return part if part.width == part.height else part.resize((side, side))


def _place(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these paths in a folder that exists."""
    return next((root / name for name in names if (root / name).exists()), None)


def _fetch_original(folder: Path) -> Path:
    """The folder into which a user has put the birds. Raises OSError with the names of the files that are missing."""
    root = manual_folder("cub")
    missing = [] if _images(root) else ["CUB_200_2011 (images/, images.txt, bounding_boxes.txt)"]
    missing += [] if _texts(root) else ["text_c10 (a .txt with ten captions an image)"]
    missing += [] if _test_classes(root) else [TEST_CLASSES]
    if missing:
        raise OSError(f"unpack CUB_200_2011.tgz from {IMAGES_PAGE} and the captions from {CAPTIONS_PAGE} into {root} "
                      f"($ZOO_RAW/cub); it lacks {', '.join(missing)}")  # fmt: skip
    return root


def _images(root: Path) -> Path | None:
    for folder in (root / "CUB_200_2011", root):
        if all((folder / name).exists() for name in ("images", "images.txt", "bounding_boxes.txt")):
            return folder
    return None


def _texts(root: Path) -> Path | None:
    return _place(root, ("text_c10", "cvpr2016_cub/text_c10", "birds/text_c10"))


def _test_classes(root: Path) -> Path | None:
    return _place(root, (TEST_CLASSES, f"cvpr2016_cub/{TEST_CLASSES}", f"text_c10/{TEST_CLASSES}"))


def _table(path: Path) -> dict[str, str]:
    """A table of the birds: the number of an image and the rest of the line."""
    pairs = (line.strip().partition(" ") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {number: rest for number, _, rest in pairs}


def _original_rows(root: Path, split: str) -> Rows:
    """The birds of the split's classes, in the order of images.txt. ``y``: the number of the class from 0."""
    images, texts, classes = _images(root), _texts(root), _test_classes(root)
    assert images and texts and classes  # see _fetch_original
    of_test = {line.strip() for line in classes.read_text(encoding="utf-8").splitlines() if line.strip()}
    names, boxes = _table(images / "images.txt"), _table(images / "bounding_boxes.txt")
    chosen = {k: name for k, name in names.items() if (name.split("/")[0] in of_test) == (split == "test")}

    def rows() -> Iterator[Row]:
        for number, name in chosen.items():
            left, top, width, height = map(float, boxes[number].split())
            with open_picture(images / "images" / name) as image:
                x = crop(to_pil(image, 3), (left, top, width, height))
            lines = (texts / name).with_suffix(".txt").read_text(encoding="utf-8", errors="replace").splitlines()
            captions = [line.strip() for line in lines if line.strip()][:CAPTIONS]
            if not captions:
                raise OSError(f"{(texts / name).with_suffix('.txt')}: must have captions, got none")
            yield {"x": x, "y": int(name[:3]) - 1, "caption": captions}

    return Rows(rows(), len(chosen), classes=tuple(sorted({name.split("/")[0] for name in names.values()})))


@DATASETS.register("cub")
def cub() -> ImageSet:
    facts = Facts(
        name="cub",
        title="Caltech-UCSD Birds 200-2011 (Wah et al. 2011) with captions (Reed et al. 2016)",
        fields={"x": Image(3, None), "y": Label(tuple(f"{k:03d}" for k in range(1, 201))), "caption": Text(CAPTIONS)},
        splits={"train": 8_855, "test": 2_933},
        license=LICENSE,
        about="Ten captions a bird; the square around its box with 1.5 times the longer side, cut off at the border "
        "and stretched. No class is in both splits (150 and 50). Put CUB_200_2011, text_c10 and testclasses.txt into "
        "$ZOO_RAW/cub.",
        features="efficientnet-lite0",
        by_hand=True,
    )
    return ImageSet(facts, (Source("files by hand", _fetch_original, _original_rows),))


# Crops of some classes ------------------------------------------------------------------------------------------------


def _fetch_crops(folder: Path) -> Path:
    """The folder into which a user has put finished crops: captions.csv and one zip. Raises OSError if they are not
    there."""
    root = manual_folder("cub10")
    if not (root / TABLE).is_file() or len([*root.glob("*.zip")]) != 1:
        present = ", ".join(sorted(path.name for path in root.glob("*"))) or "nothing"
        raise OSError(
            f"put finished crops of the first ten classes of {IMAGES_PAGE} into {root} ($ZOO_RAW/cub10): one zip of "
            f"square images, CLASS/NAME.jpg, and {TABLE} with a line a caption and the columns image, class, n, "
            f"caption; it has {present}"
        )
    return root


def _holdout(image: str) -> bool:
    """Whether an image is of the test split: a fixed tenth, by a hash of its name."""
    return int(hashlib.sha256(image.encode()).hexdigest()[:8], 16) % 10 == 0


def _crops_rows(root: Path, split: str) -> Rows:
    """The images of the split, in the order of the table."""
    (archive,) = root.glob("*.zip")
    members = set(open_archive(archive, archive.stat().st_mtime_ns).namelist())
    captions: dict[str, list[str]] = {}
    classes: dict[str, str] = {}
    with open(root / TABLE, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        missing = {"image", "class", "caption"} - {*(table.fieldnames or ())}
        if missing:
            raise OSError(f"{TABLE}: must have a column {sorted(missing)[0]}")
        for line in table:
            if line["image"] in members and _holdout(line["image"]) == (split == "test"):
                captions.setdefault(line["image"], []).append(line["caption"].strip())
                classes[line["image"]] = line["class"]
    unknown = {*classes.values()} - {*FIRST_TEN}
    if not captions or unknown:
        other = f"the class {min(unknown)}" if unknown else f"no image of {split}"
        raise OSError(f"{TABLE}: must name images of {archive.name}, of {FIRST_TEN[0]} to {FIRST_TEN[-1]}, got {other}")

    def rows() -> Iterator[Row]:
        for name, texts in captions.items():
            image = read(File(name, archive, name).read(), 3)
            if image.width != image.height:
                raise OSError(f"{archive}: {name} must be square, got {image.width}x{image.height}")
            yield {"x": image, "y": FIRST_TEN.index(classes[name]), "caption": texts}

    return Rows(rows(), len(captions), exact=False)  # a zip may have some of the images


@DATASETS.register("cub10")
def cub10() -> ImageSet:
    facts = Facts(
        name="cub10",
        title="The first ten classes of Caltech-UCSD Birds 200-2011 (Wah et al. 2011) with captions (Reed et al. 2016)",
        fields={"x": Image(3, 128), "y": Label(FIRST_TEN), "caption": Text(CAPTIONS)},
        splits={"train": 494, "test": 49},
        license=LICENSE,
        about="Finished crops, cut as those of cub, with ten captions each. The test split is a tenth of the birds, of "
        "the same classes. Put a zip of square images and captions.csv (image, class, n, caption) into "
        "$ZOO_RAW/cub10.",
        features="efficientnet-lite0",
        retrieval="char-cnn-rnn-cub10-hashed",
        by_hand=True,
    )
    return ImageSet(facts, (Source("finished crops", _fetch_crops, _crops_rows),))
