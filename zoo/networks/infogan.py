"""InfoGAN's networks for digits: G, D, and the small network Q, which predicts the codes from D's features.

X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever, P. Abbeel, InfoGAN: Interpretable Representation Learning by
Information Maximizing Generative Adversarial Nets, 2016, arXiv 1606.03657, appendix C.1, as in the authors' code
(``regularized_gan.py``): convolutions start from a normal truncated at two standard deviations, linear layers and
transposed convolutions from N(0, .02^2), gains of batch norm from N(1, .02^2), biases (also those before batch norm)
from 0.

Differences from the paper:
- The slope of leaky ReLUs is the code's .01; the paper has .1.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given
from zoo.networks.init import initialize, normal, truncated_normal
from zoo.networks.layers import smallest_side
from zoo.registry import NETWORKS


def _initialize(network: nn.Module) -> None:
    initialize(network, normal(0.02), convolutions=truncated_normal(0.02), norms=normal(0.02, mean=1.0))


@NETWORKS.register("infogan-generator")
class InfoGANGenerator(nn.Module):
    """z and codes, concatenated [N, latent] -> images [N, channels, resolution, resolution] in (0, 1).

    Two linear layers, of ``hidden`` units and to 2 ``width`` maps of a quarter of the resolution, then two 4x4
    transposed convolutions of stride 2.
    """

    classes = 0

    def __init__(self, channels: int = 1, resolution: int = 28, latent: int = 74, width: int = 64, hidden: int = 1024):
        super().__init__()
        side = smallest_side(resolution, 2, "infogan-generator")
        self.latent, self.first = latent, (2 * width, side, side)
        units = 2 * width * side * side
        self.linear1, self.norm1 = nn.Linear(latent, hidden), nn.BatchNorm1d(hidden)
        self.linear2, self.norm2 = nn.Linear(hidden, units), nn.BatchNorm1d(units)
        self.conv1, self.norm3 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width)
        self.conv2 = nn.ConvTranspose2d(width, channels, 4, 2, 1)
        _initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.linear1(z)))
        h = F.relu(self.norm2(self.linear2(h))).unflatten(1, self.first)  # [N, 128, 7, 7]
        h = F.relu(self.norm3(self.conv1(h)))  # [N, 64, 14, 14]
        return self.conv2(h).sigmoid()


@NETWORKS.register("infogan-discriminator")
class InfoGANDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] -> logits [N]: two 4x4 convolutions of ``width`` and twice as many
    maps, a linear layer to the ``features``, which Q takes too, a linear head. ``slope``: of the leaky ReLUs."""

    def __init__(
        self,
        channels: int = 1,
        resolution: int = 28,
        width: int = 64,
        features: int = 1024,
        slope: float = 0.01,
    ):
        super().__init__()
        side = smallest_side(resolution, 2, "infogan-discriminator")
        self.slope = slope
        self.conv1 = nn.Conv2d(channels, width, 4, 2, 1)
        self.conv2, self.norm2 = nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width)
        self.linear, self.norm3 = nn.Linear(2 * width * side * side, features), nn.BatchNorm1d(features)
        self.head = nn.Linear(features, 1)
        _initialize(self)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> h [N, features], the last hidden layer."""
        h = F.leaky_relu(self.conv1(x), self.slope)
        h = F.leaky_relu(self.norm2(self.conv2(h)), self.slope).flatten(1)
        return F.leaky_relu(self.norm3(self.linear(h)), self.slope)


@NETWORKS.register("recognition-head")
class RecognitionHead(nn.Module):
    """D's features [N, ``features``] -> the parameters of Q(c|x), [N, ``outputs``]: a linear layer, batch norm, leaky
    ReLU, a linear layer."""

    def __init__(self, features: int = 1024, hidden: int = 128, outputs: int = 14, slope: float = 0.01):
        super().__init__()
        self.outputs, self.slope = outputs, slope
        self.linear, self.norm = nn.Linear(features, hidden), nn.BatchNorm1d(hidden)
        self.head = nn.Linear(hidden, outputs)
        _initialize(self)

    def forward(self, h: Tensor) -> Tensor:
        return self.head(F.leaky_relu(self.norm(self.linear(h)), self.slope))
