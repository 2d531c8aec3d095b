"""Bytes, before anything is trained: of a step's activations, which it keeps from its forward pass for the backward
pass, and of the weights file."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from zoo.data import Facts
from zoo.engine.dry_run import meta_batch, meta_turns, mistakes
from zoo.engine.stage import build_game, build_networks, resolve
from zoo.engine.step import Learner
from zoo.game import Batch
from zoo.recipe import Recipe


class SavedForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Inside it, the tensors that autograd keeps for the backward pass are counted: ``bytes``, each storage once,
    without the ``module``'s own parameters and buffers.

    ``torch.func.grad``, by which penalties take the gradient of D's input, refuses such hooks, since one that changes
    what is kept would be wrong in it. This one changes nothing, so that the refusal is switched off inside."""

    def __init__(self, module: nn.Module):
        own = [*module.parameters(), *module.buffers()]
        self.ignored = {t.untyped_storage()._cdata for t in own}
        self.storages: dict[int, torch.UntypedStorage] = {}  # alive, so that no other one gets its number
        self.allowed = mock.patch.object(torch.autograd.graph, "disable_saved_tensors_hooks", contextlib.nullcontext)
        super().__init__(self.pack, lambda tensor: tensor)

    def __enter__(self) -> SavedForBackward:  # type: ignore[override]  # torch's returns nothing
        self.allowed.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.allowed.stop()

    def pack(self, tensor: Tensor) -> Tensor:
        storage = torch.func.debug_unwrap(tensor).untyped_storage()  # of torch.func.grad's tensors the one within
        if storage._cdata not in self.ignored:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def activations(recipe: Recipe, facts: Facts, batch: int | None = None) -> list[list[dict[str, Any]]]:
    """Of each turn of each stage the players, the batch and ``bytes``, the activation memory of one of its steps,
    computed on ``meta``. ``batch``: another one than the stages'. An accumulated batch has the bytes of a part.

    Raises ValueError if the recipe's parts do not fit each other or the data.
    """
    recipe = resolve(recipe, facts)
    if batch is not None:
        recipe = recipe.replace(stages=tuple(dataclasses.replace(s, batch=batch) for s in recipe.stages))
    with mistakes():
        networks = build_networks(recipe, device="meta")
        return [_of_stage(recipe, i, networks, facts) for i in range(len(recipe.stages))]


def _of_stage(recipe: Recipe, index: int, networks: dict[str, nn.Module], facts: Facts) -> list[dict[str, Any]]:
    stage = recipe.stages[index]
    with torch.device("meta"):
        game = build_game(stage, networks, facts)
        learner = Learner(game, stage, device="meta")
    values = Batch(stage.batch, device="meta")
    values.update(meta_batch(stage, facts, stage.batch, networks=networks))
    with torch.no_grad():
        game.prepare(values)
    result = []
    for turn, batch, _ in meta_turns(learner, stage, facts, networks):
        with SavedForBackward(game) as saved:
            learner.play(turn, batch, 0)
        result.append({"players": list(turn.players), "batch": batch.size, "bytes": saved.bytes // stage.accumulate})
    return result


def weights_file(recipe: Recipe, facts: Facts) -> dict[str, Any]:
    """The ``networks`` that the recipe's weights file would have, and the bytes of their tensors in ``float32`` and in
    ``half`` precision, computed on ``meta``; the file's header of some kB is not counted.

    Raises ValueError if the recipe's parts do not fit each other or the data.
    """
    recipe = resolve(recipe, facts)
    with mistakes(), torch.device("meta"):
        game = build_game(recipe.stages[-1], build_networks(recipe, device="meta"), facts)
    names = list(game.ships()["networks"])
    tensors = [t for name in names for t in game.get_submodule(name).state_dict().values()]
    total = sum(t.nbytes for t in tensors)
    floats = sum(t.nbytes for t in tensors if t.is_floating_point())
    return {"networks": names, "float32": total, "half": total - floats // 2}
