"""Discriminators that are autoencoders (EBGAN, BEGAN): an image's score is the negative of its energy, the distance to
its reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition

DISTANCES = {
    "euclidean": lambda x, y: torch.linalg.vector_norm((x.float() - y.float()).flatten(1), dim=1),
    "absolute": lambda x, y: (x.float() - y.float()).abs().flatten(1).mean(1),
}


class Autoencoder(Discriminator):
    """x -> its reconstruction, of the same shape: ``decode(encode(x))``. The features are the code, the score [N] is
    -distance(D(x), x), at most 0 and high if x looks real.

    ``distance``: ``"euclidean"`` (the norm over all values) or ``"absolute"`` (their mean absolute difference). Raises
    ValueError for others.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, distance: str = "euclidean"):
        super().__init__()
        if distance not in DISTANCES:
            raise ValueError(f"distance='{distance}': must be {' or '.join(DISTANCES)}")
        self.encoder, self.decoder, self.distance = encoder, decoder, DISTANCES[distance]

    def encode(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> its code."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        """A code -> the reconstruction [N, C, H, W]."""
        return self.decoder(code)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        return self.encode(x)

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        x = condition(given, "x")
        assert x is not None
        return -self.distance(self.decode(h), x)  # both sides depend on x

    def forward(self, x: Tensor, **given: Tensor) -> Tensor:
        return self.decode(self.encode(x))
