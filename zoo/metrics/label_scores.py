"""Scores of what a model predicts about images, and of whether its images show the requested class.

- Error rate on labeled images, for semi-supervised models (Salimans et al. 2016; Li et al. 2017).
- The lower bound on the mutual information of codes and images, E log Q(c|G(z, c)) + H(c), and the accuracy of a
  categorical code used as a classifier, its values matched to the classes one to one (Chen et al. 2016, sections 5 and
  7.1).
- How often a classifier of real images predicts the class that was requested of a sample (Odena et al. 2016).

Shares come with their standard error over the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from zoo.metrics.images import Images, pass_size
from zoo.priors import Codes

CHUNK = 500
COUNT = 5_000  # samples that the bound is a mean over


class Classifier(Protocol):
    """A Model that classifies."""

    def classify(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [0, 1] -> probabilities [N, K]."""
        ...


class Recognizer(Protocol):
    """A Model that reads the codes of its prior off images."""

    @property
    def codes(self) -> Mapping[str, int]: ...

    @property
    def prior(self) -> Codes: ...

    def latents(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]: ...

    def decode(self, z: Tensor, *, chunk: int = 16) -> Iterator[Tensor]: ...

    def recognize(self, images: Tensor, chunk: int = 64) -> dict[str, Tensor]: ...


def error_rate(model: Classifier, images: Images, y: Tensor) -> tuple[float, float]:
    """The share of images whose most likely class is not their label y, int64 [count], and its error."""
    predictions = torch.cat([model.classify(x.float() / 255).argmax(1).cpu() for x in images.chunks(CHUNK)])
    return share(predictions != y)


def information(model: Recognizer, seeds: Sequence[int], chunk: int = 100) -> dict[str, Tensor]:
    """The bound in nats, a value for each of n samples: ``categorical`` (at most the sum of log K) and ``continuous``
    codes, with Q's deviation 1 and the entropy of U(-1, 1): float64 [n]."""
    chunk = pass_size(model, chunk)
    total = {kind: torch.zeros(len(seeds), dtype=torch.float64) for kind in ("categorical", "continuous")}
    for at in range(0, len(seeds), chunk):
        z, _ = model.latents(seeds[at : at + chunk])
        codes = model.prior.split(z)
        predictions = model.recognize(torch.cat(list(model.decode(z, chunk=chunk))), chunk=chunk)
        for name, k in model.codes.items():
            code, prediction = codes[name], predictions[name].cpu()
            if k:
                bound = (code * prediction).sum(1).clamp(min=1e-30).log() + math.log(k)
            else:
                bound = -0.5 * (code - prediction).square() - 0.5 * math.log(2 * math.pi) + math.log(2)
            total["categorical" if k else "continuous"][at : at + len(bound)] += bound
    return total


def code_accuracy(model: Recognizer, images: Images, y: Tensor, code: str | None = None) -> dict[str, float]:
    """How well a categorical code (by default the first), as Q reads it, tells the classes: ``accuracy`` under the
    one-to-one matching of values and classes that is best on these very images, ``purity`` if each value may take its
    most frequent class. Raises ValueError if the model has no such code."""
    names = [name for name, k in model.codes.items() if k]
    code = code or next(iter(names), None)
    if code is None or code not in names:
        raise ValueError(f"code '{code}': no such categorical code; this model has {', '.join(names) or 'none'}")
    counts = torch.zeros(model.codes[code], int(y.max()) + 1, dtype=torch.int64)
    values = torch.cat([model.recognize(x.float() / 255)[code].argmax(1).cpu() for x in images.chunks(CHUNK)])
    counts.index_put_((values, y), torch.ones_like(values), accumulate=True)
    return match(counts)


def match(counts: Tensor) -> dict[str, float]:
    """``accuracy`` and ``purity`` of a table [values, classes] of how often each value occurs with each class. Raises
    ValueError for more than 16 classes: the search for the best matching would take too long."""
    if counts.shape[1] > 16:
        raise ValueError(f"a code can be matched with at most 16 classes, got {counts.shape[1]}")
    best = {0: 0}  # from the set of classes that have a value, as bits, to the most images classified correctly
    for row in counts.tolist():
        new = dict(best)  # a value may stay without a class
        for classes, correct in best.items():
            for c, count in enumerate(row):
                if not classes >> c & 1:
                    key = classes | 1 << c
                    new[key] = max(new.get(key, 0), correct + count)
        best = new
    total = counts.sum().item()
    return {"accuracy": max(best.values()) / total, "purity": counts.amax(1).sum().item() / total}


def class_accuracy(predictions: Tensor | None, y: Tensor) -> tuple[float, float]:
    """The share of images whose predicted class [n] is the requested one, y [n], and its error. Raises ValueError if
    there are no predictions."""
    if predictions is None:
        raise ValueError(
            "metrics=class-accuracy: this feature network predicts no classes; choose another, or leave it out"
        )
    return share(predictions == y)


def share(hits: Tensor) -> tuple[float, float]:
    """The share of True among n, and its standard error."""
    value = hits.double().mean().item()
    return value, math.sqrt(value * (1 - value) / len(hits))
