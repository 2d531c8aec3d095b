"""A user's own images: layouts, pairs, tables, kinds of files. Every input is generated here."""

import csv
import dataclasses
import json
import os
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers.tiny import model, translate_spec
from PIL import Image as PilImage

import zoo
from zoo.data import facts, files, open_data
from zoo.data.fields import Attributes, Image, Label, Text
from zoo.data.files import File, natural
from zoo.data.folder import Folder
from zoo.data.images import DataWarning
from zoo.metrics.image_source import find
from zoo.metrics.images import from_folder
from zoo.models.arguments import as_batch, class_number
from zoo.models.request import Request
from zoo.registry import NETWORKS


@pytest.fixture(autouse=True)
def own(own_home):
    """Prepared files go to a folder of the test."""


def put(path: Path, value=0, size=(8, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    color = value if mode in ("L", "I;16") else (value,) * 3
    PilImage.new(mode, size, color).save(path, **options)
    return path


def values(data) -> list[int]:
    """The value of each image, all of whose pixels are equal."""
    return data.arrays["x"][:, 0, 0, 0].tolist()


def opened(root, options="", **kwargs):
    return open_data(f"folder:{root}{options}", 8, **kwargs)


# Layouts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{split}{domain}", "{split}_{domain}", "{domain}/{split}", "{split}/{domain}"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_domains_in_splits(tmp_path, form, case):
    for s, split in enumerate(("train", "test")):
        for d, domain in enumerate("AB"):
            for k in range(3 - s):
                put(tmp_path / case(form.format(split=split, domain=domain)) / f"{domain}{k}.png", 100 * d + 10 * s + k)
    own = facts(f"folder:{tmp_path}")
    assert own.splits == {"train": 6, "test": 4} and not own.paired
    assert [name.lower() for name in own.fields["domain"].names] == ["a", "b"]
    train, test = opened(tmp_path), opened(tmp_path, split="test")
    assert values(train) == [0, 1, 2, 100, 101, 102] and train.arrays["domain"].tolist() == [0, 0, 0, 1, 1, 1]
    assert values(test) == [10, 11, 110, 111] and test.arrays["domain"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("names", [("Train", "VALID", "Testing"), ("training", "validation", "test")])
def test_splits_in_any_case(tmp_path, names):
    for k, name in enumerate(names):
        put(tmp_path / name / "cat" / "1.png", 10 * k)
    assert facts(f"folder:{tmp_path}").splits == {"train": 1, "val": 1, "test": 1}
    assert values(opened(tmp_path, split="val")) == [10]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test", "photos"), "test, train are splits, but photos is left over"),
        (("trainA", "trainB", "extra"), "trainA, trainB are splits of domains, but extra is left over"),
        (("trainA", "testA"), "there is no folder of B"),
        (("train", "Train"), "the folders .* both mean train"),
    ],
)
def test_folders_left_over(tmp_path, folders, message):
    for folder in folders:
        put(tmp_path / folder / "1.png")
    with pytest.raises(ValueError, match=message):
        facts(f"folder:{tmp_path}")
    assert facts(f"folder:{tmp_path}?splits=no").classes == tuple(sorted(folders, key=natural))


def test_images_beside_splits_are_left_over(tmp_path):
    put(tmp_path / "train" / "1.png")
    put(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"train are splits, but 2.png is left over"):
        facts(f"folder:{tmp_path}")


def test_pairs_in_two_folders(tmp_path):
    for k in (10, 9, 1):
        put(tmp_path / "A" / f"{k}.png", k)
        put(tmp_path / "B" / f"{k}.jpg", 100 + k)
    data = opened(tmp_path)
    assert data.facts.paired and "?pairs=no" in data.facts.about
    assert data.arrays["domain"].tolist() == [0, 1] * 3
    assert [abs(b - a) for a, b in zip(values(data), [1, 101, 9, 109, 10, 110], strict=True)] == [0] * 6
    assert not facts(f"folder:{tmp_path}?pairs=no").paired
    (tmp_path / "B" / "9.jpg").unlink()
    with pytest.raises(ValueError, match=r"2 equal names in train, but 9 has no pair"):
        facts(f"folder:{tmp_path}")
    put(tmp_path / "B" / "9.jpg")
    put(tmp_path / "B" / "9.png")
    with pytest.raises(ValueError, match=r"differ in their suffix only"):
        facts(f"folder:{tmp_path}")


def test_pairs_of_which_an_image_cannot_be_read(tmp_path):
    for k in range(3):
        put(tmp_path / "A" / f"{k}.png", k)
        put(tmp_path / "B" / f"{k}.png", 100 + k)
    (tmp_path / "B" / "1.png").write_bytes(b"x")
    with pytest.warns(DataWarning, match=r"1 of 6 images are left out .*B/1.png.*, and 1 that were their pairs"):
        data = opened(tmp_path, "?skip=corrupt")
    assert values(data) == [0, 100, 2, 102]


def test_unpaired_domains_of_other_names(tmp_path):
    for k in range(3):
        put(tmp_path / "a" / f"horse{k}.png")
        put(tmp_path / "b" / f"zebra{k}.png")
    assert not facts(f"folder:{tmp_path}").paired
    with pytest.raises(ValueError, match="0 equal names"):
        facts(f"folder:{tmp_path}?pairs=yes")
    for name in "cat", "dog":  # numbered classes are no pairs unless their owner says so
        put(tmp_path / "numbered" / name / "1.png")
    assert not facts(f"folder:{tmp_path}/numbered").paired and facts(f"folder:{tmp_path}/numbered?pairs=yes").paired


def test_pictures_of_two_halves(tmp_path):
    for split in ("train", "val"):
        for k in range(2):
            picture = PilImage.new("RGB", (16, 8), (k,) * 3)
            picture.paste((100 + k,) * 3, (8, 0, 16, 8))
            put(tmp_path / split / f"{k}.png")
            picture.save(tmp_path / split / f"{k}.png")
    data = open_data(f"folder:{tmp_path}")
    assert data.facts.paired and data.facts.splits == {"train": 4} and data.resolution == 8
    assert values(data) == [0, 100, 1, 101] and data.arrays["domain"].tolist() == [0, 1, 0, 1]
    assert data.facts.fields["domain"] == Label(("a", "b"))
    assert facts(f"folder:{tmp_path}?pairs=no").splits == {"train": 2, "val": 2}
    put(tmp_path / "train" / "9.png")
    assert not facts(f"folder:{tmp_path}").paired  # not all are of that shape
    with pytest.raises(ValueError, match=r"twice as wide as high, .* got train/9.png of 8x8"):
        facts(f"folder:{tmp_path}?pairs=yes")


# Tables ---------------------------------------------------------------------------------------------------------------


def write_csv(path: Path, header, rows, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def test_captions_beside_the_images(tmp_path):
    for k in range(3):
        put(tmp_path / f"{k}.png", k)
        (tmp_path / f"{k}.txt").write_text(f"bird {k}\n\na bird\n" if k else "bird 0\n")
    data = opened(tmp_path)
    assert data.facts.fields["caption"] == Text(2)
    assert [*data.texts["caption"]] == [("bird 0",), ("bird 1", "a bird"), ("bird 2", "a bird")]
    (tmp_path / "2.txt").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images have no caption .* 2.png; .*labels=no"):
        facts(f"folder:{tmp_path}")
    assert facts(f"folder:{tmp_path}?labels=no").keys == ("x",)
    (tmp_path / "2.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty caption: 2.png"):
        facts(f"folder:{tmp_path}")


CAPTIONS = {"0.png": "one", "sub/1.png": "two", "sub/10.png": "three"}
FORMS = {
    "list.json": [{"file_name": name, "text": text} for name, text in CAPTIONS.items()],
    "object.json": CAPTIONS,
    "coco.json": {
        "images": [{"id": 7 + k, "file_name": name} for k, name in enumerate(CAPTIONS)],
        "annotations": [{"image_id": 7 + k, "caption": text} for k, text in enumerate(CAPTIONS.values())],
    },
}


@pytest.mark.parametrize("form", [*FORMS, "metadata.jsonl", "captions.csv", "captions.tsv", "without_header.csv"])
def test_captions_in_a_table(tmp_path, form):
    for k, name in enumerate(CAPTIONS):
        put(tmp_path / name, k)
    if form in FORMS:
        (tmp_path / form).write_text(json.dumps(FORMS[form]))
    elif form.endswith("jsonl"):
        (tmp_path / form).write_text("\n".join(map(json.dumps, FORMS["list.json"])))
    elif form == "without_header.csv":
        write_csv(tmp_path / form, ("0.png", "one word"), [("1.png", "two words"), ("10.png", "three words")])
    else:
        write_csv(tmp_path / form, ("image", "caption"), CAPTIONS.items(), "\t" if form.endswith("tsv") else ",")
    data = opened(tmp_path)
    assert values(data) == [0, 1, 2]
    assert [text.split()[0] for (text,) in data.texts["caption"]] == ["one", "two", "three"]


def test_labels_attributes_and_splits_in_a_table(tmp_path):
    header = ("image_id", "partition", "label", "Smiling", "Young", "identity")
    rows = [(f"{k:06}.jpg", k % 3, ("2", "10", "cat", "-1")[k % 4], (-1, 1)[k % 2], k // 4, 100 + k) for k in range(8)]
    write_csv(tmp_path / "attributes.csv", header, rows)
    with zipfile.ZipFile(tmp_path / "crops.zip", "w") as archive:
        for k in range(7):  # row 7 has no image
            put(tmp_path / "x.jpg", 10 * k)
            archive.write(tmp_path / "x.jpg", f"{k:06}.jpg")
    (tmp_path / "x.jpg").unlink()
    own = facts(f"folder:{tmp_path}/crops.zip")
    assert own.splits == {"train": 3, "val": 2, "test": 2} and own.name == "folder-crops"
    assert own.classes == ("2", "10", "cat")
    assert own.fields["attributes"] == Attributes(("Smiling", "Young"))
    assert "left out: identity" in own.about and "1 rows of attributes.csv name no image" in own.about
    with pytest.warns(DataWarning, match="left out: identity"):
        data = opened(f"{tmp_path}/crops.zip")
    assert [round(v / 10) for v in values(data)] == [0, 3, 6] and data.arrays["y"].tolist() == [0, -1, 2]
    assert data.arrays["attributes"].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert data.labels("attributes.Young").tolist() == [0, 0, 1]
    chosen = facts(f"folder:{tmp_path}/crops.zip?attributes=Young")
    assert chosen.fields["attributes"] == Attributes(("Young",))
    with pytest.raises(ValueError, match=r"no column 'Old' of 0 and 1; there are none"):
        facts(f"folder:{tmp_path}/crops.zip?attributes=Old")
    with pytest.raises(ValueError, match=r"no images in it, but archives; name one: .*crops.zip"):
        facts(f"folder:{tmp_path}")


def test_stylegans_labels(tmp_path):
    for k in range(4):
        put(tmp_path / f"0000{k // 2}/{k}.png", k)
    labels = [[f"0000{k // 2}/{k}.png", k % 2 + 5] for k in range(4)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    data = opened(tmp_path)
    assert data.facts.classes == ("5", "6") and data.arrays["y"].tolist() == [0, 1, 0, 1]


def test_table_mistakes(tmp_path):
    put(tmp_path / "1.png")
    put(tmp_path / "2.png")
    write_csv(tmp_path / "t.csv", ("file", "label"), [("1.png", "cat")])
    with pytest.raises(ValueError, match=r"t.csv has no row for 1 of 2 images: 2.png; .*labels=no"):
        facts(f"folder:{tmp_path}")
    write_csv(tmp_path / "t.csv", ("file", "label"), [("1.png", "cat"), ("2.png",)])
    with pytest.raises(ValueError, match=r"t.csv can't be read: line 3 has 1 columns, its header 2"):
        facts(f"folder:{tmp_path}")
    (tmp_path / "t.csv").unlink()
    (tmp_path / "settings.json").write_text('{"lr": 1}')
    assert "settings.json names none of the images" in facts(f"folder:{tmp_path}").about


# Several tables -------------------------------------------------------------------------------------------------------


def put_splits(root: Path, tables: dict, form="folder") -> str:
    """An image k.png for row k of the table of each split, and the table beside them if it has a header (its first
    line). Returns the path of the folder, or of a zip archive of it."""
    value = 0
    for split, (header, *rows) in tables.items():
        for k, _ in enumerate(rows):
            put(root / "in" / split / f"{k}.png", value)
            value += 1
        if header:
            write_csv(
                root / "in" / split / "metadata.csv",
                ("file_name", *header),
                [(f"{k}.png", *row) for k, row in enumerate(rows)],
            )
    if form == "folder":
        return f"{root}/in"
    with zipfile.ZipFile(root / "in.zip", "w") as archive:
        for path in sorted((root / "in").rglob("*.*")):
            archive.write(path, path.relative_to(root / "in"))
    return f"{root}/in.zip"


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_classes_are_numbered_over_all_tables(tmp_path, form):
    """One table a split, as Hugging Face has them, in a folder or an archive."""
    root = put_splits(
        tmp_path, {"train": [["label"], ["ant"], ["cat"]], "test": [["label"], ["cat"], ["bee"], ["cat"]]}, form
    )
    assert facts(f"folder:{root}").classes == ("ant", "bee", "cat")
    train, test = opened(root), opened(root, split="test")
    assert train.arrays["y"].tolist() == [0, 2] and test.arrays["y"].tolist() == [2, 1, 2]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_attributes_of_several_tables_go_by_their_names(tmp_path, form):
    train = [["Smiling", "Young", "age"], [1, 0, 1], [0, 0, 0]]
    test = [["age", "Young", "Smiling"], [30, 1, 0], [40, 1, 1]]
    root = put_splits(tmp_path, {"train": train, "test": test}, form)
    own = facts(f"folder:{root}")
    assert set(own.fields["attributes"].names) == {"Smiling", "Young"}
    assert "columns of train/metadata.csv that are left out: age" in own.about  # it is no flag in the other one
    train, test = opened(root), opened(root, split="test")
    assert train.labels("attributes.Smiling").tolist() == [1, 0] and train.labels("attributes.Young").tolist() == [0, 0]
    assert test.labels("attributes.Smiling").tolist() == [0, 1] and test.labels("attributes.Young").tolist() == [1, 1]


def test_tables_that_do_not_fit_together(tmp_path):
    root = put_splits(tmp_path / "a", {"train": [["Smiling", "Young"], [1, 0]], "test": [["Smiling"], [1]]})
    message = r"'Young' of train/metadata.csv is missing in test/metadata.csv; add it, or use .*\?attributes=Smiling"
    with pytest.raises(ValueError, match=message):
        facts(f"folder:{root}")
    assert facts(f"folder:{root}?attributes=Smiling").fields["attributes"] == Attributes(("Smiling",))
    root = put_splits(tmp_path / "b", {"train": [["label", "class"], [1, "cat"]], "test": [["label"], [1]]})
    with pytest.raises(ValueError, match=r"must be in one column, got 'label' of test/.* and 'class' of train/"):
        facts(f"folder:{root}")


def test_two_tables_of_the_same_images(tmp_path):
    """Their columns are added up."""
    for k in range(2):
        put(tmp_path / f"{k}.png", k)
    write_csv(tmp_path / "a.csv", ("image", "label", "Smiling"), [("0.png", "cat", 1), ("1.png", "ant", 0)])
    write_csv(tmp_path / "b.csv", ("image", "caption", "Young"), [("0.png", "one", 0), ("1.png", "two", 1)])
    data = opened(tmp_path)
    assert data.facts.fields["attributes"] == Attributes(("Smiling", "Young"))
    assert data.arrays["attributes"].tolist() == [[1, 0], [0, 1]] and data.arrays["y"].tolist() == [1, 0]
    assert data.captions == ["one", "two"]


def test_a_table_in_a_folder_names_no_image_of_another_one(tmp_path):
    """Its row of an image that is gone is no row of an image of this name in another folder."""
    root = put_splits(tmp_path, {"train": [["label"], ["a"], ["b"], ["b"]], "test": [["label"], ["a"], ["a"], ["a"]]})
    (tmp_path / "in" / "train" / "2.png").unlink()
    assert "1 rows of train/metadata.csv name no image here" in facts(f"folder:{root}").about
    assert opened(root, split="test").arrays["y"].tolist() == [0, 0, 0]


def test_a_table_in_a_folder_names_its_images_by_names_that_others_have_too(tmp_path):
    for split in ("train", "test"):
        put(tmp_path / split / "images" / "0.png")
        write_csv(tmp_path / split / "metadata.csv", ("file_name", "caption"), [("0.png", f"of {split}")])
    assert opened(tmp_path).captions == ["of train"] and opened(tmp_path, split="test").captions == ["of test"]


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    ("column", "row", "word"), [("caption", "a cat", "caption"), ("label", "cat", "label"), ("Young", 1, "attributes")]
)
def test_a_table_of_one_split_only(tmp_path, form, column, row, word):
    root = put_splits(tmp_path, {"train": [[column], [row], [row]], "test": [[], [], [], []]}, form)
    message = rf"3 of 3 images of test have no {word} in a table: test/0.png, .*\?labels=no"
    with pytest.raises(ValueError, match=message):
        facts(f"folder:{root}")
    assert facts(f"folder:{root}?labels=no").keys == ("x",)


def test_a_table_of_one_split_and_folders_of_classes(tmp_path):
    """The classes of the folders and those of the table are not mixed."""
    for split in ("train", "test"):
        put(tmp_path / split / "cat" / "0.png")
    write_csv(tmp_path / "train" / "metadata.csv", ("file_name", "label"), [("cat/0.png", "cat")])
    with pytest.raises(ValueError, match="1 of 1 images of test have no label in a table: test/cat/0.png"):
        facts(f"folder:{tmp_path}")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_table_of_splits_of_one_folder_only(tmp_path, form):
    root = put_splits(tmp_path, {"cat": [["split"], ["train"], ["test"]], "dog": [[], []]}, form)
    with pytest.raises(ValueError, match=r"1 of 3 images have no split in a table: dog/0.png; .*\?labels=no"):
        facts(f"folder:{root}")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_tables_in_a_folder_without_images(tmp_path, form):
    """They name images anywhere, one table those of each split."""
    root = put_splits(tmp_path, {"train": [[], [], []], "test": [[], []]})
    (tmp_path / "in" / "meta").mkdir()
    for split, labels in {"train": ["cat", "ant"], "test": ["bee"]}.items():
        rows = [(f"{split}/{k}.png", label) for k, label in enumerate(labels)]
        write_csv(tmp_path / "in" / "meta" / f"{split}.csv", ("image", "label"), rows)
    if form == "zip":
        root = shutil.make_archive(str(tmp_path / "in"), "zip", root)
    assert facts(f"folder:{root}").classes == ("ant", "bee", "cat")
    assert opened(root).arrays["y"].tolist() == [2, 0] and opened(root, split="test").arrays["y"].tolist() == [1]


def test_a_folder_is_prepared_again_if_its_labels_are_read_otherwise(tmp_path):
    """The file that an earlier version prepared is not used, though the images and the classes are the same."""
    root = put_splits(tmp_path, {"train": [["label"], ["a"], ["b"]]})
    assert opened(root).arrays["y"].tolist() == [0, 1]
    folder = Folder(f"folder:{root}")
    before = folder._state("train")
    folder.annotations.values["train/0.png"]["y"] = 1
    assert folder._state("train") != before


# Archives -------------------------------------------------------------------------------------------------------------


def zeros(path: Path, name: str, size: int, method=zipfile.ZIP_DEFLATED) -> Path:
    """An archive with an image and ``name``, a file of ``size`` zeros."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.write(put(path.parent / "1.png", 7), "1.png")
        with archive.open(name, "w") as member:
            for start in range(0, size, 1 << 20):
                member.write(bytes(min(1 << 20, size - start)))
    (path.parent / "1.png").unlink()
    return path


def claim(path: Path, size: int, claimed: int) -> None:
    """Change the size that a member's entries claim."""
    content = path.read_bytes()
    assert content.count(size.to_bytes(4, "little")) >= 2 and size > 1 << 24
    path.write_bytes(content.replace(size.to_bytes(4, "little"), claimed.to_bytes(4, "little")))


def peak_memory(action) -> int:
    """Bytes that Python allocated during ``action``, at most at once."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


METHODS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("name", ["t.csv", "t.json", "1.txt"])
@pytest.mark.parametrize("method", METHODS)
def test_a_large_table_in_an_archive_is_not_unpacked(tmp_path, monkeypatch, name, method):
    monkeypatch.setattr(files, "MAX_TABLE_BYTES", 1 << 20)
    path = zeros(tmp_path / "a.zip", name, 40 << 20, method)

    def read():
        with pytest.raises(ValueError, match=rf"a\.zip.*{name}.* 41,943,040 bytes .* at most 1,048,576") as error:
            facts(f"folder:{path}")
        assert "labels=no" in str(error.value)

    assert peak_memory(read) < 4 << 20
    assert facts(f"folder:{path}?labels=no").splits == {"train": 1}


@pytest.mark.parametrize("method", METHODS)
def test_an_archive_that_claims_a_smaller_size(tmp_path, monkeypatch, method):
    """No more is unpacked than it claims, and what is beyond is an error."""
    monkeypatch.setattr(files, "MAX_TABLE_BYTES", 1 << 20)
    size = (40 << 20) + 77
    path = zeros(tmp_path / "a.zip", "t.csv", size, method)
    claim(path, size, 1000)

    def read():
        with pytest.raises(ValueError, match=r"t\.csv can't be read: Bad CRC-32"):
            facts(f"folder:{path}")

    assert peak_memory(read) < (4 << 20 if method == zipfile.ZIP_DEFLATED else 90 << 20)


def test_a_large_image_in_an_archive_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 1 << 20)
    path = zeros(tmp_path / "a.zip", "2.png", 40 << 20)
    message = r"1 of 2 images can't be read: 2\.png \(a\.zip: 2\.png has 41,943,040 bytes .* at most 1,048,576"
    with pytest.raises(ValueError, match=message):
        opened(path)
    with pytest.warns(DataWarning, match="1 of 2 images are left out"):
        assert values(opened(path, "?skip=corrupt")) == [7]
    assert peak_memory(lambda: Folder(f"folder:{path}?skip=corrupt").sides()) < 4 << 20


def test_limits_of_archives():
    assert files.MAX_IMAGE_BYTES == 256 << 20 and files.MAX_TABLE_BYTES == 128 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, *METHODS])
def test_members_of_all_methods_are_read(tmp_path, method):
    rng = np.random.default_rng(0)
    content = rng.bytes(100_000) + bytes(3 << 20) + rng.bytes(7)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("x.png", content)
        archive.writestr("empty.png", b"")
    assert File("x.png", tmp_path / "a.zip", "x.png").read() == content
    assert File("empty.png", tmp_path / "a.zip", "empty.png").read() == b""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damage", ["bytes", "cut"])
def test_damaged_members_are_left_out(tmp_path, method, damage):
    """Each way of packing has errors of its own."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PilImage.fromarray(noise).save(tmp_path / "x.bmp")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.write(put(tmp_path / "y.bmp", 7), "1.bmp")
        archive.write(tmp_path / "x.bmp", "2.bmp")
        info = archive.getinfo("2.bmp")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    start = info.header_offset + 30 + len("2.bmp")
    if damage == "bytes":
        content[start + 20 : start + 2000] = b"\xa5" * 1980
    else:  # its entries claim fewer packed bytes
        packed = info.compress_size.to_bytes(4, "little")
        content = content.replace(packed, (info.compress_size // 2).to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.warns(DataWarning, match="of 2 images are left out"):
        assert 0 < len(opened(tmp_path / "a.zip", "?skip=corrupt")) < 2


def test_a_member_that_is_not_there(tmp_path):
    path = zeros(tmp_path / "a.zip", "t.csv", 10)
    with pytest.raises(OSError, match=r"a\.zip: no member gone\.png"):
        File("gone.png", path, "gone.png").read()


# Damaged JSON ---------------------------------------------------------------------------------------------------------

ENTRIES = [{"id": 7, "file_name": "0.png"}, {"id": 8, "file_name": "1.png"}]
NOTES = [{"image_id": 7, "caption": "one"}, {"image_id": 8, "caption": "two"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [*ENTRIES, {"id": 9}], "annotations": NOTES}, "images: entry 2 has no file_name"),
        ({"images": [*ENTRIES, {"file_name": "2.png"}], "annotations": NOTES}, "images: entry 2 has no id"),
        ({"images": [*ENTRIES, "2.png"], "annotations": NOTES}, 'images: entry 2 must be an object, got "2.png"'),
        ({"images": [{"id": [7], "file_name": "0.png"}], "annotations": NOTES}, "entry 0: id must be text or a number"),
        ({"images": [{"id": 7, "file_name": {}}], "annotations": NOTES}, "entry 0: file_name must be text, got {"),
        ({"images": ENTRIES, "annotations": [*NOTES, 7]}, "annotations: entry 2 must be an object, got 7"),
        ({"images": ENTRIES, "annotations": [*NOTES, None]}, "annotations: entry 2 must be an object, got null"),
        ({"images": ENTRIES, "annotations": [*NOTES, {"caption": "a"}]}, "annotations: entry 2 has no image_id"),
        (
            {"images": ENTRIES, "annotations": [*NOTES, {"image_id": {}, "caption": "a"}]},
            "image_id must be text or a n",
        ),
        ({"labels": [["0.png", {"a": 1}], ["1.png", {"a": 2}]]}, "label of 0.png .*must be text or a number, got {"),
        ({"labels": [["0.png", [[1]]], ["1.png", [[0]]]]}, "label .*must be one class, or 1 numbers 0 or 1"),
        ({"labels": [["0.png", [{}, 1]], ["1.png", [0, 1]]]}, "label .*must be one class, or 2 numbers 0 or 1"),
        ({"labels": [["0.png", 1], ["1.png", [0, 1]]]}, "label .*must be one class, or 2 numbers 0 or 1"),
        ([{"file": "0.png", "split": ["a"]}, {"file": "1.png", "split": {}}], r"split of 0.png .* got \['a'\]"),
        ([{"file": "0.png", "text": {}}, {"file": "1.png", "text": 7}], "2 images have an empty caption"),
    ],
)
def test_damaged_json_beside_images(tmp_path, shell, content, message):
    """One line that names the file, and not a bug of the zoo."""
    for k in range(2):
        put(tmp_path / "in" / f"{k}.png", k)
    (tmp_path / "in" / "t.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        facts(f"folder:{tmp_path}/in")
    assert "t.json" in str(error.value) or "empty caption" in message
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 300 + 2 * len(str(tmp_path))
    result = shell("data", "get", "folder:in")
    assert result.status == 2 and result.err.startswith("zoo: folder:in: "), result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ({"images": ENTRIES, "annotations": [*NOTES, *({"image_id": k, "caption": "x"} for k in (9, "7"))]}, 2),
        ({"images": ENTRIES, "annotations": [*NOTES, {"image_id": 9}]}, 0),
        ([{"file": "0.png", "text": "one"}, 7, {"file": "1.png", "text": "two"}, {"file": None, "text": "x"}], 2),
        ({"labels": [["0.png", 0], ["1.png", 1], ["2.png", 1], ["1.png"], "1.png", [None, 0]]}, 4),
    ],
)
def test_rows_of_json_that_name_no_image_are_left_out(tmp_path, content, count):
    for k in range(2):
        put(tmp_path / f"{k}.png", k)
    (tmp_path / "t.json").write_text(json.dumps(content))
    if not count:
        assert "name no image" not in facts(f"folder:{tmp_path}").about
        return
    with pytest.warns(DataWarning, match=f"{count} rows of t.json name no image here"):
        data = opened(tmp_path)
    assert data.arrays["y"].tolist() == [0, 1] if "labels" in content else data.captions == ["one", "two"]


def test_a_row_without_a_name_is_not_of_the_image_none(tmp_path):
    for name in ("0.png", "None.png"):
        put(tmp_path / name)
    rows = [{"file": "0.png", "text": "one"}, {"file": None, "text": "x"}, {"file": "None.png", "text": "two"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert opened(tmp_path).captions == ["one", "two"]


def test_columns_that_the_first_row_lacks(tmp_path):
    for k in range(2):
        put(tmp_path / f"{k}.png")
    rows = [{"file": "0.png"}, {"file": "1.png", "label": "cat"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = opened(tmp_path)
    assert data.facts.classes == ("cat",) and data.arrays["y"].tolist() == [-1, 0]


# Kinds of files -------------------------------------------------------------------------------------------------------


def gray(side=8):
    return (np.arange(side * side).reshape(side, side) * 4).astype(np.uint8)


DEEP = {  # name: array and, if its scale is not obvious, the range of black and white
    "sixteen.png": (gray().astype(np.uint16) * 257, None),
    "sixteen.tif": (gray().astype(np.uint16) * 257, None),
    "twelve.png": (gray().astype(np.uint16) * 16, "0,4080"),
    "int32.tif": (gray().astype(np.int32), "0,255"),
    "hounsfield.tif": (gray().astype(np.int32) * 16 - 1024, "-1024,3056"),
    "unit.tif": ((gray() / 255).astype(np.float32), "0,1"),
    "real.tif": ((gray() / 255 * 1400).astype(np.float32), "0,1400"),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_eight_bits(tmp_path, name):
    array, limits = DEEP[name]
    for k in range(2):
        PilImage.fromarray(array).save(tmp_path / f"{k}-{name}")
    data = opened(tmp_path, f"?range={limits}" if limits else "")
    assert data.facts.channels == 1
    assert (data.arrays["x"][0, 0].int() - torch.from_numpy(gray()).int()).abs().max() <= 1
    if limits and array.dtype != np.uint16:  # nothing says what is white
        with pytest.raises(
            ValueError, match=rf"pixels are .* give the range, folder:PATH\?range={limits.split(',')[0]},"
        ):
            opened(tmp_path)
    elif limits:  # a small part of 16 bits
        with pytest.warns(DataWarning, match=r"only the values 0 to 16 of 0 to 255; .*range=0,4095"):
            opened(tmp_path)


def test_range_mistakes(tmp_path):
    put(tmp_path / "1.png")
    for text in ("1", "5,1", "a,b"):
        with pytest.raises(ValueError, match="range must be the values of black and white"):
            facts(f"folder:{tmp_path}?range={text}")


def test_a_warning_counts_what_is_left_out(tmp_path):
    put(tmp_path / "1.png", 9)
    put(tmp_path / "2.avif", 200)
    (tmp_path / "raw.cr2").write_bytes(b"x")
    (tmp_path / "a.md").write_text("notes")
    (tmp_path / "b.md").write_text("notes")
    (tmp_path / "empty").mkdir()
    with pytest.warns(DataWarning, match=r"no images: 3 files \(2 .md, 1 .cr2\)"):
        data = opened(tmp_path)
    assert len(data) == 2 and abs(values(data)[1] - 200) <= 2
    assert "folders without images: empty" in data.facts.about


def test_links_are_followed_once(tmp_path):
    put(tmp_path / "elsewhere" / "2.png")
    put(tmp_path / "mine" / "cat" / "1.png")
    (tmp_path / "mine" / "cat" / "again").symlink_to(tmp_path / "mine")
    (tmp_path / "mine" / "also").symlink_to(tmp_path / "mine" / "cat")
    (tmp_path / "mine" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "mine")
    own = facts(f"folder:{tmp_path}/mine")
    assert own.splits == {"train": 2} and own.classes == ("cat", "dog")
    assert "also is a link to a folder that is read already" in own.about


def test_entries_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    put(tmp_path / "1.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"4 entries can't be read: .*skip=corrupt") as error:
        facts(f"folder:{tmp_path}")
    for part in ("gone.png (a link to nothing)", "pipe.png (a named pipe)", "closed (Permission denied)", "self.png ("):
        assert part in str(error.value)
    own = facts(f"folder:{tmp_path}?skip=corrupt")
    assert own.splits == {"train": 1} and "left out since they can't be read: " in own.about


@pytest.mark.parametrize(("fit", "corner", "middle"), [("crop", 90, 90), ("pad", 0, 90), ("stretch", 10, 90)])
def test_fit(tmp_path, fit, corner, middle):
    image = PilImage.new("RGB", (24, 8), (10,) * 3)
    image.paste((90,) * 3, (8, 0, 16, 8))
    image.save(tmp_path / "1.png")
    data = open_data(f"folder:{tmp_path}?fit={fit}", 24)
    x = data.arrays["x"][0, 0]
    assert x.shape == (24, 24) and x[0, 0] == corner and x[12, 12] == middle
    assert {"crop": "center square", "pad": "padded", "stretch": "stretched"}[fit] in data.facts.about
    with pytest.raises(ValueError, match="fit must be crop or pad or stretch, got cut"):
        facts(f"folder:{tmp_path}?fit=cut")


def test_gray_folders_have_one_channel(tmp_path):
    put(tmp_path / "1.png", 7, mode="L")
    assert facts(f"folder:{tmp_path}").fields["x"] == Image(1)
    assert facts(f"folder:{tmp_path}?channels=3").fields["x"] == Image(3)
    put(tmp_path / "2.png", 7)
    assert facts(f"folder:{tmp_path}").channels == 3


def test_a_folder_without_its_word(tmp_path, monkeypatch):
    put(tmp_path / "photos" / "1.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="unknown data set 'photos'; the folder of your own images is folder:photos"):
        facts("photos")
    with pytest.raises(
        ValueError, match="unknown data set 'foto'; did you mean coco[?] your own images are folder:PATH"
    ):
        facts("foto")


def test_classes_in_natural_order(tmp_path):
    for name in ("10", "2", "0", "1"):
        put(tmp_path / name / "x.png", int(name))
    data = opened(tmp_path)
    assert data.facts.classes == ("0", "1", "2", "10") and values(data) == [0, 1, 2, 10]
    assert data.arrays["y"].tolist() == [0, 1, 2, 3]


# To a model -----------------------------------------------------------------------------------------------------------


def remake(source, out, tell=print, channels=3):
    request = Request("model", str(out), source=str(source), tell=tell)
    request.remake(lambda image, seed: as_batch(image, channels)[0], None, channels)


def test_every_input_has_its_output(tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "a.jpeg", "a.JPEG", "b.gif", "c.tif", "d.avif", "e.bmp", "sub/a.png", "sub/10.webp"):
        put(folder / name, 50)
    (folder / "notes.txt").write_text("x")
    (folder / "raw.cr2").write_bytes(b"x")
    lines = []
    remake(folder, f"{tmp_path}/out/", lines.append)
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert names == [
        "a.JPEG.png", "a.jpeg.png", "a.png.png", "b.png", "c.png", "d.png", "e.png", "sub/10.png", "sub/a.png",
    ]  # fmt: skip
    assert lines[-1] == f"--input {folder}: 9 images, 9 outputs; left out: 2 files (1 .cr2, 1 .txt)"
    remake(folder, f"{folder}/out/", lines.append)
    remake(folder, f"{folder}/out/", lines.append)  # its own outputs are no inputs
    assert "9 images, 9 outputs" in lines[-1] and "an output of before" in lines[-1]


@pytest.mark.parametrize(
    ("files", "outputs"),
    [
        (["a.png", "a.jpg", "a.png.jpg"], ["a.jpg.png", "a.png.jpg.png", "a.png.png"]),
        (
            ["a.png", "a.jpg", "a.png.jpg", "a.png.jpg.bmp"],
            ["a.jpg.png", "a.png.jpg.bmp.png", "a.png.jpg.png", "a.png.png"],
        ),
        (["a.png", "a.png.jpg"], ["a.png", "a.png.png"]),
        (["A.jpg", "a.png"], ["A.jpg.png", "a.png.png"]),  # one file on some systems
    ],
)
def test_no_two_outputs_have_one_name(tmp_path, files, outputs):
    for name in files:
        put(tmp_path / "in" / name, 50)
    remake(tmp_path / "in", f"{tmp_path}/out/")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == outputs


def test_an_input_is_never_written_over(tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "sub/b.jpg"):
        put(folder / name, 50)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    for source, out in ((folder, f"{folder}/"), (folder / "a.png", f"{folder}/a.png"), (folder, f"{folder}/sub/../")):
        with pytest.raises(ValueError, match="must not be where the inputs are, for a.png would be written over"):
            remake(source, out)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    with pytest.raises(ValueError, match=r"--out .*sub: has images that are no outputs \(sub/b.jpg\)"):
        remake(folder, f"{folder}/sub/")  # a.png there would be of a.png, b.jpg is an original
    remake(folder / "sub", f"{folder}/sub/")  # b.png beside b.jpg
    assert before.items() < {path: path.read_bytes() for path in folder.rglob("*.*")}.items()


def test_outputs_are_no_inputs_of_the_next_time(tmp_path):
    """Also where --out is --input itself."""
    put(tmp_path / "in" / "a.jpg", 50)
    for _ in range(2):
        lines = []
        remake(tmp_path / "in", f"{tmp_path}/in/", lines.append)
        assert "1 images, 1 outputs" in lines[-1]
        assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.jpg", "a.png"]


def test_other_files_are_never_written_over(tmp_path):
    put(tmp_path / "in" / "sub" / "a.jpg", 50)
    mine = put(tmp_path / "out" / "sub" / "a.png", 9).read_bytes()
    with pytest.raises(ValueError, match=r"--out .*out: has files that are no outputs \(sub/a.png\), which would be"):
        remake(tmp_path / "in", f"{tmp_path}/out/")
    assert (tmp_path / "out/sub/a.png").read_bytes() == mine
    (tmp_path / "out/sub/a.png").rename(tmp_path / "out/sub/b.png")
    for _ in range(2):  # its own outputs are
        remake(tmp_path / "in", f"{tmp_path}/out/")
    assert (tmp_path / "out/sub/b.png").read_bytes() == mine and (tmp_path / "out/sub/a.png").exists()


@pytest.mark.parametrize(
    "name", ["{root}/evil.png", "../evil.png", "sub/../../evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_members_that_lead_out_of_their_archive(tmp_path, name):
    """They are named, and left out with ?skip=corrupt; nothing is written outside --out."""
    name = name.format(root=tmp_path)
    put(tmp_path / "a.png", 50)
    (tmp_path / "work").mkdir()
    archive = tmp_path / "work" / "in.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, (tmp_path / "a.png").read_bytes())
        file.write(tmp_path / "a.png", "a.png")
    with pytest.raises(ValueError, match=r"can't read .*evil.png \(a path out of the archive\)"):
        remake(archive, f"{tmp_path}/work/out/")
    with pytest.raises(ValueError, match="a path out of the archive"):
        open_data(f"folder:{archive}", 8)
    lines = []
    remake(f"{archive}?skip=corrupt", f"{tmp_path}/work/out/", lines.append)
    assert "1 images, 1 outputs; left out: " in lines[-1] and "evil.png (a path out of the archive)" in lines[-1]
    assert [path.name for path in tmp_path.rglob("*.png")].count("evil.png") == 0


def test_an_enlarged_output_that_is_too_large(tmp_path):
    """The message names --scale and the image, not -n, which was not given."""
    put(tmp_path / "a.png", 50, size=(2000, 2000))
    request = Request("model", str(tmp_path / "b.png"), source=str(tmp_path / "a.png"), scale=6)
    with pytest.raises(ValueError, match=r"^--scale 6: .* got 12,000x12,000 of an image of 2000x2000; lower it, or l"):
        request.remake(lambda image, seed: as_batch(image, 3)[0], None, 3)


def test_an_output_needs_a_name(tmp_path):
    with pytest.raises(ValueError, match=r"--out .*/\.png: must have a name before its ending"):
        Request("model", f"{tmp_path}/.png")


@pytest.mark.parametrize("source", ["in", "in.zip"])
def test_outputs_beside_the_inputs_folder(tmp_path, source):
    """A folder that holds --input is not one of its outputs."""
    put(tmp_path / "in" / "a.jpg", 50)
    shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path / "in")
    lines = []
    remake(tmp_path / source, f"{tmp_path}/", lines.append)
    assert lines[-1].endswith("1 images, 1 outputs") and (tmp_path / "a.png").exists()


def test_an_unreadable_input(tmp_path):
    put(tmp_path / "in" / "1.png")
    (tmp_path / "in" / "2.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"--input .*2.png: not a readable image .*skip=corrupt"):
        remake(tmp_path / "in", f"{tmp_path}/out/")
    lines = []
    remake(f"{tmp_path}/in?skip=corrupt", f"{tmp_path}/out/", lines.append)
    assert "1 images, 1 outputs; left out: 1 that can't be read (2.png)" in lines[-1]


def test_an_input_of_a_size_that_the_network_does_not_take(tmp_path):
    """It is found before anything is written, and left out as a file that can't be read is."""
    for name, side in (("1.png", 8), ("2.png", 4), ("3.png", 13)):
        put(tmp_path / "in" / name, size=(side, side))
    m = model(translate_spec(networks={"G": {"name": "tiny-reflection", "kwargs": {}}}, to={"b": "G"}))
    request = Request("model", f"{tmp_path}/out/", source=f"{tmp_path}/in", to="b")
    with pytest.raises(ValueError, match=r"--input .*2.png: images of 4x4: too small.*\?skip=corrupt"):
        m.write(request)
    assert not (tmp_path / "out").exists()
    lines = []
    m.write(dataclasses.replace(request, source=f"{tmp_path}/in?skip=corrupt", tell=lines.append))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.png", "3.png"]
    assert lines[-1].endswith("2 outputs; left out: 1 of a size that the network does not take (2.png)")
    with pytest.raises(ValueError, match=r"--input .*2.png: images of 4x4: too small[^?]*; remove it$"):
        m.write(dataclasses.replace(request, source=f"{tmp_path}/in/2.png"))


@NETWORKS.register("tiny-reflection")
class Reflection(torch.nn.Conv2d):
    """A convolution that mirrors 5 pixels at each side, of images of more than 5 pixels."""

    def __init__(self):
        super().__init__(3, 3, 11, padding=5, padding_mode="reflect")


@pytest.mark.parametrize("name", ["gray16.png", "turned.jpg", "alpha.png", "palette.png", "still.avif"])
def test_one_reader_for_all(tmp_path, name):
    """A file looks the same in training, to eval, as --input, and as a PIL image to ``translate``."""
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    path = tmp_path / "in" / name
    path.parent.mkdir()
    exif = PilImage.Exif()
    exif[0x0112] = 6
    {
        "gray16.png": lambda: PilImage.fromarray(picture[..., 0].astype(np.uint16) * 257).save(path),
        "turned.jpg": lambda: PilImage.fromarray(picture).save(path, exif=exif, quality=95),
        "alpha.png": lambda: PilImage.fromarray(np.dstack([picture, picture[..., :1]])).save(path),
        "palette.png": lambda: PilImage.fromarray(picture).convert("P").save(path),
        "still.avif": lambda: PilImage.fromarray(picture).save(path),
    }[name]()
    trained = open_data(f"folder:{path.parent}?channels=3").arrays["x"][0]
    scored = next(from_folder(path.parent, 3)[0].stream())[0]
    remake(path.parent, f"{tmp_path}/out/")
    out = np.asarray(PilImage.open(next((tmp_path / "out").iterdir())).convert("RGB"))
    with PilImage.open(path) as image:
        given = (as_batch(image, 3)[0] * 255).round().byte()
    for other in (scored, given, torch.from_numpy(out.transpose(2, 0, 1).copy())):
        assert torch.equal(trained, other)
    if name == "turned.jpg":
        plain = np.asarray(PilImage.open(path)).transpose(2, 0, 1)
        assert np.array_equal(trained.numpy(), np.rot90(plain, -1, (1, 2)))


@pytest.mark.parametrize("fit", ["", "?fit=pad", "?fit=stretch"])
def test_an_input_of_another_shape_is_fitted_as_in_training(tmp_path, fit):
    picture = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    path = put(tmp_path / "in" / "1.png")
    PilImage.fromarray(picture).save(path)
    lines = []
    request = Request("model", f"{tmp_path}/out/", source=f"{path.parent}{fit}", tell=lines.append)
    request.remake(lambda image, seed: as_batch(image, 3)[0], 4, half=0)
    out = np.asarray(PilImage.open(tmp_path / "out" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(out, open_data(f"folder:{path.parent}{fit}", 4).arrays["x"][0].numpy())
    how = {"": "cut to its center square and ", "?fit=pad": "padded to a square and ", "?fit=stretch": ""}[fit]
    assert lines[0].startswith(f"{path}: 10x6 {how}resized to 4x4")
    with pytest.raises(ValueError, match="fit must be crop or pad or stretch, got cut"):
        Request("model", f"{tmp_path}/out2/", source=f"{path.parent}?fit=cut").remake(lambda image, seed: image, 4)


def test_an_input_of_two_halves(tmp_path):
    """Of a model of pairs: the half that it translates, as it was trained on."""
    for i in range(2):
        image = PilImage.new("RGB", (16, 8), (10 + i,) * 3)
        image.paste((90 + i,) * 3, (8, 0, 16, 8))
        (tmp_path / "in").mkdir(exist_ok=True)
        image.save(tmp_path / "in" / f"{i}.png")

    def translate(half, options="", out="out"):
        lines = []
        request = Request("model", f"{tmp_path / out}/", source=f"{tmp_path}/in{options}", tell=lines.append)
        request.remake(lambda image, seed: as_batch(image, 3)[0], 8, half=half)
        pictures = [np.asarray(PilImage.open(tmp_path / out / f"{i}.png")) for i in range(2)]
        return [np.unique(picture).tolist() for picture in pictures], lines

    levels, lines = translate(0)
    assert levels == [[10], [11]] and "the left half of each picture, since all are twice as wide as high" in lines[0]
    assert translate(1, out="right")[0] == [[90], [91]]
    whole = translate(0, "?pairs=no", "whole")
    with pytest.raises(ValueError, match="pairs= is for a model that was trained on pairs; leave it out"):
        translate(None, "?pairs=no", "none")
    assert whole[0] == translate(None, out="none")[0] == [[10, 90], [11, 91]] and "half" not in str(whole[1])
    put(tmp_path / "in" / "2.png")
    assert translate(0, out="mixed")[0] == [[10, 90], [11, 91]]  # these are no pairs


def test_options_are_the_same_for_eval(tmp_path):
    put(tmp_path / "1.png", 10)
    put(tmp_path / "2.png", 30, size=(16, 8))
    (tmp_path / "3.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="entries|not a readable image"):
        [*from_folder(f"folder:{tmp_path}", 3)[0].stream()]
    images, _ = from_folder(f"folder:{tmp_path}?skip=corrupt&fit=pad", 3)
    assert images.count == 2 and [x.shape[-1] for x in images.stream()] == [8, 16]
    source = find(f"folder:{tmp_path}?skip=corrupt")
    assert source.images(None, 0, 3)[0].count == 2


@pytest.mark.parametrize(
    ("names", "text", "number"),
    [
        (("0", "1", "2", "10"), "2", 2),
        (("1", "2", "10"), "2", 1),
        (("1", "2", "10"), "10", 2),
        (("cat", "dog"), "1", 1),
        (("Cat", "dog"), "cat", 0),
        ((), "1", 1),
    ],
)
def test_a_class_by_its_name(names, text, number):
    assert class_number(text, max(3, len(names)), names) == number


def test_an_ambiguous_class():
    with pytest.raises(ValueError, match=r"y='0': no class has this name.* the model has 1, 2, 10"):
        class_number("0", 3, ("1", "2", "10"))
    with pytest.raises(ValueError, match=r"classes 0, 2 have this name; give a number"):
        class_number("crane", 3, ("crane", "dog", "crane"))
    assert class_number(0, 3, ("1", "2", "10")) == 0  # in Python a number is a number


# Datasets -------------------------------------------------------------------------------------------------------------


class Items:
    """A Dataset of some labels."""

    def __init__(self, labels, item=lambda x, y: (x, y), **attributes):
        self.labels, self.item = labels, item
        vars(self).update(attributes)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.item(torch.full((3, 8, 8), i % 256, dtype=torch.uint8), self.labels[i])


@pytest.mark.parametrize(
    ("labels", "names", "classes", "numbers", "note"),
    [
        ([0, 1, 1], (), ("0", "1"), [0, 1, 1], ""),
        ([0, 1, 1], ("cat", "dog"), ("cat", "dog"), [0, 1, 1], ""),
        ([0, 2, -1], ("a", "b", "c"), ("a", "b", "c"), [0, 2, -1], "1 of its 3 classes have no images: b"),
        ([3, 7, 3], (), ("3", "7"), [0, 1, 0], "its labels are 3, 7: they become classes 0 to 1"),
        ([1, 2, 2], (), ("1", "2"), [0, 1, 1], "its labels are 1, 2"),
        ([0, -1, 1], (), ("0", "1"), [0, -1, 1], "1 of 3 images have no label"),
        ([None, 1, 0], (), ("0", "1"), [-1, 1, 0], "1 of 3 images have no label"),
        (["10", "9", "cat"], (), ("9", "10", "cat"), [1, 0, 2], ""),
        (["dog", "cat", "dog"], ("dog", "cat"), ("dog", "cat"), [0, 1, 0], ""),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], (), ("0", "1", "2"), [1, 0, 2], ""),
        ([torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])], ("a", "b"), ("a", "b"), [1, 0], ""),
        ([torch.tensor(1.0), np.int16(0)], (), ("0", "1"), [1, 0], ""),
    ],
)
def test_labels_of_a_dataset(recwarn, labels, names, classes, numbers, note):
    data = open_data(Items(labels, **({"classes": names} if names else {})))
    assert data.facts.classes == classes and data.labels("y").tolist() == numbers
    assert data.rows(torch.arange(len(labels)))["y"].tolist() == numbers
    assert any(note in str(w.message) for w in recwarn) if note else not len(recwarn)
    assert note in data.facts.about


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 3], ("a", "b"), "it names 2 classes, but has a label 3"),
        ([0, -2], (), "must be from 0, or -1 for no label, got -2"),
        ([0, "cat"], (), "must be all text or all numbers"),
    ],
)
def test_wrong_labels(labels, names, message):
    with pytest.raises(ValueError, match=message):
        facts(Items(labels, **({"classes": names} if names else {})))


class ClassLabel:
    names = ("cat", "dog")


def test_items_as_hugging_face_has_them():
    """Dicts of a PIL image and a label, the names in ``features``, a column by its name."""

    class Table(Items):
        column_names, features = ("image", "label", "text"), {"label": ClassLabel()}

        def __getitem__(self, key):
            if key == "label":
                return self.labels
            return {"image": PilImage.new("RGB", (12, 8), (key,) * 3), "label": self.labels[key], "text": f"no. {key}"}

    data = open_data(Table([1, 0, 1]))
    assert data.facts.keys == ("x", "y", "caption") and data.facts.classes == ("cat", "dog")
    assert data.labels("y").tolist() == [1, 0, 1] and data.resolution == 8
    rows = data.rows(torch.arange(3))
    assert rows["x"][:, 0, 0, 0].tolist() == [0, 1, 2] and rows["caption"] == ["no. 0", "no. 1", "no. 2"]
    subset = torch.utils.data.Subset(Items([0, 1, 2], targets=[0, 1, 2], classes=("a", "b", "c")), [2, 0])
    assert open_data(subset).labels("y").tolist() == [2, 0] and facts(subset).classes == ("a", "b", "c")


class Vision(torchvision.datasets.VisionDataset):
    """As torchvision has them: ``targets`` are the labels before transforms. ``reads``: the items that were read."""

    def __init__(self, targets, classes=(), **transforms):
        super().__init__("", **transforms)
        self.targets, self.classes, self.reads = targets, classes, []

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        self.reads.append(i)
        item = PilImage.new("RGB", (8, 8), (i,) * 3), int(self.targets[i])
        return self.transforms(*item) if self.transforms else item


def double_labels(image, label):
    return image, 2 * label


LETTERS = ("a", "b", "c", "d")
TRANSFORMS = {
    "none": ({}, LETTERS, [0, 1, 2, 3]),
    "of images": ({"transform": lambda image: image.convert("L")}, LETTERS, [0, 1, 2, 3]),
    "to a tensor": ({"target_transform": torch.tensor}, LETTERS, [0, 1, 2, 3]),
    "one-hot": ({"target_transform": lambda y: torch.eye(4)[y]}, LETTERS, [0, 1, 2, 3]),
    "remainder": ({"target_transform": lambda y: y % 2}, ("0", "1"), [0, 1, 0, 1]),
    "order": ({"target_transform": lambda y: 3 - y}, ("0", "1", "2", "3"), [3, 2, 1, 0]),
    "names": ({"target_transform": lambda y: "dcba"[y]}, LETTERS, [3, 2, 1, 0]),
    "joint": ({"transforms": double_labels}, ("0", "2", "4", "6"), [0, 1, 2, 3]),
}


@pytest.mark.filterwarnings("ignore::zoo.data.images.DataWarning")
@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_labels_of_a_transformed_dataset(kind, subset):
    """Those of its items, wherever they are asked for."""
    transforms, classes, numbers = TRANSFORMS[kind]
    dataset = Vision([0, 1, 2, 3] * 50, LETTERS, **transforms)
    numbers = numbers * 50
    if subset:
        order = list(range(200))[::-1]
        dataset, numbers = torch.utils.data.Subset(dataset, order), numbers[::-1]
    data = open_data(dataset)
    assert data.facts.classes == classes
    assert data.labels("y").tolist() == numbers == data.rows(torch.arange(200))["y"].tolist()
    changed = kind in ("remainder", "order", "joint")
    assert ("its labels are not its targets: the names of its classes are left out" in data.facts.about) == changed


def test_items_without_a_field_of_the_first():
    x = torch.zeros(3, 8, 8)
    for key, value in (("y", 1), ("caption", "a cat"), ("attributes", [0, 1])):
        with pytest.raises(ValueError, match=f"an item of the list has no {key}, which item 0 has; it has x"):
            open_data([{"x": x, key: value}, {"x": x}])
    for label in (float("nan"), float("inf")):  # real numbers are no classes
        assert open_data([(x, label)]).facts.classes == ()


def test_targets_save_reading_all_items():
    """Also if a target_transform can be applied to them alone."""
    for transforms in ({}, {"target_transform": lambda y: y % 2}):
        dataset = Vision([0, 1, 2, 3] * 50, **transforms)
        assert open_data(dataset).labels("y").tolist() == [y % 2 if transforms else y for y in dataset.targets]
        assert len(set(dataset.reads)) <= 64


@pytest.mark.filterwarnings("ignore::zoo.data.images.DataWarning")
def test_targets_that_are_not_the_labels():
    """Of another Dataset, or a transform that fails without its items: every item is read."""

    def fails(y):
        raise KeyError(y)

    dataset = Items([1, 0, 1], targets=[0, 1, 0], classes=("cat", "dog"))
    assert open_data(dataset).labels("y").tolist() == [1, 0, 1]
    dataset = Items([1, 0, 1], targets=[0, 1, 0], target_transform=fails)
    assert open_data(dataset).labels("y").tolist() == [1, 0, 1]


def test_a_label_that_differs_from_its_target_is_named():
    """If the items that are compared at the start agree and another one does not."""
    targets = [0, 1] * 500
    labels = [*targets]
    labels[5] = 0  # not among the 64 of 1,000 that are compared
    data = open_data(Items(labels, targets=targets))
    assert data.rows(torch.tensor([4, 6]))["y"].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"the Items: item 5 has the label 0, its targets have 1"):
        data.rows(torch.tensor([4, 5, 6]))


@pytest.mark.parametrize(("fit", "corner", "middle"), [("crop", 90, 90), ("pad", 0, 90), ("stretch", 10, 90)])
@pytest.mark.parametrize("form", ["tensor", "floats", "list", "arrays", "paths", "pairs"])
def test_fit_of_images_in_python(tmp_path, form, fit, corner, middle):
    """The same as of a folder, for a tensor and for lists of PIL images, arrays [H, W, C], paths and (image, label)."""
    image = PilImage.new("RGB", (24, 8), (10,) * 3)
    image.paste((90,) * 3, (8, 0, 16, 8))
    image.save(tmp_path / "1.png")
    x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)  # [C, H, W]
    images = {
        "tensor": x[None],
        "floats": x[None] / 255,
        "list": [image],
        "arrays": [np.asarray(image)],
        "paths": [tmp_path / "1.png"],
        "pairs": [(x, 0)],
    }[form]
    data = open_data(zoo.data.Images(images, fit=fit), 24)
    row = data.rows(torch.arange(1))["x"][0, 0]
    assert row.shape == (24, 24) and row[0, 0] == corner and row[12, 12] == middle
    assert {"crop": "center square", "pad": "padded", "stretch": "stretched"}[fit] in data.facts.about
    assert torch.equal(row, open_data(f"folder:{tmp_path}?fit={fit}", 24).arrays["x"][0, 0])


def test_mistakes_of_images_in_python(tmp_path):
    with pytest.raises(ValueError, match="fit='cut': must be one of crop, pad, stretch"):
        zoo.data.Images([], fit="cut")
    with pytest.raises(ValueError, match=r"none\.png': No such file"):
        facts([str(tmp_path / "none.png")])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.png': cannot identify image file"):
        facts([tmp_path / "text.png"])


def test_a_list_is_gray_if_all_are():
    gray, color = PilImage.new("L", (8, 8), 7), PilImage.new("RGB", (8, 8), (7, 7, 7))
    assert facts([gray, gray]).channels == 1
    mixed = open_data([gray, color, np.full((8, 8), 7, np.uint8)])
    assert mixed.facts.channels == 3 and mixed.rows(torch.arange(3))["x"].unique().tolist() == [7]


@pytest.mark.parametrize("form", ["dicts", "tuples"])
def test_pairs_in_python(form):
    """Two images an item are rows of two domains, which a recipe of pairs reads as those of a folder."""
    x = torch.arange(6, dtype=torch.uint8).mul(10)[:, None, None, None].expand(-1, 3, 8, 8)
    items = [{"a": a, "b": 255 - a} if form == "dicts" else (a, 255 - a) for a in x]
    data = open_data(items)
    assert data.facts.paired and data.facts.keys == ("x", "domain") and len(data) == 12
    assert data.facts.fields["domain"].names == ("a", "b") and data.labels("domain").tolist() == [0, 1] * 6
    rows = data.rows(torch.arange(12))["x"].float().mean((1, 2, 3))
    assert (rows[::2] + rows[1::2]).tolist() == [255] * 6 and rows[::2].tolist() == [0, 10, 20, 30, 40, 50]
    assert zoo.create("pix2pix", items, "small").domains == {"a": "a", "b": "b"}
    with pytest.raises(ValueError, match="the recipe needs pairs, but 'list' has none"):
        zoo.create("pix2pix", [{"x": a, "domain": i % 2} for i, a in enumerate(x)])
