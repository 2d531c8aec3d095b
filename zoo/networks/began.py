"""BEGAN's networks: a decoder, which is G, and an autoencoder of the same decoder, which is D.

D. Berthelot, T. Schumm, L. Metz, BEGAN: Boundary Equilibrium Generative Adversarial Networks, 2017, arXiv 1703.10717,
figure 1.

3x3 convolutions and ELU, no norms, filters that grow linearly with depth; the middle map is 8x8. The authors'
training code is not public; layers are laid out as in the best-known reimplementation (T. Kim, 2017), which has the
plain networks. The paper's two refinements (section 3.5.1) are options: ``skips`` and ``vanishing``. Their places
follow the paper: in the first author's layers the first convolution of a decoder's stage comes before the enlargement.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.autoencoder import Autoencoder
from zoo.networks.layers import Conv2d, Linear, glorot_
from zoo.registry import NETWORKS


def stages_of(resolution: int) -> int:
    """Stages from the image to the 8x8 map, both among them."""
    count = resolution.bit_length() - 3
    if count < 1 or resolution != 4 << count:
        raise ValueError(f"resolution={resolution}: BEGAN's networks need a power of two from 8 on")
    return count


class Half(nn.Module):
    """Convolutions with ELU. With ``vanishing``, those that keep the shape pass ``carry`` of their input on: the buffer is for
    a schedule from 1, where such layers are the identity, to 0, where they are plain."""

    def __init__(self, vanishing: bool):
        super().__init__()
        self.vanishing = vanishing
        if vanishing:
            self.register_buffer("carry", torch.ones(()))

    def apply_conv(self, conv: nn.Module, h: Tensor) -> Tensor:
        out = F.elu(conv(h))
        return torch.lerp(out, h, self.carry) if self.vanishing and out.shape == h.shape else out


@NETWORKS.register("began-generator")
class BeganDecoder(Half):
    """z [N, latent] -> x [N, channels, resolution, resolution], any real values.

    A linear layer to ``width`` maps of 8x8, then two convolutions a stage, with nearest enlargement between stages.
    ``skips``: each stage but the first sees the 8x8 maps again, enlarged, beside its input.
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
        for i in range(stages_of(resolution)):
            inputs = 2 * width if i and skips else width
            # The enlargement between stages is part of the next convolution.
            stages.append(nn.ModuleList([Conv2d(inputs, width, resample="up" if i else ""), Conv2d(width, width)]))
        self.stages = nn.ModuleList(stages)
        self.output = Conv2d(width, channels)

    def forward(self, z: Tensor) -> Tensor:
        h = start = self.linear(z).unflatten(1, self.first)
        for i, (one, two) in enumerate(self.stages):
            if i and self.skips:
                h = torch.cat([h, F.interpolate(start, scale_factor=2.0 ** (i - 1))], 1)
            h = self.apply_conv(two, self.apply_conv(one, h))  # [N, width, 8 * 2^i, 8 * 2^i]
        return self.output(h)


class BeganEncoder(Half):
    """x [N, channels, resolution, resolution] -> code [N, latent]; stage i has i ``width`` maps."""

    def __init__(self, channels: int, resolution: int, latent: int, width: int, vanishing: bool):
        super().__init__(vanishing)
        count = stages_of(resolution)
        self.input = Conv2d(channels, width)
        convs: list[nn.Module] = []
        for i in range(1, count + 1):
            maps = i * width
            convs += [Conv2d(max(maps - width, width), maps), Conv2d(maps, maps)]
            if i < count:
                half = nn.Conv2d(maps, maps, 3, 2, 1)
                glorot_(half.weight)
                nn.init.zeros_(half.bias)
                convs.append(half)
        self.convs = nn.ModuleList(convs)
        self.linear = Linear(64 * count * width, latent)

    def forward(self, x: Tensor) -> Tensor:
        h = F.elu(self.input(x))
        for conv in self.convs:
            h = self.apply_conv(conv, h)
        return self.linear(h.flatten(1))  # from [N, stages * width, 8, 8]


@NETWORKS.register("began-discriminator")
class BeganDiscriminator(Autoencoder):
    """x [N, channels, resolution, resolution] -> its reconstruction, through a code [N, latent]. Arguments as G's."""

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
        sizes = {"channels": channels, "resolution": resolution, "latent": latent, "width": width}
        decoder = BeganDecoder(**sizes, skips=skips, vanishing=vanishing)
        super().__init__(BeganEncoder(**sizes, vanishing=vanishing), decoder)
