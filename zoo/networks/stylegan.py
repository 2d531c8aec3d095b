"""StyleGAN's networks, which grow.

T. Karras, S. Laine, T. Aila, A Style-Based Generator Architecture for Generative Adversarial Networks, 2019, arXiv
1812.04948. A mapping network makes styles w of the noise z; the synthesis network begins with a learned constant. After
each of its layers come noise, bias, leaky ReLU, instance norm, and the style: a gain and a bias for each channel. D is
PGGAN's with a blur before each downsampling.

Difference from the authors' code: nearest upsampling and the convolution after it, and a convolution and the averaging
after it, are one convolution each (``layers.py``), equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import parallel
from zoo.networks.equalized import Conv2d, GrowingNetwork, Linear, leaky_relu, pixel_norm
from zoo.networks.layers import InstanceNorm2d
from zoo.networks.pggan import WIDTHS, PGGANDiscriminator
from zoo.registry import NETWORKS, FrozenDict


class Blur(nn.Module):
    """The filter [1, 2, 1] / 4 in both directions, with zeros outside."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filter", line[:, None] * line, persistent=False)  # [3, 3]

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> the same shape."""
        channels = x.shape[1]
        return F.conv2d(x, self.filter.to(x.dtype).expand(channels, 1, 3, 3), padding=1, groups=channels)


class MappingNetwork(nn.Sequential):
    """z [N, latent] -> w [N, w]: z divided by the root of its mean square, then linear layers with leaky ReLUs, whose
    learning rate is a hundredth of the others'."""

    def __init__(self, latent: int, w: int, layers: int):
        super().__init__(*(Linear(latent if i == 0 else w, w, lr=0.01) for i in range(layers)))

    def forward(self, z: Tensor) -> Tensor:
        h = pixel_norm(z)
        for layer in self:
            h = leaky_relu(layer(h))
        return h


