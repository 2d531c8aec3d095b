"""EBGAN: D is an autoencoder; an image's energy is the distance to its reconstruction, its score the energy's negative.

J. Zhao, M. Mathieu, Y. LeCun, Energy-based Generative Adversarial Network, 2016, arXiv 1609.03126, section 2. One
step of D, then one of G on fresh noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.networks.interfaces import AutoencoderDiscriminator
from zoo.registry import GAMES, Spec

DISTANCES = {
    "euclidean": lambda x, y: torch.linalg.vector_norm((x.float() - y.float()).flatten(1), dim=1),
    "absolute": lambda x, y: (x.float() - y.float()).abs().flatten(1).mean(1),
}


@GAMES.register("ebgan")
class EBGAN(Adversarial):
    """G(z) against D, which returns a reconstruction: energy(x) = distance(D(x), x) >= 0, [N], low if x looks real.

    Losses and penalties get score(x) = -energy(x), high for real images as any D's, but never above 0 (least squares
    needs targets to match).

    Args:
        networks: G and D; D needs ``encode`` and ``decode``.
        loss, penalties, prior: as :class:`~zoo.games.adversarial.Adversarial`.
        distance: ``"euclidean"`` (the norm over all values) or ``"absolute"`` (their mean absolute difference).
    """

    D: AutoencoderDiscriminator

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
        """[N, C, H, W] -> [N]. Both sides of the distance depend on x."""
        return -self.distance(self.D(x), x)

    def score_fake(self, fake: Tensor, batch: Batch) -> Tensor:
        """As ``score``; the codes of the fakes are left to the penalties in ``batch["features"]``."""
        code = self.D.encode(fake)
        if self.penalties:
            batch["features"] = code.flatten(1)
        return -self.distance(self.D.decode(code), fake)

    def scores(self, x: Tensor, fake: Tensor, batch: Batch, *, fakes_first: bool = False) -> tuple[Tensor, Tensor]:
        if self.joined:
            on_real, on_fake = self.score(torch.cat([x, fake]), batch).split([len(x), len(fake)])
        else:
            on_real, on_fake = self.score(x, batch), self.score(fake, batch)
        batch.log("D/real", on_real.mean())
        batch.log("D/fake", on_fake.mean())
        return on_real, on_fake
