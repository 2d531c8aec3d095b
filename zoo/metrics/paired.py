"""Scores of an image against the one it should be: uint8 [n, C, H, W] both, one value for each pair, [n].

SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
Transactions on Image Processing 13 (2004), with its constants: Gaussian window of 11x11 and deviation 1.5, K1 = 0.01,
K2 = 0.03, only where the window lies inside the image. Channels are scored apart and averaged.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WINDOW, DEVIATION = 11, 1.5
LPIPS_FILES = ("vgg16-397923af.pth", "weights-vgg16-lpips.pth")
MOST = 100.0  # decibels that equal images are given, since JSON knows no infinity


def psnr(made: Tensor, truth: Tensor) -> Tensor:
    """10 log10(255^2 / mean squared difference), at most 100 dB."""
    error = (made.double() - truth.double()).square().flatten(1).mean(1)
    return (10 * (255**2 / error).log10()).clamp(max=MOST)


def ssim(made: Tensor, truth: Tensor) -> Tensor:
    """The mean of the structural similarity's map. ValueError for images smaller than the window."""
    if min(made.shape[-2:]) < WINDOW:
        raise ValueError(
            f"metrics=ssim: images of {made.shape[-1]}x{made.shape[-2]} are smaller than its {WINDOW}x{WINDOW} window"
        )
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    row = (-at.square() / (2 * DEVIATION**2)).exp()
    row /= row.sum()
    x, y = (i.double().flatten(0, 1)[:, None] for i in (made, truth))  # [n * C, 1, H, W]

    def blur(i: Tensor) -> Tensor:
        i = torch.nn.functional.conv2d(i, row.view(1, 1, 1, -1))
        return torch.nn.functional.conv2d(i, row.view(1, 1, -1, 1))

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return similar.mean((1, 2, 3)).unflatten(0, made.shape[:2]).mean(1)


def agreement(made: Tensor, truth: Tensor) -> Tensor:
    """The share of values that lie on the same side of mid-gray."""
    return ((made > 127) == (truth > 127)).double().flatten(1).mean(1)


def lpips_missing() -> str:
    """What LPIPS lacks here, '' where it is ready."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    missing = [name for name in LPIPS_FILES if not (folder / name).is_file()]
    return f"lpips is not scored: its network ({' and '.join(missing)}) is not in {folder}" if missing else ""


@functools.cache
def _lpips_network() -> Any:
    from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

    return SampleSimilarityLPIPS("lpips-vgg16")


@torch.no_grad()
def lpips(made: Tensor, truth: Tensor) -> Tensor:
    """The distance in torch-fidelity's VGG-16, whose two files must lie in torch's hub folder; ValueError where they don't."""
    if said := lpips_missing():
        raise ValueError(f"metrics=lpips: {said}")
    return _lpips_network()(made.expand(-1, 3, -1, -1), truth.expand(-1, 3, -1, -1)).double()
