"""LAPGAN's networks: for each level of a Laplacian pyramid a generator and a discriminator of its own.

E. Denton, S. Chintala, A. Szlam, R. Fergus, "Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks", 2015,
arXiv 1506.05751; layers and initial weights as in the authors' code (cifar/train). Level 0 is the coarsest and makes a small image from noise;
each further level makes from noise and the enlarged coarser image what that image lacks. Levels share nothing and are trained apart; the whole
network only samples.

The paper's step from 8x8 to 14x14 is no factor of two: both resizings go to a size that is named. Where we differ: resizing is
bilinear with half-pixel centers, downwards with a filter as wide as the step. With classes, level 0 takes them beside its input as
ones and zeros, as in the authors' code; the initial weights are those without classes, there Torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.layers import conditioned
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


def shrunk(x: Tensor, side: int) -> Tensor:
    """d of the paper: [N, C, H, W] blurred and resized to ``side``."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)


def enlarged(x: Tensor, side: int) -> Tensor:
    """u of the paper: [N, C, H, W] resized to ``side``."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def pyramid(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The images I_k at each of ``sizes`` (ascending), each made of the next larger one; the last is x at the last size."""
    images = [x if x.shape[-1] == sizes[-1] else shrunk(x, sizes[-1])]
    for side in reversed(sizes[:-1]):
        images.insert(0, shrunk(images[0], side))
    return images


class ClassPlane(nn.Module):
    """Classes int64 [N] -> one plane [N, 1, side, side]: a linear layer of ones and zeros, ReLU."""

    def __init__(self, classes: int, side: int):
        super().__init__()
        self.classes, self.side = classes, side
        self.linear = nn.Linear(classes, side * side)

    def forward(self, y: Tensor | None) -> Tensor:
        plane = self.linear(one_hot(conditioned(y), self.classes, self.linear.weight.dtype)).relu()
        return plane.unflatten(1, (1, self.side, self.side))


def _normal(network: nn.Module, deviation: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, deviation)
            nn.init.zeros_(module.bias)


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
        _normal(self, 0.05)

    def forward(self, z: Tensor, l: None = None, y: Tensor | None = None) -> Tensor:
        z = torch.cat([z, one_hot(conditioned(y), self.classes, z.dtype)], 1) if self.classes else z
        return self.layers(z).unflatten(1, self.shape)


class ResidualGenerator(nn.Module):
    """A further level: z [N, side^2], the enlarged coarser image l [N, C, side, side] -> what l lacks, h [N, C, side, side],
    any real numbers. Convolutions 7x7, 7x7, 5x5 on l and a plane of noise (and one of the class); torch's initial weights."""

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
class LaplacianGenerator(nn.Module):
    """Noise [N, any number of levels' noise] -> images: as many levels speak as there is noise for.

    ``sizes``: sides of the levels, ascending. ``latent``: numbers of noise at level 0; a further level takes a plane of its
    own size. ``hidden``: of level 0. ``widths``: of the further levels. ``levels[k](z, l, y)``: one level alone.
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
        self.sizes, self.classes = _checked(sizes, widths), classes
        levels = [CoarseGenerator(channels, sizes[0], latent, hidden, classes)]
        levels += [ResidualGenerator(channels, s, w, classes) for s, w in zip(sizes[1:], widths, strict=True)]
        self.levels = nn.ModuleList(levels)
        self.noise = tuple(level.noise for level in levels)
        self.latent = sum(self.noise)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """z [N, sum of the noise of the first levels], y int64 [N] or None without classes -> [N, C, H, W] at the size of the
        last level that has noise. ValueError where z ends amid a level's noise."""
        x, rest = None, z
        for level, size, noise in zip(self.levels, self.sizes, self.noise, strict=True):
            if not rest.shape[1]:
                break
            if rest.shape[1] < noise:
                raise ValueError(f"noise of {z.shape[1]} numbers: the levels take {', '.join(map(str, self.noise))}")
            mine, rest = rest[:, :noise], rest[:, noise:]
            if x is None:
                x = level(mine, y=y)
            else:
                l = enlarged(x, size)
                x = l + level(mine, l, y)
        return x


class CoarseDiscriminator(nn.Module):
    """Level 0: image -> logit [N]; two hidden ReLU layers, each followed by dropout. Weights N(0, 0.005^2), biases 0."""

    def __init__(self, channels: int, side: int, hidden: Sequence[int], drop: float, classes: int):
        super().__init__()
        self.classes = classes
        first, second = hidden
        self.layers = nn.Sequential(
            nn.Linear(channels * side * side + classes, first), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(first, second), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(second, 1),
        )  # fmt: skip
        _normal(self, 0.005)

    def forward(self, h: Tensor, l: None = None, y: Tensor | None = None) -> Tensor:
        x = h.flatten(1)
        x = torch.cat([x, one_hot(conditioned(y), self.classes, x.dtype)], 1) if self.classes else x
        return self.layers(x)[:, 0]


class ResidualDiscriminator(nn.Module):
    """A further level: h and l [N, C, side, side] -> logit [N]. It sees their sum, the image that h makes of l."""

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
class LaplacianDiscriminator(nn.Module):
    """The levels' discriminators, ``levels[k](h, l, y)``; there is none of the whole. Arguments as LaplacianGenerator's;
    ``drop``: share of units dropped in training."""

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
        self.sizes, self.classes = _checked(sizes, widths), classes
        levels = [CoarseDiscriminator(channels, sizes[0], hidden, drop, classes)]
        levels += [ResidualDiscriminator(channels, s, w, drop, classes) for s, w in zip(sizes[1:], widths, strict=True)]
        self.levels = nn.ModuleList(levels)


def _checked(sizes: Sequence[int], widths: Sequence[int]) -> tuple[int, ...]:
    """The sizes. ValueError unless they ascend, there is a width for each but the first, and the convolutions fit."""
    if list(sizes) != sorted(set(sizes)) or len(sizes) < 1 or sizes[0] < 1:
        raise ValueError(f"sizes={tuple(sizes)}: must ascend")
    if len(widths) != len(sizes) - 1:
        raise ValueError(
            f"widths={tuple(widths)}: must be {len(sizes) - 1} numbers, one for each level but the coarsest"
        )
    if len(sizes) > 1 and sizes[1] < 9:
        raise ValueError(f"sizes={tuple(sizes)}: all but the first must be 9 or more")
    return tuple(sizes)
