"""Image-to-image networks: CycleGAN's ResNet generator and the PatchGAN discriminator.

Zhu, Park, Isola, Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017, arXiv
1703.10593. Defaults are those of the authors' PyTorch code; ``affine=True`` is the instance norm of their Torch code, with
gains N(1, 0.02^2). Where we differ: that code zeroes the convolutions' biases before every update, which changes nothing that an
instance norm follows; and on CUDA in deterministic mode the reflected border is made by indexing, equal in value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.layers import InstanceNorm2d, doublings
from zoo.registry import NETWORKS


class Reflect(nn.Module):
    """A border of ``lines`` mirrored lines around [N, C, H, W]."""

    def __init__(self, lines: int):
        super().__init__()
        self.lines = lines

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
            return F.pad(x, [self.lines] * 4, mode="reflect")
        for dim in (2, 3):  # CUDA's own reflection has no deterministic backward
            last = x.shape[dim] - 1
            line = torch.arange(-self.lines, last + 1 + self.lines, device=x.device).abs()
            x = x.index_select(dim, last - (last - line).abs())
        return x


def _start(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, InstanceNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


class Residual(nn.Module):
    """Reflect, 3x3, norm, ReLU, reflect, 3x3, norm, plus the input; no ReLU after."""

    def __init__(self, width: int, affine: bool):
        super().__init__()
        self.branch = nn.Sequential(
            Reflect(1), nn.Conv2d(width, width, 3), InstanceNorm2d(width, affine=affine), nn.ReLU(),
            Reflect(1), nn.Conv2d(width, width, 3), InstanceNorm2d(width, affine=affine),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@NETWORKS.register("cyclegan-generator")
class CycleGANGenerator(nn.Module):
    """Images [N, channels, H, W] -> images of the same size in [-1, 1]; H and W are multiples of 4.

    7x7 to ``width``, two halvings to 4 ``width``, ``blocks`` residual blocks (9 from 256x256, 6 at 128x128), two doublings, 7x7.
    """

    def __init__(
        self, channels: int = 3, resolution: int = 256, width: int = 64, blocks: int = 9, affine: bool = False
    ):
        super().__init__()
        doublings(resolution, 2, "cyclegan-generator")

        def norm(maps: int) -> list[nn.Module]:
            return [InstanceNorm2d(maps, affine=affine), nn.ReLU()]

        def up(maps: int) -> nn.Module:
            return nn.ConvTranspose2d(2 * maps, maps, 3, stride=2, padding=1, output_padding=1)

        layers = [Reflect(3), nn.Conv2d(channels, width, 7), *norm(width)]
        for maps in (width, 2 * width):
            layers += [nn.Conv2d(maps, 2 * maps, 3, stride=2, padding=1), *norm(2 * maps)]
        layers += [Residual(4 * width, affine) for _ in range(blocks)]
        for maps in (2 * width, width):
            layers += [up(maps), *norm(maps)]
        self.layers = nn.Sequential(*layers, Reflect(3), nn.Conv2d(width, channels, 7), nn.Tanh())
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@NETWORKS.register("patch-discriminator")
class PatchDiscriminator(nn.Module):
    """Images [N, channels, H, W] -> a map of scores [N, 1, h, w], one for each overlapping patch.

    ``halvings`` 4x4 convolutions of stride 2, then two of stride 1; 1, 2 or 3 halvings look at patches of 16, 34 or 70 pixels.
    Leaky ReLU of slope 0.2, instance norm on all but the first and the last. 256x256 with 3 halvings gives 30x30 scores.
    """

    classes = 0

    def __init__(
        self, channels: int = 3, resolution: int = 256, width: int = 64, halvings: int = 3, affine: bool = False
    ):
        super().__init__()
        if resolution // 2**halvings < 3:
            raise ValueError(
                f"patch-discriminator with {halvings} halvings can't do resolution {resolution}: "
                f"take {3 * 2**halvings} or more, or fewer halvings"
            )
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        maps = width
        for i in range(1, halvings + 1):
            inputs, maps = maps, width * min(2**i, 8)
            layers += [nn.Conv2d(inputs, maps, 4, stride=2 if i < halvings else 1, padding=1)]
            layers += [InstanceNorm2d(maps, affine=affine), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(maps, 1, 4, padding=1)
        _start(self)

    def features(self, x: Tensor) -> Tensor:
        """x -> phi [N, 8 * width (with 3 halvings), h + 1, w + 1], the last map before the scores."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
