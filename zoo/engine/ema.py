"""The shadows: exponential moving averages of players, what is sampled, scored and shipped."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from zoo.recipe import Ema


class Shadow:
    """One network's average. ``halflife`` may be changed by a ramp."""

    def __init__(self, network: nn.Module, ema: Ema):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.halflife, self.start, self.rampup = ema.halflife, ema.start, ema.rampup

    @torch.no_grad()
    def update(self, network: nn.Module, images: int, seen: int) -> None:
        """After a round that consumed ``images`` real images, ``seen`` in all. Parameters are averaged; buffers (batch
        norm's statistics, spectral norm's vectors) are copied: they belong to the newest weights."""
        halflife = self.halflife if self.rampup is None else min(self.halflife, max(seen * self.rampup, 1e-8))
        decay = 0.0 if seen <= self.start else 0.5 ** (images / halflife)
        mine, theirs = list(self.network.parameters()), [p.detach() for p in network.parameters()]
        if mine:
            torch._foreach_lerp_(mine, theirs, 1.0 - decay)
        for own, new in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(new)


class Shadows(dict):
    """Shadows by network's name."""

    def __init__(self, networks: Mapping[str, nn.Module], emas: Mapping[str, Ema]):
        super().__init__({name: Shadow(networks[name], ema) for name, ema in emas.items()})

    def update(self, networks: Mapping[str, nn.Module], images: int, seen: int) -> None:
        for name, shadow in self.items():
            shadow.update(networks[name], images, seen)
