"""The dry run: one round of every stage on the ``meta`` device, which finds all mistakes that a recipe can hold."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.data.fields import Attributes, Field, Image, Text, Vector
from zoo.engine.derived import meta_vectors
from zoo.engine.ema import EmaNetworks
from zoo.engine.schedules import Schedules
from zoo.engine.stage import (
    build_game,
    build_networks,
    check_batches,
    facts_of_stream,
    parameters,
    pretrained_parameters,
    resolve,
    streams_of_turn,
    yields,
)
from zoo.engine.step import Learner
from zoo.game import Batch, Turn, usual
from zoo.recipe import Recipe, Stage, encode
from zoo.registry import nearest


def meta_batch(
    stage: Stage,
    facts: Facts,
    size: int,
    names: Sequence[str] | None = None,
    networks: Mapping[str, nn.Module] | None = None,
) -> dict[str, Any]:
    """Shapes and types of one draw from each stream (or of those in ``names``), on ``meta``; of a Text field empty
    strings. ``networks``: with the pretrained ones of derived fields."""
    batch: dict[str, Any] = {}
    for stream in (stage.data.streams[name] for name in names or stage.data.streams):
        fields, rows = facts_of_stream(stream, facts).fields, stream.batch or size
        for key, name in yields(stream, facts).items():
            if key in stream.derived:
                of = fields[stream.derived[key].of]
                stored = meta_rows(
                    of, rows, facts.resolution or 0 if stage.data.pad else stage.data.load or stage.resolution
                )
                batch[name] = meta_vectors(key, stream, networks or {}, stored)
                continue
            if key not in fields:
                raise ValueError(f"{facts_of_stream(stream, facts).name} yields no '{key}'{nearest(key, fields)}")
            batch[name] = meta_rows(fields[key], rows, stage.resolution)
    return batch


def meta_rows(field: Field, n: int, resolution: int) -> Any:
    """``n`` values of a field as a batch has them."""
    if isinstance(field, Text):
        return [""] * n
    if isinstance(field, Image):
        return torch.empty(n, field.channels, resolution, resolution, device="meta")
    if isinstance(field, Vector):
        return torch.empty(n, field.n, device="meta")
    shape = (n, len(field.names)) if isinstance(field, Attributes) else (n,)
    return torch.empty(shape, dtype=torch.int64, device="meta")


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


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """Raises ValueError for whatever exception a builder or a network raises inside, with its type and text: on
    ``meta`` nothing but wrong values in the recipe can cause one."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the recipe's parts cannot be built or do not fit ({type(error).__name__}: {text})"
        ) from error


def meta_turns(
    learner: Learner, stage: Stage, facts: Facts, networks: Mapping[str, nn.Module]
) -> Iterator[tuple[Turn, Batch, tuple[str, ...]]]:
    """Each turn of a round, the batch that it gets, and the names of its streams. Rows are drawn as in a run: a turn
    with ``draw="last"`` keeps those of the turns before, which may have had another batch size."""
    batch, fresh = Batch(stage.batch, device="meta"), set[str]()
    for turn in learner.turns:
        batch.size = turn.batch or stage.batch
        streams = streams_of_turn(turn, stage, batch)
        due = tuple(name for name in streams if turn.draw == "fresh" or name not in fresh)
        if due:
            batch.update(meta_batch(stage, facts, batch.size, due, networks))
            fresh.update(due)
        yield turn, batch, streams


def dry_run(recipe: Recipe, facts: Facts, micro_batch: int | None = None) -> list[dict[str, Any]]:
    """Play one round of every stage on ``meta``: no data, no memory, no time. ``micro_batch``: of the Runtime.

    Returns the facts of each stage: ``turns`` (players, times a round, batch, multiply-adds each time),
    ``images_a_round``, ``multiply_adds_a_round`` (of the convolutions and matrix products, forward and backward),
    ``rounds``. Raises ValueError if the recipe's parts do not fit each other or the data.
    """
    with mistakes():
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
    batch.update(meta_batch(stage, facts, stage.batch, networks=networks))
    with torch.no_grad():
        game.prepare(batch)
    turns, images, work = [], 0.0, 0.0
    clock_stream = ""
    for turn, batch, streams in meta_turns(learner, stage, facts, networks):
        size = batch.size
        clock_stream = clock_stream or (streams[0] if streams else "")
        try:
            with MultiplyAdds() as multiply_adds:
                learner.play(turn, batch, 0)
        except RuntimeError as error:
            raise ValueError(f"stage at {stage.resolution} pixels: {str(error).splitlines()[0]}") from error
        except KeyError as error:
            raise ValueError(
                f"the turn of {' and '.join(turn.players)} reads {error}, but the batch has {', '.join(batch)}"
            ) from error
        times = usual(turn.repeat) / turn.every
        if turn.draw == "fresh" and clock_stream in streams:
            images += times * (stage.data.streams[clock_stream].batch or size)
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


def equivalent_images(stages: Sequence[Mapping[str, Any]], index: int = 0) -> float:
    """The images of the stages from ``index`` on, each counted as so many of stage ``index`` as have its multiply-adds:
    divided by the images that this stage takes a second, the time that they need. ``stages``: of :func:`dry_run`. A
    stage without convolutions and matrix products says nothing: then all images count as one."""
    costs = [stage["multiply_adds_a_round"] / stage["images_a_round"] for stage in stages]
    weights = [cost / costs[index] if costs[index] else 1.0 for cost in costs]
    return sum(weight * stage["images"] for weight, stage in zip(weights[index:], stages[index:], strict=True))


def times_played(stage: Stage, networks: Mapping[str, nn.Module], facts: Facts, rounds: int) -> list[int]:
    """How often each of the stage's turns is played in its first ``rounds`` rounds, bursts and skipped rounds as they
    are."""
    turns = build_game(stage, networks, facts).turns()
    return [sum(turn.times(r) for r in range(rounds)) for turn in turns]


def describe(recipe: Recipe, facts: Facts | None = None, micro_batch: int | None = None) -> dict[str, Any]:
    """The cost of a recipe: parameters by network, turns, rounds, images; its pretrained networks, if there are any.
    Nothing is downloaded or trained."""
    if facts is None:
        facts = facts_of(recipe.dataset)
    with mistakes():
        recipe = resolve(recipe, facts)
        networks = build_networks(recipe, device="meta")
    sizes = pretrained_parameters(networks)
    pretrained = {
        n: {"name": p.network.name, "kwargs": encode(p.network.kwargs), "source": p.source, "parameters": sizes[n]}
        for n, p in recipe.pretrained.items()
    }
    return {
        "recipe": recipe.name,
        "dataset": facts.name,
        "parameters": parameters(networks),
        "networks": {n: {"name": s.name, "kwargs": encode(s.kwargs)} for n, s in recipe.networks.items()},
        **({"pretrained": pretrained} if pretrained else {}),
        "images": recipe.images,
        "stages": dry_run(recipe, facts, micro_batch),
    }
