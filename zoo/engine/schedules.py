"""Schedules: values over the images seen, written into optimizers, buffers and averages before each round."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch

from zoo.engine.ema import EmaNetworks
from zoo.engine.step import Learner
from zoo.recipe import Schedule
from zoo.registry import nearest

Place = tuple[Hashable, ...]  # of a number that a schedule writes, the same for all targets that mean it
Setter = tuple[Place, Callable[[float], None]]


class Schedules:
    """The schedules of a stage, bound to what they write. Raises ValueError if a target does not exist, or if two
    schedules write the same number: its value would depend on which of them changed last."""

    def __init__(self, schedules: Sequence[Schedule], learner: Learner, ema_networks: EmaNetworks):
        self.bound: list[tuple[Schedule, Callable[[float], None]]] = []
        targets: dict[Place, str] = {}
        for schedule in schedules:
            for place, write in _setters(schedule, learner, ema_networks):
                if place in targets:
                    both = " and ".join(dict.fromkeys((targets[place], schedule.target)))
                    raise ValueError(f"schedules: two of them write the same number ({both}); leave one out")
                targets[place] = schedule.target
                self.bound.append((schedule, write))
        self._last: list[float | None] = [None] * len(self.bound)

    def write(self, images: int) -> None:
        """Set every target to its value after ``images`` real images of the stage."""
        for i, (schedule, write) in enumerate(self.bound):
            value = schedule.at(images)
            if value != self._last[i]:
                write(value)
                self._last[i] = value


def _setters(schedule: Schedule, learner: Learner, ema_networks: EmaNetworks) -> list[Setter]:
    target = schedule.target
    kind, _, rest = target.partition(".")
    if kind == "game":
        buffers = dict(learner.game.named_buffers())
        if rest not in buffers:
            raise ValueError(
                f"schedule target '{target}': must be a buffer of the game, got '{rest}'{nearest(rest, buffers)}"
            )
        buffer = buffers[rest]
        if learner.game.adapts and buffer is getattr(learner.game.augment, "p", None):
            raise ValueError(f"schedule target '{target}': p is adapted to game.augment.target; leave one of both out")
        return [(("buffer", id(buffer)), lambda value: _fill(buffer, value))]
    if kind == "ema":
        name, _, field = rest.rpartition(".")
        if name not in ema_networks or field != "halflife":
            targets = ", ".join(f"ema.{n}.halflife" for n in ema_networks)
            raise ValueError(f"schedule target '{target}': must be one of {targets or '(the recipe has no ema)'}")
        return [(("ema", name, field), lambda value: setattr(ema_networks[name], field, value))]
    of_optimizers = schedule.optimizers(learner.optimizers)
    if of_optimizers is not None:
        players, path = of_optimizers
        field, _, index = path.partition(".")
        groups = [g for player in players for g in learner.optimizers[player].param_groups]
        return [(("optimizer", id(g), field, index), _field(target, g, field, index)) for g in groups]
    targets = ", ".join(f"optimizers.{p}." for p in learner.optimizers)
    raise ValueError(f"schedule target '{target}': must begin with one of {targets}")


def _field(target: str, group: dict[str, Any], field: str, index: str) -> Callable[[float], None]:
    """A setter of a number, or (``index``) of one of a pair of numbers, in an optimizer's group."""
    numbers = {k for k, v in group.items() if isinstance(v, (float, tuple))}
    if field not in numbers:
        raise ValueError(f"schedule target '{target}': this optimizer has no '{field}'{nearest(field, numbers)}")
    pair = group[field] if isinstance(group[field], tuple) else ()
    indices = [str(i) for i in range(len(pair))]
    if index not in (indices or ("",)):
        endings = " or ".join(f"{field}.{i}" for i in indices) or field
        raise ValueError(f"schedule target '{target}': must end with {endings}")

    def write(value: float) -> None:
        if pair:
            group[field] = tuple(value if str(i) == index else old for i, old in enumerate(group[field]))
        else:
            group[field] = value

    return write


def _fill(buffer: torch.Tensor, value: float) -> None:
    buffer.fill_(value)
