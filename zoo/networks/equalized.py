"""What PGGAN, StyleGAN and StyleGAN2 share: layers with an equalized learning rate, pixel norm, networks that grow.

*Equalized learning rate* (Karras, Aila, Laine, Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability,
and Variation", 2018, arXiv 1710.10196, section 4.1): weights start from N(0, 1) and are multiplied by gain /
sqrt(fan_in) in each pass, so that Adam changes all layers at the same relative speed. With a factor ``lr`` (StyleGAN's
mapping network) weights start from N(0, 1 / lr^2), and weights and biases are multiplied by it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks import layers
from zoo.networks.init import normal

GAIN = math.sqrt(2.0)
SLOPE = 0.2  # of all leaky ReLUs


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with the slope 0.2."""
    return F.leaky_relu(x, SLOPE)


def pixel_norm(x: Tensor) -> Tensor:
    """x [N, C, ...] divided by the root of the mean square of its C numbers, at each position."""
    return x * (x.float().square().mean(1, keepdim=True) + 1e-8).rsqrt().to(x.dtype)


class Linear(nn.Linear):
    """A linear layer with an equalized learning rate. ``bias``: its initial value, None for a layer without."""

    def __init__(self, inputs: int, outputs: int, *, gain: float = GAIN, lr: float = 1.0, bias: float | None = 0.0):
        super().__init__(inputs, outputs, bias=bias is not None)
        normal(1 / lr, bias=None if bias is None else bias / lr)(self)
        self.scale, self.lr = gain * lr / math.sqrt(inputs), lr

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs] -> [N, outputs]."""
        bias: Tensor | None = self.bias
        return F.linear(x, self.weight * self.scale, bias if bias is None or self.lr == 1 else bias * self.lr)

    def extra_repr(self) -> str:
        return super().extra_repr() + f", scale={self.scale:.4g}, lr={self.lr:g}"


class Conv2d(layers.Conv2d):
    """:class:`zoo.networks.layers.Conv2d` with an equalized learning rate."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, resample: str = "", gain: float = GAIN, bias: bool = True
    ):
        super().__init__(inputs, outputs, kernel, resample=resample, bias=bias)
        normal(1.0)(self)
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def kernel(self) -> Tensor:
        """The weight that the layer applies."""
        return self.weight * self.scale

    def extra_repr(self) -> str:
        return super().extra_repr() + f", scale={self.scale:.4g}"


class GrowingNetwork(nn.Module):
    """A network with a level for each power of two from 4x4 on; all layers are there from the start.

    ``level``: that of a pass, at first the last one. ``fade``: the share of the level's layers, from 0 to 1; the rest
    is the level below it. ``side``: of the level's images.
    """

    fade: Tensor

    def __init__(self, widths: Sequence[int], resolution: int, **more: Any):
        super().__init__(**more)  # of the other base class
        if resolution != 4 * 2 ** (len(widths) - 1):
            raise ValueError(
                f"resolution={resolution}: must be {4 * 2 ** (len(widths) - 1)} with widths of {len(widths)} levels, "
                f"from 4x4 on"
            )
        self.levels = len(widths)
        self.level = self.levels - 1
        self.register_buffer("fade", torch.ones(()))

    def at(self, level: int) -> Any:
        """Set the level, from 0. Raises ValueError if there is none of this number. Returns the network."""
        if not 0 <= level < self.levels:
            raise ValueError(f"level={level}: must be from 0 to {self.levels - 1}")
        self.level = level
        return self

    @property
    def side(self) -> int:
        """The side of the images of a pass, in pixels."""
        return int(4 * 2**self.level)

    def blend(self, old: Tensor, new: Tensor) -> Tensor:
        """What the level below it and the level itself computed, with the share ``fade`` of the latter."""
        return torch.lerp(old, new, self.fade.to(old.dtype))

    def extra_repr(self) -> str:
        return f"level={self.level}"
