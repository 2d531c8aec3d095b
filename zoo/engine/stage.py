"""Stages: from a recipe to networks and a game, and the state of the stage that is being played."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.data import Facts, ImageData, Loader, open_data
from zoo.engine.ema import EmaNetworks
from zoo.engine.finetune import load_init
from zoo.engine.runtime import Runtime
from zoo.engine.schedules import Schedules
from zoo.engine.step import Learner
from zoo.game import Batch, Game, Turn
from zoo.overrides import check
from zoo.recipe import Recipe, Stage, Stream, encode
from zoo.registry import GAMES, NETWORKS, Spec
from zoo.seeds import seed_for


def resolve(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe with what the data set fixes filled in: ``channels``, ``resolution`` and ``classes="data"``; and, in
    heads on D's features that leave it out, the number of ``features``. Raises ValueError if the recipe is
    inconsistent, or needs classes that the data set does not have."""
    check(recipe)
    from_data = {"channels": facts.channels, "resolution": recipe.stages[-1].resolution}

    def fill(name: str, spec: Spec) -> Spec:
        takes = NETWORKS.parameters(spec.name)
        if spec.kwargs.get("classes") == "data":
            if not facts.classes:
                raise ValueError(
                    f"networks.{name}.classes='data': '{facts.name}' has no classes; choose a data set with labels, "
                    f"or an unconditional recipe (zoo list recipes)"
                )
            spec = spec.replace(classes=len(facts.classes))
        # One network may be built around another.
        inside = {k: fill(f"{name}.{k}", v) for k, v in spec.kwargs.items() if isinstance(v, Spec)}
        spec = spec.replace(**inside, **{k: v for k, v in from_data.items() if k in takes and k not in spec.kwargs})
        NETWORKS.check(spec)
        return spec

    networks = {name: fill(name, spec) for name, spec in recipe.networks.items()}
    for name, spec in networks.items():
        parameter = NETWORKS.parameters(spec.name).get("features")
        if parameter and parameter.default is parameter.empty and "features" not in spec.kwargs:
            networks[name] = spec.replace(features=count_features(recipe.replace(networks=networks), **from_data))
    return recipe.replace(networks=networks)


def count_features(recipe: Recipe, channels: int, resolution: int) -> int:
    """How many numbers ``D.features(x)`` gives an image, computed on ``meta``. Raises ValueError if D has no
    features."""
    if "D" not in recipe.networks:
        raise ValueError(f"networks: a head on D's features needs a network D, got {', '.join(recipe.networks)}")
    spec = recipe.networks["D"]
    D = build_networks(recipe.replace(networks={"D": spec}), device="meta")["D"]
    features = getattr(D, "features", None)
    if features is None:
        raise ValueError(f"networks.D: '{spec.name}' has no features for a head; choose another network")
    shape = (channels, resolution, resolution) if resolution else (channels,)
    return int(features(torch.empty(2, *shape, device="meta")).flatten(1).shape[1])


def build_networks(recipe: Recipe, seed: int = 0, device: str | None = None) -> dict[str, nn.Module]:
    """The recipe's networks, each initialized from a seed of its own, so that none depends on the others' order."""
    networks = {}
    for name, spec in recipe.networks.items():
        torch.manual_seed(seed_for(seed, "init", name))
        try:
            with torch.device(device or "cpu"):
                networks[name] = NETWORKS.build(spec)
        except (ValueError, TypeError) as error:
            raise ValueError(f"networks.{name}: {error}") from error
    return networks


def build_game(stage: Stage, networks: Mapping[str, nn.Module], facts: Facts) -> Game:
    """The stage's game of the networks. Raises ValueError if the game or a stream needs keys that the data set does not
    have."""
    for stream in stage.data.streams.values():
        for key in (*stream.keys, *stream.where):
            if key not in facts.keys:
                raise ValueError(
                    f"the recipe reads '{key}', but '{facts.name}' has {', '.join(facts.keys)}; "
                    f"choose another data set (zoo list datasets)"
                )
    # A game that stores images needs their shape.
    defaults = {"channels": facts.channels, "resolution": stage.resolution}
    game = GAMES.build(stage.game, networks, defaults=defaults)
    names = {name for s in stage.data.streams.values() for name in yields(s, facts).values()}
    missing = [k for k in game.needs if k not in names]
    if missing:
        raise ValueError(
            f"game '{stage.game.name}' needs '{missing[0]}', but '{facts.name}' has {', '.join(sorted(names))}; "
            f"choose another data set (zoo list datasets)"
        )
    return game


def yields(stream: Stream, facts: Facts) -> dict[str, str]:
    """The data set's keys that a stream reads, and their names in the batch: all keys if it names none."""
    return dict(stream.keys) or {k: k for k in facts.keys}


