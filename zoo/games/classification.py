"""A classifier alone: what semi-supervised models begin with, or are compared with.

The two terms on unlabeled images are those of C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv
1703.02291, in the authors' code: sure of each image, and of all classes equally often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo import parallel
from zoo.game import Batch, Game, Turn
from zoo.registry import GAMES


def classifier_loss(C: nn.Module, batch: Batch, unlabeled: Tensor | None, weights: Mapping[str, float]) -> Tensor:
    """Cross-entropy on the ``labeled`` images, and as weighted: ``entropy`` of each prediction on the unlabeled ones, whose
    logits are given, ``balance``, the cross-entropy of their mean from the uniform, ``decay``, the squares of C's head."""
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
    """C alone, on ``labeled`` images and their classes ``y``; with ``entropy`` or ``balance`` on unlabeled ones ``x`` too.
    Other networks rest."""

    takes = ("C",)

    def __init__(
        self, networks: Mapping[str, nn.Module], entropy: float = 0.0, balance: float = 0.0, decay: float = 0.0
    ):
        super().__init__(networks)
        if not hasattr(self.C, "logits"):
            raise ValueError(f"networks.C: classification needs a classifier, which {type(self.C).__name__} is not")
        self.weights = {"entropy": entropy, "balance": balance, "decay": decay}
        self.looks = bool(entropy or balance)
        self.needs = ("labeled", "y", "x") if self.looks else ("labeled", "y")

    def turns(self) -> Sequence[Turn]:
        return [Turn(("C",), self.loss_C)]

    def loss_C(self, batch: Batch) -> Tensor:
        return classifier_loss(self.C, batch, self.C.logits(batch["x"]) if self.looks else None, self.weights)

    def prepare(self, batch: Batch) -> None:
        """A classifier that sets itself from data (``initialize``) is given 500 labeled images."""
        if hasattr(self.C, "initialize"):
            self.C.initialize(batch["labeled"][:500])

    def ships(self) -> dict[str, Any]:
        return {"kind": "classify", "networks": ["C"], "classifier": "C"}
