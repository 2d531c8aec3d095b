"""Residual generators and discriminators of WGAN-GP, SNGAN and SAGAN.

- Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved Training of Wasserstein GANs", 2017, arXiv 1704.00028: the
  CIFAR-10 ResNet and the 64x64 "good" networks.
- Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial Networks", 2018, arXiv 1802.05957,
  and Miyato, Koyama, "cGANs with Projection Discriminator", 2018, arXiv 1802.05637: 32x32 and 128x128.
- Zhang, Goodfellow, Metaxas, Odena, "Self-Attention Generative Adversarial Networks", 2018, arXiv 1805.08318: 128x128.

One generator and one discriminator, whose arguments are what the papers vary; WGAN-GP's 64x64 critic stands apart. What a
norm or a convolution has just made is overwritten (``relu_``, ``add_``), since neither needs it again for its gradient. Where we
differ: resampling is folded into the convolutions and shortcuts run on the small image (``layers.py``), equal up to rounding;
and batch normalization keeps running averages for sampling where WGAN-GP's code always takes the batch's own statistics.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.layers import HE, BatchNorm2d, Conv2d, Linear, ProjectionHead, SelfAttention, doublings
from zoo.registry import NETWORKS


class UpBlock(nn.Module):
    """Norm, ReLU, x2, 3x3, norm, ReLU, 3x3; the shortcut is x2 and 1x1."""

    def __init__(self, inputs: int, outputs: int, classes: int, *, sn: bool, gain: float, bias: bool, norm: dict):
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
    """(Norm,) ReLU, 3x3, (norm,) ReLU, 3x3, average pooling where ``down``; the shortcut is 1x1 and pooling, or nothing.

    The ``first`` block sees the image itself: no norm, no ReLU before its first convolution. ``hidden`` is the width
    between the two convolutions; ``layer_norm`` normalizes each image over channels and positions, as in WGAN-GP's 64x64 critic.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, *, first: bool = False, down: bool = True, sn: bool = False,
                 gain: float = HE, layer_norm: bool = False):  # fmt: skip
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
        """x [N, inputs, H, W] -> [N, outputs, H/2, W/2] where down, else H x W."""
        h = self.conv1(x if self.first else F.relu(self.norm1(x)))
        h = self.conv2(F.relu_(self.norm2(h)))
        return h.add_(self.shortcut(x))


@NETWORKS.register("resnet-generator")
class ResNetGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in [-1, 1].

    ``widths``: channels of the first, smallest map, then of each block's output; the first map's side is resolution divided
    by 2 for each block. ``classes``: class-conditional batch norm, ``G(z, y=y)``; 0 for none. ``attention_at``: the side of
    the map that self-attention follows, 0 for none. ``gain``, ``output_gain``: of the residual 3x3 and of the last
    convolution's weights. ``bias``: in each block's first convolution (WGAN-GP's 64x64 net has none). ``momentum``: of batch
    norm's running averages, with ``output_momentum`` for the last one.
    """

    def __init__(self, channels: int = 3, resolution: int = 32, classes: int = 0, latent: int = 128,
                 widths: Sequence[int] = (256, 256, 256, 256), sn: bool = False, attention_at: int = 0, gain: float = HE,
                 output_gain: float = 1.0, bias: bool = True, eps: float = 1e-5, momentum: float = 0.1,
                 output_momentum: float | None = None):  # fmt: skip
        super().__init__()
        self.latent, self.classes = latent, classes
        side = doublings(resolution, len(widths) - 1, f"resnet-generator with widths {tuple(widths)}")
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
class ResNetDiscriminator(nn.Module):
    """Images [N, channels, resolution, resolution] (and classes y [N]) -> scores [N].

    ``widths``: channels after each block, of which the first ``downs`` halve the image. ``hidden``: whether a block's inner
    width is that of its "input" (SNGAN; the first block's is its output's) or its "output" (SAGAN). ``pool``: "sum" or
    "mean" over the last map. ``classes``: projection onto a class embedding, ``D(x, y=y)``; 0 for none. ``attention_at``: the
    side of the map that self-attention follows, 0 for none. ``gain``: of the residual 3x3 weights. ``bias``: of the last layer.
    """

    def __init__(self, channels: int = 3, resolution: int = 32, classes: int = 0, widths: Sequence[int] = (128, 128, 128, 128),
                 downs: int = 2, hidden: str = "input", pool: str = "sum", sn: bool = True, attention_at: int = 0,
                 gain: float = HE, bias: bool = True):  # fmt: skip
        super().__init__()
        if hidden not in ("input", "output"):
            raise ValueError(f"resnet-discriminator: hidden is 'input' or 'output', not {hidden!r}")
        if pool not in ("sum", "mean"):
            raise ValueError(f"resnet-discriminator: pool is 'sum' or 'mean', not {pool!r}")
        doublings(resolution, downs, f"resnet-discriminator with {downs} halvings")
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

    def features(self, x: Tensor) -> Tensor:
        """x -> phi [N, widths[-1]], the last map pooled over its positions."""
        h = F.relu_(self.blocks(x))
        return h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.head(self.features(x), y)


@NETWORKS.register("layernorm-resnet-discriminator")
class LayerNormDiscriminator(nn.Module):
    """WGAN-GP's 64x64 critic: images [N, channels, resolution, resolution] -> scores [N].

    A 3x3 convolution to ``width``, four halving blocks of 2, 4, 8 and 8 times ``width`` with layer norm, a linear layer.
    """

    classes = 0

    def __init__(self, channels: int = 3, resolution: int = 64, width: int = 64):
        super().__init__()
        side = doublings(resolution, 4, "layernorm-resnet-discriminator")
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.input = Conv2d(channels, width)
        self.blocks = nn.Sequential(*(DownBlock(i, o, i, layer_norm=True) for i, o in itertools.pairwise(widths)))
        self.head = ProjectionHead(8 * width * side * side)

    def features(self, x: Tensor) -> Tensor:
        """x -> phi [N, 8 * width * (resolution / 16)^2], the last map laid flat."""
        return self.blocks(self.input(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _check_attention(attention_at: int, sides: Sequence[int]) -> None:
    if attention_at and attention_at not in sides:
        raise ValueError(
            f"attention_at={attention_at}: the network's maps have sides {sorted(set(sides))}; name one, or 0"
        )
