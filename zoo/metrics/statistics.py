"""What a feature network saw of a set of images: moments in float64, a bounded number of features; and their cache.

Moments and predicted classes are summed as the images stream by, so memory does not grow with their number (but for the
features, up to ``KEEP``, and a byte an image). Those of real images are cached in ``$ZOO_HOME/references/`` under a hash of the images' own
bytes, the network's weights and the protocol: another image, pixel or weight is another entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.store import home
from zoo.files import beside
from zoo.metrics.features import Features
from zoo.metrics.images import Images, spread

KEEP = 10_000  # features kept for the scores that compare images one by one
SPLITS = 10  # of the Inception-type score
PROTOCOL = 1  # raised whenever the same images and network would be seen otherwise than before
Progress = Callable[[int, int, str], None]  # images done, images in all, what is being done


class Predictions:
    """The predicted classes of ``count`` images, summed over each of the Inception-type score's splits, in float64:
    ``images`` [SPLITS], ``p`` [SPLITS, K] and ``p_log_p`` [SPLITS]; and ``likeliest``, int16 [count]. Which images share a split is drawn as in torch-fidelity."""

    def __init__(self, count: int, classes: int):
        order = np.random.RandomState(2020).permutation(count)
        self.split = torch.empty(count, dtype=torch.uint8)
        for k in range(SPLITS):
            self.split[torch.from_numpy(order[k * count // SPLITS : (k + 1) * count // SPLITS])] = k
        self.images = self.split.long().bincount(minlength=SPLITS)
        self.p = torch.zeros(SPLITS, classes, dtype=torch.float64)
        self.p_log_p = torch.zeros(SPLITS, dtype=torch.float64)
        self.likeliest = torch.zeros(count, dtype=torch.int16)  # the class that each image is taken for

    def add(self, logits: Tensor, first: int) -> None:
        """Logits [n, K] of the images from ``first`` on."""
        split, logits = self.split[first : first + len(logits)].long(), logits.double()
        p, log_p = logits.softmax(1), logits.log_softmax(1)
        self.likeliest[first : first + len(p)] = logits.argmax(1).short()
        self.p.index_add_(0, split, p)
        self.p_log_p.index_add_(0, split, (p * log_p).sum(1))


@dataclass
class FeatureStatistics:
    """``count`` images; ``mean`` [F] and ``cov`` [F, F] (unbiased) of their features, float64; ``features`` float32 [<= KEEP,
    F] of those evenly spread over them; ``predictions``, or None. ``held``: what scores share."""

    count: int
    mean: Tensor
    cov: Tensor
    features: Tensor
    predictions: Predictions | None = None
    holdout: dict[Any, Any] = field(default_factory=dict, repr=False)


def compute(
    network: Features, images: Images, progress: Progress | None = None, what: str = "images"
) -> FeatureStatistics:
    """Let the network look at all images, a chunk at a time. ValueError for fewer than two."""
    if images.count < 2:
        raise ValueError(f"{images.count} {what}: at least 2 are needed to be scored")
    wanted = spread(images.count, KEEP)
    kept = predictions = None
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for x in images.chunks():
        features, answers = network(x)
        if kept is None:  # one piece of memory: many small ones would leave holes that grow
            kept = features.new_empty(len(wanted), features.shape[1])
            predictions = None if answers is None else Predictions(images.count, answers.shape[1])
        if count + len(x) > images.count:
            raise RuntimeError(f"more than the {images.count} {what} came that were announced")
        if predictions is not None:
            predictions.add(answers, count)
        here = ((wanted >= count) & (wanted < count + len(x))).nonzero().flatten()
        kept[here] = features[wanted[here] - count]
        # Moments of both parts joined (Chan, Golub, LeVeque 1979): sums about the mean lose no digits.
        wide = features.double()
        part = wide.mean(0)
        apart, count = part - mean, count + len(x)
        mean = mean + apart * (len(x) / count)
        wide = wide - part
        scatter = scatter + wide.T @ wide + apart.outer(apart) * (len(x) * (count - len(x)) / count)
        if progress:
            progress(count, images.count, what)
    if count != images.count:
        raise RuntimeError(f"{count} {what} came, {images.count} were announced")
    return FeatureStatistics(count, mean, scatter / (count - 1), kept, predictions)


def reference(network: Features, images: Images, progress: Progress | None = None) -> tuple[FeatureStatistics, str]:
    """As :func:`see` for real images, from the cache where it has them; and the SHA-256 of their bytes."""
    content = images.content()
    # Neither device nor torch's version: other kernels move a distance by 1e-6 of itself.
    path = place("seen", content, network.hash, network.resize, images.count, KEEP)
    found = recall(path)
    if found is None:
        statistics = compute(network, images, progress, "real images")
        found = {"mean": statistics.mean, "cov": statistics.cov, "features": statistics.features}
        keep(path, found)
    return FeatureStatistics(images.count, **found), content


# The cache ------------------------------------------------------------------------------------------------------------


def place(*key: Any) -> Path:
    """Where something that belongs to ``key`` (what it was made of) is kept."""
    text = json.dumps([PROTOCOL, "float32", *key])
    return home() / "references" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def recall(path: Path) -> dict[str, Tensor] | None:
    """What :func:`keep` wrote, None where there is nothing or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def keep(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        partial.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))
