"""DCGAN's networks, which WGAN uses too.

A. Radford, L. Metz, S. Chintala, Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks, 2015, arXiv 1511.06434.

There are two sets of networks of this name:

- the paper and the authors' Theano code: 5x5 kernels (``kernel=5``), batch norm on each unit of the projected vector
  (``norm="units"``), width 128, and for 28x28 digits a network that takes the class at each layer;
- the authors' Torch code, from which most others descend: 4x4 kernels, batch norm on each map, width 64.

In both only batch norm has biases. Weights start at N(0, .02^2), batch norm's gains at N(1, .02^2).

Differences from the paper:
- The projection z -> 4x4 maps, a transposed convolution in the Torch code, is a linear layer here, as is D's last
  convolution: the same function and number of weights, and faster.
- The Theano code has no running averages and samples with the batch's statistics; ours are ordinary batch norms.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import initialize, normal
from zoo.networks.layers import require_classes
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


def halvings(resolution: int, side: int = 4) -> int:
    """How many halvings reduce an image of ``resolution`` to ``side`` x ``side``."""
    count = (resolution // side).bit_length() - 1
    if count < 1 or resolution != side << count:
        sizes = "a power of two, 8 or more" if side == 4 else f"{side} times a power of two"
        raise ValueError(f"resolution={resolution}: must be {sizes} for DCGAN's networks")
    return count


def down(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Halves height and width; kernel 4 or 5."""
    return nn.Conv2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, bias=False)


def up(inputs: int, outputs: int, kernel: int) -> nn.ConvTranspose2d:
    """Doubles height and width; kernel 4 or 5."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, kernel % 2, bias=False)


def check_kernel(kernel: int) -> None:
    if kernel not in (4, 5):
        raise ValueError(f"kernel={kernel}: must be 4 (the Torch code) or 5 (the paper)")


@NETWORKS.register("dcgan-generator")
class DCGANGenerator(nn.Module):
    """z [N, latent] -> x [N, channels, resolution, resolution] in (-1, 1).

    Args:
        channels, resolution: of the images; the resolution must be ``side`` times a power of two.
        latent: numbers of noise.
        width: maps before the last layer; each layer before it has twice as many.
        kernel: 4 or 5.
        norm: batch norm of the first layer: of each of its "maps", or of each of its "units" by itself.
        eps: of the batch norms.
        side: height and width of the first maps.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        latent: int = 100,
        width: int = 64,
        kernel: int = 4,
        norm: str = "maps",
        eps: float = 1e-5,
        side: int = 4,
    ):
        super().__init__()
        check_kernel(kernel)
        if norm not in ("maps", "units"):
            raise ValueError(f"norm={norm!r}: must be 'maps' or 'units'")
        self.latent = latent
        maps = [width << i for i in reversed(range(halvings(resolution, side)))]  # 64x64: 8w, 4w, 2w, w
        fold, units = nn.Unflatten(1, (maps[0], side, side)), maps[0] * side * side
        first = [nn.BatchNorm1d(units, eps), fold] if norm == "units" else [fold, nn.BatchNorm2d(maps[0], eps)]
        self.project = nn.Sequential(nn.Linear(latent, units, bias=False), *first, nn.ReLU(inplace=True))
        layers: list[nn.Module] = []
        for a, b in pairwise(maps):
            layers += [up(a, b, kernel), nn.BatchNorm2d(b, eps), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, up(width, channels, kernel), nn.Tanh())
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.project(z))  # [N, maps, side, side], then twice the size per layer


@NETWORKS.register("dcgan-discriminator")
class DCGANDiscriminator(Discriminator):
    """x [N, channels, resolution, resolution] -> logit (WGAN: critic value) [N].

    Real and fake images should come in separate passes, as in the authors' code.

    Args:
        channels, resolution: of the images; the resolution must be ``side`` times a power of two.
        width: maps of the first layer, which has no batch norm; each further layer has twice as many.
        kernel: 4 or 5.
        eps: of the batch norms.
        side: height and width of the last maps.
        activation: "leaky-relu" (of slope 0.2) or "elu".
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        width: int = 64,
        kernel: int = 4,
        eps: float = 1e-5,
        side: int = 4,
        activation: str = "leaky-relu",
    ):
        super().__init__()
        check_kernel(kernel)
        if activation not in ("leaky-relu", "elu"):
            raise ValueError(f"activation={activation!r}: must be 'leaky-relu' or 'elu'")

        def act() -> nn.Module:
            return nn.ELU(inplace=True) if activation == "elu" else nn.LeakyReLU(0.2, inplace=True)

        maps = [width << i for i in range(halvings(resolution, side))]  # 64x64: w, 2w, 4w, 8w
        layers: list[nn.Module] = [down(channels, width, kernel), act()]
        for a, b in pairwise(maps):
            layers += [down(a, b, kernel), nn.BatchNorm2d(b, eps), act()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(maps[-1] * side * side, 1, bias=False)
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, flat: [N, maps * side^2]."""
        return self.layers(x).flatten(1)


