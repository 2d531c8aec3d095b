"""Retrieval of captions: shares of hits, their interval, which images and captions are compared."""

import pytest
import torch
from helpers.play import session
from helpers.pretrained import ENCODER, put_weights
from test_text_to_image import spec_of

import zoo
from zoo import hub, pretrained
from zoo.data import Facts, ImageData
from zoo.data.fields import Captions, Image, Label, Text, pack_text
from zoo.engine.export import export
from zoo.metrics import retrieval
from zoo.metrics.evaluate import evaluate
from zoo.metrics.image_source import ImageSource
from zoo.metrics.images import from_data
from zoo.metrics.inputs import ScoreInputs
from zoo.models.base import build_model
from zoo.recipe import Data, Derived, Pretrained, Recipe, RMSProp, Stage, Stream
from zoo.registry import DATASETS, Spec

COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "white": (1, 1, 1)}
SHADES = {"dark": 80, "dim": 123, "middle": 166, "light": 209, "bright": 252}
SIDES = ("left", "right", "top", "bottom")


def colored(split: str = "test", name: str = "colored") -> ImageData:
    """100 images, half of one color in one of five shades, each with two captions that say so: "dark red left"."""
    rows = [(color, shade, side) for color in COLORS for shade in SHADES for side in SIDES]
    x = torch.zeros(len(rows), 3, 8, 8, dtype=torch.uint8)
    halves = {"left": (..., slice(0, 4)), "right": (..., slice(4, 8)), "top": (slice(0, 4),), "bottom": (slice(4, 8),)}
    for image, (color, shade, side) in zip(x, rows, strict=True):
        for channel, value in zip(image, COLORS[color], strict=True):
            channel[halves[side]] = value * SHADES[shade]
    texts = pack_text("caption", [[" ".join(row), f"at the {row[2]}, {row[1]} {row[0]}"] for row in rows])
    fields = {"x": Image(3, 8), "glyph": Label(), "caption": Text(2)}
    facts = Facts(name, "Colored halves", splits={split: len(rows)}, license="generated", fields=fields)
    captions = Captions(*map(torch.from_numpy, texts.values()))
    return ImageData(facts, {"x": x, "glyph": torch.arange(len(rows))}, name, texts={"caption": captions})


def recipe(rounds: int, reader: str = "hashed-text-encoder") -> Recipe:
    """Both encoders, tiny, on :func:`colored`."""
    stream = Stream(keys={"x": "x", "glyph": "label"}, derived={"text": Derived("L", of="caption")}, split="test")
    texts = {
        "hashed-text-encoder": Spec("hashed-projection", inputs=32, width=64, dim=16),
        "letters": Spec("char-cnn-rnn", width=32, dim=16),
    }
    optimizer = RMSProp({"hashed-text-encoder": 2e-3, "letters": 6e-3}[reader])
    spec = Spec(reader, **({"width": 32} if reader == "hashed-text-encoder" else {}))
    stage = Stage(
        game=Spec("joint-embedding"),
        optimizers={"E": optimizer, "T": optimizer},
        images=rounds * 50,
        batch=50,
        resolution=8,
        data=Data(streams={"data": stream}),
    )
    networks = {"E": Spec("joint-image-encoder", width=16, dim=16), "T": texts[reader]}
    return Recipe(networks, (stage,), pretrained={"L": Pretrained(spec)}, model="joint", dataset="colored")


@pytest.fixture
def trained(own_home, tmp_path):
    """The file of both encoders after a hundred rounds."""

    def train(rounds: int, reader: str = "hashed-text-encoder"):
        torch.manual_seed(0)
        run = session(recipe(rounds, reader), colored())
        for _ in range(rounds):
            run.play_round()
        path = tmp_path / f"joint-{reader}-{rounds}.safetensors"
        facts = {"images": run.total_images, "seconds": 0.0, "seed": 0}
        export(path, run.game, run.ema_networks, run.recipe, 0, run.facts, run.new_batch, facts)
        return path

    return train


