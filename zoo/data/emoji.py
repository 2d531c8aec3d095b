"""Emoji: the same drawings by several artists, true pairs across styles.

The number of a drawing, the label ``glyph``, is its place among the code points of all emoji, so that it is the same in
every style, split and set. A fixed tenth of the drawings, with all their skin tones, is the test split.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.data.facts import Facts, ImageSet, Row, Rows, Source
from zoo.data.fields import Image, Label, Text
from zoo.data.images import open_picture, square, to_pil
from zoo.data.sources import npm_pack, unpack
from zoo.registry import DATASETS

if TYPE_CHECKING:
    from PIL import Image as PilImage

SIDE = 64  # of the images, in pixels
CATEGORIES = (
    "smileys & emotion",
    "people & body",
    "component",
    "animals & nature",
    "food & drink",
    "travel & places",
    "activities",
    "objects",
    "symbols",
    "flags",
)
SKIN = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
TABLE = "emoji_pretty.json"  # names and categories, in the package of the first style


@dataclass(frozen=True)
class Style:
    """One artist's drawings.

    Args:
        title: with the license.
        package: of npm, with its version.
        files: a pattern of the names of the files to unpack.
        picture: ``picture(folder, code_points)`` opens one drawing, ``code_points`` as "1f469-200d-1f680"; None if the
            style lacks it.
    """

    title: str
    package: str
    files: str
    picture: Callable[[Path, str], PilImage.Image | None]


def _picture(folder: Path, code_points: str, name: str) -> PilImage.Image | None:
    """A picture in a file of its own on white, at SIDE pixels."""
    path = folder / name.format(code_points)
    if not path.exists():
        return None
    with open_picture(path) as image:
        return square(to_pil(image, 3), SIDE)


def _pictures(title: str, package: str, name: str) -> Style:
    """A style whose package has a picture of each drawing under ``name``, in which {} stands for the code points."""
    files = "|".join((re.escape(name).replace(r"\{\}", "[0-9a-f-]+"), re.escape(TABLE)))
    return Style(title, package, files, partial(_picture, name=name))


STYLES = {
    "twemoji": _pictures("Twemoji CC BY 4.0", "emoji-datasource-twitter@16.0.0", "img/twitter/64/{}.png"),
    "noto": _pictures("Noto Emoji Apache-2.0", "emoji-datasource-google@16.0.0", "img/google/64/{}.png"),
    "fluent3d": _pictures("Fluent Emoji MIT", "@lobehub/fluent-emoji-3d@1.1.0", "assets/{}.webp"),
}


def _fetch(folder: Path, styles: Sequence[str]) -> Path:
    """Unpack the package of each style into a folder of its name."""
    for style in styles:
        pattern = re.compile(f"package/({STYLES[style].files})")
        (folder / style).mkdir()
        unpack(npm_pack(STYLES[style].package, folder / style), folder / style, pattern.fullmatch)
    return folder


def _holdout(file: str) -> bool:
    """Whether a drawing is of the test split: a fixed tenth, by a hash of the file name of the drawing without skin
    tone."""
    return int(hashlib.sha256(file.encode()).hexdigest()[:8], 16) % 10 == 0


@dataclass(frozen=True, order=True)
class Glyph:
    """An emoji, whoever draws it. ``y``: its category."""

    file: str
    y: int
    caption: str
    split: str

    @property
    def code_points(self) -> str:
        return self.file.removesuffix(".png")


def glyphs(table: Path) -> list[Glyph]:
    """All emoji in the order of their code points. All skin tones of a drawing are in one split, since they are nearly
    the same picture."""
    every = []
    for entry in json.loads(table.read_text(encoding="utf-8")):
        split = "test" if _holdout(entry["image"]) else "train"
        y, name = CATEGORIES.index(entry["category"].lower()), (entry["name"] or entry["short_name"]).lower()
        every.append(Glyph(entry["image"], y, name, split))
        for tones, variation in entry.get("skin_variations", {}).items():
            skin = " and ".join(SKIN[tone] for tone in tones.split("-"))
            every.append(Glyph(variation["image"], y, f"{name}, {skin} skin tone", split))
    return sorted(every)


def _rows(folder: Path, split: str, styles: Sequence[str], count: int) -> Rows:
    """Each drawing of the split in each style that has it, in turn."""

    def rows() -> Iterator[Row]:
        for number, glyph in enumerate(glyphs(folder / styles[0] / "package" / TABLE)):
            for domain, style in enumerate(styles if glyph.split == split else ()):
                image = STYLES[style].picture(folder / style / "package", glyph.code_points)
                if image is not None:
                    yield {"x": image, "y": glyph.y, "domain": domain, "caption": glyph.caption, "glyph": number}

    return Rows(rows(), count)


def _set(name: str, styles: Sequence[str], splits: dict[str, int], digest: dict[str, str], about: str) -> ImageSet:
    """The set of some styles, which are its domains. ``splits``: the number of images of each."""
    domains = Label(tuple(styles))
    facts = Facts(
        name=name,
        title=f"Emoji in {len(styles)} styles: {', '.join(STYLES[s].title.rsplit(maxsplit=1)[0] for s in styles)}",
        fields={"x": Image(3, SIDE), "y": Label(CATEGORIES), "domain": domains, "caption": Text(), "glyph": Label()},
        splits=splits,
        license=", ".join(f"{STYLES[style].title} (domain {k})" for k, style in enumerate(styles)),
        about=f"On white. {about}",
        paired=True,
        pair_key="glyph",
    )
    packages = ", ".join(STYLES[style].package for style in styles)
    fetch = partial(_fetch, styles=styles)

    def read(folder: Path, split: str) -> Rows:
        return _rows(folder, split, styles, splits[split])

    return ImageSet(facts, (Source(f"npm {packages}", fetch, read, digest),))


@DATASETS.register("emoji")
def emoji() -> ImageSet:
    return _set(
        "emoji",
        ("twemoji", "noto", "fluent3d"),
        {"train": 9_719, "test": 1_225},
        {
            "train": "49e4d9c50c00f020a9aa382a074793e1a2e2401349546c6839286858a3019e65",
            "test": "896da01c62e320e61a7b4416406901a6e10eed88a7ae2ae7048e26040a0d8a46",
        },
        "Domain 0 is twemoji, 1 noto, 2 fluent3d, which lacks some; rows of equal glyph are the same emoji, one a "
        "style. The test split is a tenth of the drawings, the same ones in every style.",
    )
