"""Texts to images: the embedding of a pretrained text encoder, noise by the image's seed; every command."""

import json

import pytest
import torch
from helpers.pretrained import ENCODER, described
from PIL import Image
from torch import nn

import zoo
from zoo import hub, pretrained
from zoo.metrics.image_source import ImageSource
from zoo.metrics.inputs import ScoreInputs
from zoo.models.base import build_model
from zoo.recipe import encode
from zoo.registry import NETWORKS, FrozenDict

EXAMPLES = ["a small bird", "a red flower", "two dogs"]


@NETWORKS.register("test-text-painter")
class TextPainter(nn.Module):
    """Noise [N, 4], an embedding [N, 4] and the noise of its augmentation [N, 4] -> images [N, 3, 8, 8]."""

    latent, noise_shapes = 4, FrozenDict(code=(4,))

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 3 * 64)

    def forward(self, z, text, noise):
        h = self.first(torch.cat([z, text + 0.5 * noise["code"]], 1))
        return self.last(h.tanh()).tanh().view(-1, 3, 8, 8)


def spec_of(encoder, **more):
    networks = {"G": {"name": "test-text-painter", "kwargs": {}}}
    plain = {"kind": "text-to-image", "networks": networks, "range": [-1, 1], "resolution": 8, "channels": 3}
    own = {"prior": {"name": "normal", "kwargs": {}}, "text": "T", "examples": EXAMPLES}
    return {**plain, **own, "pretrained": {"T": {**encode(ENCODER), "hash": encoder.hash}}, **more}


@pytest.fixture
def encoder(pretrained_weights):
    return hub.load_pretrained({"T": ENCODER})["T"]


@pytest.fixture
def model(encoder):
    model = build_model(spec_of(encoder)).eval()
    pretrained.attach(model, model.spec, {"T": encoder})
    return model


@pytest.fixture
def file(tmp_path, model):
    card = {"name": "painter", "model": model.spec, "dataset": {"name": "described", "license": "generated"}}
    hub.save_weights(tmp_path / "painter.safetensors", model.networks, card)
    return tmp_path / "painter.safetensors"


def test_an_image_depends_on_its_text_and_its_seed_alone(model, encoder):
    """Not on the other texts, the chunk or the global random state."""
    torch.manual_seed(1)
    texts = ["one bird", "two birds", "one bird"]
    x = model.generate(texts, seed=5)
    assert x.shape == (3, 3, 8, 8) and x.min() >= 0 and x.max() <= 1
    assert torch.equal(model.generate("two birds", seed=6), x[1:2])
    assert torch.equal(model.generate(texts, seeds=[5, 6, 7]), x)
    torch.testing.assert_close(model.generate(texts, seed=5, chunk=1), x)
    assert not torch.equal(x[0], x[2]) and not torch.equal(model.generate(texts, seeds=[5, 5, 5])[1], x[0])
    z, text = model.latents([6], "two birds")
    noise = model.noise([6])
    torch.testing.assert_close(model.to_unit(model.G(z, text=encoder(["two birds"]), noise=noise)), x[1:2])
    assert torch.equal(text, encoder(["two birds"]))
    four = model.generate("a bird", seeds=range(4))
    assert torch.equal(four[2:3], model.generate("a bird", seed=2)) and len(four) == 4


def test_examples_stand_in_for_texts(model):
    """Seed k has the example k, in turn; pictures and walks have them too."""
    x = model.sample(4, seed=2)
    assert torch.equal(x, model.generate([EXAMPLES[k % 3] for k in (2, 3, 4, 5)], seed=2))
    images, columns = model.preview({})
    assert images.shape == (24, 3, 8, 8) and columns == 8
    assert torch.equal(images[8:16], model.generate(EXAMPLES[1], seeds=range(8)))
    assert model.grid(9).size == (3 * 10 + 2,) * 2
    walk = torch.cat(list(model.interpolate([0, 1], 3, y="a bird")))
    torch.testing.assert_close(walk[:1], model.generate("a bird", seed=0))
    assert torch.equal(next(model.probe()), images)


