"""The game of two players in which D is an autoencoder: an image's energy is the distance to its reconstruction, its score
the energy's negative.

J. Zhao, M. Mathieu, Y. LeCun, Energy-based Generative Adversarial Network, 2016, arXiv 1609.03126, section 2. One
step of D, then one of G on fresh noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.registry import GAMES, Spec

DISTANCES = {
    "euclidean": lambda x, y: torch.linalg.vector_norm((x.float() - y.float()).flatten(1), dim=1),
    "absolute": lambda x, y: (x.float() - y.float()).abs().flatten(1).mean(1),
}


@GAMES.register("ebgan")
class EBGAN(Adversarial):
    """G(z) against D, which returns a reconstruction: energy(x) = distance(D(x), x) >= 0, [N], low where x looks real. Losses and
    penalties are given score(x) = -energy(x), high there as any D's, but never above 0 (least squares wants targets there).

    ``distance``: ``"euclidean"`` (the norm over all values) or ``"absolute"`` (their mean absolute difference). ``loss`` and
    ``penalties`` as in the adversarial game.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("margin"),
        penalties: Sequence[Spec] = (),
        prior: Spec = Spec("normal"),
        distance: str = "euclidean",
    ):
        super().__init__(networks, loss=loss, penalties=penalties, prior=prior)
        if distance not in DISTANCES:
            raise ValueError(f"game.distance='{distance}': must be {' or '.join(DISTANCES)}")
        self.distance = DISTANCES[distance]

    def score(self, x: Tensor, batch: Batch) -> Tensor:
        """[N]; x has its say on both sides of the distance."""
        return -self.distance(self.D(x), x)

    def score_fake(self, fake: Tensor, batch: Batch) -> Tensor:
        """As ``score``, and the codes of the fakes are left to the penalties."""
        code = self.D.encode(fake)
        if self.penalties:
            batch["features"] = code.flatten(1)
        return -self.distance(self.D.decode(code), fake)

    def scores(self, x: Tensor, fake: Tensor, batch: Batch, *, fakes_first: bool = False) -> tuple[Tensor, Tensor]:
        if self.joined:
            real, made = self.score(torch.cat([x, fake]), batch).split([len(x), len(fake)])
        else:
            real, made = self.score(x, batch), self.score(fake, batch)
        batch.log("D/real", real.mean())
        batch.log("D/fake", made.mean())
        return real, made
