"""Noise of a prior: truncated, on the way from one draw to another, and that which a generator takes beside z."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zoo.models.arguments import check_seed
from zoo.seeds import seed_for

RESAMPLED = 0.05  # limits below it come from the inverse distribution function; few draws would be inside them


def truncated_normal(z: Tensor, draw: Callable[[], Tensor], limit: float, generator: torch.Generator) -> Tensor:
    """Normal noise z with components within ``limit``: those beyond it are sampled again, by ``draw``, until none is
    (Brock et al. 2019, section 3.1); for a small limit all come from uniform numbers through the inverse of the
    truncated distribution function. Both have the same distribution."""
    if limit < RESAMPLED:
        u = 2 * torch.rand(z.shape, generator=generator, dtype=torch.float64) - 1
        return (math.sqrt(2) * torch.erfinv(u * math.erf(limit / math.sqrt(2)))).to(z.dtype).clamp(-limit, limit)
    while (far := z.abs() > limit).any():
        z = torch.where(far, draw(), z)
    return z


def great_circle(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a to b along the sphere, with the length interpolated; a straight line has points of much smaller norm."""
    cos = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
    angle = math.acos(cos.item())
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, t)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def noise_inputs(G: nn.Module, seeds: Sequence[int | None]) -> dict[str, Tensor]:
    """The noise inputs of a generator by name (its ``noise_shapes``), float32 [N, ...] of N(0, 1) on the CPU, for one
    image of each seed, zeros for None; empty if it has none."""
    shapes = getattr(G, "noise_shapes", {})
    generators = [None if s is None else torch.Generator().manual_seed(seed_for(check_seed(s), "noise")) for s in seeds]

    def draw(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        return torch.zeros(*shape) if generator is None else torch.randn(*shape, generator=generator)

    return {k: torch.stack([draw(shape, g) for g in generators]) for k, shape in shapes.items()}
