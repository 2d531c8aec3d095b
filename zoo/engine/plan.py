"""From a recipe to networks, a game and its players: everything that is settled before the first image.

All mistakes that a recipe can hold are found here, on the ``meta`` device, before any work is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zoo import parallel
from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.engine.ema import EmaNetworks
from zoo.engine.schedules import Schedules
from zoo.engine.step import Learner
from zoo.game import Batch, Game, Turn
from zoo.overrides import check
from zoo.recipe import Recipe, Stage, Stream, encode
from zoo.registry import GAMES, NETWORKS, Spec
from zoo.seeds import seed_for


def resolve(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe with what the data set fixes filled in: ``channels``, ``resolution`` and ``classes="data"``; and, in heads on
    the features of D that leave it out, how many ``features`` there are."""
    check(recipe)
    known = {"channels": facts.channels, "resolution": recipe.stages[-1].resolution}

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
        spec = spec.replace(**inside, **{k: v for k, v in known.items() if k in takes and k not in spec.kwargs})
        NETWORKS.check(spec)
        return spec

    networks = {name: fill(name, spec) for name, spec in recipe.networks.items()}
    for name, spec in networks.items():
        wanted = NETWORKS.parameters(spec.name).get("features")
        if wanted and wanted.default is wanted.empty and "features" not in spec.kwargs:
            networks[name] = spec.replace(features=count_features(recipe.replace(networks=networks), **known))
    return recipe.replace(networks=networks)


def count_features(recipe: Recipe, channels: int, resolution: int) -> int:
    """How many numbers ``D.features(x)`` gives an image, found on ``meta``. ValueError where D has no features."""
    if "D" not in recipe.networks:
        raise ValueError(f"networks: a head on D's features needs a network D, got {', '.join(recipe.networks)}")
    spec = recipe.networks["D"]
    D = build_networks(recipe.replace(networks={"D": spec}), device="meta")["D"]
    if not hasattr(D, "features"):
        raise ValueError(f"networks.D: '{spec.name}' has no features for a head; choose another network")
    shape = (channels, resolution, resolution) if resolution else (channels,)
    return D.features(torch.empty(2, *shape, device="meta")).flatten(1).shape[1]


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
    """The stage's game over the networks. ValueError where it needs what the data do not yield."""
    # A game that remembers images has to know their shape.
    defaults = {"channels": facts.channels, "resolution": stage.resolution}
    game = GAMES.build(stage.game, networks, defaults=defaults)
    have = {name for s in stage.data.streams.values() for name in yields(s, facts).values()}
    missing = [k for k in game.needs if k not in have]
    if missing:
        raise ValueError(
            f"game '{stage.game.name}' needs '{missing[0]}', and '{facts.name}' yields {', '.join(sorted(have))}; "
            f"choose another data set (zoo list datasets)"
        )
    return game


def yields(stream: Stream, facts: Facts) -> dict[str, str]:
    """What a stream takes from the data set and what it calls it: all keys where it names none."""
    return dict(stream.keys) or {k: k for k in facts.keys}


def check_batches(stage: Stage, turns: Sequence[Turn]) -> None:
    """ValueError unless the processes can share every batch."""
    own = [s.batch for s in stage.data.streams.values() if s.batch]
    for size in (stage.batch, *(t.batch for t in turns if t.batch), *own):
        if size % parallel.world():
            raise ValueError(f"batch={size}: must be a multiple of the {parallel.world()} processes")


def meta_batch(stage: Stage, facts: Facts, size: int) -> dict[str, torch.Tensor]:
    """Shapes of one draw from each stream, on ``meta``."""
    shape = (facts.channels, stage.resolution, stage.resolution) if stage.resolution else (facts.channels,)
    have: dict[str, torch.Tensor] = {}
    for stream in stage.data.streams.values():
        rows = stream.batch or size
        for key, name in yields(stream, facts).items():
            if key == "caption":
                continue
            kind = dict(size=(rows, *shape)) if key == "x" else dict(size=(rows,), dtype=torch.int64)
            have[name] = torch.empty(**kind, device="meta")
    return have


