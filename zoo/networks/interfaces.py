"""What games expect of networks, for type checkers and readers. A network needs the attributes, not the base class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class Classifier(nn.Module):
    """``logits``: images x [N, C, H, W] -> [N, classes]. ``head``: the last layer."""

    logits: Callable[[Tensor], Tensor]
    head: nn.Linear


class ClassGenerator(nn.Module):
    """A generator G(z, y) of images of ``classes``."""

    classes: int


class Pyramid(nn.Module):
    """A network of several levels, coarsest first. ``sizes``: the images' sides. ``noise``: how many numbers of noise
    each level of a generator takes. ``classes``: 0 if it takes none."""

    sizes: Sequence[int]
    noise: Sequence[int]
    levels: nn.ModuleList
    classes: int
