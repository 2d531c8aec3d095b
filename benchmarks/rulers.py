"""The zoo's own feature networks: trained, and checked to be sane feature networks.

    python benchmarks/feature networks.py train cifar10      # zoo/metrics/feature networks/cifar10.safetensors, results/feature networks-cifar10.jsonl
    python benchmarks/feature networks.py check              # results/feature networks.jsonl

Training is by the clock of the epoch: order and augmentation of an epoch are a function of seed and epoch, so a stopped run
goes on from its last whole epoch (``--runs FOLDER``) as if it had not stopped. The test split is looked at after the last epoch
only, through the file as it is stored. No epoch was chosen by it; but CIFAR-10's training was lengthened once, from 12 epochs
that reached 89.74 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import rows
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchvision.transforms.functional import gaussian_blur

from zoo import hub
from zoo.data import open_data
from zoo.files import beside
from zoo.metrics import feature_networks
from zoo.metrics.feature_networks.network import FeatureNetwork, read, write
from zoo.model import Model
from zoo.registry import NETWORKS, Spec

# Training -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How a feature network is trained: SGD with Nesterov momentum 0.9, the learning rate up to ``lr`` over the first fifth and
    down to 0 (linear), weight decay on matrices, label smoothing, random shifts, flips and cutout.

    ``fit``: see ``Feature network.fit``. ``heads``: question -> label of the data set. ``border``: what shifts bring in: a gray
    level, or None for the mirrored image. ``crop``: the side of the images of the first ``crop_epochs``, parts of the whole.
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
EMOJI = Training("emoji", "resize", {"category": "y", "style": "domain"}, resolution=64, widths=(16, 32, 64, 128), epochs=16,
                 batch=128, shift=4, border=255, cutout=12, crop=56, crop_epochs=11)  # fmt: skip
TRAININGS = {
    "fashion-mnist": FASHION,
    "cifar10": CIFAR10,
    "mnist": Training("mnist", "pad", widths=(24, 48, 96), epochs=4, flip=False, cutout=0, crop=28, crop_epochs=3),
    "emoji": EMOJI,
    "fashion-mnist-b": replace(FASHION, seed=1, widths=(24, 48, 96), epochs=2, crop_epochs=1),
    "cifar10-b": replace(CIFAR10, seed=1, widths=(32, 64, 128), epochs=4, crop_epochs=3),
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
    """x uint8 [n, C, R, R] -> [n, C, side, side] in [-1, 1]: each shifted, flipped, and with a square cut out, in its own way."""
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
    """A run folder: what was reached, so that it goes on from its last whole epoch."""

    def __init__(self, folder: Path, name: str, training: Training):
        self.log, self.state, self.about = folder / "log.jsonl", folder / "state.safetensors", folder / "about.json"
        asked = json.loads(json.dumps(asdict(training)))
        if self.about.exists() and json.loads(self.about.read_text())["training"] != asked:
            raise SystemExit(f"{folder} holds a run of {name} with other settings: name another folder, or remove it")
        if not self.about.exists():
            folder.mkdir(parents=True, exist_ok=True)
            facts = rows.facts(f"python benchmarks/feature networks.py train {name}", training.seed)
            self.about.write_text(json.dumps({"training": asked, **facts}))
        self.facts = json.loads(self.about.read_text())

    def restore(self, network: nn.Module, optimizer: torch.optim.SGD) -> list[dict]:
        """The lines of the epochs that are done; network and momentum are set as they were left."""
        if not self.state.exists():
            return []
        holdout = load_file(self.state)
        network.load_state_dict({k.removeprefix("network."): v for k, v in holdout.items() if k.startswith("network.")})
        for name, p in network.named_parameters():
            if f"momentum.{name}" in holdout:
                optimizer.state[p]["momentum_buffer"] = holdout[f"momentum.{name}"].to(
                    memory_format=torch.preserve_format
                )
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return lines[: int(holdout["epochs"])]

    def save(self, network: nn.Module, optimizer: torch.optim.SGD, lines: list[dict]) -> None:
        with beside(self.log) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
        holdout = {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}
        for name, p in network.named_parameters():
            if p in optimizer.state:
                holdout[f"momentum.{name}"] = optimizer.state[p]["momentum_buffer"].contiguous()
        with beside(self.state) as partial:
            save_file({**holdout, "epochs": torch.tensor(len(lines))}, partial)


def train(name: str, runs: Path, training: Training) -> None:
    """Train the feature network ``name``, write its file and its log, and score the file on the test split."""
    data = open_data(training.dataset)
    x, border = data.arrays["x"], (training.resolution - data.facts.resolution) // 2
    x = F.pad(x, (border,) * 4)  # black, as Feature network.fit pads
    labels = {head: data.labels(key) for head, key in training.heads.items()}
    run = Run(runs / name, name, training)

    torch.manual_seed(training.seed)
    made = spec(training, x.shape[1], {head: int(y.max()) + 1 for head, y in labels.items()})
    network = NETWORKS.build(made).to(memory_format=torch.channels_last).train()
    whiten(network.stem, x[torch.randperm(len(x))[:2000]].float() / 127.5 - 1)
    network.stem.requires_grad_(False)
    learn = [p for p in network.parameters() if p.requires_grad]
    groups = [{"params": [p for p in learn if p.dim() > 1], "weight_decay": training.decay},
              {"params": [p for p in learn if p.dim() == 1]}]  # fmt: skip
    optimizer = torch.optim.SGD(groups, lr=training.lr, momentum=0.9, nesterov=True)
    lines = run.restore(network, optimizer)

    count = len(x) // training.batch * training.batch  # images an epoch: whole batches
    for epoch in range(len(lines), training.epochs):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(1000 * training.seed + epoch)
        side = training.crop if epoch < training.crop_epochs else training.resolution
        total, right = torch.zeros(()), {head: torch.zeros(()) for head in labels}
        order = torch.randperm(len(x), generator=generator)[:count].split(training.batch)
        for step, rows_ in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = rate(training, (epoch + step / len(order)) / training.epochs)
            logits = network(augment(x[rows_], training, side, generator))
            truth = {head: y[rows_] for head, y in labels.items()}
            losses = [F.cross_entropy(logits[h], y, label_smoothing=training.smoothing) for h, y in truth.items()]
            loss = torch.stack(losses).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            for head, y in truth.items():
                right[head] += (logits[head].argmax(1) == y).sum()
        lines.append({
            "epoch": epoch + 1,
            "images": count * (epoch + 1),
            "side": side,
            "loss": round(float(total) / len(order), 4),
            "train_accuracy": {head: round(float(n) / count, 4) for head, n in right.items()},
            "seconds": round(time.perf_counter() - started, 1),
        })  # fmt: skip
        run.save(network, optimizer, lines)
        print(json.dumps(lines[-1]), flush=True)

    network.half().float()  # as the file will hold it
    facts = {
        "dataset": training.dataset,
        "license": data.facts.license,
        "fit": training.fit,
        "images": count * training.epochs,
        "seconds": round(sum(line["seconds"] for line in lines)),
        **run.facts,
    }
    facts["accuracy"] = accuracy(FeatureNetwork(network, name, facts), training.heads)
    path = feature_networks.SHIPPED / f"{name}.safetensors"
    write(path, network, made, facts)
    stored = read(path)
    end = {
        "accuracy": accuracy(stored, training.heads),
        "split": "test",
        "bytes": path.stat().st_size,
        "hash": stored.hash,
    }
    lines = [*lines, {**end, **facts}]
    (rows.RESULTS / f"feature networks-{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(json.dumps(end))


def accuracy(feature_network: FeatureNetwork, heads: Mapping[str, str], count: int | None = None) -> dict[str, float]:
    """The share of right answers a head on the (first ``count`` images of the) test split."""
    data = open_data(feature_network.facts["dataset"], split="test")
    x = data.arrays["x"][:count]
    logits = [feature_network.logits(part.float() / 255) for part in x.split(500)]
    answers = {head: torch.cat([part[head] for part in logits]).argmax(1) for head in heads}
    return {
        head: round(float((answers[head] == data.labels(key)[:count]).double().mean()), 4)
        for head, key in heads.items()
    }


# Checking -----------------------------------------------------------------------------------------------------------

COUNT = 10_000  # images a set, at most
BLUR = (0.5, 1.0, 2.0)  # standard deviations in pixels
NOISE = (0.05, 0.1, 0.2)  # standard deviations, of a range of 1
DROPPED = (1, 3, 5)  # classes left out, the last ones first


def features(feature_network: FeatureNetwork, x: Tensor) -> Tensor:
    """Images [N, C, H, W], uint8 or floating in [0, 1] -> float64 [N, dim]."""
    scale = 1 if x.is_floating_point() else 255
    return torch.cat([feature_network.features(part.float() / scale) for part in x.split(250)]).double()


def distance(real: Tensor, other: Tensor) -> float:
    """The Frechet distance of two sets of features, by torch-fidelity's arithmetic, in float64."""
    mine, theirs = fid_features_to_statistics(real), fid_features_to_statistics(other)
    return round(next(iter(fid_statistics_to_metric(mine, theirs, verbose=False).values())), 4)


