"""AC-GAN's networks: a class-conditional G; D has two heads, for real or fake and for the class of an image.

A. Odena, C. Olah, J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, 2016, arXiv 1610.09585,
appendix A. Weights start at N(0, 0.02^2), biases at 0.

Differences from the paper:
- The paper's tables do not state the size of G's first maps. Ours reach the image in steps of two: 4x4 for 32x32
  and 8x8 for 128x128.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import initialize, normal
from zoo.networks.layers import require_classes, smallest_side
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


@NETWORKS.register("acgan-generator")
class ACGANGenerator(nn.Module):
    """z [N, latent], y [N] (int64) -> x [N, channels, resolution, resolution] in (-1, 1).

    A linear layer maps z and the one-hot class to ``widths[0]`` maps; 5x5 transposed convolutions of stride 2 follow,
    to the other widths with batch norm, then to the image.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 10,
        latent: int = 100,
        widths: Sequence[int] = (384, 192, 96),
    ):
        super().__init__()
        side = smallest_side(resolution, len(widths), "acgan-generator")
        self.classes, self.latent, self.first = classes, latent, (widths[0], side, side)
        self.linear = nn.Linear(latent + classes, widths[0] * side * side)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [_up(a, b), nn.BatchNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _up(widths[-1], channels), nn.Tanh())
        initialize(self, normal(0.02))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        y = one_hot(require_classes(y), self.classes, z.dtype)
        h = self.linear(torch.cat([z, y], 1)).relu().unflatten(1, self.first)  # [N, widths[0], side, side]
        return self.layers(h)  # [N, channels, resolution, resolution]


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """5x5; doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1)


@NETWORKS.register("acgan-discriminator")
class ACGANDiscriminator(Discriminator):
    """x [N, channels, resolution, resolution] -> logit [N] for real or fake. It takes no class: a head on its
    ``features`` predicts the class.

    Six 3x3 convolutions of 1, 2, 4, ... 32 times ``width`` maps and stride 2, 1, 2, 1, 2, 1, with batch norm after all
    but the first and leaky ReLU of slope 0.2. ``drop``: the dropout rate after each.
    """

    def __init__(self, channels: int = 3, resolution: int = 32, width: int = 16, drop: float = 0.5):
        super().__init__()
        side = smallest_side(resolution, 3, "acgan-discriminator")
        layers: list[nn.Module] = []
        inputs = channels
        for k in range(6):
            maps = width << k
            layers += [nn.Conv2d(inputs, maps, 3, 2 - k % 2, 1), *[nn.BatchNorm2d(maps)] * (k > 0)]
            layers += [nn.LeakyReLU(0.2), nn.Dropout(drop)]
            inputs = maps
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * side * side, 1)
        initialize(self, normal(0.02))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last maps, flat: [N, 32 * width * (resolution / 8)^2]."""
        return self.layers(x).flatten(1)


@NETWORKS.register("class-head")
class ClassHead(nn.Module):
    """D's features [N, features] -> logits of the classes [N, classes]: a linear layer. The engine fills in
    ``features`` from D."""

    def __init__(self, features: int, classes: int = 10):
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(features, classes)
        initialize(self, normal(0.02))

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h.flatten(1))
