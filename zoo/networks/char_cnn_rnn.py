"""A text encoder that reads letters, and the image encoder that is trained with it.

Reed, Akata, Schiele, Lee, "Learning Deep Representations of Fine-grained Visual Descriptions", 2016, arXiv 1605.05395,
section 4, as used by Reed et al., "Generative Adversarial Text to Image Synthesis", 2016, arXiv 1605.05396: 201 letters
of an alphabet of 70, temporal convolutions with 384, 512 and 512 maps, a recurrent layer (GRU) and the mean of its
states.

Differences from the paper:
- The image encoder is a small convolutional network instead of GoogLeNet's features.
- Initial weights are PyTorch's, uniform by the number of inputs, in all layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks.hashed_text import HashedTextEncoder
from zoo.registry import NETWORKS

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "  # 70; "-" is in it twice
LENGTH = 201  # letters of a text that are read
NUMBERS = {letter: 1 + k for k, letter in enumerate(ALPHABET)}  # 0: no letter, or one of no place in the alphabet


@NETWORKS.register("letters")
class Letters(nn.Module):
    """A list of N strings -> the number of each letter in the alphabet, float32 [N, 201], on the CPU; 0 for others and
    after the end. It has no weights, so that a recipe's Pretrained of it needs no source."""

    def forward(self, texts: Sequence[str]) -> Tensor:
        rows = [[NUMBERS.get(letter, 0) for letter in text.lower()[:LENGTH]] for text in texts]
        numbers = [row + [0] * (LENGTH - len(row)) for row in rows]
        return torch.tensor(numbers, dtype=torch.float32, device="cpu").view(-1, LENGTH)


class GRU(nn.Module):
    """A gated recurrent layer that returns the mean of its states: [N, steps, width] -> [N, width]."""

    def __init__(self, width: int):
        super().__init__()
        self.inputs, self.states = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> Tensor:
        h = total = torch.zeros_like(x[:, 0])
        for step in self.inputs(x).unbind(1):
            reset_x, update_x, new_x = step.chunk(3, 1)
            reset_h, update_h, new_h = self.states(h).chunk(3, 1)
            update = (update_x + update_h).sigmoid()
            new = (new_x + (reset_x + reset_h).sigmoid() * new_h).tanh()
            h = (1 - update) * new + update * h
            total = total + h
        return total / x.shape[1]


@NETWORKS.register("char-cnn-rnn")
class CharCNNRNN(nn.Module):
    """A list of N strings, or their letters [N, 201] (:class:`Letters`) -> embeddings [N, dim].

    Args:
        width: maps of the second and third convolution and of the recurrent layer; the first has three quarters.
        dim: numbers of an embedding.
    """

    def __init__(self, width: int = 512, dim: int = 1024):
        super().__init__()
        self.letters = Letters()
        first = 3 * width // 4
        self.convolutions = nn.Sequential(
            nn.Conv1d(len(ALPHABET), first, 4), nn.ReLU(), nn.MaxPool1d(3), nn.Conv1d(first, width, 4), nn.ReLU(),
            nn.MaxPool1d(3), nn.Conv1d(width, width, 4), nn.ReLU(),
        )  # fmt: skip
        self.recurrent = GRU(width)
        self.output = nn.Linear(width, dim)

    def forward(self, texts: Sequence[str] | Tensor) -> Tensor:
        weight = self.output.weight
        letters = texts if isinstance(texts, Tensor) else self.letters(texts).to(weight.device)
        known = letters[..., None] == torch.arange(1, 1 + len(ALPHABET), device=weight.device)  # [N, 201, 70]
        h = self.convolutions(known.mT.to(weight.dtype))  # [N, width, 18]
        return self.output(self.recurrent(h.mT))


@NETWORKS.register("hashed-projection")
class HashedProjection(nn.Module):
    """A list of N strings, or their hashed vectors [N, inputs] (:class:`~zoo.networks.hashed_text.HashedTextEncoder`)
    -> embeddings [N, dim], by two linear layers.

    Args:
        inputs: numbers of a hashed vector.
        width: hidden units.
        dim: numbers of an embedding.
    """

    def __init__(self, inputs: int = 256, width: int = 256, dim: int = 128):
        super().__init__()
        self.hashed = HashedTextEncoder(inputs)
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, dim))

    def forward(self, texts: Sequence[str] | Tensor) -> Tensor:
        weight = next(self.parameters())
        vectors = texts if isinstance(texts, Tensor) else self.hashed(texts).to(weight.device)
        return self.layers(vectors.to(weight.dtype))


@NETWORKS.register("joint-image-encoder")
class JointImageEncoder(nn.Module):
    """Images [N, channels, H, W] -> embeddings [N, dim]: 4x4 convolutions of stride 2 down to 4x4, the mean over the
    positions, a linear layer.

    Args:
        channels: of the images.
        resolution: their side, a power of 2 of at least 8.
        width: maps of the first convolution; each later one has twice as many.
        dim: numbers of an embedding.
    """

    def __init__(self, channels: int = 3, resolution: int = 64, width: int = 64, dim: int = 1024):
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"resolution={resolution}: must be a power of 2 of at least 8")
        layers: list[nn.Module] = []
        maps = [channels, *(width << k for k in range(resolution.bit_length() - 3))]
        for inputs, outputs in itertools.pairwise(maps):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        self.layers, self.output = nn.Sequential(*layers), nn.Linear(maps[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layers(x).mean((2, 3)))
