"""LSGAN's networks: scenes at 112x112, and characters at 28x28 that take the class as a learned linear code.

X. Mao et al., Least Squares Generative Adversarial Networks, 2016, arXiv 1611.04076, as in the authors' code.
Convolutions start from N(0, .02^2) truncated at two standard deviations, other weights from N(0, .02^2), biases from 0.

Differences from the paper:
- TensorFlow pads a 5x5 stride-2 convolution by 1 on one side and 2 on the other; ours is the mirror image, equal in
  distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import initialize, normal, truncated_normal
from zoo.networks.layers import require_classes, smallest_side
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


def _initialize(network: nn.Module) -> None:
    initialize(network, normal(0.02), convolutions=truncated_normal(0.02))


def up(inputs: int, outputs: int, kernel: int, stride: int = 2) -> nn.ConvTranspose2d:
    """Multiplies height and width by ``stride``; for odd kernels."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, kernel // 2, stride - 1)


def down(inputs: int, outputs: int) -> nn.Conv2d:
    """5x5; halves height and width."""
    return nn.Conv2d(inputs, outputs, 5, 2, 2)


@NETWORKS.register("lsgan-generator")
class LSGANGenerator(nn.Module):
    """Scenes: z [N, latent] -> x [N, channels, H, W] in (-1, 1); H a multiple of 16.

    Seven 3x3 transposed convolutions, of stride 2, 1, 2, 1, 2, 2, 1; ``width``: the last hidden layer's maps.
    """

    def __init__(self, *, channels: int = 3, resolution: int = 112, latent: int = 1024, width: int = 64):
        super().__init__()
        self.latent = latent
        size, maps = smallest_side(resolution, 4, "LSGAN's networks"), 4 * width
        layers: list[nn.Module] = [nn.Linear(latent, maps * size * size), nn.Unflatten(1, (maps, size, size))]
        layers += [nn.BatchNorm2d(maps), nn.ReLU()]
        for outputs, stride in (4, 2), (4, 1), (4, 2), (4, 1), (2, 2), (1, 2):
            layers += [up(maps, outputs * width, 3, stride), nn.BatchNorm2d(outputs * width), nn.ReLU()]
            maps = outputs * width
        self.layers = nn.Sequential(*layers, up(maps, channels, 3, 1), nn.Tanh())
        _initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@NETWORKS.register("lsgan-discriminator")
class LSGANDiscriminator(Discriminator):
    """Scenes: x [N, channels, H, W] -> real number [N]; H a multiple of 16.

    Four 5x5 convolutions of stride 2, batch norm after all but the first; ``width``: the first one's maps.
    """

    def __init__(self, *, channels: int = 3, resolution: int = 112, width: int = 64):
        super().__init__()
        size = smallest_side(resolution, 4, "LSGAN's networks")
        layers: list[nn.Module] = [down(channels, width), nn.LeakyReLU(0.2)]
        for maps in width, 2 * width, 4 * width:
            layers += [down(maps, 2 * maps), nn.BatchNorm2d(2 * maps), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(8 * width * size * size, 1)
        _initialize(self)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, flat: [N, 8 * width * (resolution / 16)^2]."""
        return self.layers(x).flatten(1)


class Code(nn.Module):
    """y [N] -> [N, size]: a linear layer on the one-hot class, shared by the layers that take y. With ``size=0`` there
    is no class, and it returns None."""

    def __init__(self, classes: int, size: int):
        super().__init__()
        self.classes = classes if size else 0
        if size and not classes:
            raise ValueError(f"classes=0: must be 1 or more for embed={size}; without labels use embed=0")
        self.linear = nn.Linear(classes, size) if size else None

    def forward(self, y: Tensor | None) -> Tensor | None:
        if self.linear is None:
            return None
        return self.linear(one_hot(require_classes(y), self.classes, self.linear.weight.dtype))


def join(h: Tensor, code: Tensor | None) -> Tensor:
    """Append the code to h [N, F], or as constant planes to h [N, C, H, W]."""
    if code is None:
        return h
    return torch.cat([h, code if h.dim() == 2 else code[:, :, None, None].expand(-1, -1, *h.shape[2:])], 1)


@NETWORKS.register("lsgan-character-generator")
class LSGANCharacterGenerator(nn.Module):
    """Characters: z [N, latent] (and y [N], int64, with ``embed``) -> x [N, channels, H, W] in (0, 1).

    H a multiple of 4. ``embed``: size of the class code, 0 for no classes. The first batch norm treats each unit by
    itself.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 0,
        latent: int = 1024,
        width: int = 128,
        embed: int = 256,
    ):
        super().__init__()
        size = smallest_side(resolution, 2, "LSGAN's networks")
        self.code = Code(classes, embed)
        self.latent, self.classes = latent, self.code.classes
        self.layers = nn.Sequential(
            nn.Linear(latent + embed, width * size * size),
            nn.BatchNorm1d(width * size * size),
            nn.ReLU(),
            nn.Unflatten(1, (width, size, size)),
            up(width, width, 5),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            up(width, channels, 5),
            nn.Sigmoid(),
        )
        _initialize(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(join(z, self.code(y)))


@NETWORKS.register("lsgan-character-discriminator")
class LSGANCharacterDiscriminator(Discriminator):
    """Characters: x [N, channels, H, W] (and y [N], int64, with ``embed``) -> real number [N].

    H a multiple of 4. The class code is appended to the input of every layer but the first. ``maps``: of the two
    convolutions; the published ones are channels + embed and 64 + embed. ``hidden``: units of the linear layer.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 0,
        maps: tuple[int, int] = (257, 320),
        hidden: int = 1024,
        embed: int = 256,
    ):
        super().__init__()
        size = smallest_side(resolution, 2, "LSGAN's networks")
        self.code = Code(classes, embed)
        self.classes = self.code.classes
        self.l1 = down(channels, maps[0])
        self.l2 = down(maps[0] + embed, maps[1])
        self.l3 = nn.Linear(maps[1] * size * size + embed, hidden)
        self.l4 = nn.Linear(hidden + embed, 1)
        self.n2, self.n3 = nn.BatchNorm2d(maps[1]), nn.BatchNorm1d(hidden)
        self.act = nn.LeakyReLU(0.2)
        _initialize(self)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer and the class code, [N, hidden + embed]."""
        code = self.code(condition(given, "y"))
        h = self.act(self.l1(x))  # [N, 257, 14, 14]
        h = self.act(self.n2(self.l2(join(h, code)))).flatten(1)  # [N, 320 * 7 * 7]
        return join(self.act(self.n3(self.l3(join(h, code)))), code)  # of [N, 1024]

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        return self.l4(h).squeeze(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # only y
        return super().forward(x, **({} if y is None else {"y": y}))
