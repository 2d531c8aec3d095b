"""StyleGAN2's networks.

T. Karras, S. Laine, M. Aittala, J. Hellsten, J. Lehtinen, T. Aila, Analyzing and Improving the Image Quality of
StyleGAN, 2020, arXiv 1912.04958, with the conditions of "Training Generative Adversarial Networks with Limited Data",
arXiv 2006.06676. A style scales the inputs of a convolution, whose outputs are then divided by the deviation that they
would have for inputs of deviation 1 (demodulation). G sums the images of all sizes, upsampled; D is residual.
Resampling with the filter [1, 3, 3, 1].

Difference from the authors' code: maps are scaled before and after a convolution with one weight, instead of a weight
for each image; equal up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.equalized import GAIN, Conv2d, Linear, leaky_relu, pixel_norm
from zoo.networks.layers import MinibatchStandardDeviation, require_classes, smallest_side
from zoo.networks.mlp import one_hot
from zoo.networks.stylegan import Styled
from zoo.registry import NETWORKS, FrozenDict

WIDTHS = (512, 512, 512, 512, 512, 256, 128, 64, 32)  # from 4x4 to 1024x1024


def activation(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope 0.2, times the root of 2."""
    return leaky_relu(x) * GAIN


class Filter(nn.Module):
    """The filter [1, 3, 3, 1] in both directions, with zeros outside.

    Args:
        gain: the sum of its numbers.
        up, stride: x2 by zeros between the pixels first; the step of the result's pixels.
        padding: zeros on each side.
    """

    filter: Tensor

    def __init__(self, *, gain: float = 1.0, up: bool = False, stride: int = 1, padding: int = 1):
        super().__init__()
        self.up, self.stride, self.padding = up, stride, padding
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("filter", line[:, None] * line * gain, persistent=False)  # [4, 4]

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> [N, C, 2H, 2W] if up, [N, C, H/2, W/2] with stride 2 and padding 1."""
        channels = x.shape[1]
        kernel = self.filter.to(x.dtype).expand(channels, 1, 4, 4)
        if self.up:
            return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)


class MappingNetwork(nn.Module):
    """z [N, latent], divided by the root of its mean square, and classes y -> w [N, w]. A class is a linear layer's
    vector of ``w`` numbers, normalized like z. The layers' learning rate is a hundredth of the others'. ``latent`` 0:
    of classes alone."""

    def __init__(self, latent: int, w: int, layers: int, classes: int = 0):
        super().__init__()
        self.latent, self.classes = latent, classes
        if classes:
            self.embedding = Linear(classes, w, gain=1.0)
        first = latent + (w if classes else 0)
        self.layers = nn.ModuleList(Linear(first if i == 0 else w, w, gain=1.0, lr=0.01) for i in range(layers))

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [pixel_norm(z)]
        if self.classes:
            dtype = self.embedding.weight.dtype if z is None else z.dtype
            parts.append(pixel_norm(self.embedding(one_hot(require_classes(y), self.classes, dtype))))
        h = torch.cat(parts, 1)
        for layer in self.layers:
            h = activation(layer(h))
        return h


class ModulatedConv2d(nn.Module):
    """A convolution whose inputs a style scales. ``demodulate``: outputs are divided by the deviation that inputs of
    deviation 1 would give. ``up``: transposed with stride 2, then filtered."""

    def __init__(self, inputs: int, outputs: int, kernel: int, w: int, *, demodulate: bool = True, up: bool = False):
        super().__init__()
        self.demodulate, self.up, self.padding = demodulate, up, kernel // 2
        self.style = Linear(w, inputs, gain=1.0, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.filter = Filter(gain=4.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, inputs, H, W], w [N, w] -> [N, outputs, H, W], or 2H x 2W if up."""
        style, weight = self.style(w), self.weight * self.scale  # [N, inputs]
        h = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            h = self.filter(F.conv_transpose2d(h, weight.transpose(0, 1), stride=2))
        else:
            h = F.conv2d(h, weight, padding=self.padding)
        if not self.demodulate:
            return h
        # The sum over inputs and positions of (style weight)^2, elementwise in float32
        squares = weight.float().square().sum((2, 3))  # [outputs, inputs]
        norm = (style.float().square()[:, None] * squares).sum(2) + 1e-8  # [N, outputs]
        return h * norm.rsqrt()[:, :, None, None].to(h.dtype)


class Layer(nn.Module):
    """A modulated 3x3 convolution, noise with one strength, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, w: int, *, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, w, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, inputs, H, W], w [N, w], noise [N, 1, H', W'] or None -> [N, outputs, H', W']."""
        h = self.conv(x, w)
        if noise is not None:
            h = h + self.strength.to(h.dtype) * noise.to(h.dtype)
        return activation(h + self.bias.to(h.dtype))


