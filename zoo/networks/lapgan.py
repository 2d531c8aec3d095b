"""LAPGAN's networks: for each level of a Laplacian pyramid a generator and a discriminator of its own.

E. Denton, S. Chintala, A. Szlam, R. Fergus, "Deep Generative Image Models using a Laplacian Pyramid of Adversarial
Networks", 2015, arXiv 1506.05751; layers and initial weights as in the authors' code (cifar/train). Level 0 is the
coarsest and makes a small image from noise. Each further level takes noise and the upsampled coarser image and makes
the residual, which is added to that image. Levels share no weights and are trained separately; the whole network is for
sampling.

With classes, level 0 concatenates the one-hot class to its input, as in the authors' code.

Differences from the paper:
- Resizing is bilinear with half-pixel centers, with an antialiasing filter on the way down. It takes the new size,
  because the paper's step from 8x8 to 14x14 is not a factor of two.
- With classes, the initial weights of level 0 are those of the network without classes; the authors' are Torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.init import initialize, normal
from zoo.networks.layers import require_classes
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


def downsample(x: Tensor, side: int) -> Tensor:
    """d of the paper: [N, C, H, W] -> [N, C, side, side], with an antialiasing filter."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)


def upsample(x: Tensor, side: int) -> Tensor:
    """u of the paper: [N, C, H, W] -> [N, C, side, side]."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def pyramid(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The images I_k at each of ``sizes`` (ascending), each downsampled from the next larger one; the last is x at the
    last size."""
    images = [x if x.shape[-1] == sizes[-1] else downsample(x, sizes[-1])]
    for side in reversed(sizes[:-1]):
        images.insert(0, downsample(images[0], side))
    return images


class ClassPlane(nn.Module):
    """Classes int64 [N] -> one plane [N, 1, side, side]: a linear layer of the one-hot class, ReLU."""

    def __init__(self, classes: int, side: int):
        super().__init__()
        self.classes, self.side = classes, side
        self.linear = nn.Linear(classes, side * side)

    def forward(self, y: Tensor | None) -> Tensor:
        plane = self.linear(one_hot(require_classes(y), self.classes, self.linear.weight.dtype)).relu()
        return plane.unflatten(1, (1, self.side, self.side))


class CoarseGenerator(nn.Module):
    """Level 0: z [N, latent] -> image [N, C, side, side], two hidden ReLU layers. Weights N(0, 0.05^2), biases 0."""

    def __init__(self, channels: int, side: int, latent: int, hidden: Sequence[int], classes: int):
        super().__init__()
        self.noise, self.classes, self.shape = latent, classes, (channels, side, side)
        first, second = hidden
        self.layers = nn.Sequential(
            nn.Linear(latent + classes, first), nn.ReLU(),
            nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, math.prod(self.shape)),
        )  # fmt: skip
        initialize(self, normal(0.05))

    def forward(self, z: Tensor, l: None = None, y: Tensor | None = None) -> Tensor:
        z = torch.cat([z, one_hot(require_classes(y), self.classes, z.dtype)], 1) if self.classes else z
        return self.layers(z).unflatten(1, self.shape)


class ResidualGenerator(nn.Module):
    """A further level: z [N, side^2], the upsampled coarser image l [N, C, side, side] -> the residual h [N, C, side,
    side], any real numbers. Convolutions 7x7, 7x7, 5x5 on l and a plane of noise (and one of the class); PyTorch's
    initial weights."""

    def __init__(self, channels: int, side: int, width: int, classes: int):
        super().__init__()
        self.noise, self.side = side * side, side
        self.plane = ClassPlane(classes, side) if classes else None
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 1 + bool(classes), width, 7, padding=3), nn.ReLU(),
            nn.Conv2d(width, width, 7, padding=3), nn.ReLU(),
            nn.Conv2d(width, channels, 5, padding=2),
        )  # fmt: skip

    def forward(self, z: Tensor, l: Tensor, y: Tensor | None = None) -> Tensor:
        planes = [z.unflatten(1, (1, self.side, self.side)), l]
        return self.layers(torch.cat(planes + ([self.plane(y)] if self.plane else []), 1))


