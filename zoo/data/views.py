"""Views: another domain made of the same images, for models that learn two. uint8 [N, C, H, W] in and out.

:func:`shrink` and :func:`enlarge` are for super-resolution: float in and out.
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


def shrink(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Images [N, C, H, W] in [0, 1] -> [N, C, H / factor, W / factor], rounded down: bicubic, with a filter as wide as
    the factor, clamped to [0, 1]."""
    return _bicubic(x, [side // factor for side in x.shape[2:]])


def enlarge(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Images [N, C, H, W] in [0, 1] -> [N, C, factor H, factor W]: bicubic, clamped to [0, 1]."""
    return _bicubic(x, [side * factor for side in x.shape[2:]])


def _bicubic(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    """With the kernel of MATLAB's imresize (a = -0.5; torch has -0.75 without antialias), which the scores that papers
    on super-resolution print are computed with. It differs from it in the pixels near the border, which these leave
    out."""
    import torch.nn.functional as F

    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)


VIEWS = {"edges": edges, "inverse": inverse}
