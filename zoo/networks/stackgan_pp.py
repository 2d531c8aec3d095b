"""StackGAN++'s networks: a generator that generates one image at several sizes, and a discriminator for each size.

H. Zhang, T. Xu, H. Li, S. Zhang, X. Wang, X. Huang, D. Metaxas, StackGAN++: Realistic Image Synthesis with Stacked
Generative Adversarial Networks, 2017, arXiv 1710.10916, as in the authors' code (StackGAN-v2): orthogonal weights,
batch norm's gains N(1, 0.02^2), biases 0. Ours: fewer levels for small images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import initialize, normal, orthogonal
from zoo.networks.layers import Conv2d
from zoo.networks.stackgan import Conditioning, GeneratorOutput, Residual, convolution, doublings, tile, widths_of
from zoo.registry import NETWORKS, FrozenDict


def gated(inputs: int, outputs: int) -> list[nn.Module]:
    """A 3x3 convolution to twice as many maps, batch norm, and a GLU, which halves them."""
    return [*convolution(inputs, 2 * outputs), nn.GLU(1)]


def gated_up(inputs: int, outputs: int) -> list[nn.Module]:
    """The same after nearest-neighbor upsampling x2."""
    return [Conv2d(inputs, 2 * outputs, resample="up", bias=False), nn.BatchNorm2d(2 * outputs), nn.GLU(1)]


class NextStage(nn.Module):
    """Maps [N, width, H, W] and a condition [N, condition] -> maps [N, width / 2, 2H, 2W]."""

    def __init__(self, width: int, condition: int, blocks: int):
        super().__init__()
        residuals = (
            Residual(*gated(width, width), *convolution(width, width), activation=nn.Identity()) for _ in range(blocks)
        )
        self.layers = nn.Sequential(*gated(condition + width, width), *residuals, *gated_up(width, width // 2))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        return self.layers(tile(condition, h))


@NETWORKS.register("stackgan-pp-generator")
class StackGANPPGenerator(nn.Module):
    """Noise z and a text -> images of several sizes, each from the maps of its stage. The code of the text enters every
    stage; without texts z does.

    Args:
        sizes: of the images, each twice the one before.
        channels: of the images.
        width: maps at the first size, half as many at each further one; twice as many at each smaller one, to 4x4.
        latent: numbers of z.
        text: numbers of an embedding; 0 if there are no texts.
        code: numbers of its code.
        blocks: residual blocks of each further stage.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (64, 128, 256),
        channels: int = 3,
        width: int = 64,
        latent: int = 100,
        text: int = 1024,
        code: int = 128,
        blocks: int = 2,
    ):
        super().__init__()
        if any(after != 2 * before for before, after in pairwise(sizes)):
            raise ValueError(f"sizes={tuple(sizes)}: each must be twice the one before")
        self.latent, self.text = latent, text
        self.noise_shapes = FrozenDict(code=(code,)) if text else FrozenDict()
        self.code = Conditioning(text, code, nn.GLU(1)) if text else None
        maps = [width << i for i in reversed(range(doublings(sizes[0]) + 1))]
        inputs, outputs = latent + (code if text else 0), 16 * maps[0]
        self.first = nn.Sequential(nn.Linear(inputs, 2 * outputs, bias=False), nn.BatchNorm1d(2 * outputs), nn.GLU(1))
        self.stem = nn.Sequential(*(layer for pair in pairwise(maps) for layer in gated_up(*pair)))
        condition = code if text else latent
        widths = [width >> i for i in range(len(sizes))]
        self.stages = nn.ModuleList(NextStage(w, condition, blocks) for w in widths[:-1])
        self.images = nn.ModuleList(nn.Conv2d(w, channels, 3, padding=1, bias=False) for w in widths)
        initialize(self, orthogonal(), norms=normal(0.02, mean=1.0))

    def generate(
        self, z: Tensor, text: Tensor | None = None, noise: Mapping[str, Tensor] | None = None
    ) -> GeneratorOutput:
        """z [N, latent], embeddings [N, text] and the noise ``code`` [N, code] -> images of all sizes, and the code's
        mean and divergence."""
        condition, mean, divergence = z, None, None
        if self.code is not None:
            assert text is not None and noise is not None
            condition, mean, divergence = self.code(text, noise["code"])
        first = z if self.code is None else torch.cat([condition, z], 1)
        maps = [self.stem(self.first(first).unflatten(1, (-1, 4, 4)))]  # [N, width, sizes[0], sizes[0]]
        for stage in self.stages:
            maps.append(stage(maps[-1], condition))
        return GeneratorOutput(
            [torch.tanh(image(h)) for image, h in zip(self.images, maps, strict=True)], mean, divergence
        )

    def forward(self, z: Tensor, text: Tensor | None = None, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """As :meth:`generate`; the largest images alone."""
        return self.generate(z, text, noise).images[-1]


class StackGANPPDiscriminator(Discriminator):
    """Images [N, channels, R, R] -> logits [N] by name: ``unconditional``, whether the image is real, and, with a
    ``code``, ``conditional``, whether it fits ``text`` [N, code], the mean of G's code.

    Args:
        channels, resolution: of the images.
        width: maps after the first convolution.
        code: numbers of the condition; 0 for none.
    """

    def __init__(self, channels: int = 3, resolution: int = 64, width: int = 64, code: int = 128):
        super().__init__()
        act, w = nn.LeakyReLU(0.2), 8 * width
        down, back = widths_of(resolution, width)
        blocks = [convolution(*pair, 4, 2) for pair in pairwise((channels, *down))]
        blocks[0] = blocks[0][:1]  # no batch norm
        blocks += [convolution(*pair) for pair in pairwise((down[-1], *back))]
        self.layers = nn.Sequential(*(layer for block in blocks for layer in (*block, act)))
        self.unconditional = nn.Sequential(nn.Conv2d(w, 1, 4), nn.Flatten(0))
        joint = [*convolution(code + w, w), act]
        self.conditional = nn.Sequential(*joint, nn.Conv2d(w, 1, 4), nn.Flatten(0)) if code else None
        initialize(self, orthogonal(), norms=normal(0.02, mean=1.0))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> the maps [N, 8 width, 4, 4] that both scores read."""
        return self.layers(x)

    def score(self, h: Tensor, given: Given | None = None) -> dict[str, Tensor]:  # type: ignore[override]  # by name
        """The maps and ``given["text"]`` -> scores [N] by name."""
        scores = {"unconditional": self.unconditional(h)}
        if self.conditional is not None:
            assert given is not None
            scores["conditional"] = self.conditional(tile(given["text"], h))
        return scores


@NETWORKS.register("stackgan-pp-discriminators")
class StackGANPPDiscriminators(nn.ModuleList):
    """A discriminator for each of the ``sizes``. Other arguments as of :class:`StackGANPPDiscriminator`."""

    def __init__(self, sizes: Sequence[int] = (64, 128, 256), channels: int = 3, width: int = 64, code: int = 128):
        super().__init__(StackGANPPDiscriminator(channels, size, width, code) for size in sizes)
