"""Derived fields of a stage's streams: their types in a dry run, and their values in a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.data import Facts, ImageData
from zoo.data.derived import DerivedData, check_vectors, derive
from zoo.data.fields import Text
from zoo.pretrained import Frozen
from zoo.recipe import Pretrained, Stream, encode
from zoo.registry import nearest


def check_derived(stream: Stream, facts: Facts) -> None:
    """Raises ValueError if a derived field is computed from a field that the data set does not have, or has its
    name. ``facts``: of the stream's data set."""
    for name, derived in stream.derived.items():
        if derived.of not in facts.keys:
            near = nearest(derived.of, facts.keys)
            raise ValueError(
                f"derived '{name}' reads '{derived.of}', but '{facts.name}' has {', '.join(facts.keys)}{near}"
            )
        if derived.mean > 1 and not isinstance(facts.fields[derived.of], Text):
            raise ValueError(f"derived '{name}': mean={derived.mean} must be of captions, but '{derived.of}' are none")
        if name in facts.keys:
            raise ValueError(f"derived '{name}': '{facts.name}' has a field of this name; choose another")


def meta_vectors(name: str, stream: Stream, networks: Mapping[str, nn.Module], values: Any) -> Tensor:
    """A derived field of a batch on ``meta``, [n, K]. ``values``: of the field that it is computed from. Raises
    ValueError if the network does not take them, or gives no vectors."""
    derived = stream.derived[name]
    try:
        vectors = networks[derived.network](values)
    except (RuntimeError, TypeError) as error:
        message = str(error).splitlines()[0]
        raise ValueError(
            f"derived '{name}': pretrained.{derived.network} takes no '{derived.of}' ({message})"
        ) from error
    return torch.empty_like(check_vectors(name, vectors, len(values)), dtype=torch.float32, device="meta")


def with_derived(
    data: ImageData,
    stream: Stream,
    pretrained: Mapping[str, Pretrained],
    networks: Mapping[str, nn.Module],
    *,
    range: tuple[float, float],
    device: torch.device,
    progress: Callable[[int, int, str], None] | None = None,
) -> ImageData:
    """A stream's data with its derived fields. Of several processes rank 0 computes what is not in the store yet.
    ``networks``: the pretrained ones among them are on the device."""
    columns = {}
    for name, derived in stream.derived.items():
        network = networks[derived.network]
        assert isinstance(network, Frozen) and network.hash, derived.network
        spec = json.dumps([encode(pretrained[derived.network].network), network.hash], sort_keys=True)
        key = hashlib.sha256(spec.encode()).hexdigest()
        options: dict[str, Any] = {"range": range, "device": device, "progress": progress}
        if data.path is not None:
            with parallel.main_process_only() as works:
                if works:
                    derive(data, name, derived.of, network, key, **options)
        columns[name] = derive(data, name, derived.of, network, key, **options)
        columns[name].mean = derived.mean
    return DerivedData(data, columns) if columns else data
