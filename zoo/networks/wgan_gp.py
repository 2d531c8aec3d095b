"""The 5x5 networks of WGAN-GP for MNIST and CIFAR-10.

Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved Training of Wasserstein GANs", 2017, arXiv 1704.00028;
shapes, initialization and 'SAME' padding as in the authors' scripts gan_mnist.py and gan_cifar.py.

Differences from the paper:
- Any resolution from 8 is possible, by the scripts' own rule (halve and round up).
- Batch norm keeps running averages for sampling.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import uniform
from zoo.networks.layers import Linear, ProjectionHead
from zoo.registry import NETWORKS


def _sides(resolution: int) -> list[int]:
    """The sides of the four maps, smallest first: each is half of the next, rounded up. For 28: 4, 7, 14, 28."""
    if resolution < 8:
        raise ValueError(f"resolution={resolution}: must be 8 or more for WGAN-GP's 5x5 networks")
    sides = [resolution]
    while len(sides) < 4:
        sides.insert(0, (sides[0] + 1) // 2)
    return sides


def _bound(fan_in: float, fan_out: float) -> float:
    """The bound of uniform weights of standard deviation sqrt(4 / (fan_in + fan_out))."""
    return math.sqrt(3.0) * math.sqrt(4.0 / (fan_in + fan_out))


class ConvTranspose(nn.ConvTranspose2d):
    """5x5, stride 2, 'SAME': the full output without its first row and column, cropped to ``side`` x ``side``."""

    def __init__(self, inputs: int, outputs: int, side: int):
        super().__init__(inputs, outputs, 5, stride=2, padding=1)
        self.side = side
        uniform(_bound(inputs * 25 / 4, outputs * 25))(self)  # an output depends on a quarter of the kernel's taps

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x, output_size)[..., : self.side, : self.side]


class Conv(nn.Conv2d):
    """5x5, stride 2, 'SAME': n -> n / 2 rounded up; an odd row or column of padding is at the bottom or right."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 5, stride=2)
        uniform(_bound(inputs * 25, outputs * 25 / 4))(self)

    def forward(self, x: Tensor) -> Tensor:
        before = 2 if x.shape[-1] % 2 else 1  # padding of 3 in total for an even side, 4 for an odd one
        return super().forward(F.pad(x, (before, 2, before, 2)))


@NETWORKS.register("wgan-gp-generator")
class WGANGPGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution], in [0, 1] (``output="sigmoid"``) or [-1, 1]
    ("tanh").

    A linear layer, then three 5x5 transposed convolutions of 2 and 1 times ``width`` and ``channels``. ``norm``: batch
    norm after the linear layer (of each of its outputs by itself) and the first two convolutions, as for CIFAR-10.
    """

    classes = 0

    def __init__(
        self,
        channels: int = 1,
        resolution: int = 28,
        latent: int = 128,
        width: int = 64,
        norm: bool = False,
        output: str = "sigmoid",
    ):
        super().__init__()
        if output not in ("sigmoid", "tanh"):
            raise ValueError(f"output={output!r}: must be 'sigmoid' or 'tanh'")
        s0, s1, s2, s3 = _sides(resolution)
        self.latent, self.output, self.first = latent, output, (4 * width, s0, s0)
        self.linear = Linear(latent, 4 * width * s0 * s0)
        self.norm0 = nn.BatchNorm1d(4 * width * s0 * s0) if norm else nn.Identity()
        self.conv1 = ConvTranspose(4 * width, 2 * width, s1)
        self.norm1 = nn.BatchNorm2d(2 * width) if norm else nn.Identity()
        self.conv2 = ConvTranspose(2 * width, width, s2)
        self.norm2 = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.conv3 = ConvTranspose(width, channels, s3)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm0(self.linear(z))).unflatten(1, self.first)  # [N, 4 width, 4, 4]
        h = F.relu(self.norm1(self.conv1(h)))
        h = F.relu(self.norm2(self.conv2(h)))
        x = self.conv3(h)
        return x.sigmoid() if self.output == "sigmoid" else x.tanh()


@NETWORKS.register("wgan-gp-discriminator")
class WGANGPDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] -> scores [N]: 5x5 convolutions of 1, 2 and 4 times ``width``, leaky
    ReLU of slope 0.2, no norm, a linear layer."""

    def __init__(self, channels: int = 1, resolution: int = 28, width: int = 64):
        super().__init__()
        side = _sides(resolution)[0]
        self.convs = nn.ModuleList([Conv(channels, width), Conv(width, 2 * width), Conv(2 * width, 4 * width)])
        self.head = ProjectionHead(4 * width * side * side)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, 4 * width * 4 * 4 (at 28 or 32)], the last map, flat."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return x.flatten(1)
