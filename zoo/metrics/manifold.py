"""Density and coverage (Naeem, Oh, Uh, Choi, Yoo, "Reliable Fidelity and Diversity Metrics for Generative Models",
2020, arXiv 2002.09797, section 3), from the paper.

A ball around each real image reaches to its k-th nearest other real image. Density counts, over the generated images,
the balls that contain each, divided by k: a lone outlier's large ball weighs no more than any other. Coverage is the
share of balls that contain any. Inside means nearer than the radius, so that a set compared with itself has density 1.
Distances are computed in blocks of rows: memory grows with the number of images, not with its square."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1000  # rows of a matrix of distances in memory at once


def radii(x: Tensor, k: int) -> Tensor:
    """The distance of each of x [N, F] to its k-th nearest other: [N]. Raises ValueError for k or fewer rows."""
    if len(x) <= k:
        raise ValueError(f"{len(x)} images: at least {k + 1} are needed for their {k} nearest neighbors")
    nearest = [torch.cdist(rows, x).topk(k + 1, largest=False).values[:, -1] for rows in x.split(BLOCK)]
    return torch.cat(nearest)


def density_coverage(fake: Tensor, real: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of features ``fake`` [M, F] against ``real`` [N, F]."""
    center = real.mean(0)  # distances come from products, which lose digits far from the origin
    fake, real = fake - center, real - center
    pairs_inside, balls_hit = 0, 0
    for rows, radius in zip(real.split(BLOCK), radii(real, k).split(BLOCK), strict=True):
        inside = torch.cdist(rows, fake) < radius[:, None]  # [rows, M]
        pairs_inside += int(inside.sum())
        balls_hit += int(inside.any(1).sum())
    return pairs_inside / (k * len(fake)), balls_hit / len(real)
