"""Image-to-image networks: CycleGAN's ResNet generator and the PatchGAN discriminator, which is pix2pix's (Isola, Zhu,
Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", 2017, arXiv 1611.07004) with
``pairs=True, norm="batch"``.

Zhu, Park, Isola, Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017, arXiv
1703.10593. Defaults are those of the authors' PyTorch code; ``affine=True`` is the instance norm of their Torch code,
with gains N(1, 0.02^2).

Differences from the paper:
- The Torch code sets the convolutions' biases to 0 before every update. Ours learn; a following instance norm
  cancels them.
- On CUDA in deterministic mode we compute the reflected border by indexing, with equal values.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import initialize, normal
from zoo.networks.layers import InstanceNorm2d, smallest_side
from zoo.registry import NETWORKS


class Reflect(nn.Module):
    """Reflection padding of ``lines`` pixels: [N, C, H, W] -> [N, C, H + 2 lines, W + 2 lines]."""

    def __init__(self, lines: int):
        super().__init__()
        self.lines = lines

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
            return F.pad(x, [self.lines] * 4, mode="reflect")
        for dim in (2, 3):  # CUDA's reflection padding has no deterministic backward
            last = x.shape[dim] - 1
            index = torch.arange(-self.lines, last + 1 + self.lines, device=x.device).abs()
            x = x.index_select(dim, last - (last - index).abs())
        return x


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))): 3x3 convolutions with reflection padding; no ReLU after the sum."""

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

    A 7x7 convolution to ``width`` maps, two of stride 2 to 4 ``width``, ``blocks`` residual blocks (9 for 256x256 and
    more, 6 for 128x128), two transposed convolutions of stride 2, a 7x7 convolution.
    """

    def __init__(
        self, channels: int = 3, resolution: int = 256, width: int = 64, blocks: int = 9, affine: bool = False
    ):
        super().__init__()
        smallest_side(resolution, 2, "cyclegan-generator")

        def norm(maps: int) -> list[nn.Module]:
            return [InstanceNorm2d(maps, affine=affine), nn.ReLU()]

        def up(maps: int) -> nn.Module:
            return nn.ConvTranspose2d(2 * maps, maps, 3, stride=2, padding=1, output_padding=1)

        layers: list[nn.Module] = [Reflect(3), nn.Conv2d(channels, width, 7), *norm(width)]
        for maps in (width, 2 * width):
            layers += [nn.Conv2d(maps, 2 * maps, 3, stride=2, padding=1), *norm(2 * maps)]
        layers += [Residual(4 * width, affine) for _ in range(blocks)]
        for maps in (2 * width, width):
            layers += [up(maps), *norm(maps)]
        self.layers = nn.Sequential(*layers, Reflect(3), nn.Conv2d(width, channels, 7), nn.Tanh())
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@NETWORKS.register("patch-discriminator")
class PatchDiscriminator(Discriminator):
    """Images [N, channels, H, W] -> a map of scores [N, 1, h, w], one for each overlapping patch.

    ``halvings`` 4x4 convolutions of stride 2, then two of stride 1: with 1 to 5 halvings the receptive field is 16, 34,
    70, 142 or 286 pixels; with 0 halvings all convolutions are 1x1 and the field is one pixel. Leaky ReLU of slope 0.2,
    normalization in all layers but the first and the last. 256x256 with 3 halvings gives 30x30 scores.

    Args:
        channels, resolution: of the images.
        width: maps of the first layer.
        halvings: the number of convolutions of stride 2.
        affine: instance norm has gains and biases.
        pairs: it scores pairs of ``given["a"]`` and x, which have as many channels, as one image of twice as many.
        norm: ``"instance"`` or ``"batch"``.
        biases: of convolutions before a normalization.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 256,
        width: int = 64,
        halvings: int = 3,
        affine: bool = False,
        pairs: bool = False,
        norm: Literal["instance", "batch"] = "instance",
        biases: bool = True,
    ):
        super().__init__()
        if norm not in ("instance", "batch"):
            raise ValueError(f"norm='{norm}': must be instance or batch")
        if halvings and resolution // 2**halvings < 3:
            smallest = 3 * 2**halvings
            raise ValueError(f"resolution={resolution}: must be {smallest} or more for halvings={halvings}")
        self.pairs = pairs

        def conv(inputs: int, outputs: int, stride: int, bias: bool = True) -> nn.Module:
            kernel, padding = (4, 1) if halvings else (1, 0)
            return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)

        first = conv(2 * channels if pairs else channels, width, 2 if halvings else 1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(0.2)]
        maps = width
        for i in range(1, max(halvings, 1) + 1):
            inputs, maps = maps, width * min(2**i, 8)
            layers += [conv(inputs, maps, 2 if i < halvings else 1, biases)]
            normalize = nn.BatchNorm2d(maps) if norm == "batch" else InstanceNorm2d(maps, affine=affine)
            layers += [normalize, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.head = conv(maps, 1, 1)
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, 8 * width (with 3 halvings), h + 1, w + 1], the last maps before the scores. Raises ValueError
        if it takes pairs and gets none."""
        if self.pairs:
            a = condition(given, "a")
            if a is None:
                raise ValueError("given['a']: must be the images that x was translated from")
            x = torch.cat([a, x], 1)  # [N, 2 * channels, H, W]
        return self.layers(x)
