"""VAE/GAN's networks: encoder, decoder (the generator) and a discriminator, one of whose layers compares images.

A. Larsen, S. Sonderby, H. Larochelle, O. Winther, Autoencoding beyond pixels using a learned similarity metric, 2015,
arXiv 1512.09300 (the authors' code, architectures.py).

5x5 convolutions of stride 2 without biases, batch norm, ReLU. Weights start at U(-s, s), s = 1/sqrt(3 fan), with the
fan of the inputs, but of the outputs for transposed convolutions: the authors' library (deeppy) counts all but the
weights' first dimension. Biases start at 0, gains at 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import initialize, uniform_fan
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS

EPS = 1e-6  # of batch norm after convolutions
DENSE_EPS = 1e-5  # of batch norm after linear layers: the library's default


def down(inputs: int, outputs: int) -> list[nn.Module]:
    """Halves height and width."""
    return [nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False), nn.BatchNorm2d(outputs, EPS), nn.ReLU(inplace=True)]


def up(inputs: int, outputs: int) -> list[nn.Module]:
    """Doubles height and width."""
    conv = nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1, bias=False)
    return [conv, nn.BatchNorm2d(outputs, EPS), nn.ReLU(inplace=True)]


def dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, DENSE_EPS), nn.ReLU(inplace=True)]


@NETWORKS.register("vaegan-encoder")
class VAEGANEncoder(nn.Module):
    """x [N, channels, H, W] -> mean and log variance of its code, each [N, latent].

    ``widths``: maps of the convolutions, each of which halves the resolution. ``hidden``: units of the linear layer.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        latent: int = 128,
        widths: Sequence[int] = (64, 128, 256),
        hidden: int = 1024,
    ):
        super().__init__()
        side = smallest_side(resolution, len(widths), "vaegan-encoder")
        convs = [layer for a, b in pairwise([channels, *widths]) for layer in down(a, b)]
        self.layers = nn.Sequential(*convs, nn.Flatten(), *dense(widths[-1] * side * side, hidden))
        self.mean, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        initialize(self, uniform_fan())

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, [N, hidden]."""
        return self.layers(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.mean(h), self.logvar(h)


@NETWORKS.register("vaegan-decoder")
class VAEGANDecoder(nn.Module):
    """z [N, latent] -> x [N, channels, H, W] in (-1, 1).

    ``widths``: maps of the linear layer, whose units batch norm treats one by one, and of the transposed convolutions,
    each of which doubles the resolution.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        latent: int = 128,
        widths: Sequence[int] = (256, 256, 128, 32),
    ):
        super().__init__()
        self.latent = latent
        side = smallest_side(resolution, len(widths) - 1, "vaegan-decoder")
        first = (widths[0], side, side)
        convs = [layer for a, b in pairwise(widths) for layer in up(a, b)]
        output = nn.Conv2d(widths[-1], channels, 5, padding=2)
        self.layers = nn.Sequential(*dense(latent, math.prod(first)), nn.Unflatten(1, first), *convs, output, nn.Tanh())
        initialize(self, uniform_fan())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@NETWORKS.register("vaegan-discriminator")
class VAEGANDiscriminator(Discriminator):
    """x [N, channels, H, W] -> logit [N].

    Args:
        channels, resolution: of the images.
        widths: maps of a first convolution of stride 1, with a bias and without norm, and of those of stride 2.
        hidden: units of the linear layer.
        depth: which convolution of stride 2 compares images (:meth:`similarity`), from 1.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        widths: Sequence[int] = (32, 128, 256, 256),
        hidden: int = 512,
        depth: int = 3,
    ):
        super().__init__()
        halvings = len(widths) - 1
        if not 1 <= depth <= halvings:
            raise ValueError(f"depth={depth}: must be from 1 to {halvings}, the number of convolutions of stride 2")
        side = smallest_side(resolution, halvings, "vaegan-discriminator")
        convs = [layer for a, b in pairwise(widths) for layer in down(a, b)]
        self.convs = nn.Sequential(nn.Conv2d(channels, widths[0], 5, padding=2), nn.ReLU(inplace=True), *convs)
        self.similarity_layers = 2 + 3 * (depth - 1) + 1  # up to and including the convolution, before its norm
        self.dense = nn.Sequential(nn.Flatten(), *dense(widths[-1] * side * side, hidden))
        self.head = nn.Linear(hidden, 1)
        initialize(self, uniform_fan())

    def similarity(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The layer that compares images: a convolution's output before norm and ReLU, [N, maps, h, w]."""
        return self.convs[: self.similarity_layers](x)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, hidden]."""
        return self.dense(self.convs(x))
