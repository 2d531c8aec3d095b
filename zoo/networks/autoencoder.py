"""Autoencoders: the interface of discriminators that reconstruct their input (EBGAN, BEGAN)."""

from __future__ import annotations

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """x -> its reconstruction, of the same shape: ``decode(encode(x))``."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> its code."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        """A code -> the reconstruction [N, C, H, W]."""
        return self.decoder(code)

    def features(self, x: Tensor) -> Tensor:
        """The code, flat: [N, F]."""
        return self.encode(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
