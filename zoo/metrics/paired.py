"""Scores of pairs, images and what they should be: both [n, C, H, W], uint8 or float in [0, 1], which is rounded to
uint8 first; one value for each pair, [n]. All raise ValueError for images of other values, or of two shapes.

Papers on super-resolution score the luma (Y of ITU-R BT.601 as MATLAB's rgb2ycbcr computes it, from 16 to 235) without
a border of as many pixels as the factor: :func:`luma`.

SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
Transactions on Image Processing 13 (2004), with its constants: Gaussian window of 11x11 and deviation 1.5, K1 = 0.01,
K2 = 0.03, only windows that lie inside the image. Channels are scored separately and averaged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from zoo.data.objects import to_uint8
from zoo.seeds import own_random_state

WINDOW, DEVIATION = 11, 1.5
LPIPS_FILES = ("vgg16-397923af.pth", "weights-vgg16-lpips.pth")
BORDER = 4  # pixels that the scores of luma leave out: those of upscaling four times
MAX_PSNR = 100.0  # decibels, of equal images: JSON has no infinity


def levels(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as uint8."""
    if outputs.shape != targets.shape:
        raise ValueError(f"pairs must have one shape, got {list(outputs.shape)} and {list(targets.shape)}")
    return to_uint8(outputs), to_uint8(targets)


def psnr(outputs: Tensor, targets: Tensor) -> Tensor:
    """10 log10(255^2 / mean squared difference), at most 100 dB."""
    return noise_ratio(*levels(outputs, targets))


def l1(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute difference, in [0, 1]."""
    x, y = levels(outputs, targets)
    return (x.double() - y.double()).abs().flatten(1).mean(1) / 255


def psnr_y(outputs: Tensor, targets: Tensor) -> Tensor:
    """PSNR of the luma."""
    return noise_ratio(*map(luma, levels(outputs, targets)))


def ssim(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of the map of structural similarity. Raises ValueError for images smaller than the window."""
    return similarity(*levels(outputs, targets))


def ssim_y(outputs: Tensor, targets: Tensor) -> Tensor:
    """SSIM of the luma."""
    return similarity(*map(luma, levels(outputs, targets)))


def noise_ratio(outputs: Tensor, targets: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of values from 0 to 255."""
    error = (outputs.double() - targets.double()).square().flatten(1).mean(1)
    return (10 * (255**2 / error).log10()).clamp(max=MAX_PSNR)


def similarity(outputs: Tensor, targets: Tensor) -> Tensor:
    """The structural similarity of values from 0 to 255."""
    if min(outputs.shape[-2:]) < WINDOW:
        raise ValueError(
            f"metrics=ssim: images must be at least {WINDOW}x{WINDOW}, got {outputs.shape[-1]}x{outputs.shape[-2]}"
        )
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    row = (-at.square() / (2 * DEVIATION**2)).exp()
    row /= row.sum()
    x, y = (i.double().flatten(0, 1)[:, None] for i in (outputs, targets))  # [n * C, 1, H, W]

    def blur(i: Tensor) -> Tensor:
        i = torch.nn.functional.conv2d(i, row.view(1, 1, 1, -1))
        return torch.nn.functional.conv2d(i, row.view(1, 1, -1, 1))

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    local = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return local.mean((1, 2, 3)).unflatten(0, outputs.shape[:2]).mean(1)


def luma(images: Tensor, border: int = BORDER) -> Tensor:
    """Images uint8 [n, 3, H, W], or gray ones [n, 1, H, W], which are luma already, in 0 to 255, without ``border``
    pixels on each side: float64 [n, 1, H - 2 border, W - 2 border]. Raises ValueError if nothing is left."""
    height, width = images.shape[-2:]
    if min(height, width) <= 2 * border:
        raise ValueError(f"luma: images must be larger than {2 * border}x{2 * border}, got {width}x{height}")
    inner = images[..., border : height - border, border : width - border].double()
    if images.shape[1] == 1:
        return inner
    weights = inner.new_tensor([65.481, 128.553, 24.966]) / 255
    return 16 + (inner * weights[:, None, None]).sum(1, keepdim=True)


def agreement(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of values on the same side of mid-gray."""
    outputs, targets = levels(outputs, targets)
    return ((outputs > 127) == (targets > 127)).double().flatten(1).mean(1)


def lpips_missing() -> str:
    """Which files LPIPS lacks; "" if it has all."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    missing = [name for name in LPIPS_FILES if not (folder / name).is_file()]
    return f"the network of LPIPS ({' and '.join(missing)}) is not in {folder}" if missing else ""


@functools.cache
@own_random_state()
def lpips_network() -> Callable[[Tensor, Tensor], Tensor]:
    from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

    return SampleSimilarityLPIPS("lpips-vgg16")


@torch.no_grad()
def lpips(outputs: Tensor, targets: Tensor) -> Tensor:
    """The distance in torch-fidelity's VGG-16. Raises ValueError if its two files are not in torch's hub folder."""
    if message := lpips_missing():
        raise ValueError(f"metrics=lpips: {message}")
    outputs, targets = levels(outputs, targets)
    return lpips_network()(outputs.expand(-1, 3, -1, -1), targets.expand(-1, 3, -1, -1)).double()
