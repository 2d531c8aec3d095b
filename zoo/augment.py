"""Augmentations of the images on their way to a discriminator: ``Spec("adversarial", augment=Spec("diffaugment"))``.

Real and fake images are transformed alike in every turn, D's and G's, so that G learns the distribution of the images
before the transformation; the gradient passes through. Each image is transformed with numbers of its own, which are
drawn from the batch. A new augmentation is one class here (or in another distribution's ``zoo.augment`` entry point).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.game import Batch
from zoo.registry import AUGMENTATIONS


class Augmentation(nn.Module):
    """``augmentation(images, batch)``: a list of images of the same height and width, [N, C, H, W] each, transformed
    with the same numbers (an image and its image conditions), as a list.

    ``p``: the probability of each transformation, a buffer, so that a schedule can change it (``game.augment.p``). With
    p = 0 no value changes.

    ``target``: not None if p is adapted: ``record(scores)`` gets D's scores of reals after each step of D, and
    ``adapt()`` comes before the first step of each round.
    """

    p: Tensor
    target: float | None = None

    def record(self, scores: Tensor) -> None:
        """Count what p is adapted to."""
        raise AssertionError(f"the p of {type(self).__name__} is not adapted")

    def adapt(self) -> None:
        """Adapt p."""
        raise AssertionError(f"the p of {type(self).__name__} is not adapted")

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"game.augment.p={p}: must be from 0 to 1")
        self.register_buffer("p", torch.tensor(float(p)))


def numbers(sampler: Callable[..., Tensor], batch: Batch, x: Tensor, count: int) -> list[Tensor]:
    """``count`` numbers for each image of x: tensors [N] from ``batch.rand`` or ``batch.randn``. x may have several
    images a sample of the batch, one set after the other, of which the last one need not be whole."""
    sets = math.ceil(len(x) / batch.size)
    values = sampler(sets, count).transpose(0, 1).flatten(0, 1)  # [sets * batch, count]
    return list(values[: len(x)].unbind(1))


def per_image(value: Tensor) -> Tensor:
    """Numbers [N] as [N, 1, 1, 1]."""
    return value[:, None, None, None]


def steps(n: int, like: Tensor) -> Tensor:
    """0, 1, ..., n - 1 on the device and of the type of ``like``."""
    return torch.arange(n, device=like.device, dtype=like.dtype)


def cut(x: Tensor, chosen: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """x [N, C, H, W] with 0 in a rectangle of half its height and width around the point (row, column) [N], in pixels,
    if ``chosen`` [N]."""
    height, width = x.shape[2:]
    rows = (steps(height, row) + 0.5 - row[:, None]).abs() < height / 4  # [N, H]
    columns = (steps(width, column) + 0.5 - column[:, None]).abs() < width / 4  # [N, W]
    hole = (chosen[:, None] & rows)[:, None, :, None] & columns[:, None, None, :]
    return x.masked_fill(hole, 0.0)


def shift(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """x [N, C, H, W] moved by whole pixels [N], with zeros behind it."""
    height, width = x.shape[2:]
    rows = steps(height, down) - down[:, None]  # [N, H], from which each pixel comes
    columns = steps(width, right) - right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]  # [N, H, W]
    return torch.where(inside[:, None], pick(x, index.flatten(1)), torch.zeros_like(x))


def pick(x: Tensor, index: Tensor) -> Tensor:
    """The pixels of x [N, C, H, W] at places ``index`` [N, H * W], numbered by rows."""
    places = index.long()[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, places).view_as(x)


# DiffAugment ----------------------------------------------------------------------------------------------------------


@AUGMENTATIONS.register("diffaugment")
class DiffAugment(Augmentation):
    """S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han, Differentiable Augmentation for Data-Efficient GAN Training, 2020,
    arXiv 2006.10738, section 3.2; of images in [-1, 1].

    - ``color``: brightness + U(-0.5, 0.5), saturation x U(0, 2), contrast x U(0.5, 1.5);
    - ``translation``: by up to an eighth of the height and of the width, in whole pixels, with zeros behind;
    - ``cutout``: zeros in a square of half the size, whose center is anywhere in the image.

    Args:
        policy: the transformations, each one of these three, in their order. Raises ValueError for others.
        p: the probability of each; the paper's is 1.
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout"), p: float = 1.0):
        super().__init__(p)
        kinds = {"color": self.color, "translation": self.translation, "cutout": self.cutout}
        for kind in policy:
            if kind not in kinds:
                raise ValueError(f"game.augment.policy={tuple(policy)}: must be of {', '.join(kinds)}, got '{kind}'")
        self.policy = tuple(policy)

    def forward(self, images: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        result = list(images)
        for kind in self.policy:
            result = getattr(self, kind)(result, *numbers(batch.rand, batch, result[0], 4))
        return result

    def color(self, images: list[Tensor], chance: Tensor, a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        chosen = per_image(chance < self.p)
        return [torch.where(chosen, recolor(x, per_image(a), per_image(b), per_image(c)), x) for x in images]

    def translation(self, images: list[Tensor], chance: Tensor, a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        height, width = ((n + 4) // 8 for n in images[0].shape[2:])  # an eighth, rounded
        chosen = (chance < self.p).to(a.dtype)
        down, right = ((u * (2 * n + 1)).floor() - n for u, n in ((a, height), (b, width)))
        return [shift(x, down * chosen, right * chosen) for x in images]

    def cutout(self, images: list[Tensor], chance: Tensor, a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        row, column = ((u * (n + 1)).floor() for u, n in zip((a, b), images[0].shape[2:], strict=True))
        return [cut(x, chance < self.p, row, column) for x in images]

    def extra_repr(self) -> str:
        return f"policy={self.policy}"


def recolor(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """DiffAugment's colors, from numbers in [0, 1)."""
    x = x + (brightness - 0.5).to(x.dtype)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (2 * saturation).to(x.dtype)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5).to(x.dtype)


# ADA's transformations ------------------------------------------------------------------------------------------------


class Strength(NamedTuple):
    """ADA's ranges."""

    translation: float = 0.125  # of the size: bounds of whole pixels, and the deviation of fractions
    scale: float = 0.2  # deviation of the binary logarithm
    brightness: float = 0.2  # deviation
    contrast: float = 0.5  # deviations of the binary logarithm
    saturation: float = 1.0


@AUGMENTATIONS.register("ada")
class ADA(Augmentation):
    """T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila, Training Generative Adversarial Networks with
    Limited Data, 2020, arXiv 2006.06676, appendix B; of images in [-1, 1].

    - geometry: mirror, quarter turns, whole pixels; scale, rotation, stretch, rotation, fractions of pixels; outside of
      the image is its reflection;
    - color: brightness, contrast, inversion of brightness, rotation of hues, saturation;
    - cutout: zeros in a square of half the size.

    Each is applied to an image with the probability p times its group's factor. It is adapted to D's overfitting: every
    four steps of D it rises if the mean sign of D's scores of real images in these steps is above the target, and falls
    if it is below, but not below 0. Without a target it is constant, or a schedule writes it.

    Differences from the paper: the image is resampled once, by cubic convolution (Keys 1981, a = -0.5); the authors
    sample a copy of twice its size, which a wavelet filter computes. The filters of frequency bands and the added noise
    are left out, as in the authors' settings.

    Args:
        p: the probability, at first.
        geometry, color, cutout: factors of the groups, from 0 to 1. Raises ValueError for others.
        target: of the mean sign, the paper's by default; None: p is not adapted.
        speed: images in which p changes by 1, the authors' 500,000 by default. Raises ValueError unless it is above 0,
            and if there is one without a target.
    """

    every = 4  # steps of D
    signs: Tensor
    steps: Tensor
    images: Tensor

    def __init__(
        self,
        p: float = 0.0,
        geometry: float = 1.0,
        color: float = 1.0,
        cutout: float = 1.0,
        target: float | None = 0.6,
        speed: float | None = None,
    ):
        super().__init__(p)
        if speed is not None and target is None:
            raise ValueError(f"game.augment.speed={speed}: must be left out with game.augment.target=null")
        speed = 500_000 if speed is None else speed
        if not speed > 0:
            raise ValueError(f"game.augment.speed={speed}: must be above 0 images")
        self.target, self.speed = target, speed
        if target is not None:
            # Since p was adapted: the sum of D's mean signs, their number, and how many reals they are of
            for name in ("signs", "steps", "images"):
                self.register_buffer(name, torch.zeros(()))
        for key, value in (("geometry", geometry), ("color", color), ("cutout", cutout)):
            if not 0 <= value <= 1:
                raise ValueError(f"game.augment.{key}={value}: must be from 0 to 1")
        self.geometry, self.color, self.cutout, self.strength = geometry, color, cutout, Strength()

    def forward(self, images: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        result, first = list(images), images[0]
        if self.geometry:
            rows, columns = self.places(batch, first)
            result = [sample(x, rows, columns) for x in result]
        if self.color:
            result = self.recolor(result, batch)
        if self.cutout:
            chance, a, b = numbers(batch.rand, batch, first, 3)
            height, width = first.shape[2:]
            result = [cut(x, chance < self.p * self.cutout, a * height, b * width) for x in result]
        return result

    def record(self, scores: Tensor) -> None:
        """Count the signs of D's scores [N, ...] of real images, after a step of D."""
        self.signs.add_(parallel.mean(scores.float().sign().mean()))
        self.steps.add_(1)
        self.images.add_(len(scores) * parallel.world())

    def adapt(self) -> None:
        """Change p, by the images that were counted, if at least four steps were."""
        assert self.target is not None
        due = self.steps >= self.every
        change = (self.signs / self.steps.clamp(min=1) - self.target).sign() * (self.images / self.speed)
        self.p.copy_(torch.where(due, (self.p + change).clamp(min=0), self.p))
        for counter in (self.signs, self.steps, self.images):
            counter.copy_(torch.where(due, torch.zeros_like(counter), counter))

    def places(self, batch: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
        """The place in x [N, C, H, W] of each pixel of the result: rows and columns [N, H * W], real numbers."""
        p, (height, width) = self.p * self.geometry, x.shape[2:]
        chance = [numbers(batch.rand, batch, x, 8), numbers(batch.rand, batch, x, 6)]
        flip, quarter, whole, scale, turn, stretch, again, part = chance[0]
        normal = numbers(batch.randn, batch, x, 4)

        def if_chosen(chance: Tensor, value: Tensor, probability: Tensor = p) -> Tensor:
            return torch.where(chance < probability, value, torch.zeros_like(value))

        either = 1 - (1 - p).clamp(min=0).sqrt()  # of each rotation, so that one of them happens with probability p
        u = chance[1]
        mirrored = 1 - 2 * if_chosen(flip, (2 * u[0]).floor())
        quarters = rotation(if_chosen(quarter, (4 * u[1]).floor()) * (math.pi / 2)).round()
        t = self.strength.translation
        rows, columns = (if_chosen(whole, ((2 * v - 1) * t * n).round()) for v, n in ((u[2], height), (u[3], width)))
        size = torch.exp2(if_chosen(scale, self.strength.scale * normal[0]))
        first = rotation(if_chosen(turn, (2 * u[4] - 1) * math.pi, either))
        ratio = torch.exp2(if_chosen(stretch, self.strength.scale * normal[1]))
        last = rotation(if_chosen(again, (2 * u[5] - 1) * math.pi, either))
        fractions = [if_chosen(part, t * n * z) for n, z in ((height, normal[2]), (width, normal[3]))]

        # From the result back to x, around the center
        one = torch.ones_like(size)
        y = steps(height, size)[:, None].expand(height, width).flatten() - (height - 1) / 2  # [H * W]
        z = steps(width, size).expand(height, width).flatten() - (width - 1) / 2
        points = torch.stack([y - fractions[0][:, None], z - fractions[1][:, None]], 1)  # [N, 2, H * W]
        inner = product(first, product(diagonal(ratio, 1 / ratio), last)) * size[:, None, None]
        points = product(inner, points) - torch.stack([rows, columns], 1)[:, :, None]
        points = product(product(quarters, diagonal(one, mirrored)), points)
        return points[:, 0] + (height - 1) / 2, points[:, 1] + (width - 1) / 2

    def recolor(self, images: list[Tensor], batch: Batch) -> list[Tensor]:
        """The gray part of a color, its mean m, and the rest d: m' = +-contrast (m + brightness), d' = contrast
        saturation R d, with a rotation R around the gray axis."""
        p, strength = self.p * self.color, self.strength
        *chance, sign, angle = numbers(batch.rand, batch, images[0], 7)
        bright, contrast, invert, turn, saturate = (c < p for c in chance)
        z = numbers(batch.randn, batch, images[0], 3)
        zero = torch.zeros_like(z[0])
        plus = per_image(torch.where(bright, strength.brightness * z[0], zero))
        scale = per_image(torch.exp2(torch.where(contrast, strength.contrast * z[1], zero)))
        turned = per_image(1 - 2 * torch.where(invert, (2 * sign).floor(), zero))
        theta = per_image(torch.where(turn, (2 * angle - 1) * math.pi, zero))
        vivid = scale * per_image(torch.exp2(torch.where(saturate, strength.saturation * z[2], zero)))
        changed = per_image(bright | contrast | invert | turn | saturate)

        def apply(x: Tensor) -> Tensor:
            m = x.mean(1, keepdim=True)
            d = x - m
            if x.shape[1] == 3:
                cross = (d.roll(1, 1) - d.roll(-1, 1)) / math.sqrt(3.0)  # the product with the axis (1, 1, 1) / sqrt(3)
                d = d * theta.cos() + cross * theta.sin()
            return torch.where(changed, turned * scale * (m + plus) + vivid * d, x).to(x.dtype)

        return [apply(x) for x in images]

    def extra_repr(self) -> str:
        return f"geometry={self.geometry}, color={self.color}, cutout={self.cutout}"


def rotation(angle: Tensor) -> Tensor:
    """Matrices [N, 2, 2] of angles [N]."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)


def diagonal(a: Tensor, b: Tensor) -> Tensor:
    """Matrices [N, 2, 2] with a and b [N] on the diagonal."""
    return torch.diag_embed(torch.stack([a, b], 1))


def product(a: Tensor, b: Tensor) -> Tensor:
    """a [N, 2, 2] times b [N, 2, K]: elementwise, which autocast leaves in float32."""
    return (a[..., None] * b[:, None]).sum(2)


def sample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values of x [N, C, H, W] at ``rows`` and ``columns`` [N, H * W], real numbers, by cubic convolution; outside
    of x is its reflection. (torch's ``grid_sample`` has no second derivative, which penalties need.)"""
    height, width = x.shape[2:]
    top, left = rows.floor(), columns.floor()
    total = torch.zeros_like(x)
    across = [(reflect(left + j, width), keys(columns - left - j)) for j in range(-1, 3)]
    for i in range(-1, 3):
        row, of_row = reflect(top + i, height), keys(rows - top - i)
        for column, of_column in across:
            weight = (of_row * of_column).to(x.dtype).view(len(x), 1, height, width)
            total = total + weight * pick(x, row * width + column)
    return total


def reflect(i: Tensor, n: int) -> Tensor:
    """Whole numbers as indices of n pixels, reflected at the first and the last one."""
    return (n - 1) - (i.remainder(max(2 * (n - 1), 1)) - (n - 1)).abs()


def keys(distance: Tensor, a: float = -0.5) -> Tensor:
    """The kernel of cubic convolution, for distances up to 2."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, far)
