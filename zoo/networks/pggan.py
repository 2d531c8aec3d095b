"""PGGAN's networks, which grow from 4x4.

T. Karras, T. Aila, S. Laine, J. Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and Variation,
2018, arXiv 1710.10196, appendix A.1. Two 3x3 convolutions for each size; leaky ReLUs, in G each followed by pixel norm;
D ends with the standard deviation of the minibatch. A layer that is new fades in: G's images are a mean of those of the
new layer and of the upsampled ones of the layer before, and so are the first maps of D.

Difference from the authors' code: nearest upsampling and the convolution after it are one transposed convolution
(``layers.py``), equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.equalized import GAIN, Conv2d, GrowingNetwork, Linear, leaky_relu, pixel_norm
from zoo.networks.layers import MinibatchStandardDeviation
from zoo.registry import NETWORKS

WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # from 4x4 to 1024x1024


class UpBlock(nn.Module):
    """Nearest upsampling, 3x3, 3x3; leaky ReLU and pixel norm after each."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = Conv2d(inputs, outputs, resample="up")
        self.conv2 = Conv2d(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, 2H, 2W]."""
        h = pixel_norm(leaky_relu(self.conv1(x)))
        return pixel_norm(leaky_relu(self.conv2(h)))


class DownBlock(nn.Module):
    """3x3, leaky ReLU, 3x3, leaky ReLU, 2x2 average pooling."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = Conv2d(inputs, inputs)
        self.conv2 = Conv2d(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H/2, W/2]."""
        h = leaky_relu(self.conv1(x))
        return F.avg_pool2d(leaky_relu(self.conv2(h)), 2)


@NETWORKS.register("pggan-generator")
class PGGANGenerator(GrowingNetwork):
    """z [N, latent] -> images [N, channels, side, side], which are not limited to [-1, 1].

    Raises ValueError unless there is a width for each power of two from 4 to ``resolution``.

    Args:
        channels, resolution: of the images, at the last level.
        latent: numbers of noise, which are divided by the root of their mean square.
        widths: channels at 4x4, 8x8, ...
    """

    def __init__(self, channels: int = 3, resolution: int = 1024, latent: int = 512, widths: Sequence[int] = WIDTHS):
        super().__init__(widths, resolution)
        self.latent = latent
        self.linear = Linear(latent, 16 * widths[0], gain=GAIN / 4, bias=None)
        self.bias = nn.Parameter(torch.zeros(widths[0], 1, 1))
        self.conv = Conv2d(widths[0], widths[0])
        self.blocks = nn.ModuleList(UpBlock(i, o) for i, o in pairwise(widths))
        self.to_rgb = nn.ModuleList(Conv2d(w, channels, 1, gain=1.0) for w in widths)

    def forward(self, z: Tensor) -> Tensor:
        h = self.linear(pixel_norm(z)).unflatten(1, (-1, 4, 4))  # [N, widths[0], 4, 4]
        h = pixel_norm(leaky_relu(h + self.bias.to(h.dtype)))
        h = before = pixel_norm(leaky_relu(self.conv(h)))
        for block in self.blocks[: self.level]:
            before, h = h, block(h)  # [N, width, side, side]
        x = self.to_rgb[self.level](h)
        if not self.level:
            return x
        return self.blend(F.interpolate(self.to_rgb[self.level - 1](before), scale_factor=2.0), x)


@NETWORKS.register("pggan-discriminator")
class PGGANDiscriminator(GrowingNetwork, Discriminator):
    """Images [N, channels, side, side] -> scores [N], which depend on the batch.

    Raises ValueError unless there is a width for each power of two from 4 to ``resolution``.

    Args:
        channels, resolution: of the images, at the last level.
        widths: channels at 4x4, 8x8, ...
        group: images that share a standard deviation, at most; None: the whole batch.
    """

    block: Callable[[int, int], nn.Module] = DownBlock

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 1024,
        widths: Sequence[int] = WIDTHS,
        group: int | None = None,
    ):
        super().__init__(widths, resolution)
        self.from_rgb = nn.ModuleList(Conv2d(channels, w, 1) for w in widths)
        self.blocks = nn.ModuleList(self.block(i, o) for o, i in pairwise(widths))
        self.deviation = MinibatchStandardDeviation(group, sync=True)
        self.conv = Conv2d(widths[0] + 1, widths[0])
        self.linear = Linear(16 * widths[0], widths[0])
        self.head = Linear(widths[0], 1, gain=1.0)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> [N, widths[0]]."""
        h = leaky_relu(self.from_rgb[self.level](x))  # [N, width, side, side]
        for i in range(self.level, 0, -1):
            h = self.blocks[i - 1](h)
            if i == self.level:
                h = self.blend(leaky_relu(self.from_rgb[i - 1](F.avg_pool2d(x, 2))), h)
        h = leaky_relu(self.conv(self.deviation(h)))
        return leaky_relu(self.linear(h.flatten(1)))
