"""VAE/GAN's networks: encoder, decoder (which is the generator) and a discriminator with a layer in which images are
compared.

A. Larsen, S. Sonderby, H. Larochelle, O. Winther, Autoencoding beyond pixels using a learned similarity metric, 2015,
arXiv 1512.09300 (the authors' code, architectures.py).

5x5 convolutions of stride 2 without biases, batch norm, ReLU. Weights U(-s, s), s = 1/sqrt(3 fan), with the fan of the
inputs, but of the outputs for transposed convolutions: the authors' library (deeppy) counts all but the weights' first
dimension. Biases start at 0, gains at 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from zoo.networks.layers import doublings
from zoo.registry import NETWORKS

EPS = 1e-6  # of the norms after convolutions
DENSE_EPS = 1e-5  # of those after linear layers: the library's default


def initialize(net: nn.Module) -> None:
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            scale = 1 / math.sqrt(3 * math.prod(m.weight.shape[1:]))
            nn.init.uniform_(m.weight, -scale, scale)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def down(inputs: int, outputs: int) -> list[nn.Module]:
    """Half the size."""
    return [nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False), nn.BatchNorm2d(outputs, EPS), nn.ReLU(inplace=True)]


def up(inputs: int, outputs: int) -> list[nn.Module]:
    """Twice the size."""
    conv = nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1, bias=False)
    return [conv, nn.BatchNorm2d(outputs, EPS), nn.ReLU(inplace=True)]


def dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, DENSE_EPS), nn.ReLU(inplace=True)]


@NETWORKS.register("vaegan-encoder")
class VaeganEncoder(nn.Module):
    """x [N, channels, H, W] -> mean and logarithm of the variance of its code, each [N, latent].

    ``widths``: maps of the convolutions, each of which halves the image. ``hidden``: units of the linear layer.
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
        side = doublings(resolution, len(widths), "vaegan-encoder")
        convs = [layer for a, b in pairwise([channels, *widths]) for layer in down(a, b)]
        self.layers = nn.Sequential(*convs, nn.Flatten(), *dense(widths[-1] * side * side, hidden))
        self.mean, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        initialize(self)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, [N, hidden]."""
        return self.layers(x)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.mean(h), self.logvar(h)


@NETWORKS.register("vaegan-decoder")
class VaeganDecoder(nn.Module):
    """z [N, latent] -> x [N, channels, H, W] in (-1, 1).

    ``widths``: maps of the linear layer, whose units are normalized one by one, and of the transposed convolutions, each of
    which doubles the image.
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
        side = doublings(resolution, len(widths) - 1, "vaegan-decoder")
        first = (widths[0], side, side)
        convs = [layer for a, b in pairwise(widths) for layer in up(a, b)]
        output = nn.Conv2d(widths[-1], channels, 5, padding=2)
        self.layers = nn.Sequential(*dense(latent, math.prod(first)), nn.Unflatten(1, first), *convs, output, nn.Tanh())
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@NETWORKS.register("vaegan-discriminator")
class VaeganDiscriminator(nn.Module):
    """x [N, channels, H, W] -> logit [N].

    ``widths``: maps of a first convolution that keeps the size, with a bias and without norm, and of those that halve it.
    ``hidden``: units of the linear layer. ``depth``: which of the halving convolutions is :meth:`similarity`, from 1.
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
            raise ValueError(f"depth={depth}: must be from 1 to {halvings}, the number of halving convolutions")
        side = doublings(resolution, halvings, "vaegan-discriminator")
        convs = [layer for a, b in pairwise(widths) for layer in down(a, b)]
        self.convs = nn.Sequential(nn.Conv2d(channels, widths[0], 5, padding=2), nn.ReLU(inplace=True), *convs)
        self.compared = 2 + 3 * (depth - 1) + 1  # layers up to and with the convolution, before its norm
        self.dense = nn.Sequential(nn.Flatten(), *dense(widths[-1] * side * side, hidden))
        self.head = nn.Linear(hidden, 1)
        initialize(self)

    def similarity(self, x: Tensor) -> Tensor:
        """The layer in which images are compared: a convolution's output before norm and ReLU, [N, maps, h, w]."""
        return self.convs[: self.compared](x)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, [N, hidden]."""
        return self.dense(self.convs(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)
