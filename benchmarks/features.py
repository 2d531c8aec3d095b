"""The zoo's own feature networks, trained and checked, and the data set that ships in the wheel.

    python benchmarks/features.py train cifar10  # the weights beside zoo.metrics, results/features-cifar10.jsonl
    python benchmarks/features.py check          # results/features.jsonl
    python benchmarks/features.py embedded       # zoo/data/fashion-mnist-10k.safetensors

The order and the augmentation of an epoch are a function of seed and epoch, so a training that was stopped goes on from
its last whole epoch (``--runs FOLDER``) exactly. The test split is read after the last epoch only, with the file's own
weights. No epoch was chosen by it; but CIFAR-10's training was lengthened once, from 12 epochs that
reached 89.74 %.
"""

from __future__ import annotations

import itertools
import json
import lzma
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import rows
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchvision.transforms.functional import gaussian_blur

import zoo.data
from zoo import hub
from zoo.data import open_data
from zoo.data.fields import Attributes
from zoo.data.loader import rows_with
from zoo.data.store import ImageData, Where
from zoo.files import beside, tensor_hash
from zoo.metrics import feature_networks
from zoo.metrics.feature_networks.network import FeatureNetwork, read, write
from zoo.metrics.image_source import find
from zoo.models import Model
from zoo.registry import NETWORKS, Spec

