"""pix2pix's U-Net. Its discriminator is the patch discriminator of :mod:`zoo.networks.cyclegan`, on pairs.

Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", 2017, arXiv 1611.07004,
appendix 6.1 and the authors' code.

Difference from the authors' Torch code: there every convolution has a bias, which is set to 0 before every update; ours
have none, as in their PyTorch code, except for the last (``biases=True`` adds them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.networks.init import initialize, normal
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS

if TYPE_CHECKING:
    from zoo.game import Noise


@NETWORKS.register("unet")
class UNet(nn.Module):
    """Images [N, channels, R, R] -> images of the same size in [-1, 1].

    Down: 4x4 convolutions of stride 2 with ``width`` times 1, 2, 4, 8, 8, ... maps, all but the first after a leaky
    ReLU of slope 0.2, all but the first and the last with batch norm. Up: as many 4x4 transposed convolutions after a
    ReLU, all but the last with batch norm; they read the maps of the level below and the encoder's of the same size.
    Dropout of one half after the first ``dropout`` of them is the only noise.

    Args:
        channels, resolution: of the images.
        width: maps of the first layer.
        levels: how often height and width are halved; None: down to 1x1.
        dropout: levels with dropout.
        skips: False: the encoder-decoder without skip connections that the paper compares with.
        biases: of all convolutions; without them the last one alone has biases.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 256,
        width: int = 64,
        levels: int | None = None,
        dropout: int = 3,
        skips: bool = True,
        biases: bool = False,
    ):
        super().__init__()
        levels = resolution.bit_length() - 1 if levels is None else levels
        if levels < 2:
            raise ValueError(f"levels={levels}: must be 2 or more")
        if not 0 <= dropout < levels:
            raise ValueError(f"dropout={dropout}: must be a number of levels from 0 to {levels - 1}")
        smallest_side(resolution, levels, f"unet with {levels} levels")
        self.resolution, self.skips = resolution, skips
        maps = [width * min(2**i, 8) for i in range(levels)]
        down, up = [], []
        for i, outputs in enumerate(maps):
            norm = 0 < i < levels - 1
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if i else []
            layers.append(nn.Conv2d(maps[i - 1] if i else channels, outputs, 4, 2, 1, bias=biases))
            down.append(nn.Sequential(*layers, *([nn.BatchNorm2d(outputs)] if norm else [])))
        for i in reversed(range(levels)):
            inputs = maps[i] * (2 if skips and i < levels - 1 else 1)
            outputs = maps[i - 1] if i else channels
            layers = [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=biases or not i)]
            up.append(nn.Sequential(*layers, nn.BatchNorm2d(outputs) if i else nn.Tanh()))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.dropout = nn.ModuleList(nn.Dropout(0.5) for _ in range(dropout))
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def forward(self, a: Tensor, noise: Noise | None = None) -> Tensor:
        """a [N, channels, R, R] -> [N, channels, R, R]. ``noise``: gives the masks of dropout; without it the dropout
        layers draw them."""
        features = []  # [N, maps, R / 2, R / 2], ..., [N, maps, 1, 1]
        for layer in self.down:
            a = layer(a)
            features.append(a)
        h = features.pop()
        for i, layer in enumerate(self.up):
            if i and self.skips:
                h = torch.cat([features.pop(), h], 1)
            h = layer(h)
            if i < len(self.dropout):
                h = self.dropout[i](h) if noise is None else drop(h, noise)
        return h


def drop(h: Tensor, noise: Noise) -> Tensor:
    """Half of the values, doubled; the others 0."""
    return 2 * h * (noise.rand(*h.shape[1:]) >= 0.5)
