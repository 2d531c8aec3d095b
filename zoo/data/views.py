"""Views: another domain made of the same images, for models that learn two. uint8 [N, C, H, W] in and out.

:func:`resize` is for games and scores: float in and out.
"""

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


def resize(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Images [N, C, H, W] in [0, 1] of ``factor`` times the height and width, both rounded down: bicubic with
    antialias, clamped to [0, 1]. The kernel is MATLAB's (a = -0.5), the one of the figures that papers on
    super-resolution print for bicubic interpolation; it differs in the pixels near the border, which they leave out."""
    import torch.nn.functional as F

    size = [int(side * factor + 1e-9) for side in x.shape[2:]]
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)


VIEWS = {"edges": edges, "inverse": inverse}
