"""BEGAN's networks: G is a decoder, D an autoencoder with a decoder of the same layers.

D. Berthelot, T. Schumm, L. Metz, BEGAN: Boundary Equilibrium Generative Adversarial Networks, 2017, arXiv 1703.10717,
figure 1.

3x3 convolutions and ELU, no norms; the number of filters grows linearly with depth; the smallest map is 8x8. The
authors' training code is not public. The layers are those of the best-known reimplementation (T. Kim, 2017), which has
the plain networks. The paper's two refinements (section 3.5.1) are options, ``skips`` and ``vanishing``, at the places
that the paper gives: in the first author's layers the first convolution of a decoder's stage precedes the upsampling.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.autoencoder import Autoencoder
from zoo.networks.init import glorot
from zoo.networks.layers import Conv2d, Linear
from zoo.registry import NETWORKS


def count_stages(resolution: int) -> int:
    """How many stages there are from the image to the 8x8 map, including both."""
    count = resolution.bit_length() - 3
    if count < 1 or resolution != 4 << count:
        raise ValueError(f"resolution={resolution}: must be a power of two, 8 or more, for BEGAN's networks")
    return count


class BEGANLayers(nn.Module):
    """The base of encoder and decoder: convolutions with ELU.

    ``vanishing``: layers that keep the shape of their input h return carry * h + (1 - carry) * elu(conv(h)). A
    schedule takes the buffer ``carry`` from 1 (the identity) to 0 (plain layers).
    """

    carry: Tensor

    def __init__(self, vanishing: bool):
        super().__init__()
        self.vanishing = vanishing
        if vanishing:
            self.register_buffer("carry", torch.ones(()))

    def apply_conv(self, conv: nn.Module, h: Tensor) -> Tensor:
        out = F.elu(conv(h))
        return torch.lerp(out, h, self.carry) if self.vanishing and out.shape == h.shape else out


@NETWORKS.register("began-generator")
class BEGANDecoder(BEGANLayers):
    """z [N, latent] -> x [N, channels, resolution, resolution], any real values.

    A linear layer to ``width`` maps of 8x8, then two convolutions a stage, with nearest upsampling between stages.
    ``skips``: each stage but the first also takes the upsampled 8x8 maps.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        latent: int = 64,
        width: int = 128,
        skips: bool = False,
        vanishing: bool = False,
    ):
        super().__init__(vanishing)
        self.latent, self.skips, self.first = latent, skips, (width, 8, 8)
        self.linear = Linear(latent, 64 * width)
        stages = []
        for i in range(count_stages(resolution)):
            inputs = 2 * width if i and skips else width
            # The upsampling between stages is part of the next convolution.
            stages.append(nn.ModuleList([Conv2d(inputs, width, resample="up" if i else ""), Conv2d(width, width)]))
        self.stages = nn.ModuleList(stages)
        self.output = Conv2d(width, channels)

    def forward(self, z: Tensor) -> Tensor:
        h = first = self.linear(z).unflatten(1, self.first)  # [N, width, 8, 8]
        for i, stage in enumerate(self.stages):
            if i and self.skips:
                h = torch.cat([h, F.interpolate(first, scale_factor=2.0 ** (i - 1))], 1)
            assert isinstance(stage, nn.ModuleList)
            for conv in stage:
                h = self.apply_conv(conv, h)  # [N, width, 8 * 2^i, 8 * 2^i]
        return self.output(h)


class BEGANEncoder(BEGANLayers):
    """x [N, channels, resolution, resolution] -> code [N, latent]; stage i has i ``width`` maps."""

    def __init__(self, channels: int, resolution: int, latent: int, width: int, vanishing: bool):
        super().__init__(vanishing)
        count = count_stages(resolution)
        self.input = Conv2d(channels, width)
        convs: list[nn.Module] = []
        for i in range(1, count + 1):
            maps = i * width
            convs += [Conv2d(max(maps - width, width), maps), Conv2d(maps, maps)]
            if i < count:
                downsampling = nn.Conv2d(maps, maps, 3, 2, 1)
                glorot()(downsampling)
                convs.append(downsampling)
        self.convs = nn.ModuleList(convs)
        self.linear = Linear(64 * count * width, latent)

    def forward(self, x: Tensor) -> Tensor:
        h = F.elu(self.input(x))
        for conv in self.convs:
            h = self.apply_conv(conv, h)
        return self.linear(h.flatten(1))  # from [N, stages * width, 8, 8]


@NETWORKS.register("began-discriminator")
class BEGANDiscriminator(Autoencoder):
    """x [N, channels, resolution, resolution] -> its reconstruction, from a code [N, latent]. Arguments as for G."""

    def __init__(
        self,
        *,
        channels: int = 3,
        resolution: int = 64,
        latent: int = 64,
        width: int = 128,
        skips: bool = False,
        vanishing: bool = False,
    ):
        decoder = BEGANDecoder(
            channels=channels, resolution=resolution, latent=latent, width=width, skips=skips, vanishing=vanishing
        )
        super().__init__(BEGANEncoder(channels, resolution, latent, width, vanishing), decoder, "absolute")
