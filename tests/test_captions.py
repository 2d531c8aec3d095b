"""Data sets with captions: birds in the original layout, crops with a table, sentences of attributes, own folders."""

import dataclasses
import shutil
import zipfile

import pytest
import torch
from PIL import Image

from zoo.data import Facts, cub, facts, open_data, preparation
from zoo.data.celeba import ATTRIBUTES, with_captions
from zoo.data.sentences import COUNT, sentences
from zoo.registry import DATASETS

CLASSES = ["001.Albatross", "002.Auklet", "003.Bunting"]


def put_birds(root, captions: str = "text_c10", images: str = "CUB_200_2011") -> None:
    """Two birds of each of three classes, 40 x 30 pixels: bird k is a square of gray level 20k + 20 with a box of 12 x
    8 pixels on white. The third class is held out."""
    folder = root / images
    lines, boxes = [], []
    for k in range(6):
        name = f"{CLASSES[k // 2]}/bird_{k}.jpg"
        image = Image.new("RGB", (40, 30), "white")
        image.paste((20 * k + 20,) * 3, (14 - 4, 15 - 9, 14 + 14, 15 + 9))
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / name, quality=95)
        text = (root / captions / name).with_suffix(".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(f"bird {k}, caption {i} " for i in range(10)) + "\n")
        lines.append(f"{k + 1} {name}")
        boxes.append(f"{k + 1} 13.0 11.0 12.0 8.0")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "bounding_boxes.txt").write_text("\n".join(boxes) + "\n")
    (root / captions).parent.joinpath("testclasses.txt").write_text(CLASSES[2] + "\n")


def with_splits(monkeypatch, name: str, splits: dict[str, int]) -> None:
    entry = DATASETS.build(name)
    changed = Facts(**{**vars(entry.facts), "splits": splits, "fields": dict(entry.facts.fields)})
    monkeypatch.setattr("zoo.data._find", lambda name: dataclasses.replace(entry, facts=changed))


@pytest.mark.parametrize("layout", [("text_c10", "CUB_200_2011"), ("cvpr2016_cub/text_c10", ".")])
def test_birds_in_the_original_layout(tmp_path, own_home, monkeypatch, layout):
    monkeypatch.setenv("ZOO_RAW", str(tmp_path))
    with_splits(monkeypatch, "cub", {"train": 4, "test": 2})
    with pytest.raises(OSError, match=r"unpack CUB_200_2011.tgz .*into .*cub .*it lacks CUB_200_2011 .*testclasses"):
        open_data("cub", 16)
    put_birds(tmp_path / "cub", *layout)
    train, test = open_data("cub", 16), open_data("cub", 16, "test")
    assert len(train) == 4 and len(test) == 2 and train.facts.classes == tuple(CLASSES)
    assert train.labels("y").tolist() == [0, 0, 1, 1] and test.labels("y").tolist() == [2, 2]
    assert test.texts["caption"][0] == tuple(f"bird 4, caption {i}" for i in range(10))
    # The square has 1.5 times the longer side of the box: it is all of one level.
    assert (train.arrays["x"].float().mean((1, 2, 3)) / 20).round().tolist() == [1, 2, 3, 4]
    assert train.arrays["x"].float().std((2, 3)).max() < 4
    with pytest.raises(ValueError, match="cub has images of many sizes: give a resolution"):
        open_data("cub")


def test_the_crop_is_stackgan_s():
    """1.5 times the longer side around the center of the box; at the border it is cut off, then stretched."""
    image = Image.new("RGB", (100, 80))
    image.putdata([(x, y, 0) for y in range(80) for x in range(100)])
    inside = cub.crop(image, (40.0, 30.0, 20.0, 10.0))
    assert inside.size == (30, 30) and inside.getpixel((0, 0)) == (35, 20, 0)
    cut = cub.crop(image, (0.0, 30.0, 20.0, 10.0))
    assert cut.size == (30, 30) and cut.getpixel((0, 0))[:2] == (0, 20) and abs(cut.getpixel((29, 29))[0] - 24) <= 1


def test_birds_without_captions_are_named(tmp_path, own_home, monkeypatch):
    monkeypatch.setenv("ZOO_RAW", str(tmp_path))
    with_splits(monkeypatch, "cub", {"train": 4, "test": 2})
    put_birds(tmp_path / "cub")
    (tmp_path / "cub/text_c10" / CLASSES[0] / "bird_1.txt").write_text("\n")
    with pytest.raises(OSError, match=r"bird_1.txt: must have captions, got none"):
        open_data("cub", 16)