@NETWORKS.register("laplacian-generator")
class LAPGANGenerator(nn.Module):
    """Noise for the first levels [N, sum of their noise] -> images of the last level that has noise.

    ``levels[k](z, l, y)`` is one level alone.

    Args:
        channels: of the images.
        sizes: sides of the levels' images, ascending.
        classes: number of classes, 0 for none.
        latent: numbers of noise at level 0; a further level takes a plane of its own size.
        hidden: units of level 0.
        widths: maps of the further levels.
    """

    def __init__(
        self,
        *,
        channels: int,
        sizes: Sequence[int] = (8, 14, 28),
        classes: int = 0,
        latent: int = 100,
        hidden: Sequence[int] = (1200, 1200),
        widths: Sequence[int] = (64, 128),
    ):
        super().__init__()
        self.sizes, self.classes = _check_sizes(sizes, widths), classes
        levels: list[CoarseGenerator | ResidualGenerator]
        levels = [CoarseGenerator(channels, sizes[0], latent, hidden, classes)]
        levels += [ResidualGenerator(channels, s, w, classes) for s, w in zip(sizes[1:], widths, strict=True)]
        self.levels = nn.ModuleList(levels)
        self.noise = tuple(level.noise for level in levels)
        self.latent = sum(self.noise)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """z [N, sum of the noise of the first levels], y int64 [N] or None without classes -> [N, C, H, W] at the size
        of the last level that has noise. Raises ValueError if z is not the noise of whole levels."""
        count = next((k for k in range(1, len(self.noise) + 1) if sum(self.noise[:k]) == z.shape[1]), 0)
        if not count:
            numbers = ", ".join(map(str, self.noise))
            raise ValueError(f"z.shape[1]={z.shape[1]}: must be a sum of the first of the levels' {numbers}")
        first, *rest = z.split(self.noise[:count], 1)
        x = self.levels[0](first, y=y)  # [N, C, sizes[0], sizes[0]]
        for k, noise in enumerate(rest, 1):
            l = upsample(x, self.sizes[k])
            x = l + self.levels[k](noise, l, y)  # [N, C, sizes[k], sizes[k]]
        return x


class CoarseDiscriminator(nn.Module):
    """Level 0: image -> logit [N]; two hidden ReLU layers, each followed by dropout. Weights N(0, 0.005^2), biases
    0."""

    def __init__(self, channels: int, side: int, hidden: Sequence[int], drop: float, classes: int):
        super().__init__()
        self.classes = classes
        first, second = hidden
        self.layers = nn.Sequential(
            nn.Linear(channels * side * side + classes, first), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(first, second), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(second, 1),
        )  # fmt: skip
        initialize(self, normal(0.005))

    def forward(self, h: Tensor, l: None = None, y: Tensor | None = None) -> Tensor:
        x = h.flatten(1)
        x = torch.cat([x, one_hot(require_classes(y), self.classes, x.dtype)], 1) if self.classes else x
        return self.layers(x)[:, 0]


class ResidualDiscriminator(nn.Module):
    """A further level: h and l [N, C, side, side] -> logit [N] of the image h + l."""

    def __init__(self, channels: int, side: int, width: int, drop: float, classes: int):
        super().__init__()
        self.plane = ClassPlane(classes, side) if classes else None
        flat = ((side - 4) - 5) // 2 + 1
        self.layers = nn.Sequential(
            nn.Conv2d(channels + bool(classes), width, 5), nn.ReLU(),
            nn.Conv2d(width, width, 5, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Dropout(drop), nn.Linear(width * flat * flat, 1),
        )  # fmt: skip

    def forward(self, h: Tensor, l: Tensor, y: Tensor | None = None) -> Tensor:
        x = h + l
        return self.layers(torch.cat([x, self.plane(y)], 1) if self.plane else x)[:, 0]


@NETWORKS.register("laplacian-discriminator")
class LAPGANDiscriminator(nn.Module):
    """The levels' discriminators, ``levels[k](h, l, y)``; there is none for the whole image. Arguments as for
    :class:`LAPGANGenerator`; ``drop``: the dropout rate."""

    def __init__(
        self,
        *,
        channels: int,
        sizes: Sequence[int] = (8, 14, 28),
        classes: int = 0,
        hidden: Sequence[int] = (600, 600),
        widths: Sequence[int] = (64, 128),
        drop: float = 0.5,
    ):
        super().__init__()
        self.sizes, self.classes = _check_sizes(sizes, widths), classes
        levels: list[nn.Module] = [CoarseDiscriminator(channels, sizes[0], hidden, drop, classes)]
        levels += [ResidualDiscriminator(channels, s, w, drop, classes) for s, w in zip(sizes[1:], widths, strict=True)]
        self.levels = nn.ModuleList(levels)


def _check_sizes(sizes: Sequence[int], widths: Sequence[int]) -> tuple[int, ...]:
    """The sizes. Raises ValueError unless they ascend, there is a width for each but the first, and the convolutions
    fit."""
    if list(sizes) != sorted(set(sizes)) or len(sizes) < 1 or sizes[0] < 1:
        raise ValueError(f"sizes={tuple(sizes)}: must ascend")
    if len(widths) != len(sizes) - 1:
        raise ValueError(
            f"widths={tuple(widths)}: must be {len(sizes) - 1} numbers, one for each level above the coarsest"
        )
    if len(sizes) > 1 and sizes[1] < 9:
        raise ValueError(f"sizes={tuple(sizes)}: all but the first must be 9 or more")
    return tuple(sizes)
