"""CoGAN's networks: two generators that share their first layers, two discriminators that share their last ones.

M.-Y. Liu, O. Tuzel, "Coupled Generative Adversarial Networks", 2016, arXiv 1606.07536. The digits' networks are those
of the authors' PyTorch code. The faces' layers are those of their Caffe code, which has a single, uncoupled face model.
A coupled network is one module, so that shared layers exist once: one pass of a shared layer serves both domains.
``apart``: how many layers at the images' end each domain has of its own; if it is all of them, nothing is shared and
the two are ordinary GANs.

Differences from the paper:
- D returns the difference of its two outputs, which is the logit of a softmax over the two.
- Faces: how many layers the domains share is our choice; batch norm learns gains as well as biases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import glorot, initialize, normal
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS

Blocks = Callable[[], list[nn.Module]]


def _split(blocks: Blocks, apart: int, first: bool) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Shared layers, and each domain's own: the first (``first``) or the last ``apart`` layers, built once per
    domain."""
    whole, other = blocks(), blocks()
    if not 1 <= apart <= len(whole):
        raise ValueError(f"apart={apart}: must be from 1 to {len(whole)}, the number of layers")
    cut = apart if first else len(whole) - apart
    shared, own = (slice(cut, None), slice(cut)) if first else (slice(cut), slice(cut, None))
    return nn.Sequential(*whole[shared]), nn.Sequential(*whole[own]), nn.Sequential(*other[own])


DIGITS = glorot(2**0.5, bias=0.1)  # initial weights: the authors' PyTorch code
FACES = normal(0.02)  # the authors' Caffe code


class CoupledGenerator(nn.Module):
    """z [N, latent] -> its images in two domains: two tensors [N, C, H, W]."""

    def __init__(self, latent: int, blocks: Blocks, apart: int):
        super().__init__()
        self.latent = latent
        self.shared, self.a, self.b = _split(blocks, apart, first=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = self.shared(z[:, :, None, None])
        return self.a(h), self.b(h)


class CoupledDiscriminator(Discriminator):
    """Images of a [N, C, H, W] and of b [N, C, H, W], which are not pairs -> scores [2 N], a's before b's; by name
    ``score`` has those of ``a`` and of ``b``, [N] each."""

    def __init__(self, blocks: Blocks, apart: int):
        super().__init__()
        self.shared, self.a, self.b = _split(blocks, apart, first=True)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The domains' own layers: images x of a and ``given["b"]`` -> [N, 2, maps, H, W], a's and b's."""
        b = condition(given, "b")
        assert b is not None
        return torch.stack([self.a(x), self.b(b)], 1)

    def score(self, h: Tensor, given: Given | None = None) -> dict[str, Tensor]:  # type: ignore[override]  # two scores
        outputs = self.shared(torch.cat([h[:, 0], h[:, 1]]))  # [2 N, 2, 1, 1]
        fake, real = outputs.flatten(1).unbind(1)
        a, b = (real - fake).chunk(2)
        return {"a": a, "b": b}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]  # two images instead of conditions
        return torch.cat(list(self.score(self.features(a, {"b": b})).values()))


@NETWORKS.register("cogan-generator")
class CoGANGenerator(CoupledGenerator):
    """28x28 in (0, 1): sides 4, 7, 13, 25, 28. Of five layers each domain has the last (``apart``) of its own."""

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
            raise ValueError(f"resolution={resolution}: cogan-generator must have 28; or use cogan-face-generator")

        def blocks() -> list[nn.Module]:
            layers: list[nn.Module] = []
            inputs = latent
            for i, width in enumerate(widths):
                up = nn.ConvTranspose2d(inputs, width, 4) if not i else nn.ConvTranspose2d(inputs, width, 3, 2, 1)
                layers.append(nn.Sequential(up, nn.BatchNorm2d(width, affine=False), nn.PReLU()))
                inputs = width
            return [*layers, nn.Sequential(nn.ConvTranspose2d(inputs, channels, 6, 1, 1), nn.Sigmoid())]

        if len(widths) != 4:
            raise ValueError(f"widths={tuple(widths)}: must be four numbers")
        super().__init__(latent, blocks, apart)
        initialize(self, DIGITS)


