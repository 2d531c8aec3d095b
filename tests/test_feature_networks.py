"""The feature networks: facts of the shipped files, resizing of images, training."""

import dataclasses
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from zoo.data import ImageData, open_data
from zoo.data.store import home as data_home
from zoo.files import tensor_hash
from zoo.metrics import feature_networks
from zoo.metrics.feature_networks.network import FeatureNetwork, read, write
from zoo.registry import NETWORKS, Spec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import features as bench

NAMES = feature_networks.names()
# The least accuracy on the test split; second networks serve a comparison only.
ACCURACY = {"mnist": {"class": 0.994}, "fashion-mnist": {"class": 0.935}, "cifar10": {"class": 0.90}}
# Test images that need no download: Fashion-MNIST's always, the others' if they are prepared.
EMBEDDED = {"fashion-mnist": "fashion-mnist-10k"}


def has_test_images(name: str) -> bool:
    dataset = feature_networks.facts(name)["dataset"]
    return dataset in EMBEDDED or any((data_home() / "data").glob(f"{dataset}-[0-9][0-9]/test.safetensors"))


def tiny(channels=1, resolution=32, fit="resize") -> FeatureNetwork:
    torch.manual_seed(0)
    spec = Spec("classifier", channels=channels, resolution=resolution, stem=4, widths=(4, 4, 6))
    return FeatureNetwork(NETWORKS.build(spec), "tiny", {"fit": fit})


# The shipped files ----------------------------------------------------------------------------------------------------


def test_each_data_set_has_its_feature_network():
    seconds = [f"{name}-b" for name in ("celeba", "cifar10", "emoji", "fashion-mnist", "mnist")]
    names = sorted(["celeba", "mnist", "cifar10", "emoji", "fashion-mnist", *seconds])
    assert sorted(bench.TRAININGS) == names and {*NAMES} <= {*names}


@pytest.mark.parametrize("name", NAMES)
def test_shipped(name):
    feature_network, content = feature_networks.load(name), feature_networks.path(name).read_bytes()
    assert feature_network.name == name and feature_network.hash == tensor_hash(feature_networks.path(name))[:16]
    assert len(content) <= 6 << 20
    training = bench.TRAININGS[name]
    facts = feature_network.facts
    assert facts == feature_networks.facts(name)
    assert facts["training"] == json.loads(json.dumps(bench.asdict(training)))
    assert (facts["dataset"], facts["seed"], facts["fit"]) == (training.dataset, training.seed, training.fit)
    assert facts["command"] == f"python benchmarks/features.py train {name}" and not facts["commit"].endswith("-dirty")
    assert facts["images"] > 0 and facts["license"] and facts["versions"]["torch"]
    assert set(facts["accuracy"]) == set(training.heads)
    for head, least in ACCURACY.get(name, {}).items():
        assert facts["accuracy"][head] >= least


@pytest.mark.parametrize("name", NAMES)
def test_the_log_is_of_the_file(name):
    *epochs, end = bench.rows.read(f"features-{name}")
    facts = feature_networks.facts(name)
    assert [line["epoch"] for line in epochs] == list(range(1, facts["training"]["epochs"] + 1))
    assert epochs[-1]["images"] == facts["images"]
    size = end.pop("bytes")  # with the header of that time
    assert end == {**facts, "split": "test", "hash": feature_networks.load(name).hash}
    assert abs(size - feature_networks.path(name).stat().st_size) < 1000


@pytest.mark.parametrize("name", NAMES)
def test_features(name):
    feature_network = feature_networks.load(name)
    x = torch.rand(
        5,
        feature_network.channels,
        feature_network.resolution,
        feature_network.resolution,
        generator=torch.Generator().manual_seed(0),
    )
    f = feature_network.features(x)
    assert f.shape == (5, feature_network.dim) and f.dtype == torch.float32 and f.isfinite().all() and (f >= 0).all()
    assert torch.equal(f, feature_network.train().features(x)) and not any(
        m.training for m in feature_network.modules()
    )
    assert not f.requires_grad and not any(p.requires_grad for p in feature_network.parameters())
    alone = torch.cat([feature_network.features(one) for one in x.split(1)])
    torch.testing.assert_close(f, alone, rtol=1e-4, atol=1e-5)
    heads = {head: logits.shape[1] for head, logits in feature_network.logits(x).items()}
    assert set(heads) == set(feature_network.facts["accuracy"]) and min(heads.values()) >= 2


@pytest.mark.parametrize("name", [name for name in NAMES if has_test_images(name)])
def test_accuracy(name):
    """On 1,000 test images, within four standard errors of the facts."""
    feature_network = feature_networks.load(name)
    dataset = feature_network.facts["dataset"]
    training = dataclasses.replace(bench.TRAININGS[name], dataset=EMBEDDED.get(dataset, dataset))
    data = bench.open_for(training, "test")
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:1000]
    logits = feature_network.logits(data.arrays["x"][rows].float() / 255)
    for head, expected in feature_network.facts["accuracy"].items():
        y = bench.answers(data, training.heads[head])[rows]
        accuracy = bench.right_answers(logits[head], y).mean().item()
        assert abs(accuracy - expected) < 4 * ((expected * (1 - expected) + 1e-3) / len(rows)) ** 0.5


# Resizing images for the network --------------------------------------------------------------------------------------


def test_fit_pads_small_images_with_black():
    x = torch.rand(3, 1, 28, 28)
    result = tiny(fit="pad").fit(x)
    assert result.shape == (3, 1, 32, 32)
    torch.testing.assert_close(result[:, :, 2:30, 2:30], 2 * x - 1)
    assert (result[:, :, :2] == -1).all() and (result[..., 30:] == -1).all()
    assert torch.equal(tiny(fit="pad").features(x), tiny(fit="pad").features(F.pad(x, (2,) * 4)))


