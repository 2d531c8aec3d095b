"""Scores of what a model says about images: the error of a classifier, and how much of its codes a generator shows.

- Error rate on labelled images, for semi-supervised models (Salimans et al. 2016; Li et al. 2017).
- The lower bound on the mutual information of codes and images, E log Q(c|G(z, c)) + H(c), and the accuracy of a categorical
  code used as a classifier, its values matched to the classes one to one (Chen et al. 2016, sections 5 and 7.1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo.data import ImageData


def error_rate(model: Any, data: ImageData, chunk: int = 500) -> dict[str, float]:
    """The share of images whose likeliest class is not their label: ``error``, and ``images``, how many were looked at.

    ``model``: has ``classify``. ``data``: x uint8 and y; a test split. ValueError where the data have no labels.
    """
    labels = _labels(data)
    wrong = 0
    for at in range(0, len(data), chunk):
        rows = torch.arange(at, min(at + chunk, len(data)))
        said = model.classify(data.rows(rows)["x"].float() / 255).argmax(1).cpu()
        wrong += int((said != labels[rows]).sum())
    return {"error": wrong / len(data), "images": len(data)}


def information(model: Any, n: int = 5000, seed: int = 0, chunk: int = 100) -> dict[str, float]:
    """The bound in nats on n samples: ``categorical`` (at most the sum of log K) and ``continuous`` codes, with Q's
    deviation 1 and the entropy of U(-1, 1). ``model``: has codes and ``recognise``."""
    total = {"categorical": 0.0, "continuous": 0.0}
    for at in range(0, n, chunk):
        z, _ = model.latents(range(seed + at, seed + min(at + chunk, n)))
        true = model.prior.split(z)
        said = model.recognise(torch.cat(list(model.decode(z, chunk=chunk))), chunk=chunk)
        for name, k in model.codes.items():
            guess = said[name].cpu()
            if k:
                each = (true[name] * guess).sum(1).clamp(min=1e-30).log() + math.log(k)
            else:
                each = -0.5 * (true[name] - guess).square() - 0.5 * math.log(2 * math.pi) + math.log(2)
            total["categorical" if k else "continuous"] += each.sum().item()
    return {name: value / n for name, value in total.items()}


def code_accuracy(model: Any, data: ImageData, code: str = "c1", chunk: int = 500) -> dict[str, float]:
    """How well Q's reading of a categorical code tells the classes: ``accuracy`` under the one-to-one matching of values and
    classes that is best on these very images, ``purity`` where each value may take its commonest class, and ``images``."""
    k = model.codes.get(code, 0)
    if not k:
        known = ", ".join(n for n, k in model.codes.items() if k) or "none"
        raise ValueError(f"code '{code}': no such categorical code; this model has {known}")
    labels = _labels(data)
    counts = torch.zeros(k, int(labels.max()) + 1, dtype=torch.int64)
    for at in range(0, len(data), chunk):
        rows = torch.arange(at, min(at + chunk, len(data)))
        said = model.recognise(data.rows(rows)["x"].float() / 255)[code].argmax(1).cpu()
        counts.index_put_((said, labels[rows]), torch.ones_like(said), accumulate=True)
    return {**matched(counts), "images": len(data)}


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


def _labels(data: ImageData) -> Tensor:
    if "y" not in data.facts.keys:
        raise ValueError(f"{data.facts.name} has no labels to compare with")
    return data.labels("y")
