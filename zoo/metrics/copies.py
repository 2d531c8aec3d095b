"""Near-copies of training images, found in pixels.

An image is judged by the distance to its nearest training image *over* the mean distance to its fifty nearest: a copy is
near to one image and far from the others, while blurred or plain images, which are near to many at once, are not accused
(the ratio is that of Carlini et al., "Extracting Training Data from Diffusion Models", 2023, arXiv 2301.13188, section 4.1). The
bound is not chosen by us: it is the first percentile of the same ratio over real images that training never saw. So a
generator of the true distribution scores about 1 %, by the data's own near-duplicates and rounding, and a copier 100 %. It
sees copies and noisy copies, not shifted or mirrored ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.metrics.images import Images
from zoo.metrics.seen import keep, place, recall

COUNT = 2_000  # generated, and as many held-out images, that are compared; they alone are in memory
NEIGHBOURS = 50
PERCENTILE = 1.0
BLOCK = 2_000  # training images compared at once


def ratios(images: Images, train: Images) -> Tensor:
    """For each image its distance to the nearest training image over the mean distance to the fifty nearest: float32 [n].
    Images of another size are resized to the training images' (bilinear, antialiased). ValueError for other channels."""
    channels, *side = next(train.chunks(1)).shape[1:]
    parts = []
    for x in images.chunks():
        if x.shape[1] != channels:
            raise ValueError(f"near-copies: images of {x.shape[1]} channels, training images of {channels}")
        x = x.float() / 255
        parts.append(
            x if [*x.shape[2:]] == side else torch.nn.functional.interpolate(x, side, mode="bilinear", antialias=True)
        )
    x = torch.cat(parts)
    centre = x.mean(0)  # distances come from products, which lose digits far from the origin
    x, nearest = (x - centre).flatten(1), x.new_empty(len(x), 0)
    for real in train.chunks(BLOCK):
        distances = torch.cdist(x, (real.float() / 255 - centre).flatten(1))
        nearest = torch.cat([nearest, distances], 1)
        nearest = nearest.topk(min(NEIGHBOURS, nearest.shape[1]), largest=False).values  # [n, 50], the nearest first
    return nearest[:, 0] / nearest.mean(1).clamp(min=1e-12)


def near_copies(images: Images, train: Images, held: Images) -> tuple[float, float]:
    """The share of ``images`` whose ratio is below the bound that ``held`` sets, and its standard error."""
    images, held = images.at_most(COUNT), held.at_most(COUNT)
    path = place("near-copies", train.content(), held.content(), NEIGHBOURS)
    kept = recall(path)
    if kept is None:
        kept = {"ratios": ratios(held, train)}
        keep(path, kept)
    bound = kept["ratios"].quantile(PERCENTILE / 100)
    share = float((ratios(images, train) < bound).float().mean())
    return share, math.sqrt(share * (1 - share) / images.count)
