"""Weight normalization whose scales are first set from data, and additive noise: what Improved GAN's and Triple-GAN's nets share.

T. Salimans, D. P. Kingma, Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks, 2016,
arXiv 1602.07868, section 2 and 3, as in the code of Improved GAN (``nn.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightNorm(nn.Module):
    """Weights of unit length for each output, times a ``gain``, learned or not.

    While ``measuring``, a pass sets gain and bias so that each output has mean 0 and deviation ``target`` on what it sees.
    """

    outputs_at = 0  # which dimension of the weight counts the outputs

    def normalize(self, deviation: float, learned: bool, target: float = 1.0) -> None:
        """Initial weights N(0, ``deviation``^2), gains 1, biases 0."""
        nn.init.normal_(self.weight, 0.0, deviation)
        nn.init.zeros_(self.bias)
        gain = torch.ones(self.weight.shape[self.outputs_at])
        if learned:
            self.gain = nn.Parameter(gain)
        else:
            self.register_buffer("gain", gain)
        self.target, self.measuring = target, False

    def kernel(self) -> Tensor:
        """The weight that the layer applies."""
        rest = [d for d in range(self.weight.dim()) if d != self.outputs_at]
        shape = [-1 if d == self.outputs_at else 1 for d in range(self.weight.dim())]
        return self.weight * (self.gain.view(shape) * (self.weight.square().sum(rest, keepdim=True) + 1e-6).rsqrt())

    def run(self, apply: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
        """``apply(weight, bias)``, after the scales are set where they are being measured."""
        if self.measuring:
            h = apply(self.kernel(), None)
            over = [d for d in range(h.dim()) if d != 1]
            factor = self.target / h.std(over, correction=0).clamp(min=1e-6)
            self.gain.mul_(factor)
            self.bias.copy_(-h.mean(over) * factor)
        return apply(self.kernel(), self.bias)


class Linear(nn.Linear, WeightNorm):
    """[N, inputs] -> [N, outputs]."""

    def __init__(self, inputs: int, outputs: int, deviation: float, *, learned: bool = False, target: float = 1.0):
        super().__init__(inputs, outputs)
        self.normalize(deviation, learned, target)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda weight, bias: F.linear(x, weight, bias))


class Conv2d(nn.Conv2d, WeightNorm):
    """[N, inputs, H, W] -> [N, outputs, ...]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, deviation: float):
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.normalize(deviation, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda weight, bias: F.conv2d(x, weight, bias, self.stride, self.padding))


class ConvTranspose2d(nn.ConvTranspose2d, WeightNorm):
    """5x5 of stride 2: [N, inputs, H, W] -> [N, outputs, 2H, 2W]; a learned gain."""

    outputs_at = 1

    def __init__(self, inputs: int, outputs: int, deviation: float, target: float):
        super().__init__(inputs, outputs, 5, 2, 2, 1)
        self.normalize(deviation, True, target)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda weight, bias: F.conv_transpose2d(x, weight, bias, 2, 2, 1))


def set_scales(network: nn.Module, *inputs: Tensor) -> None:
    """Let every layer of a network that can measure (``measuring``) set its scales on one pass, without gradient."""
    layers = [m for m in network.modules() if hasattr(m, "measuring")]
    for m in layers:
        m.measuring = True
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for m in layers:
            m.measuring = False


class Noise(nn.Module):
    """Adds N(0, ``sigma``^2) in training."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"
