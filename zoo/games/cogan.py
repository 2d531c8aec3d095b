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

from zoo.discriminate import Discriminate, DiscriminatorOutput, Inputs
from zoo.game import Batch, Game, Turn, check_domains
from zoo.priors import build_prior
from zoo.registry import GAMES, LOSSES, Spec


@GAMES.register("cogan")
class CoGAN(Game):
    """G(z) -> (a, b), two images of one z; D(a, b) -> scores of a's images and of b's.

    ``loss``: Spec in LOSSES. ``prior``: of z. ``domains``: the names of a and b. ``augment``:
    Spec in AUGMENTATIONS, through which D gets a and b, with the same numbers. Batch keys: reads ``a``, ``b``.
    """

    takes = ("G", "D")
    needs = ("a", "b")

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        loss: Spec = Spec("non-saturating"),
        prior: Spec = Spec("normal"),
        domains: Sequence[str] = ("a", "b"),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        check_domains(domains)
        self.pair, self.domains = LOSSES.build(loss), tuple(domains)
        self.prior_spec, self.prior = prior, build_prior(prior, self.G)

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
        a, b = fakes
        return self.pair.g(None, of_both(Discriminate(self, batch)(a, {"b": b})))

    def scores(self, batch: Batch, fakes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """D's scores of the reals and of the fakes of both domains, [2 N] each."""
        (a, b), reals = fakes, Inputs(batch["a"], {"b": batch["b"]})
        real, fake = (of_both(i.output) for i in Discriminate(self, batch).both(reals, Inputs(a, {"b": b})))
        batch.log("D/real", real.float().mean())
        batch.log("D/fake", fake.float().mean())
        return real, fake

    def ships(self) -> dict[str, Any]:
        a, b = self.domains
        return {"kind": "coupled", "networks": ["G"], "prior": self.prior_spec, "domains": {"a": a, "b": b}}


def of_both(output: DiscriminatorOutput | None) -> Tensor:
    """The scores of both domains' images, [2 N]."""
    assert output is not None
    return torch.cat([output.scores["a"], output.scores["b"]])
