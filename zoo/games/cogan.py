"""CoGAN: two coupled GANs on two domains, without pairs.

M.-Y. Liu, O. Tuzel, Coupled Generative Adversarial Networks, 2016, arXiv 1606.07536, equation 5. In each round one step
of both discriminators, then one of both generators on fresh noise. What the domains share is inside the networks; both
players' losses are means over the samples of both domains together, as in the authors' code: half of the paper's sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.game import Batch, Game, Turn, mixes_batch
from zoo.priors import build_prior
from zoo.registry import GAMES, LOSSES, Spec


@GAMES.register("cogan")
class CoGAN(Game):
    """G(z) -> (a, b), two images of one z; D(a, b) -> scores of a's images, then of b's.

    ``loss``: Spec in LOSSES. ``prior``: of z. ``domains``: the names of a and b. Batch keys: reads ``a``, ``b``.
    """

    takes = ("G", "D")
    needs = ("a", "b")

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("non-saturating"),
        prior: Spec = Spec("normal"),
        domains: Sequence[str] = ("a", "b"),
    ):
        super().__init__(networks)
        if len(domains) != 2 or domains[0] == domains[1]:
            raise ValueError(f"game.domains={domains}: must be two different names")
        self.pair, self.domains = LOSSES.build(loss), tuple(domains)
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)
        self.joined = not mixes_batch(self.D)

    def turns(self) -> Sequence[Turn]:
        return [
            Turn(("D",), self.loss_D),
            Turn(("G",), self.loss_G, draw="last" if self.pair.relative else None),
        ]

    def loss_D(self, batch: Batch) -> Tensor:
        return self.pair.d(*self.scores(batch, [x.detach() for x in self.G(batch.latent(self.prior))]))

    def loss_G(self, batch: Batch) -> Tensor:
        fakes = self.G(batch.latent(self.prior))
        if self.pair.relative:
            return self.pair.g(*self.scores(batch, fakes))
        return self.pair.g(None, self.D(*fakes))

    def scores(self, batch: Batch, fakes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """D's scores of the reals and of the fakes of both domains, [2 N] each: from one pass if that changes no
        score."""
        reals = (batch["a"], batch["b"])
        if self.joined:
            a, b = self.D(*(torch.cat(two) for two in zip(reals, fakes, strict=True))).chunk(2)
            real, fake = (torch.cat(two) for two in zip(a.chunk(2), b.chunk(2), strict=True))
        else:
            real, fake = self.D(*reals), self.D(*fakes)
        batch.log("D/real", real.float().mean())
        batch.log("D/fake", fake.float().mean())
        return real, fake

    def ships(self) -> dict[str, Any]:
        a, b = self.domains
        return {"kind": "coupled", "networks": ["G"], "prior": self.prior_spec, "domains": {"a": a, "b": b}}
