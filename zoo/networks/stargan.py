"""StarGAN's networks: one generator for all domains, and a discriminator that also classifies the domain.

Y. Choi, M. Choi, M. Kim, J.-W. Ha, S. Kim, J. Choo, StarGAN: Unified Generative Adversarial Networks for Multi-Domain
Image-to-Image Translation, 2017, arXiv 1711.09020, appendix, as in the authors' code: PyTorch's own initialization,
zero padding (a reflected border would let instance norm cancel the constant maps of the domain).

Differences from the authors' code:
- Their instance norm has running averages, which nothing uses, for their code samples in training mode. Ours has none:
  each image is normalized by itself, in training and later.
- D has as many convolutions as bring the images to 2x2, and so does its head for the domain: ``layers`` is chosen with
  the resolution.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.layers import InstanceNorm2d, smallest_side
from zoo.registry import NETWORKS


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))): 3x3 convolutions; no ReLU after the sum."""

    def __init__(self, width: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), InstanceNorm2d(width, affine=True), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), InstanceNorm2d(width, affine=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@NETWORKS.register("stargan-generator")
class StarGANGenerator(nn.Module):
    """Images x [N, channels, H, W] and a domain, float [N, domains] -> images of the same size in (-1, 1); H and W are
    multiples of 4. The domain's numbers are constant maps beside the image's channels.

    A 7x7 convolution to ``width`` maps, two 4x4 ones of stride 2 to 4 ``width``, ``blocks`` residual blocks, two 4x4
    transposed convolutions of stride 2, a 7x7 convolution; instance norm with gains and biases, no other biases.
    """

    def __init__(self, domains: int, channels: int = 3, resolution: int = 128, width: int = 64, blocks: int = 6):
        super().__init__()
        smallest_side(resolution, 2, "stargan-generator")
        self.domains = domains

        def norm(maps: int) -> list[nn.Module]:
            return [InstanceNorm2d(maps, affine=True), nn.ReLU()]

        layers: list[nn.Module] = [nn.Conv2d(channels + domains, width, 7, padding=3, bias=False), *norm(width)]
        for maps in (width, 2 * width):
            layers += [nn.Conv2d(maps, 2 * maps, 4, stride=2, padding=1, bias=False), *norm(2 * maps)]
        layers += [Residual(4 * width) for _ in range(blocks)]
        for maps in (4 * width, 2 * width):
            layers += [nn.ConvTranspose2d(maps, maps // 2, 4, stride=2, padding=1, bias=False), *norm(maps // 2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 7, padding=3, bias=False), nn.Tanh())

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        planes = domain.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])  # [N, domains, H, W]
        return self.layers(torch.cat([x, planes], 1))


@NETWORKS.register("stargan-discriminator")
class StarGANDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] -> a map of scores [N, 1, h, w]; ``logits``: of the domains.

    ``layers`` 4x4 convolutions of stride 2 from ``width`` to ``width * 2 ** (layers - 1)`` maps with leaky ReLU of
    slope 0.01 and no norm; then a 3x3 convolution for the scores, and one of the size of the maps for the domain.
    Raises ValueError if the resolution does not allow that many layers.
    """

    def __init__(self, domains: int, channels: int = 3, resolution: int = 128, width: int = 64, layers: int = 6):
        super().__init__()
        side = smallest_side(resolution, layers, f"stargan-discriminator with {layers} layers")
        self.domains = domains
        widths = [channels, *(width * 2**i for i in range(layers))]
        parts: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            parts += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
        self.layers = nn.Sequential(*parts)
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)
        self.domain = nn.Sequential(nn.Conv2d(widths[-1], domains, side, bias=False), nn.Flatten())

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> [N, width * 2 ** (layers - 1), h, w]."""
        return self.layers(x)

    def logits(self, x: Tensor) -> Tensor:
        """x -> logits of the domains, [N, domains]."""
        return self.domain(self.layers(x))
