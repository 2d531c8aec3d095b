"""Weight initialization: rules for one layer, and :func:`initialize`, which applies them to all layers of a network.

A rule is a function of a layer: it fills the layer's weight and, unless told to leave it, its bias. The families of
networks choose among the rules here; nothing else in the package draws weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

Rule = Callable[[nn.Module], None]
Network = TypeVar("Network", bound=nn.Module)

HE = math.sqrt(2.0)  # a Glorot gain: the residual networks of WGAN-GP and SNGAN call it He initialization


def initialize(
    network: Network,
    rule: Rule,
    *,
    convolutions: Rule | None = None,
    linears: Rule | None = None,
    norms: Rule | None = None,
) -> Network:
    """Initialize all layers of ``network``, in the order of ``network.modules()``. Returns the network.

    Args:
        network: the network, or a single layer.
        rule: for convolutions, transposed convolutions and linear layers.
        convolutions: for convolutions (not transposed ones), in place of ``rule``.
        linears: for linear layers, in place of ``rule``.
        norms: for batch and instance norms with a gain and a bias; without it they keep gains of 1 and biases of 0.
    """
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            (convolutions or rule)(m)
        elif isinstance(m, nn.Linear):
            (linears or rule)(m)
        elif isinstance(m, nn.ConvTranspose2d):
            rule(m)
        elif norms and isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)) and m.affine:
            norms(m)
    return network


def _rule(fill: Callable[[Tensor], object], bias: float | None = 0.0) -> Rule:
    """A rule that fills the weight in place and sets the bias, if there is one, to ``bias`` (None: leaves it)."""

    def apply(layer: nn.Module) -> None:
        weight, b = layer.weight, getattr(layer, "bias", None)
        assert isinstance(weight, Tensor)
        fill(weight)
        if bias is not None and b is not None:
            nn.init.constant_(b, bias)

    return apply


def normal(std: float, mean: float = 0.0, bias: float | None = 0.0) -> Rule:
    """Weights N(mean, std^2)."""
    return _rule(lambda w: nn.init.normal_(w, mean, std), bias)


def truncated_normal(std: float) -> Rule:
    """Weights N(0, std^2) within two standard deviations (TensorFlow's truncated normal), biases 0."""
    return _rule(lambda w: nn.init.trunc_normal_(w, 0.0, std, -2 * std, 2 * std))


def uniform(bound: float) -> Rule:
    """Weights U(-bound, bound), biases 0."""
    return _rule(lambda w: nn.init.uniform_(w, -bound, bound))


def uniform_fan() -> Rule:
    """Weights U(-s, s), s = 1 / sqrt(3 fan), biases 0. The fan counts all dimensions of the weight but the first: the
    inputs, but the outputs for a transposed convolution (the library deeppy)."""

    def fill(weight: Tensor) -> None:
        bound = 1 / math.sqrt(3 * math.prod(weight.shape[1:]))
        nn.init.uniform_(weight, -bound, bound)

    return _rule(fill)


def glorot(gain: float = 1.0, bias: float | None = 0.0) -> Rule:
    """Uniform weights of standard deviation gain * sqrt(2 / (fan_in + fan_out)); the fans include the kernel's area."""
    return _rule(lambda w: nn.init.xavier_uniform_(w, gain), bias)


def he() -> Rule:
    """Weights N(0, 2 / fan_in), biases 0."""
    return _rule(nn.init.kaiming_normal_)


def fan_in(gain: float = 1.0) -> Rule:
    """Weights N(0, gain^2 / fan_in), biases 0; ``he`` is that with a gain of the root of 2."""
    return _rule(lambda w: nn.init.normal_(w, 0.0, gain / math.sqrt(math.prod(w.shape[1:]))))


def orthogonal(gain: float = 1.0) -> Rule:
    """Orthogonal weights times ``gain``, biases 0."""
    return _rule(lambda w: nn.init.orthogonal_(w, gain=gain))


def zeros() -> Rule:
    """Weights and biases 0."""
    return _rule(nn.init.zeros_)


def torch_default(layer: nn.Module) -> None:
    """A rule: PyTorch's own initialization, drawn anew."""
    reset = layer.reset_parameters
    assert callable(reset)
    reset()
