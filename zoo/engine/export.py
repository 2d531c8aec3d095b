"""The Model that a run leaves behind, and its weights file."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from zoo import hub
from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.engine.ema import EmaNetworks
from zoo.engine.runtime import versions
from zoo.engine.stage import shipped
from zoo.game import Batch, Game
from zoo.models import Model, build_model
from zoo.models.base import task_of
from zoo.pretrained import attach
from zoo.recipe import Recipe, encode


def model_of(game: Game, ema_networks: EmaNetworks, spec: Mapping[str, Any]) -> Model:
    """The Model that the game would leave now: of each network the EMA weights if there are any, else its own."""
    networks = {n: ema_networks[n].network if n in ema_networks else game.get_submodule(n) for n in spec["networks"]}
    model = build_model(spec, networks)
    attach(model, spec, dict(game.named_children()))
    return model


def uses(spec: Mapping[str, Any], path: str | Path) -> list[str]:
    """The commands that use the weights of a model spec, by its task. ``path``: of the run or file."""
    shipped = str(path) in hub.index()  # the name alone would mean the shipped ones
    return task_of(spec).commands(spec, os.path.join(".", path) if shipped else str(path))


def finished_model(game: Game, ema_networks: EmaNetworks, spec: Mapping[str, Any], draw: Callable[[], Batch]) -> Model:
    """The Model as it is shipped. A game that finishes does so on a copy, and standing statistics are those of a copy,
    so that training does not change. One process does it, inside :func:`zoo.parallel.main_process_only`."""
    if type(game).finish is not Game.finish:
        game = copy.deepcopy(game)
        for name, ema_network in ema_networks.items():
            game.get_submodule(name).load_state_dict(ema_network.network.state_dict())
        with torch.no_grad():
            game.finish(draw)
        ema_networks = EmaNetworks({}, {})
    model = model_of(game, ema_networks, spec)
    if model.sampling.standing:
        model = copy.deepcopy(model)
        model.accumulate_statistics()
    return model


def card(recipe: Recipe, facts: Facts, spec: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights file says of itself. ``run``: images, seconds, seed."""
    streams = [stream for stage in recipe.stages for stream in stage.data.streams.values()]
    own = [facts_of(name) for name in dict.fromkeys(s.dataset for s in streams if s.dataset)]
    others = [{"name": f.name, "license": f.license} for f in own]
    return {
        "name": recipe.name,
        "model": dict(spec),
        "recipe": encode(recipe),
        "dataset": {"name": facts.name, "license": facts.license},
        **({"datasets_of_streams": others} if others else {}),
        **run,
        "metrics": {},
        "versions": versions(),
    }


def export(
    path: Path,
    game: Game,
    ema_networks: EmaNetworks,
    recipe: Recipe,
    stage_index: int,
    facts: Facts,
    draw: Callable[[], Batch],
    run: Mapping[str, Any],
) -> None:
    """Write the weights file."""
    spec = shipped(game, recipe, recipe.stages[stage_index], facts)
    model = finished_model(game, ema_networks, spec, draw)
    networks = {n: model.networks[n] for n in spec["networks"]}
    facts_of_run = {**run, "checkpoint": "last"}  # a run never chooses one by its score
    hub.save_weights(path, networks, card(recipe, facts, spec, facts_of_run))
