"""A classifier alone: the first stage of semi-supervised models, or what they are compared with.

The two terms on unlabeled images are those of C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017,
arXiv 1703.02291, in the authors' code: a low entropy of each prediction, and all classes equally often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo import parallel
from zoo.game import Batch, Game, Turn
from zoo.networks.interfaces import Classifier
from zoo.registry import GAMES


def classifier_loss(C: Classifier, batch: Batch, unlabeled: Tensor | None, weights: Mapping[str, float]) -> Tensor:
    """The loss of a classifier, a scalar in float32.

    Args:
        C: the classifier.
        batch: ``labeled`` images and their classes ``y``, for the cross-entropy.
        unlabeled: logits [N, classes] of unlabeled images, or None.
        weights: of the ``entropy`` of each prediction on the unlabeled images, of the ``balance`` (the cross-entropy of
            their mean from the uniform), and of the ``decay`` (the squares of the weights of C's head).
    """
    logits = C.logits(batch["labeled"]).float()
    batch.log("C/labeled-error", (logits.argmax(1) != batch["y"]).float().mean())
    loss = F.cross_entropy(logits, batch["y"])
    if unlabeled is not None:
        p = unlabeled.float().softmax(1)
        mean = parallel.mean_with_gradient(p.mean(0))  # of all processes' images
        entropy = -(p * unlabeled.float().log_softmax(1)).sum(1).mean()
        loss = loss + weights["entropy"] * entropy - weights["balance"] * mean.clamp(min=1e-12).log().mean()
    if weights["decay"]:
        loss = loss + weights["decay"] * C.head.weight.float().square().sum()
    return loss


@GAMES.register("classification")
class Classification(Game):
    """C alone, on ``labeled`` images and their classes ``y``; with ``entropy`` or ``balance`` on unlabeled ones ``x``
    too. Other networks stay as they are. The arguments are weights as in :func:`classifier_loss`."""

    takes = ("C",)
    C: Classifier

    def __init__(
        self, networks: Mapping[str, nn.Module], entropy: float = 0.0, balance: float = 0.0, decay: float = 0.0
    ):
        super().__init__(networks)
        if not hasattr(self.C, "logits"):
            raise ValueError(f"networks.C: must be a classifier with logits(x), got {type(self.C).__name__}")
        self.weights = {"entropy": entropy, "balance": balance, "decay": decay}
        self.whole_batch = "the balance of classes" if balance else ""
        self.uses_unlabeled = bool(entropy or balance)
        self.needs = ("labeled", "y", "x") if self.uses_unlabeled else ("labeled", "y")

    def turns(self) -> Sequence[Turn]:
        return [Turn(("C",), self.loss_C)]

    def loss_C(self, batch: Batch) -> Tensor:
        unlabeled = self.C.logits(batch["x"]) if self.uses_unlabeled else None
        return classifier_loss(self.C, batch, unlabeled, self.weights)

    def prepare(self, batch: Batch) -> None:
        """A classifier with data-dependent initialization (``initialize``) gets 500 labeled images."""
        initialize = getattr(self.C, "initialize", None)
        if initialize is not None:
            initialize(batch["labeled"][:500])

    def ships(self) -> dict[str, Any]:
        return {"kind": "classify", "networks": ["C"], "classifier": "C"}
