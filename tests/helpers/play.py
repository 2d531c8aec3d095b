"""Tiny networks, games and recipes for the tests of the engine, independent of what the zoo registers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.data import Facts, ImageData
from zoo.data import facts as facts_of
from zoo.engine import checkpoint, log
from zoo.engine.run_folder import RunFolder
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, resolve
from zoo.game import Batch, Game, Turn
from zoo.networks.autoencoder import Autoencoder
from zoo.priors import build_prior
from zoo.recipe import SGD, Data, Recipe, Stage
from zoo.registry import GAMES, NETWORKS, Spec

CPU = Runtime(device="cpu", layout="contiguous")


@NETWORKS.register("test-mlp")
class Mlp(nn.Module):
    """[N, inputs] -> [N, outputs]; with ``norm`` it has the buffers of batch norm."""

    def __init__(self, inputs: int = 2, outputs: int = 2, hidden: int = 8, norm: bool = False):
        super().__init__()
        self.latent = inputs
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.norm = nn.BatchNorm1d(hidden) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x))))


@NETWORKS.register("test-conv")
class Conv(nn.Module):
    """[N, C, H, W] -> [N] scores, for any H and W."""

    def __init__(self, channels: int, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((1, 2, 3))


@NETWORKS.register("test-painter")
class Painter(nn.Module):
    """Noise [N, 4] -> images [N, C, side, side]; a game may change ``side`` from stage to stage."""

    def __init__(self, channels: int, resolution: int, width: int = 4):
        super().__init__()
        self.latent, self.side = 4, resolution
        self.first = nn.Linear(4, width * 16)
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, channels, 3, padding=1)
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z).reshape(len(z), -1, 4, 4)  # [N, width, 4, 4]
        return torch.tanh(self.layers(nn.functional.interpolate(h, (self.side, self.side))))


class Echo(Autoencoder):
    """An autoencoder that returns ``factor`` times the image; its code is the image itself."""

    def __init__(self, factor=0.0, distance="euclidean"):
        super().__init__(nn.Identity(), nn.Identity(), distance)
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def decode(self, code):
        return self.factor * code


class FixedGenerator(nn.Module):
    """A G that returns the same images for any noise."""

    def __init__(self, images):
        super().__init__()
        self.latent, self.images = 2, nn.Parameter(images)

    def forward(self, z):
        return self.images + 0 * z.sum()


class Duel(Game):
    """G against D, one step each. The tests' games override one or two of its methods."""

    def __init__(self, networks):
        super().__init__(networks)
        self.prior = build_prior(Spec("normal"), self.G)

    def turns(self) -> list[Turn]:
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None)]

    def loss_D(self, batch: Batch) -> Tensor:
        return softplus(self.D(self.G(batch.latent(self.prior)))).mean() + softplus(-self.D(batch["x"])).mean()

    def loss_G(self, batch: Batch) -> Tensor:
        return softplus(-self.D(self.G(batch.latent(self.prior)))).mean()

    def ships(self) -> dict[str, Any]:
        return {"kind": "image", "networks": ["G"], "prior": Spec("normal")}


def game(cls: type[Game]) -> type[Game]:
    """Decorator: register a game of a test; ``cls.spec`` is the Spec for a stage."""
    name = f"test-{cls.__module__}.{cls.__qualname__}"
    GAMES.register(name)(cls)
    cls.spec = Spec(name)
    return cls


game(Duel)

G, D = Spec("test-mlp"), Spec("test-mlp", outputs=1)
STEP = SGD(lr=0.1)


def recipe(spec: Spec = Duel.spec, players: str = "G D", optimizer=STEP, *, networks=None, ema=None, **stage) -> Recipe:
    """A recipe of one stage on points, by default of 10 rounds with batches of 8. ``stage``: other fields of the
    stage."""
    fields = dict(optimizers=dict.fromkeys(players.split(), optimizer), images=80, batch=8, resolution=0, data=Data())
    stages = (Stage(game=spec, **{**fields, **stage}),)
    return Recipe(networks or {"G": G, "D": D}, stages, ema=ema or {}, model="test", dataset="ring")