class Counted(TorchDispatchMode):
    """Counts the multiply-adds of convolutions and matrix products, those of all derivatives among them. (torch's
    ``FlopCounterMode`` also follows modules, by hooks that ``torch.func.grad`` refuses.)"""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.multiply_adds += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out) // 2
        return out


def dry_run(recipe: Recipe, facts: Facts) -> list[dict[str, Any]]:
    """Play one round of every stage on ``meta``: no data, no memory, no time. Returns the facts of each stage:
    ``turns`` (players, times a round, batch, multiply-adds each time), ``images_a_round``, ``multiply_adds_a_round`` (of the convolutions and matrix
    products, forward and backward, as they are done), ``rounds``."""
    networks = build_networks(recipe, device="meta")
    stages = []
    for stage in recipe.stages:
        with torch.device("meta"):
            game = build_game(stage, networks, facts)
            learner = Learner(game, stage, device="meta")
            check_batches(stage, learner.turns)
            Schedules(stage.schedules, learner, EmaNetworks({n: game.get_submodule(n) for n in recipe.ema}, recipe.ema))
        # From here on tensors are made where those are that they are made from, as in a run.
        batch = Batch(stage.batch, device="meta")
        batch.update(meta_batch(stage, facts, stage.batch))
        with torch.no_grad():
            game.prepare(batch)
        clock = next(iter(stage.data.streams.values())).batch
        usual = 1_000_003  # a round in no burst and no warm-up
        turns, per_round, work = [], 0, 0.0
        for turn in learner.turns:
            size = turn.batch or stage.batch
            batch.size = size
            if turn.draw is not None:
                batch.update(meta_batch(stage, facts, size))
            try:
                with Counted() as counted:
                    learner.play(turn, batch, 0)
            except RuntimeError as error:
                raise ValueError(f"stage at {stage.resolution} pixels: {str(error).splitlines()[0]}") from error
            times = (turn.repeat(usual) if callable(turn.repeat) else turn.repeat) / turn.every
            per_round += times * (clock or size) if turn.draw == "fresh" else 0
            work += times * counted.multiply_adds
            said = {"players": list(turn.players), "times": times, "batch": size, "draw": turn.draw}
            turns.append({**said, "multiply_adds": counted.multiply_adds})
        if not per_round:
            raise ValueError("the game's turns consume no real images: at least one needs draw='fresh'")
        rounds = math.ceil(stage.images / per_round)
        stages.append(
            {
                "turns": turns,
                "images_a_round": per_round,
                "multiply_adds_a_round": work,
                "rounds": rounds,
                "images": stage.images,
            }
        )
    return stages


def times_played(stage: Stage, networks: Mapping[str, nn.Module], facts: Facts, rounds: int) -> list[int]:
    """How often each of the stage's turns is played in its first ``rounds`` rounds, bursts and skipped rounds as they are."""
    turns = build_game(stage, networks, facts).turns()
    return [sum(turn.times(r) for r in range(rounds)) for turn in turns]


def parameters(networks: Mapping[str, nn.Module]) -> dict[str, int]:
    """How many parameters each has."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


def describe(recipe: Recipe, facts: Facts | None = None) -> dict[str, Any]:
    """What a recipe comes to: parameters by network, turns, rounds, images. Nothing is fetched, built or trained."""
    if facts is None:
        facts = facts_of(recipe.dataset)
    recipe = resolve(recipe, facts)
    networks = build_networks(recipe, device="meta")
    return {
        "recipe": recipe.name,
        "dataset": facts.name,
        "parameters": parameters(networks),
        "networks": {n: {"name": s.name, "kwargs": encode(s.kwargs)} for n, s in recipe.networks.items()},
        "images": recipe.images,
        "stages": dry_run(recipe, facts),
    }


def shipped(game: Game, recipe: Recipe, stage: Stage, facts: Facts) -> dict[str, Any]:
    """The model spec for the Card (plain JSON): what ``zoo.model`` needs to build the Model without any game."""

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
