"""Weight normalization with data-dependent initialization, and additive noise: shared by Improved GAN and Triple-GAN.

T. Salimans, D. P. Kingma, Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural
Networks, 2016, arXiv 1602.07868, section 2 and 3, as in the code of Improved GAN (``nn.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.init import normal


class DataDependent(nn.Module):
    """A layer with data-dependent initialization: while ``initializing``, a pass sets its scales from the inputs."""

    initializing = False


class WeightNorm(DataDependent):
    """Weights of unit length for each output, times a ``gain``, which is learned or fixed.

    While ``initializing``, a pass sets gain and bias so that each output has mean 0 and standard deviation ``target``
    on the pass's inputs.
    """

    output_dim = 0  # the dimension of the weight that counts the outputs
    weight: Tensor
    gain: Tensor

    def normalize(self, std: float, learn_gain: bool, target: float = 1.0) -> None:
        """Initial weights N(0, ``std``^2), gains 1, biases 0."""
        normal(std)(self)
        gain = torch.ones(self.weight.shape[self.output_dim])
        if learn_gain:
            self.gain = nn.Parameter(gain)
        else:
            self.register_buffer("gain", gain)
        self.target = target

    def kernel(self) -> Tensor:
        """The weight that the layer applies."""
        dims = range(self.weight.dim())
        square = self.weight.square().sum([d for d in dims if d != self.output_dim], keepdim=True)
        shape = [-1 if d == self.output_dim else 1 for d in dims]
        return self.weight * (self.gain.view(shape) * (square + 1e-6).rsqrt())

    def run(self, apply: Callable[[Tensor, Tensor | None], Tensor], bias: Tensor | None) -> Tensor:
        """``apply(weight, bias)``; while ``initializing``, after gain and bias are set."""
        if self.initializing:
            assert bias is not None
            h = apply(self.kernel(), None)
            dims = [d for d in range(h.dim()) if d != 1]  # all but the outputs
            factor = self.target / h.std(dims, correction=0).clamp(min=1e-6)
            self.gain.mul_(factor)
            bias.copy_(-h.mean(dims) * factor)
        return apply(self.kernel(), bias)


class Linear(nn.Linear, WeightNorm):
    """[N, inputs] -> [N, outputs]."""

    def __init__(self, inputs: int, outputs: int, std: float, *, learn_gain: bool = False, target: float = 1.0):
        super().__init__(inputs, outputs)
        self.normalize(std, learn_gain, target)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda weight, bias: F.linear(x, weight, bias), self.bias)


class Conv2d(nn.Conv2d, WeightNorm):
    """[N, inputs, H, W] -> [N, outputs, ...]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, std: float):
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.normalize(std, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda weight, bias: F.conv2d(x, weight, bias, self.stride, self.padding), self.bias)


class ConvTranspose2d(nn.ConvTranspose2d, WeightNorm):
    """5x5 of stride 2: [N, inputs, H, W] -> [N, outputs, 2H, 2W]; the gain is learned."""

    output_dim = 1

    def __init__(self, inputs: int, outputs: int, std: float, target: float):
        super().__init__(inputs, outputs, 5, 2, 2, 1)
        self.normalize(std, True, target)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert output_size is None
        return self.run(lambda weight, bias: F.conv_transpose2d(x, weight, bias, 2, 2, 1), self.bias)


def initialize_scales(network: nn.Module, *inputs: Tensor) -> None:
    """Data-dependent initialization of all :class:`DataDependent` layers of a network in one pass, without gradient."""
    layers = [m for m in network.modules() if isinstance(m, DataDependent)]
    for m in layers:
        m.initializing = True
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for m in layers:
            m.initializing = False


class Noise(nn.Module):
    """Adds N(0, ``sigma``^2) in training mode."""

    whole_batch = "noise"  # from torch's own generator

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x) if self.training else x

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}"
