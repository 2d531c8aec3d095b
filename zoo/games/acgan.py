"""AC-GAN: a two-player game in which a head on D's features predicts the class of every image.

A. Odena, C. Olah, J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, 2016, arXiv 1610.09585,
section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.game import Batch, Turn
from zoo.games.adversarial import Adversarial, check_head, with_head
from zoo.networks.interfaces import FeatureDiscriminator, FeatureHead
from zoo.registry import GAMES


@GAMES.register("acgan")
class ACGAN(Adversarial):
    """G(z, y) against D(x), with the head C on D's features, which learns with D.

    D and C minimize the adversarial loss plus the cross-entropy of the classes of real and of fake images, G its own
    loss plus the cross-entropy of the fakes: D and G are opposed about real and fake, and agree about the class. D
    needs ``features`` and ``head``; C is called with the features; the data must have labels. Batch keys: reads ``x``,
    ``y``; writes ``z``, ``y_fake``, ``fake``. The log has both cross-entropies, in nats. Arguments as
    :class:`~zoo.games.adversarial.Adversarial`. Raises ValueError if G and C have different classes.
    """

    conditional = False  # D does not get the class

    takes = ("G", "D", "C")
    D: FeatureDiscriminator
    C: FeatureHead

    def __init__(self, networks: Mapping[str, nn.Module], **adversarial: Any):
        super().__init__(networks, **adversarial)
        if not self.classes or self.classes != self.C.classes:
            raise ValueError(
                f"networks.G.classes={self.classes}: must be the classes of the head C, which has {self.C.classes}"
            )
        check_head(self)
        self.needs = ("x", "y")

    def turns(self) -> Sequence[Turn]:
        """Those of the adversarial game; C learns when D does."""
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
        """D's scores of real and fake images [N], one pass each; C's logits are left in ``batch["C/real"]`` and
        ``batch["C/fake"]``."""
        on_real, batch["C/real"] = self.score_and_classify(x)
        on_fake = self.score_fake(fake, batch)
        batch.log("D/real", on_real.float().mean())
        batch.log("D/fake", on_fake.float().mean())
        return on_real, on_fake

    def score_fake(self, fake: Tensor, batch: Batch) -> Tensor:
        score, batch["C/fake"] = self.score_and_classify(fake)
        return score

    def score_and_classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """D's score [N] and C's logits [N, classes], from one pass."""
        h = self.D.features(x)
        score = self.D.head(h)
        return (score.squeeze(1) if score.dim() == 2 else score), self.C(h)

    def class_loss(self, batch: Batch, kind: str, y: str) -> Tensor:
        """The cross-entropy of the classes ``batch[y]`` of the images that were scored last, a scalar in float32."""
        loss = cross_entropy(batch.pop(f"C/{kind}").float(), batch[y])
        batch.log(f"C/{kind}", loss)
        return loss
