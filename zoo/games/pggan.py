"""PGGAN's game: D's real images fade as the networks do.

T. Karras, T. Aila, S. Laine, J. Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and Variation,
2018, arXiv 1710.10196, section 2 and figure 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.game import Batch, Turn
from zoo.games.adversarial import Adversarial
from zoo.networks.equalized import GrowingNetwork
from zoo.registry import GAMES


@GAMES.register("pggan")
class PGGAN(Adversarial):
    """The adversarial game of networks that grow: while a layer of D fades in, the real images are a mean of themselves
    and of those of half their size, upsampled. Real images that are larger than the level's are averaged to its size,
    so that small images can be padded first. Raises ValueError unless G and D grow.

    Arguments and batch keys are those of :class:`~zoo.games.adversarial.Adversarial`.
    """

    def __init__(self, networks: Mapping[str, nn.Module], **options: Any):
        super().__init__(networks, **options)
        for name in self.takes:
            if not isinstance(networks[name], GrowingNetwork):
                kind = type(networks[name]).__name__
                raise ValueError(f"networks.{name}: must be a network that grows from 4x4, got {kind}")

    def turns(self) -> Sequence[Turn]:
        return [with_faded_reals(turn, self.D) for turn in super().turns()]

    def ships(self) -> dict[str, Any]:
        return {**super().ships(), "resolution": self.G.side}


def with_faded_reals(turn: Turn, D: nn.Module) -> Turn:
    """The turn; the reals that it draws pass :func:`faded` before it."""
    if turn.draw != "fresh":
        return turn
    first: Callable[[Batch], None] | None = turn.before

    def before(batch: Batch) -> None:
        batch["x"] = faded(batch["x"], D)
        if first is not None:
            first(batch)

    return dataclasses.replace(turn, before=before)


def faded(x: Tensor, D: Any) -> Tensor:
    """Images x [N, C, H, W], averaged to [N, C, side, side] of a D that grows; above the first level mixed with those
    of half their size, which have the share 1 - fade."""
    if x.shape[-1] != D.side:
        x = F.avg_pool2d(x, x.shape[-1] // D.side)
    if not D.level:
        return x
    return torch.lerp(F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0), x, D.fade.to(x.dtype))
