"""BigGAN's and BigGAN-deep's residual networks.

A. Brock, J. Donahue, K. Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", 2018, arXiv
1809.11096, appendix B, and A. Brock's PyTorch code. S3GAN (arXiv 1903.02271) changes a few details of the same
networks.

All layers but the embeddings of G have spectral normalization. Weights start orthogonal, biases at 0; ``init="normal"``
is N(0, 0.02^2), that of the PyTorch code for CIFAR-10. In the conditional batch norm the gain is 1 plus a linear
function of the condition, the bias another one: with weights of 0 it is plain batch norm.

Differences from the papers:
- Resampling is folded into the convolutions, and shortcuts run at the smaller size (``layers.py``): equal up to
  rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import initialize, normal, orthogonal
from zoo.networks.layers import (
    BatchNorm2d,
    Conv2d,
    Linear,
    ProjectionHead,
    SelfAttention,
    require_classes,
    smallest_side,
)
from zoo.networks.resnet import DownBlock
from zoo.registry import NETWORKS


def start(network: nn.Module, init: str) -> None:
    """Initialize a network, its embeddings too. Raises ValueError unless ``init`` is "orthogonal" or "normal"."""
    if init not in ("orthogonal", "normal"):
        raise ValueError(f"init='{init}': must be orthogonal or normal")
    rule = orthogonal() if init == "orthogonal" else normal(0.02)
    initialize(network, rule)
    for m in network.modules():
        if isinstance(m, nn.Embedding):
            rule(m)


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias depend on a condition.

    Args:
        features: of the maps.
        condition: numbers of the condition c [N, condition]; 0: c are class numbers, int64 [N].
        classes: used if ``condition`` is 0: each class has a gain and a bias of its own.
        offset: of the gain: 1, or 0 as in S3GAN's code.
        sync: the statistics are those of all processes' samples.
    """

    def __init__(self, features: int, condition: int, classes: int, *, offset: float, sync: bool):
        super().__init__()
        self.offset = offset
        self.norm = BatchNorm2d(features, affine=False, sync=sync)

        def affine() -> nn.Module:
            if condition:
                return Linear(condition, features, sn=True, bias=False)
            return nn.Embedding(classes, features)

        self.gain, self.bias = affine(), affine()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x [N, features, H, W] -> the same shape."""
        gain = self.offset + self.gain(c)
        return torch.addcmul(self.bias(c)[:, :, None, None], self.norm(x), gain[:, :, None, None])


Norm = Callable[[int], ConditionalNorm]


class UpBlock(nn.Module):
    """Norm, ReLU, upsampling, 3x3, norm, ReLU, 3x3; the shortcut is upsampling and 1x1."""

    def __init__(self, inputs: int, outputs: int, norm: Norm):
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = Conv2d(inputs, outputs, resample="up", sn=True)
        self.norm2 = norm(outputs)
        self.conv2 = Conv2d(outputs, outputs, sn=True)
        self.shortcut = Conv2d(inputs, outputs, 1, resample="up", sn=True)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, 2H, 2W]."""
        h = self.conv1(F.relu_(self.norm1(x, c)))
        h = self.conv2(F.relu_(self.norm2(h, c)))
        return h.add_(self.shortcut(x))


class DeepUpBlock(nn.Module):
    """1x1, 3x3 (after upsampling if ``up``), 3x3, 1x1, each after norm and ReLU, a quarter of the width inside. The
    shortcut has no weights: the first ``outputs`` maps of the input, upsampled."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, *, up: bool):
        super().__init__()
        hidden = max(inputs // 4, 1)
        self.outputs, self.up = outputs, up
        self.norm1, self.conv1 = norm(inputs), Conv2d(inputs, hidden, 1, sn=True)
        self.norm2, self.conv2 = norm(hidden), Conv2d(hidden, hidden, resample="up" if up else "", sn=True)
        self.norm3, self.conv3 = norm(hidden), Conv2d(hidden, hidden, sn=True)
        self.norm4, self.conv4 = norm(hidden), Conv2d(hidden, outputs, 1, sn=True)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, 2H, 2W] if up, else [N, outputs, H, W]."""
        h = self.conv1(F.relu_(self.norm1(x, c)))
        h = self.conv2(F.relu_(self.norm2(h, c)))
        h = self.conv3(F.relu_(self.norm3(h, c)))
        h = self.conv4(F.relu_(self.norm4(h, c)))
        x = x[:, : self.outputs]
        return h.add_(F.interpolate(x, scale_factor=2.0) if self.up else x)


