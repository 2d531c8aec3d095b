"""VAE/GAN: a variational autoencoder whose decoder is a GAN's generator and whose reconstructions are compared in D's
features: three players, one turn.

A. Larsen, S. Sonderby, H. Larochelle, O. Winther, Autoencoding beyond pixels using a learned similarity metric, 2015,
arXiv 1512.09300, as in the authors' code (model/aegan.py): the adversarial loss sees no reconstructions, and a
player that is too far in front skips its step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn
from zoo.priors import build_prior
from zoo.registry import GAMES, LOSSES, Spec


@GAMES.register("vaegan")
class VAEGAN(Game):
    """E(x) -> (mean, log variance) of a code, G(z) -> x, D(x) -> logit, with ``D.similarity(x)`` to compare images in.

    From one forward, with z ~ E(x), z_p from the prior, S = D.similarity, and ``loss``, a Spec in LOSSES::

        E minimizes  KL(E(x) | N(0, 1)) + recon,    recon = 1/2 |S(x) - S(G(z))|^2
        G minimizes  weight recon + (1 - weight) loss.g(D(x), D(G(z_p)))
        D minimizes  loss.d(D(x), D(G(z_p)))

    summed over features and codes, means over the batch. So E gets no adversarial gradient and D none of the
    reconstruction.

    Args:
        networks: E, G and D. Raises ValueError if D has no ``similarity``.
        loss, prior: Specs of the adversarial loss and of z_p.
        weight: of the reconstruction in G's loss, in [0, 1].
        equilibrium, slack: with c D's two cross-entropies, of reals from 1 and of fakes from 0, D skips its step if
            either c is below their difference, G if either is above their sum; if both would skip, both learn.

    Batch keys: reads ``x``. The log holds ``kl``, ``recon`` and both cross-entropies, in nats.
    """

    takes = ("E", "G", "D")
    whole_batch = "the gate of G and D"
    joined = "always"  # as in the code: D's batch statistics are of both kinds of images
    E: nn.Module

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("minimax"),
        prior: Spec = Spec("normal"),
        weight: float = 1e-6,
        equilibrium: float = 0.68,
        slack: float = 0.35,
    ):
        super().__init__(networks)
        if not 0 <= weight <= 1:
            raise ValueError(f"game.weight={weight}: must be from 0 to 1")
        if not hasattr(self.D, "similarity"):
            raise ValueError(
                f"networks.D: must have similarity(x), in which images are compared, got {type(self.D).__name__}"
            )
        self.pair = LOSSES.build(loss)
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)
        self.weight, self.equilibrium, self.slack = weight, equilibrium, slack

    def turns(self) -> Sequence[Turn]:
        return [Turn(("E", "G", "D"), self.losses)]

    def losses(self, batch: Batch) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        x = batch["x"]
        mean, logvar = (v.float() for v in self.E(x))  # [N, latent] each
        z = mean + (0.5 * logvar).exp() * batch.randn(mean.shape[1])
        kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()
        discriminate = Discriminate(self, batch)
        compared = discriminate.features(torch.cat([x, self.G(z)]), layer="similarity")  # one pass, as below
        of_real, of_reconstruction = compared.float().chunk(2)
        recon = 0.5 * (of_real - of_reconstruction).square().flatten(1).sum(1).mean()
        both = discriminate.both(Inputs(x), Inputs(self.G(batch.latent(self.prior))))
        real, fake = (inputs.score.float() for inputs in both)
        on_real, on_fake = softplus(-real).mean(), softplus(fake).mean()
        D, G = self.gates(on_real, on_fake)
        for name, value in {"kl": kl, "recon": recon, "cost/real": on_real, "cost/fake": on_fake}.items():
            batch.log(name, value)
        return {
            "E": kl + recon,
            "G": (self.weight * recon + (1 - self.weight) * self.pair.g(real, fake), G),
            "D": (self.pair.d(real, fake), D),
        }

    def gates(self, on_real: Tensor, on_fake: Tensor) -> tuple[Tensor, Tensor]:
        """Whether D and G learn, as 0 or 1, from D's two cross-entropies."""
        costs = torch.stack([on_real, on_fake]).detach()
        D = (costs >= self.equilibrium - self.slack).all()
        G = (costs <= self.equilibrium + self.slack).all()
        neither = ~(D | G)
        return (D | neither).float(), (G | neither).float()

    def ships(self) -> dict[str, Any]:
        return {"kind": "autoencoder", "networks": ["G", "E"], "prior": self.prior_spec}
