"""The zoo's own feature networks, for scores without a download.

    names()                                  # ["cifar10", "cifar10-b", "emoji", ...]
    load("cifar10").features(images)         # images [N, 3, 32, 32] in [0, 1] -> float32 [N, F]

Each is a small classifier trained by ``benchmarks/features.py`` and stored beside this file: one safetensors file in
half precision, whose header has, under ``feature_network``, the network and the facts (data set and license, seed,
accuracy on the test split, images seen, command, versions, commit). Those that end in ``-b`` are second networks from
another seed: they serve to check that a ranking does not depend on one network. A distance is named after its feature
network (``fd-cifar10``); none of them is the FID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.registry import nearest

if TYPE_CHECKING:
    from zoo.metrics.feature_networks.network import FeatureNetwork

SHIPPED = Path(__file__).parent


def names() -> list[str]:
    """The names of the shipped feature networks, sorted. Needs no torch."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def path(name: str) -> Path:
    """The file of the feature network called ``name``. Raises ValueError with the nearest names if there is none."""
    if name not in names():
        others = nearest(name, names()) or "; there are " + ", ".join(names())
        raise ValueError(f"unknown feature network '{name}'{others}")
    return SHIPPED / f"{name}.safetensors"


def facts(name: str) -> dict[str, Any]:
    """The facts in the header of the feature network ``name``, without torch and without reading a tensor."""
    from zoo.metrics.feature_networks.files import read_header

    return read_header(path(name))["facts"]


def load(name: str) -> FeatureNetwork:
    """The feature network called ``name``, on the CPU and in eval mode. Raises ValueError if there is none, or its
    file is damaged."""
    from zoo.metrics.feature_networks.network import read

    return read(path(name))
