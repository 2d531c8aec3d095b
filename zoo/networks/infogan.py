"""InfoGAN's networks for digits: G, D with its trunk, and the small head Q that reads the codes off the trunk.

X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever, P. Abbeel, InfoGAN: Interpretable Representation Learning by
Information Maximizing Generative Adversarial Nets, 2016, arXiv 1606.03657, appendix C.1, as in the authors' code
(``regularized_gan.py``): convolutions from a normal cut at two deviations, linear and transposed ones from N(0, .02^2), gains
of norms from N(1, .02^2), biases 0 (also those before a norm). The slope of leaky ReLUs is the code's .01; the paper says .1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.layers import doublings
from zoo.registry import NETWORKS


def _start(network: nn.Module) -> None:
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.trunc_normal_(m.weight, 0.0, 0.02, -0.04, 0.04)
        elif isinstance(m, nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(m.weight, 0.0, 0.02)
        elif isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
        if getattr(m, "bias", None) is not None:
            nn.init.zeros_(m.bias)


@NETWORKS.register("infogan-generator")
class InfoganGenerator(nn.Module):
    """z and codes, joined [N, latent] -> images [N, channels, resolution, resolution] in (0, 1).

    Two linear layers, of ``hidden`` units and of 2 ``width`` maps at a quarter of the size, two 4x4 transposed convolutions.
    """

    classes = 0

    def __init__(self, channels: int = 1, resolution: int = 28, latent: int = 74, width: int = 64, hidden: int = 1024):
        super().__init__()
        side = doublings(resolution, 2, "infogan-generator")
        self.latent, self.first = latent, (2 * width, side, side)
        units = 2 * width * side * side
        self.linear1, self.norm1 = nn.Linear(latent, hidden), nn.BatchNorm1d(hidden)
        self.linear2, self.norm2 = nn.Linear(hidden, units), nn.BatchNorm1d(units)
        self.conv1, self.norm3 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width)
        self.conv2 = nn.ConvTranspose2d(width, channels, 4, 2, 1)
        _start(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.linear1(z)))
        h = F.relu(self.norm2(self.linear2(h))).unflatten(1, self.first)  # [N, 128, 7, 7]
        h = F.relu(self.norm3(self.conv1(h)))  # [N, 64, 14, 14]
        return self.conv2(h).sigmoid()


@NETWORKS.register("infogan-discriminator")
class InfoganDiscriminator(nn.Module):
    """Images [N, channels, resolution, resolution] -> logits [N]: two 4x4 convolutions of ``width`` and twice as many maps,
    a linear layer to the ``features`` that Q reads too, a linear head."""

    classes = 0

    def __init__(
        self,
        channels: int = 1,
        resolution: int = 28,
        width: int = 64,
        features: int = 1024,
        slope: float = 0.01,
    ):
        super().__init__()
        side = doublings(resolution, 2, "infogan-discriminator")
        self.slope = slope
        self.conv1 = nn.Conv2d(channels, width, 4, 2, 1)
        self.conv2, self.norm2 = nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width)
        self.linear, self.norm3 = nn.Linear(2 * width * side * side, features), nn.BatchNorm1d(features)
        self.head = nn.Linear(features, 1)
        _start(self)

    def features(self, x: Tensor) -> Tensor:
        """x -> h [N, features], the trunk's last layer."""
        h = F.leaky_relu(self.conv1(x), self.slope)
        h = F.leaky_relu(self.norm2(self.conv2(h)), self.slope).flatten(1)
        return F.leaky_relu(self.norm3(self.linear(h)), self.slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)).squeeze(1)


@NETWORKS.register("recognition-head")
class RecognitionHead(nn.Module):
    """D's features [N, ``features``] -> what says Q(c|x), [N, ``outputs``]: a linear layer, norm, leaky ReLU, a linear layer."""

    def __init__(self, features: int = 1024, hidden: int = 128, outputs: int = 14, slope: float = 0.01):
        super().__init__()
        self.outputs, self.slope = outputs, slope
        self.linear, self.norm, self.head = (
            nn.Linear(features, hidden),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, outputs),
        )
        _start(self)

    def forward(self, h: Tensor) -> Tensor:
        return self.head(F.leaky_relu(self.norm(self.linear(h)), self.slope))
