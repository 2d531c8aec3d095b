"""Statistics of the features of a set of images: moments in float64, a bounded number of features; and their cache.

Moments and predicted classes are summed image by image, so memory does not grow with their number (except for the
features, up to ``MAX_FEATURES``, and three bytes an image). Statistics of real images are cached in
``$ZOO_HOME/references/`` under a hash of the images' bytes, the network's weights and the protocol: another image,
pixel or weight is another entry."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.images import DataWarning
from zoo.data.store import home
from zoo.files import beside
from zoo.metrics.features import FeatureExtractor
from zoo.metrics.images import Images, spread

MAX_FEATURES = 10_000  # for the scores that compare images one by one
SPLITS = 10  # of the Inception-type score
PROTOCOL = 1  # raised whenever the same images and network would have other statistics than before
Progress = Callable[[int, int, str], None]  # images done, images in all, what is being done


class Predictions:
    """The predicted classes of ``count`` images, summed over each of the Inception-type score's splits, in float64:
    ``images`` [SPLITS], ``p`` [SPLITS, K] and ``p_log_p`` [SPLITS]; and ``likeliest``, the most likely class of each
    image, int16 [count]. The splits are random in the same way as torch-fidelity's."""

    def __init__(self, count: int, classes: int):
        order = np.random.RandomState(2020).permutation(count)
        self.split = torch.empty(count, dtype=torch.uint8)
        for k in range(SPLITS):
            self.split[torch.from_numpy(order[k * count // SPLITS : (k + 1) * count // SPLITS])] = k
        self.images = self.split.long().bincount(minlength=SPLITS)
        self.p = torch.zeros(SPLITS, classes, dtype=torch.float64)
        self.p_log_p = torch.zeros(SPLITS, dtype=torch.float64)
        self.likeliest = torch.zeros(count, dtype=torch.int16)

    def add(self, logits: Tensor, first: int) -> None:
        """Logits [n, K] of the images from ``first`` on."""
        split, logits = self.split[first : first + len(logits)].long(), logits.double()
        p, log_p = logits.softmax(1), logits.log_softmax(1)
        self.likeliest[first : first + len(p)] = logits.argmax(1).short()
        self.p.index_add_(0, split, p)
        self.p_log_p.index_add_(0, split, (p * log_p).sum(1))


@dataclass
class FeatureStatistics:
    """Statistics of ``count`` images.

    ``mean`` [F] and ``cov`` [F, F] (unbiased) of their features, float64; ``features``: float32 [<= MAX_FEATURES, F] of
    images evenly spread over them; ``predictions``, or None. ``shared``: results that several scores use.
    """

    count: int
    mean: Tensor
    cov: Tensor
    features: Tensor
    predictions: Predictions | None = None
    shared: dict[object, tuple[float, float]] = field(default_factory=dict, repr=False)


def compute_statistics(
    network: FeatureExtractor, images: Images, progress: Progress | None = None, what: str = "images"
) -> FeatureStatistics:
    """The statistics of all images, a chunk at a time. Raises ValueError for fewer than two."""
    if images.count < 2:
        raise ValueError(f"{what}: must be at least 2 to be scored, got {images.count}")
    rows = spread(images.count, MAX_FEATURES)
    sample = predictions = None
    count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for x in images.chunks():
        features, logits = network(x)
        if sample is None:  # one piece of memory: many small ones would leave holes that grow
            sample = features.new_empty(len(rows), features.shape[1])
            predictions = None if logits is None else Predictions(images.count, logits.shape[1])
        if count + len(x) > images.count:
            raise RuntimeError(f"more {what} than the expected {images.count}")
        if predictions is not None and logits is not None:
            predictions.add(logits, count)
        here = ((rows >= count) & (rows < count + len(x))).nonzero().flatten()
        sample[here] = features[rows[here] - count]
        # Moments of both parts joined (Chan, Golub, LeVeque 1979): sums about the mean lose no digits.
        wide = features.double()
        part = wide.mean(0)
        shift, count = part - mean, count + len(x)
        mean = mean + shift * (len(x) / count)
        wide = wide - part
        scatter = scatter + wide.T @ wide + shift.outer(shift) * (len(x) * (count - len(x)) / count)
        if progress:
            progress(count, images.count, what)
    if sample is None or count != images.count:
        raise RuntimeError(f"{count} {what} instead of the expected {images.count}")
    return FeatureStatistics(count, mean, scatter / (count - 1), sample, predictions)


def reference_statistics(
    network: FeatureExtractor, images: Images, progress: Progress | None = None
) -> tuple[FeatureStatistics, str]:
    """The statistics of real images, without predictions, from the cache if it has them; and the SHA-256 of their
    bytes."""
    content = images.content()
    # Neither device nor torch's version: other kernels move a distance by 1e-6 of itself.
    path = cache_path("features", content, network.hash, network.resize, images.count, MAX_FEATURES)
    cached = read_cache(path)
    if cached is None:
        new = compute_statistics(network, images, progress, "real images")
        cached = {"mean": new.mean, "cov": new.cov, "features": new.features}
        write_cache(path, cached)
    return FeatureStatistics(images.count, cached["mean"], cached["cov"], cached["features"]), content


# The cache ------------------------------------------------------------------------------------------------------------


def cache_path(*key: object) -> Path:
    """The file of a cache entry. ``key``: everything that it depends on."""
    text = json.dumps([PROTOCOL, "float32", *key])
    return home() / "references" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"


def read_cache(path: Path) -> dict[str, Tensor] | None:
    """The tensors that :func:`write_cache` wrote; None if there are none, or the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def write_cache(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a cache entry, atomically. A folder that cannot be written is a warning: the tensors are computed again
    when they are next needed."""
    from safetensors.torch import save

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            partial.write_bytes(save({k: v.contiguous() for k, v in tensors.items()}))
    except OSError as error:
        warnings.warn(f"{path.parent}: {error.strerror or error}; features of real images are not kept there",
                      DataWarning, stacklevel=2)  # fmt: skip
