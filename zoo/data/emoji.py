"""Emoji: the same drawings by several artists, true pairs across styles.

The number of a drawing, the label ``glyph``, is its place among the code points of all emoji, so that it is the same in
every style, split and set. A fixed tenth of the drawings, with all their skin tones, is the test split. The captions
are a drawing's label, such as "red heart", alone and with tags ("red heart, love").
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
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
WORDS = "emojibase-data@17.0.0"  # the package of labels and tags, from Unicode's CLDR
CAPTIONS = 3  # of a drawing, at most
TAGS = 4  # in a caption, at most


@dataclass(frozen=True)
class Style:
    """One artist's drawings.

    Args:
        title: the name of the whole.
        license: of the drawings.
        package: of npm, with its version.
        files: a pattern of the files to unpack.
        drawings: ``drawings(folder)`` returns what there is of an unpacked package: pictures as paths, vector graphics
            as SVG text, by code points without variation selectors ("1f469-200d-1f680").
        svg: whether they are vector graphics, which need a rasterizer.
    """

    title: str
    license: str
    package: str
    files: str
    drawings: Callable[[Path], Mapping[str, Path | str]]
    svg: bool = False


def plain(code_points: str) -> str:
    """Code points without variation selectors, which packages write or leave out, in lower case."""
    return "-".join(part for part in code_points.lower().split("-") if part != "fe0f")


def _pictures(folder: Path, name: str) -> dict[str, Path | str]:
    """The files called ``name``, in which * stands for the code points. Of two for one emoji that with a variation
    selector is read."""
    return {plain(path.stem): path for path in sorted(folder.glob(name), key=lambda path: path.stem)}


def _vector_files(folder: Path, name: str) -> dict[str, Path | str]:
    """The same for SVG files."""
    return {plain(path.stem): path.read_text(encoding="utf-8") for path in sorted(folder.glob(name))}


def _icons(folder: Path) -> dict[str, Path | str]:
    """The icons of an Iconify package: SVG bodies by name, some of which mirror others, and names by code points."""
    table = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    names = json.loads((folder / "chars.json").read_text(encoding="utf-8"))

    def svg(name: str) -> str:
        alias = table["aliases"].get(name, {})
        icon = table["icons"][alias.get("parent", name)]
        width, height = (icon.get(key, table[key]) for key in ("width", "height"))
        turned = f"translate({width} 0) scale(-1 1)" if alias.get("hFlip") else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}"><g transform="{turned}">{icon["body"]}</g></svg>'
        )

    return {plain(code_points): svg(name) for code_points, name in names.items()}


STYLES = {
    "twemoji": Style(
        "Twemoji",
        "CC BY 4.0",
        "emoji-datasource-twitter@16.0.0",
        r"emoji_pretty\.json|img/twitter/64/[0-9a-f-]+\.png",
        partial(_pictures, name="img/twitter/64/*.png"),
    ),
    "noto": Style(
        "Noto Emoji",
        "Apache-2.0",
        "emoji-datasource-google@16.0.0",
        r"img/google/64/[0-9a-f-]+\.png",
        partial(_pictures, name="img/google/64/*.png"),
    ),
    "fluent3d": Style(
        "Fluent Emoji 3D",
        "MIT",
        "@lobehub/fluent-emoji-3d@1.1.0",
        r"assets/[0-9a-f_-]+\.webp",
        partial(_pictures, name="assets/*.webp"),
    ),
    "openmoji": Style(
        "OpenMoji",
        "CC BY-SA 4.0",
        "openmoji@17.0.0",
        r"color/svg/[0-9A-F-]+\.svg",
        partial(_vector_files, name="color/svg/*.svg"),
        svg=True,
    ),
    "fluentflat": Style(
        "Fluent Emoji Flat",
        "MIT",
        "@iconify-json/fluent-emoji-flat@1.2.6",
        r"(icons|chars)\.json",
        _icons,
        svg=True,
    ),
}


def rasterizer() -> ModuleType:
    """The library that draws SVG. Raises OSError if it is not installed."""
    try:
        import resvg_py
    except ImportError:
        raise OSError('vector graphics need resvg-py, pip install ".[svg]"') from None
    module: ModuleType = resvg_py
    return module


def _draw(drawing: Path | str) -> PilImage.Image:
    """A picture, or vector graphics, on white, SIDE pixels a side."""
    if isinstance(drawing, Path):
        with open_picture(drawing) as image:
            return square(to_pil(image, 3), SIDE)
    content = rasterizer().svg_to_bytes(drawing, width=4 * SIDE, skip_system_fonts=True)
    with open_picture(io.BytesIO(content)) as image:
        return square(to_pil(image, 3), SIDE)


def _fetch(folder: Path, styles: Sequence[str]) -> Path:
    """Unpack the package of each style into a folder of its name."""
    if any(STYLES[style].svg for style in styles):
        rasterizer()  # before anything is fetched
    (folder / "words").mkdir()
    unpack(npm_pack(WORDS, folder / "words"), folder / "words", "package/en/data.json".__eq__)
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
    captions: tuple[str, ...]
    split: str

    @property
    def code_points(self) -> str:
        return self.file.removesuffix(".png")


def captions_of(words: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each emoji by its code points, from the labels and tags of ``WORDS``."""
    captions = {}
    for entry in json.loads(words.read_text(encoding="utf-8")):
        for drawing in (entry, *entry.get("skins", ())):
            captions[plain(drawing["hexcode"])] = write_captions(drawing["label"], entry.get("tags", ()))
    return captions


