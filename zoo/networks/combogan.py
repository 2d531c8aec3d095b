"""ComboGAN's networks: an encoder and a decoder for each domain, and a discriminator with two towers.

A. Anoosheh, E. Agustsson, R. Timofte, L. Van Gool, ComboGAN: Unrestrained Scalability for Image Domain Translation,
2017, arXiv 1712.06909, as in the authors' code: CycleGAN's generator cut in two, PReLU with one slope a layer, instance
norm without gains, weights N(0, 0.02^2).

Left out: blocks that all domains share, which the code has and does not use by default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.cyclegan import Reflect
from zoo.networks.init import initialize, normal
from zoo.networks.layers import InstanceNorm2d, smallest_side
from zoo.registry import NETWORKS


def normalized(maps: int) -> list[nn.Module]:
    """Instance norm and PReLU."""
    return [InstanceNorm2d(maps), nn.PReLU()]


class Residual(nn.Module):
    """x + norm(conv(prelu(norm(conv(x))))): 3x3 convolutions with reflection padding."""

    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(
            Reflect(1), nn.Conv2d(width, width, 3), *normalized(width),
            Reflect(1), nn.Conv2d(width, width, 3), InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Autoencoder(nn.Module):
    """The encoder and the decoder of one domain.

    ``encoder``: images [N, channels, H, W] -> codes [N, 4 width, H / 4, W / 4]. ``decoder``: codes -> images in
    (-1, 1). Half of the ``blocks``, rounded down, are the encoder's.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        layers: list[nn.Module] = [Reflect(3), nn.Conv2d(channels, width, 7), *normalized(width)]
        for maps in (width, 2 * width):
            layers += [nn.Conv2d(maps, 2 * maps, 3, stride=2, padding=1), *normalized(2 * maps)]
        self.encoder = nn.Sequential(*layers, *(Residual(4 * width) for _ in range(blocks // 2)))
        layers = [Residual(4 * width) for _ in range(blocks - blocks // 2)]
        for maps in (2 * width, width):
            layers += [nn.ConvTranspose2d(2 * maps, maps, 4, stride=2, padding=1), *normalized(maps)]
        self.decoder = nn.Sequential(*layers, Reflect(3), nn.Conv2d(width, channels, 7), nn.Tanh())


@NETWORKS.register("combogan-generator")
class ComboGANGenerator(nn.ModuleList):
    """An encoder and a decoder for each of ``domains``: players ``G.0``, ``G.1``, ...

    Images [N, channels, H, W] of a domain -> images of another one, of the same size, in (-1, 1); H and W are multiples
    of 4. ``blocks``: residual blocks of an encoder and a decoder together.
    """

    def __init__(self, domains: int, channels: int = 3, resolution: int = 256, width: int = 64, blocks: int = 9):
        smallest_side(resolution, 2, "combogan-generator")
        super().__init__(Autoencoder(channels, width, blocks) for _ in range(domains))
        initialize(self, normal(0.02))

    def autoencoder(self, domain: int) -> Autoencoder:
        """The encoder and the decoder of a domain."""
        autoencoder = self[domain]
        assert isinstance(autoencoder, Autoencoder)
        return autoencoder

    def encode(self, x: Tensor, domain: int) -> Tensor:
        """Images x [N, channels, H, W] of a domain -> codes [N, 4 width, H / 4, W / 4]."""
        return self.autoencoder(domain).encoder(x)

    def decode(self, code: Tensor, domain: int) -> Tensor:
        """Codes -> images of a domain."""
        return self.autoencoder(domain).decoder(code)

    def forward(self, x: Tensor, a: int, b: int) -> Tensor:
        """Images of the domain a -> images of the domain b."""
        return self.decode(self.encode(x, a), b)


class Tower(nn.Module):
    """Images [N, channels, H, W] -> maps of predictions [N, 1, h, w], one for each of ``layers``, coarser and coarser.

    4x4 convolutions with padding 2, ``layers`` of stride 2 and two of stride 1. Of those between the first and the last
    two one map more is computed and split off: a prediction, after norm and PReLU, as in the authors' code.
    """

    def __init__(self, channels: int, width: int, layers: int):
        super().__init__()
        maps = [width * min(2**i, 8) for i in range(layers + 1)]
        self.first = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 2), nn.PReLU())
        self.middle = nn.ModuleList(
            nn.Sequential(nn.Conv2d(maps[i - 1], maps[i] + 1, 4, 2, 2), *normalized(maps[i] + 1))
            for i in range(1, layers)
        )
        self.last = nn.Sequential(
            nn.Conv2d(maps[-2], maps[-1], 4, 1, 2), *normalized(maps[-1]), nn.Conv2d(maps[-1], 1, 4, 1, 2)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        h, predictions = self.first(x), []
        for layer in self.middle:
            h = layer(h)
            predictions.append(h[:, -1:])
            h = h[:, :-1]
        return [*predictions, self.last(h)]


class TwoTowers(nn.Module):
    """Images [N, 3, H, W] -> scores by name, coarser and coarser: ``"0"``, ``"1"``, ..., each [N, 2, h, w], the map of
    the tower that gets the luminance and that of the tower that gets blurred colors."""

    blur: Tensor
    luminance: Tensor

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.gray, self.color = Tower(1, width, layers), Tower(3, width, layers)
        self.register_buffer("luminance", torch.tensor([0.299, 0.587, 0.114])[:, None, None], persistent=False)
        line = torch.exp(-torch.arange(-2, 3).square() / (2 * 3.0**2))  # five pixels, standard deviation 3
        kernel = line[:, None] * line
        self.register_buffer("blur", (kernel / kernel.sum()).expand(3, 1, 5, 5).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        gray = (x * self.luminance).sum(1, keepdim=True)
        blurred = F.conv2d(x, self.blur, padding=2, groups=3)
        both = zip(self.gray(gray), self.color(blurred), strict=True)
        return {str(j): torch.cat(maps, 1) for j, maps in enumerate(both)}


@NETWORKS.register("combogan-discriminator")
class ComboGANDiscriminator(nn.ModuleList):
    """A discriminator for each of ``domains``: players ``D.0``, ``D.1``, ... Images [N, 3, H, W] -> scores by name, as
    many as ``layers``. Raises ValueError if the images are no color images, or too small."""

    def __init__(self, domains: int, channels: int = 3, resolution: int = 256, width: int = 64, layers: int = 4):
        if channels != 3:
            raise ValueError(f"channels={channels}: must be 3 for combogan-discriminator, which needs the luminance")
        if resolution < 2**layers:
            raise ValueError(f"resolution={resolution}: must be {2**layers} or more for layers={layers}")
        super().__init__(TwoTowers(width, layers) for _ in range(domains))
        initialize(self, normal(0.02))
