"""The networks of both StackGANs, with a tiny text encoder whose embeddings [N, 4] are computed once for all rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from helpers.pretrained import ENCODER
from helpers.skeletons import network, planes
from zoo.recipe import Derived, Stream
from zoo.registry import FrozenDict, Spec

PRETRAINED = {"T": ENCODER}
CAPTIONED = Stream(derived={"text": Derived("T", of="caption")})  # its rows also have the embedding of their caption
SHIPS = FrozenDict(
    kind="text-to-image",
    networks=["G"],
    prior=Spec("normal"),
    pretrained=["T"],
    text="T",
    examples=["number 1", "number 2"],
)


class Conditioning(nn.Module):
    """Conditioning augmentation: an embedding [N, 4] and noise [N, 4] -> a code [N, 4] around a mean [N, 4], and its
    divergence from N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 8)

    def forward(self, text: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_std = leaky_relu(self.linear(text), 0.2).chunk(2, 1)
        divergence = (mean.square() + (2 * log_std).exp() - 1).mean() / 2 - log_std.mean()
        return mean + log_std.exp() * noise, mean, divergence


class Up(nn.Sequential):
    """Maps [N, 4, H, W] and a code [N, 4] -> maps [N, 4, 2H, 2W], with batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.ConvTranspose2d(8, 4, 4, 2, 1))

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        return super().forward(torch.cat([h, planes(code, h)], 1))


@network
class Painter(nn.Module):
    """A stage of StackGAN: maps [N, 4, H, W], an embedding and noise -> images [N, 3, 2H, 2W] and the divergence."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.up, self.image = Conditioning(), Up(), nn.Conv2d(4, 3, 3, 1, 1)

    def forward(self, h: Tensor, text: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        code, _, divergence = self.code(text, noise)
        return torch.tanh(self.image(self.up(h, code))), divergence


@network
class Tree(nn.ModuleList):
    """The generator of StackGAN++: images of 8, 16 and 32 pixels; the model has the largest."""

    latent, noise_shapes = 64, FrozenDict(code=(4,))

    def __init__(self) -> None:
        super().__init__([Conditioning(), *(Up() for _ in range(3))])

    def paint(self, z: Tensor, text: Tensor, noise: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """The images of all sizes, the mean of the code and its divergence."""
        (code, mean, divergence), maps = self[0](text, noise["code"]), [z.view(-1, 4, 4, 4)]
        for up in list(self)[1:]:
            maps.append(up(maps[-1], code))
        return [torch.tanh(h[:, :3]) for h in maps[1:]], mean, divergence

    def forward(self, z: Tensor, text: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        return self.paint(z, text, noise)[0][-1]
