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
    batch: dict[str, torch.Tensor] = {}
    for stream in stage.data.streams.values():
        rows = stream.batch or size
        for key, name in yields(stream, facts).items():
            if key == "caption":
                continue
            is_image = key == "x"
            size_of_key, dtype = ((rows, *shape), None) if is_image else ((rows,), torch.int64)
            batch[name] = torch.empty(size_of_key, dtype=dtype, device="meta")
    return batch


class MultiplyAdds(TorchDispatchMode):
    """Counts the multiply-adds of convolutions and matrix products, including those of all derivatives. (torch's
    ``FlopCounterMode`` also follows modules, by hooks that ``torch.func.grad`` refuses.)"""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.count += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out) // 2
        return out


USUAL_ROUND = 1_000_003  # a round outside of bursts and warm-up


def dry_run(recipe: Recipe, facts: Facts, micro_batch: int | None = None) -> list[dict[str, Any]]:
    """Play one round of every stage on ``meta``: no data, no memory, no time. ``micro_batch``: of the Runtime.

    Returns the facts of each stage: ``turns`` (players, times a round, batch, multiply-adds each time),
    ``images_a_round``, ``multiply_adds_a_round`` (of the convolutions and matrix products, forward and backward),
    ``rounds``. Raises ValueError if the recipe's parts do not fit each other or the data.
    """
    networks = build_networks(recipe, device="meta")
    return [_dry_run_stage(recipe, stage, networks, facts, micro_batch) for stage in recipe.stages]


def _dry_run_stage(
    recipe: Recipe, stage: Stage, networks: Mapping[str, nn.Module], facts: Facts, micro_batch: int | None
) -> dict[str, Any]:
    with torch.device("meta"):
        game = build_game(stage, networks, facts)
        learner = Learner(game, stage, device="meta", micro_batch=micro_batch)
        check_batches(stage, learner.turns)
        Schedules(stage.schedules, learner, EmaNetworks({n: game.get_submodule(n) for n in recipe.ema}, recipe.ema))
    # From here on new tensors are made on the device of the tensors that they depend on, as in a run.
    batch = Batch(stage.batch, device="meta")
    batch.update(meta_batch(stage, facts, stage.batch))
    with torch.no_grad():
        game.prepare(batch)
    clock = next(iter(stage.data.streams.values())).batch
    turns, images, work = [], 0.0, 0.0
    for turn in learner.turns:
        size = turn.batch or stage.batch
        batch.size = size
        if turn.draw is not None:
            batch.update(meta_batch(stage, facts, size))
        try:
            with MultiplyAdds() as multiply_adds:
                learner.play(turn, batch, 0)
        except RuntimeError as error:
            raise ValueError(f"stage at {stage.resolution} pixels: {str(error).splitlines()[0]}") from error
        times = (turn.repeat(USUAL_ROUND) if callable(turn.repeat) else turn.repeat) / turn.every
        images += times * (clock or size) if turn.draw == "fresh" else 0
        work += times * multiply_adds.count
        facts_of_turn = {"players": list(turn.players), "times": times, "batch": size, "draw": turn.draw}
        turns.append({**facts_of_turn, "multiply_adds": multiply_adds.count})
    if not images:
        raise ValueError("the game's turns consume no real images: at least one must have draw='fresh'")
    return {
        "turns": turns,
        "images_a_round": images,
        "multiply_adds_a_round": work,
        "rounds": math.ceil(stage.images / images),
        "images": stage.images,
    }


def times_played(stage: Stage, networks: Mapping[str, nn.Module], facts: Facts, rounds: int) -> list[int]:
    """How often each of the stage's turns is played in its first ``rounds`` rounds, bursts and skipped rounds as they
    are."""
    turns = build_game(stage, networks, facts).turns()
    return [sum(turn.times(r) for r in range(rounds)) for turn in turns]


def describe(recipe: Recipe, facts: Facts | None = None, micro_batch: int | None = None) -> dict[str, Any]:
    """The cost of a recipe: parameters by network, turns, rounds, images. Nothing is downloaded or trained."""
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
        "stages": dry_run(recipe, facts, micro_batch),
    }
