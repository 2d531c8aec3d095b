"""The scores: torch-fidelity's numbers, closed cases, what they may hold and read, and the command that prints them."""

import dataclasses
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
from helpers.tiny import class_spec, image_spec, model, point_spec, process, translate_spec, weights
from PIL import Image
from test_recipes import small, stand_in

import zoo
from zoo.cli.eval import Bar
from zoo.data import Facts, ImageData, ImageSet, Rows, Source, open_data
from zoo.engine import checkpoint, train
from zoo.engine.run_folder import CHECKPOINT, WEIGHTS
from zoo.engine.runtime import Runtime
from zoo.files import hash_tensors
from zoo.metrics import (
    baselines,
    copies,
    evaluate,
    feature_networks,
    features,
    image_source,
    images,
    label_scores,
    manifold,
    paired,
    scores,
    seen,
)
from zoo.metrics.feature_networks.network import write
from zoo.model import build_model
from zoo.recipe import encode
from zoo.registry import DATASETS, METRICS, NETWORKS, Spec

FEATURES = 6


def lively(count: int, channels: int = 3, side: int = 16, seed: int = 0, level: float = 0.5) -> torch.Tensor:
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


def looked(network, x):
    return seen.see(network, images.from_data(data(x)))


# Against torch-fidelity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, channels", [("tiny", 3), ("fashion-mnist", 1), ("fashion-mnist", 3)])
def test_equal_to_torch_fidelitys_command_line(name, channels, tmp_path, monkeypatch, capsys):
    """On the same folders of PNGs, with our feature network registered there."""
    from torch_fidelity import fidelity

    made = save(lively(90, channels, 20, seed=1, level=0.45), tmp_path / "made")
    real = save(lively(110, channels, 20), tmp_path / "real")
    ours = zoo.evaluate(made, dataset=f"folder:{real}", features=name)["scores"]
    extractor = features.register(feature_networks.load(name))
    inputs = ["--input1", str(made), "--input2", str(real), "--feature-extractor", extractor]
    options = ["--cpu", "--json", "--silent", "--no-cache", "--save-cpu-ram", "--kid-subset-size", "45"]
    monkeypatch.setattr(sys, "argv", ["fidelity", *inputs, "--fid", "--kid", "--isc", "--prc", *options])
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
    for metric, key in pairs.items():
        assert ours[f"{metric}-{name}"] == pytest.approx(theirs[key], rel=1e-4), metric
    assert 0 < ours[f"precision-{name}"] < 1 and 0 < ours[f"recall-{name}"] < 1 and ours[f"is-{name}"] > 1.01


def test_identical_sets(tmp_path):
    folder = save(lively(60), tmp_path / "same")
    found = zoo.evaluate(folder, dataset=f"folder:{folder}", features="tiny")["scores"]
    assert abs(found["fd-tiny"]) <= 1e-3
    assert found["precision-tiny"] == found["recall-tiny"] == found["coverage-tiny"] == 1
    assert found["density-tiny"] == pytest.approx(1)


def test_precision_and_recall_are_not_swapped(network):
    """A generator of one of two modes is precise and recalls half; one of noise beside the data is neither."""
    dark, light = lively(60, level=0.2), lively(60, seed=1, level=0.8)
    one, both = looked(network, lively(60, seed=2, level=0.2)), looked(network, torch.cat([dark, light]))
    assert scores.precision(one, both) > 0.7 > 0.6 > scores.recall(one, both)
    assert scores.precision(both, one) < 0.6 < 0.7 < scores.recall(both, one)
    assert scores.coverage(one, both) < 0.6 < scores.density(one, both)


def test_kid_has_an_error_even_where_all_images_are_few(network):
    a, b = looked(network, lively(40)), looked(network, lively(30, seed=1))
    assert scores.subset(a, b) == 15 and scores.kernel_distance(a, b)[1] > 0


def test_moments_are_those_of_all_features(network):
    x = lively(250)
    found, whole = looked(network, x), torch.cat([network(part)[0] for part in x.split(100)])
    assert torch.equal(found.features, whole) and found.count == 250
    torch.testing.assert_close(found.mean, whole.double().mean(0))
    torch.testing.assert_close(found.cov, torch.cov(whole.double().T))


# Closed cases -----------------------------------------------------------------------------------------------------------


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


def test_ssim():
    x, y = lively(2, 3, 14), lively(2, 3, 14, seed=1)
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
    with pytest.raises(ValueError, match="10x10 are smaller"):
        paired.ssim(x[..., :10, :10], y[..., :10, :10])


# Where images come from -------------------------------------------------------------------------------------------------


def test_quantized_as_a_png():
    x = torch.tensor([0, 0.49 / 255, 0.5 / 255, 1, 254.6 / 255]).view(1, 1, 1, 5)
    assert images.quantized(x).flatten().tolist() == [0, 0, 1, 255, 255]
    with pytest.raises(RuntimeError, match="NaN"):
        images.quantized(x / 0)


