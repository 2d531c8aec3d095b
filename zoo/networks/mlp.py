"""Fully connected networks: plain ones for points and images, and the maxout networks of GAN and cGAN.

- I. Goodfellow et al., Generative Adversarial Networks, 2014, arXiv 1406.2661 (the released YAML files).
- M. Mirza, S. Osindero, Conditional Generative Adversarial Nets, 2014, arXiv 1411.1784 (section 4.1).
- M. Arjovsky et al., Wasserstein GAN, 2017, arXiv 1701.07875 (the ReLU MLPs).

``resolution=0`` means that x is a point [N, D] with D = ``channels``; otherwise x is an image [N, C, H, W]
with H = W = ``resolution``.

Differences from the papers:
- cGAN's paper states neither the initial weights nor the places of dropout. We take the initial weights of the group's
  GAN code, and drop half of the inputs of each layer except the first ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import Rule, he, orthogonal, uniform
from zoo.networks.layers import Linear, require_classes
from zoo.registry import NETWORKS

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
INITS: dict[str, Callable[[float], Rule | None]] = {  # name -> rule at a scale; None: the layer's own initialization
    "default": lambda scale: None,
    "uniform": uniform,
    "orthogonal": orthogonal,
    "he": lambda scale: he(),
}
T = TypeVar("T")
Value = TypeVar("Value", str, float)


def one_hot(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[N] int64 -> [N, classes] of zeros and ones. Unlike torch's it needs no host sync."""
    return (y[:, None] == torch.arange(classes, device=y.device)).to(dtype)


def uniform_linear(inputs: int, outputs: int, bound: float) -> nn.Linear:
    """A linear layer with weights U(-bound, bound), biases 0."""
    layer = nn.Linear(inputs, outputs)
    uniform(bound)(layer)
    return layer


def _shape(channels: int, resolution: int) -> tuple[int, ...]:
    return (channels, resolution, resolution) if resolution else (channels,)


def _choice(table: Mapping[str, T], key: str, value: str) -> T:
    if value not in table:
        raise ValueError(f"{key}={value!r}: must be one of {', '.join(map(repr, table))}")
    return table[value]


def _per_layer(key: str, value: Value | Sequence[Value], count: int) -> list[Value]:
    """One value for each of ``count`` layers, from one for all of them or one per layer."""
    values = [value] * count if isinstance(value, (str, int, float)) else list(value)
    if len(values) != count:
        raise ValueError(f"{key}={value!r}: must be 1 or {count} values, got {len(values)}")
    return values


