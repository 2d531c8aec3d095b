"""A small residual classifier for images of 28 to 64 pixels: the feature network behind a feature network (``zoo/metrics/feature networks``).

Its shape follows Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv 2404.00498: a 2x2 stem that is set
to whiten patches and does not learn (``benchmarks/features.py`` sets it), then stages of a convolution, max-pooling, batch norm
and a second convolution. Where we differ: ReLU in place of GELU, the second convolution is residual, the last map is
averaged and not maximized (as in Inception-v3, whose features these stand in for), and there can be several heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.registry import NETWORKS


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, the image keeps its size; no bias, since a batch norm follows."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Stage(nn.Module):
    """3x3 convolution, 2x2 max-pooling, norm, ReLU; then 3x3 convolution, norm and ReLU added to their input."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H // 2, W // 2]."""
        h = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return h + F.relu(self.norm2(self.conv2(h)))


@NETWORKS.register("classifier")
class Classifier(nn.Module):
    """Images [N, channels, H, W] in [-1, 1] -> logits [N, K] a head.

    ``heads``: the name of each question and its number of answers. ``stem``: channels after the first convolution.
    ``widths``: channels after each stage, which halves the image. ``resolution``: the side that it is trained for.
    """

    def __init__(self, channels: int = 3, resolution: int = 32, heads: Mapping[str, int] | None = None, stem: int = 24,
                 widths: Sequence[int] = (32, 128, 128)):  # fmt: skip
        super().__init__()
        if (resolution - 1) >> len(widths) < 1:
            raise ValueError(f"classifier: resolution {resolution} is too small to be halved {len(widths)} times")
        self.channels, self.resolution, self.dim = channels, resolution, widths[-1]
        self.stem = nn.Conv2d(channels, stem, 2)
        self.stages = nn.Sequential(*(Stage(i, o) for i, o in itertools.pairwise((stem, *widths))))
        self.heads = nn.ModuleDict({name: nn.Linear(self.dim, count) for name, count in (heads or {"y": 10}).items()})

    def features(self, x: Tensor) -> Tensor:
        """x -> [N, widths[-1]], at least 0: the last map averaged over its positions."""
        return self.stages(F.relu(self.stem(x))).mean((2, 3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {name: head(features) for name, head in self.heads.items()}
