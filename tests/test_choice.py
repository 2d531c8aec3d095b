"""The setting for data that a model has no setting for is chosen by the data alone."""

import json
import signal

import pytest
import torch
from PIL import Image

import zoo
from zoo import costs, settings
from zoo.adapt import domain_streams
from zoo.choice import choose, reduced, work
from zoo.cli.train import advice, time_rounds
from zoo.engine.dry_run import equivalent_images
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


@pytest.mark.parametrize("model", sorted({settings.RECIPES[name]["model"] for name in settings.names()}))
def test_points(model):
    if any(settings.RECIPES[name]["dataset"] == "ring" for name in settings.names() if name.startswith(f"{model}-")):
        assert choose(model, "gaussian1d").recipe.stages[-1].resolution == 0
    else:
        with pytest.raises(ValueError, match=f"^{model}-.* is for images, but ring has points; for points: lsgan-ring"):
            choose(model, "ring")


def test_images_for_a_setting_of_points():
    with pytest.raises(ValueError, match="lsgan-ring is for points, but cifar10 has images"):
        choose("lsgan-ring", "cifar10")


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
    """Unless its images are larger than theirs: SVHN's have 32 pixels."""
    assert "(dcgan-celeba, chosen by the data: 818,987 color images of 256 pixels)" in (
        choose("dcgan", "lsun-bridge").note
    )
    chosen = choose("dcgan", "svhn")
    assert "(dcgan-cifar10-small, chosen by the data" in chosen.note and chosen.larger


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


@pytest.mark.parametrize(("model", "key", "value"), [("dcgan", "channels", 1), ("acgan", "classes", 5)])
def test_create_with_what_the_data_fix(model, key, value):
    with pytest.raises(ValueError, match=f"{key}={value}: must be those of the data set; leave it out"):
        zoo.create(model, "cifar10", **{key: value})


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


def test_time_without_the_first_rounds(monkeypatch):
    """The first tick, which may contain a long compilation, counts neither for the rate nor for the seconds."""
    requests = []
    previous = signal.signal(signal.SIGTERM, lambda *_: requests.append("stop"))

    def train(recipe, out, progress, **options):
        for number, rate in enumerate((0.1, 50.0, 70.0, 60.0)):
            assert not requests, f"stopped before tick {number}"
            monkeypatch.setattr("time.monotonic", lambda now=100.0 + 2 * number: now)
            progress("tick", images=number, images_per_second=rate, stage=0)

    monkeypatch.setattr("zoo.engine.train.train", train)
    monkeypatch.setattr("zoo.cli.train.TIMED_SECONDS", 6.0)
    try:
        assert time_rounds(None, None, 0) == 60.0
        assert requests == ["stop"]
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_time_of_several_stages(shell, monkeypatch, own_home):
    """The rate is that of the first stage, and what later ones cost more is counted."""
    recipe = settings.find("pggan-fashion-mnist")
    rates = {0: 1_000.0, 1: 10.0}

    def train(recipe, out, progress, **options):
        with pytest.raises(Interrupted):
            for stage in (0, 1, 2):
                progress("tick", images_per_second=rates[stage], stage=stage)
        return out

    class Interrupted(Exception):
        pass

    def interrupt(number):
        raise Interrupted

    monkeypatch.setattr("zoo.engine.train.train", train)
    monkeypatch.setattr(signal, "raise_signal", interrupt)
    result = shell("train", recipe.name, "--dry-run", "--time", "--json")
    time = json.loads(result.out[result.out.rindex("{") :])
    assert time["images_per_second"] == 1_000.0
    assert time["seconds"] == pytest.approx(equivalent_images(costs.table()[recipe.name]["cost"]["stages"]) / 1_000)
    assert time["seconds"] > 10 * recipe.images / 1_000


@pytest.mark.parametrize(
    "options", [("--init", "dcgan-fashion-mnist"), ("--minutes", 1), ("--out", "run"), ("--log", "tensorboard")]
)
def test_time_with_options_that_would_do_nothing(shell, options):
    result = shell("train", "dcgan-cifar10-small", "--dry-run", "--time", *options)
    assert result.status == 2 and result.out == ""
    assert f"{options[0]} {options[1]}" in result.err and "must be left out with --time" in result.err


