"""What the score near-copies accuses: training images changed more and more, and images that are no copies.

    python benchmarks/copies.py                 # the data sets of DATASETS, into results/copies.jsonl
    python benchmarks/copies.py fashion-mnist   # one of them

The bound is set by one half of the test split, the held-out images that are judged come from the other.
"""

from __future__ import annotations

import argparse
import json

import rows
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from zoo.data import open_data
from zoo.metrics.baselines import Gaussian, Mixture
from zoo.metrics.copies import COUNT, PERCENTILE, ratios
from zoo.metrics.images import Images, from_data, from_sampler, quantized, spread

DATASETS = ("cifar10", "fashion-mnist", "mnist")
JUDGED = 400  # images of each kind


def noisy(x: Tensor, by: float) -> Tensor:
    return x + by * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def blurred(x: Tensor, by: float) -> Tensor:
    return gaussian_blur(x, [13, 13], [by, by])


def shifted(x: Tensor, down: int, across: int) -> Tensor:
    """What leaves on one side is as the border was."""
    grown = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    return grown[:, :, 2 - down :, 2 - across :][:, :, : x.shape[2], : x.shape[3]]


CHANGES = {
    "copied": lambda x: x,
    "noise 0.05": lambda x: noisy(x, 0.05),
    "noise 0.1": lambda x: noisy(x, 0.1),
    "noise 0.2": lambda x: noisy(x, 0.2),
    "blur 0.7 px": lambda x: blurred(x, 0.7),
    "blur 1 px": lambda x: blurred(x, 1.0),
    "blur 2 px": lambda x: blurred(x, 2.0),
    "shift 1 px": lambda x: shifted(x, 0, 1),
    "shift 1 px both ways": lambda x: shifted(x, -1, 1),
    "shift 2 px": lambda x: shifted(x, 0, 2),
    "half the contrast": lambda x: 0.25 + x / 2,
    "mirrored": lambda x: x.flip(3),
    "mirrored, shift 1 px, noise 0.05": lambda x: noisy(shifted(x.flip(3), 1, 0), 0.05),
}


def tensor(images: Images) -> Tensor:
    return torch.cat(list(images.stream())).float() / 255


def stream(x: Tensor) -> Images:
    """Images [n, C, H, W] in [0, 1], rounded as all that is scored."""
    return Images(len(x), lambda: iter([quantized(x)]), lambda n: stream(x[spread(len(x), n)]))


def ladder(dataset: str) -> dict[str, float]:
    """The share that is accused, of each kind of images."""
    data, test = open_data(dataset), open_data(dataset, split="test")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    copied = tensor(from_data(data, order[:JUDGED]))
    other = tensor(from_data(test, torch.arange(1, len(test), 2)).at_most(JUDGED))
    kinds = {name: stream(change(copied)) for name, change in CHANGES.items()}
    kinds |= {"held out": stream(other), "held out, blur 1 px": stream(blurred(other, 1.0))}
    kinds |= {"held out, noise 0.1": stream(noisy(other, 0.1))}
    kinds |= {known.name: from_sampler(known(data), JUDGED, 0) for known in (Gaussian, Mixture)}

    train, holdout = from_data(data), from_data(test, torch.arange(0, len(test), 2)).at_most(COUNT)
    bound = ratios(holdout, train).quantile(PERCENTILE / 100)
    together = stream(torch.cat([tensor(images) for images in kinds.values()]))  # one pass over the training images
    shares = (ratios(together, train) < bound).float().split(JUDGED)
    return {name: round(float(found.mean()), 4) for name, found in zip(kinds, shares, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", help=f"by default {', '.join(DATASETS)}")
    for dataset in parser.parse_args().datasets or DATASETS:
        row = {"dataset": dataset, "images": JUDGED, "flagged": ladder(dataset)}
        rows.write("copies", row | rows.facts(f"python benchmarks/copies.py {dataset}", 0), ("dataset",))
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    rows.run(main)