def image_recipe(spec: Spec = Duel.spec, *, resolution: int = 8, **more) -> Recipe:
    """As :func:`recipe`, on images and with convolutions."""
    return recipe(spec, networks={"G": Spec("test-painter"), "D": Spec("test-conv")}, resolution=resolution, **more)


def images(count: int = 64, channels: int = 3, side: int = 8) -> ImageData:
    """A data set of random images [count, channels, side, side]."""
    x = torch.randint(256, (count, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageData(Facts("noise", "Random images", channels, side), {"x": x}, "noise")


def session(
    recipe: Recipe,
    source: Any = None,
    *,
    stage: int = 0,
    runtime: Runtime = CPU,
    seed: int = 0,
    after: StageRun | None = None,
) -> StageRun:
    """A stage, built and prepared: ready for its first round. ``source``: any data set, by default the recipe's.
    ``after``: the stage before, whose networks go on."""
    source = recipe.dataset if source is None else source
    facts, device = facts_of(source), runtime.prepare_device()
    run = StageRun(resolve(recipe, facts), stage, source, facts, runtime, device, seed, before=after)
    run.prepare()
    return run


def play(run: StageRun, rounds: int = 1) -> dict[str, list[float]]:
    """Play rounds. Returns the values of each scalar that is logged, by name."""
    scalars: dict[str, list[float]] = {}
    for _ in range(rounds):
        run.play_round(lambda round, name, value: scalars.setdefault(name, []).append(value.item()))
    return scalars


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def state(run: StageRun) -> dict[str, Tensor]:
    """All tensors of a checkpoint, copied."""
    tensors = checkpoint.collect(run.game, run.learner, run.ema_networks)
    return {k: v.detach().clone().contiguous() for k, v in tensors.items()}


def moved(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """The names of the children with a parameter or buffer that differs from ``before``."""
    after = module.state_dict()
    return {k.split(".")[0] for k, v in before.items() if not torch.equal(v, after[k])}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether names and bits are equal."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Every(log.Clock):
    """A clock that counts rounds instead of seconds: a tick each round, a checkpoint every ``save`` rounds. The logs of
    two runs are then comparable."""

    save = 3

    def __init__(self) -> None:
        super().__init__()
        self.calls = dict.fromkeys(self.at, 0)

    def due(self, what: str) -> bool:
        self.calls[what] += 1
        return what == "tick" or (what == "save" and self.calls[what] % self.save == 0)


class Killed(BaseException):
    """Simulates a kill inside the test's own process."""


def kill_at(round: int, stage: int = 0):
    """A progress callback that raises ``Killed`` at the tick of a round of a stage, in the middle of the run."""
    stages_to_go = stage

    def progress(event: str, **facts: Any) -> None:
        nonlocal stages_to_go
        if event == "tick" and facts["round"] == round:
            if not stages_to_go:
                raise Killed
            stages_to_go -= 1

    return progress


def log_of(folder: str | Path) -> list[dict[str, Any]]:
    """The ticks of a run's log without what depends on the wall clock: times, and warnings, which come when a grid is
    written."""
    lines = [json.loads(line) for line in (RunFolder(folder).path / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
        for line in lines
        if "warning" not in line
    ]


def count(spec: Spec | str, **facts: Any) -> int:
    """The number of a network's parameters. ``facts``: arguments that come from the data set."""
    with torch.device("meta"):
        return sum(p.numel() for p in NETWORKS.build(spec, defaults=facts).parameters())


def sizes(
    net: nn.Module, *inputs: Tensor, kinds: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d)
) -> list[tuple[int, ...]]:
    """The output shapes, without N, of the layers of these kinds, in order of their calls."""
    shapes, hooks = [], []
    for m in net.modules():
        if isinstance(m, kinds):
            hooks.append(m.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:]))))
    net(*inputs)
    for h in hooks:
        h.remove()
    return shapes