def shuffled(dataset: str, split: str, resolution: int | None = None) -> tuple[Tensor, Tensor]:
    """At most COUNT images and their classes, in a fixed random order, since some sets are sorted."""
    data = open_data(dataset, resolution, split)
    rows_ = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:COUNT]
    return data.arrays["x"][rows_], data.labels("y")[rows_]


def ladders(feature_network: FeatureNetwork) -> dict:
    """Distances to the training split: of the test split, and of the test split worse and worse."""
    dataset = feature_network.facts["dataset"]
    real = features(feature_network, shuffled(dataset, "train")[0])
    x, y = shuffled(dataset, "test")
    test, x = features(feature_network, x), x.float() / 255
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    present = y.unique()
    kept = {n: test[torch.isin(y, present[:-n])] for n in DROPPED}
    least = min(map(len, kept.values()))  # the distance hangs on the count, so one count for all
    return {
        "images": {"train": len(real), "test": len(test), "dropped": least},
        "test": distance(real, test),
        "blur": {str(s): distance(real, features(feature_network, gaussian_blur(x, [13, 13], [s, s]))) for s in BLUR},
        "noise": {str(s): distance(real, features(feature_network, (x + s * noise).clamp(0, 1))) for s in NOISE},
        "dropped": {"0": distance(real, test[:least]), **{str(n): distance(real, f[:least]) for n, f in kept.items()}},
    }


