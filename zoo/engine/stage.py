"""Stages: from a recipe to networks and a game, and the state of the stage that is being played."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import hub, parallel
from zoo.data import Facts, ImageData, Loader, open_data
from zoo.data import facts as facts_of
from zoo.data.few_labels import FewLabels
from zoo.data.fields import Attributes, Label
from zoo.data.files import listed
from zoo.data.loader import paired_rows, rows_with, seed_of_order
from zoo.engine.derived import check_derived, with_derived
from zoo.engine.ema import EmaNetworks
from zoo.engine.finetune import load_init
from zoo.engine.runtime import Runtime
from zoo.engine.schedules import Schedules
from zoo.engine.step import Learner
from zoo.game import Batch, Game, Turn
from zoo.models.inference import check_sampling
from zoo.networks.interfaces import Growing
from zoo.overrides import check
from zoo.pretrained import Frozen, build
from zoo.recipe import Recipe, Sampling, Stage, Stream, encode
from zoo.registry import GAMES, NETWORKS, Spec, nearest
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
    for pretrained in recipe.pretrained.values():
        NETWORKS.check(pretrained.network)
    return recipe.replace(networks=networks)


def count_features(recipe: Recipe, channels: int, resolution: int) -> int:
    """How many numbers ``D.features(x)`` gives an image, computed on ``meta``. Raises ValueError if D has no
    features."""
    if "D" not in recipe.networks:
        raise ValueError(f"networks: a head on D's features needs a network D, got {', '.join(recipe.networks)}")
    spec = recipe.networks["D"]
    D = build_networks(recipe.replace(networks={"D": spec}, pretrained={}), device="meta")["D"]
    if isinstance(D, Growing):
        D.at(recipe.stages[-1].level or 0)
    features = getattr(D, "features", None)
    if features is None:
        raise ValueError(f"networks.D: '{spec.name}' has no features for a head; choose another network")
    shape = (channels, resolution, resolution) if resolution else (channels,)
    return int(features(torch.empty(2, *shape, device="meta")).flatten(1).shape[1])


def build_networks(recipe: Recipe, seed: int = 0, device: str | None = None) -> dict[str, nn.Module]:
    """The recipe's networks, each initialized from a seed of its own, so that none depends on the others' order; and
    its pretrained ones on ``meta``, without weights."""
    networks: dict[str, nn.Module] = {}
    for name, spec in recipe.networks.items():
        torch.manual_seed(seed_for(seed, "init", name))
        try:
            with torch.device(device or "cpu"):
                networks[name] = NETWORKS.build(spec)
        except (ValueError, TypeError, RuntimeError) as error:  # a RuntimeError of torch, such as for a negative width
            raise ValueError(f"networks.{name}: {error}") from error
    return {**networks, **{name: build(name, pretrained) for name, pretrained in recipe.pretrained.items()}}


def load_pretrained(recipe: Recipe) -> tuple[Recipe, dict[str, Frozen]]:
    """The recipe with the hashes of its pretrained networks, and these, with their weights. Of several processes rank 0
    downloads. Raises ValueError, with the remedy, if weights are not at hand."""
    if not recipe.pretrained:
        return recipe, {}
    with parallel.main_process_only() as works:
        networks = hub.load_pretrained(recipe.pretrained) if works else {}
    networks = networks or hub.load_pretrained(recipe.pretrained)
    hashes = {name: dataclasses.replace(p, hash=networks[name].hash) for name, p in recipe.pretrained.items()}
    return recipe.replace(pretrained=hashes), networks


def build_game(stage: Stage, networks: Mapping[str, nn.Module], facts: Facts) -> Game:
    """The stage's game of the networks, which are set to its level. Raises ValueError if the game or a stream needs
    keys that the data set does not have, a stream hides labels that the game needs, or the level is wrong."""
    set_level(stage, networks)
    for stream in stage.data.streams.values():
        own = facts_of_stream(stream, facts)
        for key in (*stream.keys, *stream.where):
            if key.partition(".")[0] not in own.keys:  # "attributes.Smiling" is a column of "attributes"
                raise ValueError(
                    f"the recipe reads '{key}', but '{own.name}' has {', '.join(own.keys)}{nearest(key, own.keys)}; "
                    f"choose another data set (zoo list datasets)"
                )
        check_values(stream, own)
        check_derived(stream, own)
    check_pairs(stage, facts)
    # A game that stores images needs their shape; one of several domains, the names of the labels.
    defaults = {"channels": facts.channels, "resolution": stage.resolution, "label_names": label_names(stage, facts)}
    game = GAMES.build(stage.game, networks, defaults=defaults)
    names = {name for s in stage.data.streams.values() for name in yields(s, facts).values()}
    missing = [k for k in game.needs if k not in names]
    if missing:
        sets = "', '".join(dict.fromkeys(facts_of_stream(s, facts).name for s in stage.data.streams.values()))
        raise ValueError(
            f"game '{stage.game.name}' needs '{missing[0]}', but '{sets}' has {', '.join(sorted(names))}; "
            f"choose another data set (zoo list datasets)"
        )
    for name, stream in stage.data.streams.items():
        if stream.labeled is not None and stream.labeled < 1 and not game.takes_unlabeled:
            raise ValueError(f"data.streams.{name}.labeled={stream.labeled}: the game '{stage.game.name}' and its "
                             f"heads take no images without a label; leave it out")  # fmt: skip
    return game


def label_names(stage: Stage, facts: Facts) -> dict[str, tuple[str, ...]]:
    """The names of the values of each Label, and of the columns of each Attributes, that the streams yield, by the
    batch's keys."""
    names: dict[str, tuple[str, ...]] = {}
    for stream in stage.data.streams.values():
        fields = facts_of_stream(stream, facts).fields
        for key, name in yields(stream, facts).items():
            field = fields.get(key)
            if isinstance(field, (Label, Attributes)):
                names[name] = field.names
    return names


