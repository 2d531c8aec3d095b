"""VGG-19's convolutions, as a network of features for losses: frozen, with weights from elsewhere.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015, arXiv 1409.1556, table
1, column E. Tensors have the names of torchvision's ``vgg19().features``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.registry import NETWORKS

CONVOLUTIONS = (2, 2, 4, 4, 4)  # between two poolings
WIDTHS = (1, 2, 4, 8, 8)  # their maps, in multiples of 64
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels in [0, 1]


@NETWORKS.register("vgg19-features")
class VGG19Features(nn.Sequential):
    """Images [N, 3, H, W] in [-1, 1] -> phi_ij: the maps after the j-th convolution before the i-th pooling, and ReLU.

    Args:
        i: counts poolings from 1.
        j: counts the convolutions since the pooling before, from 1.
        width: maps of the first convolution.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, i: int = 5, j: int = 4, width: int = 64):
        if not (1 <= i <= 5 and 1 <= j <= CONVOLUTIONS[i - 1]):
            raise ValueError(
                f"i={i}, j={j}: must be a convolution of VGG-19, which has 2, 2, 4, 4, 4 before its poolings"
            )
        layers: list[nn.Module] = []
        inputs = 3
        for block in range(i):
            layers += [nn.MaxPool2d(2, 2)] if block else []
            for _ in range(j if block == i - 1 else CONVOLUTIONS[block]):
                layers += [nn.Conv2d(inputs, WIDTHS[block] * width, 3, padding=1), nn.ReLU()]
                inputs = WIDTHS[block] * width
        super().__init__(*layers)
        # Of values in [-1, 1]; not in files.
        self.register_buffer("mean", 2 * torch.tensor(MEAN)[:, None, None] - 1, persistent=False)
        self.register_buffer("deviation", 2 * torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.deviation)
