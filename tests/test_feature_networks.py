"""The feature networks: the shipped files say the truth about themselves, and images are laid before the networks as stated."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from zoo.data import ImageData, open_data
from zoo.data.store import home as data_home
from zoo.files import hash_tensors
from zoo.metrics import feature_networks
from zoo.metrics.feature_networks.network import FeatureNetwork, read, write
from zoo.registry import NETWORKS, Spec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import feature_networks as bench

NAMES = feature_networks.names()
# What each must reach on the test split; second networks serve a comparison only.
ACCURACY = {"mnist": {"class": 0.994}, "fashion-mnist": {"class": 0.935}, "cifar10": {"class": 0.90}}
# Test images at hand without a network: Fashion-MNIST's always, the others' where they are prepared.
EMBEDDED = {"fashion-mnist": "fashion-mnist-10k"}


def at_hand(name: str) -> bool:
    dataset = feature_networks.facts(name)["dataset"]
    return dataset in EMBEDDED or any((data_home() / "data").glob(f"{dataset}-[0-9][0-9]/test.safetensors"))


def tiny(channels=1, resolution=32, fit="resize") -> FeatureNetwork:
    torch.manual_seed(0)
    spec = Spec("classifier", channels=channels, resolution=resolution, stem=4, widths=(4, 4, 6))
    return FeatureNetwork(NETWORKS.build(spec), "tiny", {"fit": fit})


# The shipped files -----------------------------------------------------------------------------------------------------


def test_each_data_set_has_its_ruler():
    seconds = [f"{name}-b" for name in ("cifar10", "emoji", "fashion-mnist")]
    assert sorted(["mnist", "cifar10", "emoji", "fashion-mnist", *seconds]) == NAMES == sorted(bench.TRAININGS)


@pytest.mark.parametrize("name", NAMES)
def test_shipped(name):
    feature_network, content = feature_networks.load(name), feature_networks.path(name).read_bytes()
    assert feature_network.name == name and feature_network.hash == hash_tensors(feature_networks.path(name))[:16]
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
def test_the_log_is_of_this_file(name):
    *epochs, end = bench.rows.read(f"feature networks-{name}")
    facts = feature_networks.facts(name)
    assert [line["epoch"] for line in epochs] == list(range(1, facts["training"]["epochs"] + 1))
    assert epochs[-1]["images"] == facts["images"]
    assert end == {**facts, "split": "test", "bytes": end["bytes"], "hash": feature_networks.load(name).hash}


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


@pytest.mark.parametrize("name", [name for name in NAMES if at_hand(name)])
def test_accuracy(name):
    """On 1,000 test images within four standard errors of what is stated."""
    feature_network = feature_networks.load(name)
    dataset = feature_network.facts["dataset"]
    data = open_data(EMBEDDED.get(dataset, dataset), split="test")
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:1000]
    logits = feature_network.logits(data.arrays["x"][rows].float() / 255)
    for head, stated in feature_network.facts["accuracy"].items():
        truth = data.labels(bench.TRAININGS[name].heads[head])[rows]
        found = (logits[head].argmax(1) == truth).double().mean().item()
        assert abs(found - stated) < 4 * ((stated * (1 - stated) + 1e-3) / len(rows)) ** 0.5


# Laying images before the network ------------------------------------------------------------------------------------------


def test_fit_pads_small_images_with_black():
    x = torch.rand(3, 1, 28, 28)
    fitted = tiny(fit="pad").fit(x)
    assert fitted.shape == (3, 1, 32, 32)
    torch.testing.assert_close(fitted[:, :, 2:30, 2:30], 2 * x - 1)
    assert (fitted[:, :, :2] == -1).all() and (fitted[..., 30:] == -1).all()
    assert torch.equal(tiny(fit="pad").features(x), tiny(fit="pad").features(F.pad(x, (2,) * 4)))


@pytest.mark.parametrize(("fit", "sides"), [("pad", (64, 33)), ("resize", (64, 28))])
def test_fit_resizes_the_others(fit, sides):
    for side in sides:
        x = torch.rand(2, 1, side, side)
        wanted = F.interpolate(x, (32, 32), mode="bilinear", antialias=True) * 2 - 1
        torch.testing.assert_close(tiny(fit=fit).fit(x), wanted)


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
    with pytest.raises(ValueError, match=r"feature network 'tiny' measures floating-point images \[N, 1 or 3, H, W\]"):
        tiny().fit(x)


# Files ---------------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="resolution 8 is too small to be halved 3 times"):
        NETWORKS.build(Spec("classifier", resolution=8))


# Training ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A training of 300 images; files and results go to a folder of the test."""

    def some(dataset, split="train"):
        data = open_data("fashion-mnist-10k", split=split)
        rows = torch.arange(0, len(data), len(data) // 300)[:300]
        return ImageData(data.facts, data.rows(rows), data.hash)

    monkeypatch.setattr(bench, "open_data", some)
    monkeypatch.setattr(feature_networks, "SHIPPED", tmp_path)
    monkeypatch.setattr(bench.rows, "RESULTS", tmp_path)
    return replace(bench.FASHION, widths=(4, 4, 4), epochs=2, batch=50, crop_epochs=1)


def test_training_resumes_exactly(small, tmp_path, monkeypatch):
    bench.train("whole", tmp_path / "runs", small)
    save, saved = bench.Run.save, []

    def stop(self, *state):
        save(self, *state)
        saved.append(self)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(bench.Run, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        bench.train("halves", tmp_path / "runs", small)
    bench.train("halves", tmp_path / "runs", small)
    whole, halves = (read(tmp_path / f"{name}.safetensors") for name in ("whole", "halves"))
    assert len(saved) == 2 and whole.facts["images"] == 600
    for key, value in whole.state_dict().items():
        assert torch.equal(value, halves.state_dict()[key]), key


def test_a_run_is_not_mixed_with_another(small, tmp_path):
    bench.train("one", tmp_path / "runs", small)
    with pytest.raises(SystemExit, match="other settings"):
        bench.train("one", tmp_path / "runs", replace(small, seed=3))


@pytest.mark.parametrize("side", [28, 32])
def test_augmentation(side):
    """Pixels are moved, mirrored and covered, nothing else: of an image with one bright column, one column stays."""
    x = torch.zeros(64, 1, 32, 32, dtype=torch.uint8)
    x[:, :, :, 16] = 255
    made = bench.augment(x, replace(bench.FASHION, cutout=0), side, torch.Generator().manual_seed(0))
    assert made.shape == (64, 1, side, side)
    bright = (made == 1).any(2)[:, 0]  # [64, side], the columns
    assert (bright.sum(1) == 1).all() and set(made.unique().tolist()) == {-1, 1}
    assert bright.any(0).sum() == 6  # 2 pixels to either side of columns 15 (mirrored) and 16
    covered = bench.augment(x, bench.FASHION, side, torch.Generator().manual_seed(0))
    assert 0 < (covered == 0).sum() <= 64 * bench.FASHION.cutout**2


def test_the_stem_whitens():
    x = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = (x + x.roll(1, 3)) / 2
    network = NETWORKS.build(Spec("classifier", stem=24, widths=(4, 4)))
    bench.whiten(network.stem, x)
    h = network.stem(x)[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(h), torch.eye(12), rtol=0, atol=0.02)
    assert h.mean(1).abs().max() < 1e-3