def test_chunks_do_not_depend_on_the_source():
    x = lively(23, 1, 4)
    for piece in (1, 5, 10, 23):
        found = images.Images(23, lambda piece=piece: iter(x.split(piece)), None)
        assert [len(c) for c in found.chunks(10)] == [10, 10, 3] and torch.equal(torch.cat([*found.chunks(10)]), x)
        assert found.content() == images.from_data(data(x)).content()
    two = images.Images(5, lambda: iter([x[:3], x[:2, :, :2]]), None)
    assert [tuple(c.shape) for c in two.chunks(10)] == [(3, 1, 4, 4), (2, 1, 2, 4)]


def test_fewer_are_spread():
    x = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    assert next(images.from_data(data(x)).at_most(5).stream()).flatten().tolist() == [0, 2, 4, 6, 8]


def test_a_folder_of_many_sizes(tmp_path, network):
    for k, side in enumerate((16, 16, 20, 20, 20)):
        save(lively(1, 3, side, seed=k), tmp_path / "mixed" / str(k))
    found = zoo.evaluate(tmp_path / "mixed", ["fd"], dataset=f"folder:{tmp_path / 'mixed'}", features="tiny")
    assert found["protocol"]["generated"] == 5 and abs(found["scores"]["fd-tiny"]) < 1e-3
    (tmp_path / "mixed" / "0" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="broken.png: not a readable image"):
        zoo.evaluate(tmp_path / "mixed", ["fd"], dataset=lively(20), features="tiny")


def test_conditional_models_show_each_class_in_turn(network):
    made = model(class_spec())
    found = zoo.evaluate(made, ["fd"], dataset=lively(20, 1, 8), features="tiny", n=7)
    assert found["protocol"]["classes"] == "each of the 3 in turn"
    x = torch.cat([*image_source.find(made).images(7, 5, 1)[0].stream()])
    assert torch.equal(x, images.quantized(made.sample(7, seed=5, y=[0, 1, 2, 0, 1, 2, 0], chunk=50)))


class Stub:
    """What makes images needs little: ``iter_samples``, a size, perhaps a Card."""

    def __init__(self, card=None, channels=1, resolution=32):
        self.card, self.channels, self.resolution = card or {}, channels, resolution
        self.alive, self.most, self.draw = weakref.WeakSet(), 0, 0

    def iter_samples(self, n, *, seed=0, chunk=50):
        for at in range(0, n, chunk):
            x = lively(min(chunk, n - at), self.channels, self.resolution, seed * 1000 + at).float() / 255
            self.alive.add(x)
            self.most, self.draw = max(self.most, sum(map(len, self.alive))), self.draw + len(x)
            yield x


def card_of(name: str, **changes) -> dict:
    recipe = small(name)
    return {"name": name, "recipe": encode(recipe), "dataset": {"name": recipe.dataset}, **changes}


def test_the_border_of_training_is_put_around_the_reference():
    """Where the network would stretch 28 and 32 pixels to one size; a feature network that pads makes no difference."""
    source = image_source.find(Stub(card_of("dcgan-fashion-mnist")))
    desk = evaluate.ScoreInputs(source, lively(30, 1, 28), None, "tiny", 20, 0, None, None, "cpu", None)
    x = next(desk._real_images("train").stream())
    assert x.shape == (30, 1, 32, 32) and not x[..., :2].any() and x[..., 2:30, 2:30].any()
    assert next(desk._real_images("train", pad=False).stream()).shape == (30, 1, 28, 28)
    assert features.find("fashion-mnist").pads and not features.find("tiny").pads


# Memory, labels, repetition ---------------------------------------------------------------------------------------------


def test_images_are_never_all_held(network, monkeypatch):
    """However many are generated, as many as before are alive at once; the network gets as many of real images."""
    most = []
    for n in (500, 2000):
        stub = Stub(channels=3, resolution=8)
        seen.see(network, images.from_sampler(stub, n, 0))
        most.append(stub.most)
        assert stub.draw == n
    assert most[0] == most[1] <= images.CHUNK + 50
    sizes = []
    look = network.look
    monkeypatch.setattr(network, "look", lambda x: sizes.append(len(x)) or look(x))
    seen.see(network, images.from_data(data(lively(1, 3, 8).expand(1234, -1, -1, -1))))
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
    """18,000 images more would be 54 MiB in float32, 13 MiB in bytes; what is kept of their features is 3 MiB."""
    peaks = []
    for n in (2_000, 20_000):
        done = process("-c", MEMORY, n, cwd=tmp_path, env={"ZOO_HOME": str(tmp_path / "home")})
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 12, peaks


@pytest.mark.parametrize("count", [10, 47, 250])
def test_the_inception_type_score_is_torch_fidelitys_of_all_logits(network, count):
    from torch_fidelity.metric_isc import isc_features_to_metric

    x = lively(count)
    whole = torch.cat([network(part)[1] for part in x.split(100)])
    expected = [*isc_features_to_metric(whole, seen.SPLITS).values()]
    assert [*scores.inception_type_score(looked(network, x))] == pytest.approx(expected, rel=1e-9)
    assert count == 10 or expected[0] > 1.01