SETS = 5  # of samples, by which files are told apart


def made(model: Model, dataset: str, k: int) -> Tensor:
    """What a model makes: its k-th COUNT samples, or the test split translated both ways, float [N, C, H, W] in [0, 1]."""
    if model.verb == "sample":
        return torch.cat(list(model.iter_samples(COUNT, seed=k * COUNT, chunk=100)))
    data = open_data(dataset, model.resolution, "test")
    x, domain = data.arrays["x"].float() / 255, data.labels("domain")
    return torch.cat([model.translate(x[domain == source], to) for source, to in enumerate("ba")])


def weights(pair: list[FeatureNetwork]) -> dict[str, dict]:
    """The shipped weights of the feature networks' data set: name -> which file, and by each of the feature networks the distances of SETS sets of its
    samples (of a translator, which draws nothing, of one) to the training split."""
    dataset, found = pair[0].facts["dataset"], {}
    for name, entry in hub.index().items():
        model = hub.load(name)
        if model.card["dataset"]["name"] == dataset:
            resolution = None if pair[0].facts["fit"] == "pad" else model.resolution
            real = [features(r, shuffled(dataset, "train", resolution)[0]) for r in pair]
            by: list[list[float]] = [[] for _ in pair]
            for k in range(SETS if model.verb == "sample" else 1):
                x = made(model, dataset, k)
                for distances, feature_network, known in zip(by, pair, real, strict=True):
                    distances.append(distance(known, features(feature_network, x)))
            found[name] = {"sha256": entry["sha256"][:16], "by": by}
    return found


