"""CoGAN's networks: two generators that share their first layers, two discriminators that share their last ones.

M.-Y. Liu, O. Tuzel, "Coupled Generative Adversarial Networks", 2016, arXiv 1606.07536. The digits' networks are those of the
authors' PyTorch code. The faces' layers are those of their Caffe code, which holds a single, uncoupled face model: which of its
layers belong to one domain alone is ours. A coupled network is one module, so that what is shared is there once: one pass of a shared layer
serves both domains. ``apart``: how many layers at the images' end belong to one domain alone; with all of them nothing is
shared and the two are ordinary GANs. Where we differ: D hands on the difference of its two outputs, which is the logit that a
softmax over the two takes; and in the faces' networks batch norm's gains are learned with its biases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zoo.networks.layers import doublings
from zoo.registry import NETWORKS

Blocks = Callable[[], list[nn.Module]]


def _split(blocks: Blocks, apart: int, first: bool) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Shared layers, and each domain's own: the ``apart`` first ones or the last ones, built anew for each."""
    whole, other = blocks(), blocks()
    if not 1 <= apart <= len(whole):
        raise ValueError(f"apart={apart}: must be from 1 to {len(whole)}, the number of layers")
    cut = apart if first else len(whole) - apart
    shared, own = (slice(cut, None), slice(cut)) if first else (slice(cut), slice(cut, None))
    return nn.Sequential(*whole[shared]), nn.Sequential(*whole[own]), nn.Sequential(*other[own])


