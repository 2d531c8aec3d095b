"""StackGAN's networks: conditioning augmentation, a generator of two stages, and a discriminator for each.

H. Zhang, T. Xu, H. Li, S. Zhang, X. Wang, X. Huang, D. Metaxas, StackGAN: Text to Photo-realistic Image Synthesis with
Stacked Generative Adversarial Networks, 2016, arXiv 1612.03242. The authors published two programs whose networks
differ, which is the argument ``form``: ``"tensorflow"`` (birds and flowers) and ``"pytorch"`` (COCO).

As published: weights N(0, 0.02^2), those of convolutions truncated at two standard deviations in the TensorFlow form,
batch norm's gains N(1, 0.02^2), biases 0. Ours: fewer levels for small images, which keep the widths at 4x4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import initialize, normal, truncated_normal
from zoo.networks.layers import Conv2d
from zoo.registry import NETWORKS, FrozenDict

Form = Literal["tensorflow", "pytorch"]


class GeneratorOutput(NamedTuple):
    """Images, one tensor for each size [N, C, R, R], and, if there is a text, the mean [N, code] of its code and the
    divergence [N] of the code from N(0, 1)."""

    images: list[Tensor]
    mean: Tensor | None = None
    divergence: Tensor | None = None


# Layers ---------------------------------------------------------------------------------------------------------------


def check_form(form: str) -> None:
    """Raises ValueError if there is no such form."""
    if form not in ("tensorflow", "pytorch"):
        raise ValueError(f"form='{form}': must be tensorflow or pytorch")


def doublings(resolution: int, start: int = 4) -> int:
    """How often ``start`` is doubled to give the resolution. Raises ValueError if that is not a whole number from 1."""
    n = (resolution // start).bit_length() - 1
    if n < 1 or start << n != resolution:
        raise ValueError(f"resolution={resolution}: must be {start} times 2, 4, 8, ...")
    return n


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias, and batch norm. Those of stride 1 keep height and width, those of 4x4 halve them."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


def up(inputs: int, outputs: int) -> list[nn.Module]:
    """Nearest-neighbor upsampling x2 and a 3x3 convolution without bias, and batch norm."""
    return [Conv2d(inputs, outputs, resample="up", bias=False), nn.BatchNorm2d(outputs)]


def tile(code: Tensor, h: Tensor) -> Tensor:
    """Maps h [N, K, H, W] and a code [N, C] -> [N, C + K, H, W], the code at each place first."""
    return torch.cat([code[:, :, None, None].expand(-1, -1, *h.shape[2:]), h], 1)


class Residual(nn.Module):
    """Layers whose output is added to their input, and the ``activation`` of the sum."""

    def __init__(self, *layers: nn.Module, activation: nn.Module):
        super().__init__()
        self.branch, self.activation = nn.Sequential(*layers), activation

    def forward(self, x: Tensor) -> Tensor:
        """x [N, K, H, W] -> the same shape."""
        out: Tensor = self.activation(x + self.branch(x))
        return out


def bottleneck(width: int, activation: nn.Module) -> Residual:
    """A residual branch 1x1, 3x3, 3x3 through a quarter of the maps."""
    inner = width // 4
    first, second = convolution(width, inner, 1), convolution(inner, inner)
    return Residual(*first, activation, *second, activation, *convolution(inner, width), activation=activation)


class Conditioning(nn.Module):
    """Conditioning augmentation (section 3.2): an embedding [N, text] gives mean and standard deviation of a normal
    distribution, from which the code comes.

    Args:
        text: numbers of an embedding.
        code: numbers of a code.
        activation: of the linear layer; a GLU halves its outputs.
        variance: the layer's second half are log variances, not logarithms of standard deviations.
        truncated: the noise is truncated at two standard deviations.
    """

    def __init__(self, text: int, code: int, activation: nn.Module, variance: bool = True, truncated: bool = False):
        super().__init__()
        self.linear = nn.Linear(text, 2 * code * (2 if isinstance(activation, nn.GLU) else 1))
        self.activation, self.scale, self.truncated = activation, 0.5 if variance else 1.0, truncated

    def normal(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings -> means [N, code] and logarithms of standard deviations [N, code]."""
        mean, second = self.activation(self.linear(text)).chunk(2, 1)
        return mean, self.scale * second

    def forward(self, text: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings [N, text] and noise [N, code] of N(0, 1) -> codes [N, code], their means [N, code] and their
        divergence from N(0, 1) [N], a mean over the code's dimensions, as in the authors' code."""
        mean, log_std = self.normal(text)
        divergence = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).mean(1)
        return mean + log_std.exp() * (truncate(noise) if self.truncated else noise), mean, divergence


def truncate(noise: Tensor, limit: float = 2.0) -> Tensor:
    """Noise of N(0, 1) -> noise of the normal distribution truncated at ``limit``: that at the same place in its
    distribution function."""
    share = math.erf(limit / math.sqrt(2))
    return (math.sqrt(2) * torch.erfinv(share * torch.erf(noise.float() / math.sqrt(2)))).to(noise.dtype)


def conditioning(text: int, code: int, form: Form) -> Conditioning:
    """The conditioning augmentation of a form."""
    if form == "pytorch":
        return Conditioning(text, code, nn.ReLU())
    return Conditioning(text, code, nn.LeakyReLU(0.2), variance=False, truncated=True)


# Generator ------------------------------------------------------------------------------------------------------------


class StageI(nn.Module):
    """Noise z, an embedding and the noise of its code -> images. 8 ``width`` maps at 4x4, half as many after each
    doubling. TensorFlow: residual branches at 4x4 and 8x8, the image comes from the last upsampling; PyTorch: it comes
    from one more convolution."""

    def __init__(self, channels: int, resolution: int, width: int, latent: int, text: int, code: int, form: Form):
        super().__init__()
        w, ups = 8 * width, doublings(resolution)
        plain, act = form == "pytorch", nn.ReLU()
        self.code = conditioning(text, code, form)
        first = [nn.Linear(code + latent, 16 * w, bias=not plain), nn.BatchNorm1d(16 * w)]
        self.first = nn.Sequential(*first, *([act] if plain else []))
        maps = [w >> i for i in range(ups + plain)]
        layers: list[nn.Module] = [] if plain else [bottleneck(w, act)]
        for k, (inputs, outputs) in enumerate(pairwise(maps)):
            layers += [*up(inputs, outputs), act if plain or k else bottleneck(outputs, act)]
        layers.append(Conv2d(maps[-1], channels, resample="" if plain else "up", bias=False))
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z: Tensor, text: Tensor, noise: Tensor) -> GeneratorOutput:
        """z [N, latent], text [N, text], noise [N, code] -> images [N, channels, R, R]."""
        code, mean, divergence = self.code(text, noise)
        h = self.first(torch.cat([code, z], 1)).unflatten(1, (-1, 4, 4))  # [N, 8 width, 4, 4]
        return GeneratorOutput([self.layers(h)], mean, divergence)


class StageII(nn.Module):
    """Images of stage I, an embedding and the noise of its code -> larger images. The images are halved twice, to 4
    ``width`` maps, which get the code, pass ``blocks`` residual blocks and are doubled to the resolution."""

    def __init__(
        self, channels: int, small: int, resolution: int, width: int, text: int, code: int, blocks: int, form: Form
    ):
        super().__init__()
        w, act = width, nn.ReLU()
        if small % 4:
            raise ValueError(f"sizes={small, resolution}: the first must be a multiple of 4")
        maps = [4 * w >> i for i in range(doublings(resolution, small // 4) + 1)]
        self.code = conditioning(text, code, form)
        first = nn.Conv2d(channels, w, 3, padding=1, bias=False)
        halved = [*convolution(w, 2 * w, 4, 2), act, *convolution(2 * w, 4 * w, 4, 2), act]
        self.encoder = nn.Sequential(first, act, *halved)
        self.joint = nn.Sequential(*convolution(code + 4 * w, 4 * w), act)
        layers: list[nn.Module] = [
            Residual(*convolution(4 * w, 4 * w), act, *convolution(4 * w, 4 * w), activation=act) for _ in range(blocks)
        ]
        for inputs, outputs in pairwise(maps):
            layers += [*up(inputs, outputs), act]
        image = nn.Conv2d(maps[-1], channels, 3, padding=1, bias=False)
        self.layers = nn.Sequential(*layers, image, nn.Tanh())

    def forward(self, x: Tensor, text: Tensor, noise: Tensor) -> GeneratorOutput:
        """x [N, channels, small, small], text [N, text], noise [N, code] -> images [N, channels, R, R]."""
        code, mean, divergence = self.code(text, noise)
        h = self.joint(tile(code, self.encoder(x)))  # [N, 4 width, small / 4, small / 4]
        return GeneratorOutput([self.layers(h)], mean, divergence)


@NETWORKS.register("stackgan-generator")
class StackGANGenerator(nn.ModuleList):
    """Two generators: stage I generates a small image, stage II a larger one from it. Each has its own conditioning
    augmentation.

    ``at(level)`` chooses the stage whose images come out. ``noise_shapes``: the noise of both codes.

    Args:
        sizes: of the images of both stages.
        channels: of the images.
        width: of both stages.
        latent: numbers of noise z, which only stage I gets.
        text: numbers of an embedding.
        code: numbers of a code.
        blocks: residual blocks of stage II.
        form: ``"tensorflow"`` or ``"pytorch"``.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (64, 256),
        channels: int = 3,
        width: int = 128,
        latent: int = 100,
        text: int = 1024,
        code: int = 128,
        blocks: int = 4,
        form: Form = "tensorflow",
    ):
        check_form(form)
        small, large = sizes
        first = StageI(channels, small, width, latent, text, code, form)
        super().__init__([first, StageII(channels, small, large, width, text, code, blocks, form)])
        self.latent, self.noise_shapes = latent, FrozenDict(code_0=(code,), code_1=(code,))
        self.sizes, self.level = (small, large), 1
        initialize_form(self, form)

    def at(self, level: int) -> None:
        """Images come from this stage, 0 or 1."""
        if level not in (0, 1):
            raise ValueError(f"level={level}: must be 0 or 1")
        self.level = level

    @property
    def side(self) -> int:
        """The side of the images, in pixels."""
        return self.sizes[self.level]

    def generate(self, z: Tensor, text: Tensor, noise: Mapping[str, Tensor]) -> GeneratorOutput:
        """z [N, latent], text [N, text] and noise [N, code] for each code -> images of the level's size, and the code
        of its stage."""
        output: GeneratorOutput = self[0](z, text, noise["code_0"])
        return self[1](output.images[0], text, noise["code_1"]) if self.level else output

    def means(self, text: Tensor) -> Tensor:
        """Embeddings [N, text] -> the means [N, code] of the codes of the level's stage."""
        code = self[self.level].code
        assert isinstance(code, Conditioning)
        return code.normal(text)[0]

    def forward(self, z: Tensor, text: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """As :meth:`generate`; the images alone, [N, channels, R, R]."""
        return self.generate(z, text, noise).images[0]


def initialize_form(network: nn.Module, form: Form) -> None:
    """The published initialization."""
    rule = truncated_normal(0.02) if form == "tensorflow" else normal(0.02)
    initialize(network, rule, linears=normal(0.02), norms=normal(0.02, mean=1.0))


# Discriminators -------------------------------------------------------------------------------------------------------


def widths_of(resolution: int, width: int) -> tuple[list[int], list[int]]:
    """The maps of the convolutions that halve images to 4x4, ``width``, twice as many, and so on, and those of the
    convolutions that come back to 8 ``width`` maps from more. Small images begin with more maps."""
    halvings = doublings(resolution)
    first = width << max(0, 4 - halvings)
    down = [first << i for i in range(halvings)]
    return down, [8 * width << i for i in reversed(range(max(0, halvings - 4)))]


class StackGANDiscriminator(Discriminator):
    """Images [N, channels, R, R] and the condition ``text`` -> a score by name, logits [N]: ``conditional``, whether
    the image is real and fits the text; with the condition ``other_text`` also ``mismatched``, the same for this text.

    TensorFlow: the condition is an embedding, which has a linear layer in D; 1x1 convolutions, a residual branch.
    PyTorch: the condition is the mean of G's code; 3x3 convolutions.

    Args:
        channels, resolution: of the images.
        width: maps after the first convolution.
        text: numbers of an embedding.
        code: numbers of D's own code of it, or of G's.
        unconditional: a second score, ``unconditional``, whether the image is real.
        form: ``"tensorflow"`` or ``"pytorch"``.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 64,
        width: int = 64,
        text: int = 1024,
        code: int = 128,
        unconditional: bool = False,
        form: Form = "tensorflow",
    ):
        super().__init__()
        check_form(form)
        plain, act, w = form == "pytorch", nn.LeakyReLU(0.2), 8 * width
        down, back = widths_of(resolution, width)
        blocks = [convolution(*pair, 4, 2) for pair in pairwise((channels, *down))]
        blocks[0] = blocks[0][:1]  # no batch norm
        blocks += [convolution(*pair, 3 if plain else 1) for pair in pairwise((down[-1], *back))]
        # As published, the TensorFlow form has no activation before its residual branch, and in stage I none after the
        # third convolution.
        bare = set() if plain else {len(blocks) - 1, *([] if back else [2])}
        layers = [layer for i, block in enumerate(blocks) for layer in (*block, *([] if i in bare else [act]))]
        self.layers = nn.Sequential(*layers, *([] if plain else [bottleneck(w, act)]))
        self.text = None if plain else nn.Linear(text, code)
        joint = convolution(code + w, w, 3 if plain else 1)
        self.conditional = nn.Sequential(*joint, act, nn.Conv2d(w, 1, 4, bias=plain), nn.Flatten(0))
        self.unconditional = nn.Sequential(nn.Conv2d(w, 1, 4), nn.Flatten(0)) if unconditional else None
        initialize_form(self, form)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> the maps [N, 8 width, 4, 4] that the scores read."""
        return self.layers(x)

    def score(self, h: Tensor, given: Given | None = None) -> dict[str, Tensor]:  # type: ignore[override]  # by name
        """The maps and ``given["text"]`` -> scores [N] by name."""
        assert given is not None
        scores = {"conditional": self.match(h, given["text"])}
        if self.unconditional is not None:
            scores["unconditional"] = self.unconditional(h)
        if "other_text" in given:
            scores["mismatched"] = self.match(h, given["other_text"])
        return scores

    def match(self, h: Tensor, text: Tensor) -> Tensor:
        """Maps and the condition -> logits [N]."""
        code = text if self.text is None else leaky_relu(self.text(text), 0.2)
        logits: Tensor = self.conditional(tile(code, h))
        return logits


@NETWORKS.register("stackgan-discriminators")
class StackGANDiscriminators(nn.ModuleList):
    """A discriminator for each stage. ``sizes``: of the images of both; ``unconditional``: whether that of stage II has
    a second score. Other arguments as of :class:`StackGANDiscriminator`."""

    def __init__(
        self,
        sizes: Sequence[int] = (64, 256),
        channels: int = 3,
        width: int = 64,
        text: int = 1024,
        code: int = 128,
        unconditional: bool = False,
        form: Form = "tensorflow",
    ):
        own = (False, unconditional)
        super().__init__(
            StackGANDiscriminator(channels, size, width, text, code, second, form)
            for size, second in zip(sizes, own, strict=True)
        )