@NETWORKS.register("cogan-discriminator")
class CoGANDiscriminator(CoupledDiscriminator):
    """28x28: two 5x5 convolutions with max pooling, 500 units, two outputs. Of four layers each domain has the first
    (``apart``) of its own."""

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
            raise ValueError(f"resolution={resolution}: cogan-discriminator must have 28")

        def blocks() -> list[nn.Module]:
            first, second = widths
            return [
                nn.Sequential(nn.Conv2d(channels, first, 5), nn.MaxPool2d(2)),  # 12x12
                nn.Sequential(nn.Conv2d(first, second, 5), nn.MaxPool2d(2)),  # 4x4
                nn.Sequential(nn.Conv2d(second, hidden, 4), nn.PReLU()),
                nn.Conv2d(hidden, 2, 1),
            ]

        super().__init__(blocks, apart)
        initialize(self, DIGITS)


@NETWORKS.register("cogan-face-generator")
class CoGANFaceGenerator(CoupledGenerator):
    """Images in (-1, 1): 4x4 maps, a layer of stride 2 for each further width, a 3x3 convolution. The six published
    widths give 128x128."""

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
            sides = 4 * 2 ** (len(widths) - 1)
            raise ValueError(f"resolution={resolution}: must be {sides}, which {len(widths)} widths of G give")

        def blocks() -> list[nn.Module]:
            layers: list[nn.Module] = []
            inputs = latent
            for i, width in enumerate(widths):
                up = nn.ConvTranspose2d(inputs, width, 4) if not i else nn.ConvTranspose2d(inputs, width, 4, 2, 1)
                layers.append(nn.Sequential(up, nn.BatchNorm2d(width), nn.PReLU()))
                inputs = width
            return [*layers, nn.Sequential(nn.ConvTranspose2d(inputs, channels, 3, 1, 1), nn.Tanh())]

        super().__init__(latent, blocks, apart)
        initialize(self, FACES)


DROPS = (0.0, 0.0, 0.1, 0.3, 0.3, 0.5)  # dropout rates after the convolutions; 0.5 after the hidden layer


@NETWORKS.register("cogan-face-discriminator")
class CoGANFaceDiscriminator(CoupledDiscriminator):
    """5x5 convolutions of stride 2 (the first three), then 3x3 ones, ``hidden`` units, two outputs; batch norm, PReLU
    and dropout. The six published widths reduce 128x128 to 2x2."""

    def __init__(
        self,
        *,
        channels: int,
        resolution: int = 128,
        widths: Sequence[int] = (32, 64, 128, 256, 512, 1024),
        hidden: int = 2048,
        apart: int = 2,
    ):
        side = smallest_side(resolution, len(widths), "cogan-face-discriminator")
        if len(widths) > len(DROPS):
            raise ValueError(f"widths={tuple(widths)}: must be at most {len(DROPS)} numbers")

        def blocks() -> list[nn.Module]:
            layers: list[nn.Module] = []
            inputs = channels
            for i, width in enumerate(widths):
                kernel = 5 if i < 3 else 3
                down = nn.Conv2d(inputs, width, kernel, 2, kernel // 2)
                layers.append(nn.Sequential(down, nn.BatchNorm2d(width), nn.PReLU(), nn.Dropout(DROPS[i])))
                inputs = width
            dense = nn.Conv2d(inputs, hidden, side)
            layers.append(nn.Sequential(dense, nn.BatchNorm2d(hidden), nn.PReLU(), nn.Dropout(0.5)))
            return [*layers, nn.Conv2d(hidden, 2, 1)]

        super().__init__(blocks, apart)
        initialize(self, FACES)
