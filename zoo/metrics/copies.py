"""Near-copies of training images, by their pixels.

The score of an image is the distance to its nearest training image *over* the mean distance to its fifty nearest: a
copy is near to one image and far from the others, while blurred or plain images, which are near to many, are not
flagged (the ratio is that of Carlini et al., "Extracting Training Data from Diffusion Models", 2023, arXiv 2301.13188,
section 4.1). The bound is not chosen by us: it is the first percentile of the same ratio over held-out real images. So
a generator of the true distribution scores about 1 %, because of the data's own near-duplicates and rounding, and a
copier 100 %.

Copies are seldom exact, so a distance is the smallest over the mirror image and shifts by a pixel, and images are
compared at 9x9 pixels, which removes what noise and blur change most, and without their brightness and contrast.
``benchmarks/measure.py copies`` measures which copies are flagged."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.metrics.images import Images
from zoo.metrics.statistics import Progress, cache_path, read_cache, write_cache

COUNT = 2_000  # generated, and as many held-out images, that are compared, and that are in memory
NEIGHBORS = 50
PERCENTILE = 1.0
EXACT = 0.005  # the ratio of a copy is 0 but for rounding, which reaches 0.001
BLOCK = 2_000  # training images compared at once
SHIFT = 1  # pixels, each way along both axes
SIDE = 9  # pixels, when compared
MIN_NORM = 0.1  # shapes of nearly flat images are not scaled up beyond this
RULE = 2  # raised whenever images of the training images' size would have other ratios than before


def shrink(x: Tensor, down: int = 0, across: int = 0) -> Tensor:
    """Float [n, C, H, W] -> [n, D]: the window so many pixels off the middle one, at SIDE x SIDE, minus each channel's
    mean, of norm 1 (a nearly flat one less: it has no shape)."""
    height, width = (side - 2 * SHIFT for side in x.shape[2:])
    window = x[:, :, SHIFT + down :, SHIFT + across :][:, :, :height, :width]
    small = F.interpolate(window, (SIDE, SIDE), mode="bicubic", antialias=True).flatten(2)
    shape = (small - small.mean(2, keepdim=True)).flatten(1)
    return shape / shape.norm(dim=1, keepdim=True).clamp(min=MIN_NORM)


def views(x: Tensor) -> Tensor:
    """[n, C, H, W] -> [18, n, D]: the images as they are and mirrored, each with all shifts."""
    steps = range(-SHIFT, SHIFT + 1)
    return torch.stack([shrink(side, i, j) for side in (x, x.flip(3)) for i in steps for j in steps])


def at_size(x: Tensor, height: int, width: int) -> list[Tensor]:
    """Images [n, C, H, W] at another size: resized (bilinear, antialiased) and, if they are larger, also their middle,
    since training may have put a border around the images."""
    down, across = x.shape[2] - height, x.shape[3] - width
    if down == across == 0:
        return [x]
    resized = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    if down < 0 or across < 0:
        return [resized]
    return [resized, x[:, :, down // 2 :, across // 2 :][:, :, :height, :width]]


def ratios(images: Images, train: Images, progress: Progress | None = None) -> Tensor:
    """For each image its distance to the nearest training image over the mean distance to the fifty nearest: float32
    [n]. Images of another size are compared as :func:`at_size` makes them. Raises ValueError for another number of
    channels."""
    channels, height, width = next(train.chunks(1)).shape[1:]
    parts = []
    for x in images.chunks():
        if x.shape[1] != channels:
            raise ValueError(
                f"near-copies: images must have {channels} channels as the training images, got {x.shape[1]}"
            )
        parts.append(torch.cat([views(same) for same in at_size(x.float() / 255, height, width)]))
    most = max(map(len, parts))
    x = torch.cat([part.repeat(most // len(part), 1, 1) for part in parts], 1)  # [18 or 36, n, D]
    center = x.mean((0, 1))  # distances come from products, which lose digits far from the origin
    x = x - center
    # |x - r|^2 = |r|^2 - 2 (x.r - |x|^2 / 2): one product, and the best view is the one for which that bracket is
    # largest.
    x = torch.cat([x, -x.square().sum(2, keepdim=True) / 2], 2)  # [18 or 36, n, D + 1]
    nearest, done = x.new_empty(x.shape[1], 0), 0
    for real in train.chunks(BLOCK):
        r = shrink(real.float() / 255) - center
        r = torch.cat([r, r.new_ones(len(r), 1)], 1)
        best = x[0] @ r.T
        for view in x[1:]:
            torch.maximum(best, view @ r.T, out=best)
        squared = r[:, :-1].square().sum(1) - 2 * best  # [n, training images of the block]
        nearest = torch.cat([nearest, squared], 1)
        nearest = nearest.topk(min(NEIGHBORS, nearest.shape[1]), largest=False).values  # [n, 50], the nearest first
        done += len(real)
        if progress:
            progress(done, train.count, "training images compared")
    distances = nearest.clamp(min=0).sqrt()
    return distances[:, 0] / distances.mean(1).clamp(min=1e-12)


def near_copies(
    images: Images, train: Images, holdout: Images, progress: Progress | None = None
) -> tuple[float, float]:
    """The share of ``images`` whose ratio is below the first percentile of ``holdout``'s, and its standard error. A
    ratio below ``EXACT`` always counts: some sets hold a hundredth of their training images out, too."""
    images, holdout = images.at_most(COUNT), holdout.at_most(COUNT)
    path = cache_path("near-copies", RULE, train.content(), holdout.content())
    cached = read_cache(path)
    if cached is None:
        cached = {"ratios": ratios(holdout, train, progress)}
        write_cache(path, cached)
    bound = cached["ratios"].quantile(PERCENTILE / 100)
    share = float((ratios(images, train, progress) < bound.clamp(min=EXACT)).float().mean())
    return share, math.sqrt(share * (1 - share) / images.count)