class DeepDownBlock(nn.Module):
    """1x1, 3x3, 3x3, 1x1 (after average pooling if ``down``), each after ReLU, a quarter of the output's width inside.
    The shortcut is the input, pooled, beside the maps of a 1x1 convolution of it if the output has more."""

    def __init__(self, inputs: int, outputs: int, *, down: bool):
        super().__init__()
        hidden = max(outputs // 4, 1)
        self.down = down
        self.conv1 = Conv2d(inputs, hidden, 1, sn=True)
        self.conv2, self.conv3 = Conv2d(hidden, hidden, sn=True), Conv2d(hidden, hidden, sn=True)
        self.conv4 = Conv2d(hidden, outputs, 1, sn=True)
        self.shortcut = Conv2d(inputs, outputs - inputs, 1, sn=True) if outputs > inputs else None

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H/2, W/2] if down, else [N, outputs, H, W]."""
        h = self.conv1(F.relu(x))
        h = F.relu_(self.conv3(F.relu_(self.conv2(F.relu_(h)))))
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h = self.conv4(h)
        return h.add_(x if self.shortcut is None else torch.cat([x, self.shortcut(x)], 1))


@NETWORKS.register("biggan-generator")
class BigGANGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in [-1, 1].

    A linear layer to ``widths[0]`` maps, a block for each further width, which doubles the resolution, batch norm,
    ReLU, a 3x3 convolution and tanh. Raises ValueError if z cannot be split, for maps without the attention's side, and
    for class numbers as the only condition without classes.

    Args:
        channels, resolution: of the images.
        classes: number of classes, ``G(z, y=y)``; 0 for none.
        latent: numbers of noise.
        widths: channels of the first, smallest map, then of each block's output.
        embed: numbers of the class embedding that all blocks share; 0: each norm has a gain and a bias for each class
            (with ``skip_z=False, deep=False`` only).
        skip_z: z is split into a piece for the first layer and one for each block, beside the class.
        deep: BigGAN-deep: two blocks of four convolutions for a doubling; the first layer and each block get all of z
            and the class.
        attention_at: the side of the map that self-attention follows, 0 for none.
        gain_offset: 1, or 0 as in S3GAN's code.
        unit_range: the images are in [0, 1], as in S3GAN's code.
        init: "orthogonal" or "normal".
        sync: batch norm has the statistics of all processes' samples.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 128,
        classes: int = 0,
        latent: int = 120,
        widths: Sequence[int] = (1536, 1536, 768, 384, 192, 96),
        embed: int = 128,
        skip_z: bool = True,
        deep: bool = False,
        attention_at: int = 64,
        gain_offset: float = 1.0,
        unit_range: bool = False,
        init: str = "orthogonal",
        sync: bool = True,
    ):
        super().__init__()
        pieces = len(widths) if skip_z and not deep else 1
        if latent % pieces:
            raise ValueError(f"latent={latent}: must be a multiple of {pieces}, a piece for each of {pieces} layers")
        if not classes and not skip_z and not deep:
            raise ValueError("skip_z=false: a generator without classes must have skip_z=true or deep=true")
        if classes and not embed and (skip_z or deep):
            raise ValueError("embed=0: must be above 0 with skip_z=true or deep=true, whose blocks get z and a class")
        side = smallest_side(resolution, len(widths) - 1, f"biggan-generator with widths {tuple(widths)}")
        sides = [side * 2**i for i in range(1, len(widths))]
        if attention_at and attention_at not in sides:
            raise ValueError(f"attention_at={attention_at}: must be 0 or the side of a map, one of {sides}")
        self.classes, self.latent, self.piece, self.deep, self.unit_range = (
            classes, latent, latent // pieces, deep, unit_range)  # fmt: skip
        self.skip_z, self.first = skip_z, (widths[0], side, side)
        of_class = embed if classes else 0
        self.embedding = nn.Embedding(classes, embed) if of_class else None
        width_of_condition = of_class + (self.piece if skip_z or deep else 0)

        def norm(features: int) -> ConditionalNorm:
            return ConditionalNorm(features, width_of_condition, classes, offset=gain_offset, sync=sync)

        self.linear = Linear(self.piece + (of_class if deep else 0), widths[0] * side * side, sn=True)
        self.blocks = nn.ModuleList()
        for (inputs, outputs), after in zip(itertools.pairwise(widths), sides, strict=True):
            if deep:
                self.blocks.append(DeepUpBlock(inputs, inputs, norm, up=False))
                self.blocks.append(DeepUpBlock(inputs, outputs, norm, up=True))
            else:
                self.blocks.append(UpBlock(inputs, outputs, norm))
            if after == attention_at:
                self.blocks.append(SelfAttention(outputs))
        self.norm = BatchNorm2d(widths[-1], sync=sync)
        self.output = Conv2d(widths[-1], channels, sn=True)
        start(self, init)

    def conditions(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the first layer gets, and what each block that is conditional gets in turn; one for all has length 1."""
        of_class = []
        if self.classes:
            y = require_classes(y)
            of_class = [y if self.embedding is None else self.embedding(y).to(z.dtype)]
        if self.deep:
            whole = torch.cat([*of_class, z], 1)
            return whole, [whole]
        if not self.skip_z:
            return z, of_class
        first, *rest = z.split(self.piece, 1)
        return first, [torch.cat([*of_class, piece], 1) for piece in rest]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, conditions = self.conditions(z, y)
        h = self.linear(first).unflatten(1, self.first)
        turn = itertools.cycle(conditions)
        for block in self.blocks:
            h = block(h) if isinstance(block, SelfAttention) else block(h, next(turn))
        x = self.output(F.relu_(self.norm(h))).tanh()  # [N, channels, resolution, resolution]
        return (x + 1) / 2 if self.unit_range else x