def test_texts_by_seeds_and_from_text_to_text(model, encoder):
    images, columns = model.text_grid(["a bird", "two dogs"], [4, 9, 1])
    assert columns == 3 and len(images) == 6
    torch.testing.assert_close(images[4:5], model.generate("two dogs", seed=9))
    torch.testing.assert_close(images[0:1], model.generate("a bird", seed=4))
    walk = torch.cat(list(model.interpolate_texts(["a bird", "two dogs", "a cat"], 4, seed=7, chunk=5)))
    assert len(walk) == 12
    for k, text in ((0, "a bird"), (4, "two dogs"), (8, "a cat")):
        torch.testing.assert_close(walk[k : k + 1], model.generate(text, seed=7))
    half = (encoder(["a cat"]) + encoder(["a bird"])) / 2
    torch.testing.assert_close(walk[10:11], model.sample(seeds=[7], y=half))
    for call, message in (
        (lambda: next(model.interpolate_texts(["a"], 3)), "must be at least two texts"),
        (lambda: next(model.interpolate_texts(["a", "b"], 0)), "steps=0: must be at least 1"),
        (lambda: next(model.interpolate_texts("cat", 2)), "texts: must be a list of texts, got 'cat'"),
        (lambda: model.text_grid("cat", [0]), "texts: must be a list of texts, got 'cat'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("form", [lambda e: e, lambda e: e[0], lambda e: e.numpy(), lambda e: e.expand(5, -1).double()])
def test_embeddings_stand_in_for_texts(model, encoder, form):
    """One for all images, or one for each; whatever the chunk."""
    y = form(encoder(["a bird"]))
    torch.testing.assert_close(model.sample(5, y=y, chunk=2), model.generate("a bird", seeds=range(5)))


def test_a_text_is_embedded_once(model, encoder, monkeypatch):
    calls = []
    monkeypatch.setattr(type(encoder), "forward", lambda self, texts: calls.append(texts) or self.network(texts))
    model.generate(["a", "b", "a", "a"])
    assert calls == [["a", "b"]]


def test_mistakes(model, encoder):
    for call, message in (
        (lambda: model.generate(""), "texts: must be a text of 1 to 1000 letters, got ''"),
        (lambda: model.generate(["a", " "]), "got ' '"),
        (lambda: model.generate(["a", 3]), "must be a text"),
        (lambda: model.generate("a" * 1001), "must be a text"),
        (lambda: model.generate(["a", "b"], seeds=[1]), "texts: must be one text, or one for each of 1 images, got 2"),
        (lambda: model.sample(3, y=torch.zeros(2, 4)), r"y: embeddings must be finite floats \[4\] or \[3, 4\], got"),
        (lambda: model.sample(3, y=torch.zeros(3, 5)), r"got torch.float32 \[3, 5\]"),
        (lambda: model.sample(1, y=torch.zeros(3, 1, 4)), r"\[3, 1, 4\]"),
        (lambda: model.sample(1, y=torch.zeros(())), r"\[\]"),
        (lambda: model.sample(1, y=torch.zeros(4, dtype=torch.int64)), r"torch.int64 \[4\]"),
        (lambda: model.sample(1, y=torch.full((4,), torch.nan)), "finite"),
        (lambda: build_model(spec_of(encoder, text="U")), "text='U': must be a pretrained network, got T"),
        (lambda: build_model(spec_of(encoder, examples=[])), "'examples' is missing"),
        (lambda: build_model(spec_of(encoder, examples=["a", 3])), "examples: must be 1 to 64 texts"),
        (lambda: build_model(spec_of(encoder, examples="abc")), "examples: must be 1 to 64 texts"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_every_command(file, shell, tmp_path):
    assert shell("sample", file, "--text", "a red bird", "-n", "4", "--seed", "3", "--out", "grid.png").status == 0
    assert Image.open("grid.png").size == (2 * 10 + 2,) * 2
    assert shell("sample", file, "--text", "a red bird", "-n", "3", "--out", "birds/").status == 0
    own = zoo.load(file).generate("a red bird", seed=1)[0]
    pixels = torch.tensor(list(Image.open("birds/000001.png").get_flattened_data())).view(8, 8, 3).permute(2, 0, 1)
    assert (pixels / 255 - own).abs().max() < 0.51 / 255
    assert shell("sample", file, "--text", "a", "-n", "2", "--interpolate", "3", "--out", "walk.gif").status == 0
    several = ("--text", "a", "--text", "b", "--seed", "2")
    assert shell("sample", file, *several, "-n", "3", "--out", "texts.png").status == 0
    assert Image.open("texts.png").size == (3 * 10 + 2, 2 * 10 + 2)
    assert shell("sample", file, *several, "--interpolate", "3", "--out", "texts.gif").status == 0
    assert Image.open("texts.gif").n_frames == 6
    for arguments, message in (
        ((*several, "--out", "x/"), "a grid of texts is written as .png"),
        ((*several, "-n", "2", "--interpolate", "3", "--out", "x.gif"), "does not use it with --interpolate; leave -n"),
        (("--text", "a", "--text", "", "--out", "x.png"), "texts: must be a text of 1 to 1000 letters"),
        (("--out", "x.png"), "makes images of a text; give one, such as --text 'a small bird'"),
        (("--text", " ", "--out", "x.png"), "texts: must be a text of 1 to 1000 letters"),
        (("--text", "a", "--y", "3", "--out", "x.png"), "leave --y out"),
        (("--text", "a", "-n", "3", "--out", "birds/"), "has samples of other weights or settings"),
    ):
        result = shell("sample", file, *arguments)
        assert result.status == 2 and message in result.err and len(result.err.splitlines()) == 1
        assert not (tmp_path / "x.png").exists()
    result = shell("sample", "dcgan-fashion-mnist", "--text", "a", "--out", "x.png")
    assert result.status == 2 and "--text: 'dcgan-fashion-mnist' does not use it; leave --text out" in result.err
    exported = shell("export", file, "--format", "torch", "--out", "painter.pt2", "--json").json
    assert exported["inputs"] == ["z", "text", "code"] and exported["difference"] < 1e-5
    assert shell("publish", file, "--to", "weights").status == 0
    entry = json.loads((tmp_path / "weights/index.json").read_text())["painter"]
    assert entry["kind"] == "text-to-image" and entry["half"]
    model = zoo.load(file)
    assert model.commands(model.spec, "p") == ["zoo sample p --text 'a small bird' -n 16 --out grid.png"]


def test_loading_without_the_encoder_is_one_line(file, own_home, shell):
    for path in (own_home / "pretrained").glob("*text*"):
        path.unlink()
    result = shell("sample", file, "--text", "a", "--out", "x.png")
    assert result.status == 2 and len(result.err.splitlines()) == 1
    assert "pretrained.T: the weights 'tiny-text-encoder' with the hash" in result.err


def test_scores_are_of_the_captions(model):
    """Image k is of the first caption of row k, those without one left out."""
    data = described(12)
    model.resolution = 6  # as the data
    inputs = ScoreInputs(ImageSource("painter", model), dataset=data, seed=4)
    captions = [f"picture {i} one" for i in range(12) if i % 4]
    assert inputs.captions("train") == captions
    x = torch.cat(list(inputs.images.stream()))
    expected = (model.generate(captions, seed=4) * 255 + 0.5).byte()
    assert torch.equal(x, expected) and inputs.settings["seed"] == 4


@pytest.mark.parametrize("texts", [None, 3, [], [1], ""])
def test_no_texts(model, texts):
    with pytest.raises(ValueError, match="^texts: must be a "):
        model.generate(texts)
