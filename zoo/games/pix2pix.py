"""pix2pix: translation from domain a to domain b, trained on pairs.

P. Isola, J.-Y. Zhu, T. Zhou, A. Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017, arXiv
1611.07004, sections 3.1 and 3.3. The order is that of the authors' code: a step of D, then one of G with the same fake.

Differences from the authors' Torch code, as in their PyTorch code: G learns from D as it is after D's step, in a pass
of its own; D's loss is half the sum, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Batch, Game, Turn, check_domains
from zoo.registry import GAMES, LOSSES, Spec


@GAMES.register("pix2pix")
class Pix2pix(Game):
    """G: a -> b, whose only noise is dropout, against D, which scores pairs (a, b) and (a, G(a)).

    Args:
        networks: G(a, noise=) and D, a discriminator of pairs.
        l1: weight of |b - G(a)|, the mean over pixels and channels (the paper's lambda).
        domains: the names of a and b.
        augment: Spec in AUGMENTATIONS: D gets all images, real and fake, through it.

    Batch keys: reads ``a``, ``b``; writes the numbers behind the masks, ``masks/0``, ``masks/1``, ...
    """

    takes = ("G", "D")
    needs = ("a", "b")

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        l1: float = 100.0,
        domains: Sequence[str] = ("a", "b"),
        augment: Spec | None = None,
    ):
        super().__init__(networks)
        self.set_augment(augment)
        check_domains(domains)
        self.l1, self.domains = l1, tuple(domains)
        self.pair = LOSSES.build(Spec("non-saturating", scale=0.5))

    def turns(self) -> Sequence[Turn]:
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw="last")]

    def loss_D(self, batch: Batch) -> Tensor:
        a, b = batch["a"], batch["b"]
        fake = self.G(a, noise=batch.noise("masks")).detach()
        real, fake = Discriminate(self, batch).both(Inputs(b, {"a": a}), Inputs(fake, {"a": a}))
        batch.log("D/real", real.score.float().mean())
        batch.log("D/fake", fake.score.float().mean())
        return self.pair.d(real.score, fake.score)

    def loss_G(self, batch: Batch) -> Tensor:
        a, b = batch["a"], batch["b"]
        fake = self.G(a, noise=batch.noise("masks", again=True))
        adversarial = self.pair.g(None, Discriminate(self, batch)(fake, {"a": a}).score)
        distance = (fake.float() - b.float()).abs().mean()
        batch.log("G/adversarial", adversarial)
        batch.log("G/L1", distance)
        return adversarial + self.l1 * distance

    def ships(self) -> dict[str, Any]:
        a, b = self.domains
        return {
            "kind": "translate",
            "networks": ["G"],
            "to": {"b": "G"},
            "domains": {"a": a, "b": b},
            "paired": True,
        }