@pytest.mark.parametrize(("reader", "rounds"), [("hashed-text-encoder", 70), ("letters", 180)])
def test_training_raises_the_retrieval_of_captions(trained, reader, rounds):
    """On generated images; the file loads and matches images and texts."""
    start = evaluate(trained(1, reader), "caption-retrieval", dataset=colored())["scores"]["caption-retrieval"]
    file = trained(rounds, reader)
    result = evaluate(file, "caption-retrieval,caption-retrieval-shuffled", dataset=colored())
    share = result["scores"]["caption-retrieval"]
    assert start < 0.06 and share > 0.2
    assert result["scores"]["caption-retrieval-shuffled"] < 0.1
    low, high = result["protocol"]["retrieval"]["interval95"]["own"]
    assert low < share < high and result["protocol"]["retrieval"]["captions"] == 100
    model, data = zoo.load(file), colored()
    x, texts = data.arrays["x"][:3].float() / 255, ["dark red left", "bright blue top"]
    scores = model.match(x, texts)
    assert scores.shape == (3, 2) and torch.equal(scores, model(x, texts)) and scores[0, 0] > scores[0, 1]
    torch.testing.assert_close(scores, model.embed_images(x) @ model.embed_texts(texts).T)
    with pytest.raises(ValueError, match="texts: must be a text"):
        model.match(x, [""])
    for texts_of_no_list in ("red heart", []):
        with pytest.raises(ValueError, match="texts: must be a list of texts, got"):
            model.match(x, texts_of_no_list)
    with pytest.raises(ValueError, match="images of 9x9"):
        model.match(torch.zeros(1, 3, 9, 9), texts)
    images, columns = model.preview({"x": model.from_unit(x)})
    assert images.shape == x.shape and columns == 8 and torch.equal(images[0], x[0])
    assert model.outputs(3, inputs={"x": x}).shape == (3, 16) and next(model.probe()).sum().item() == pytest.approx(8)


class Perfect:
    """Embeds images and texts by the color, shade and side that they have."""

    resolution = 8

    def embed_texts(self, texts):
        words = [*COLORS, *SIDES]
        return torch.stack([torch.tensor([*(float(w in text) for w in words), self.shade(text)]) for text in texts])

    def shade(self, text):
        return 1.0

    def embed_images(self, x):
        return torch.cat([torch.rand(len(x), 9, generator=torch.Generator().manual_seed(0)), torch.ones(len(x), 1)], 1)


def test_hits_of_groups_of_fifty():
    """Row k is compared with its own group; the last one is filled up with the first rows."""
    n = 70
    codes = torch.eye(n)
    places = retrieval.best_places(codes, codes)
    assert places.tolist() == [*range(50), *range(20)]
    swapped = codes[[1, 0, *range(2, n)]]
    assert retrieval.best_places(swapped, codes).tolist() == [1, 0, *range(2, 50), *range(20)]
    others = torch.cat([codes[:50].roll(-1, 0), codes[50:]])
    hits = retrieval.best_places(others, codes)
    assert (hits[:50] == (torch.arange(50) + 1) % 50).all() and hits[50:].tolist() == [*range(20)]


def test_interval():
    """Wilson's, against values of the literature: 0 of 10, 5 of 10, 81 of 263 (Newcombe 1998)."""
    assert retrieval.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert retrieval.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert retrieval.wilson(10, 10)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="n=0"):
        retrieval.wilson(0, 0)


def test_images_of_another_size_are_resized():
    data = colored()
    shapes = []

    class Large(Perfect):
        resolution = 4

        def embed_images(self, x):
            shapes.append(x.shape)
            return super().embed_images(x)

    result = retrieval.retrieve(Large(), from_data(data), [c[0] for c in data.texts["caption"]], from_data(data))
    assert shapes[0] == (100, 3, 4, 4) and set(result.hits) == {"own", "shuffled", "real"}
    with pytest.raises(ValueError, match="captions: must be at least 50 with an image each, got 2"):
        retrieval.retrieve(Large(), from_data(data), ["a", "b"], from_data(data))


