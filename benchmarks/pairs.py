"""Emoji translators on held-out pairs, beside two translators that know nothing.

    python benchmarks/pairs.py cyclegan-emoji-small

The mean absolute difference (L1, pixels in [0, 1]) between the translation of one artist's drawing and the other artist's
drawing of the same emoji, over the test split, both ways. ``identity`` leaves the drawing as it is; ``mean-color`` shifts each
channel by the difference of the two artists' means over the training split. A line each in benchmarks/results/pairs.jsonl.
"""

from __future__ import annotations

import argparse
import json

import rows
import torch
from torch import Tensor

import zoo
from zoo.data import open_data
from zoo.metrics.image_source import find


def domains(split: str, resolution: int) -> tuple[Tensor, Tensor]:
    """The two artists' drawings, float [N, 3, H, W] in [0, 1]; row k of both is the same emoji."""
    data = open_data("emoji", resolution, split)
    x, domain = data.arrays["x"].float() / 255, data.arrays["domain"]
    return x[domain == 0], x[domain == 1]


def scores(name: str) -> dict:
    """L1 of the model and of the two baselines, to b and to a."""
    model = zoo.load(name)
    if model.verb != "translate":
        raise ValueError(f"name={name}: a translator is wanted, this model can {model.verb}")
    train, test = domains("train", model.resolution), domains("test", model.resolution)
    found = {"recipe": model.card["name"], "tensors": find(name).weights.get("tensors"), "pairs": len(test[0])}
    for to, (source, target) in {"b": (0, 1), "a": (1, 0)}.items():
        shift = (train[target].mean((0, 2, 3)) - train[source].mean((0, 2, 3)))[:, None, None]
        made = {
            "model": model.translate(test[source], to),
            "identity": test[source],
            "mean-color": (test[source] + shift).clamp(0, 1),
        }
        found[f"to_{to}"] = {k: round(float((v - test[target]).abs().mean()), 5) for k, v in made.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="weights, a file or a run's folder")
    name = parser.parse_args().name
    with torch.no_grad():
        row = scores(name)
    row |= rows.facts(f"python benchmarks/pairs.py {row['recipe']}", 0)
    rows.write("pairs", row, ("recipe",))
    print(json.dumps(row))


if __name__ == "__main__":
    rows.run(main)
