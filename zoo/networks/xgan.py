"""XGAN's networks: two autoencoders that share their middle layers, a classifier of the code's domain, a discriminator.

A. Royer, K. Bousmalis, S. Gouws, F. Bertsch, I. Mosseri, F. Cole, K. Murphy, XGAN: Unsupervised Image-to-Image
Translation for Many-to-Many Mappings, 2017, arXiv 1711.05139, appendix.

The authors published no code. What the paper's table does not say is as in re-implementations: 4x4 kernels, leaky ReLU
of slope 0.2 in encoders and D, ReLU in decoders, codes of length 1. Ours: batch norm after all convolutions of the
autoencoders but the first and the last, none in D and in the classifier; PyTorch's own initialization. Batch norm,
without weights of its own, also comes before the codes get their length: without it they crowd around their mean, since
the semantic term is smaller there. The domains' own layers start with equal weights, so that images that look alike
have similar codes from the first step on: nothing else in the loss says which image of the other domain belongs to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS

DOMAINS = ("a", "b")


def down(inputs: int, outputs: int, norm: bool = True) -> list[nn.Module]:
    """A convolution that halves height and width."""
    middle = [nn.BatchNorm2d(outputs)] if norm else []
    return [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), *middle, nn.LeakyReLU(0.2)]


def up(inputs: int, outputs: int) -> list[nn.Module]:
    """A transposed convolution that doubles height and width."""
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


@NETWORKS.register("xgan-autoencoders")
class XGANAutoencoders(nn.Module):
    """An encoder and a decoder for each of the domains a and b. The first two layers of an encoder and the last three
    of a decoder are the domain's own, the others are shared.

    Encoder: 4x4 convolutions of stride 2 to ``width`` and twice as many maps, then, shared, to 4 and 8 ``width``, two
    linear layers to ``code`` numbers. Decoder: shared transposed convolutions to 16 ``width`` maps and, of stride 2, 8
    ``width``; then to 4 and 2 ``width`` and the image, tanh. The shared layers get the images of both domains as one
    batch, so that batch norm has the statistics of both, in training and later.
    """

    def __init__(self, channels: int = 3, resolution: int = 64, width: int = 32, code: int = 1024):
        super().__init__()
        side = smallest_side(resolution, 4, "xgan-autoencoders")
        self.resolution, w = resolution, width
        self.encoders = nn.ModuleDict(
            {k: nn.Sequential(*down(channels, w, norm=False), *down(w, 2 * w)) for k in DOMAINS}
        )
        self.encoder = nn.Sequential(
            *down(2 * w, 4 * w), *down(4 * w, 8 * w), nn.Flatten(),
            nn.Linear(8 * w * side**2, code), nn.LeakyReLU(0.2), nn.Linear(code, code),
            nn.BatchNorm1d(code, affine=False),
        )  # fmt: skip
        first = nn.ConvTranspose2d(code, 16 * w, side)
        self.decoder = nn.Sequential(first, nn.BatchNorm2d(16 * w), nn.ReLU(), *up(16 * w, 8 * w))
        self.decoders = nn.ModuleDict(
            {
                k: nn.Sequential(
                    *up(8 * w, 4 * w), *up(4 * w, 2 * w), nn.ConvTranspose2d(2 * w, channels, 4, 2, 1), nn.Tanh()
                )
                for k in DOMAINS
            }
        )
        for own in (self.encoders, self.decoders):
            own["b"].load_state_dict(own["a"].state_dict())

    def encode_all(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images [N, channels, R, R] by domain -> their codes [N, code], of length 1."""
        own = [self.encoders[k](x) for k, x in images.items()]
        codes = normalize(self.encoder(torch.cat(own)), dim=1)
        return dict(zip(images, codes.split([x.shape[0] for x in own]), strict=True))

    def decode_all(self, codes: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Codes [N, code] by domain -> images of each domain, ``images[target][source]``, [N, channels, R, R]."""
        h = self.decoder(torch.cat([*codes.values()])[:, :, None, None])  # [N, 8 width, R / 8, R / 8]
        sizes = [code.shape[0] for code in codes.values()]
        return {k: dict(zip(codes, own(h).split(sizes), strict=True)) for k, own in self.decoders.items()}

    def encode(self, x: Tensor, domain: str) -> Tensor:
        """Images x [N, channels, R, R] of a domain -> codes [N, code]."""
        return self.encode_all({domain: x})[domain]

    def decode(self, code: Tensor, domain: str) -> Tensor:
        """Codes -> images of a domain."""
        return self.decoders[domain](self.decoder(code[:, :, None, None]))

    def forward(self, x: Tensor, source: str, target: str) -> Tensor:
        """Images of one domain -> images of the other."""
        return self.decode(self.encode(x, source), target)


@NETWORKS.register("xgan-domain-classifier")
class XGANDomainClassifier(nn.Module):
    """Codes [N, code] -> logits [N], positive for the domain a; ReLU after each of the ``hidden`` layers."""

    def __init__(self, code: int = 1024, hidden: Sequence[int] = (256, 64)):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((code, *hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear((code, *hidden)[-1], 1), nn.Flatten(0))

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)


@NETWORKS.register("xgan-discriminator")
class XGANDiscriminator(Discriminator):
    """Images [N, channels, R, R] -> logits [N]: four 4x4 convolutions of stride 2 to ``width`` and three times twice as
    many maps, a linear layer."""

    def __init__(self, channels: int = 3, resolution: int = 64, width: int = 16):
        super().__init__()
        side, maps = smallest_side(resolution, 4, "xgan-discriminator"), (channels, width, *[2 * width] * 3)
        layers = [layer for inputs, outputs in pairwise(maps) for layer in down(inputs, outputs, norm=False)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(2 * width * side**2, 1)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> the last hidden layer, [N, 2 width (R / 16)^2]."""
        return self.layers(x)