# Training -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How a feature network is trained.

    SGD with Nesterov momentum 0.9, the learning rate up to ``lr`` over the first fifth and down to 0 (linear), weight
    decay on matrices, label smoothing, random shifts, flips and cutout.

    ``fit``: how images are fitted to the network. ``heads``: question -> label of the data set, or all its attributes,
    each with a logit of its own. ``border``: the gray
    level of new pixels after a shift, or None for the mirrored image. ``crop``: the side of the images of the first
    ``crop_epochs``, crops of the whole.
    """

    dataset: str
    fit: str
    heads: Mapping[str, str] = field(default_factory=lambda: {"class": "y"})
    seed: int = 0
    resolution: int = 32
    widths: tuple[int, ...] = (32, 64, 128)
    epochs: int = 8
    batch: int = 256
    lr: float = 0.25
    decay: float = 5e-4
    smoothing: float = 0.1
    shift: int = 2
    border: int | None = 0
    flip: bool = True
    cutout: int = 8
    crop: int = 32
    crop_epochs: int = 0


FASHION = Training("fashion-mnist", "pad", epochs=9, crop=28, crop_epochs=6)
CIFAR10 = Training("cifar10", "resize", widths=(32, 128, 128), epochs=17, shift=4, border=None, crop=28, crop_epochs=12)
CELEBA = Training("celeba", "resize", {"attributes": "attributes"}, resolution=64, widths=(16, 32, 64, 128),
                  epochs=12, batch=128, shift=4, border=None, cutout=12, crop=56, crop_epochs=9)  # fmt: skip
EMOJI = Training("emoji", "resize", {"category": "y", "style": "domain"}, resolution=64, widths=(16, 32, 64, 128),
                 epochs=16, batch=128, shift=4, border=255, cutout=12, crop=56, crop_epochs=11)  # fmt: skip
MNIST = Training("mnist", "pad", widths=(24, 48, 96), epochs=4, flip=False, cutout=0, crop=28, crop_epochs=3)
TRAININGS = {
    "fashion-mnist": FASHION,
    "cifar10": CIFAR10,
    "mnist": MNIST,
    "emoji": EMOJI,
    "celeba": CELEBA,
    "fashion-mnist-b": replace(FASHION, seed=1, widths=(24, 48, 96), epochs=2, crop_epochs=1),
    "mnist-b": replace(MNIST, seed=1, widths=(16, 32, 64), epochs=2, crop_epochs=2),
    "cifar10-b": replace(CIFAR10, seed=1, widths=(32, 64, 128), epochs=4, crop_epochs=3),
    "celeba-b": replace(CELEBA, seed=1, epochs=4, crop_epochs=3),
    "emoji-b": replace(EMOJI, seed=1, epochs=6, crop_epochs=4),
}


def spec(training: Training, channels: int, heads: Mapping[str, int]) -> Spec:
    return Spec("classifier", channels=channels, resolution=training.resolution, heads=dict(heads), stem=8 * channels,
                widths=list(training.widths))  # fmt: skip


@torch.no_grad()
def whiten(stem: nn.Conv2d, x: Tensor) -> None:
    """Set the stem to the whitened principal directions of 2x2 patches of ``x`` [N, C, H, W], each with both signs."""
    patches = F.unfold(x, 2).transpose(1, 2).flatten(0, 1)  # [N * positions, 4C]
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    kernels = (vectors / (values + 1e-3).sqrt()).T
    kernels = torch.cat([kernels, -kernels])
    stem.weight.copy_(kernels.view_as(stem.weight))
    stem.bias.copy_(-kernels @ patches.mean(0))


def augment(x: Tensor, training: Training, side: int, generator: torch.Generator) -> Tensor:
    """x uint8 [n, C, R, R] -> [n, C, side, side] in [-1, 1]: shifted, flipped and cut out, each image at random."""
    n, spare = len(x), training.resolution - side
    border = max(0, training.shift - spare // 2)  # cropping shifts by itself
    how = {"mode": "reflect"} if training.border is None else {"value": float(training.border)}
    x = F.pad(x.float(), (border,) * 4, **how)
    corner = torch.randint(2 * border + spare + 1, (2, n, 1), generator=generator)
    down, across = corner + torch.arange(side)  # each [n, side]
    if training.flip:
        across = torch.where(torch.rand(n, 1, generator=generator) < 0.5, across.flip(1), across)
    x = x[torch.arange(n)[:, None, None], :, down[:, :, None], across[:, None, :]]  # [n, side, side, C]
    if training.cutout:
        off = torch.arange(side) - torch.randint(1 - training.cutout, side, (2, n, 1), generator=generator)
        down, across = (off >= 0) & (off < training.cutout)
        x.masked_fill_((down[:, :, None] & across[:, None, :])[..., None], 127.5)
    return x.permute(0, 3, 1, 2).div_(127.5).sub_(1)  # channels_last


def rate(training: Training, done: float) -> float:
    """The learning rate after the part ``done`` of training."""
    return training.lr * min(done / 0.2, (1 - done) / 0.8)


class Run:
    """The folder of a training: log and state, so that it goes on from its last whole epoch."""

    def __init__(self, folder: Path, name: str, training: Training):
        self.log, self.state, self.about = folder / "log.jsonl", folder / "state.safetensors", folder / "about.json"
        settings = json.loads(json.dumps(asdict(training)))
        if self.about.exists() and json.loads(self.about.read_text())["training"] != settings:
            raise ValueError(
                f"{folder}: contains a run of {name} with other settings; name another folder, or remove it"
            )
        if not self.about.exists():
            folder.mkdir(parents=True, exist_ok=True)
            facts = rows.facts(f"python benchmarks/features.py train {name}", training.seed)
            self.about.write_text(json.dumps({"training": settings, **facts}))
        self.facts = json.loads(self.about.read_text())

    def restore(self, network: nn.Module, optimizer: torch.optim.SGD) -> list[dict]:
        """The lines of the epochs that are done; network and momentum are restored."""
        if not self.state.exists():
            return []
        state = load_file(self.state)
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        for name, p in network.named_parameters():
            if f"momentum.{name}" in state:
                optimizer.state[p]["momentum_buffer"] = state[f"momentum.{name}"].to(
                    memory_format=torch.preserve_format
                )
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return lines[: int(state["epochs"])]

    def save(self, network: nn.Module, optimizer: torch.optim.SGD, lines: list[dict]) -> None:
        with beside(self.log) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
        tensors = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
        for name, p in network.named_parameters():
            if p in optimizer.state:
                tensors[f"momentum.{name}"] = optimizer.state[p]["momentum_buffer"].contiguous()
        with beside(self.state) as partial:
            save_file({**tensors, "epochs": torch.tensor(len(lines))}, partial)


def open_for(training: Training, split: str = "train") -> ImageData:
    """A split at the network's resolution, or at the data set's own if the network puts a border around it."""
    return open_data(training.dataset, training.resolution if training.fit == "resize" else None, split)


def images_and_labels(training: Training) -> tuple[Tensor, dict[str, Tensor]]:
    """All training images, uint8 [N, C, R, R] with the network's black border, and the labels of each head."""
    data = open_for(training)
    border = (training.resolution - data.facts.resolution) // 2
    x = F.pad(data.arrays["x"], (border,) * 4)  # black, as the network pads
    return x, {head: answers(data, key) for head, key in training.heads.items()}


