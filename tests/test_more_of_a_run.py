"""A run goes on past its budget or with moved data; prepared copies are listed and removed; CelebA's files by hand."""

import dataclasses
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from zoo import settings
from zoo.data import celeba, facts, open_data
from zoo.data.facts import Facts
from zoo.engine.extend import with_budget
from zoo.recipe import Schedule

SMALL = {"networks.G.width": 2, "networks.D.width": 2, "stages.0.batch": 8}


def photos(folder, count=8):
    folder.mkdir()
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize("command", ["python", "shell"])
def test_past_the_budget_with_moved_data(tmp_path, own_home, shell, command):
    """The weights of 32 + 32 images are those of 64 at once, since the setting has no schedules."""
    data = photos(tmp_path / "here")
    common = dict(settings=SMALL, device="cpu")
    whole = zoo.train("dcgan", data, out=tmp_path / "whole", images=64, **common)
    run = zoo.train("dcgan", data, out=tmp_path / "run", images=32, **common)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = f"folder:{tmp_path}/there"
    if command == "python":
        zoo.resume(run, images=64, dataset=moved)
    else:
        result = shell("resume", run, "--images", 64, "--dataset", moved)
        assert result.status == 0, result.err
    assert zoo.load(run).card["images"] == 64
    first, second = (load_file(folder / "weights.safetensors") for folder in (whole, run))
    assert all(torch.equal(first[key], second[key]) for key in first)
    key = next(iter(first))
    for images in (64, 32):
        with pytest.raises(ValueError, match=rf"--images {images}: must be more than the 64 images"):
            zoo.resume(run, images=images)
    photos(tmp_path / "others", 3)
    before = (run / "recipe.json").read_bytes()
    with pytest.raises(ValueError, match="the images of .* are not those that it began with"):
        zoo.resume(run, images=80, dataset=f"folder:{tmp_path}/others")
    for options in (("--dataset", "fashion-mnst"), ("--micro-batch", 3), ("--device", "cuda:99")):
        assert shell("resume", run, "--images", 80, *options).status == 2
    assert (run / "recipe.json").read_bytes() == before  # a refusal changes nothing
    (run / "checkpoint.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has weights but no checkpoint.safetensors to go on from"):
        zoo.resume(run, images=80)
    assert torch.equal(load_file(run / "weights.safetensors")[key], second[key])


@pytest.mark.parametrize("from_object", [False, True])
def test_the_new_place_of_the_data_stays(tmp_path, own_home, shell, monkeypatch, from_object):
    """Also of a run that began with an object, and from any working folder."""
    data = photos(tmp_path / "here")
    source = open_data(data, 32) if from_object else data
    common = dict(settings={**SMALL, "stages.0.resolution": 32}, device="cpu")
    run = zoo.train("dcgan", source, out=tmp_path / "run", images=8, **common)
    if from_object:
        with pytest.raises(ValueError, match="given as an object; pass it again"):
            zoo.resume(run, images=16)
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    zoo.resume(run, images=16, dataset="folder:./there?pairs=no")
    place = json.loads((run / "recipe.json").read_text())["changes"]["dataset"]
    assert place == f"folder:{tmp_path}/there?pairs=no"
    monkeypatch.chdir(run)
    events = {}
    zoo.resume(run, images=32, minutes=0, progress=lambda event, **facts: events.setdefault(event, facts))
    assert zoo.load(run).card["images"] == 24 and events["done"]["resume"] == f"zoo resume {run}"
    page = zoo.report(run).read_text()
    assert f"zoo resume {run}" in page and "The data set was an object" not in page


def test_a_run_of_own_images_is_scored_on_them(tmp_path, own_home, shell):
    """Without an option: its folder, if it is still there, and the feature network of color images."""
    run = zoo.train("dcgan", photos(tmp_path / "here"), out=tmp_path / "run", images=8, settings=SMALL, device="cpu")
    result = shell("eval", run, "--metrics", "fd", "-n", 8, "--json")
    assert result.status == 0, result.err
    assert [*result.json["scores"]] == ["fd-cifar10"] and "folder-here" in str(result.json["protocol"])
    assert any("'folder-here' has no feature network of its own" in note for note in result.json["notes"])
    (tmp_path / "here").rename(tmp_path / "there")
    result = shell("eval", run, "--metrics", "fd", "-n", 8)
    assert result.status == 2 and "trained on 'folder-here', which is not registered; name it" in result.err


def test_learning_rates_that_are_zero():
    """No image more would change a weight."""
    recipe = settings.find("dcgan-cifar10-small").rescaled(32)
    falling = Schedule("optimizers.*.lr", ((0, 1e-3), (32, 0.0)))
    recipe = recipe.replace(stages=(dataclasses.replace(recipe.stages[0], schedules=(falling,)),))
    with pytest.raises(ValueError, match="the learning rate is 0 after the 32 images"):
        with_budget(recipe, 64)
    assert with_budget(recipe, 16).images == 16