def check_values(stream: Stream, facts: Facts) -> None:
    """Raises ValueError if a stream reads the rows of values that its label does not have."""
    for key, value in stream.where.items():
        label, values = facts.fields.get(key), (value,) if isinstance(value, int) else value
        if isinstance(label, Label) and label.names and all(v >= len(label.names) for v in values):
            raise ValueError(
                f"the recipe reads at least {max(values) + 1} values of '{key}', but '{facts.name}' has "
                f"{len(label.names)}: {listed([*label.names])}; choose another data set (of folders each is a value)"
            )


def check_pairs(stage: Stage, facts: Facts) -> None:
    """Raises ValueError if streams of different rows of one data set are aligned, and that data set has no pairs."""
    for stream in stage.data.streams.values():
        if stream.aligned is None:
            continue
        leader = stage.data.streams[stream.aligned]
        own = facts_of_stream(stream, facts)
        same_rows = (stream.where, stream.part) == (leader.where, leader.part)
        if not own.paired and not same_rows and data_of_stream(stream) == data_of_stream(leader):
            raise ValueError(
                f"the recipe needs pairs, but '{own.name}' has none; pairs are two folders a and b with equal file "
                "names (of other names with ?pairs=yes), or pictures of two halves. Another model may need none"
            )


def set_level(stage: Stage, networks: Mapping[str, nn.Module]) -> None:
    """Set the networks that grow (:class:`zoo.networks.interfaces.Growing`) to the stage's level. Raises ValueError if
    they have no such level, or the stage has none."""
    growing = {name: network for name, network in networks.items() if isinstance(network, Growing)}
    if stage.level is None and growing:
        raise ValueError(f"level: {' and '.join(growing)} can grow, so that each stage must have a level")
    if stage.level is not None and not growing:
        raise ValueError(f"level={stage.level}: no network of the recipe can grow; leave it out")
    for name, network in growing.items():
        try:
            network.at(stage.level or 0)
        except ValueError as error:
            raise ValueError(f"networks.{name}: {error}") from None


def yields(stream: Stream, facts: Facts) -> dict[str, str]:
    """The keys that a stream reads, and their names in the batch: those of the data set, all if it names none, and its
    derived fields. ``facts``: of the recipe's data set."""
    own = dict(stream.keys) or {k: k for k in facts_of_stream(stream, facts).keys}
    return {**own, **{k: k for k in stream.derived}}


