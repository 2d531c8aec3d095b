"""Residual generators and discriminators of WGAN-GP, SNGAN and SAGAN.

- Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved Training of Wasserstein GANs", 2017, arXiv 1704.00028: the
  CIFAR-10 ResNet and the 64x64 "good" networks.
- Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial Networks", 2018, arXiv
  1802.05957, and Miyato, Koyama, "cGANs with Projection Discriminator", 2018, arXiv 1802.05637: 32x32 and 128x128.
- Zhang, Goodfellow, Metaxas, Odena, "Self-Attention Generative Adversarial Networks", 2018, arXiv 1805.08318: 128x128.

One generator and one discriminator, whose arguments are what the papers vary, and WGAN-GP's 64x64 critic. In-place
operations (``relu_``, ``add_``) follow norms and convolutions, which do not need their output for the gradient.

Differences from the papers:
- Resampling is folded into the convolutions, and shortcuts run at the smaller size (``layers.py``): equal up to
  rounding.
- Batch norm keeps running averages for sampling; WGAN-GP's code always uses the batch's own statistics.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import HE
from zoo.networks.layers import BatchNorm2d, Conv2d, Linear, ProjectionHead, SelfAttention, smallest_side
from zoo.registry import NETWORKS


class UpBlock(nn.Module):
    """Norm, ReLU, upsampling, 3x3, norm, ReLU, 3x3; the shortcut is upsampling and 1x1."""

    def __init__(
        self, inputs: int, outputs: int, classes: int, *, sn: bool, gain: float, bias: bool, norm: dict[str, Any]
    ):
        super().__init__()
        self.norm1 = BatchNorm2d(inputs, classes, **norm)
        self.conv1 = Conv2d(inputs, outputs, resample="up", sn=sn, gain=gain, bias=bias)
        self.norm2 = BatchNorm2d(outputs, classes, **norm)
        self.conv2 = Conv2d(outputs, outputs, sn=sn, gain=gain)
        self.shortcut = Conv2d(inputs, outputs, 1, resample="up", sn=sn)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """x [N, inputs, H, W], y [N] or None -> [N, outputs, 2H, 2W]."""
        h = self.conv1(F.relu_(self.norm1(x, y)))
        h = self.conv2(F.relu_(self.norm2(h, y)))
        return h.add_(self.shortcut(x))


class DownBlock(nn.Module):
    """(Norm,) ReLU, 3x3, (norm,) ReLU, 3x3, average pooling if ``down``; the shortcut is 1x1 and pooling, or the
    identity.

    Args:
        inputs, outputs: channels of input and output.
        hidden: channels between the two convolutions.
        first: the block takes the image itself: no norm and no ReLU before the first convolution.
        down: halve height and width.
        sn: spectral normalization.
        gain: of the 3x3 convolutions' initial weights.
        layer_norm: normalize each image over channels and positions, as in WGAN-GP's 64x64 critic.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int,
        *,
        first: bool = False,
        down: bool = True,
        sn: bool = False,
        gain: float = HE,
        layer_norm: bool = False,
    ):
        super().__init__()
        resample = "down" if down else ""
        self.first = first
        self.norm1 = nn.GroupNorm(1, inputs) if layer_norm else nn.Identity()
        self.conv1 = Conv2d(inputs, hidden, sn=sn, gain=gain, bias=not layer_norm)
        self.norm2 = nn.GroupNorm(1, hidden) if layer_norm else nn.Identity()
        self.conv2 = Conv2d(hidden, outputs, resample=resample, sn=sn, gain=gain)
        same = inputs == outputs and not down
        self.shortcut = nn.Identity() if same else Conv2d(inputs, outputs, 1, resample=resample, sn=sn)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H/2, W/2] if down, else [N, outputs, H, W]."""
        h = self.conv1(x if self.first else F.relu(self.norm1(x)))
        h = self.conv2(F.relu_(self.norm2(h)))
        return h.add_(self.shortcut(x))


@NETWORKS.register("resnet-generator")
class ResNetGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in [-1, 1].

    Args:
        channels, resolution: of the images; each block doubles the resolution.
        classes: class-conditional batch norm, ``G(z, y=y)``; 0 for none.
        latent: numbers of noise.
        widths: channels of the first, smallest map, then of each block's output.
        sn: spectral normalization.
        attention_at: the side of the map that self-attention follows, 0 for none.
        gain, output_gain: of the residual 3x3 and of the last convolution's initial weights.
        bias: in each block's first convolution (WGAN-GP's 64x64 network has none).
        eps: of batch norm.
        momentum, output_momentum: of batch norm's running averages, and of the last one's if it differs.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 0,
        latent: int = 128,
        widths: Sequence[int] = (256, 256, 256, 256),
        sn: bool = False,
        attention_at: int = 0,
        gain: float = HE,
        output_gain: float = 1.0,
        bias: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
        output_momentum: float | None = None,
    ):
        super().__init__()
        self.latent, self.classes = latent, classes
        side = smallest_side(resolution, len(widths) - 1, f"resnet-generator with widths {tuple(widths)}")
        self.first = (widths[0], side, side)
        self.linear = Linear(latent, widths[0] * side * side, sn=sn)
        norm = {"eps": eps, "momentum": momentum}
        sides = [side * 2**i for i in range(1, len(widths))]
        blocks: list[nn.Module] = []
        for inputs, outputs, after in zip(widths, widths[1:], sides, strict=False):
            blocks.append(UpBlock(inputs, outputs, classes, sn=sn, gain=gain, bias=bias, norm=norm))
            if after == attention_at:
                blocks.append(SelfAttention(outputs))
        _check_attention(attention_at, sides)
        self.blocks = nn.ModuleList(blocks)
        self.norm = BatchNorm2d(widths[-1], eps=eps, momentum=momentum if output_momentum is None else output_momentum)
        self.output = Conv2d(widths[-1], channels, sn=sn, gain=output_gain)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, self.first)
        for block in self.blocks:
            h = block(h, y) if isinstance(block, UpBlock) else block(h)
        return self.output(F.relu_(self.norm(h))).tanh()  # [N, channels, resolution, resolution]


@NETWORKS.register("resnet-discriminator")
class ResNetDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] (and classes y [N]) -> scores [N].

    Args:
        channels, resolution: of the images.
        classes: projection onto a class embedding, ``D(x, y=y)``; 0 for none.
        widths: channels after each block.
        downs: how many blocks, the first ones, halve the resolution.
        hidden: a block's inner width is that of its "input" (SNGAN; the first block's is its output's) or its "output"
            (SAGAN).
        pool: "sum" or "mean" over the positions of the last map.
        sn: spectral normalization.
        attention_at: the side of the map that self-attention follows, 0 for none.
        gain: of the residual 3x3 convolutions' initial weights.
        bias: of the last layer.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 0,
        widths: Sequence[int] = (128, 128, 128, 128),
        downs: int = 2,
        hidden: str = "input",
        pool: str = "sum",
        sn: bool = True,
        attention_at: int = 0,
        gain: float = HE,
        bias: bool = True,
    ):
        super().__init__()
        if hidden not in ("input", "output"):
            raise ValueError(f"hidden={hidden!r}: must be 'input' or 'output'")
        if pool not in ("sum", "mean"):
            raise ValueError(f"pool={pool!r}: must be 'sum' or 'mean'")
        smallest_side(resolution, downs, f"resnet-discriminator with {downs} halvings")
        self.classes, self.pool = classes, pool
        sides = [resolution // 2 ** min(i, downs) for i in range(1, len(widths) + 1)]
        blocks: list[nn.Module] = []
        inputs = channels
        for i, (outputs, after) in enumerate(zip(widths, sides, strict=True)):
            inner = inputs if hidden == "input" and i > 0 else outputs
            blocks.append(DownBlock(inputs, outputs, inner, first=i == 0, down=i < downs, sn=sn, gain=gain))
            if after == attention_at and attention_at not in sides[:i]:
                blocks.append(SelfAttention(outputs))
            inputs = outputs
        _check_attention(attention_at, sides)
        self.blocks = nn.Sequential(*blocks)
        self.head = ProjectionHead(inputs, classes, sn=sn, bias=bias)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, widths[-1]], the sum or mean of the last map over its positions."""
        h = F.relu_(self.blocks(x))
        return h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        return self.head(h, condition(given, "y"))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # only y
        return self.head(self.features(x), y)


@NETWORKS.register("layernorm-resnet-discriminator")
class LayerNormDiscriminator(Discriminator):
    """WGAN-GP's 64x64 critic: images [N, channels, resolution, resolution] -> scores [N].

    A 3x3 convolution to ``width``, four halving blocks of 2, 4, 8 and 8 times ``width`` with layer norm, a linear
    layer.
    """

    def __init__(self, channels: int = 3, resolution: int = 64, width: int = 64):
        super().__init__()
        side = smallest_side(resolution, 4, "layernorm-resnet-discriminator")
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.input = Conv2d(channels, width)
        self.blocks = nn.Sequential(*(DownBlock(i, o, i, layer_norm=True) for i, o in itertools.pairwise(widths)))
        self.head = ProjectionHead(8 * width * side * side)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, 8 * width * (resolution / 16)^2], the last map, flat."""
        return self.blocks(self.input(x)).flatten(1)


def _check_attention(attention_at: int, sides: Sequence[int]) -> None:
    if attention_at and attention_at not in sides:
        raise ValueError(f"attention_at={attention_at}: must be 0 or the side of a map, one of {sorted(set(sides))}")