def check_batches(stage: Stage, turns: Sequence[Turn]) -> None:
    """Raises ValueError unless the processes can share every batch."""
    own = [s.batch for s in stage.data.streams.values() if s.batch]
    for size in (stage.batch, *(t.batch for t in turns if t.batch), *own):
        if size % parallel.world():
            raise ValueError(f"batch={size}: must be a multiple of the number of processes, {parallel.world()}")


def parameters(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """The number of parameters of each network."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def shipped(game: Game, recipe: Recipe, stage: Stage, facts: Facts) -> dict[str, Any]:
    """The model spec for the Card (plain JSON), from which ``zoo.model`` builds the Model without any game."""

    def plain(spec: Spec) -> dict[str, Any]:
        return {"name": spec.name, "kwargs": encode(spec.kwargs)}

    ships = dict(game.ships())
    spec = {**ships, "networks": {n: plain(recipe.networks[n]) for n in ships["networks"]}}
    if isinstance(spec.get("prior"), Spec):
        spec["prior"] = plain(spec["prior"])
    return {
        "range": list(stage.data.range),
        "resolution": stage.resolution,
        "channels": facts.channels,
        "classes": list(facts.classes),
        **spec,
    }


# A stage that is being played ---------------------------------------------------------------------------------------

PRECOMPUTE_STEPS = 8  # steps of a repeated turn whose fakes one pass of G generates, at most; they stay in memory
READ_THREADS = 4  # threads that read ahead if a data set does not fit on the device

Progress = Callable[..., None]
Record = Callable[[int, str, Tensor], None]


def open_splits(stage: Stage, source: Any, progress: Progress | None = None) -> dict[str, ImageData]:
    """The splits that the streams of a stage read, by name; fetched and prepared first if they are not yet."""
    size = None if stage.data.pad or not stage.resolution else stage.data.load or stage.resolution
    splits = {stream.split for stream in stage.data.streams.values()}
    return {split: open_data(source, resolution=size, split=split, progress=progress) for split in splits}


class StageRun:
    """One stage of a recipe while it is played: game, learner, EMA weights, schedules, loaders, and where it stands.

    ``networks``, ``ema_networks``: those of the stage before; without them they are built from the seed.
    ``round``, ``images``: rounds played and real images consumed in this stage; ``total_images``: in all stages.
    """

    def __init__(
        self,
        recipe: Recipe,
        index: int,
        source: Any,
        facts: Facts,
        runtime: Runtime,
        device: torch.device,
        seed: int,
        *,
        networks: Mapping[str, nn.Module] | None = None,
        ema_networks: EmaNetworks | None = None,
        progress: Progress | None = None,
    ):
        self.recipe, self.index, self.facts, self.device, self.seed = recipe, index, facts, device, seed
        self.stage = stage = recipe.stages[index]
        self.round = self.images = self.total_images = 0
        self.channels_last = runtime.layout == "channels_last" and device.type != "mps"
        self.networks = dict(networks or build_networks(recipe, seed))
        self.data = open_splits(stage, source, progress)
        self.game = build_game(stage, self.networks, facts).to(device)
        if self.channels_last:
            self.game.to(memory_format=torch.channels_last)
        self.learner = Learner(self.game, stage, device=device, precision=runtime.precision, compile=runtime.compile)
        check_batches(stage, self.learner.turns)
        if ema_networks is None:
            ema_networks = EmaNetworks({n: self.game.get_submodule(n) for n in recipe.ema}, recipe.ema)
        for name, ema in recipe.ema.items():
            ema_networks[name].halflife = ema.halflife  # a schedule of the stage before ends with it
        self.ema_networks = ema_networks
        self.schedules = Schedules(stage.schedules, self.learner, ema_networks)
        self.loaders = {name: self.loader(name, workers=READ_THREADS) for name in stage.data.streams}
        self.noise = torch.Generator(device)
        self._statistics = [
            b
            for n, b in self.game.named_buffers()
            if n.endswith(("running_mean", "running_var")) and b.is_floating_point()
        ]

    def loader(self, name: str, **share: Any) -> Loader:
        """A loader of one stream, each stream in an order of its own."""
        stage, stream = self.stage, self.stage.data.streams[name]
        return Loader(
            self.data[stream.split],
            seed=seed_for(self.seed, "data", self.index, name),
            keys=stream.keys,
            where=stream.where,
            part=stream.part,
            view=stream.view,
            balanced=(stream.balanced, seed_for(self.seed, "balanced")) if stream.balanced else None,
            range=stage.data.range,
            pad=stage.resolution if stage.data.pad else None,
            crop=stage.resolution if stage.data.load else None,
            flip=stage.data.flip,
            dequantize=stage.data.dequantize,
            **{"device": self.device, "rank": parallel.rank(), "world": parallel.world(), **share},
        )

    def new_batch(self) -> Batch:
        size = self.stage.batch // parallel.world()
        return Batch(size, device=self.device, generator=self.noise, rank=parallel.rank(), world=parallel.world())

    def draw(self, batch: Batch) -> int:
        """Fresh reals of every stream into the batch. Returns the images that the clock counts: those of all processes
        from the first stream."""
        world, sizes = parallel.world(), []
        for name, loader in self.loaders.items():
            own = self.stage.data.streams[name].batch
            sizes.append(own // world if own else batch.size)
            for key, value in loader.next(sizes[-1], batch.generator).items():
                batch[key] = self.to_layout(value)
        return sizes[0] * world

    def to_layout(self, value: Any) -> Any:
        """Images in the memory layout that the run uses; anything else as it is."""
        if self.channels_last and isinstance(value, Tensor) and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def seed_round(self) -> None:
        """Seed the noise, and what layers draw, for the next round."""
        seed = seed_for(self.seed, "layers", self.index, self.round, parallel.rank())
        # torch.manual_seed would also queue a call, with its traceback, for each kind of device that is never used.
        torch.default_generator.manual_seed(seed)
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        self.noise.manual_seed(seed_for(self.seed, "noise", self.index, self.round))

    @torch.no_grad()
    def prepare(self, init: str | Path | None = None) -> None:
        """The game's data-dependent initialization, on the same images in every process. It comes before the weights
        ``init`` to begin from, and the EMA weights begin as the players after both."""
        torch.manual_seed(seed_for(self.seed, "prepare", self.index))
        self.noise.manual_seed(seed_for(self.seed, "prepare noise", self.index))
        batch = Batch(self.stage.batch, device=self.device, generator=self.noise)
        for name in self.loaders:
            size = min(1024, len(self.data[self.stage.data.streams[name].split]))
            once = self.loader(name, rank=0, world=1, device=torch.device("cpu"))
            for key, value in once.next(size).items():
                batch[key] = self.to_layout(value.to(self.device) if isinstance(value, Tensor) else value)
        self.game.prepare(batch)
        if self.total_images == 0 and init is not None:
            load_init(self.networks, init)
        parallel.broadcast(self.game)  # devices may have rounded differently
        if self.total_images == 0:
            for name, ema_network in self.ema_networks.items():
                ema_network.network.load_state_dict(self.game.get_submodule(name).state_dict())

    def play_round(self, record: Record = lambda round, name, value: None) -> int:
        """Play every turn as often as it is due, then update the EMA weights. Nothing is read from the device.
        ``record(round, name, value)`` gets every scalar. Returns the real images consumed, by all processes."""
        # Schedules and seeds
        self.seed_round()
        self.schedules.write(self.images)

        # Turns, each on a batch of its own size
        batch, world = self.new_batch(), parallel.world()
        consumed, fresh = 0, False
        for turn in self.learner.turns:
            times = turn.times(self.round)
            batch.size = (turn.batch or self.stage.batch) // world
            for step in range(times):
                if step % PRECOMPUTE_STEPS == 0:
                    computed = self.learner.precompute(turn, batch, min(PRECOMPUTE_STEPS, times - step))
                batch.update(computed[step % PRECOMPUTE_STEPS])
                if turn.draw == "fresh" or (turn.draw == "last" and not fresh):
                    consumed += self.draw(batch)
                    fresh = True
                for name, value in self.learner.play(turn, batch, self.round).items():
                    record(self.round, f"loss/{name}", value)
        for name, value in batch.logs.items():
            record(self.round, name, value)
        parallel.mean_in_place(self._statistics)

        # Clock and EMA weights
        self.round += 1
        self.images += consumed
        self.total_images += consumed
        self.ema_networks.update_round(self.game, self.learner.players, consumed, self.total_images)
        return consumed

    @contextlib.contextmanager
    def extra_batches(self) -> Iterator[Callable[[], Batch]]:
        """A function that draws batches of reals that are no part of the training: afterwards the loaders are
        at their old positions. (Noise begins anew with each round.)"""
        positions = {name: loader.position for name, loader in self.loaders.items()}
        batch = Batch(self.stage.batch // parallel.world(), device=self.device, generator=self.noise)

        def draw() -> Batch:
            self.draw(batch)
            return batch

        try:
            yield draw
        finally:
            for name, position in positions.items():
                self.loaders[name].position = position

    @property
    def clock(self) -> dict[str, int]:
        """Images, round and stage, as in every line of the log."""
        return {"images": self.total_images, "round": self.round, "stage": self.index}