def test_crops_with_a_table(tmp_path, own_home, monkeypatch):
    """A zip of finished crops and a line a caption: a fixed tenth is the test split."""
    monkeypatch.setenv("ZOO_RAW", str(tmp_path))
    root = tmp_path / "cub10"
    root.mkdir()
    with pytest.raises(OSError, match=r"put finished crops of the first ten classes .*captions.csv .*it has nothing"):
        open_data("cub10")
    lines = ["image,class,n,caption"]
    with zipfile.ZipFile(root / "crops.zip", "w") as file:
        for k in range(40):
            name = f"{cub.FIRST_TEN[k % 10]}/bird_{k}.png"
            Image.new("RGB", (128, 128), (5 * k,) * 3).save(tmp_path / "image.png")
            file.write(tmp_path / "image.png", name)
            lines += [f'{name},{cub.FIRST_TEN[k % 10]},{i},"bird {k}, caption {i}"' for i in range(1 + k % 3)]
    (root / "captions.csv").write_text("\n".join(lines))
    train, test = open_data("cub10", 32), open_data("cub10", 32, "test")
    levels = [(data.arrays["x"][:, 0, 0, 0] // 5).tolist() for data in (train, test)]
    assert sorted(levels[0] + levels[1]) == [*range(40)] and 0 < len(test) < 12
    for data, own in zip((train, test), levels, strict=True):
        assert data.labels("y").tolist() == [k % 10 for k in own]
        assert [*data.texts["caption"]] == [tuple(f"bird {k}, caption {i}" for i in range(1 + k % 3)) for k in own]
    shutil.rmtree(own_home / "data")
    (root / "captions.csv").write_text("\n".join(lines).replace(",002.Laysan", ",300.Laysan"))
    with pytest.raises(OSError, match=r"of 001.Black_footed_Albatross to .*, got the class 300.Laysan_Albatross"):
        open_data("cub10", 32)


def test_sentences_say_what_the_attributes_say():
    """They are templates: equal attributes have equal sentences."""
    none = dict.fromkeys(ATTRIBUTES, 0)
    man = {**none, "Male": 1, "Young": 1, "Smiling": 1, "Black_Hair": 1, "Mustache": 1, "Wearing_Hat": 1}
    assert sentences(man) == [
        "a young man with black hair, a beard and a mustache who is smiling",
        "the face of a young man, smiling, wearing a hat",
        "this man is young; he has black hair, a beard and a mustache and wears a hat",
    ]
    woman = {**none, "No_Beard": 1, "Wavy_Hair": 1, "Blond_Hair": 1, "Eyeglasses": 1, "Wearing_Lipstick": 1}
    assert sentences(woman) == [
        "an older woman with wavy blond hair",
        "the face of an older woman, not smiling, wearing glasses and lipstick",
        "this woman is older; she has wavy blond hair and wears glasses and lipstick",
    ]
    assert sentences({**none, "Bald": 1, "Black_Hair": 1})[0] == "an older woman with no hair"
    row = with_captions("image", torch.tensor([int(man[name]) for name in ATTRIBUTES]))
    assert row["caption"] == sentences(man) and len(row["caption"]) == COUNT and sum(row["attributes"]) == 6
    assert facts("celeba").fields["caption"].captions == COUNT and "templates" in facts("celeba").about


def test_sets_of_an_earlier_version_are_prepared_again(tmp_path, own_home, monkeypatch):
    """With one caption a row in place of ten."""
    monkeypatch.setenv("ZOO_RAW", str(tmp_path))
    put_birds(tmp_path / "cub")
    with_splits(monkeypatch, "cub", {"train": 4, "test": 2})
    open_data("cub", 16)
    path = preparation.target("cub", 16, "train")
    declared = DATASETS.build("cub").facts
    assert preparation.damage(path, False, declared) == ""
    fields = {**declared.fields, "caption": type(declared.fields["caption"])(3)}
    other = dataclasses.replace(declared, fields=fields)
    assert "has other captions: an earlier version prepared it" in preparation.damage(path, False, other)


def test_a_folder_with_several_captions(tmp_path, own_home):
    """One's own images with a line a caption: a batch has one of each, or the mean of several."""
    for k in range(4):
        Image.new("RGB", (8, 8), (50 * k,) * 3).save(tmp_path / f"{k}.png")
    lines = [f"{k}.png,caption {i} of {k}" for k in range(4) for i in range(1 + k)]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *lines]))
    data = open_data(f"folder:{tmp_path}")
    assert data.facts.fields["caption"].captions == 4
    assert [*data.texts["caption"]] == [tuple(f"caption {i} of {k}" for i in range(1 + k)) for k in range(4)]