def test_kept_features_are_bounded(network, monkeypatch):
    monkeypatch.setattr(seen, "KEEP", 30)
    x = lively(250)
    found = looked(network, x)
    assert found.features.shape == (30, FEATURES) and found.count == 250
    torch.testing.assert_close(found.features, network(x[torch.arange(30) * 250 // 30])[0])


class NoLabels(dict):
    def __getitem__(self, key):
        assert key == "x", f"the labels {key} were read"
        return super().__getitem__(key)

    items = values = None


def test_no_labels_are_read():
    real = data(lively(40, 1, 16), keys=("x", "y"), classes=("a", "b"))
    real.arrays = NoLabels(x=real.arrays["x"], y=None)
    found = zoo.evaluate(Stub(resolution=16), evaluate.USUAL, dataset=real, features="fashion-mnist", n=40)
    assert len(found["scores"]) == 7


def test_the_same_call_gives_the_same_scores():
    calls = [zoo.evaluate(Stub(), dataset=lively(40, 1, 28), features="fashion-mnist", n=40) for _ in range(2)]
    assert all(math.isfinite(v) for v in calls[0]["scores"].values())
    for call in calls:
        call.pop("seconds")
    assert calls[0] == calls[1] == json.loads(json.dumps(calls[0]))
    other = zoo.evaluate(Stub(), ["fd"], dataset=lively(40, 1, 28), features="fashion-mnist", n=40, seed=1)
    assert other["scores"]["fd-fashion-mnist"] != calls[0]["scores"]["fd-fashion-mnist"]


def test_what_a_number_carries():
    found = zoo.evaluate(Stub(), dataset=lively(40, 1, 28), features="fashion-mnist", n=50)
    said = found["protocol"]
    assert found["errors"].keys() == {"kid-fashion-mnist", "is-fashion-mnist"}
    assert (said["features"], said["features_hash"]) == ("fashion-mnist", feature_networks.load("fashion-mnist").hash)
    assert "border" in said["resize"] and "uint8" in said["quantization"] and "float32" in said["dtype"]
    assert (said["generated"], said["seed"], said["split"]) == (50, 0, "train")
    reference = said["reference"]
    assert reference["images"] == 40 and len(reference["content"]) == len(reference["statistics"]) == 16
    assert said["versions"].keys() == {"zoo", "torch", "torch-fidelity", "python"}
    assert said["weights"]["checkpoint"] == "given as an object"


# The cache --------------------------------------------------------------------------------------------------------------


def kept() -> set[Path]:
    return set((seen.home() / "references").glob("*"))


def test_the_cache_is_keyed_by_content(network):
    x = lively(30)
    first, content = seen.reference(network, images.from_data(data(x)))
    (path,) = kept()
    calls = []
    network.look = lambda x, look=network.look: calls.append(len(x)) or look(x)
    again, same_content = seen.reference(network, images.from_data(data(x.clone())))
    assert not calls and same_content == content and again.digest() == first.digest()
    x[7, 1, 3, 3] += 1  # the set bears the same name and says the same hash
    other, changed = seen.reference(network, images.from_data(data(x)))
    assert calls and changed != content and other.digest() != first.digest() and len(kept()) == 2
    network.hash = "another"
    seen.reference(network, images.from_data(data(x)))
    assert len(kept()) == 3
    path.write_bytes(path.read_bytes()[:100])  # damaged: made again
    x[7, 1, 3, 3] -= 1
    network.hash = feature_networks.load("tiny").hash
    assert seen.reference(network, images.from_data(data(x)))[0].digest() == first.digest()


def test_interrupted_and_repeated():
    """Nothing half-written is left, and what was cached stays."""

    def interrupted(at: str) -> None:
        def interrupt(done, total, what):
            if what == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            desk = evaluate.ScoreInputs(source, real, None, "tiny", 120, 0, None, None, "cpu", interrupt)
            scores.frechet_distance(real=desk.real, fake=desk.fake)

    source, real = image_source.find(Stub(channels=3, resolution=16)), lively(250, 3, 16)
    interrupted("real images")
    assert not kept()
    interrupted("generated images")
    assert len(kept()) == 1
    assert zoo.evaluate(source.model, ["fd"], dataset=real, features="tiny", n=120)["scores"] and len(kept()) == 1


# Feature networks -------------------------------------------------------------------------------------------------------


def test_the_default_ruler_is_the_data_sets():
    assert features.default("fashion-mnist") == features.default("fashion-mnist-10k") == "fashion-mnist"
    for dataset in ("mnist", "fashion", "ring"):
        with pytest.raises(
            ValueError, match=f"no feature network for the data set '{dataset}', so name one; the zoo's own are"
        ):
            features.default(dataset)


def test_inception_alone_is_called_fid(tmp_path, monkeypatch, places):
    """Its adapter, with weights of the right name only: nothing is fetched here."""
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
    with pytest.raises(ValueError, match=r"is not weights-inception-2015-12-05-6726825d.pth \(its SHA-256 begins"):
        features.find("inception", inception=file)
    monkeypatch.setattr(features, "INCEPTION", "weights-53959fa1.pth")  # begins the SHA-256 of these bytes
    named = zoo.evaluate(lively(30), dataset=lively(30, seed=1), features="inception", inception=file)["scores"]
    assert {"fid", "kid", "isc", "precision-inception", "recall-inception"} < named.keys()
    assert "fid" not in zoo.evaluate(lively(30), dataset=lively(30, seed=1), features="tiny")["scores"]


def test_inception_that_cannot_be_had(monkeypatch, tmp_path):
    def fail(url, path, progress):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        OSError, match=r"can't be fetched \(no route to host\); name the file with --inception FILE, .*tiny"
    ):
        features.find("inception")
    assert not list(tmp_path.rglob("*.partial"))
    with pytest.raises(ValueError, match="no such file"):
        features.find("inception", inception=tmp_path / "none")
    with pytest.raises(ValueError, match="features='tiny' has no use for it"):
        features.find("tiny", inception=tmp_path)


def test_a_timm_backbone(monkeypatch):
    import timm

    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, num_classes: create(name, num_classes=num_classes)
    )
    found = zoo.evaluate(lively(12), dataset=lively(12, seed=1), features="timm:test_resnet.r160_in1k")
    assert "fd-timm:test_resnet.r160_in1k" in found["scores"] and "160x160" in found["protocol"]["resize"]
    assert not any(k.startswith("is-") for k in found["scores"]) and "predicts no classes" in found["notes"][0]

    def fail(*args, **how):
        raise RuntimeError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(OSError, match=r"can't be fetched \(no network\)"):
        features.find("timm:resnet18")
    with pytest.raises(ValueError, match="timm has no pretrained 'resnet181'; did you mean"):
        features.find("timm:resnet181")


# Baselines and near-copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [baselines.Gaussian, baselines.Mixture, baselines.Noisy, baselines.Copies])
def test_baselines(kind):
    real = data(lively(300, 1, 12))
    made = kind(real)
    x = torch.cat(list(made.iter_samples(70, seed=3, chunk=32)))
    assert x.shape == (70, 1, 12, 12) and x.min() >= 0 and x.max() <= 1 and made.name
    assert torch.equal(x, torch.cat(list(made.iter_samples(70, seed=3, chunk=32))))
    assert not torch.equal(x, torch.cat(list(made.iter_samples(70, seed=4, chunk=32))))
    found = zoo.evaluate(made, ["fd"], dataset=real, features="fashion-mnist", n=70)
    assert found["scores"]["fd-fashion-mnist"] >= 0 and found["what"] == made.name


def test_the_mixture_has_the_datas_moments():
    real = data(lively(400, 1, 6))
    made = baselines.Mixture(real, count=5, components=36)
    x = torch.cat([made.draw(4000, torch.Generator().manual_seed(0))])
    flat = real.arrays["x"].flatten(1).float() / 255
    torch.testing.assert_close(x.mean(0), flat.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), torch.cov(flat.T), atol=0.005, rtol=0)


