"""EMA weights: exponential moving averages of players, which are sampled, scored and shipped."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from zoo.recipe import Ema


class EmaNetwork:
    """The EMA of one network. ``halflife`` may be changed by a schedule."""

    def __init__(self, network: nn.Module, ema: Ema):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.halflife, self.start, self.rampup = ema.halflife, ema.start, ema.rampup

    @torch.no_grad()
    def update(self, network: nn.Module, parts: Iterable[str], images: int, total_images: int) -> None:
        """After a round that consumed ``images`` real images, ``total_images`` in all. Parameters are averaged;
        buffers (batch norm's statistics, spectral norm's vectors) are copied: they belong to the newest weights.
        ``parts``: the submodules that learn ("": the whole). The others keep their averages, which would become their
        last weights otherwise."""
        halflife = self.halflife if self.rampup is None else min(self.halflife, total_images * self.rampup)
        halflife = max(halflife, 1e-8)  # at 0, which a schedule may begin with, the average equals the network
        decay = 0.0 if total_images <= self.start else 0.5 ** (images / halflife)
        for part in parts:
            own, new = self.network.get_submodule(part), network.get_submodule(part)
            average: list[torch.Tensor] = list(own.parameters())
            if average:
                torch._foreach_lerp_(average, [p.detach() for p in new.parameters()], 1.0 - decay)
            copy_buffers(own, new)

    @torch.no_grad()
    def copy_buffers(self, network: nn.Module) -> None:
        """Copy the network's buffers."""
        copy_buffers(self.network, network)


def copy_buffers(to: nn.Module, source: nn.Module) -> None:
    for old, buffer in zip(to.buffers(), source.buffers(), strict=True):
        old.copy_(buffer)


class EmaNetworks(dict[str, EmaNetwork]):
    """EMA networks by the network's name."""

    def __init__(self, networks: Mapping[str, nn.Module], emas: Mapping[str, Ema]):
        super().__init__({name: EmaNetwork(networks[name], ema) for name, ema in emas.items()})

    def update_round(self, game: nn.Module, players: Iterable[str], images: int, total_images: int) -> None:
        """After a round of a stage in which ``players`` (paths in the game) learn."""
        for name, ema_network in self.items():
            parts = [p[len(name) + 1 :] for p in players if f"{p}.".startswith(f"{name}.")]
            ema_network.update(game.get_submodule(name), parts, images, total_images)

    @torch.no_grad()
    def write_finished(self, game: nn.Module, players: Iterable[str]) -> None:
        """Copy the averages of all parameters that none of ``players`` (paths in the game) has into the game."""
        paths = tuple(f"{p}." for p in players)
        for name, ema_network in self.items():
            averages = dict(ema_network.network.named_parameters())
            for key, parameter in game.get_submodule(name).named_parameters():
                if not f"{name}.{key}".startswith(paths):
                    parameter.copy_(averages[key])
