"""The engine beside a plain loop: the same first weights, images, noise and dropout for both.

Both work in float64. In float32 Adam makes whole steps of gradients that are zero but for rounding, such as those of
biases before a batch norm.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from zoo import settings
from zoo.data import Facts, ImageData
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, resolve
from zoo.recipe import Data
from zoo.seeds import seed_for


class Beside:
    """A recipe on a few random images with tiny networks, played by the engine, and what a plain loop needs to follow.

    ``networks``: for each network the arguments that make it tiny. ``size``: sides of the images. ``batch``, ``resolution``,
    ``data``, ``game``: changes of the stage. ``eps``: Adam's, larger where some gradient is rounding alone (a bias
    that a norm takes out again): Adam would make a whole step of it. ``stage``: which one of the recipe's is played. Labels, where
    ``classes`` are given, cycle through the classes.
    """

    def __init__(
        self,
        name: str,
        networks: dict[str, dict],
        *,
        channels: int = 1,
        size: int = 28,
        classes: int = 0,
        batch: int | None = None,
        resolution: int | None = None,
        data: Data | None = None,
        game: dict | None = None,
        eps: float | None = None,
        stage: int = 0,
    ):
        torch.manual_seed(1)
        count = 50
        self.images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8)
        arrays = {"x": self.images, **({"y": torch.arange(count) % classes} if classes else {})}
        names = tuple(map(str, range(classes)))
        known = Facts("noise", "Random images", channels, size, classes=names, keys=tuple(arrays))
        source = ImageData(known, arrays, "none")
        recipe = settings.find(name)
        played = recipe.stages[stage]
        played = replace(
            played,
            batch=batch or played.batch,
            resolution=resolution or played.resolution,
            data=data or played.data,
            game=played.game.replace(**(game or {})),
            optimizers={n: replace(o, eps=eps) if eps else o for n, o in played.optimizers.items()},
        )
        specs = {n: spec.replace(**networks[n]) for n, spec in recipe.networks.items()}
        recipe = recipe.replace(networks=specs, stages=(played,))
        runtime = Runtime(device="cpu", layout="contiguous")
        recipe = resolve(recipe, known)
        self.session = StageRun(recipe, 0, source, known, runtime, torch.device("cpu"), 0)
        self.session.to_layout = lambda v: v.double() if v.is_floating_point() else v
        self.batch, self.noise = recipe.stages[0].batch, torch.Generator()
        self._reals = {name: self.session.loader(name) for name in played.data.streams}

    def copy(self, name: str) -> nn.Module:
        """A network as it is now, in training mode."""
        return copy.deepcopy(self.session.game.get_submodule(name)).train().requires_grad_(True)

    def rounds(self, count: int = 3) -> Iterator[int]:
        """Numbers of the rounds; noise and dropout begin in each as the engine's do."""
        for r in range(count):
            torch.manual_seed(seed_for(0, "layers", 0, r, 0))
            self.noise.manual_seed(seed_for(0, "noise", 0, r))
            yield r

    def real(self, stream: str = "") -> dict[str, Tensor]:
        """The next batch of reals from a stream (by default the first), in the engine's order."""
        stream = stream or next(iter(self._reals))
        size = self.session.stage.data.streams[stream].batch or self.batch
        return {k: self.session.to_layout(v) for k, v in self._reals[stream].next(size, self.noise).items()}

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.noise)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.noise)

    def compare(self, count: int = 3, **networks: nn.Module) -> None:
        """Let the engine play its rounds; its weights must be those of ``networks`` to 1e-6, and have moved."""
        self.session.prepare()
        before = {n: self.copy(n) for n in networks}
        for _ in range(count):
            self.session.play_round()
        for name, mine in networks.items():
            theirs = dict(self.session.game.get_submodule(name).named_parameters())
            start = dict(before[name].named_parameters())
            moved = 0.0
            for key, p in mine.named_parameters():
                worst = (p - theirs[key]).abs().max().item()
                assert worst < 1e-6, f"{name}.{key} differs by {worst:.1e} after {count} rounds"
                moved = max(moved, (p - start[key]).abs().max().item())
            assert moved > 1e-4, f"{name} has not moved"


@pytest.fixture
def beside() -> Iterator[type[Beside]]:
    torch.set_default_dtype(torch.float64)
    yield Beside
    torch.set_default_dtype(torch.float32)
