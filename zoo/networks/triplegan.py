"""Triple-GAN's networks for digits: G and D take the class at every layer, C is a convolutional classifier.

C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv 1703.02291, as in the authors' code for
MNIST.

Differences from the paper:
- Batch norm keeps running averages for sampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks import weight_norm as wn
from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import glorot, initialize, normal
from zoo.networks.layers import require_classes
from zoo.networks.mlp import one_hot
from zoo.registry import NETWORKS


@NETWORKS.register("triplegan-generator")
class TripleGANGenerator(nn.Module):
    """z [N, latent], y int64 [N] -> images [N, channels, H, W] in (0, 1): linear layers with batch norm and softplus, a
    weight-normalized one; y is appended before each."""

    def __init__(
        self,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 10,
        latent: int = 100,
        hidden: Sequence[int] = (500, 500),
    ):
        super().__init__()
        self.latent, self.classes, self.shape = latent, classes, (channels, resolution, resolution)
        pairs = list(itertools.pairwise((latent, *hidden)))
        self.linears = nn.ModuleList(nn.Linear(i + classes, o, bias=False) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(o, eps=1e-4) for o in hidden)
        self.output = wn.Linear(hidden[-1] + classes, math.prod(self.shape), 0.05, learn_gain=True)
        initialize(self, glorot())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h, y = z, one_hot(require_classes(y), self.classes, z.dtype)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            h = nn.functional.softplus(norm(linear(torch.cat([h, y], 1))))
        return self.output(torch.cat([h, y], 1)).sigmoid().unflatten(1, self.shape)


@NETWORKS.register("triplegan-discriminator")
class TripleGANDiscriminator(Discriminator):
    """Images [N, channels, H, W], y int64 [N] -> logits [N]: weight-normalized ReLU layers of gain 1; y is appended
    before each, and once more before the noise of the second. ``noise``: standard deviations of the noise on the pixels
    and before each later layer."""

    def __init__(
        self,
        channels: int = 1,
        resolution: int = 28,
        classes: int = 10,
        hidden: Sequence[int] = (1000, 500, 250, 250, 250),
        noise: tuple[float, float] = (0.3, 0.5),
    ):
        super().__init__()
        self.classes = classes
        first, *later = hidden
        inputs = [channels * resolution**2 + classes, first + 2 * classes, *[o + classes for o in later]]
        self.layers = nn.ModuleList(wn.Linear(i, o, 0.1) for i, o in zip(inputs, (*hidden, 1), strict=True))
        self.noises = nn.ModuleList(wn.Noise(noise[min(k, 1)]) for k in range(len(inputs)))

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer, [N, hidden[-1]]."""
        y = one_hot(require_classes(condition(given, "y")), self.classes, x.dtype)
        h = x.flatten(1)
        for k in range(len(self.layers) - 1):
            h = self.layers[k](torch.cat([self.noises[k](h), y], 1)).relu()
            h = h if k else torch.cat([h, y], 1)
        return h

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        y = one_hot(require_classes(condition(given, "y")), self.classes, h.dtype)
        return self.layers[-1](torch.cat([self.noises[-1](h), y], 1)).squeeze(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # only y
        return super().forward(x, **({} if y is None else {"y": y}))


@NETWORKS.register("triplegan-classifier")
class TripleGANClassifier(nn.Module):
    """Images [N, channels, H, W] -> logits [N, classes]: five convolutions of 1, 2, 2, 4 and 4 times ``width`` maps
    with batch norm and ReLU, two max-pooling layers with dropout, the mean over positions, a linear layer. 28x28 is
    reduced to 12x12 and 5x5."""

    def __init__(self, channels: int = 1, resolution: int = 28, classes: int = 10, width: int = 32):
        super().__init__()
        if resolution < 16:
            raise ValueError(f"resolution={resolution}: must be 16 or more for triplegan-classifier")

        def conv(i: int, o: int, kernel: int = 3, padding: int = 1) -> list[nn.Module]:
            layer = initialize(nn.Conv2d(i, o, kernel, padding=padding, bias=False), normal(0.05))
            return [layer, nn.BatchNorm2d(o, eps=1e-4), nn.ReLU()]

        def pool() -> list[nn.Module]:
            return [nn.MaxPool2d(2), nn.Dropout(0.5)]

        w = width
        self.layers = nn.Sequential(
            *conv(channels, w, 5, 0), *pool(), *conv(w, 2 * w), *conv(2 * w, 2 * w, padding=0), *pool(),
            *conv(2 * w, 4 * w), *conv(4 * w, 4 * w), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = initialize(nn.Linear(4 * w, classes), normal(0.01))

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))

    forward = logits
