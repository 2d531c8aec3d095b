"""Penalties: child modules of a game, called with the game and the batch, each a scalar in float32.

A penalty names the ``player`` whose loss it joins and keeps its ``weight`` in a buffer, so that a schedule can change it
(``game.penalties.0.weight``) and a checkpoint carries it. The game has left the fakes of the turn in ``batch["fake"]``.
Gradients of D in its input are taken with ``torch.func.grad``, which torch.compile can trace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo import parallel
from zoo.game import Batch, Game
from zoo.registry import PENALTIES


class Penalty(nn.Module):
    """``weight * penalty(game, batch)`` is added to the loss of ``player``. ``every``: see the game's turns. ``reals``:
    whether G's turn has to draw real images for it: None, the ``"last"`` ones or ``"fresh"`` ones."""

    player: str = "D"
    weight: Tensor
    reals: Literal["last", "fresh"] | None = None

    def __init__(self, weight: float, every: int = 1):
        super().__init__()
        self.register_buffer("weight", torch.tensor(float(weight)))
        self.every = every

    def extra_repr(self) -> str:
        return f"player={self.player!r}, every={self.every}"


def input_gradient(game: Game, x: Tensor, batch: Batch) -> Tensor:
    """dD(x)/dx for each sample, [N, ...], float32, with a graph to D's weights. (Of a D with batch norm it is that of the sum of
    all scores; its running averages do not see these points.)"""
    with untracked(game):
        return torch.func.grad(lambda v: game.score(v, batch).float().sum())(x.detach()).float()


def features(game: Game, x: Tensor) -> Tensor:
    """D's last hidden layer of images. ValueError where D has none of images alone, such as one that is told the class there."""
    if not hasattr(game.D, "features"):
        raise ValueError(
            f"game.penalties: this one needs D's features, and {type(game.D).__name__} has none; take another D"
        )
    return game.D.features(x)


@contextlib.contextmanager
def untracked(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training mode leave their running averages alone, which a transform could not change."""
    across = nn.modules.batchnorm._BatchNorm
    norms = [m for m in network.modules() if isinstance(m, across) and m.training and m.track_running_stats]
    for m in norms:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in norms:
            m.track_running_stats = True


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


@PENALTIES.register("pulling-away")
class PullingAway(Penalty):
    """Zhao et al. 2016, section 2.4: the mean over pairs i != j of fakes of the squared cosine between their features in D
    (``D.features``; an autoencoder's are its codes). In [0, 1], in G's loss alone: it keeps the fakes apart.

    With several processes the pairs are those inside each one's share of the batch."""

    player = "G"

    def __init__(self, weight: float = 0.1):
        super().__init__(weight)

    def forward(self, game: Game, batch: Batch) -> Tensor:
        # An energy's pass has made them already.
        of_fakes = batch.pop("features") if "features" in batch else features(game, batch["fake"])
        unit = normalize(of_fakes.float().flatten(1), dim=1)  # a code of zeros is orthogonal to all
        n = len(unit)
        cosines = (unit @ unit.T).square()
        return (cosines.sum() - cosines.diagonal().sum()) / max(n * (n - 1), 1)


@PENALTIES.register("dragan")
class Dragan(Penalty):
    """Kodali et al. 2017: E (||grad D(u)|| - 1)^2 at points u near the reals alone, with any number of fakes.

    ``noise``: how far u lies from x. ``"normal"`` is the paper's own form, u = x + N(0, size^2 I) (its c is ``size`` squared).
    ``"uniform"`` is that of the authors' code, the commonly used one: u = x + alpha size s v, with s the deviation of all the
    batch's values as one number, v ~ U(0, 1) for each value and one alpha ~ U(0, 1) for each sample; it only brightens.
    ``size``: of the neighborhood, in s for ``"uniform"`` (0.5 where it is left out), and in the images' units for ``"normal"``, which
    has to name one. ValueError for other noise.
    """

    def __init__(self, weight: float = 10.0, every: int = 1, noise: str = "uniform", size: float | None = None):
        super().__init__(weight, every)
        if noise not in ("uniform", "normal"):
            raise ValueError(f"noise='{noise}': must be uniform (the authors' code) or normal (the paper)")
        if noise == "normal" and size is None:
            raise ValueError(
                "dragan: noise='normal' needs a size, the deviation in the images' units, such as size=0.1"
            )
        self.noise, self.size = noise, 0.5 if size is None else size

    def near(self, x: Tensor, batch: Batch) -> Tensor:
        """Points near x [N, ...], of its shape."""
        if self.noise == "normal":
            return x + self.size * batch.randn(*x.shape[1:])
        s = parallel.mean((x - parallel.mean(x.mean())).square().mean()).sqrt()  # of all processes' samples
        v, alpha = batch.rand(*x.shape[1:]), batch.rand(*[1] * (x.dim() - 1))
        return x + alpha * self.size * s * v

    def forward(self, game: Game, batch: Batch) -> Tensor:
        return (norms(input_gradient(game, self.near(batch["x"], batch), batch)) - 1.0).square().mean()


@PENALTIES.register("r1")
class R1(Penalty):
    """Mescheder et al. 2018, eq. 9: 1/2 E ||grad D(x)||^2 on the reals."""

    def __init__(self, weight: float = 10.0, every: int = 1):
        super().__init__(weight, every)

    def forward(self, game: Game, batch: Batch) -> Tensor:
        gradient = input_gradient(game, batch["x"], batch)
        return 0.5 * gradient.flatten(1).square().sum(1).mean()


@PENALTIES.register("feature-matching")
class FeatureMatching(Penalty):
    """Salimans et al. 2016, section 3.1: G brings the mean of D's features over its images to that over other, fresh reals.

    ``distance`` of the two means: ``"squared"`` or ``"absolute"``, averaged over the features, as in the authors' code (the
    paper's is the sum of squares). D needs ``features``.
    """

    player = "G"
    reals = "fresh"

    def __init__(self, weight: float = 1.0, distance: str = "squared"):
        super().__init__(weight)
        if distance not in ("squared", "absolute"):
            raise ValueError(f"feature-matching: distance is 'squared' or 'absolute', not {distance!r}")
        self.distance = distance

    def forward(self, game: Game, batch: Batch) -> Tensor:
        real, fake = (
            parallel.mean_with_gradient(features(game, batch[k]).float().mean(0)) for k in ("x", "fake")
        )  # of all processes' samples
        return (fake - real).square().mean() if self.distance == "squared" else (fake - real).abs().mean()


@PENALTIES.register("historical-averaging")
class HistoricalAveraging(Penalty):
    """Salimans et al. 2016, section 3.3: ||theta - 1/t sum theta[i]||^2 over the player's weights, where i counts its steps
    so far, this one among them. There is no code of the authors' for it, and the paper names no weight."""

    def __init__(self, networks: Mapping[str, nn.Module], weight: float = 1.0, player: str = "D"):
        super().__init__(weight)
        if player not in networks:
            raise ValueError(f"historical-averaging: there is no player '{player}'; there are {', '.join(networks)}")
        self.player = player
        self.register_buffer("average", torch.zeros_like(flat(networks[player])))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, game: Game, batch: Batch) -> Tensor:
        now = flat(game.get_submodule(self.player))
        with torch.no_grad():
            self.steps.add_(1)
            self.average.add_((now - self.average) / self.steps)
        return (now - self.average).float().square().sum()


def flat(network: nn.Module) -> Tensor:
    """All weights of a network as one vector."""
    return torch.cat([p.flatten() for p in network.parameters()])