def test_copies_come_once_before_any_comes_twice():
    made = baselines.Copies(data(lively(20, 1, 4)))
    x = torch.cat(list(made.iter_samples(30)))
    assert len(x[:20].flatten(1).unique(dim=0)) == 20 and torch.equal(x[20:], x[:10])


def test_near_copies(monkeypatch):
    monkeypatch.setattr(copies, "BLOCK", 64)
    train, held = (images.from_data(data(lively(n, 1, 12, seed=s))) for n, s in ((300, 0), (200, 1)))

    def at(x, i, j):
        window = x.float()[:, :, i : i + 10, j : j + 10] / 255
        small = torch.nn.functional.interpolate(window, (9, 9), mode="bicubic", antialias=True).flatten(1)
        return torch.nn.functional.normalize(small - small.mean(1, keepdim=True))

    new, old = lively(5, 1, 12, seed=2), at(lively(300, 1, 12), 1, 1)
    both = [torch.cdist(at(side, i, j), old) for side in (new, new.flip(3)) for i in range(3) for j in range(3)]
    expected = torch.stack(both).amin(0).topk(50, largest=False).values
    told, fresh = [], images.from_data(data(new))
    found = copies.ratios(fresh, train, lambda *said: told.append(said))
    torch.testing.assert_close(found, expected[:, 0] / expected.mean(1))
    assert told == [(n, 300, "training images compared") for n in (64, 128, 192, 256, 300)]
    noisy = (lively(100, 1, 12).float() + torch.randn(100, 1, 12, 12)).clamp(0, 255).byte()
    one = lively(100, 1, 12)
    moved = torch.nn.functional.pad(one, (1, 0, 0, 1), mode="replicate")[:, :, 1:, :-1].flip(3)
    cases = [(one, 1, 1), (noisy, 0.99, 1), (moved, 1, 1), (lively(200, 1, 12, seed=3), 0, 0.05)]
    for x, low, high in cases:
        share, error = copies.near_copies(images.from_data(data(x)), train, held)
        assert low <= share <= high and error == pytest.approx(math.sqrt(share * (1 - share) / len(x)))
    assert len(kept()) == 1  # what the held-out images said
    with pytest.raises(ValueError, match="3 channels, training images of 1"):
        copies.near_copies(images.from_data(data(lively(9, 3, 12))), train, held)


