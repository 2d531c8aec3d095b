"""Toy distributions that are known exactly: mixtures of equal Gaussians.

``ring``: eight on a circle of radius 2, standard deviation 0.02 (Metz et al., Unrolled GANs, 2016, arXiv:1611.02163);
``grid``: twenty-five at {-4, -2, 0, 2, 4}^2, standard deviation 0.05 (Srivastava et al., VEEGAN, 2017,
arXiv:1705.07761); ``gaussian1d``: one at 1, standard deviation 0.5, as in figure 1 of Goodfellow et al. (2014,
arXiv:1406.2661). Points are generated in blocks, each with a generator seeded by (seed, split, block): they never
repeat, and runs resume exactly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.data.facts import Facts
from zoo.data.loader import Loader, slice_epochs
from zoo.data.store import ImageData, Where
from zoo.registry import DATASETS
from zoo.seeds import seed_for

if TYPE_CHECKING:
    import torch

BLOCK = 65_536  # points generated at a time


@dataclass(frozen=True)
class ToySet:
    """A registered toy set: a mixture of Gaussians of equal weight with ``centers`` [M][D] and one standard
    deviation."""

    facts: Facts
    centers: tuple[tuple[float, ...], ...]
    std: float

    def open(self, split: str = "train") -> ToyData:
        """The points of a split. Raises ValueError if there is no such split."""
        if split not in self.facts.splits:
            raise ValueError(f"{self.facts.name} has no split '{split}'; it has {', '.join(self.facts.splits)}")
        return ToyData(self, split)


class ToyData(ImageData):
    """Endless points [D] of a toy set. ``modes`` [M, D]: the centers; ``std``: their standard deviation."""

    def __init__(self, toy: ToySet, split: str):
        import torch

        content = repr((toy.facts.name, toy.centers, toy.std, split))
        super().__init__(toy.facts, {}, hashlib.sha256(content.encode()).hexdigest())
        self.modes, self.std, self.split = torch.tensor(toy.centers), toy.std, split

    def __len__(self) -> int:
        return BLOCK

    def block(self, seed: int, number: int) -> torch.Tensor:
        """Block ``number`` of the points of ``seed``: float32 [65536, D]."""
        import torch

        generator = torch.Generator().manual_seed(seed_for(seed, "points", self.split, number))
        mode = torch.randint(len(self.modes), (BLOCK,), generator=generator)
        return self.modes[mode] + self.std * torch.randn(BLOCK, self.modes.shape[1], generator=generator)

    def rows(self, indices: torch.Tensor) -> dict[str, torch.Tensor]:
        """Points by index, of block 0 of seed 0: "x" float32 [n, D]."""
        return {"x": self.block(0, 0)[indices]}

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """The density at ``x`` [n, D]: [n], in the dtype of ``x``."""
        import torch

        square = (x[:, None] - self.modes.to(x)).square().sum(-1) / self.std**2  # [n, M]
        norm = 0.5 * x.shape[1] * math.log(2 * math.pi * self.std**2) + math.log(len(self.modes))
        return (torch.logsumexp(-0.5 * square, 1) - norm).exp()

    def count_modes(self, samples: torch.Tensor, at_least: int = 20) -> tuple[int, float]:
        """Count the modes that ``samples`` [n, D] cover.

        Returns the number of modes with at least ``at_least`` samples within three standard deviations of their center,
        and the share of samples within three standard deviations of the nearest center. Real points have a share of
        1 - exp(-4.5) = 0.989 in two dimensions. The default of 20 is for 2,500 samples on the grid: a fifth of the 100
        that each mode has on average.
        """
        distance, nearest = (samples[:, None] - self.modes.to(samples)).norm(dim=-1).min(1)
        close = distance <= 3 * self.std
        counts = nearest[close].bincount(minlength=len(self.modes))
        return int((counts >= at_least).sum()), float(close.float().mean())

    def feed(self, loader: Loader, where: Where | None, part: tuple[int, int], workers: int) -> ToyFeed:
        """The points of one stream: parts of an endless set are generated with different seeds. Raises ValueError for
        ``where``."""
        if where:
            raise ValueError(f"where {dict(where)}: {self.facts.name} has no labels")
        return ToyFeed(self, seed_for(loader.seed, "part", *part) if part != (0, 1) else loader.seed, loader.device)


class ToyFeed:
    """Points by position, on the device."""

    def __init__(self, data: ToyData, seed: int, device: torch.device):
        self.data, self.seed, self.device = data, seed, device
        self._blocks: dict[int, torch.Tensor] = {}

    def block(self, number: int) -> torch.Tensor:
        if number not in self._blocks:
            while len(self._blocks) > 1:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[number] = self.data.block(self.seed, number).to(self.device)
        return self._blocks[number]

    def take(self, start: int, size: int) -> dict[str, torch.Tensor]:
        # A copy, so that in-place operations on the batch do not change the block.
        return {"x": slice_epochs(self.block, BLOCK, start, size).clone()}


def _toy(name: str, title: str, centers: Sequence[tuple[float, ...]], std: float, about: str) -> ToySet:
    splits = {"train": BLOCK, "test": BLOCK}
    facts = Facts(name, title, len(centers[0]), 0, splits=splits, license="generated", about=about)
    return ToySet(facts, tuple(centers), std)


@DATASETS.register("gaussian1d")
def gaussian1d() -> ToySet:
    return _toy(
        "gaussian1d", "One Gaussian on a line", [(1.0,)], 0.5, "N(1, 0.5^2); endless, a block counts as an epoch."
    )


@DATASETS.register("ring")
def ring() -> ToySet:
    centers = [(2 * math.cos(k * math.pi / 4), 2 * math.sin(k * math.pi / 4)) for k in range(8)]
    return _toy("ring", "Eight Gaussians on a circle", centers, 0.02, "Radius 2, standard deviation 0.02.")


@DATASETS.register("grid")
def grid() -> ToySet:
    centers = [(float(a), float(b)) for a in (-4, -2, 0, 2, 4) for b in (-4, -2, 0, 2, 4)]
    return _toy("grid", "Twenty-five Gaussians on a grid", centers, 0.05, "Five by five, two apart, std 0.05.")
