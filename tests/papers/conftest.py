"""The comparison of the engine with a plain loop: both get the same initial weights, images, noise and dropout.

Both compute in float64. In float32 Adam makes full steps of gradients that are only rounding errors, such as those of
biases before batch norm.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from zoo import settings
from zoo.data import Facts, ImageData
from zoo.data.fields import Attributes, Captions, pack_text
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, resolve
from zoo.recipe import Data, Pretrained, Schedule
from zoo.registry import Spec
from zoo.seeds import seed_for


def captions_of(count: int) -> Captions:
    """A caption for each of ``count`` images."""
    texts = pack_text("caption", [f"number {i}" for i in range(count)])
    return Captions(*map(torch.from_numpy, texts.values()))


class PlainLoop:
    """A stage of a recipe on a few random images with tiny networks: the engine's ``run`` of it, and the same weights,
    images and noise for a plain loop.

    Args:
        name: of the recipe.
        networks: by network the arguments that make it tiny.
        channels, size: of the images.
        classes: number of classes, 0 for none; the labels cycle through them.
        attributes: names of attributes, () for none; the first alternates, the k-th changes after every k images.
        captions: each image has a caption; the recipe's pretrained networks encode it as 8 hashed numbers.
        batch, resolution, data, game: changes of the stage.
        eps: Adam's. A larger one for networks in which some gradient is only a rounding error (a bias before batch
            norm), of which Adam would make a full step.
        stage: index of the recipe's stage.
        schedules: what becomes of each of the stage's schedules (shorter ones, that end within the few rounds).
    """

    def __init__(
        self,
        name: str,
        networks: dict[str, dict],
        *,
        channels: int = 1,
        size: int = 28,
        classes: int = 0,
        attributes: tuple[str, ...] = (),
        captions: bool = False,
        batch: int | None = None,
        resolution: int | None = None,
        data: Data | None = None,
        game: dict | None = None,
        eps: float | None = None,
        stage: int = 0,
        schedules: Callable[[Schedule], Schedule] | None = None,
    ):
        torch.manual_seed(1)
        count = 50
        self.images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8)
        arrays = {"x": self.images, **({"y": torch.arange(count) % classes} if classes else {})}
        fields = {"attributes": Attributes(attributes)} if attributes else {}
        if attributes:
            arrays["attributes"] = (torch.arange(count)[:, None] // (1 + torch.arange(len(attributes))) % 2).byte()
        names = tuple(map(str, range(classes)))
        texts = {"caption": captions_of(count)} if captions else {}
        more = {"classes": names, "keys": (*arrays, *texts), "fields": fields, "paired": True}
        facts = Facts("noise", "Random images", channels, size, **more)
        source = ImageData(facts, arrays, "none", texts=texts)
        recipe = settings.find(name)
        original = recipe.stages[stage]
        changed = replace(
            original,
            batch=batch or original.batch,
            resolution=resolution or original.resolution,
            data=data or original.data,
            game=original.game.replace(**(game or {})),
            optimizers={n: replace(o, eps=eps) if eps else o for n, o in original.optimizers.items()},
            schedules=tuple(map(schedules, original.schedules)) if schedules else original.schedules,
        )
        specs = {n: spec.replace(**networks[n]) for n, spec in recipe.networks.items()}
        recipe = recipe.replace(networks=specs, stages=(changed,))
        if captions:
            encoder = Pretrained(Spec("hashed-text-encoder", width=8))
            recipe = recipe.replace(pretrained=dict.fromkeys(recipe.pretrained, encoder))
        runtime = Runtime(device="cpu", layout="contiguous")
        recipe = resolve(recipe, facts)
        self.run = StageRun(recipe, 0, source, facts, runtime, torch.device("cpu"), 0)
        self.run.to_layout = lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        self.batch, self.noise = recipe.stages[0].batch, torch.Generator()
        self.loaders = {name: self.run.loader(name) for name in changed.data.streams}

    def copy(self, name: str) -> nn.Module:
        """A copy of a network's current state, in training mode."""
        return copy.deepcopy(self.run.game.get_submodule(name)).train().requires_grad_(True)

    def rounds(self, count: int = 3) -> Iterator[int]:
        """The numbers of the rounds; each seeds noise and dropout as the engine does."""
        for r in range(count):
            torch.manual_seed(seed_for(0, "layers", 0, r, 0))
            self.noise.manual_seed(seed_for(0, "noise", 0, r))
            yield r

    def real(self, stream: str = "") -> dict[str, Tensor]:
        """The next batch of reals from a stream (by default the first), in the engine's order."""
        stream = stream or next(iter(self.loaders))
        size = self.run.stage.data.streams[stream].batch or self.batch
        return {k: self.run.to_layout(v) for k, v in self.loaders[stream].next(size, self.noise).items()}

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.noise)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.noise)

    def compare(self, count: int = 3, **networks: nn.Module) -> None:
        """Play ``count`` rounds of the engine; its weights must equal those of ``networks`` to 1e-6 and must have
        changed."""
        self.run.prepare()
        before = {n: self.copy(n) for n in networks}
        for _ in range(count):
            self.run.play_round()
        for name, network in networks.items():
            engine = dict(self.run.game.get_submodule(name).named_parameters())
            start = dict(before[name].named_parameters())
            change = 0.0
            for key, p in network.named_parameters():
                error = (p - engine[key]).abs().max().item()
                assert error < 1e-6, f"{name}.{key} differs by {error:.1e} after {count} rounds"
                change = max(change, (p - start[key]).abs().max().item())
            assert change > 1e-4, f"{name} has not changed"


@pytest.fixture
def plain_loop() -> Iterator[type[PlainLoop]]:
    """The class PlainLoop, with float64 as the default type."""
    torch.set_default_dtype(torch.float64)
    yield PlainLoop
    torch.set_default_dtype(torch.float32)