def answers(data: ImageData, key: str) -> Tensor:
    """A label, int64 [N], or attributes, uint8 [N, K]."""
    return data.arrays[key] if isinstance(data.facts.fields[key], Attributes) else data.labels(key)


def counts(labels: Mapping[str, Tensor]) -> dict[str, int]:
    """How many logits each head has: of classes or of attributes."""
    return {head: int(y.max()) + 1 if y.dim() == 1 else y.shape[1] for head, y in labels.items()}


def loss_of(logits: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """The cross entropy of classes int64 [n], or the mean binary one of attributes uint8 [n, K]."""
    if y.dim() == 1:
        return F.cross_entropy(logits, y, label_smoothing=smoothing)
    return F.binary_cross_entropy_with_logits(logits, y.float() * (1 - smoothing) + smoothing / 2)


def right_answers(logits: Tensor, y: Tensor) -> Tensor:
    """For each image whether the class is right, or the share of its attributes that are, [n]."""
    return ((logits > 0) == (y > 0)).double().mean(1) if y.dim() > 1 else (logits.argmax(1) == y).double()


def initial(training: Training, x: Tensor, network_spec: Spec) -> tuple[nn.Module, torch.optim.SGD]:
    """The network before its first step, with its whitened stem that does not learn, and the optimizer."""
    torch.manual_seed(training.seed)
    network = NETWORKS.build(network_spec).to(memory_format=torch.channels_last).train()
    whiten(network.stem, x[torch.randperm(len(x))[:2000]].float() / 127.5 - 1)
    network.stem.requires_grad_(False)
    learn = [p for p in network.parameters() if p.requires_grad]
    groups = [{"params": [p for p in learn if p.dim() > 1], "weight_decay": training.decay},
              {"params": [p for p in learn if p.dim() == 1]}]  # fmt: skip
    return network, torch.optim.SGD(groups, lr=training.lr, momentum=0.9, nesterov=True)


def train_epoch(network: nn.Module, optimizer: torch.optim.SGD, x: Tensor, labels: Mapping[str, Tensor],
                training: Training, epoch: int) -> dict:  # fmt: skip
    """One epoch of whole batches; its line of the log."""
    start_time = time.perf_counter()
    count = len(x) // training.batch * training.batch
    generator = torch.Generator().manual_seed(1000 * training.seed + epoch)
    side = training.crop if epoch < training.crop_epochs else training.resolution
    total, right = torch.zeros(()), {head: torch.zeros(()) for head in labels}
    order = torch.randperm(len(x), generator=generator)[:count].split(training.batch)
    for step, rows_ in enumerate(order):
        for group in optimizer.param_groups:
            group["lr"] = rate(training, (epoch + step / len(order)) / training.epochs)
        logits = network(augment(x[rows_], training, side, generator))
        truth = {head: y[rows_] for head, y in labels.items()}
        losses = [loss_of(logits[h], y, training.smoothing) for h, y in truth.items()]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
        for head, y in truth.items():
            right[head] += right_answers(logits[head].detach(), y).sum()
    return {
        "epoch": epoch + 1,
        "images": count * (epoch + 1),
        "side": side,
        "loss": round(float(total) / len(order), 4),
        "train_accuracy": {head: round(float(n) / count, 4) for head, n in right.items()},
        "seconds": round(time.perf_counter() - start_time, 1),
    }


def train(name: str, runs: Path, training: Training) -> None:
    """Train the feature network ``name``, write its file and its log, and score the file on the test split."""
    x, labels = images_and_labels(training)
    run = Run(runs / name, name, training)
    network_spec = spec(training, x.shape[1], counts(labels))
    network, optimizer = initial(training, x, network_spec)
    lines = run.restore(network, optimizer)
    for epoch in range(len(lines), training.epochs):
        lines.append(train_epoch(network, optimizer, x, labels, training, epoch))
        run.save(network, optimizer, lines)
        print(json.dumps(lines[-1]), flush=True)

    network.half().float()  # as in the file
    facts = {
        "dataset": training.dataset,
        "license": open_for(training).facts.license,
        "fit": training.fit,
        **attribute_names(training),
        "images": len(x) // training.batch * training.batch * training.epochs,
        "seconds": round(sum(line["seconds"] for line in lines)),
        **run.facts,
    }
    facts["accuracy"] = accuracy(FeatureNetwork(network, name, facts), training)
    path = feature_networks.SHIPPED / f"{name}.safetensors"
    write(path, network, network_spec, facts)
    file = read(path)
    end = {
        "accuracy": accuracy(file, training),
        "split": "test",
        "bytes": path.stat().st_size,
        "hash": file.hash,
    }
    lines = [*lines, {**end, **facts}]
    (rows.RESULTS / f"features-{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(json.dumps(end))


def attribute_names(training: Training) -> dict[str, list[str]]:
    """For the file's facts: the attributes that the logits stand for, if there is such a head."""
    fields = zoo.data.facts(training.dataset).fields
    names = [fields[key].names for key in training.heads.values() if isinstance(fields[key], Attributes)]
    return {"attributes": list(names[0])} if names else {}


def accuracy(network: FeatureNetwork, training: Training, count: int | None = None) -> dict[str, float]:
    """The accuracy of each head on the (first ``count`` images of the) test split."""
    data = open_for(training, "test")
    x = data.arrays["x"][:count]
    logits = [network.logits(part.float() / 255) for part in x.split(500)]
    joined = {head: torch.cat([part[head] for part in logits]) for head in training.heads}
    return {
        head: round(float(right_answers(joined[head], answers(data, key)[:count]).mean()), 4)
        for head, key in training.heads.items()
    }


# Checking -----------------------------------------------------------------------------------------------------------

COUNT = 10_000  # images a set, at most
BLUR = (0.5, 1.0, 2.0)  # standard deviations in pixels
NOISE = (0.05, 0.1, 0.2)  # standard deviations, of a range of 1
DROP = (1, 3, 5)  # classes left out, the last ones first
GROUPS = {"celeba": ("Male", "Smiling", "Young")}  # attributes whose combinations take the place of classes


def features(network: FeatureNetwork, x: Tensor) -> Tensor:
    """Images [N, C, H, W], uint8 or floating in [0, 1] -> float64 [N, dim]."""
    scale = 1 if x.is_floating_point() else 255
    return torch.cat([network.features(part.float() / scale) for part in x.split(250)]).double()


def distance(real: Tensor, other: Tensor) -> float:
    """The Frechet distance of two sets of features, by torch-fidelity's arithmetic, in float64."""
    a, b = fid_features_to_statistics(real), fid_features_to_statistics(other)
    return round(next(iter(fid_statistics_to_metric(a, b, verbose=False).values())), 4)


def load_shuffled(
    training: Training, split: str, resolution: int | None = None, wheres: Iterable[Where] = ({},)
) -> tuple[Tensor, Tensor]:
    """At most COUNT images and their classes or groups, in a fixed random order, since some sets are sorted.
    ``wheres``: of the rows with the labels of one of these."""
    data = open_data(training.dataset, resolution, split) if resolution else open_for(training, split)
    rows_ = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    wanted = torch.cat([rows_with(data, where) for where in wheres])
    rows_ = rows_[torch.isin(rows_, wanted)][:COUNT]
    return data.arrays["x"][rows_], groups(data)[rows_]


def groups(data: ImageData) -> Tensor:
    """The class of each image, or the number that the attributes of ``GROUPS`` form as bits: int64 [N]."""
    if data.facts.name not in GROUPS:
        return data.labels("y")
    return torch.stack([data.labels(f"attributes.{a}") << k for k, a in enumerate(GROUPS[data.facts.name])]).sum(0)


def ladders(network: FeatureNetwork) -> dict:
    """Distances to the training split: of the test split, and of the test split degraded more and more."""
    training = TRAININGS[network.name]
    real = features(network, load_shuffled(training, "train")[0])
    x, y = load_shuffled(training, "test")
    test, x = features(network, x), x.float() / 255
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    present = y.unique()
    fewer = {n: test[torch.isin(y, present[:-n])] for n in DROP}
    least = min(map(len, fewer.values()))  # the distance depends on the count, so one count for all
    return {
        "images": {"train": len(real), "test": len(test), "dropped": least},
        "test": distance(real, test),
        "blur": {str(s): distance(real, features(network, gaussian_blur(x, [13, 13], [s, s]))) for s in BLUR},
        "noise": {str(s): distance(real, features(network, (x + s * noise).clamp(0, 1))) for s in NOISE},
        "dropped": {"0": distance(real, test[:least]), **{str(n): distance(real, f[:least]) for n, f in fewer.items()}},
    }


SETS = 5  # of samples, by which files are compared


def outputs(model: Model, dataset: str, k: int) -> Tensor:
    """A model's k-th COUNT samples, or the test split translated all ways, float [N, C, H, W] in [0, 1]."""
    if model.seeded:
        return model.outputs(COUNT, seed=k * COUNT)
    data = open_data(dataset, model.resolution, "test")
    domains = {key: rows_with(data, stream.where) for stream in find(model).streams for key in stream.keys.values()}
    return model.outputs(COUNT, inputs={key: data.arrays["x"][r].float() / 255 for key, r in domains.items()})


def labels_of(model: Model, entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The labels of the real images of a domain ``key`` that a translator makes, by its entry in the model spec."""
    return entry.get("where") or find(model).stream(entry.get("target", key)).where


def ranked_before(pair: list[FeatureNetwork]) -> Mapping[str, dict]:
    """The committed distances of weights, if both networks are the ones that computed them."""
    lines = {r["features"]: r for r in rows.read("features")}
    same = all(lines.get(network.name, {}).get("hash") == network.hash for network in pair)
    return lines[pair[0].name].get("weights", {}) if same else {}


def weights(pair: list[FeatureNetwork], before: Mapping[str, dict]) -> dict[str, dict]:
    """The shipped weights of a data set by both of its feature networks: name -> file's hash, distances to the training
    split (of a translator: to the domains that it makes) by each network; ``reals``: their resolution and domains.

    A distance for each of SETS sets of samples; for a translator, which has no seed, one. Files whose tensors are
    those of ``before`` keep its distances.
    """
    dataset, scores = pair[0].facts["dataset"], {}
    references: dict[str, list[Tensor]] = {}  # features of reals by both networks
    for name in hub.index():
        model, tensors = hub.load(name), tensor_hash(hub.find(name))[:16]
        if model.card["dataset"]["name"] != dataset or not model.generates or "fd" not in model.bench.metrics:
            continue
        resolution = None if pair[0].facts["fit"] == "pad" else model.resolution
        wheres = [{}] if model.seeded else [labels_of(model, entry, key) for key, entry in model.entries.items()]
        key = json.dumps([resolution, [dict(where) for where in wheres]])
        if before.get(name, {}).get("tensors") == tensors:
            scores[name] = {**before[name], "reals": key}
            continue
        if key not in references:
            images = load_shuffled(TRAININGS[pair[0].name], "train", resolution, wheres)[0]
            references[key] = [features(network, images) for network in pair]
        real = references[key]
        by: list[list[float]] = [[] for _ in pair]
        for k in range(SETS if model.seeded else 1):
            x = outputs(model, dataset, k)
            for distances, network, reference in zip(by, pair, real, strict=True):
                distances.append(distance(reference, features(network, x)))
        scores[name] = {"tensors": tensors, "reals": key, "by": by}
    return scores


MARGIN = 1.1  # distances that differ by less, two networks may rank the opposite way


def order(a: list[float], b: list[float], margin: float = 1.0) -> int:
    """-1 if every distance of a is smaller than every one of b, by the factor ``margin``, 1 if every one is larger, 0
    otherwise."""
    return (max(b) * margin < min(a)) - (max(a) * margin < min(b))


def rankings(scores: Mapping[str, dict], margin: float = 1.0) -> dict[str, int]:
    """Pairs of files with the same real images: ranked alike by both networks, the opposite way, by one of them only,
    by neither."""
    counts = {"alike": 0, "opposite": 0, "one": 0, "neither": 0}
    for a, b in itertools.combinations(scores.values(), 2):
        if a.get("reals") != b.get("reals"):
            continue
        first, second = (order(a["by"][k], b["by"][k], margin) for k in range(2))
        agreement = "alike" if first * second > 0 else "opposite" if first * second < 0 else ""
        counts[agreement or ("one" if first or second else "neither")] += 1
    return counts


def guess(name: str) -> dict[str, float]:
    """The accuracy of always predicting the test split's most frequent class (or value of each attribute), by head."""
    data, shares = open_for(TRAININGS[name], "test"), {}
    for head, key in TRAININGS[name].heads.items():
        y = answers(data, key)
        frequent = y.bincount().max() / len(y) if y.dim() == 1 else (0.5 + (y.double().mean(0) - 0.5).abs()).mean()
        shares[head] = round(float(frequent), 4)
    return shares


def grows(values: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def check_line(name: str, again: bool = False) -> dict:
    """The result line of one feature network: accuracy, distances, and ``sane``: whether they are as they must be.

    Distances must grow with blur, noise and the number of classes left out; the accuracy must be the file's; and if
    there is a second network of the data set (``-b``), it must not rank two shipped files the opposite way, if
    their distances differ by a tenth.
    """
    network = feature_networks.load(name)
    line = ladders(network)
    sane = {key: grows([line["test"], *line[key].values()]) for key in ("blur", "noise")}
    right = accuracy(network, TRAININGS[name])
    sane["accuracy"] = all(abs(right[head] - expected) < 0.002 for head, expected in network.facts["accuracy"].items())
    sane["dropped"] = grows(list(line["dropped"].values()))
    pair = [network, *(feature_networks.load(n) for n in feature_networks.names() if n == f"{name}-b")]
    if len(pair) > 1:
        line["weights"] = scores = weights(pair, {} if again else ranked_before(pair))
        if len(scores) > 1:  # one file has no ranking
            line["pairs"] = rankings(scores)
            far = rankings(scores, MARGIN)
            if sum(far.values()):  # files with the same real images
                sane["ranking"] = far["opposite"] == 0 and far["alike"] > 0
        sane["reals_far_under"] = all(2 * line["test"] < min(w["by"][0]) for w in scores.values())
    return {"features": name, "hash": network.hash, "accuracy": right, "guess": guess(name), **line, "sane": sane}


# The embedded data set ------------------------------------------------------------------------------------------------

EMBEDDED = Path(zoo.data.__file__).parent / "fashion-mnist-10k.safetensors"


def embed(path: Path) -> None:
    """Write the data set that ships in the wheel.

    The first 1,000 images of each class of Fashion-MNIST's train split and the first 100 of each class of its test
    split, in the order of the originals. safetensors does not compress, so the pixels are LZMA bytes, a uint8 tensor a
    split (LZMA: 3.8 MB; zlib and PNG: 4.4 MB), and the labels are uint8.
    """
    arrays = {}
    for split, each in (("train", 1000), ("test", 100)):
        data = open_data("fashion-mnist", split=split)
        y = data.arrays["y"].numpy()
        indices = np.sort(np.concatenate([np.flatnonzero(y == k)[:each] for k in range(10)]))
        images = data.arrays["x"].numpy()[indices, 0]  # [n, 28, 28]
        arrays[f"{split}.x.xz"] = np.frombuffer(lzma.compress(images.tobytes(), preset=9), np.uint8)
        arrays[f"{split}.y"] = y[indices].astype(np.uint8)
    save_arrays(arrays, path, metadata={"license": "MIT", "from": "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)"})
    path.chmod(0o644)  # safetensors writes for the owner only
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


# Commands -------------------------------------------------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def command() -> None:
    """Train and check the zoo's own feature networks; write the embedded data set."""


@command.command("train")
@click.argument("name", type=click.Choice([*TRAININGS]))
@click.option("--seed", type=int, help="By default the one of the shipped file.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs/features"), help="For unfinished trainings."
)
def train_command(name: str, seed: int | None, runs: Path) -> None:
    """Train one feature network and write its file and results/features-NAME.jsonl."""
    training = TRAININGS[name]
    train(name, runs, training if seed is None else replace(training, seed=seed))


@command.command("check")
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Rank also the files anew that were ranked before and did not change.")
def check_command(names: tuple[str, ...], again: bool) -> int:
    """Check NAMES (by default all feature networks) into results/features.jsonl; exit status 1 if one is not sane."""
    names, bad = names or tuple(feature_networks.names()), []
    for name in names:
        row = check_line(name, again)
        rows.write("features", {**row, **rows.facts("python benchmarks/features.py check", 0)}, ("features",))
        print(json.dumps(row), flush=True)
        bad += [f"{name}: {key}" for key, good in row["sane"].items() if not good]
    print("not sane: " + ", ".join(bad) if bad else f"{len(names)} feature networks are sane")
    return int(bool(bad))


@command.command("embedded")
def embedded_command() -> None:
    """Write zoo/data/fashion-mnist-10k.safetensors from Fashion-MNIST."""
    embed(EMBEDDED)


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
