"""AC-GAN's networks: G is told the class, D has a trunk from which two heads say whether an image is real and which class it shows.

A. Odena, C. Olah, J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, 2016, arXiv 1610.09585, appendix A. Weights
start at N(0, 0.02^2), biases at 0. The paper's tables do not say at which size G's maps begin: we take what reaches the image
in steps of two, 4x4 for 32x32 and 8x8 for 128x128.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.networks.layers import conditioned, doublings
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


def _start(network: nn.Module) -> None:
    for m in network.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            nn.init.zeros_(m.bias)


@NETWORKS.register("acgan-generator")
class AcganGenerator(nn.Module):
    """z [N, latent], y [N] (int64) -> x [N, channels, resolution, resolution] in (-1, 1).

    z and the one-hot class through a linear layer to ``widths[0]`` maps, then 5x5 transposed convolutions of stride 2 to the other
    widths, with batch norm, and to the image.
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
        side = doublings(resolution, len(widths), "acgan-generator")
        self.classes, self.latent, self.first = classes, latent, (widths[0], side, side)
        self.linear = nn.Linear(latent + classes, widths[0] * side * side)
        layers = []
        for a, b in pairwise(widths):
            layers += [_up(a, b), nn.BatchNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _up(widths[-1], channels), nn.Tanh())
        _start(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        told = one_hot(conditioned(y), self.classes, z.dtype)
        return self.layers(self.linear(torch.cat([z, told], 1)).relu().unflatten(1, self.first))


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """5x5, twice the size."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1)


@NETWORKS.register("acgan-discriminator")
class AcganDiscriminator(nn.Module):
    """x [N, channels, resolution, resolution] -> logit [N]: real or not. It is not told the class; a head on its ``features`` names it.

    Six 3x3 convolutions of 1, 2, 4, ... 32 times ``width`` maps and stride 2, 1, 2, 1, 2, 1, batch norm after all but the first,
    leaky ReLU of slope 0.2; after each ``drop`` of the values are dropped.
    """

    classes = 0

    def __init__(self, channels: int = 3, resolution: int = 32, width: int = 16, drop: float = 0.5):
        super().__init__()
        side = doublings(resolution, 3, "acgan-discriminator")
        layers, inputs = [], channels
        for k in range(6):
            maps = width << k
            layers += [nn.Conv2d(inputs, maps, 3, 2 - k % 2, 1), *[nn.BatchNorm2d(maps)] * (k > 0)]
            layers += [nn.LeakyReLU(0.2), nn.Dropout(drop)]
            inputs = maps
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs * side * side, 1)
        _start(self)

    def features(self, x: Tensor) -> Tensor:
        """The trunk's last maps, flat: [N, 32 * width * (resolution / 8)^2]."""
        return self.layers(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


@NETWORKS.register("class-head")
class ClassHead(nn.Module):
    """D's features [N, features] -> logits of the classes [N, classes]: a linear layer. ``features`` is filled in from D."""

    def __init__(self, features: int, classes: int = 10):
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(features, classes)
        _start(self)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h.flatten(1))
