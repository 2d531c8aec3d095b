"""The setting for data that a model has no setting for is chosen by the data alone."""

import pytest
import torch
from PIL import Image

import zoo
from zoo.choice import choose
from zoo.engine.run_folder import default_folders


@pytest.fixture
def photos(tmp_path, own_home):
    """``photos(count, side, mode)`` -> folder:PATH."""

    def make(count=6, size=(64, 64), mode="RGB", folders=("",)):
        for folder in folders:
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            for k in range(count):
                Image.new(mode, size, k).save(tmp_path / "photos" / folder / f"{k}.png")
        return f"folder:{tmp_path}/photos"

    return make


@pytest.mark.parametrize("variant", ["", "small"])
def test_color_photos(photos, variant):
    chosen = choose("dcgan", photos(), variant)
    assert chosen.recipe.networks == choose("dcgan-celeba-small").recipe.networks
    assert "dcgan-celeba-small, chosen by the data: 6 color images of 64 pixels" in chosen.note
    assert not chosen.recipe.stages[0].data.pad
    assert chosen.larger == ("" if variant else "dcgan-celeba")


def test_gray_photos(photos):
    chosen = choose("dcgan", photos(size=(30, 30), mode="L"))
    assert "6 gray images of 30 pixels" in chosen.note and "-mnist" in chosen.note
    assert (chosen.larger, chosen.smaller) == ("", "dcgan-mnist-small")  # dcgan-mnist needs classes


def test_labels_that_no_network_reads(photos):
    """LAPGAN without classes trains on images without labels; a game of labels still needs them."""
    assert zoo.create("lapgan", photos()).sample(2).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="'folder-photos' has no classes; choose a data set with labels"):
        zoo.create("triplegan", photos())


def test_a_reduced_setting_by_its_name(photos):
    """SRGAN's are larger than others' and still reduced."""
    assert choose("srgan", photos()).recipe.variant == "small"


def test_the_name_of_a_folder(photos, monkeypatch, tmp_path):
    """A run is named after the user's folder."""
    for dataset, name in {
        photos(): "folder-photos",
        "folder:My Photos/?fit=pad": "folder-my-photos",
        r"folder:C:\\Faces.zip": "folder-faces",
        "folder:/": "folder",
        "shards:a/{0..3}.tar": "shards",
        "object:MyPhotos": "myphotos",
        "mnist": "mnist",
    }.items():
        recipe = choose("dcgan", photos()).recipe.replace(dataset=dataset)
        assert recipe.name == f"dcgan-{name}-small"
        assert next(default_folders(recipe.name, 0)).name == f"dcgan-{name}-small-seed0"


def test_many_sizes(photos, tmp_path):
    photos(count=3, size=(64, 64))
    Image.new("RGB", (100, 40)).save(tmp_path / "photos" / "wide.png")
    assert (
        "4 color images of many sizes, the median of their shorter sides 64 pixels" in choose("dcgan", photos(0)).note
    )


def test_many_images_are_worth_a_full_setting():
    images = torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8).expand(50_000, 3, 64, 64)[:, :, :2, :2]
    assert choose("dcgan", images).recipe.networks["G"].kwargs["width"] >= 64


def test_fields_of_the_data(photos):
    assert "sngan-cifar10-small" in choose("sngan", photos()).note
    assert choose("cyclegan", photos(folders=("a", "b"))).recipe.stages[0].resolution == 64


def test_the_model_has_a_setting_for_the_data():
    assert choose("dcgan", "cifar10").recipe.name == "dcgan-cifar10-small"
    assert choose("dcgan", "celeba").note == ""
    assert choose("dcgan").recipe.name == "dcgan-celeba"


def test_a_recipe_by_name(photos):
    chosen = choose("dcgan-celeba", photos())
    assert chosen.recipe.networks["G"].kwargs["width"] == 128 and chosen.recipe.dataset == photos()
    with pytest.raises(ValueError, match="unknown data set 'cifar11'"):
        choose("dcgan", "cifar11")
    with pytest.raises(ValueError, match="no variant 'smal'"):
        choose("dcgan", photos(), "smal")


def test_a_tensor_is_resized_as_a_folder_is(photos):
    """A setting that pads its own set's images does not pad those of the user."""
    images = torch.rand(8, 3, 40, 40)
    recipe = choose("dcgan", images).recipe
    assert recipe.stages[0].resolution == 32 and not recipe.stages[0].data.pad
    assert zoo.create("dcgan", images).sample(2).shape == (2, 3, 32, 32)


def test_the_name_of_an_object():
    """Not that of the data set whose setting is used."""
    assert choose("dcgan", torch.rand(8, 3, 32, 32)).recipe.name == "dcgan-tensor-small"
    assert choose("cyclegan", Unnamed(), "small").recipe.name == "cyclegan-unnamed-small"
    with pytest.raises(ValueError, match=r"got a DataLoader; give its \.dataset"):
        choose("dcgan", torch.utils.data.DataLoader(Unnamed()))


def test_create_with_changes(photos):
    model = zoo.create("dcgan", photos(), width=8, resolution=64)
    assert model.sample(1).shape == (1, 3, 64, 64)
    assert sum(p.numel() for p in model.parameters()) < sum(
        p.numel() for p in zoo.create("dcgan", photos()).parameters()
    )
    with pytest.raises(ValueError, match=r"widht=8: no network of 'dcgan-.*' has it; did you mean width"):
        zoo.create("dcgan", photos(), widht=8)


def test_first_lines(shell, photos):
    result = shell("train", "dcgan", "--dataset", photos(), "--dry-run")
    assert result.status == 0
    lines = result.out.splitlines()
    assert "its setting for celeba is used (dcgan-celeba-small" in lines[0]
    assert lines[1] == f"the next larger setting: zoo train dcgan-celeba --dataset {photos()}"
    assert any("images of 64 pixels" in line for line in lines)


def test_time(shell, photos, monkeypatch, tmp_path):
    monkeypatch.setattr("zoo.cli.train.TIMED_SECONDS", 3.0)
    arguments = ("train", "dcgan", "--dataset", photos(), "--set", "networks.G.width=2", "--set", "networks.D.width=2")
    before = sorted(tmp_path.iterdir())
    result = shell(*arguments, "--dry-run", "--time")
    assert result.status == 0 and "images/s on this machine: the whole budget takes about" in result.out
    assert {p.name for p in tmp_path.iterdir()} - {p.name for p in before} <= {"home"}
    assert "must be with --dry-run" in shell(*arguments, "--time").err


def test_names_of_domains_come_from_the_data(photos, tmp_path):
    model = zoo.create("cyclegan", photos(folders=("horses", "zebras"), size=(32, 32)))
    assert model.domains == {"a": "horses", "b": "zebras"}
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.translate(x, to="zebras"), model.translate(x, to="b"))
    with pytest.raises(ValueError, match="to='noto': no such domain"):
        model.translate(x, to="noto")
    assert zoo.create("cyclegan", "emoji", "small").domains == {"a": "twemoji", "b": "noto"}


class Unnamed:
    """Two domains without names."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {"x": torch.zeros(3, 32, 32, dtype=torch.uint8), "domain": i % 2}


def test_domains_without_names_are_letters():
    assert zoo.create("cyclegan", Unnamed()).domains == {"a": "a", "b": "b"}