@NETWORKS.register("biggan-discriminator")
class BigGANDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] (and classes y [N]) -> scores [N].

    Raises ValueError for maps without the attention's side.

    Args:
        channels, resolution: of the images.
        classes: projection onto a class embedding, ``D(x, y=y)``; 0 for none.
        widths: channels after each block; of a deep one first those of a 3x3 convolution of the image.
        downs: how many blocks, the first ones, halve the resolution.
        deep: BigGAN-deep: two blocks of four convolutions for a halving.
        attention_at: the side of the map that self-attention follows, 0 for none.
        last_shortcut: the last block is residual; in S3GAN's code it is not.
        rotation: a linear layer ``rotation`` to 4 logits of the features, for S3GAN's head.
        predictor: one ``predictor`` to logits of the classes.
        init: "orthogonal" or "normal".
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 128,
        classes: int = 0,
        widths: Sequence[int] = (96, 192, 384, 768, 1536, 1536),
        downs: int = 5,
        deep: bool = False,
        attention_at: int = 64,
        last_shortcut: bool = True,
        rotation: bool = False,
        predictor: bool = False,
        init: str = "orthogonal",
    ):
        super().__init__()
        smallest_side(resolution, downs, f"biggan-discriminator with {downs} halvings")
        self.classes = classes
        pairs = list(itertools.pairwise(widths if deep else (channels, *widths)))
        sides = [resolution // 2 ** min(i + 1, downs) for i in range(len(pairs))]
        if attention_at and attention_at not in sides:
            raise ValueError(
                f"attention_at={attention_at}: must be 0 or the side of a map, one of {sorted(set(sides))}"
            )
        blocks: list[nn.Module] = [Conv2d(channels, widths[0], sn=True)] if deep else []
        for i, ((inputs, outputs), after) in enumerate(zip(pairs, sides, strict=True)):
            if deep:
                blocks += [DeepDownBlock(inputs, outputs, down=i < downs), DeepDownBlock(outputs, outputs, down=False)]
            else:
                blocks.append(DownBlock(inputs, outputs, outputs, first=i == 0, down=i < downs, sn=True))
            if after == attention_at and attention_at not in sides[:i]:
                blocks.append(SelfAttention(outputs))
        if not last_shortcut:
            blocks.append(without_shortcut(blocks.pop()))
        self.blocks = nn.Sequential(*blocks)
        self.head = ProjectionHead(widths[-1], classes, sn=True)
        if rotation:
            self.rotation = Linear(widths[-1], 4, sn=True)
        if predictor:
            self.predictor = Linear(widths[-1], classes, sn=True)
        start(self, init)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, widths[-1]], the sum of the last map over its positions."""
        return F.relu_(self.blocks(x)).sum((2, 3))

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        return self.head(h, condition(given, "y"))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # only y
        return self.head(self.features(x), y)


def without_shortcut(block: nn.Module) -> nn.Sequential:
    """The convolutions of a residual block that keeps shape and width, alone."""
    if not isinstance(block, DownBlock) or not isinstance(block.shortcut, nn.Identity):
        raise ValueError("last_shortcut=false: the last block must keep the resolution and the width, and not be deep")
    return nn.Sequential(nn.ReLU(), block.conv1, nn.ReLU(), block.conv2)
