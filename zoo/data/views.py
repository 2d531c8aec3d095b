"""Views: another domain made of the same images, for models that learn two. uint8 [N, C, H, W] in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def inverse(x: torch.Tensor) -> torch.Tensor:
    """The negative."""
    return 255 - x


def edges(x: torch.Tensor) -> torch.Tensor:
    """The edges of bright areas: the maximum over 3x3 pixels minus the pixel (as in CoGAN's code: dilation minus
    image)."""
    import torch.nn.functional as F

    gray = x.float()
    return (F.max_pool2d(gray, 3, stride=1, padding=1) - gray).to(x.dtype)


VIEWS = {"edges": edges, "inverse": inverse}
