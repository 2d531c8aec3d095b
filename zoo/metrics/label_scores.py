"""Scores of what a model says about images, and of whether its images show what was asked for.

- Error rate on labeled images, for semi-supervised models (Salimans et al. 2016; Li et al. 2017).
- The lower bound on the mutual information of codes and images, E log Q(c|G(z, c)) + H(c), and the accuracy of a categorical
  code used as a classifier, its values matched to the classes one to one (Chen et al. 2016, sections 5 and 7.1).
- How often a classifier of real images names the class that a sample was asked to be of (Odena et al. 2016).

Shares come with their standard error over the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.metrics.images import Images

CHUNK = 500
COUNT = 5_000  # samples that the bound is a mean over


def error_rate(model: Any, images: Images, y: Tensor) -> tuple[float, float]:
    """The share of images whose likeliest class is not their label, and its error. ``model``: has ``classify``; ``y``: int64
    [count]."""
    said = torch.cat([model.classify(x.float() / 255).argmax(1).cpu() for x in images.chunks(CHUNK)])
    return share(said != y)


def information(model: Any, seeds: Sequence[int], chunk: int = 100) -> dict[str, Tensor]:
    """The bound in nats, a value for each of n samples: ``categorical`` (at most the sum of log K) and ``continuous`` codes,
    with Q's deviation 1 and the entropy of U(-1, 1): float64 [n]. ``model``: has codes and ``recognize``."""
    total = {kind: torch.zeros(len(seeds), dtype=torch.float64) for kind in ("categorical", "continuous")}
    for at in range(0, len(seeds), chunk):
        z, _ = model.latents(seeds[at : at + chunk])
        true = model.prior.split(z)
        said = model.recognize(torch.cat(list(model.decode(z, chunk=chunk))), chunk=chunk)
        for name, k in model.codes.items():
            guess = said[name].cpu()
            if k:
                each = (true[name] * guess).sum(1).clamp(min=1e-30).log() + math.log(k)
            else:
                each = -0.5 * (true[name] - guess).square() - 0.5 * math.log(2 * math.pi) + math.log(2)
            total["categorical" if k else "continuous"][at : at + len(each)] += each
    return total


def code_accuracy(model: Any, images: Images, y: Tensor, code: str | None = None) -> dict[str, float]:
    """How well Q's reading of a categorical code (by default the first) tells the classes: ``accuracy`` under the one-to-one
    matching of values and classes that is best on these very images, ``purity`` where each value may take its commonest class."""
    known = [name for name, k in model.codes.items() if k]
    code = code or next(iter(known), None)
    if code not in known:
        raise ValueError(f"code '{code}': no such categorical code; this model has {', '.join(known) or 'none'}")
    counts = torch.zeros(model.codes[code], int(y.max()) + 1, dtype=torch.int64)
    said = torch.cat([model.recognize(x.float() / 255)[code].argmax(1).cpu() for x in images.chunks(CHUNK)])
    counts.index_put_((said, y), torch.ones_like(said), accumulate=True)
    return matched(counts)


def matched(counts: Tensor) -> dict[str, float]:
    """``accuracy`` and ``purity`` of a table [values, classes] of how often each value met each class. ValueError for more
    than 16 classes, of which the best matching would be sought for too long."""
    if counts.shape[1] > 16:
        raise ValueError(f"{counts.shape[1]} classes: a code can be matched with 16 at most")
    best = {0: 0}  # the classes taken, as bits -> the most images told right
    for row in counts.tolist():
        after = dict(best)  # a value may stay without a class
        for taken, right in best.items():
            for c, met in enumerate(row):
                if not taken >> c & 1:
                    key = taken | 1 << c
                    after[key] = max(after.get(key, 0), right + met)
        best = after
    whole = counts.sum().item()
    return {"accuracy": max(best.values()) / whole, "purity": counts.amax(1).sum().item() / whole}


def class_accuracy(likeliest: Tensor | None, y: Tensor) -> tuple[float, float]:
    """The share of images that a classifier of real images takes for what they were asked to be, and its error. ``likeliest``: the
    class that each is taken for, [n]; ``y``: the one asked for. ValueError where the feature network predicts no classes."""
    if likeliest is None:
        raise ValueError(
            "metrics=class-accuracy: this feature network predicts no classes; choose another, or leave it out"
        )
    return share(likeliest == y)


def share(hits: Tensor) -> tuple[float, float]:
    """The share of True among n, and its standard error."""
    value = hits.double().mean().item()
    return value, math.sqrt(value * (1 - value) / len(hits))
