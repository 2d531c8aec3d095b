"""Fully connected networks: plain ones for points and flat images, and the maxout nets of GAN and cGAN.

- I. Goodfellow et al., Generative Adversarial Networks, 2014, arXiv 1406.2661 (the released YAML files).
- M. Mirza, S. Osindero, Conditional Generative Adversarial Nets, 2014, arXiv 1411.1784 (section 4.1).
- M. Arjovsky et al., Wasserstein GAN, 2017, arXiv 1701.07875 (the ReLU MLPs).

``resolution=0`` means that x is a point [N, D] with D = ``channels``; otherwise x is an image [N, C, H, W]
with H = W = ``resolution``. cGAN names no initialization and not where its dropout sits: we take the
deviations of the group's GAN code, and drop hidden units only (half of the inputs of each layer but the
first ones).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks.layers import Linear
from zoo.registry import NETWORKS

ACTIVATIONS = {None: nn.Identity, "relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def one_hot(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[N] int64 -> [N, classes] of zeros and ones. Unlike torch's it reads no value back."""
    return (y[:, None] == torch.arange(classes, device=y.device)).to(dtype)


def uniform_(layer: nn.Linear, scale: float) -> nn.Linear:
    """Weights from U(-scale, scale), bias zero."""
    nn.init.uniform_(layer.weight, -scale, scale)
    nn.init.zeros_(layer.bias)
    return layer


def orthogonal_(layer: nn.Linear, scale: float) -> nn.Linear:
    """Orthogonal weights times ``scale``, bias zero."""
    nn.init.orthogonal_(layer.weight, gain=scale)
    nn.init.zeros_(layer.bias)
    return layer


def he_(layer: nn.Linear, scale: float) -> nn.Linear:
    """Weights N(0, 2 / inputs), bias zero, whatever ``scale``."""
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


INITS = {"default": lambda layer, scale: layer, "uniform": uniform_, "orthogonal": orthogonal_, "he": he_}


def _shape(channels: int, resolution: int) -> tuple[int, ...]:
    return (channels, resolution, resolution) if resolution else (channels,)


def _choice(table: dict, key: str, value):
    if value not in table:
        raise ValueError(f"{key}={value!r} is not one of {', '.join(map(repr, table))}")
    return table[value]


def _each(key: str, value, count: int) -> list:
    """One value for each of ``count`` layers: a sequence gives its own to each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{key}={value!r} has {len(values)} values, for {count} layers; give one, or {count}")
    return values


def mlp(
    sizes: Sequence[int], activation, output: str | None, init: str, scale, sn: bool = False, norm: bool = False
) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` to ``sizes[-1]``.

    ``activation`` (of hidden layers) and ``scale`` (of all layers): one value, or one a layer. ``sn``: every layer
    spectrally normalized. ``norm``: batch norm before each hidden activation.
    """
    count = len(sizes) - 1
    activations = [*_each("activation", activation, count - 1), output]
    fill = _choice(INITS, "init", init)
    layers = []
    for i, (name, s) in enumerate(zip(activations, _each("scale", scale, count), strict=True)):
        layer = Linear(sizes[i], sizes[i + 1], sn=True) if sn else nn.Linear(sizes[i], sizes[i + 1])
        layers.append(fill(layer, s))
        if norm and i < count - 1:
            layers.append(nn.BatchNorm1d(sizes[i + 1]))
        if name is not None:
            layers.append(_choice(ACTIVATIONS, "activation", name)())
    return nn.Sequential(*layers)


def output_mean_(layer: nn.Linear, mean: Tensor | float) -> None:
    """Bias = logit of ``mean``, a pixel mean in [0, 1] clipped to [1e-7, 1 - 1e-7] (GAN's code), so that
    a sigmoid after ``layer`` starts at the mean image."""
    with torch.no_grad():
        mean = torch.as_tensor(mean, dtype=layer.bias.dtype, device=layer.bias.device)
        layer.bias.copy_(torch.logit(mean, eps=1e-7).flatten())


