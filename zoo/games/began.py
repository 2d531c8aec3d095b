"""BEGAN: an energy-based GAN that keeps the energies of real and fake images at a ratio.

D. Berthelot, T. Schumm, L. Metz, BEGAN: Boundary Equilibrium Generative Adversarial Networks, 2017, arXiv 1703.10717,
section 3.4: with L an image's mean absolute reconstruction error, D minimizes L(x) - k L(G(z)), G minimizes L(G(z')) on
noise of its own, and k moves by ``rate`` (gamma L(x) - L(G(z'))) within [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.game import Batch, Turn
from zoo.games.ebgan import EBGAN
from zoo.registry import GAMES, Spec


@GAMES.register("began")
class BEGAN(EBGAN):
    """G(z) against D, an autoencoder; one step of D, then one of G.

    Args:
        networks: G and D.
        gamma: the ratio of the energy of fakes to that of reals, in [0, 1]; low values give images that look more
            alike, high ones more diverse images.
        rate: of the controller of ``k`` (the paper's lambda_k).
        prior, penalties: as :class:`~zoo.games.adversarial.Adversarial`.

    Batch keys: reads ``x``; writes ``z``, ``fake``, ``real_energy``, ``fake_energy``. The log holds ``k`` and
    ``convergence``, the paper's measure M = L(x) + |gamma L(x) - L(G(z'))|.
    """

    k: Tensor

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        gamma: float = 0.5,
        rate: float = 0.001,
        prior: Spec = Spec("uniform"),
        penalties: Sequence[Spec] = (),
    ):
        super().__init__(networks, penalties=penalties, prior=prior, distance="absolute")
        if not 0 <= gamma <= 1:
            raise ValueError(f"game.gamma={gamma}: must be from 0 to 1")
        self.gamma, self.rate = gamma, rate
        self.register_buffer("k", torch.zeros(()))

    def turns(self) -> Sequence[Turn]:
        G = Turn(("G",), self.loss_G, draw=self.reals_for_G(), after=self.update_k)
        return [Turn(("D",), self.loss_D), G, *self.lazy_turns()]

    def loss_D(self, batch: Batch) -> Tensor:
        real, fake = (-score for score in self.scores(batch["x"], self.fakes(batch).detach(), batch))
        batch["real_energy"] = real.detach()
        return self.with_penalties("D", real.mean() - self.k * fake.mean(), batch)

    def loss_G(self, batch: Batch) -> Tensor:
        energy = -self.score_fake(self.fakes(batch), batch)
        batch["fake_energy"] = energy.detach()
        return self.with_penalties("G", energy.mean(), batch)

    def update_k(self, batch: Batch) -> None:
        """The step of k, and the measure of convergence."""
        real, fake = (parallel.mean(batch[name].mean()) for name in ("real_energy", "fake_energy"))
        error = self.gamma * real - fake
        self.k.copy_((self.k + self.rate * error).clamp(0, 1))
        batch.log("k", self.k.clone())  # the buffer itself would change before it is read
        batch.log("convergence", real + error.abs())
