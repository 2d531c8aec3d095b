"""The base class of the zoo's discriminators."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

Given = Mapping[str, Tensor]


def condition(given: Given | None, name: str) -> Tensor | None:
    """One of the conditions, None without it."""
    return None if given is None else given.get(name)


class Discriminator(nn.Module):
    """A discriminator in two parts, ``score(features(x, given), given)``, which :mod:`zoo.discriminate` and heads use.

    ``given``: conditions by name (``{"y": classes}``) and, for the score, the images themselves as ``"x"``.
    ``classes``: the number of classes that it takes, 0 for none.
    """

    classes = 0
    head: nn.Module

    def features(self, x: Tensor, given: Given | None = None) -> Tensor:
        """Images x [N, C, H, W] (or points [N, C]) -> the last hidden layer [N, ...]."""
        raise AssertionError(f"{type(self).__name__} has no features")

    def score(self, h: Tensor, given: Given | None = None) -> Tensor:
        """The last hidden layer -> scores [N], or maps of scores [N, 1, H, W]."""
        score: Tensor = self.head(h)
        return score.squeeze(1) if score.dim() == 2 else score

    def forward(self, x: Tensor, **given: Tensor) -> Tensor:
        """x, and conditions by name -> scores."""
        conditions = {**given, "x": x}
        return self.score(self.features(x, conditions), conditions)
