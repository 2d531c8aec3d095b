"""Files of reference features: what scores need of real images, for machines that do not have the images.

A file is safetensors: ``mean`` [F] and ``cov`` [F, F] of the features of all images in float64, ``features`` [n, F] of
at most 10,000 of them in 16 bits; and in the header, under ``reference``, as JSON: data set, split, license, how many
images, the start of the SHA-256 of their bytes (``content``), and the feature network with the hash of its weights.
Scores that compare images with images, such as near-copies, cannot be computed from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from zoo import tensor_file
from zoo.data import Facts
from zoo.files import Json, beside
from zoo.metrics.features import FeatureExtractor
from zoo.metrics.statistics import FeatureStatistics

KEY, TENSORS = "reference", ("mean", "cov", "features")


def describe(network: FeatureExtractor, facts: Facts, split: str) -> Json:
    """What a file must say of itself to be the reference of a data set with a feature network."""
    own = {"features": network.name, "features_hash": network.hash, "resize": network.resize}
    return {"dataset": facts.name, "split": split, "license": facts.license, **own}


def write(path: Path, statistics: FeatureStatistics, facts: Json) -> None:
    """Write the statistics of real images, atomically. ``facts``: :func:`describe`, with ``images`` and ``content``.
    Raises :class:`zoo.tensor_file.NotFinite` if a value is not finite or does not fit in 16 bits."""
    tensors = {"mean": statistics.mean, "cov": statistics.cov, "features": statistics.features.half()}
    tensor_file.check_finite(tensors, f"reference '{path}'")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        tensor_file.write(partial, tensors, {KEY: json.dumps(facts)})


def read(path: str | Path, expected: Json) -> tuple[FeatureStatistics, Json]:
    """The statistics in a file, and what it says of itself. ``expected``: :func:`describe` of what is to be scored.
    Raises ValueError if the file is damaged, or of another data set, split or feature network."""
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"reference='{path}': no such file")
    try:
        header = tensor_file.read_header(path)
        if KEY not in header.metadata or set(header.tensors) != set(TENSORS):
            raise ValueError("not a file of reference features")
        tensor_file.verify(path, header)
        facts: dict[str, Any] = tensor_file.parse_json(header.metadata[KEY])
        tensors = load_file(path)
        size = len(tensors["mean"])
        if tensors["cov"].shape != (size, size) or tensors["features"].shape[1:] != (size,):
            raise ValueError("its tensors must be mean [F], cov [F, F] and features [n, F]")
        if type(facts.get("images")) is not int or facts["images"] < 2 or not isinstance(facts.get("content"), str):
            raise ValueError("its facts must have the number of images and a hash of their content")
    except ValueError as error:
        raise ValueError(f"reference='{path}': {error}") from None
    for key, value in expected.items():
        if facts.get(key) != value:
            raise ValueError(f"reference='{path}': must have {key}={value}, got {facts.get(key)}")
    features = tensors["features"].to(torch.float32)
    return FeatureStatistics(facts["images"], tensors["mean"], tensors["cov"], features), facts