def test_what_near_copies_finds_among_real_images(monkeypatch):
    """The claims of docs/metrics.md, on fewer images."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    monkeypatch.delitem(sys.modules, "copies", raising=False)
    import copies as benchmark

    x = open_data("fashion-mnist-10k").arrays["x"]
    sets = {"train": data(x[:5000]), "test": data(x[5000:7000])}
    monkeypatch.setattr(benchmark, "open_data", lambda name, split="train": sets[split])
    monkeypatch.setattr(benchmark, "JUDGED", 100)
    flagged = benchmark.ladder("fashion-mnist")
    assert flagged["copied"] == flagged["mirrored"] == flagged["half the contrast"] == 1
    for kind in ("noise 0.05", "blur 0.7 px", "shift 1 px", "shift 1 px both ways", "mirrored, shift 1 px, noise 0.05"):
        assert flagged[kind] >= 0.9, kind
    assert flagged["noise 0.1"] >= 0.6 and flagged["blur 1 px"] >= 0.5
    for kind in ("held out", "held out, blur 1 px", "held out, noise 0.1"):
        assert flagged[kind] <= 0.05, kind
    assert flagged[baselines.Gaussian.name] == 0


# Pairs ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs_set(monkeypatch):
    """A data set of two domains, the second the negative of the first."""
    x = lively(40, 3, 16)

    def read(folder, split):
        rows = [{"x": i.permute(1, 2, 0).numpy(), "domain": d} for a in x for d, i in enumerate((a, 255 - a))]
        return Rows(rows if split == "train" else rows[:24], 80 if split == "train" else 24)

    facts = Facts("negatives", "Two", 3, 16, keys=("x", "domain"), splits={"train": 80, "test": 24}, paired=True)
    monkeypatch.setitem(DATASETS._entries, "negatives", lambda: ImageSet(facts, (Source("here", lambda f: f, read),)))
    return x


def translator(**card):
    made = model(translate_spec())
    made.card = card_of("cyclegan-emoji-small", dataset={"name": "negatives"}, **card)
    return made


def test_a_translator_is_scored_on_held_out_pairs(pairs_set):
    made = translator()
    found = zoo.evaluate(made, features="tiny", to="google")
    assert {"fd-tiny", "psnr", "ssim"} < found["scores"].keys() and "lpips is not scored" in found["notes"][0]
    said = found["protocol"]
    assert (said["pairs"], said["generated"], said["split"], said["to"]) == (12, 12, "test", "b")
    x = images.quantized(made.translate(pairs_set[:12].float() / 255, "b"))
    assert found["scores"]["psnr"] == pytest.approx(paired.psnr(x, 255 - pairs_set[:12]).mean().item())
    back = zoo.evaluate(made, ["ssim"], to="twitter")
    x = images.quantized(made.translate((255 - pairs_set[:12]).float() / 255, "a"))
    assert back["scores"]["ssim"] == pytest.approx(paired.ssim(x, pairs_set[:12]).mean().item())
    with pytest.raises(ValueError, match="translates to google and to twitter; say which"):
        zoo.evaluate(made, features="tiny")


def test_two_folders_of_the_same_names(tmp_path):
    made, truth = save(lively(6), tmp_path / "made"), save(lively(6, seed=1), tmp_path / "truth")
    found = zoo.evaluate(made, ["psnr", "ssim"], dataset=f"folder:{truth}")
    assert found["scores"]["psnr"] == pytest.approx(paired.psnr(lively(6), lively(6, seed=1)).mean().item())
    assert found["errors"].keys() == {"psnr", "ssim"} and found["protocol"]["pairs"] == 6
    (made / "0003.png").unlink()
    with pytest.raises(ValueError, match="'0003' is not in both folders"):
        zoo.evaluate(made, ["psnr"], dataset=f"folder:{truth}")


def test_lpips_runs_where_its_network_is(monkeypatch, tmp_path):
    assert "vgg16-397923af.pth" in paired.lpips_missing()
    with pytest.raises(ValueError, match="metrics=lpips: lpips is not scored: its network"):
        paired.lpips(lively(2), lively(2))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for name in paired.LPIPS_FILES:
        (tmp_path / "checkpoints" / name).touch()
    monkeypatch.setattr(paired, "_lpips_network", lambda: lambda a, b: (a.float() - b.float()).abs().mean((1, 2, 3)))
    assert paired.lpips(lively(2, 1), lively(2, 1)).tolist() == [0, 0]


# What a model says ------------------------------------------------------------------------------------------------------


class Halves(torch.nn.Module):
    """Two classes: whether an image [N, 1, 8, 8] is brighter than mid-gray."""

    def __init__(self):
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor([-1.0, 1.0]))

    def logits(self, x):
        return x.mean((1, 2, 3))[:, None] * self.sign


@pytest.fixture
def halves(monkeypatch):
    """A model that classifies alone; ten held-out images of which it takes three for the other class."""
    monkeypatch.setitem(NETWORKS._entries, "halves", Halves)
    spec = image_spec(kind="classify", networks={"C": {"name": "halves", "kwargs": {}}}, classifier="C")
    made = build_model({**spec, "resolution": 8, "channels": 1}).eval()
    x = torch.tensor([0, 255] * 5, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    y = torch.tensor([0, 1] * 5)
    y[:3] = 1 - y[:3]
    known = Facts("halves", "Dark and bright", 1, 8, classes=("dark", "bright"), keys=("x", "y"), splits={"test": 10})
    return made, ImageData(known, {"x": x, "y": y}, "unused")


def test_a_classifier_is_scored_by_its_error(halves):
    made, held = halves
    found = zoo.evaluate(made, dataset=held)
    assert found["scores"] == {"error": 0.3} and found["errors"]["error"] == pytest.approx((0.21 / 10) ** 0.5)
    said = found["protocol"]["labeled"]
    assert (said["images"], said["split"], len(said["content"])) == (10, "test", 16)
    assert "reference" not in found["protocol"] and "features" not in found["protocol"]
    with pytest.raises(ValueError, match="metrics=fd: it is a score of what makes images, and 'ClassifyModel' is none"):
        zoo.evaluate(made, ["fd"], dataset=held)
    bare = dataclasses.replace(held.facts, keys=("x",))
    found = zoo.evaluate(made, dataset=ImageData(bare, {"x": held.arrays["x"]}, "unused"))
    assert found["scores"] == {} and found["notes"] == ["halves has no classes: no error"]


def test_labeled_images_are_held_out(halves, monkeypatch):
    """However few they are; those of training only where they are named."""

    x, y = halves[1].arrays["x"], halves[1].arrays["y"]

    def read(folder, split):
        said = y if split == "test" else 1 - y
        return Rows([{"x": a.permute(1, 2, 0).numpy(), "y": int(b)} for a, b in zip(x, said, strict=True)], 10)

    facts = dataclasses.replace(halves[1].facts, splits={"train": 10, "test": 10})
    source = (Source("here", lambda f: f, read),)
    monkeypatch.setitem(DATASETS._entries, "halves", lambda: ImageSet(facts, source))
    assert zoo.evaluate(halves[0], dataset="halves")["scores"] == {"error": 0.3}
    assert zoo.evaluate(halves[0], dataset="halves", split="train")["scores"] == {"error": 0.7}
    facts = dataclasses.replace(facts, splits={"train": 10})
    with pytest.raises(ValueError, match="halves has no held-out images"):
        zoo.evaluate(halves[0], ["error"], dataset="halves")


def test_the_border_of_training_is_put_around_labeled_images(halves):
    made, held = halves
    made.card = card_of("dcgan-fashion-mnist")
    looked = []
    made.C.logits = lambda x: looked.append(x) or Halves().logits(x)
    assert zoo.evaluate(made, dataset=held)["scores"]["error"] == 0.6  # a black border darkens all
    (x,) = looked
    side = made.card["recipe"]["stages"][-1]["resolution"]
    assert x.shape == (10, 1, side, side) and x[:, :, 0].max() == -1 and x.max() == 1


def test_samples_are_recognized(monkeypatch):
    """A share of those of each class; a feature network of other classes is asked only where it is named."""
    made = model(class_spec())
    made.card = {"dataset": {"name": "fashion-mnist"}}
    logits = torch.zeros(7, 10)
    logits[range(7), [0, 1, 2, 0, 1, 0, 1]] = 1  # asked for: 0, 1, 2, 0, 1, 2, 0
    look = features.find("fashion-mnist")
    parts = iter(logits.split(7))
    look.look = lambda x: (torch.randn(len(x), FEATURES), next(parts))
    monkeypatch.setattr(features, "find", lambda *a, **k: look)
    found = zoo.evaluate(made, ["class_accuracy"], dataset=lively(20, 1, 8), n=7, features="fashion-mnist")
    assert found["scores"] == {"recognized-fashion-mnist": pytest.approx(5 / 7)}
    assert found["protocol"]["classes"] == "each of the 3 in turn"
    assert found["errors"]["recognized-fashion-mnist"] == pytest.approx((10 / 49 / 7) ** 0.5)
    with pytest.raises(ValueError, match="predicts no classes"):
        label_scores.class_accuracy(None, torch.zeros(7))


def test_what_the_usual_scores_are(halves):
    """By what the model can do: a feature network judges classes only where it knows them."""
    made = model(class_spec())
    for taught, known in [("fashion-mnist", True), ("fashion-mnist-10k", True), ("mnist", False)]:
        made.card = {"dataset": {"name": taught}}
        desk = evaluate.ScoreInputs(
            image_source.find(made), lively(20, 1, 8), None, "fashion-mnist", 7, 0, None, None, "cpu", None
        )
        assert ("class_accuracy" in desk.choose(None)[0]) == known
    plain = image_source.find(model(image_spec()))
    assert [m for m in evaluate.LABEL_METRICS if not evaluate.lacking(plain, m)] == []
    alone = [m for m in METRICS if "made" not in METRICS.parameters(m)]
    assert [m for m in alone if not evaluate.lacking(image_source.find(halves[0]), m)] == ["error"]


# A score of one's own ---------------------------------------------------------------------------------------------------


def test_a_new_score_is_one_function(monkeypatch):
    """The example of docs/metrics.md, and it alone."""
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))
    exec(page.split("```python\n")[1].split("```")[0])
    x = lively(30)
    found = zoo.evaluate(x, ["mean-distance"], dataset=x.clone(), features="tiny")
    assert found["scores"] == {"mean-distance-tiny": 0} and found["protocol"]["reference"]["images"] == 30


# Mistakes, and the command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, said",
    [
        ({"metrics": ["fdd"]}, "metrics=fdd: no such score; did you mean fd"),
        ({"metrics": ["fid"]}, "only the Inception-v3 of 2015 gives one; ask for fd with features=inception"),
        ({"metrics": []}, "metrics: the list is empty"),
        ({"metrics": ["psnr"]}, "metrics=psnr: there are no pairs here"),
        ({"metrics": ["error"]}, "metrics=error: it is a score of a model that classifies, and 'Stub' is none"),
        ({"metrics": ["class_accuracy"]}, "it is a score of a class-conditional model"),
        ({"metrics": ["near-copies"]}, "near-copies: tensor has train; it needs training images and held-out ones"),
        ({"split": "test"}, "split=test: tensor has train"),
        ({"features": "tony"}, "features='tony': no such feature network; did you mean tiny"),
        ({"n": 1}, "n=1: at least 2"),
        ({"to": "b"}, "to=b: .* does not translate"),
        ({"dataset": None}, "dataset: 'Stub' does not say what it is to be compared with"),
        ({"dataset": "ring"}, "dataset=ring: holds points"),
        ({"features": None}, "no feature network for the data set 'tensor'"),
        ({"n": 3}, "3 images: precision and recall need at least 4"),
    ],
)
def test_mistakes(given, said):
    with pytest.raises(ValueError, match=said):
        zoo.evaluate(
            Stub(channels=3, resolution=16),
            **{"dataset": lively(20), "features": "tiny", "metrics": ["precision"], **given},
        )


def test_points_have_no_such_scores(tmp_path):
    path = weights(tmp_path / "w.safetensors", point_spec(), dataset={"name": "ring"})
    with pytest.raises(ValueError, match="makes points"):
        zoo.evaluate(path)


def test_every_score_is_described():
    for name in METRICS:
        assert METRICS[name].__doc__ and set(METRICS.parameters(name)) <= {
            "fake", "real", "images", "train", "held", "progress", "made", "truth",
            "classifier", "recognizer", "labeled", "asked", "seeds",
        }  # fmt: skip


def test_the_command(shell, tmp_path, monkeypatch):
    path = weights(tmp_path / "w.safetensors", image_spec(), dataset={"name": "elsewhere"})
    real = save(lively(30), tmp_path / "real")
    asked = ("eval", path, "--dataset", f"folder:{real}", "--features", "tiny", "-n", 40)
    found = shell(*asked, "--json")
    assert found.status == 0, found.err
    assert found.json["scores"].keys() == {f"{m}-tiny" for m in evaluate.USUAL}
    assert found.json["protocol"]["weights"] == {
        "file": "w.safetensors",
        "sha256": hash_tensors(path)[:16],
        "checkpoint": "unknown: not in its Card",
        "name": "small-net-ring",
        "images": 1000,
    }
    plain = shell(*asked, "--metrics", "fd,recall").out.splitlines()
    assert plain[0].split("\t") == ["fd-tiny", f"{found.json['scores']['fd-tiny']:.5g}", "-"] and len(plain) == 3
    assert "40 images, seed 0; against 30 of folder-real train" in plain[2]
    folder = shell("eval", real, "--dataset", f"folder:{real}", "--features", "tiny", "--metrics", "fd", "--json")
    assert abs(folder.json["scores"]["fd-tiny"]) < 1e-3
    wrong = shell("eval", path)
    assert wrong.status == 2 and "trained on 'elsewhere', which is no registered set" in wrong.err
    assert shell("eval", tmp_path / "none").status == shell(*asked, "--metrics", "fod").status == 2
    monkeypatch.setattr(features, "_fetch_inception", lambda path: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    failed = shell(*asked[:4], "--features", "inception")
    assert (failed.status, failed.err) == (1, "zoo: no network\n")


ASKED = ["generated images", "real images"]


def test_the_command_shows_how_far_it_is(shell, tmp_path, monkeypatch):
    """Lines on stderr where that is no terminal, a bar where it is; nothing of it on stdout."""
    real = save(lively(30), tmp_path / "real")
    asked = ("eval", real, "--dataset", f"folder:{real}", "--features", "tiny", "--metrics", "fd")
    quiet = shell(*asked)
    assert quiet.err == ""  # no line before ten seconds have passed
    shutil.rmtree(seen.home() / "references")
    monkeypatch.setattr("zoo.cli.eval.LINES", 0)
    told = shell(*asked)
    assert told.out == quiet.out and sorted(told.err.splitlines()) == [f"{what}: 30 of 30" for what in ASKED]
    monkeypatch.setattr("zoo.cli.eval.sys.stderr", terminal := Terminal())
    bar = Bar()
    for done in (10, 30):
        bar(done, 30, ASKED[0])
        bar.bar.refresh()
    bar.close()
    assert ASKED[0] in terminal.getvalue() and "10/30" in terminal.getvalue() and "30/30" in terminal.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


# During training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(evaluate, "WATCH_COUNT", 8)
    monkeypatch.setattr(train, "Clock", Every)
    made = small("dcgan-fashion-mnist")
    return made.rescaled(6 * 4), stand_in(made)


def runtime(every=None):
    return Runtime(device="cpu", layout="contiguous", eval_every=every)


def test_scoring_leaves_the_training_as_it_is(watched, tmp_path):
    made, source = watched
    train.train(made, tmp_path / "plain", runtime=runtime(), dataset=source)
    train.train(made, tmp_path / "scored", runtime=runtime(8), dataset=source)
    (plain, _), (scored, _) = (checkpoint.load(tmp_path / n / CHECKPOINT) for n in ("plain", "scored"))
    assert any(k.startswith("optimizers.") for k in plain) and same(plain, scored)
    lines, alike = log_of(tmp_path / "scored"), log_of(tmp_path / "plain")
    protocols = [line.pop("protocol") for line in lines if "scores" in line]
    found = {line["images"]: line.pop("scores") for line in lines if "scores" in line}
    assert lines == alike
    assert [said["generated"] for said in protocols] == [8, 8, 8]
    assert all(said["features"] == "fashion-mnist" and said["reference"]["content"] for said in protocols)
    assert protocols[0]["weights"] == {"checkpoint": "none: the model in training"}
    assert [*found] == [8, 16, 24] and found[8].keys() == {"fd-fashion-mnist", "kid-fashion-mnist"}
    file = tmp_path / "scored" / WEIGHTS
    for what in (file.parent, file):
        end = zoo.evaluate(what, ["fd"], dataset=source, n=8)  # what is shipped is what was scored
        assert end["scores"]["fd-fashion-mnist"] == found[24]["fd-fashion-mnist"]
        assert end["protocol"]["weights"]["checkpoint"] == "last" == zoo.load(what).card["checkpoint"]


def test_a_classifier_is_watched_by_its_error(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "check_watch", lambda name: None)
    made = small("triplegan-mnist-supervised").rescaled(8)
    source = stand_in(made)
    train.train(made, tmp_path / "run", runtime=runtime(8), dataset=source)
    end = zoo.evaluate(tmp_path / "run", dataset=source)
    assert log_of(tmp_path / "run")[-1]["scores"] == end["scores"] and end["scores"].keys() == {"error"}


def test_a_scored_run_resumes_as_if_unbroken(watched, tmp_path):
    made, source = watched
    train.train(made, tmp_path / "whole", runtime=runtime(8), dataset=source)
    with pytest.raises(Killed):
        train.train(made, tmp_path / "cut", runtime=runtime(8), dataset=source, progress=kill_at(Every.save + 1))
    train.resume(tmp_path / "cut", dataset=source)
    (whole, _), (cut, _) = (checkpoint.load(tmp_path / n / CHECKPOINT) for n in ("whole", "cut"))
    assert same(whole, cut) and log_of(tmp_path / "whole") == log_of(tmp_path / "cut")
    assert sum("scores" in line for line in log_of(tmp_path / "cut")) == 3


def test_a_score_that_fails_does_not_stop_the_run(watched, tmp_path, monkeypatch):
    made, source = watched
    monkeypatch.setattr(evaluate, "watch", lambda *given: (_ for _ in ()).throw(OSError("no test split")))
    told = []
    progress = lambda event, **facts: told.append(facts["text"]) if event == "warning" else None  # noqa: E731
    train.train(made, tmp_path / "run", runtime=runtime(12), dataset=source, progress=progress)
    assert [t for t in told if "scores" in t] == [f"no scores after {n} images: no test split" for n in (12, 24)]


def test_what_cannot_be_watched_is_told_first(tmp_path):
    with pytest.raises(ValueError, match="no feature network for the data set 'tensor'"):
        train.train(small("dcgan-fashion-mnist"), tmp_path / "run", runtime=runtime(8), dataset=lively(40, 1, 28))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="eval_every=0: must be at least 1"):
        runtime(0)
