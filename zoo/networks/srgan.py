"""SRGAN's networks: SRResNet, which upscales, and the discriminator.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", 2017, arXiv
1609.04802, section 2.1 and figure 4. The output has no activation, as in the figure. The paper does not state the
initialization; ours is truncated N(0, 0.02^2) with gains N(1, 0.02^2), as in TensorLayer's implementation.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import initialize, normal, truncated_normal
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS


class ResidualBlock(nn.Module):
    """x + norm(conv(prelu(norm(conv(x))))), without an activation after the sum."""

    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@NETWORKS.register("srresnet")
class SRResNet(nn.Module):
    """Images [N, channels, H, W] in [0, 1] -> images [N, channels, factor H, factor W] around [-1, 1], of any H and W.

    A 9x9 convolution, ``blocks`` residual blocks, a 3x3 convolution with batch norm and the sum with what entered the
    blocks; for each doubling a 3x3 convolution to four times the maps, a pixel shuffle and a PReLU with one slope; a
    9x9 convolution.

    Args:
        channels: of the images.
        width: maps of all layers.
        blocks: the number of residual blocks.
        factor: of height and width, a power of 2.
    """

    def __init__(self, channels: int = 3, width: int = 64, blocks: int = 16, factor: int = 4):
        super().__init__()
        if factor < 2 or factor & (factor - 1):
            raise ValueError(f"factor={factor}: must be a power of 2 from 2 on")
        self.factor = factor
        self.first = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )
        layers: list[nn.Module] = []
        for _ in range(factor.bit_length() - 1):
            layers += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
        self.last = nn.Sequential(*layers, nn.Conv2d(width, channels, 9, padding=4))
        initialize(self, truncated_normal(0.02), norms=normal(0.02, mean=1.0))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h + self.blocks(h))


@NETWORKS.register("srgan-discriminator")
class SRGANDiscriminator(Discriminator):
    """Images [N, channels, R, R] -> scores [N].

    Eight 3x3 convolutions of stride 1 and 2 in turn with ``width`` times 1, 1, 2, 2, 4, 4, 8, 8 maps, all but the first
    with batch norm, leaky ReLU of slope 0.2, then 16 ``width`` hidden units.
    """

    def __init__(self, channels: int = 3, resolution: int = 96, width: int = 64):
        super().__init__()
        side = smallest_side(resolution, 4, "srgan-discriminator")
        layers: list[nn.Module] = []
        inputs = channels
        for i in range(8):
            maps = width * 2 ** (i // 2)
            layers.append(nn.Conv2d(inputs, maps, 3, stride=1 + i % 2, padding=1))
            layers += [nn.BatchNorm2d(maps)] if i else []
            layers.append(nn.LeakyReLU(0.2))
            inputs = maps
        hidden = nn.Linear(inputs * side**2, 16 * width)
        self.layers = nn.Sequential(*layers, nn.Flatten(), hidden, nn.LeakyReLU(0.2))
        self.head = nn.Linear(16 * width, 1)
        initialize(self, truncated_normal(0.02), norms=normal(0.02, mean=1.0))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, 16 width]."""
        return self.layers(x)
