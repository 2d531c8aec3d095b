"""BiGAN's networks: a generator, an encoder, and a discriminator of pairs (image, code).

J. Donahue, P. Krahenbuhl, T. Darrell, Adversarial Feature Learning, 2016, arXiv 1605.09782 (the authors' net.py,
train_mnist.sh and train_imagenet.sh).

D takes the code z as a linear map of it, added before a layer's batch norm; G takes z in the same way again in its
later layers. In convolutional layers the map has one output per channel. Only batch norm has biases. Weights start at
N(0, .02^2), the maps of z into k x k convolutional layers at N(0, (.02 k^2)^2), D's last layer at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.init import initialize, normal, zeros
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS

EPS, KERNEL, LEAK = 1e-8, 5, 0.2


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def leaky(h: Tensor) -> Tensor:
    return F.leaky_relu(h, LEAK)


def norm(units: int) -> nn.BatchNorm1d:
    """Batch norm without gain and bias."""
    return nn.BatchNorm1d(units, EPS, affine=False)


@NETWORKS.register("bigan-mlp-generator")
class BiGANMLPGenerator(nn.Module):
    """z [N, latent] -> x [N, channels, resolution, resolution] in (0, 1). Two hidden layers; the second
    takes z again."""

    def __init__(self, *, channels: int = 1, resolution: int = 28, latent: int = 50, hidden: int = 1024):
        super().__init__()
        self.latent, self.shape = latent, (channels, resolution, resolution)
        self.l1, self.l2, self.z2 = linear(latent, hidden), linear(hidden, hidden), linear(latent, hidden)
        self.l3 = linear(hidden, math.prod(self.shape))
        self.n1, self.n2 = norm(hidden), norm(hidden)
        initialize(self, normal(0.02))

    def forward(self, z: Tensor) -> Tensor:
        h = self.n1(self.l1(z)).relu()
        h = self.n2(self.l2(h) + self.z2(z)).relu()
        return self.l3(h).sigmoid().unflatten(1, self.shape)


@NETWORKS.register("bigan-mlp-encoder")
class BiGANMLPEncoder(nn.Module):
    """x [N, channels, resolution, resolution] -> z [N, latent] in (-1, 1)."""

    def __init__(self, *, channels: int = 1, resolution: int = 28, latent: int = 50, hidden: int = 1024):
        super().__init__()
        self.l1, self.l2 = linear(channels * resolution**2, hidden), linear(hidden, hidden)
        self.l3, self.n2 = linear(hidden, latent), norm(hidden)
        initialize(self, normal(0.02))

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, [N, hidden]: the space of the paper's nearest-neighbor test."""
        return leaky(self.n2(self.l2(leaky(self.l1(x.flatten(1))))))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.l3(self.features(x)).sigmoid() - 1