@pytest.mark.parametrize(("fit", "sides"), [("pad", (64, 33)), ("resize", (64, 28))])
def test_fit_resizes_the_others(fit, sides):
    for side in sides:
        x = torch.rand(2, 1, side, side)
        expected = F.interpolate(x, (32, 32), mode="bilinear", antialias=True) * 2 - 1
        torch.testing.assert_close(tiny(fit=fit).fit(x), expected)


def test_fit_leaves_its_own_size_alone():
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(tiny().fit(x), 2 * x - 1)


def test_fit_converts_channels():
    x = torch.rand(2, 3, 32, 32)
    gray = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(tiny(1).fit(x), 2 * gray - 1)
    torch.testing.assert_close(tiny(3).fit(gray), (2 * gray - 1).expand(-1, 3, -1, -1))
    torch.testing.assert_close(tiny(1).fit(gray.expand(-1, 3, -1, -1)), tiny(1).fit(gray))  # gray there and back


@pytest.mark.parametrize("x", [torch.zeros(2, 2, 32, 32), torch.zeros(3, 32, 32), torch.zeros(1, 1, 8, 8).byte()])
def test_fit_refuses(x):
    with pytest.raises(ValueError, match=r"'tiny': images must be floating-point \[N, 1 or 3, H, W\] in \[0, 1\], got"):
        tiny().fit(x)


# Files ----------------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    spec = Spec("classifier", channels=3, stem=4, widths=[4, 6], heads={"kind": 3})
    network = NETWORKS.build(spec)
    write(tmp_path / "mine.safetensors", network, spec, {"fit": "resize", "seed": 7})
    feature_network = read(tmp_path / "mine.safetensors")
    assert (feature_network.name, feature_network.channels, feature_network.resolution, feature_network.dim) == (
        "mine",
        3,
        32,
        6,
    )
    assert feature_network.facts == {"fit": "resize", "seed": 7}
    x = torch.rand(2, 3, 32, 32)
    mine = FeatureNetwork(network.half().float(), "mine", feature_network.facts)
    torch.testing.assert_close(feature_network.logits(x)["kind"], mine.logits(x)["kind"])


def test_damaged_files(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(feature_networks.path("fashion-mnist").read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        read(path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no feature network in its header"):
        read(path)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"unknown feature network 'cifar'; did you mean cifar10"):
        feature_networks.load("cifar")


def test_classifier_refuses_small_images():
    with pytest.raises(ValueError, match="resolution=8: must be more than 8 for 3 halvings"):
        NETWORKS.build(Spec("classifier", resolution=8))


# Training -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A training of 300 images; files and results go to a folder of the test."""

    def open_few(dataset, resolution=None, split="train"):
        data = open_data("fashion-mnist-10k", split=split)
        rows = torch.arange(0, len(data), len(data) // 300)[:300]
        return ImageData(data.facts, data.rows(rows), data.hash)

    monkeypatch.setattr(bench, "open_data", open_few)
    monkeypatch.setattr(feature_networks, "SHIPPED", tmp_path)
    monkeypatch.setattr(bench.rows, "RESULTS", tmp_path)
    return replace(bench.FASHION, widths=(4, 4, 4), epochs=2, batch=50, crop_epochs=1)


def test_training_resumes_exactly(small, tmp_path, monkeypatch):
    bench.train("whole", tmp_path / "runs", small)
    save, calls = bench.Run.save, []

    def stop(self, *state):
        save(self, *state)
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(bench.Run, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.train("halves", tmp_path / "runs", small)
    bench.train("halves", tmp_path / "runs", small)
    whole, halves = (read(tmp_path / f"{name}.safetensors") for name in ("whole", "halves"))
    assert len(calls) == 2 and whole.facts["images"] == 600
    for key, value in whole.state_dict().items():
        assert torch.equal(value, halves.state_dict()[key]), key


def test_a_run_with_other_settings_is_refused(small, tmp_path):
    bench.train("one", tmp_path / "runs", small)
    with pytest.raises(ValueError, match="other settings"):
        bench.train("one", tmp_path / "runs", replace(small, seed=3))


@pytest.mark.parametrize("side", [28, 32])
def test_augmentation(side):
    """Shifts, flips and cutout, nothing else: an image with one bright column still has one."""
    x = torch.zeros(64, 1, 32, 32, dtype=torch.uint8)
    x[:, :, :, 16] = 255
    images = bench.augment(x, replace(bench.FASHION, cutout=0), side, torch.Generator().manual_seed(0))
    assert images.shape == (64, 1, side, side)
    bright = (images == 1).any(2)[:, 0]  # [64, side], the columns
    assert (bright.sum(1) == 1).all() and set(images.unique().tolist()) == {-1, 1}
    assert bright.any(0).sum() == 6  # 2 pixels to either side of columns 15 (mirrored) and 16
    images = bench.augment(x, bench.FASHION, side, torch.Generator().manual_seed(0))
    assert 0 < (images == 0).sum() <= 64 * bench.FASHION.cutout**2


def test_the_stem_whitens():
    x = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = (x + x.roll(1, 3)) / 2
    network = NETWORKS.build(Spec("classifier", stem=24, widths=(4, 4)))
    bench.whiten(network.stem, x)
    h = network.stem(x)[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(h), torch.eye(12), rtol=0, atol=0.02)
    assert h.mean(1).abs().max() < 1e-3
