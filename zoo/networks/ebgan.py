"""EBGAN's networks: discriminators that are autoencoders, and the fully connected G of its digits.

J. Zhao, M. Mathieu, Y. LeCun, Energy-based Generative Adversarial Network, 2016, arXiv 1609.03126 (appendices B to D).

Batch norm and ReLU follow every layer except G's last and D's first and last. The convolutional G is DCGAN's.

Differences from the paper:
- D's last layer has no batch norm. The paper's rule, which is DCGAN's, excepts G's output and D's input only; but D's
  output is a reconstruction, and batch norm would give that of a batch of fakes the mean and variance of the reals'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from zoo.networks.autoencoder import Autoencoder
from zoo.networks.init import initialize, normal
from zoo.registry import NETWORKS


@NETWORKS.register("ebgan-mlp-generator")
class EBGANMLPGenerator(nn.Module):
    """z [N, latent] -> x [N, channels, resolution, resolution] in (-1, 1); ``hidden``: units of each hidden layer."""

    def __init__(
        self, *, channels: int = 1, resolution: int = 28, latent: int = 100, hidden: Sequence[int] = (1600,) * 4
    ):
        super().__init__()
        self.latent, shape = latent, (channels, resolution, resolution)
        layers: list[nn.Module] = []
        for a, b in pairwise([latent, *hidden]):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], math.prod(shape)), nn.Tanh(), nn.Unflatten(1, shape))
        initialize(self, normal(0.02))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@NETWORKS.register("ebgan-mlp-discriminator")
class EBGANMLPDiscriminator(Autoencoder):
    """x [N, channels, resolution, resolution] -> its reconstruction. ``hidden``: units of the encoder's layers, the
    last of which is the code; the decoder is one layer (section 4.1)."""

    def __init__(self, *, channels: int = 1, resolution: int = 28, hidden: Sequence[int] = (1024,)):
        shape = (channels, resolution, resolution)
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(shape), hidden[0]), nn.ReLU(inplace=True)]
        for a, b in pairwise(hidden):
            layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
        decoder = nn.Sequential(nn.Linear(hidden[-1], math.prod(shape)), nn.Unflatten(1, shape))
        super().__init__(nn.Sequential(*layers), decoder)
        initialize(self, normal(0.002))


@NETWORKS.register("ebgan-discriminator")
class EBGANDiscriminator(Autoencoder):
    """x [N, channels, H, W] -> its reconstruction; H = W a multiple of 8.

    Three 4x4 convolutions of stride 2 to 1, 2 and 4 times ``width`` maps (the code), then three
    transposed convolutions.
    """

    def __init__(self, *, channels: int = 3, resolution: int = 64, width: int = 64):
        if resolution < 8 or resolution % 8:
            raise ValueError(f"resolution={resolution}: must be a multiple of 8 for EBGAN's discriminator")
        maps = [width, 2 * width, 4 * width]
        down: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU(inplace=True)]
        for a, b in pairwise(maps):
            down += [nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        up: list[nn.Module] = []
        for a, b in pairwise(reversed(maps)):
            up += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        super().__init__(nn.Sequential(*down), nn.Sequential(*up, nn.ConvTranspose2d(width, channels, 4, 2, 1)))
        initialize(self, normal(0.002))