class ToRGB(nn.Module):
    """A modulated 1x1 convolution without demodulation, and bias."""

    def __init__(self, inputs: int, channels: int, w: int):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, channels, 1, w, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, inputs, H, W], w [N, w] -> [N, channels, H, W]."""
        h: Tensor = self.conv(x, w)
        return h + self.bias.to(h.dtype)


@NETWORKS.register("stylegan2-generator")
class StyleGAN2Generator(Styled):
    """z [N, latent] (and classes y [N]) -> images [N, channels, resolution, resolution], which are not limited to
    [-1, 1]: the sum of those of all sizes, upsampled.

    Args:
        channels, resolution: of the images.
        classes: ``G(z, y=y)``; 0 for none.
        latent: numbers of noise.
        w: numbers of a style.
        widths: channels at the smallest size, at twice this size, ...
        layers: of the mapping network.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 1024,
        classes: int = 0,
        latent: int = 512,
        w: int = 512,
        widths: Sequence[int] = WIDTHS,
        layers: int = 8,
    ):
        super().__init__(latent, w, MappingNetwork(latent, w, layers, classes), decay=0.995, truncated=None)
        self.classes, self.image_shape = classes, (channels, resolution, resolution)
        self.side = smallest_side(resolution, len(widths) - 1, f"stylegan2-generator with widths {tuple(widths)}")
        self.constant = nn.Parameter(torch.randn(widths[0], self.side, self.side))
        self.first = Layer(widths[0], widths[0], w)
        self.ups = nn.ModuleList(Layer(i, o, w, up=True) for i, o in pairwise(widths))
        self.convs = nn.ModuleList(Layer(o, o, w) for o in widths[1:])
        self.to_rgb = nn.ModuleList(ToRGB(o, channels, w) for o in widths)
        self.up = Filter(gain=4.0, up=True)

    @property
    def style_count(self) -> int:
        """The number of styles: one for each layer, and one for the last images."""
        return 2 * len(self.to_rgb)

    @property
    def noise_shapes(self) -> FrozenDict:
        """The noise of each layer."""
        sides = [self.side * 2 ** ((i + 1) // 2) for i in range(self.style_count - 1)]
        return FrozenDict({f"noise{i}": (1, side, side) for i, side in enumerate(sides)})

    def synthesis(self, ws: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        if ws.dim() == 2:
            ws = ws[:, None].expand(-1, self.style_count, -1)

        def noise_of(i: int) -> Tensor | None:
            return None if noise is None else noise[f"noise{i}"]

        h = self.constant.to(ws.dtype).expand(ws.shape[0], -1, -1, -1)
        h = self.first(h, ws[:, 0], noise_of(0))  # [N, widths[0], side, side]
        x: Tensor = self.to_rgb[0](h, ws[:, 1])
        for k, (up, conv) in enumerate(zip(self.ups, self.convs, strict=True)):
            i = 2 * k + 1
            h = up(h, ws[:, i], noise_of(i))
            h = conv(h, ws[:, i + 1], noise_of(i + 1))
            x = self.up(x) + self.to_rgb[k + 1](h, ws[:, i + 2])
        return x


class DownBlock(nn.Module):
    """3x3, 3x3 on filtered maps with stride 2, each with leaky ReLU; if ``residual`` a 1x1 convolution of the filtered
    and halved input is added, and the sum scaled by the root of a half."""

    def __init__(self, inputs: int, outputs: int, residual: bool):
        super().__init__()
        self.conv1 = Conv2d(inputs, inputs, gain=1.0)
        self.conv2 = Conv2d(inputs, outputs, gain=1.0)
        self.filter = Filter(padding=2)
        self.shortcut = Conv2d(inputs, outputs, 1, gain=1.0, bias=False) if residual else None
        self.down = Filter(stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H/2, W/2]."""
        h = self.filter(activation(self.conv1(x)))  # [N, inputs, H + 1, W + 1]
        h = activation(F.conv2d(h, self.conv2.kernel(), self.conv2.bias, stride=2))
        return h if self.shortcut is None else (h + self.shortcut(self.down(x))) * math.sqrt(0.5)


@NETWORKS.register("stylegan2-discriminator")
class StyleGAN2Discriminator(Discriminator):
    """Images [N, channels, resolution, resolution] (and classes y [N]) -> scores [N], which depend on the batch.

    Args:
        channels, resolution: of the images.
        classes: ``D(x, y=y)``: the score is the product of the features and of a mapping network's vector of the class,
            divided by the root of their length; 0 for none.
        widths: channels at the smallest size, at twice this size, ...
        residual: whether blocks have shortcuts.
        group: images that share a standard deviation, at most.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 1024,
        classes: int = 0,
        widths: Sequence[int] = WIDTHS,
        residual: bool = True,
        group: int = 4,
    ):
        super().__init__()
        self.classes, width = classes, widths[0]
        side = smallest_side(resolution, len(widths) - 1, f"stylegan2-discriminator with widths {tuple(widths)}")
        self.from_rgb = Conv2d(channels, widths[-1], 1, gain=1.0)
        self.blocks = nn.Sequential(*(DownBlock(i, o, residual) for i, o in pairwise(widths[::-1])))
        self.deviation = MinibatchStandardDeviation(group, sync=True)
        self.conv = Conv2d(width + 1, width, gain=1.0)
        self.linear = Linear(side * side * width, width, gain=1.0)
        self.head = Linear(width, width if classes else 1, gain=1.0)
        if classes:
            self.mapping = MappingNetwork(0, width, 8, classes)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> [N, widths[0]]."""
        h = self.blocks(activation(self.from_rgb(x)))
        h = activation(self.conv(self.deviation(h)))
        return activation(self.linear(h.flatten(1)))

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        if not self.classes:
            return super().score(h)
        of_class = self.mapping(None, condition(given, "y"))
        return (self.head(h) * of_class).sum(1) / math.sqrt(of_class.shape[1])
