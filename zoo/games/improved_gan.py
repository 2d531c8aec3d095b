"""Two players of whom D also names classes, learned from a few labeled images.

T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen, Improved Techniques for Training GANs, 2016, arXiv
1606.03498, section 5, with the "fake" logit fixed at 0: D(x) = Z / (Z + 1), where Z sums exp of the class logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.registry import GAMES


@GAMES.register("improved-gan")
class ImprovedGAN(Adversarial):
    """The adversarial game on unlabeled images ``x``; D also lowers the cross-entropy of its ``logits`` on ``labeled``
    images and their classes ``y``, and ships beside G as a classifier, unless what it says of an image depends on others
    (minibatch features). Arguments as the adversarial game's."""

    def __init__(self, networks: Mapping[str, nn.Module], **adversarial: Any):
        super().__init__(networks, **adversarial)
        if not hasattr(self.D, "logits"):
            raise ValueError("networks.D: the semi-supervised game needs a discriminator with a logit for each class")
        self.needs = ("x", "labeled", "y")

    def loss_D(self, batch: Batch) -> Tensor:
        return self.class_loss(batch) + super().loss_D(batch)

    def loss_both(self, batch: Batch) -> dict[str, Tensor]:
        on_labeled = self.class_loss(batch)
        losses = super().loss_both(batch)
        return {"D": on_labeled + losses["D"], "G": losses["G"]}

    def class_loss(self, batch: Batch) -> Tensor:
        """The cross-entropy of the labeled images' classes."""
        logits = self.D.logits(batch["labeled"]).float()
        batch.log("D/labeled-error", (logits.argmax(1) != batch["y"]).float().mean())
        return F.cross_entropy(logits, batch["y"])

    def ships(self) -> dict[str, Any]:
        # Batch norm, which looks across too while it learns, has running averages where a classifier is asked.
        if any(getattr(m, "mixes_batch", False) for m in self.D.modules()):
            return super().ships()
        return {**super().ships(), "networks": ["G", "D"], "classifier": "D"}
