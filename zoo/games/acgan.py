"""The two-player game in which a head on D's features names the class of every image.

A. Odena, C. Olah, J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, 2016, arXiv 1610.09585, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.game import Batch, Turn
from zoo.games.adversarial import Adversarial, check_head, with_head
from zoo.registry import GAMES


@GAMES.register("acgan")
class ACGAN(Adversarial):
    """G(z, y) against D(x), with the head C on D's features, which learns with D.

    D and C lower the adversarial loss plus the cross-entropy of the classes of reals and of fakes, G its own plus that of the
    fakes: about real and fake the players are opposed, about the class they agree. D needs ``features`` and ``head``, C is called
    with the features, the data must have labels. The log holds the three cross-entropies, in nats. Arguments as the adversarial
    game's.
    """

    conditional = False  # D is not told the class

    takes = ("G", "D", "C")

    def __init__(self, networks: Mapping[str, nn.Module], **adversarial: Any):
        super().__init__(networks, **adversarial)
        if not self.classes or self.classes != self.C.classes:
            raise ValueError(
                f"networks.G.classes={self.classes}: G and C must know the same classes, C has {self.C.classes}"
            )
        check_head(self)
        self.needs = ("x", "y")

    def turns(self) -> Sequence[Turn]:
        """Those of the adversarial game; where D learns, so does C."""
        return with_head(super().turns(), "C")

    def loss_D(self, batch: Batch) -> Tensor:
        return super().loss_D(batch) + self.class_loss(batch, "real", "y") + self.class_loss(batch, "fake", "y_fake")

    def loss_G(self, batch: Batch) -> Tensor:
        return super().loss_G(batch) + self.class_loss(batch, "fake", "y_fake")

    def loss_both(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss_both(batch)
        on_fake = self.class_loss(batch, "fake", "y_fake")
        D = losses["D"] + self.class_loss(batch, "real", "y") + on_fake
        return {"D": D, "C": D, "G": losses["G"] + on_fake}

    def scores(self, x: Tensor, fake: Tensor, batch: Batch, *, fakes_first: bool = False) -> tuple[Tensor, Tensor]:
        """D's scores of reals and fakes, one pass each; what C says is left in ``batch["C/real"]`` and ``batch["C/fake"]``."""
        real, batch["C/real"] = self.judged(x)
        made = self.score_fake(fake, batch)
        batch.log("D/real", real.float().mean())
        batch.log("D/fake", made.float().mean())
        return real, made

    def score_fake(self, fake: Tensor, batch: Batch) -> Tensor:
        score, batch["C/fake"] = self.judged(fake)
        return score

    def judged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """D's score [N] and C's logits [N, classes], from one pass."""
        h = self.D.features(x)
        score = self.D.head(h)
        return (score.squeeze(1) if score.dim() == 2 else score), self.C(h)

    def class_loss(self, batch: Batch, kind: str, y: str) -> Tensor:
        """The cross-entropy of the classes ``batch[y]`` of images just scored, a scalar in float32."""
        loss = cross_entropy(batch.pop(f"C/{kind}").float(), batch[y])
        batch.log(f"C/{kind}", loss)
        return loss
