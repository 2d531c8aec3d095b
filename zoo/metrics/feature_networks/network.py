"""A feature network: a trained classifier, and how images of any size, gray or in color, are resized for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.files import beside, tensor_hash
from zoo.metrics.feature_networks.files import KEY, read_header
from zoo.networks.classifier import Classifier
from zoo.registry import NETWORKS, Spec

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


class FeatureNetwork(nn.Module):
    """A feature network in eval mode, without gradients.

    ``name``; ``hash``: the first 16 hexadecimal digits of the SHA-256 of its tensors; ``channels``, ``resolution``: of
    the network's own inputs; ``dim``: features an image; ``facts``: from the file's header, of which ``fit`` decides
    what the method ``fit`` does."""

    def __init__(self, network: Classifier, name: str, facts: Mapping[str, Any], hash: str = ""):
        super().__init__()
        self.network, self.name, self.facts, self.hash = network, name, dict(facts), hash
        self.channels, self.resolution, self.dim = network.channels, network.resolution, network.dim
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stays in eval mode: batch statistics must not depend on the images that are scored."""
        super().train(False)
        return self

    def fit(self, x: Tensor) -> Tensor:
        """x [N, 1 or 3, H, W], floating, in [0, 1] -> [N, channels, resolution, resolution] in [-1, 1].

        Colors become gray by Rec. 601's luma, gray becomes three equal channels. Images of another size are resized
        (bilinear, antialiased); if the facts have fit="pad", smaller ones are put in the middle of a black image
        instead, so that models of 28x28 digits and of digits padded to 32x32 have the same scores.

        Raises ValueError for another shape or type.
        """
        if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
            raise ValueError(
                f"feature network '{self.name}': images must be floating-point [N, 1 or 3, H, W] in [0, 1], "
                f"got {str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
            )
        x = x.float()
        if x.shape[1] > self.channels:
            x = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        side, (height, width) = self.resolution, x.shape[2:]
        if self.facts["fit"] == "pad" and height <= side and width <= side:
            top, left = (side - height) // 2, (side - width) // 2
            x = F.pad(x, (left, side - width - left, top, side - height - top))
        elif (height, width) != (side, side):
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        x = x.expand(-1, self.channels, -1, -1).mul(2).sub(1)  # [N, channels, resolution, resolution]
        return x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Images as for ``fit`` -> float32 [N, dim]."""
        return self.network.features(self.fit(x))

    @torch.no_grad()
    def logits(self, x: Tensor) -> dict[str, Tensor]:
        """Images as for ``fit`` -> a float32 [N, K] a head."""
        return self.network(self.fit(x))

    forward = features


def write(path: str | Path, network: nn.Module, spec: Spec, facts: Mapping[str, Any]) -> None:
    """One file: floating-point tensors in half precision, network and facts in the header. Atomic."""
    from safetensors.torch import save

    tensors = {}
    for key, value in network.state_dict().items():
        value = value.detach().cpu()
        value = value.half() if value.is_floating_point() else value
        tensors[key] = value.clone(memory_format=torch.contiguous_format)
    header = json.dumps({"network": {"name": spec.name, "kwargs": spec.kwargs}, "facts": facts})
    with beside(path) as partial:
        partial.write_bytes(save(tensors, metadata={KEY: header}))


def read(path: str | Path) -> FeatureNetwork:
    """The feature network in a file, named after it. Raises ValueError if the file is damaged."""
    from safetensors.torch import load_file

    path = Path(path)
    entry = read_header(path)
    network = NETWORKS.build(Spec(entry["network"]["name"], **entry["network"]["kwargs"]))
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"feature network '{path}': {' '.join(str(error).split())[:300]}") from None
    return FeatureNetwork(network, path.stem, entry["facts"], tensor_hash(path)[:16])