def write_captions(label: str, tags: Sequence[str]) -> tuple[str, ...]:
    """The label alone, then with the tags that it does not have, every other one in each caption: "red heart", "red
    heart, emotion", "red heart, love"."""
    label = label.lower()
    new = [tag for tag in dict.fromkeys(tag.lower() for tag in tags) if not re.search(rf"\b{re.escape(tag)}\b", label)]
    parts = [new[first :: CAPTIONS - 1][:TAGS] for first in range(CAPTIONS - 1)]
    return (label, *(", ".join((label, *part)) for part in parts if part))


def glyphs(table: Path, words: Path) -> list[Glyph]:
    """All emoji in the order of their code points. All skin tones of a drawing are in one split, since they are nearly
    the same picture. One without a label has its name as the caption."""
    every, captions = [], captions_of(words)
    for entry in json.loads(table.read_text(encoding="utf-8")):
        split = "test" if _holdout(entry["image"]) else "train"
        y, name = CATEGORIES.index(entry["category"].lower()), (entry["name"] or entry["short_name"]).lower()
        every.append(Glyph(entry["image"], y, captions.get(plain(entry["image"][:-4]), (name,)), split))
        for tones, variation in entry.get("skin_variations", {}).items():
            skin = " and ".join(SKIN[tone] for tone in tones.split("-"))
            own = captions.get(plain(variation["image"][:-4]), (f"{name}: {skin} skin tone",))
            every.append(Glyph(variation["image"], y, own, split))
    return sorted(every)


def _rows(folder: Path, split: str, styles: Sequence[str], count: int) -> Rows:
    """Each drawing of the split in each style that has it, in turn."""

    def rows() -> Iterator[Row]:
        drawings = [STYLES[style].drawings(folder / style / "package") for style in styles]
        words = folder / "words" / "package" / "en" / "data.json"
        for number, glyph in enumerate(glyphs(folder / styles[0] / "package" / TABLE, words)):
            for domain, style in enumerate(drawings if glyph.split == split else ()):
                drawing = style.get(plain(glyph.code_points))
                if drawing is not None:
                    yield {
                        "x": _draw(drawing),
                        "y": glyph.y,
                        "domain": domain,
                        "caption": glyph.captions,
                        "glyph": number,
                    }

    return Rows(rows(), count)


def _set(name: str, styles: Sequence[str], splits: dict[str, int], digest: dict[str, str], about: str) -> ImageSet:
    """The set of some styles, which are its domains. ``splits``: the number of images of each."""
    domains = Label(tuple(styles))
    facts = Facts(
        name=name,
        title=f"Emoji in {len(styles)} styles: {', '.join(STYLES[style].title for style in styles)}",
        fields={
            "x": Image(3, SIDE),
            "y": Label(CATEGORIES),
            "domain": domains,
            "caption": Text(CAPTIONS),
            "glyph": Label(),
        },
        splits=splits,
        license=", ".join(f"{STYLES[s].title} {STYLES[s].license} (domain {k})" for k, s in enumerate(styles)),
        about=f"On white. Captions are Unicode's labels and tags. {about}",
        paired=True,
        pair_key="glyph",
        retrieval="char-cnn-rnn-emoji-hashed",
    )
    packages = ", ".join((*(STYLES[style].package for style in styles), WORDS))
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


@DATASETS.register("emoji-styles")
def emoji_styles() -> ImageSet:
    return _set(
        "emoji-styles",
        tuple(STYLES),
        {"train": 15_869, "test": 2_000},
        {},
        f"Domains 0 to 4 are {', '.join(STYLES)}; those of emoji are the first three. Not every style has every "
        'drawing; rows of equal glyph are the same emoji, one a style. Preparing it needs pip install ".[svg]".',
    )
