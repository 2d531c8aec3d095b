"""Improved GAN: a D that also classifies, semi-supervised with a few labeled images.

T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen, Improved Techniques for Training GANs, 2016,
arXiv 1606.03498, section 5, with the "fake" logit fixed at 0: D(x) = Z / (Z + 1), with Z the sum of exp of the class
logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.game import Batch
from zoo.games.adversarial import Adversarial
from zoo.networks.interfaces import Classifier
from zoo.registry import GAMES


@GAMES.register("improved-gan")
class ImprovedGAN(Adversarial):
    """The adversarial game on unlabeled images ``x``; D also minimizes the cross-entropy of its ``logits`` on
    ``labeled`` images and their classes ``y``. D ships beside G as a classifier, unless its logits of an image depend
    on other images of the batch (minibatch features). Arguments as :class:`~zoo.games.adversarial.Adversarial`."""

    D: Classifier

    def __init__(self, networks: Mapping[str, nn.Module], **adversarial: Any):
        super().__init__(networks, **adversarial)
        if not hasattr(self.D, "logits"):
            raise ValueError(
                f"networks.D: must be a discriminator with a logit for each class, got {type(self.D).__name__}"
            )
        self.needs = ("x", "labeled", "y")

    def loss_D(self, batch: Batch) -> Tensor:
        return self.class_loss(batch) + super().loss_D(batch)

    def loss_both(self, batch: Batch) -> dict[str, Tensor]:
        on_labeled = self.class_loss(batch)
        losses = super().loss_both(batch)
        return {"D": on_labeled + losses["D"], "G": losses["G"]}

    def class_loss(self, batch: Batch) -> Tensor:
        """The cross-entropy of the labeled images' classes, a scalar in float32."""
        logits = self.D.logits(batch["labeled"]).float()
        batch.log("D/labeled-error", (logits.argmax(1) != batch["y"]).float().mean())
        return F.cross_entropy(logits, batch["y"])

    def ships(self) -> dict[str, Any]:
        # Batch norm mixes the batch in training too, but has running averages when a classifier is used.
        if any(getattr(m, "mixes_batch", False) for m in self.D.modules()):
            return super().ships()
        return {**super().ships(), "networks": ["G", "D"], "classifier": "D"}