def test_prepared_copies(tmp_path, own_home, shell):
    data = photos(tmp_path / "mine")
    for side in (8, 16):
        open_data(data, side)
    rows = shell("data", "list", "--json").json
    assert [row["resolution"] for row in rows] == [16, 8] or [row["resolution"] for row in rows] == [8, 16]
    removed = shell("data", "remove", rows[0]["path"], "--json").json
    assert [row["path"] for row in removed] == [rows[0]["path"]]
    assert [row["path"] for row in shell("data", "list", "--json").json] == [rows[1]["path"]]
    assert (
        shell("data", "remove").status == 2 and "did you mean folder-mine" in shell("data", "remove", "folder-mne").err
    )
    assert "--all: must be without NAMES" in shell("data", "remove", "folder-mine", "--all").err
    assert shell("data", "remove", "folder-mine").status == 0 and shell("data", "list", "--json").json == []
    assert len([*(tmp_path / "mine").iterdir()]) == 8 and len(open_data(data, 8)) == 8


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("inner", ["", "celeba"])
def test_celebas_files_by_hand(tmp_path, own_home, monkeypatch, archive, inner):
    """Generated pictures of the official names and size, 178 x 218: the center 148 x 148 is read."""
    entry = celeba.celeba()
    splits = {"train": 4, "valid": 2, "test": 2}
    small = Facts(**{**vars(entry.facts), "splits": splits, "fields": dict(entry.facts.fields)})
    entry = dataclasses.replace(entry, facts=small)
    monkeypatch.setenv("ZOO_RAW", str(tmp_path / "raw"))
    monkeypatch.setattr("zoo.data._find", lambda name: entry)
    root = tmp_path / "raw" / "celeba" / inner
    with pytest.raises(OSError, match=r"put img_align_celeba.zip .*CelebA.html into .*raw/celeba .*it has nothing"):
        celeba._official(tmp_path)
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{k:06}.jpg" for k in (1, 2, 3, 4, 162771, 162772, 182638, 182639)]
    for k, name in enumerate(names):
        image = Image.new("RGB", (178, 218), "white")
        image.paste((20 * k,) * 3, (15, 35, 163, 183))
        image.save(root / "img_align_celeba" / name, quality=95)
    rows = [f"{name} {' '.join(str(1 if (k + i) % 3 == 0 else -1) for i in range(40))}" for k, name in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(celeba.ATTRIBUTES), *rows]) + "\n")
    partition = [f"{name} {part}" for name, part in zip(names, (0, 0, 0, 0, 1, 1, 2, 2), strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(partition))
    if archive:
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as file:
            for name in names:
                file.write(root / "img_align_celeba" / name, f"img_align_celeba/{name}")
        shutil.rmtree(root / "img_align_celeba")
    train, valid = open_data("celeba", 64), open_data("celeba", 64, "valid")
    assert (train.arrays["x"].float().mean((1, 2, 3)) / 20).round().tolist() == [0, 1, 2, 3]
    assert (valid.arrays["x"].float().mean((1, 2, 3)) / 20).round().tolist() == [4, 5]
    assert train.arrays["attributes"][1, :4].tolist() == [0, 0, 1, 0] and len(valid) == 2
    assert train.labels("attributes.Young").tolist() == [int((k + 39) % 3 == 0) for k in range(4)]
    assert facts("celeba").splits == splits
    young = [("young" in text) for text, *_ in train.texts["caption"]]
    assert young == train.labels("attributes.Young").bool().tolist() and len(train.texts["caption"][0]) == 3


def test_celebas_finished_crops(tmp_path, own_home, monkeypatch):
    """A zip of square images and a table, in place of the official files: the same fields; rows whose images are not in
    the zip are left out."""
    root = tmp_path / "raw" / "celeba"
    root.mkdir(parents=True)
    monkeypatch.setenv("ZOO_RAW", str(tmp_path / "raw"))
    lines = []
    with zipfile.ZipFile(root / "crops.zip", "w") as file:
        for k in range(6):
            Image.new("RGB", (64, 64), (20 * k,) * 3).save(tmp_path / "image.png")
            if k != 1:
                file.write(tmp_path / "image.png", f"{k:06}.png")
            flags = ",".join(str(int((k + i) % 3 == 0)) for i in range(40))
            lines.append(f"{k:06}.png,{k},{0 if k < 4 else 2},{flags}")
    table = root / "attributes.csv"
    table.write_text("\n".join([",".join(("image", "identity", "partition", *celeba.ATTRIBUTES)), *lines]))
    train, test = open_data("celeba", 64), open_data("celeba", 64, "test")
    assert (train.arrays["x"].float().mean((1, 2, 3)) / 20).round().tolist() == [0, 2, 3]
    assert train.labels("attributes.Young").tolist() == [int((k + 39) % 3 == 0) for k in (0, 2, 3)] and len(test) == 2
    assert train.facts.fields["attributes"] == celeba.celeba().facts.fields["attributes"]
    with pytest.raises(OSError, match="has no image of the split valid"):
        celeba._crops_rows(root, "valid")
    (root / "other.zip").write_bytes((root / "crops.zip").read_bytes())
    with pytest.raises(OSError, match="one zip of square images, and attributes.csv .* it has attributes.csv, "):
        celeba._crops(tmp_path)
    (root / "other.zip").unlink()
    table.write_text(table.read_text().replace("Young", "Old"))
    with pytest.raises(OSError, match=r"attributes.csv: must have a column Young"):
        celeba._crops_rows(root, "train")