def facts_of_stream(stream: Stream, facts: Facts) -> Facts:
    """The facts of the data set that a stream reads: its own or, with ``facts``, the recipe's."""
    return facts if stream.dataset is None else facts_of(stream.dataset)


def data_of_stream(stream: Stream) -> str:
    """The name of a stream's data in a stage and in its checkpoints: the split and, if it is not the recipe's, the data
    set."""
    return stream.split if stream.dataset is None else f"{stream.dataset} {stream.split}"


def streams_of_turn(turn: Turn, stage: Stage, batch: Batch) -> tuple[str, ...]:
    """The names of the streams that a turn draws in this round, in its order.

    Raises ValueError if there is no such stream, or for one of several aligned streams without the others.
    """
    streams = stage.data.streams
    names = turn.streams(batch) if callable(turn.streams) else turn.streams
    if turn.draw is None:
        return ()
    if names is None:
        return tuple(streams)
    if not names:
        raise ValueError(f"the turn of {' and '.join(turn.players)} names no streams; draw=None draws nothing")
    for name in names:
        if name not in streams:
            raise ValueError(f"data.streams: the turn of {' and '.join(turn.players)} draws '{name}', "
                             f"but they are {', '.join(streams)}{nearest(name, streams)}")  # fmt: skip
        leader = streams[name].aligned or name
        for other, stream in streams.items():
            if leader in (other, stream.aligned) and other not in names:
                raise ValueError(f"streams {', '.join(names)}: '{name}' and '{other}' are aligned and drawn together")
    return tuple(names)


def check_batches(stage: Stage, turns: Sequence[Turn]) -> None:
    """Raises ValueError unless the processes can share every batch."""
    own = [s.batch for s in stage.data.streams.values() if s.batch]
    for size in (stage.batch, *(t.batch for t in turns if t.batch), *own):
        if size % parallel.world():
            raise ValueError(f"batch={size}: must be a multiple of the number of processes, {parallel.world()}")