# Of models of texts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def painter(own_home):
    """A text-to-image model without training, with the tiny encoder."""
    put_weights(own_home, ENCODER)
    encoder = hub.load_pretrained({"T": ENCODER})["T"]
    model = build_model(spec_of(encoder)).eval()
    pretrained.attach(model, model.spec, {"T": encoder})
    model.name = "painter"
    return model


def with_retriever(monkeypatch, file, name: str = "retriever"):
    """``file`` as shipped weights, the retrieval network of the data set."""
    monkeypatch.setattr(hub, "index", lambda: {name: {}})
    find, load = hub.find, hub.load
    monkeypatch.setattr(hub, "find", lambda what: file if what == name else find(what))
    monkeypatch.setattr(hub, "load", lambda what, *rest: load(file if what == name else what, *rest))
    data = colored()
    data.facts = type(data.facts)(**{**vars(data.facts), "retrieval": name})
    return data


def test_a_model_of_texts_is_scored_by_another_network(painter, trained, monkeypatch):
    data = with_retriever(monkeypatch, trained(100))
    names = "caption-retrieval,caption-retrieval-shuffled,caption-retrieval-real"
    result = evaluate(painter, names, dataset=data)
    assert result["scores"]["caption-retrieval"] < 0.15 < 0.3 < result["scores"]["caption-retrieval-real"]
    assert result["protocol"]["retrieval"]["network"] == "retriever"
    assert "generated" not in result["protocol"] or result["protocol"]["generated"] == 100
    inputs = ScoreInputs(ImageSource("painter", painter), dataset=data)
    real, captions = inputs.captioned
    images, texts = painter.captioned_images(inputs)
    assert texts == captions and len(set(captions)) == 100 == images.count
    assert captions != [c[0] for c in data.texts["caption"]], "a random order"
    row = [c[0] for c in data.texts["caption"]].index(captions[7])
    assert torch.equal(torch.cat([*real.stream()])[7], data.arrays["x"][row])
    expected = (painter.generate(captions[7], seed=7)[0] * 255 + 0.5).clamp(0, 255).byte()
    assert (torch.cat([*images.stream()])[7].int() - expected.int()).abs().max() <= 1


def test_all_captions_count_if_the_first_ones_are_too_few(painter):
    """30 images with two captions each: 60 captions, each with its own image."""

    def captioned(count: int):
        data = colored()
        texts = pack_text("caption", [data.texts["caption"][row] for row in range(count)])
        data.texts["caption"] = Captions(*map(torch.from_numpy, texts.values()))
        data.arrays = {key: values[:count] for key, values in data.arrays.items()}
        return data, ScoreInputs(ImageSource("painter", painter), dataset=data).captioned

    data, (real, captions) = captioned(30)
    rows = {caption: row for row in range(30) for caption in data.texts["caption"][row]}
    assert sorted(captions) == sorted(rows) and len(captions) == 60
    assert torch.equal(torch.cat([*real.stream()]), data.arrays["x"][[rows[caption] for caption in captions]])
    data, (_, captions) = captioned(50)
    assert {*captions} == {data.texts["caption"][row][0] for row in range(50)}, "these are enough"


def test_when_there_is_no_retrieval(painter, trained, monkeypatch):
    def missing(data, **options) -> str:
        return ScoreInputs(ImageSource("painter", painter), dataset=data, **options).missing_retrieval()

    assert missing(colored()) == "colored has no retrieval network"
    data = with_retriever(monkeypatch, trained(1))
    assert missing(data) == "" and missing(data, n=10) == "10 captions, at least 50 are needed"
    monkeypatch.setitem(painter.spec["pretrained"]["T"], "source", "retriever")
    assert missing(data) == "'retriever' is the encoder that the model itself uses"
    plain = ImageData(Facts("plain", "Plain", 3, 8, splits={"test": 2}), {"x": data.arrays["x"]}, "plain")
    assert missing(plain) == "plain has no captions"


def test_shipped_retrieval_networks():
    """Each set that names one has captions."""
    for name in DATASETS.names():
        facts = zoo.data.facts(name)
        assert not facts.retrieval or "caption" in facts.keys
