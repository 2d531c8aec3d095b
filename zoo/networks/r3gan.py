"""R3GAN's networks: residual ones without normalization.

N. Huang, A. Gokaslan, V. Kuleshov, J. Tompkin, The GAN is dead; long live the GAN! A Modern GAN Baseline, 2024, arXiv
2501.05441. A stage a resolution, each with several inverted bottlenecks whose 3x3 convolution has groups of channels;
resampling with the filter [1, 3, 3, 1]. G begins with a learned basis, D ends with a depthwise convolution of the same
shape. The last convolution of every block starts at 0: at first D is linear in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import fan_in, zeros
from zoo.networks.layers import require_classes, smallest_side
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS

SLOPE = 0.2  # of all leaky ReLUs


class Block(nn.Module):
    """x + 1x1 to twice the width, 3x3 in groups, 1x1 back; a bias and leaky ReLU after the first two.

    Args:
        width: channels of input and output.
        group: channels that a filter of the 3x3 convolution reads. Raises ValueError if it does not divide 2 width.
        blocks: of the whole network, which scale the initial weights (Fixup): the deviations of the first two
            convolutions are sqrt(2 / (1 + 0.2^2)) blocks^(-1/4) / sqrt(fan_in), those of the last are 0.
    """

    def __init__(self, width: int, group: int, blocks: int):
        super().__init__()
        inner = 2 * width
        if inner % group:
            raise ValueError(f"group={group}: must divide twice the width, {inner}")
        self.expand = nn.Conv2d(width, inner, 1)
        self.grouped = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group)
        self.project = nn.Conv2d(inner, width, 1, bias=False)
        gain = nn.init.calculate_gain("leaky_relu", SLOPE) * blocks**-0.25
        for layer, rule in ((self.expand, fan_in(gain)), (self.grouped, fan_in(gain)), (self.project, zeros())):
            rule(layer)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, width, H, W] -> the same shape."""
        h = F.leaky_relu(self.expand(x), SLOPE)
        h = F.leaky_relu(self.grouped(h), SLOPE)
        return x + self.project(h)


class Resample(nn.Module):
    """x2 up or down with the filter [1, 3, 3, 1] in both directions, and a 1x1 convolution at the smaller size if the
    widths differ; outside of the maps are zeros."""

    filter: Tensor

    def __init__(self, inputs: int, outputs: int, up: bool):
        super().__init__()
        self.up = up
        self.convolution = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)
        if isinstance(self.convolution, nn.Conv2d):
            fan_in()(self.convolution)
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / (4.0 if up else 8.0)  # the sum of the filter is 4 or 1
        self.register_buffer("filter", line[:, None] * line, persistent=False)  # [4, 4]

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, 2H, 2W] or [N, outputs, H/2, W/2]."""
        if self.up:
            x = self.convolution(x)
            return F.conv_transpose2d(x, self.kernel(x), stride=2, padding=1, groups=x.shape[1])
        return self.convolution(F.conv2d(x, self.kernel(x), stride=2, padding=1, groups=x.shape[1]))

    def kernel(self, x: Tensor) -> Tensor:
        """The filter for each channel of x, [C, 1, 4, 4]."""
        return self.filter.to(x.dtype).expand(x.shape[1], 1, 4, 4)


def stages(widths: Sequence[int], blocks: int, group: int, up: bool) -> nn.Sequential:
    """``blocks`` blocks of each width, with resampling between the widths."""
    layers: list[nn.Module] = []
    for width, after in pairwise([*widths, 0]):
        layers += [Block(width, group, blocks * len(widths)) for _ in range(blocks)]
        layers += [Resample(width, after, up)] if after else []
    return nn.Sequential(*layers)


@NETWORKS.register("r3gan-generator")
class R3GANGenerator(nn.Module):
    """z [N, latent] (and classes y [N]) -> images [N, channels, resolution, resolution], which are not limited to
    [-1, 1].

    Args:
        channels, resolution: of the images.
        classes: ``G(z, y=y)``: a linear layer gives z as many numbers more from the class; 0 for none.
        latent: numbers of noise.
        widths: of the stages, from the smallest maps to the image's size.
        blocks: in each stage.
        group: channels that a filter of the 3x3 convolutions reads.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 0,
        latent: int = 64,
        widths: Sequence[int] = (768, 768, 768, 768),
        blocks: int = 2,
        group: int = 16,
    ):
        super().__init__()
        self.latent, self.classes = latent, classes
        side = smallest_side(resolution, len(widths) - 1, f"r3gan-generator with widths {tuple(widths)}")
        if classes:
            self.embedding = nn.Linear(classes, latent, bias=False)
            fan_in()(self.embedding)
        self.linear = nn.Linear(2 * latent if classes else latent, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], side, side))
        self.stages = stages(widths, blocks, group, up=True)
        self.output = nn.Conv2d(widths[-1], channels, 1, bias=False)
        for layer in (self.linear, self.output):
            fan_in()(layer)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.classes:
            z = torch.cat([z, self.embedding(one_hot(require_classes(y), self.classes, z.dtype))], 1)
        h = self.basis * self.linear(z)[:, :, None, None]  # [N, widths[0], side, side]
        return self.output(self.stages(h))  # [N, channels, resolution, resolution]


@NETWORKS.register("r3gan-discriminator")
class R3GANDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] (and classes y [N]) -> scores [N].

    Args:
        channels, resolution: of the images.
        classes: ``D(x, y=y)``: the score is the product of a projection of the features and the class's vector; 0 for
            none.
        widths: of the stages, from the image's size to the smallest maps.
        blocks: in each stage.
        group: channels that a filter of the 3x3 convolutions reads.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 0,
        widths: Sequence[int] = (768, 768, 768, 768),
        blocks: int = 2,
        group: int = 16,
    ):
        super().__init__()
        self.classes, width = classes, widths[-1]
        side = smallest_side(resolution, len(widths) - 1, f"r3gan-discriminator with widths {tuple(widths)}")
        self.input = nn.Conv2d(channels, widths[0], 1, bias=False)
        self.stages = stages(widths, blocks, group, up=False)
        self.basis = nn.Conv2d(width, width, side, groups=width, bias=False)
        self.head = nn.Linear(width, width if classes else 1, bias=False)
        for layer in (self.input, self.basis, self.head):
            fan_in()(layer)
        if classes:
            self.embedding = nn.Linear(classes, width, bias=False)
            fan_in(width**-0.5)(self.embedding)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> [N, widths[-1]]."""
        return self.basis(self.stages(self.input(x))).flatten(1)

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        if not self.classes:
            return super().score(h)
        y = one_hot(require_classes(condition(given, "y")), self.classes, h.dtype)
        return (self.head(h) * self.embedding(y)).sum(1)