@NETWORKS.register("mlp-generator")
class MlpGenerator(nn.Module):
    """z [N, latent] -> x [N, channels] (``resolution=0``) or [N, C, H, W].

    ``output``: None (any real), "tanh" (-1 to 1) or "sigmoid" (0 to 1). ``init``: "default" (PyTorch's),
    "uniform" (weights in +-``scale``, biases 0), "orthogonal" (gain ``scale``, biases 0) or "he" (N(0, 2 / inputs), biases 0).
    ``norm``: batch norm in the hidden layers.
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
            raise ValueError(f"output={self.output!r}: only a G with output='sigmoid' can start at the mean image")
        output_mean_(self.layers[-2], mean)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


@NETWORKS.register("mlp-discriminator")
class MlpDiscriminator(nn.Module):
    """x [N, channels] or [N, C, H, W] -> logit (or critic value) [N]. Arguments as MlpGenerator's; ``sn``: spectral
    normalization of every layer."""

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

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, [N, hidden[-1]]."""
        return self.layers(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


class Maxout(nn.Module):
    """[N, inputs] -> [N, units]: each unit the largest of ``pieces`` linear functions (arXiv 1302.4389)."""

    def __init__(self, inputs: int, units: int, pieces: int, scale: float):
        super().__init__()
        self.linear = uniform_(nn.Linear(inputs, units * pieces), scale)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


@NETWORKS.register("maxout-discriminator")
class MaxoutDiscriminator(nn.Module):
    """GAN's D: two maxout layers and a linear one; x [N, C, H, W] or [N, channels] -> logit [N].

    Dropout on each layer's input, kept values scaled up: ``drop[0]`` of the pixels, ``drop[1]`` of hidden
    units.
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
        self.head = nn.Sequential(nn.Dropout(drop[1]), uniform_(nn.Linear(units, 1), scale))

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, [N, units]."""
        return self.layers(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


@NETWORKS.register("cgan-generator")
class CganGenerator(nn.Module):
    """cGAN's G: z [N, latent] and y [N] (int64) each through a ReLU layer, joined, another one, a sigmoid:
    x [N, C, H, W] (or [N, channels]) in (0, 1). Half of the hidden units are dropped in training."""

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
        for_z, for_y, joint = hidden
        self.z = uniform_(nn.Linear(latent, for_z), scale)
        self.y = uniform_(nn.Linear(classes, for_y), scale)
        self.joint = uniform_(nn.Linear(for_z + for_y, joint), scale)
        self.out = uniform_(nn.Linear(joint, math.prod(self.shape)), scale)
        self.drop = nn.Dropout(drop)

    def set_output_mean(self, mean: Tensor | float) -> None:
        """Start at the mean image: ``mean`` [C, H, W] (or a number) in [0, 1]."""
        output_mean_(self.out, mean)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = torch.cat([self.z(z), self.y(one_hot(y, self.classes, z.dtype))], 1).relu()  # [N, 200 + 1000]
        h = self.joint(self.drop(h)).relu()  # [N, 1200]
        return self.out(self.drop(h)).sigmoid().unflatten(1, self.shape)


@NETWORKS.register("cgan-discriminator")
class CganDiscriminator(nn.Module):
    """cGAN's D: x [N, C, H, W] (or [N, channels]) and y [N] (int64) each through a maxout layer, joined,
    a third one of its own piece count, a logit [N]. ``units`` and ``pieces``: for x, for y, joint."""

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
        self.out = uniform_(nn.Linear(units[2], 1), scale)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = torch.cat([self.x(x.flatten(1)), self.y(one_hot(y, self.classes, x.dtype))], 1)  # [N, 240 + 50]
        h = self.joint(self.drop(h))  # [N, 240]
        return self.out(self.drop(h)).squeeze(1)