def _quarter(resolution: int) -> int:
    if resolution < 4 or resolution % 4:
        raise ValueError(f"resolution={resolution}: must be a multiple of 4, such as 28, for DCGAN's digit networks")
    return resolution // 4


def _join(h: Tensor, y: Tensor) -> Tensor:
    """Append y [N, classes] to h [N, F], or as constant planes to h [N, C, H, W]."""
    return torch.cat([h, y if h.dim() == 2 else y[:, :, None, None].expand(-1, -1, *h.shape[2:])], 1)


@NETWORKS.register("dcgan-digit-generator")
class DCGANDigitGenerator(nn.Module):
    """The authors' conditional G for MNIST: z [N, latent], y [N] (int64) -> x [N, channels, H, W] in (0, 1).

    y is appended to the input of every layer; batch norm has no gain and bias. ``hidden``: units of the first layer.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 10,
        latent: int = 100,
        width: int = 64,
        hidden: int = 1024,
        eps: float = 1e-8,
    ):
        super().__init__()
        self.latent, self.classes, self.shape = latent, classes, (2 * width, *[_quarter(resolution)] * 2)
        units = 2 * width * self.shape[1] ** 2
        self.l1 = nn.Linear(latent + classes, hidden, bias=False)
        self.l2 = nn.Linear(hidden + classes, units, bias=False)
        self.l3 = up(2 * width + classes, width, 5)
        self.l4 = up(width + classes, channels, 5)
        self.n1 = nn.BatchNorm1d(hidden, eps, affine=False)
        self.n2 = nn.BatchNorm1d(units, eps, affine=False)
        self.n3 = nn.BatchNorm2d(width, eps, affine=False)
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        y = one_hot(y, self.classes, z.dtype)
        h = self.n1(self.l1(_join(z, y))).relu()  # [N, 1024]
        h = self.n2(self.l2(_join(h, y))).relu().unflatten(1, self.shape)  # [N, 128, 7, 7]
        h = self.n3(self.l3(_join(h, y))).relu()  # [N, 64, 14, 14]
        return self.l4(_join(h, y)).sigmoid()


@NETWORKS.register("dcgan-digit-discriminator")
class DCGANDigitDiscriminator(Discriminator):
    """The authors' conditional D for MNIST: x [N, channels, H, W], y [N] (int64) -> logit [N].

    y is appended to the input of every layer. ``hidden``: units of the linear layer.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 10,
        width: int = 64,
        hidden: int = 1024,
        eps: float = 1e-8,
    ):
        super().__init__()
        self.classes = classes
        self.l1 = down(channels + classes, width, 5)
        self.l2 = down(width + classes, 2 * width, 5)
        self.l3 = nn.Linear(2 * width * _quarter(resolution) ** 2 + classes, hidden, bias=False)
        self.l4 = nn.Linear(hidden + classes, 1, bias=False)
        self.n2 = nn.BatchNorm2d(2 * width, eps, affine=False)
        self.n3 = nn.BatchNorm1d(hidden, eps, affine=False)
        self.act = nn.LeakyReLU(0.2)
        initialize(self, normal(0.02), norms=normal(0.02, mean=1.0))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, hidden]."""
        y = one_hot(require_classes(condition(given, "y")), self.classes, x.dtype)
        h = self.act(self.l1(_join(x, y)))  # [N, 64, 14, 14]
        h = self.act(self.n2(self.l2(_join(h, y)))).flatten(1)  # [N, 128 * 7 * 7]
        return self.act(self.n3(self.l3(_join(h, y))))

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        y = one_hot(require_classes(condition(given, "y")), self.classes, h.dtype)
        return self.l4(_join(h, y)).squeeze(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # only y
        return super().forward(x, y=y)