def test_names_of_domains_come_from_the_data(photos, tmp_path):
    model = zoo.create("cyclegan", photos(folders=("horses", "zebras"), size=(32, 32)))
    assert model.domains == {"a": "horses", "b": "zebras"}
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.translate(x, to="zebras"), model.translate(x, to="b"))
    with pytest.raises(ValueError, match="to='noto': no such domain"):
        model.translate(x, to="noto")
    assert zoo.create("cyclegan", "emoji", "small").domains == {"a": "twemoji", "b": "noto"}


class Unnamed:
    """Domains without names."""

    def __init__(self, domains=2):
        self.domains = domains

    def __len__(self):
        return 2 * self.domains

    def __getitem__(self, i):
        return {"x": torch.zeros(3, 32, 32, dtype=torch.uint8), "domain": i % self.domains}


def test_domains_without_names_are_letters():
    assert zoo.create("cyclegan", Unnamed()).domains == {"a": "a", "b": "b"}


# Domains, attributes and captions of the data ------------------------------------------------------------------------

TWO = sorted({e["model"] for n in settings.names() if {*domain_streams((e := settings.RECIPES[n])["build"]())}})


def test_these_models_have_streams_of_domains():
    assert {"cogan", "combogan", "cyclegan", "pix2pix", "xgan"} <= {*TWO}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("model", TWO)
def test_streams_read_the_first_domains(photos, model, count):
    """Of the chosen setting and of those that are named beside it; domains that none reads are named."""
    dataset = photos(folders=[f"style{k}" for k in range(count)], size=(32, 32))
    chosen = choose(model, dataset)
    for choice in [chosen, *(choose(name, dataset) for name in (chosen.larger, chosen.smaller) if name)]:
        values = [value for _, value in domain_streams(choice.recipe)]
        assert sorted(values) == [*range(len(values))], "the first, each once"
        assert len(values) in (2, count)
        rest = [f"style{k}" for k in range(len(values), count)]
        assert ("leaves out" in choice.note) == bool(rest) and all(name in choice.note for name in rest)
        assert all(s.part == (0, 1) for stage in choice.recipe.stages for s in stage.data.streams.values())


@pytest.mark.parametrize("name", ["cyclegan-emoji-fluent3d-small", "xgan-emoji-small"])
def test_a_setting_of_later_domains_reads_the_first(photos, name):
    folders = ("horses", "zebras", "zebus")
    assert zoo.create(name, photos(folders=folders)).domains == {"a": "horses", "b": "zebras"}


def test_domains_of_the_same_names_are_read():
    """The five styles of emoji have the names of the three."""
    recipe = choose("cyclegan-emoji-fluent3d-small", "emoji-styles").recipe
    assert [*domain_streams(recipe)] == [("domain", 1), ("domain", 2)]
    assert recipe.stages[0].game.kwargs["domains"] == ("noto", "fluent3d")
    assert zoo.create("combogan", "emoji-styles").domains["3-4"] == "openmoji-fluentflat"


def test_another_domain_by_set(photos, shell):
    """The note names the option."""
    arguments = ("train", "cyclegan", "--dataset", photos(folders=("a0", "a1", "a2")), "--dry-run")
    first = shell(*arguments).out.splitlines()[0]
    assert first.endswith("it reads a0, a1 and leaves out a2 (--set data.streams.b.where.domain=2 reads a2 as 'b')")
    assert shell(*arguments, "--set", "data.streams.b.where.domain=2").status == 0


