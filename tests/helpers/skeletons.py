"""What the skeletons of tests/skeletons are made of: a network and a game of one line each, generated rows."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from helpers.play import play, session, weights
from zoo.data import facts as facts_of
from zoo.engine.dry_run import dry_run
from zoo.engine.stage import StageRun, resolve
from zoo.game import Game
from zoo.recipe import Adam, Recipe, Stage
from zoo.registry import NETWORKS, Spec

FOLDER = Path(__file__).resolve().parents[1] / "skeletons"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
ROUNDS = 2


def network(cls: type[nn.Module]) -> type[nn.Module]:
    """Decorator: register a network of a skeleton; ``cls.spec`` is its Spec without arguments."""
    name = f"test-{cls.__module__}.{cls.__qualname__}"
    NETWORKS.register(name)(cls)
    cls.spec = Spec(name)
    return cls


def planes(condition: Tensor, x: Tensor) -> Tensor:
    """A condition [N, K] as maps [N, K, H, W] of the size of x; one that is an image stays as it is."""
    return condition if condition.dim() == 4 else condition[:, :, None, None].expand(-1, -1, *x.shape[2:])


@network
class Patches(nn.Module):
    """A discriminator of images [N, channels, H, W] and conditions with ``given`` channels: features [N, 8, H/2, W/2],
    a score for each patch, and, for a head on images of 8 x 8, a layer ``classes`` [N, classes]."""

    def __init__(self, channels: int, given: int = 0, classes: int = 1):
        super().__init__()
        self.given = given
        self.first, self.last = nn.Conv2d(channels + given, 8, 4, 2, 1), nn.Conv2d(8, 1, 3)
        self.classes = nn.Sequential(nn.Conv2d(8, classes, 4), nn.Flatten())

    def features(self, x: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        conditions = [planes(value, x) for key, value in given.items() if self.given and key != "x"]
        return leaky_relu(self.first(torch.cat([x, *conditions], 1)), 0.2)

    def score(self, features: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self.last(features)


@network
class Several(nn.ModuleList):
    """``count`` networks of one kind: players "D.0", "D.1", ..."""

    def __init__(self, part: Spec, count: int):
        super().__init__(NETWORKS.build(part) for _ in range(count))


@network
class Crossed(Several):
    """Networks of two halves each: an image of the domain a becomes one of b by the first half of a's network and the
    second half of b's. ``domain``: float [N, 2], the same pair for all."""

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        a, b = domain[0].long().tolist()
        return self[b][1](self[a][0](x))


class Play(Game):
    """A game whose class says what it ships."""

    ship: Mapping[str, Any]

    def ships(self) -> dict[str, Any]:
        return dict(self.ship)


def translates(domains: Mapping[str, Any]) -> dict[str, Any]:
    """What a game ships if one G makes images of several domains. ``domains``: what G gets beside x, by name."""
    to = {name: {"network": "G", "domain": domain} for name, domain in domains.items()}
    return {"kind": "translate", "networks": ["G"], "to": to}


def stage(spec: Spec, players: str, *, batch: int = 4, resolution: int = 8, **more: Any) -> Stage:
    """A stage whose players, "G D", learn with Adam. Its budget is set when the skeleton is loaded."""
    adam = dict.fromkeys(players.split(), Adam(1e-3))
    return Stage(game=spec, optimizers=adam, images=batch, batch=batch, resolution=resolution, **more)


def rows(n: int = 24, side: int = 8, channels: int = 3, **columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    """A data set of n random images ``x`` [channels, side, side], which opens at any resolution, and other columns as
    functions of the row's number; their values give the types of the fields (zoo.data.fields.infer)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, channels, side, side), generator=generator, dtype=torch.uint8)
    return [{"x": x[i], **{key: value(i) for key, value in columns.items()}} for i in range(n)]


def load(name: str) -> tuple[Recipe, Any, Any]:
    """The recipe of a skeleton with ``ROUNDS`` rounds of every stage, its data and its module."""
    module = importlib.import_module(f"skeletons.{name}")
    recipe, data = module.recipe(), module.data()
    facts = facts_of(data)
    plans = dry_run(resolve(recipe, facts), facts)
    stages = [
        recipe.replace(stages=(stage,)).rescaled(int(ROUNDS * plan["images_a_round"])).stages[0]
        for stage, plan in zip(recipe.stages, plans, strict=True)
    ]
    return recipe.replace(stages=tuple(stages)), data, module


def lines_of_code(path: Path) -> int:
    """Lines that are not blank, without docstrings, comments, imports and the function ``check``."""
    source, skip = path.read_text(encoding="utf-8"), set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        check = isinstance(node, ast.FunctionDef) and node.name == "check"
        if text or check or isinstance(node, (ast.Import, ast.ImportFrom)):
            skip |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for i, line in lines if i not in skip and line.strip() and not line.strip().startswith("#"))


def play_stages(recipe: Recipe, data: Any) -> list[StageRun]:
    """All stages, ``ROUNDS`` rounds of each, one after the other on the same networks. After every step: what belongs
    to no player of the turn has not moved. Returns the runs; ``run.moved`` are the players that moved."""
    runs: list[StageRun] = []
    for index in range(len(recipe.stages)):
        run = session(recipe, data, stage=index, after=runs[-1] if runs else None)
        watch(run)
        play(run, ROUNDS)
        runs.append(run)
    return runs


def watch(run: StageRun) -> None:
    """Check each step of a run: what moves belongs to its players, all is finite; ``run.moved`` gets who moved."""
    game, original, run.moved = run.game, run.learner.play, set()
    networks = {name for name, child in game.named_children() if any(True for _ in child.parameters())}

    def step(turn, batch, round):
        before = weights(game)
        losses = original(turn, batch, round)
        after = game.state_dict()
        parameters = {name for name, _ in game.named_parameters()}
        for key in (k for k, v in before.items() if not torch.equal(v, after[k])):
            player = next((p for p in turn.players if key.startswith(p + ".")), None)
            if key in parameters:
                assert player, f"{key} moved in the turn of {', '.join(turn.players)}"
                run.moved.add(player)
            elif key.partition(".")[0] in networks:  # a buffer of a network; others are the game's memory
                assert any(key.startswith(p + ".") for p in run.learner.players), f"{key} is frozen and moved"
        values = {**after, **losses}
        assert all(v.isfinite().all() for v in values.values()), f"a value of {', '.join(turn.players)} is not finite"
        return losses

    run.learner.play = step