@NETWORKS.register("bigan-mlp-discriminator")
class BiGANMLPDiscriminator(nn.Module):
    """x [N, channels, resolution, resolution] and z [N, latent] -> logit [N]: high if x is real and z its code,
    low if z is noise and x its image."""

    def __init__(self, *, channels: int = 1, resolution: int = 28, latent: int = 50, hidden: int = 1024):
        super().__init__()
        self.l1, self.l2 = linear(channels * resolution**2, hidden), linear(hidden, hidden)
        self.z2 = linear(latent, hidden)
        self.l3, self.n2 = linear(hidden, 1), norm(hidden)
        initialize(self, normal(0.02))
        zeros()(self.l3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = leaky(self.l1(x.flatten(1)))
        return self.l3(leaky(self.n2(self.l2(h) + self.z2(z)))).squeeze(1)


def add_code(h: Tensor, code: Tensor) -> Tensor:
    """h [N, C, H, W] + code [N, C], the same at every position."""
    return h + code[:, :, None, None]


@NETWORKS.register("bigan-generator")
class BiGANGenerator(nn.Module):
    """z [N, latent] -> x [N, channels, H, W] in (-1, 1), H a multiple of 16.

    ``width``: maps before the last layer; each layer before it has twice as many. Batch norm treats each unit of the
    linear layer by itself. Every hidden convolution takes z again.
    """

    def __init__(self, *, channels: int = 3, resolution: int = 64, latent: int = 200, width: int = 64):
        super().__init__()
        side = smallest_side(resolution, 4, "bigan-generator")
        maps = [8 * width, 4 * width, 2 * width, width]
        self.latent, self.first = latent, (maps[0], side, side)
        units = math.prod(self.first)
        self.linear, self.norm = linear(latent, units), nn.BatchNorm1d(units, EPS)
        self.convs = nn.ModuleList(self.up(a, b) for a, b in pairwise(maps))
        self.codes = nn.ModuleList(linear(latent, m) for m in maps[1:])
        self.norms = nn.ModuleList(nn.BatchNorm2d(m, EPS) for m in maps[1:])
        self.output = self.up(width, channels)
        initialize(self, normal(0.02))
        initialize(self.codes, normal(0.02 * KERNEL**2))

    @staticmethod
    def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
        return nn.ConvTranspose2d(inputs, outputs, KERNEL, 2, KERNEL // 2, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        h = self.norm(self.linear(z)).relu().unflatten(1, self.first)
        for conv, code, norm in zip(self.convs, self.codes, self.norms, strict=True):
            h = norm(add_code(conv(h), code(z))).relu()
        return 2 * self.output(h).sigmoid() - 1


@NETWORKS.register("bigan-discriminator")
class BiGANDiscriminator(nn.Module):
    """x [N, channels, H, W], H a multiple of 16, and z [N, latent] -> logit [N].

    Four 5x5 convolutions of stride 2, of 1, 2, 4 and 8 times ``width`` maps; all but the first take z.
    """

    def __init__(self, *, channels: int = 3, resolution: int = 64, latent: int = 200, width: int = 64):
        super().__init__()
        side = smallest_side(resolution, 4, "bigan-discriminator")
        maps = [width, 2 * width, 4 * width, 8 * width]
        self.input = self.down(channels, width)
        self.convs = nn.ModuleList(self.down(a, b) for a, b in pairwise(maps))
        self.codes = nn.ModuleList(linear(latent, m) for m in maps[1:])
        self.norms = nn.ModuleList(nn.BatchNorm2d(m, EPS) for m in maps[1:])
        self.head = linear(maps[-1] * side * side, 1)
        initialize(self, normal(0.02))
        zeros()(self.head)
        initialize(self.codes, normal(0.02 * KERNEL**2))

    @staticmethod
    def down(inputs: int, outputs: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, KERNEL, 2, KERNEL // 2, bias=False)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = leaky(self.input(x))
        for conv, code, norm in zip(self.convs, self.codes, self.norms, strict=True):
            h = leaky(norm(add_code(conv(h), code(z))))
        return self.head(h.flatten(1)).squeeze(1)


@NETWORKS.register("bigan-encoder")
class BiGANEncoder(nn.Module):
    """x [N, channels, H, W], H a multiple of 16 -> z [N, latent] in (-1, 1).

    AlexNet's five convolutions (11x11 of stride 4, 5x5, three 3x3; the second, fourth and fifth in two groups) with
    max pooling after the first and the second, and batch norm after all but the first. ``widths``: their maps.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        latent: int = 200,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
    ):
        super().__init__()
        side = smallest_side(resolution, 4, "bigan-encoder")
        kernels, groups = (11, 5, 3, 3, 3), (1, 2, 1, 2, 2)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, k, 1 if i else 4, k // 2, groups=g, bias=False)
            for i, ((a, b), k, g) in enumerate(zip(pairwise([channels, *widths]), kernels, groups, strict=True))
        )
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(m, EPS) for m in widths[1:])])
        self.head = linear(widths[-1] * side * side, latent)
        initialize(self, normal(0.02))

    def features(self, x: Tensor) -> Tensor:
        """The last convolution's output, flat: [N, maps * (H / 16)^2]."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = leaky(norm(conv(x)))
            if i < 2:
                x = F.max_pool2d(x, 3, 2, 1)
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.head(self.features(x)).sigmoid() - 1


@NETWORKS.register("bigan-small-encoder")
class BiGANSmallEncoder(nn.Module):
    """x [N, channels, H, W], H a multiple of 16 -> z [N, latent] in (-1, 1): the discriminator's convolutions without
    codes.

    It is not the authors': AlexNet's first layers reduce a 32x32 image too much.
    """

    def __init__(self, *, channels: int = 3, resolution: int = 32, latent: int = 100, width: int = 32):
        super().__init__()
        side = smallest_side(resolution, 4, "bigan-small-encoder")
        maps = [width, 2 * width, 4 * width, 8 * width]
        self.convs = nn.ModuleList(BiGANDiscriminator.down(a, b) for a, b in pairwise([channels, *maps]))
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(m, EPS) for m in maps[1:])])
        self.head = linear(maps[-1] * side * side, latent)
        initialize(self, normal(0.02))

    def features(self, x: Tensor) -> Tensor:
        """The last convolution's output, flat: [N, 8 * width * (H / 16)^2]."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = leaky(norm(conv(x)))
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.head(self.features(x)).sigmoid() - 1
