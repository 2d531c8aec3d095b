"""SNGAN's standard CNN.

Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial Networks", 2018, arXiv 1802.05957,
table 3. The authors' repository has the ResNets only; that weights start at N(0, 0.02^2), as in DCGAN, is our choice.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.discriminator import Discriminator, Given, condition
from zoo.networks.init import initialize, normal, torch_default
from zoo.networks.layers import BatchNorm2d, ProjectionHead, Spectral, smallest_side
from zoo.registry import NETWORKS


class Conv(nn.Conv2d, Spectral):
    """A spectrally normalized convolution: 3x3, or 4x4 of stride 2."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, 2 + stride, stride=stride, padding=1)
        self.normalize(True)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias, self.stride, self.padding)


def _initialize(network: nn.Module, init: str) -> None:
    """``init``: "normal" (weights N(0, 0.02^2), biases 0), or "torch": convolutions' weights N(0, 0.02^2), batch norm's
    gains N(1, 0.02^2) and the rest as in PyTorch, which is the rule of the code of A. Jolicoeur-Martineau (arXiv
    1807.00734)."""
    if init not in ("normal", "torch"):
        raise ValueError(f"init='{init}': must be normal or torch")
    if init == "torch":
        initialize(network, normal(0.02, bias=None), linears=torch_default, norms=normal(0.02, mean=1.0))
    else:
        initialize(network, normal(0.02))


@NETWORKS.register("sngan-cnn-generator")
class SNGANGenerator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in [-1, 1].

    A linear layer to 8 ``width`` maps, three 4x4 transposed convolutions of 4, 2 and 1 times ``width`` with batch norm
    and ReLU, a 3x3 convolution. ``classes``: class-conditional batch norm, ``G(z, y=y)``; 0 for none. ``init``:
    "normal" (weights N(0, 0.02^2), biases 0) or "torch" (the relativistic GANs' code).
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 0,
        latent: int = 128,
        width: int = 64,
        init: str = "normal",
    ):
        super().__init__()
        self.classes = classes
        side = smallest_side(resolution, 3, "sngan-cnn-generator")
        self.latent, self.first = latent, (8 * width, side, side)
        self.linear = nn.Linear(latent, 8 * width * side * side)
        widths = [8 * width, 4 * width, 2 * width, width]
        pairs = list(itertools.pairwise(widths))
        self.convs = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, stride=2, padding=1) for i, o in pairs)
        self.norms = nn.ModuleList(BatchNorm2d(o, classes) for _, o in pairs)
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        _initialize(self, init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.linear(z).unflatten(1, self.first)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(h), y))
        return self.output(h).tanh()


@NETWORKS.register("sngan-cnn-discriminator")
class SNGANDiscriminator(Discriminator):
    """Images [N, channels, resolution, resolution] -> scores [N].

    3x3 convolutions and 4x4 ones of stride 2 in turn, of 1, 1, 2, 2, 4, 4 and 8 times ``width``, leaky ReLU of slope
    0.1, a linear layer; spectral normalization of all layers, or, without ``sn_head``, of all but the last.
    ``classes``: a projection head, ``D(x, y=y)``; 0 for none. ``init``: as for the generator.
    """

    def __init__(
        self,
        channels: int = 3,
        resolution: int = 32,
        classes: int = 0,
        width: int = 64,
        sn_head: bool = True,
        init: str = "normal",
    ):
        super().__init__()
        side = smallest_side(resolution, 3, "sngan-cnn-discriminator")
        widths = [channels] + [width * m for m in (1, 1, 2, 2, 4, 4, 8)]
        self.classes = classes
        self.convs = nn.ModuleList(Conv(i, o, 1 + k % 2) for k, (i, o) in enumerate(itertools.pairwise(widths)))
        self.head = ProjectionHead(8 * width * side * side, classes, sn=sn_head)
        _initialize(self, init)
        if classes and init == "normal":
            normal(0.02)(self.head.embedding)

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """x -> phi [N, 8 * width * (resolution / 8)^2], the last map, flat."""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
        return x.flatten(1)

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        return self.head(h, condition(given, "y"))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]  # only y
        return self.head(self.features(x), y)
