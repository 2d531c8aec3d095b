"""Penalties: child modules of a game, called with the game and the batch, each a scalar in float32.

A penalty names the ``player`` whose loss it joins and keeps its ``weight`` in a buffer, so that a ramp can change it
(``game.penalties.0.weight``) and a checkpoint carries it. The game has left the fakes of the turn in ``batch["fake"]``.
Gradients of D in its input are taken with ``torch.func.grad``, which torch.compile can trace.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.game import Batch, Game
from zoo.registry import PENALTIES


class Penalty(nn.Module):
    """``weight * penalty(game, batch)`` is added to the loss of ``player``. ``every``: see the game's turns."""

    player = "D"

    def __init__(self, weight: float, every: int = 1):
        super().__init__()
        self.register_buffer("weight", torch.tensor(float(weight)))
        self.every = every

    def extra_repr(self) -> str:
        return f"player={self.player!r}, every={self.every}"


def input_gradient(game: Game, x: Tensor, batch: Batch) -> Tensor:
    """dD(x)/dx for each sample, [N, ...], float32, with a graph to D's weights."""
    return torch.func.grad(lambda v: game.score(v, batch).float().sum())(x.detach()).float()


def norms(gradient: Tensor) -> Tensor:
    """The 2-norm of each sample, [N]. Its derivative at 0 is 0 (the root of a sum of squares would give NaN)."""
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


@PENALTIES.register("gradient-penalty")
class GradientPenalty(Penalty):
    """Gulrajani et al. 2017, eq. 3: E (||grad D(u)|| - 1)^2 on the lines u = x + alpha (fake - x), with one alpha ~ U(0, 1)
    for each sample, two-sided. Takes as many fakes as there are reals."""

    def __init__(self, weight: float = 10.0, every: int = 1):
        super().__init__(weight, every)

    def forward(self, game: Game, batch: Batch) -> Tensor:
        x, fake = batch["x"], batch["fake"].detach()
        alpha = batch.rand(*[1] * (x.dim() - 1))  # [N, 1, 1, 1]
        return (norms(input_gradient(game, x + alpha * (fake - x), batch)) - 1.0).square().mean()


@PENALTIES.register("r1")
class R1(Penalty):
    """Mescheder et al. 2018, eq. 9: 1/2 E ||grad D(x)||^2 on the reals."""

    def __init__(self, weight: float = 10.0, every: int = 1):
        super().__init__(weight, every)

    def forward(self, game: Game, batch: Batch) -> Tensor:
        gradient = input_gradient(game, batch["x"], batch)
        return 0.5 * gradient.flatten(1).square().sum(1).mean()
