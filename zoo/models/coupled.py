"""Noise -> two images of one z in two domains, by one generator that returns both (CoGAN).

Keys of the spec as for images, and ``domains``, the domains' names: ``{"a": "digits", "b": "edges"}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.data.views import VIEWS
from zoo.files import Json
from zoo.models.arguments import find_domain
from zoo.models.base import Pairs, Program
from zoo.models.image import ImageModel
from zoo.models.image_files import generator_program, write_samples
from zoo.models.request import Request
from zoo.registry import TASKS

if TYPE_CHECKING:
    from zoo.metrics.inputs import ScoreInputs

BOTH = "both"


@TASKS.register("coupled")
class CoupledModel(ImageModel):
    """An image model whose generator returns an image of each of two domains, ``a`` and ``b``."""

    words = "pairs of images"

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        self.domains = dict(spec.get("domains", {"a": "a", "b": "b"}))

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(self.domains)

    def direction(self, to: str | None) -> str:
        """The domain of a letter or a domain's name, by default the first. Raises ValueError if there is none."""
        return self.directions[0] if to is None else find_domain(to, self.directions, self.domains, "makes")

    def render(self, z: Tensor, truncation: float | None = None, **inputs: Any) -> Tensor:
        """Both domains' images, [N, 2, C, H, W]."""
        return torch.stack(self.generator(z, **inputs), 1)

    def pairs(self, n: int | None = None, **options: Any) -> Tensor:
        """n pairs of images of one z: float32 [n, 2, C, H, W] in [0, 1]. Arguments as :meth:`ImageModel.sample`."""
        return torch.cat(list(super().iter_samples(n, **options)))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Pairs of the noise z [N, ...]: float32 [N, 2, C, H, W] in [0, 1]."""
        return super().forward(z, y)

    def sample(self, n: int | None = None, *, to: str | None = None, **options: Any) -> Tensor:
        """n images of the domain ``to``, by default the first: float32 [n, C, H, W] in [0, 1]; ``to="both"``: pairs
        side by side, [n, C, H, 2 W]. Other arguments as :meth:`ImageModel.sample`. The same seed gives the same
        pair."""
        return torch.cat(list(self.iter_samples(n, to=to, **options)))

    def iter_samples(self, n: int | None = None, *, to: str | None = None, **options: Any) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time."""
        yield from self._of(super().iter_samples(n, **options), to)

    def interpolate(
        self, seeds: Sequence[int], steps: int, *, to: str | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """As :meth:`ImageModel.interpolate`, in the domain ``to``."""
        yield from self._of(super().interpolate(seeds, steps, **options), to)

    def _of(self, chunks: Iterator[Tensor], to: str | None) -> Iterator[Tensor]:
        both = to == BOTH
        place = 0 if both else self.directions.index(self.direction(to))
        for pairs in chunks:
            yield torch.cat([pairs[:, 0], pairs[:, 1]], -1) if both else pairs[:, place]

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """32 pairs: a row of eight images of the first domain, below it their pairs in the second, four times."""
        return self.pairs(32).unflatten(0, (4, 8)).transpose(1, 2).flatten(0, 2), 8

    def program(self, to: str | None) -> Program:
        if to is None:
            raise ValueError(f"--to: must be a domain of this model, {' or '.join(self.direction_names)}")
        place = self.directions.index(self.direction(to))
        return generator_program(self, lambda x: x[:, place])

    def write(self, request: Request) -> None:
        if request.source is not None:
            raise ValueError(f"--input {request.source}: '{request.name}' makes images from noise; leave --input out")
        to = BOTH if request.to is None else request.to
        write_samples(self, request, {"to": to}, across=2 if to == BOTH else 1)

    def scored_pairs(self, inputs: ScoreInputs) -> Pairs | None:
        """The second domain's images and the view of their partners in the first, if the second is such a view."""
        a, b = (inputs.source.stream(domain) for domain in self.directions)
        if not b.view or a.view or a.where != b.where:
            return None
        first, second = (inputs.sampled(domain) for domain in self.directions)
        return Pairs(second, first.map(VIEWS[b.view]), generated=True)