def _xavier(network: nn.Module) -> None:
    """Xavier-uniform weights with gain sqrt 2, biases 0.1 (the authors' PyTorch code)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, 2**0.5)
            nn.init.constant_(module.bias, 0.1)


def _normal(network: nn.Module) -> None:
    """N(0, 0.02^2), biases 0 (the authors' Caffe code for faces)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            nn.init.zeros_(module.bias)


class CoupledGenerator(nn.Module):
    """z [N, latent] -> the same z drawn in two domains: two tensors [N, C, H, W]."""

    def __init__(self, latent: int, blocks: Blocks, apart: int):
        super().__init__()
        self.latent = latent
        self.shared, self.a, self.b = _split(blocks, apart, first=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = self.shared(z[:, :, None, None])
        return self.a(h), self.b(h)


class CoupledDiscriminator(nn.Module):
    """Images of a [N, C, H, W] and of b [M, C, H, W], which are no pairs -> scores [N + M], a's before b's."""

    classes = 0

    def __init__(self, blocks: Blocks, apart: int):
        super().__init__()
        self.shared, self.a, self.b = _split(blocks, apart, first=True)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        two = self.shared(torch.cat([self.a(a), self.b(b)]))  # [N + M, 2, 1, 1]
        fake, real = two.flatten(1).unbind(1)
        return real - fake


@NETWORKS.register("cogan-generator")
class CoganGenerator(CoupledGenerator):
    """28x28 in (0, 1): sides 4, 7, 13, 25, 28. Five layers, of which the last is each domain's own."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 28,
        latent: int = 100,
        widths: Sequence[int] = (1024, 512, 256, 128),
        apart: int = 1,
    ):
        if resolution != 28:
            raise ValueError(
                f"cogan-generator can't do resolution {resolution}: it makes 28x28; take cogan-face-generator"
            )

        def blocks() -> list[nn.Module]:
            made, inputs = [], latent
            for i, width in enumerate(widths):
                up = nn.ConvTranspose2d(inputs, width, 4) if not i else nn.ConvTranspose2d(inputs, width, 3, 2, 1)
                made.append(nn.Sequential(up, nn.BatchNorm2d(width, affine=False), nn.PReLU()))
                inputs = width
            return [*made, nn.Sequential(nn.ConvTranspose2d(inputs, channels, 6, 1, 1), nn.Sigmoid())]

        if len(widths) != 4:
            raise ValueError(f"widths={tuple(widths)}: must be four numbers")
        super().__init__(latent, blocks, apart)
        _xavier(self)


@NETWORKS.register("cogan-discriminator")
class CoganDiscriminator(CoupledDiscriminator):
    """28x28: two 5x5 convolutions with max pooling, 500 units, two outputs. Of four layers the first is each domain's own."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 28,
        widths: Sequence[int] = (20, 50),
        hidden: int = 500,
        apart: int = 1,
    ):
        if resolution != 28:
            raise ValueError(f"cogan-discriminator can't do resolution {resolution}: it takes 28x28")

        def blocks() -> list[nn.Module]:
            first, second = widths
            return [
                nn.Sequential(nn.Conv2d(channels, first, 5), nn.MaxPool2d(2)),  # 12x12
                nn.Sequential(nn.Conv2d(first, second, 5), nn.MaxPool2d(2)),  # 4x4
                nn.Sequential(nn.Conv2d(second, hidden, 4), nn.PReLU()),
                nn.Conv2d(hidden, 2, 1),
            ]

        super().__init__(blocks, apart)
        _xavier(self)


@NETWORKS.register("cogan-face-generator")
class CoganFaceGenerator(CoupledGenerator):
    """Images in (-1, 1): 4x4, a doubling for each further width, a 3x3 convolution. 128x128 with the six published widths."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 128,
        latent: int = 100,
        widths: Sequence[int] = (1024, 512, 256, 128, 64, 32),
        apart: int = 2,
    ):
        if resolution != 4 * 2 ** (len(widths) - 1):
            raise ValueError(
                f"cogan-face-generator can't do resolution {resolution}: {len(widths)} widths make {4 * 2 ** (len(widths) - 1)}"
            )

        def blocks() -> list[nn.Module]:
            made, inputs = [], latent
            for i, width in enumerate(widths):
                up = nn.ConvTranspose2d(inputs, width, 4) if not i else nn.ConvTranspose2d(inputs, width, 4, 2, 1)
                made.append(nn.Sequential(up, nn.BatchNorm2d(width), nn.PReLU()))
                inputs = width
            return [*made, nn.Sequential(nn.ConvTranspose2d(inputs, channels, 3, 1, 1), nn.Tanh())]

        super().__init__(latent, blocks, apart)
        _normal(self)


DROPS = (0.0, 0.0, 0.1, 0.3, 0.3, 0.5)  # after the convolutions; 0.5 after the hidden layer


@NETWORKS.register("cogan-face-discriminator")
class CoganFaceDiscriminator(CoupledDiscriminator):
    """Halvings by 5x5 convolutions (the first three) and 3x3 ones, ``hidden`` units, two outputs; batch norm, PReLU and
    dropout. 128x128 comes down to 2x2 with the six published widths."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 128,
        widths: Sequence[int] = (32, 64, 128, 256, 512, 1024),
        hidden: int = 2048,
        apart: int = 2,
    ):
        side = doublings(resolution, len(widths), "cogan-face-discriminator")
        if len(widths) > len(DROPS):
            raise ValueError(f"widths={tuple(widths)}: at most {len(DROPS)}")

        def blocks() -> list[nn.Module]:
            made, inputs = [], channels
            for i, width in enumerate(widths):
                kernel = 5 if i < 3 else 3
                down = nn.Conv2d(inputs, width, kernel, 2, kernel // 2)
                made.append(nn.Sequential(down, nn.BatchNorm2d(width), nn.PReLU(), nn.Dropout(DROPS[i])))
                inputs = width
            joint = nn.Conv2d(inputs, hidden, side)
            made.append(nn.Sequential(joint, nn.BatchNorm2d(hidden), nn.PReLU(), nn.Dropout(0.5)))
            return [*made, nn.Conv2d(hidden, 2, 1)]

        super().__init__(blocks, apart)
        _normal(self)