def parameters(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """The number of parameters of each network that is not pretrained."""
    own = {name: network for name, network in networks.items() if not isinstance(network, Frozen)}
    return {name: sum(p.numel() for p in network.parameters()) for name, network in own.items()}


def pretrained_parameters(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """The number of parameters of each pretrained network."""
    return {name: network.size for name, network in networks.items() if isinstance(network, Frozen)}


def shipped(game: Game, recipe: Recipe, stage: Stage, facts: Facts) -> dict[str, Any]:
    """The model spec for the Card (plain JSON), from which ``zoo.models`` builds the Model without any game."""

    def plain(spec: Spec) -> dict[str, Any]:
        return {"name": spec.name, "kwargs": encode(spec.kwargs)}

    ships = {key: plain(value) if isinstance(value, Spec) else value for key, value in game.ships().items()}
    spec = {**ships, "networks": {n: plain(recipe.networks[n]) for n in ships["networks"]}}
    if "pretrained" in ships:
        spec["pretrained"] = {n: encode(recipe.pretrained[n]) for n in ships["pretrained"]}
    if recipe.sampling != Sampling():
        check_sampling(recipe.sampling, {name: game.get_submodule(name) for name in ships["networks"]})
        spec["sampling"] = {"mode": recipe.sampling.mode, "chunk": recipe.sampling.chunk}
    if "domains" in spec:
        spec["domains"] = {**spec["domains"], **domain_names(stage, facts, spec["domains"])}
    return {
        "range": list(stage.data.range),
        "resolution": stage.resolution,
        "channels": facts.channels,
        "classes": list(facts.classes),
        **({} if stage.level is None else {"level": stage.level}),
        **spec,
    }


def domain_names(stage: Stage, facts: Facts, domains: Iterable[str]) -> dict[str, str]:
    """The names that the data set gives to some ``domains``, keys of the batch: that of the one value of a label whose
    rows a stream reads. Domains without a name, or with one name for two, are left out."""
    names: dict[str, str] = {}
    for stream in stage.data.streams.values():
        fields = facts_of_stream(stream, facts).fields
        for key, value in stream.where.items():
            label = fields.get(key)
            if isinstance(label, Label) and isinstance(value, int) and 0 <= value < len(label.names):
                names |= {domain: label.names[value] for domain in stream.keys.values() if domain in domains}
    return names if len(set(names.values())) == len(names) else {}


@contextlib.contextmanager
def unchanged(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Afterwards the parameters and buffers of the modules have their values of before."""
    tensors = [tensor for m in modules for tensor in (*m.parameters(), *m.buffers())]
    before = [tensor.clone() for tensor in tensors]
    yield
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)


# A stage that is being played ---------------------------------------------------------------------------------------

PRECOMPUTE_STEPS = 8  # steps of a repeated turn whose fakes one pass of G generates, at most; they stay in memory
READ_THREADS = 4  # threads that read ahead if a data set does not fit on the device

Progress = Callable[..., None]
Record = Callable[[int, str, Tensor], None]


def open_splits(stage: Stage, source: Any, progress: Progress | None = None) -> dict[str, ImageData]:
    """The data that the streams of a stage read, by :func:`data_of_stream`; fetched and prepared first if they are not
    yet."""
    size = None if stage.data.pad or not stage.resolution else stage.data.load or stage.resolution
    streams = {data_of_stream(stream): stream for stream in stage.data.streams.values()}
    return {
        name: open_data(stream.dataset or source, resolution=size, split=stream.split, progress=progress)
        for name, stream in streams.items()
    }


def rows_of_pairs(stage: Stage, data: Mapping[str, ImageData]) -> dict[str, Tensor]:
    """The rows that aligned streams may read, int64, by stream: those that have a pair in every stream of their group,
    in one order. Streams of data without a ``pair_key``, whose pairs are those of equal rank, are left out. ``data``:
    by :func:`data_of_stream`. Raises ValueError if a stream has two rows of one pair."""
    streams, rows = stage.data.streams, dict[str, Tensor]()
    for leader in dict.fromkeys(stream.aligned for stream in streams.values() if stream.aligned is not None):
        group = [leader, *(name for name, stream in streams.items() if stream.aligned == leader)]
        own = {name: data[data_of_stream(streams[name])] for name in group}
        if all(d.facts.pair_key for d in own.values()):
            sides = [(d, rows_with(d, streams[name].where)) for name, d in own.items()]
            rows |= dict(zip(group, paired_rows(sides), strict=True))
    return rows


def open_loader(
    stage: Stage,
    name: str,
    data: ImageData,
    rows: Tensor | None,
    seed: int,
    seed_of_stage: int,
    derived: bool = True,
    **share: Any,
) -> Loader:
    """A loader of one stream, each stream in an order of its own, or in that of the stream that it is aligned with.

    ``rows``: of an aligned stream, see :func:`rows_of_pairs`. ``seed``: of the run. ``seed_of_stage``: of the stage's
    order. ``derived``: whether ``data`` have the derived fields. ``share``: device, rank, world, workers. Raises
    ValueError if stream and data do not fit.
    """
    stream = stage.data.streams[name]
    leader = stage.data.streams[stream.aligned or name]
    more = {k: k for k in stream.derived} if derived else {}
    if stream.labeled is not None:
        data = FewLabels(data, stream.labeled, seed_for(seed, "labeled"))
    return Loader(
        data,
        seed=seed_of_stage,
        order_seed=seed_of_order(seed_of_stage, leader.where, leader.part) if stream.aligned else None,
        keys={**stream.keys, **more} if stream.keys else None,
        where=stream.where,
        rows=rows,
        part=stream.part,
        view=stream.view,
        balanced=(stream.balanced, seed_for(seed, "balanced")) if stream.balanced else None,
        range=stage.data.range,
        pad=stage.resolution if stage.data.pad else None,
        crop=stage.resolution if stage.data.load else None,
        flip=stage.data.flip,
        dequantize=stage.data.dequantize,
        **share,
    )


def check_aligned(stage: Stage, loaders: Mapping[str, Loader]) -> None:
    """Raises ValueError if aligned streams differ in their number of rows."""
    for name, stream in stage.data.streams.items():
        if stream.aligned is not None:
            own, other = loaders[name].count, loaders[stream.aligned].count
            if own != other:
                raise ValueError(
                    f"data.streams.{name}.aligned='{stream.aligned}': must have as many rows as that stream, "
                    f"{other}, got {own}"
                )


def check_streams(recipe: Recipe, source: Any, progress: Progress | None = None) -> None:
    """Open the data of all stages, fetched and prepared first if they are not yet. Raises ValueError if a stream of any
    stage and its data do not fit, before anything is written into a run's folder."""
    for stage in recipe.stages:
        data = open_splits(stage, source, progress)
        rows = rows_of_pairs(stage, data)
        share: dict[str, Any] = {"derived": False, "rank": parallel.rank(), "world": parallel.world()}
        loaders = {
            name: open_loader(stage, name, data[data_of_stream(stream)], rows.get(name), 0, 0, **share)
            for name, stream in stage.data.streams.items()
        }
        check_aligned(stage, loaders)


class StageRun:
    """One stage of a recipe while it is played: game, learner, EMA weights, schedules, loaders, and where it stands.

    ``before``: the stage before, whose networks, EMA weights and count of images go on; and what the game's
    augmentation has learned, if both stages have the same. Without it ``networks`` are trained, by default new ones
    from the seed. ``pretrained``: the pretrained networks of the first stage; without them they are loaded.
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
        before: StageRun | None = None,
        networks: Mapping[str, nn.Module] | None = None,
        pretrained: Mapping[str, nn.Module] | None = None,
        progress: Progress | None = None,
    ):
        self.recipe, self.index, self.facts, self.device, self.seed = recipe, index, facts, device, seed
        self.stage = stage = recipe.stages[index]
        self.round = self.images = 0
        self.total_images: int = 0 if before is None else before.total_images
        self.channels_last = runtime.layout == "channels_last" and device.type != "mps"
        if before is not None:
            before.schedules.write(before.images)  # a fade that ends with the stage before is over
            networks = before.networks
        elif networks is None:
            pretrained = pretrained if pretrained is not None else load_pretrained(recipe)[1]
            networks = {**build_networks(recipe, seed), **pretrained}
        self.networks: dict[str, nn.Module] = dict(networks)
        self.data = open_splits(stage, source, progress)
        self.game = build_game(stage, self.networks, facts).to(device)
        if before is not None:
            self.game.continue_augment(before.game)
        if self.channels_last:
            self.game.to(memory_format=torch.channels_last)
        self.learner = Learner(
            self.game,
            stage,
            device=device,
            precision=runtime.precision,
            compile=runtime.compile,
            cuda_graphs=runtime.cuda_graphs,
            micro_batch=runtime.micro_batch,
        )
        check_batches(stage, self.learner.turns)
        self.ema_networks: EmaNetworks = (
            EmaNetworks({n: self.game.get_submodule(n) for n in recipe.ema}, recipe.ema)
            if before is None
            else before.ema_networks
        )
        set_level(stage, {**self.networks, **{n: ema.network for n, ema in self.ema_networks.items()}})
        for name, ema in recipe.ema.items():
            self.ema_networks[name].halflife = ema.halflife  # a schedule of the stage before ends with it
        self.schedules: Schedules = Schedules(stage.schedules, self.learner, self.ema_networks)
        self.rows = rows_of_pairs(stage, self.data)
        self.derived = {
            name: with_derived(
                self.data[data_of_stream(stream)],
                stream,
                recipe.pretrained,
                self.networks,
                range=stage.data.range,
                device=device,
                progress=progress,
            )
            for name, stream in stage.data.streams.items()
        }
        self.loaders = {name: self.loader(name, workers=READ_THREADS) for name in stage.data.streams}
        check_aligned(stage, self.loaders)
        self.noise = torch.Generator(device)
        self._statistics = [
            b
            for n, b in self.game.named_buffers()
            if n.endswith(("running_mean", "running_var")) and b.is_floating_point()
        ]

    def loader(self, name: str, **share: Any) -> Loader:
        """A loader of one stream; ``share`` as for :func:`open_loader`, by default this process's."""
        stream = self.stage.data.streams[name]
        seed = seed_for(self.seed, "data", self.index, stream.aligned or name)
        own = {"device": self.device, "rank": parallel.rank(), "world": parallel.world()}
        data, rows = self.derived[name], self.rows.get(name)
        return open_loader(self.stage, name, data, rows, self.seed, seed, **{**own, **share})

    def new_batch(self) -> Batch:
        return Batch(
            self.stage.batch // parallel.world(),
            device=self.device,
            generator=self.noise,
            rank=parallel.rank(),
            world=parallel.world(),
            round=self.round,
            images=self.images,
            seed=self.seed,
            stage=self.index,
        )

    def draw(self, batch: Batch, names: Sequence[str] | None = None) -> dict[str, int]:
        """Fresh reals of some streams, by default of all, into the batch. Returns the number of rows of each, of all
        processes."""
        world, rows = parallel.world(), {}
        streams = self.stage.data.streams
        aligned = {n for name, stream in streams.items() if stream.aligned for n in (name, stream.aligned)}
        for name in streams if names is None else names:
            own = streams[name].batch
            size = own // world if own else batch.size
            generator = None if name in aligned else batch.generator  # aligned streams crop and flip by position
            for key, value in self.loaders[name].next(size, generator).items():
                batch[key] = self.to_layout(value)
            rows[name] = size * world
        return rows

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
        """The game's data-dependent initialization, on the same images in every process; what an earlier stage trained
        stays as it is. It comes before the weights ``init`` to begin from, and the EMA weights begin as the players
        after both. Before a later stage, parts that learn no more get their EMA weights: the stage trains on what
        samples are computed with."""
        torch.manual_seed(seed_for(self.seed, "prepare", self.index))
        self.noise.manual_seed(seed_for(self.seed, "prepare noise", self.index))
        batch = Batch(self.stage.batch, device=self.device, generator=self.noise)
        for name in self.loaders:
            data = self.data[data_of_stream(self.stage.data.streams[name])]
            size = self.stage.batch if data.is_stream else min(1024, len(data))
            once = self.loader(name, rank=0, world=1, device=torch.device("cpu"))
            for key, value in once.next(size).items():
                batch[key] = self.to_layout(value.to(self.device) if isinstance(value, Tensor) else value)
        earlier = self.recipe.stages[: self.index] if self.total_images else ()
        players = dict.fromkeys(player for stage in earlier for player in stage.optimizers)
        trained = [player for player in players if player.partition(".")[0] in self.networks]
        with unchanged([self.game.get_submodule(player) for player in trained]):
            self.game.prepare(batch)
        if self.total_images == 0 and init is not None:
            load_init(self.networks, init)
        parallel.broadcast(self.game)  # devices may have rounded differently
        for name, ema_network in self.ema_networks.items():
            if not any(f"{player}.".startswith(f"{name}.") for player in trained):
                ema_network.network.load_state_dict(self.game.get_submodule(name).state_dict())
        if self.total_images:
            self.ema_networks.write_finished(
                self.game, (p for s in self.recipe.stages[self.index :] for p in s.optimizers)
            )
        self.schedules.write(self.images)  # a layer that is new at this level is faded in from the first image on
        for name, ema_network in self.ema_networks.items():
            if isinstance(ema_network.network, Growing):
                ema_network.copy_buffers(self.game.get_submodule(name))

    def play_round(self, record: Record = lambda round, name, value: None) -> int:
        """Play every turn as often as it is due, then update the EMA weights. Nothing is read from the device.
        ``record(round, name, value)`` gets every scalar. Returns the real images consumed, by all processes."""
        # Schedules and seeds
        self.seed_round()
        self.schedules.write(self.images)

        # Turns, each on a batch of its own size
        batch, world = self.new_batch(), parallel.world()
        consumed, clock_stream = 0, ""
        fresh: set[str] = set()  # streams with new reals in this round
        for turn in self.learner.turns:
            times = turn.times(self.round)
            batch.size = (turn.batch or self.stage.batch) // world
            streams = streams_of_turn(turn, self.stage, batch) if times else ()
            for step in range(times):
                if step % PRECOMPUTE_STEPS == 0:
                    computed = self.learner.precompute(turn, batch, min(PRECOMPUTE_STEPS, times - step))
                batch.update(computed[step % PRECOMPUTE_STEPS])
                due = streams if turn.draw == "fresh" else [name for name in streams if name not in fresh]
                if due:
                    clock_stream = clock_stream or due[0]
                    consumed += self.draw(batch, due).get(clock_stream, 0)
                    fresh.update(due)
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
