"""The dry run: one round of every stage on the ``meta`` device, which finds all mistakes that a recipe can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.engine.ema import EmaNetworks
from zoo.engine.schedules import Schedules
from zoo.engine.stage import build_game, build_networks, check_batches, parameters, resolve, yields
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.recipe import Recipe, Stage, encode


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
