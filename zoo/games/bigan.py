"""BiGAN: a GAN with an encoder; D tells the pairs (x, E(x)) from (G(z), z).

J. Donahue, P. Krahenbuhl, T. Darrell, Adversarial Feature Learning, 2016, arXiv 1605.09782. As in the authors' code
all three move at once, from one forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn
from zoo.priors import build_prior
from zoo.registry import GAMES, LOSSES, Spec


@GAMES.register("bigan")
class BiGAN(Game):
    """G(z) and E(x) against D(x, z).

    ``loss``: Spec in LOSSES. D minimizes its d(real, fake), with (x, E(x)) as the real pair; E and G minimize the same
    with the pairs swapped, both terms of it: E's gradient is that of its own pair, and G's of the other. ``augment``:
    Spec in AUGMENTATIONS, through which D gets all images. Batch keys: reads ``x``.
    """

    takes = ("G", "E", "D")
    E: nn.Module

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("non-saturating"),
        prior: Spec = Spec("uniform"),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        self.pair = LOSSES.build(loss)
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)

    def turns(self) -> Sequence[Turn]:
        return [Turn(("D", "G", "E"), self.losses)]

    def losses(self, batch: Batch) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        x, z = batch["x"], batch.latent(self.prior)
        pairs = Inputs(x, {"z": self.E(x)}), Inputs(self.G(z), {"z": z})
        real, fake = (pair.score for pair in Discriminate(self, batch).both(*pairs))
        batch.log("D/real", real.float().mean())
        batch.log("D/fake", fake.float().mean())
        swapped = self.pair.d(fake, real)
        return {"D": self.pair.d(real, fake), "G": swapped, "E": swapped}

    def ships(self) -> dict[str, Any]:
        return {"kind": "autoencoder", "networks": ["G", "E"], "prior": self.prior_spec}
