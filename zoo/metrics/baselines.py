"""Trivial generators, whose scores show what a model's score means.

    Gaussian(data), Mixture(data), NoisyImages(data), Copies(data)

``data``: ImageData, or :class:`zoo.metrics.images.Images`. Each is fitted to at most ``FIT`` of them, evenly spread,
and generates images as a Model does: ``iter_samples(n, seed=, chunk=)`` yields float32 [<= chunk, C, H, W] in [0, 1];
so ``zoo.evaluate`` takes it. The same seed gives the same images. ``Copies`` of a test split are real held-out images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.store import ImageData
from zoo.metrics.images import Images, from_data, spread
from zoo.models import Model
from zoo.models.coupled import CoupledModel

if TYPE_CHECKING:
    from zoo.metrics.inputs import ScoreInputs

FIT = 10_000  # training images that the Gaussian and the mixture are fitted to


class Baseline:
    """``name``: for tables; ``resolution`` and ``channels``: of its images; ``draw``: n images from a generator."""

    name = ""

    def __init__(self, data: ImageData | Images, fit: int = FIT):
        images = data if isinstance(data, Images) else from_data(data)
        x = torch.cat(list(images.at_most(fit).stream()))
        self.shape = x.shape[1:]
        self.channels, self.resolution = x.shape[1], x.shape[-1]
        self.fit(x.flatten(1).float() / 255)

    def fit(self, x: Tensor) -> None:
        """Learn from x [N, C * H * W] in [0, 1]."""
        self.x = x

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """[n, C * H * W], in [0, 1] after clamping."""
        raise TypeError(f"{type(self).__name__} has no draw")

    def iter_samples(self, n: int, *, seed: int = 0, chunk: int = 50) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        for at in range(0, n, chunk):
            yield self.draw(min(chunk, n - at), generator).clamp(0, 1).unflatten(1, self.shape)


class Gaussian(Baseline):
    """A Gaussian in the first ``components`` principal components."""

    name = "Gaussian, 10 principal components"

    def __init__(self, data: ImageData | Images, components: int = 10):
        self.components = components
        super().__init__(data)

    def fit(self, x: Tensor) -> None:
        self.mean, basis, deviations = principal(x, self.components)
        self.basis = basis * deviations  # [D, K]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return self.mean + torch.randn(n, self.basis.shape[1], generator=generator) @ self.basis.T


class Mixture(Baseline):
    """A mixture of ``count`` local Gaussians: k-means in the first 50 principal components, then each cluster with its
    own mean and covariance there, weighted by its number of images."""

    name = "mixture of 100 local Gaussians"

    def __init__(self, data: ImageData | Images, count: int = 100, components: int = 50):
        self.count, self.components = count, components
        super().__init__(data)

    def fit(self, x: Tensor) -> None:
        self.mean, self.basis, _ = principal(x, self.components)
        self.codes = (x - self.mean) @ self.basis  # [N, K]
        self.members = [m for m in clusters(self.codes, self.count) if len(m)]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        sizes = torch.tensor([len(m) for m in self.members], dtype=torch.float32)
        indices = torch.multinomial(sizes, n, replacement=True, generator=generator)
        codes = []
        for k in indices.tolist():
            cluster = self.codes[self.members[k]]
            center = cluster.mean(0)
            # Sums of members with normal weights have exactly the cluster's covariance, which may be singular.
            weights = torch.randn(len(cluster), generator=generator) / max(len(cluster) - 1, 1) ** 0.5
            codes.append(center + weights @ (cluster - center))
        return self.mean + torch.stack(codes) @ self.basis.T


class NoisyImages(Baseline):
    """Ten training images, each time with new Gaussian noise of standard deviation ``noise``."""

    name = "ten training images plus noise"

    def __init__(self, data: ImageData | Images, count: int = 10, noise: float = 0.1):
        self.noise = noise
        super().__init__(data, count)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        x = self.x[torch.randint(len(self.x), (n,), generator=generator)]
        return x + self.noise * torch.randn(x.shape, generator=generator)


class Copies(Baseline):
    """The images themselves, none twice before all were used."""

    name = "training images copied"

    def iter_samples(self, n: int, *, seed: int = 0, chunk: int = 50) -> Iterator[Tensor]:
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        order = order.repeat(-(-n // len(order)))[:n]
        yield from (self.x[rows].unflatten(1, self.shape) for rows in order.split(chunk))


GENERATORS: tuple[type[Baseline], ...] = (Gaussian, Mixture, NoisyImages, Copies)


class Separate(CoupledModel):
    """A generator for each domain, in place of the network of ``model``: their images of one seed are no pairs."""

    def __init__(self, model: Model, generators: Mapping[str, Baseline]):
        super().__init__(model.spec, model.networks, model.card)
        self.generators = generators

    def iter_samples(self, n: int | None = None, *, to: str | None = None, **options: Any) -> Iterator[Tensor]:
        """As :meth:`CoupledModel.iter_samples`, of one domain. ``options``: ``seed`` and ``chunk``."""
        yield from self.generators[self.direction(to)].iter_samples(n or 1, **options)


def of_domains(model: Model, inputs: Callable[[str], ScoreInputs]) -> Iterator[tuple[str, Model]]:
    """Of a model that makes images of several domains from noise one of each kind, by name, with a generator for each
    domain, fitted to its training images; none of another model. ``inputs``: as for
    :meth:`zoo.models.Model.baselines`."""
    if model.seeded and model.directions:
        images = {to: inputs(to).real_images("train") for to in model.directions}
        for make in GENERATORS:
            yield make.name, Separate(model, {to: make(several) for to, several in images.items()})


def principal(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [D], the first ``count`` principal components [D, K], and their standard deviations [K] of x [N, D]."""
    mean = x.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the random projection
        _, s, v = torch.svd_lowrank(x - mean, q=min(count + 20, *x.shape), niter=4)
    return mean, v[:, :count], s[:count] / max(len(x) - 1, 1) ** 0.5


def clusters(x: Tensor, count: int, rounds: int = 30) -> list[Tensor]:
    """k-means (Lloyd 1982) from evenly spread members: the rows of x [N, K] that belong to each of ``count``
    clusters."""
    centers = x[spread(len(x), count)]
    for _ in range(rounds):
        nearest = torch.cdist(x, centers).argmin(1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, x)
        sizes = nearest.bincount(minlength=len(centers))[:, None]
        centers = torch.where(sizes > 0, sums / sizes.clamp(min=1), centers)
    return [(nearest == k).nonzero().flatten() for k in range(len(centers))]