def order(a: list[float], b: list[float]) -> int:
    """-1 where every set of the one file is nearer than every set of the other, 1 where none is, 0 where they overlap."""
    return (max(b) < min(a)) - (max(a) < min(b))


def distinguishable(scored: Mapping[str, dict]) -> dict[str, int]:
    """Of the pairs of files: how many both feature networks tell apart, alike or the other way round; how many one of them alone does,
    or neither."""
    found = {"alike": 0, "opposite": 0, "one": 0, "neither": 0}
    for a, b in itertools.combinations(scored.values(), 2):
        first, second = (order(a["by"][k], b["by"][k]) for k in range(2))
        found[
            "alike"
            if first * second > 0
            else "opposite"
            if first * second < 0
            else "one"
            if first or second
            else "neither"
        ] += 1
    return found


def guess(name: str) -> dict[str, float]:
    """The accuracy of naming the test split's most frequent answer, a head."""
    data = open_data(TRAININGS[name].dataset, split="test")
    return {h: round(float(data.labels(k).bincount().max()) / len(data), 4) for h, k in TRAININGS[name].heads.items()}


def grows(values: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def check(names: list[str]) -> int:
    """A line a feature network in results/feature networks.jsonl; 1 where one is not sane."""
    bad = []
    for name in names:
        feature_network = feature_networks.load(name)
        found = ladders(feature_network)
        sane = {key: grows([found["test"], *found[key].values()]) for key in ("blur", "noise")}
        right = accuracy(feature_network, TRAININGS[name].heads)
        sane["accuracy"] = all(
            abs(right[head] - stated) < 0.002 for head, stated in feature_network.facts["accuracy"].items()
        )
        sane["dropped"] = grows(list(found["dropped"].values()))
        pair = [feature_network, *(feature_networks.load(n) for n in feature_networks.names() if n == f"{name}-b")]
        if len(pair) > 1:
            found["weights"] = scored = weights(pair)
            if len(scored) > 1:  # one file has no ranking
                found["pairs"] = distinguishable(scored)
                sane["ranking"] = found["pairs"]["opposite"] == 0 and found["pairs"]["alike"] > 0
            sane["reals_far_under"] = all(2 * found["test"] < min(w["by"][0]) for w in scored.values())
        row = {
            "feature network": name,
            "hash": feature_network.hash,
            "accuracy": right,
            "guess": guess(name),
            **found,
            "sane": sane,
        }
        rows.write(
            "feature networks",
            {**row, **rows.facts("python benchmarks/feature networks.py check", 0)},
            ("feature network",),
        )
        print(json.dumps(row), flush=True)
        bad += [f"{name}: {key}" for key, good in sane.items() if not good]
    print("not sane: " + ", ".join(bad) if bad else f"{len(names)} feature networks are sane")
    return int(bool(bad))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("train", help="train one and write its file")
    one.add_argument("name", choices=TRAININGS)
    one.add_argument("--seed", type=int, help="by default the one that the shipped file was trained with")
    one.add_argument("--runs", type=Path, default=Path("runs/feature networks"), help="where unfinished runs are kept")
    all_ = verbs.add_parser("check", help="see whether they are sane feature networks")
    all_.add_argument("names", nargs="*", help="by default every one")
    arguments = parser.parse_args()
    if arguments.verb == "check":
        return check(arguments.names or feature_networks.names())
    training = TRAININGS[arguments.name]
    if arguments.seed is not None:
        training = replace(training, seed=arguments.seed)
    train(arguments.name, arguments.runs, training)
    return 0


if __name__ == "__main__":
    rows.run(main)