class Styled(nn.Module):
    """The base of generators with styles: the mapping network, the mean of w, styles of two w, truncation.

    Args:
        latent: numbers of noise.
        w: numbers of a style.
        mapping: the mapping network, of z and of classes if there are any.
        decay: of the mean of w, in each pass of training.
        truncated: the first styles, which truncation changes; None: all.
    """

    w_mean: Tensor
    classes = 0
    whole_batch = "the mean of w"

    def __init__(self, latent: int, w: int, mapping: nn.Module, decay: float, truncated: int | None):
        super().__init__()
        self.latent, self.w, self.decay, self.truncated = latent, w, decay, truncated
        self.mapping = mapping
        self.register_buffer("w_mean", torch.zeros(w))

    @property
    def style_count(self) -> int:
        """The number of styles of an image."""
        raise AssertionError(f"{type(self).__name__} does not say how many styles it takes")

    image_shape: tuple[int, int, int]  # of an image

    def styles(
        self,
        z: Tensor,
        y: Tensor | None = None,
        second: Tensor | None = None,
        cut: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """z [N, latent] (and classes y [N]) -> styles [N, style_count, w]. ``second``: other noise, whose style the
        layers from ``cut`` [N] on have. ``truncation``: the factor of w's distance from its mean, in the first
        ``truncated`` styles."""
        given = (y,) if self.classes else ()
        w = self.mapping(z, *given)
        if self.training:
            self.update_mean(w)
        ws = w[:, None].expand(-1, self.style_count, -1)
        if second is not None:
            assert cut is not None
            layer = torch.arange(self.style_count, device=z.device)
            ws = torch.where((layer < cut[:, None])[:, :, None], ws, self.mapping(second, *given)[:, None])
        if truncation is not None:
            near = torch.lerp(self.w_mean.to(ws.dtype), ws, truncation)
            ws = near if self.truncated is None else torch.cat([near[:, : self.truncated], ws[:, self.truncated :]], 1)
        return ws

    @torch.no_grad()
    def update_mean(self, w: Tensor) -> None:
        """Add the mean of w [N, w], of all processes, to the running mean."""
        self.w_mean.lerp_(parallel.mean(w.detach().to(self.w_mean.dtype).mean(0)), 1 - self.decay)

    def forward(
        self,
        z: Tensor,
        noise: Mapping[str, Tensor] | None = None,
        y: Tensor | None = None,
        second: Tensor | None = None,
        cut: Tensor | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Images. ``noise``: by the names of ``noise_shapes``; None for none. Others: those of :meth:`styles`."""
        return self.synthesis(self.styles(z, y, second, cut, truncation), noise)

    def synthesis(self, ws: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """Styles [N, style_count, w], or one for all layers [N, w] -> images."""
        raise AssertionError(f"{type(self).__name__} has no synthesis network")


def cuts(uniform: Tensor, styles: int, probability: float) -> Tensor:
    """The layer [N] from which on images of ``styles`` styles have the second one: with the probability one from the
    second on, otherwise one after the last. ``uniform``: numbers in [0, 1), [N, 2]."""
    chance, place = uniform.unbind(1)
    layer = 1 + (place * (styles - 1)).floor()
    return torch.where(chance < probability, layer, torch.full_like(layer, styles))


class StyledLayer(nn.Module):
    """What follows a convolution: noise with a strength for each channel, bias, leaky ReLU, instance norm, and a gain
    and a bias that are linear in the style."""

    def __init__(self, width: int, w: int):
        super().__init__()
        self.strength, self.bias = (nn.Parameter(torch.zeros(width, 1, 1)) for _ in range(2))
        self.norm = InstanceNorm2d(width, eps=1e-8)
        self.style = Linear(w, 2 * width, gain=1.0)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, width, H, W], w [N, w], noise [N, 1, H, W] or None -> the shape of x."""
        if noise is not None:
            x = x + self.strength.to(x.dtype) * noise.to(x.dtype)
        h = self.norm(leaky_relu(x + self.bias.to(x.dtype)))
        gain, bias = self.style(w)[:, :, None, None].chunk(2, 1)  # [N, width, 1, 1]
        return torch.addcmul(bias.to(h.dtype), h, 1 + gain.to(h.dtype))


@NETWORKS.register("stylegan-generator")
class StyleGANGenerator(GrowingNetwork, Styled):
    """z [N, latent] -> images [N, channels, side, side], which are not limited to [-1, 1].

    Raises ValueError unless there is a width for each power of two from 4 to ``resolution``.

    Args:
        channels, resolution: of the images, at the last level.
        latent: numbers of noise.
        w: numbers of a style.
        widths: channels at 4x4, 8x8, ...
        layers: of the mapping network.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 1024,
        latent: int = 512,
        w: int = 512,
        widths: Sequence[int] = WIDTHS,
        layers: int = 8,
    ):
        mapping = MappingNetwork(latent, w, layers)
        super().__init__(widths, resolution, latent=latent, w=w, mapping=mapping, decay=0.995, truncated=8)
        self.channels = channels
        self.constant = nn.Parameter(torch.ones(widths[0], 4, 4))
        self.conv = Conv2d(widths[0], widths[0], bias=False)
        self.ups = nn.ModuleList(Conv2d(i, o, resample="up", bias=False) for i, o in pairwise(widths))
        self.convs = nn.ModuleList(Conv2d(o, o, bias=False) for o in widths[1:])
        self.blur = Blur()
        self.styled = nn.ModuleList(StyledLayer(o, w) for o in widths for _ in range(2))
        self.to_rgb = nn.ModuleList(Conv2d(o, channels, 1, gain=1.0) for o in widths)

    @property
    def style_count(self) -> int:
        """The number of styles of an image of this level: two for each resolution."""
        return 2 * (self.level + 1)

    @property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]  # it depends on the level
        """Of an image of this level."""
        return self.channels, self.side, self.side

    @property
    def noise_shapes(self) -> FrozenDict:
        """The noise of each layer of this level."""
        return FrozenDict({f"noise{i}": (1, 4 * 2 ** (i // 2), 4 * 2 ** (i // 2)) for i in range(self.style_count)})

    def synthesis(self, ws: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        if ws.dim() == 2:
            ws = ws[:, None].expand(-1, self.style_count, -1)

        def styled(i: int, h: Tensor) -> Tensor:
            result: Tensor = self.styled[i](h, ws[:, i], None if noise is None else noise[f"noise{i}"])
            return result

        h = styled(0, self.constant.to(ws.dtype).expand(ws.shape[0], -1, -1, -1))  # [N, widths[0], 4, 4]
        h = before = styled(1, self.conv(h))
        for i in range(1, self.level + 1):
            before, h = h, styled(2 * i, self.blur(self.ups[i - 1](h)))
            h = styled(2 * i + 1, self.convs[i - 1](h))  # [N, width, side, side]
        x: Tensor = self.to_rgb[self.level](h)
        if not self.level:
            return x
        return self.blend(F.interpolate(self.to_rgb[self.level - 1](before), scale_factor=2.0), x)


class DownBlock(nn.Module):
    """3x3, leaky ReLU, blur, 3x3 and 2x2 average pooling, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = Conv2d(inputs, inputs)
        self.blur = Blur()
        self.conv2 = Conv2d(inputs, outputs, resample="down")

    def forward(self, x: Tensor) -> Tensor:
        """x [N, inputs, H, W] -> [N, outputs, H/2, W/2]."""
        return leaky_relu(self.conv2(self.blur(leaky_relu(self.conv1(x)))))


@NETWORKS.register("stylegan-discriminator")
class StyleGANDiscriminator(PGGANDiscriminator):
    """PGGAN's with a blur before each downsampling: images [N, channels, side, side] -> scores [N]. Arguments as there;
    at most ``group`` images share a standard deviation."""

    block = DownBlock

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 1024,
        widths: Sequence[int] = WIDTHS,
        group: int | None = 4,
    ):
        super().__init__(channels, resolution, widths, group)