def mlp(
    sizes: Sequence[int],
    activation: str | Sequence[str],
    output: str | None,
    init: str,
    scale: float | Sequence[float],
    sn: bool = False,
    norm: bool = False,
) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` to ``sizes[-1]``.

    Args:
        sizes: units of the input, of each hidden layer and of the output.
        activation: of the hidden layers: one of ``ACTIVATIONS``, or one per layer.
        output: activation of the last layer, None for none.
        init: one of ``INITS``.
        scale: of the initial weights: one value, or one per layer.
        sn: spectral normalization of every layer.
        norm: batch norm before each hidden activation.
    """
    count = len(sizes) - 1
    activations: list[str | None] = [*_per_layer("activation", activation, count - 1), output]
    rule = _choice(INITS, "init", init)
    layers: list[nn.Module] = []
    for i, (name, s) in enumerate(zip(activations, _per_layer("scale", scale, count), strict=True)):
        layer = Linear(sizes[i], sizes[i + 1], sn=True) if sn else nn.Linear(sizes[i], sizes[i + 1])
        fill = rule(s)
        if fill is not None:
            fill(layer)
        layers.append(layer)
        if norm and i < count - 1:
            layers.append(nn.BatchNorm1d(sizes[i + 1]))
        if name is not None:
            layers.append(_choice(ACTIVATIONS, "activation", name)())
    return nn.Sequential(*layers)


def set_output_mean(layer: nn.Module, mean: Tensor | float) -> None:
    """Set the bias of a linear layer to the logit of ``mean``, a pixel mean in [0, 1] clipped to [1e-7, 1 - 1e-7]
    (GAN's code), so that a sigmoid after the layer starts at the mean image."""
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        mean = torch.as_tensor(mean, dtype=layer.bias.dtype, device=layer.bias.device)
        layer.bias.copy_(torch.logit(mean, eps=1e-7).flatten())


@NETWORKS.register("mlp-generator")
class MLPGenerator(nn.Module):
    """z [N, latent] -> x [N, channels] (``resolution=0``) or [N, C, H, W].

    Args:
        channels, resolution: of the images; ``resolution=0``: points of ``channels`` dimensions.
        latent: numbers of noise.
        hidden: units of the hidden layers.
        activation: of the hidden layers ("relu", "elu", "tanh" or "sigmoid"), one for all or one per layer.
        output: None (any real number), "tanh" (-1 to 1) or "sigmoid" (0 to 1).
        init: "default" (PyTorch's), "uniform" (weights in +-``scale``, biases 0), "orthogonal" (gain ``scale``, biases
            0) or "he" (weights N(0, 2 / inputs), biases 0).
        scale: of the initial weights, one for all layers or one per layer.
        norm: batch norm in the hidden layers.
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 0,
        latent: int = 100,
        hidden: Sequence[int] = (1200, 1200),
        activation: str | Sequence[str] = "relu",
        output: str | None = None,
        init: str = "default",
        scale: float | Sequence[float] = 0.05,
        norm: bool = False,
    ):
        super().__init__()
        self.latent, self.shape = latent, _shape(channels, resolution)
        self.layers = mlp([latent, *hidden, math.prod(self.shape)], activation, output, init, scale, norm=norm)
        self.output = output

    def set_output_mean(self, mean: Tensor | float) -> None:
        """Start at the mean image: ``mean`` [C, H, W] (or a number) in [0, 1]. Needs ``output="sigmoid"``."""
        if self.output != "sigmoid":
            raise ValueError(f"output={self.output!r}: must be output='sigmoid' to start at the mean image")
        set_output_mean(self.layers[-2], mean)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


@NETWORKS.register("mlp-discriminator")
class MLPDiscriminator(Discriminator):
    """x [N, channels] or [N, C, H, W] -> logit (or critic value) [N]. Arguments as for :class:`MLPGenerator`;
    ``sn``: spectral normalization of every layer."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 0,
        hidden: Sequence[int] = (512, 512, 512),
        activation: str | Sequence[str] = "relu",
        init: str = "default",
        scale: float | Sequence[float] = 0.05,
        sn: bool = False,
    ):
        super().__init__()
        sizes = [math.prod(_shape(channels, resolution)), *hidden, 1]
        layers = mlp(sizes, activation, None, init, scale, sn)
        self.layers, self.head = layers[:-1], layers[-1]

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, hidden[-1]]."""
        return self.layers(x.flatten(1))


class Maxout(nn.Module):
    """[N, inputs] -> [N, units]: each unit is the maximum of ``pieces`` linear functions (arXiv 1302.4389)."""

    def __init__(self, inputs: int, units: int, pieces: int, scale: float):
        super().__init__()
        self.linear = uniform_linear(inputs, units * pieces, scale)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


@NETWORKS.register("maxout-discriminator")
class MaxoutDiscriminator(Discriminator):
    """GAN's D: two maxout layers and a linear one; x [N, C, H, W] or [N, channels] -> logit [N].

    ``units``, ``pieces``: of the maxout layers. ``scale``: bound of the uniform initial weights. ``drop``: dropout
    rates of the pixels and of the hidden units.
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 0,
        units: int = 240,
        pieces: int = 5,
        scale: float = 0.005,
        drop: tuple[float, float] = (0.2, 0.5),
    ):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(drop[0]),
            Maxout(math.prod(_shape(channels, resolution)), units, pieces, scale),
            nn.Dropout(drop[1]),
            Maxout(units, units, pieces, scale),
        )
        self.head = nn.Sequential(nn.Dropout(drop[1]), uniform_linear(units, 1, scale))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, units]."""
        return self.layers(x.flatten(1))


@NETWORKS.register("cgan-generator")
class CGANGenerator(nn.Module):
    """cGAN's G: z [N, latent], y [N] (int64) -> x [N, C, H, W] (or [N, channels]) in (0, 1).

    A ReLU layer each for z and y, a joint ReLU layer, a sigmoid layer. ``hidden``: units for z, for y, joint.
    ``scale``: bound of the uniform initial weights. ``drop``: dropout rate of the hidden units.
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 0,
        classes: int,
        latent: int = 100,
        hidden: tuple[int, int, int] = (200, 1000, 1200),
        scale: float = 0.05,
        drop: float = 0.5,
    ):
        super().__init__()
        self.latent, self.classes, self.shape = latent, classes, _shape(channels, resolution)
        z_units, y_units, joint = hidden
        self.z = uniform_linear(latent, z_units, scale)
        self.y = uniform_linear(classes, y_units, scale)
        self.joint = uniform_linear(z_units + y_units, joint, scale)
        self.out = uniform_linear(joint, math.prod(self.shape), scale)
        self.drop = nn.Dropout(drop)

    def set_output_mean(self, mean: Tensor | float) -> None:
        """Start at the mean image: ``mean`` [C, H, W] (or a number) in [0, 1]."""
        set_output_mean(self.out, mean)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = torch.cat([self.z(z), self.y(one_hot(y, self.classes, z.dtype))], 1).relu()  # [N, 200 + 1000]
        h = self.joint(self.drop(h)).relu()  # [N, 1200]
        return self.out(self.drop(h)).sigmoid().unflatten(1, self.shape)


@NETWORKS.register("cgan-discriminator")
class CGANDiscriminator(Discriminator):
    """cGAN's D: x [N, C, H, W] (or [N, channels]), y [N] (int64) -> logit [N].

    A maxout layer each for x and y, a joint maxout layer, a linear layer. ``units``, ``pieces``: of the layers for x,
    for y and joint. ``scale``: bound of the uniform initial weights. ``drop``: dropout rate of the hidden units.
    """

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 0,
        classes: int,
        units: tuple[int, int, int] = (240, 50, 240),
        pieces: tuple[int, int, int] = (5, 5, 4),
        scale: float = 0.005,
        drop: float = 0.5,
    ):
        super().__init__()
        self.classes = classes
        self.x = Maxout(math.prod(_shape(channels, resolution)), units[0], pieces[0], scale)
        self.y = Maxout(classes, units[1], pieces[1], scale)
        self.joint = Maxout(units[0] + units[1], units[2], pieces[2], scale)
        self.out = uniform_linear(units[2], 1, scale)
        self.drop = nn.Dropout(drop)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, units[2]]."""
        y = one_hot(require_classes(condition(given, "y")), self.classes, x.dtype)
        return self.joint(self.drop(torch.cat([self.x(x.flatten(1)), self.y(y)], 1)))  # of [N, 240 + 50]

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        return self.out(self.drop(h)).squeeze(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # only y
        return super().forward(x, y=y)
