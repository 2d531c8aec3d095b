"""Image and text encoders that are trained together: matched pairs score higher than mismatched ones.

Reed, Akata, Schiele, Lee, "Learning Deep Representations of Fine-grained Visual Descriptions", 2016, arXiv 1605.05395,
section 3: the symmetric structured joint embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.game import Batch, Game, Turn
from zoo.registry import GAMES


def joint_embedding_loss(
    images: Tensor, texts: Tensor, labels: Tensor | None = None, margin: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The symmetric structured loss, a scalar in float32, and the share of images whose own text scores highest.

    A mismatched pair should score lower than the matched pair of its image, and than that of its text, by ``margin``;
    the loss is the mean shortfall over all pairs of the batch, those of all processes.

    Args:
        images, texts: embeddings [N, K], row by row of matched pairs. The score of a pair is their inner product.
        labels: [N]: pairs of rows with the same one are not mismatched; None: all other rows are.
        margin: the distance between scores.
    """
    images, texts = images.float(), texts.float()
    every_image, every_text = parallel.gather_with_gradient(images), parallel.gather_with_gradient(texts)
    n, count = len(images), len(every_image)
    place = torch.arange(n, device=images.device) + parallel.rank() * n
    if labels is None:
        same = place[:, None] == torch.arange(count, device=images.device)
    else:
        same = labels[:, None] == parallel.gather(labels)
    matched = (images * texts).sum(1, keepdim=True)  # [N, 1]
    scores = images @ every_text.T, texts @ every_image.T  # [N, count] of each image, of each text
    shortfalls = [(margin + score - matched).clamp(min=0).masked_fill(same, 0).sum() for score in scores]
    right = (scores[0].argmax(1) == place).float().mean()
    return (shortfalls[0] + shortfalls[1]) / (n * count), right


@GAMES.register("joint-embedding")
class JointEmbedding(Game):
    """An image encoder E and a text encoder T, on images ``x`` and what T reads of their captions, ``text`` [N, K] (a
    derived field); with ``label``, pairs of the same label are not mismatched."""

    takes, needs = ("E", "T"), ("x", "text")
    whole_batch = "the mismatched pairs of the batch"
    E: nn.Module
    T: nn.Module

    def turns(self) -> Sequence[Turn]:
        return [Turn(("E", "T"), self.loss)]

    def loss(self, batch: Batch) -> Tensor:
        loss, right = joint_embedding_loss(self.E(batch["x"]), self.T(batch["text"]), batch.get("label"))
        batch.log("T/own-text-first", right)
        return loss

    def ships(self) -> dict[str, Any]:
        return {"kind": "joint-embedding", "networks": ["E", "T"]}
