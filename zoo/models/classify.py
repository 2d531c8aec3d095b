"""Images -> classes, by a classifier without a generator. The spec's ``classifier`` names the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from zoo.models.arguments import Images
from zoo.models.base import Model, probe_images
from zoo.registry import TASKS


@TASKS.register("classify")
class ClassifyModel(Model):
    """A classifier: its main method is :meth:`zoo.models.base.Model.classify`."""

    verb = "classify"
    words = "classes of images"
    generates = False
    watched = ("error",)

    def forward(self, images: Images) -> Tensor:
        """The probability of each class, float32 [N, K]."""
        return self.classify(images)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Real images, in the order of their predicted classes."""
        x = self.to_unit(next(x for x in reals.values() if x.ndim == 4))
        return x[self.classify(x).argmax(1).argsort(stable=True)], len(x)

    def probe(self) -> Iterator[Tensor]:
        yield self.classify(probe_images(self))

    def outputs(self, n: int, seed: int = 0, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """The probabilities [N, K] of all ``inputs``."""
        if not inputs:
            raise ValueError("a classifier needs images: pass inputs={'x': ...}")
        return torch.cat([self.classify(x) for x in inputs.values()])