@pytest.mark.parametrize("model", ["combogan", "cyclegan", "xgan"])
def test_one_domain_is_too_few(photos, shell, model, tmp_path):
    result = shell("train", model, "--dataset", photos(folders=("a0",)), "--images", 4, "--out", tmp_path / "run")
    assert result.status == 2 and "a0" in result.err and len(result.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_domains_as_the_data_have(photos, count):
    folders = [f"style{k}" for k in range(count)]
    dataset = photos(folders=folders, size=(32, 32))
    pairs = {f"{a}-{b}": f"style{a}-style{b}" for a in range(count) for b in range(count) if a != b}
    assert zoo.create("combogan", dataset).domains == pairs
    assert [*zoo.create("stargan", dataset).directions] == folders
    recipe = choose("combogan-emoji", dataset).recipe  # the full setting: 100 epochs a domain
    assert recipe.images == 100 * count * 3_358 and [*recipe.stages[0].optimizers] == [
        f"{network}.{k}" for network in "GD" for k in range(count)
    ]


def test_domains_without_names_are_numbers():
    """A Dataset of three domains without names."""
    assert zoo.create("combogan", Unnamed(3)).domains["0-2"] == "0-2"


@pytest.fixture
def table(photos, tmp_path):
    """``table(header, row)`` -> folder:PATH of eight images with a table; ``row(k)``: its columns."""

    def make(header, row, name="table.csv"):
        dataset = photos(8, (32, 32))
        lines = [f"image,{header}", *(f"{k}.png,{row(k)}" for k in range(8))]
        (tmp_path / "photos" / name).write_text("\n".join(lines) + "\n")
        return dataset

    return make


@pytest.mark.parametrize("model", ["stargan", "stargan-celeba"])
def test_attributes_come_from_the_data(table, model):
    dataset = table("Hat,Glasses", lambda k: f"{k % 2},{k // 2 % 2}")
    assert [*zoo.create(model, dataset).directions] == ["hat", "not_hat", "glasses", "not_glasses"]


def test_the_paper_s_attributes_if_the_data_have_them(table):
    names = ("Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
    kwargs = choose("stargan", table(",".join(names), lambda k: "0,1,0,0,1,1")).recipe.stages[0].game.kwargs
    assert kwargs["attributes"] == names[1:] and kwargs["exclusive"] == names[1:4]


@pytest.mark.parametrize("variant", ["", "small"])
@pytest.mark.parametrize("model", ["stackgan", "stackgan-pp"])
def test_captions_train_a_setting_that_reads_them(table, model, variant, tmp_path):
    """With the text encoder that needs no weights; the labels of emoji are not asked for."""
    dataset = table("caption", lambda k: f"picture {k} of things", "captions.csv")
    run = zoo.train(model, dataset, variant, images=64, out=tmp_path / "run", device="cpu", progress=None)
    trained = zoo.load(run)
    assert trained.examples == tuple(f"picture {k} of things" for k in range(8))
    assert trained.generate("picture 1 of things").shape == (1, 3, 32, 32)


def test_weights_that_are_not_here_are_named_by_a_dry_run(shell):
    result = shell("train", "stackgan-coco", "--dry-run")
    assert result.status == 0
    assert "the run cannot begin yet: pretrained.T: the weights 'char-cnn-rnn-coco' are not at hand" in result.out
    assert "cannot begin" not in shell("train", "stackgan-emoji-small", "--dry-run").out


def test_advice_keeps_the_data(photos):
    """The reduced setting is for the user's own images."""
    dataset = photos(size=(64, 64))
    full = choose("dcgan-celeba", dataset).recipe
    assert advice(full, "cpu", 86_400.0).endswith(f": zoo train dcgan-celeba-small --dataset {dataset}")
    assert choose("dcgan-celeba-small", dataset).recipe.variant == "small"
    texts = choose("stackgan-pp-lsun-bedroom", dataset).recipe  # the reduced setting needs texts
    assert "multiply-adds" not in advice(texts, "cpu", 86_400.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sngan-cifar10", "sngan-cifar10-small"), ("sngan-cifar10-conditional", "sngan-cifar10-conditional-small")],
)
def test_advice_keeps_the_kind(name, expected):
    assert reduced(settings.find(name)) == expected


def test_advice_is_a_setting_that_costs_less():
    """Fashion-MNIST's settings are small themselves: celeba-small, which fits their data, has more multiply-adds."""
    assert reduced(settings.find("stylegan2-fashion-mnist")) == ""
    text = advice(settings.find("dcgan-mnist"), "cpu", 86_400.0)
    share = work("dcgan-mnist") / work("dcgan-mnist-small")
    assert share > 3 and f"With 1/{share:,.0f} of the multiply-adds: zoo train dcgan" in text
