"""Recipes: all that a paper fixes, as frozen data. No torch here, so that ``zoo list`` and ``zoo show`` are quick.

A recipe file (``recipes/wgan_gp.py`` for the model ``wgan-gp``) holds a docstring (citation, then where it departs from
the authors and why) and one function a setting::

    @setting("cifar10", "small")              # the recipe wgan-gp-cifar10-small
    def cifar10_small():
        "One line that `zoo list` shows."
        return Recipe(
            networks={"G": Spec("resnet-generator", width=32), "D": Spec("resnet-discriminator", width=32)},
            stages=(Stage(
                game=Spec("adversarial", loss=Spec("wasserstein"), n_critic=5,
                          penalties=(Spec("gradient-penalty", weight=10.0),)),
                optimizers={"G": Adam(lr=2e-4, betas=(0.0, 0.9)), "D": Adam(lr=2e-4, betas=(0.0, 0.9))},
                images=10_000 * 5 * 32,       # 10k generator steps, 5 critic batches of 32
                batch=32, resolution=32,
            ),),
        )

The first setting of a file is the paper's main one; it also serves data sets that have no setting of their own.
Network arguments ``channels`` and ``resolution`` are filled in from the data where the spec is silent;
``classes="data"`` becomes the number of the data set's classes, and a head's ``features`` those of D.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo.registry import FrozenDict, Registry, Spec, matching, nearest

__all__ = [
    "SGD",
    "Adam",
    "Data",
    "Ema",
    "RMSProp",
    "Schedule",
    "Recipe",
    "Rounds",
    "Spec",
    "Stage",
    "Stream",
    "check",
    "find",
    "from_json",
    "names",
    "override",
    "setting",
    "to_json",
]


class _Data:
    """Frozen data whose mappings are frozen with it, so that a recipe can be hashed and compared."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Mapping) and not isinstance(value, FrozenDict):
                object.__setattr__(self, f.name, FrozenDict(value))
            elif isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))


@dataclass(frozen=True)
class Adam(_Data):
    """Adam (Kingma & Ba 2015). ``weight_decay`` is the L2 term added to the gradient, as in the original code."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class SGD(_Data):
    """Gradient descent with classical momentum. ``dampening``: by how much less than whole a gradient enters it, after the
    first; Torch7's is the momentum itself unless told otherwise, torch's 0."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0


@dataclass(frozen=True)
class RMSProp(_Data):
    """RMSProp with torch's defaults. ``weight_decay``: the L2 term added to the gradient."""

    lr: float
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Schedule(_Data):
    """A value over the real images that the stage has seen, written before each round.

    ``target``: ``optimizers.D.lr`` (a field of a player's optimizer; ``optimizers.*.lr`` for all, ``optimizers.D.betas.0`` for one of a
    pair), ``game.PATH`` (a buffer of the game: ``game.penalties.0.weight``) or ``ema.G.halflife``.
    ``points``: (images, value), ascending; flat before the first and after the last.
    ``shape``: how to pass between points: ``linear``, ``cosine`` (half a period), ``geometric`` (values > 0), ``steps``.
    """

    target: str
    points: tuple[tuple[float, float], ...]
    shape: Literal["linear", "cosine", "geometric", "steps"] = "linear"

    def at(self, images: float) -> float:
        """The value after ``images`` real images of this stage."""
        (left, value), *rest = self.points
        for right, after in rest:
            if images < right:
                if images <= left or self.shape == "steps":
                    return value
                t = (images - left) / (right - left)
                if self.shape == "geometric":
                    return value * (after / value) ** t
                if self.shape == "cosine":
                    t = (1 - math.cos(math.pi * t)) / 2
                return value + (after - value) * t
            left, value = right, after
        return value


@dataclass(frozen=True)
class Rounds(_Data):
    """How often a turn is played in a round: ``base``, save ``first=(n, k)``: k times in the first n rounds, and
    ``every=(n, k)``: k times in each round whose number is a multiple of n (WGAN's bursts of 100)."""

    base: int
    first: tuple[int, int] | None = None
    every: tuple[int, int] | None = None

    def __call__(self, round: int) -> int:
        if self.first and round < self.first[0]:
            return self.first[1]
        if self.every and round % self.every[0] == 0:
            return self.every[1]
        return self.base


@dataclass(frozen=True)
class Ema(_Data):
    """An exponential moving average of a player: what is sampled, scored and shipped. All in real images.

    ``halflife``: after so many images an old weight counts half. Before ``start`` the shadow equals the player.
    ``rampup``: the half-life is at most this fraction of the images seen (0.05 as in StyleGAN2; None: no limit).
    """

    halflife: float
    start: float = 0.0
    rampup: float | None = None


@dataclass(frozen=True)
class Stream(_Data):
    """One stream of real data. ``keys`` renames what the data set yields ({"x": "a"}), ``where`` keeps the rows with
    these labels ({"domain": 0}, {"y": (0, 1)}), ``part=(k, n)`` keeps row k, k+n, k+2n, ... of those (disjoint, unpaired halves),
    ``balanced`` so many of the rest in all, as many of each class ``y``, chosen by the run's seed alone: every stream and
    stage of a run that asks for the same number gets the same rows. ``view`` makes another domain of the images
    (:mod:`zoo.data.views`). ``batch``: rows a draw, where that is not the turn's."""

    split: str = "train"
    keys: Mapping[str, str] = field(default_factory=FrozenDict)
    where: Mapping[str, int | tuple[int, ...]] = field(default_factory=FrozenDict)
    part: tuple[int, int] = (0, 1)
    view: Literal["edges", "inverse"] | None = None
    balanced: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Data(_Data):
    """What is done to the images on their way in.

    ``range``: the values of black and white. ``pad``: zero-pad smaller images up to the stage's resolution instead of
    resizing them. ``load``: store at this size, then crop the stage's resolution at random. ``flip``: mirror half of
    the images. ``dequantize``: add uniform noise of one gray level. ``streams``: by name; the first consumes the
    clock's images.
    """

    range: tuple[float, float] = (-1.0, 1.0)
    pad: bool = False
    load: int | None = None
    flip: bool = False
    dequantize: bool = False
    streams: Mapping[str, Stream] = field(default_factory=lambda: FrozenDict(data=Stream()))


@dataclass(frozen=True)
class Stage(_Data):
    """One game at one resolution, one batch size, one budget.

    ``game``: Spec in GAMES. ``optimizers``: one for each player that learns. ``images``: the budget in real images
    consumed by the whole of all processes. ``batch``: real images a draw, over all processes.
    """

    game: Spec
    optimizers: Mapping[str, Adam | SGD | RMSProp]
    images: int
    batch: int
    resolution: int
    data: Data = Data()
    schedules: tuple[Schedule, ...] = ()


@dataclass(frozen=True)
class Recipe(_Data):
    """All that the paper fixes. ``networks`` persist across the stages; ``ema`` by network; ``model``, ``dataset``,
    ``variant`` are written by :func:`setting`."""

    networks: Mapping[str, Spec]
    stages: tuple[Stage, ...]
    ema: Mapping[str, Ema] = field(default_factory=FrozenDict)
    model: str = ""
    dataset: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        """``model-dataset[-variant]``."""
        return "-".join(filter(None, (self.model, self.dataset.partition(":")[0], self.variant)))

    @property
    def images(self) -> int:
        """The budget of all stages, in real images."""
        return sum(s.images for s in self.stages)

    def replace(self, **changes: Any) -> Recipe:
        return dataclasses.replace(self, **changes)

    def rescaled(self, images: int) -> Recipe:
        """The same recipe with a total budget of ``images``: every stage and every schedule shrinks or grows with it."""
        if images < 1:
            raise ValueError(f"images={images}: must be at least 1")
        factor = images / self.images

        def stage(s: Stage) -> Stage:
            schedules = tuple(
                dataclasses.replace(r, points=tuple((at * factor, v) for at, v in r.points)) for r in s.schedules
            )
            return dataclasses.replace(s, images=max(1, round(s.images * factor)), schedules=schedules)

        return self.replace(stages=tuple(map(stage, self.stages)))


# Settings: finding the recipes ------------------------------------------------------------------------------------

RECIPES: dict[str, dict[str, Any]] = {}  # recipe name -> {"build", "model", "dataset", "variant", "about"}


def setting(dataset: str, variant: str = "") -> Callable[[Callable[[], Recipe]], Callable[[], Recipe]]:
    """Decorator of a function without arguments that returns a :class:`Recipe`. The model's id is the file's name."""

    def add(build: Callable[[], Recipe]) -> Callable[[], Recipe]:
        model = build.__module__.rpartition(".")[2].replace("_", "-")

        def made() -> Recipe:
            return build().replace(model=model, dataset=dataset, variant=variant)

        about = (inspect.getdoc(build) or "").split("\n")[0]
        module = sys.modules[build.__module__]
        entry = dict(build=made, model=model, dataset=dataset, variant=variant, about=about, doc=module.__doc__ or "")
        RECIPES["-".join(filter(None, (model, dataset, variant)))] = entry
        return made

    return add


def _load_all() -> None:
    package = importlib.import_module("zoo.recipes")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        importlib.import_module(f"zoo.recipes.{module.name}")


def names(pattern: str = "*") -> list[str]:
    """The recipes whose name matches a shell pattern (a pattern without wildcards matches inside names)."""
    _load_all()
    return matching(pattern, RECIPES)


def models(pattern: str = "*") -> list[str]:
    """The models that have a recipe."""
    return matching(pattern, {RECIPES[n]["model"] for n in names()})


def load_file(path: str | Path) -> str:
    """Read a recipe file of the user's own; its settings are then known. Returns the model's id."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"recipe file '{path}': no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    model = path.stem.replace("_", "-")
    if not any(e["model"] == model for e in RECIPES.values()):
        raise ValueError(f"recipe file '{path}' holds no function decorated with @setting(dataset)")
    return model


def find(model: str, dataset: str | None = None, variant: str = "") -> Recipe:
    """The recipe of a model on a data set. ``model`` may be a recipe's full name, or the path of a recipe file.

    Where the model has no setting for ``dataset``, its first setting of that variant is taken and its data set
    replaced (compare ``recipe.stages`` with what was asked: nothing else changes but zero-padding, which goes).
    """
    if model.endswith(".py"):
        model = load_file(model)
    else:
        _load_all()
    if model in RECIPES and dataset is None and not variant:
        return RECIPES[model]["build"]()
    entries = [e for e in RECIPES.values() if e["model"] == model]
    if not entries:
        known = {e["model"] for e in RECIPES.values()} | (set(RECIPES) if dataset is None else set())
        raise ValueError(f"unknown model '{model}'{nearest(model, known)} (zoo list models)")
    fitting = [e for e in entries if e["variant"] == variant]
    if not fitting:
        known = sorted({e["variant"] for e in entries} - {""})
        raise ValueError(f"model '{model}' has no variant '{variant}'; it has: {', '.join(known) or 'none'}")
    for entry in fitting:
        if dataset in (None, entry["dataset"]):
            return entry["build"]()
    recipe = fitting[0]["build"]()
    stages = tuple(dataclasses.replace(s, data=dataclasses.replace(s.data, pad=False)) for s in recipe.stages)
    return recipe.replace(dataset=dataset, stages=stages)


# To and from JSON -------------------------------------------------------------------------------------------------

_KINDS = {k.__name__: k for k in (Adam, SGD, RMSProp, Schedule, Rounds, Ema, Stream, Data, Stage, Recipe)}


def encode(value: Any) -> Any:
    """Recipes, specs and their parts as plain JSON values."""
    if isinstance(value, Spec):
        return {"@": "Spec", "name": value.name, "kwargs": encode(value.kwargs)}
    if dataclasses.is_dataclass(value):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"@": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    return [encode(v) for v in value] if isinstance(value, (list, tuple)) else value


def decode(value: Any) -> Any:
    """The inverse of :func:`encode`."""
    if isinstance(value, list):
        return tuple(map(decode, value))
    if not isinstance(value, Mapping):
        return value
    inside = {k: decode(v) for k, v in value.items() if k != "@"}
    kind = value.get("@")
    if kind is None:
        return FrozenDict(inside)
    if kind == "Spec":
        return Spec(inside["name"], **inside["kwargs"])
    if kind not in _KINDS:
        raise ValueError(f"recipe.json: unknown kind '{kind}'{nearest(kind, _KINDS)}")
    return _KINDS[kind](**inside)


def to_json(recipe: Recipe) -> str:
    return json.dumps(encode(recipe), indent=2)


def from_json(text: str) -> Recipe:
    return decode(json.loads(text))


# Changing and checking --------------------------------------------------------------------------------------------


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if args[-1] is ...:
            return all(_fits(v, args[0]) for v in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint).replace("typing.", "")


def _check_types(value: Any, path: str) -> None:
    hints = typing.get_type_hints(type(value))
    for f in dataclasses.fields(value):
        inside, where = getattr(value, f.name), f"{path}.{f.name}".lstrip(".")
        if not _fits(inside, hints[f.name]):
            raise ValueError(f"{where}={inside!r}: must be {_type_name(hints[f.name])}")
        for key, part in _parts(inside):
            if dataclasses.is_dataclass(part) and not isinstance(part, Spec):
                _check_types(part, f"{where}.{key}" if key != "" else where)


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, tuple) else [("", value)]


def check(recipe: Recipe) -> None:
    """ValueError with the key, the value and what would be right, for all that can be told without building anything."""
    _check_types(recipe, "")
    if not recipe.stages:
        raise ValueError("stages=(): a recipe needs at least one stage")
    for i, stage in enumerate(recipe.stages):
        where = f"stages.{i}"
        for key in ("images", "batch"):
            if getattr(stage, key) < 1:
                raise ValueError(f"{where}.{key}={getattr(stage, key)}: must be at least 1")
        if stage.resolution < 0:
            raise ValueError(f"{where}.resolution={stage.resolution}: must be at least 1 (0 for points)")
        if stage.data.load is not None and stage.data.load < stage.resolution:
            raise ValueError(f"{where}.data.load={stage.data.load}: must be at least resolution={stage.resolution}")
        if stage.data.range[0] >= stage.data.range[1]:
            raise ValueError(f"{where}.data.range={stage.data.range}: must ascend")
        if not stage.data.streams:
            raise ValueError(f"{where}.data.streams: must name at least one stream")
        for name, stream in stage.data.streams.items():
            for key in ("balanced", "batch"):
                value = getattr(stream, key)
                if value is not None and value < 1:
                    raise ValueError(f"{where}.data.streams.{name}.{key}={value}: must be at least 1")
        for player, optimizer in stage.optimizers.items():
            if optimizer.lr < 0:
                raise ValueError(f"{where}.optimizers.{player}.lr={optimizer.lr}: must be 0 or more")
        for j, schedule in enumerate(stage.schedules):
            at = [images for images, _ in schedule.points]
            if not at or at != sorted(set(at)):
                raise ValueError(f"{where}.schedules.{j}.points={schedule.points}: must have ascending images")
            if schedule.shape == "geometric" and min(v for _, v in schedule.points) <= 0:
                raise ValueError(
                    f"{where}.schedules.{j}.points={schedule.points}: a geometric schedule needs values above 0"
                )
            if schedule.target.split(".")[0] not in ("optim", "game", "ema"):
                raise ValueError(
                    f"{where}.schedules.{j}.target='{schedule.target}': must begin with optimizers., game. or ema."
                )
    for key, ema in recipe.ema.items():
        if ema.halflife <= 0:
            raise ValueError(f"ema.{key}.halflife={ema.halflife}: must be above 0 images")
        if key not in recipe.networks:
            raise ValueError(f"ema.{key}: no network of that name{nearest(key, recipe.networks)}")


def override(recipe: Recipe, key: str, text: str) -> Recipe:
    """``zoo train --set key=text``: one field changed. ``key`` is a dotted path (``optimizers.D.lr``, ``batch``,
    ``networks.G.width``, ``stages.1.game.loss``); a path that no recipe field begins is sought in the first stage.
    ``text`` is read as JSON where it is JSON, else as a string."""
    try:
        value = decode(json.loads(text))
    except json.JSONDecodeError:
        value = text
    path = key.split(".")
    if path[0] in ("model", "dataset", "variant"):
        raise ValueError(f"--set {key}={text}: '{path[0]}' is chosen on the command line, not set")
    top = {f.name for f in dataclasses.fields(Recipe)}
    in_stage = {f.name for f in dataclasses.fields(Stage)}
    if path[0] not in top:
        if path[0] not in in_stage:
            raise ValueError(f"--set {key}={text}: no such key{nearest(path[0], top | in_stage)}")
        path = ["stages", "0", *path]

    def change(node: Any, path: list[str], done: str) -> Any:
        if not path:
            if isinstance(node, Spec) and isinstance(value, str):
                return Spec(value)
            return value
        head, rest = path[0], path[1:]
        where = f"--set {key}={text}"
        if isinstance(node, Spec):
            registry = _registry_of(done)
            known = dict(registry.parameters(node.name)) if registry else {}
            if head not in node.kwargs and known and head not in known:
                raise ValueError(
                    f"{where}: {registry.kind} '{node.name}' takes no argument '{head}'{nearest(head, known)}"
                )
            default = known[head].default if head in known else None
            old = node.kwargs.get(head, None if default is inspect.Parameter.empty else default)
            new = change(old, rest, f"{done}.{head}")
            if not rest:
                _same_type(where, head, old, new)
            return node.replace(**{head: new})
        if dataclasses.is_dataclass(node):
            fields = {f.name for f in dataclasses.fields(node)}
            if head not in fields:
                raise ValueError(f"{where}: {type(node).__name__} has no '{head}'{nearest(head, fields)}")
            return dataclasses.replace(node, **{head: change(getattr(node, head), rest, f"{done}.{head}")})
        if isinstance(node, Mapping):
            if head not in node:
                raise ValueError(
                    f"{where}: '{head}' is not in {done.lstrip('.')}{nearest(head, node) or ': ' + ', '.join(node)}"
                )
            return FrozenDict({**node, head: change(node[head], rest, f"{done}.{head}")})
        if isinstance(node, (list, tuple)):
            if not head.isdigit() or int(head) >= len(node):
                raise ValueError(f"{where}: {done.lstrip('.')} has entries 0 to {len(node) - 1}, not '{head}'")
            i = int(head)
            return (*node[:i], change(node[i], rest, f"{done}.{head}"), *node[i + 1 :])
        raise ValueError(f"{where}: {done.lstrip('.')} is {node!r} and has no '{head}' inside")

    changed = change(recipe, path, "")
    check(changed)
    return changed


def _same_type(where: str, key: str, old: Any, new: Any) -> None:
    if old is None or isinstance(old, (Spec, Mapping)) or dataclasses.is_dataclass(old):
        return
    kind = float if isinstance(old, float) else int if isinstance(old, int) and not isinstance(old, bool) else type(old)
    if isinstance(new, Rounds) or (kind is tuple and isinstance(new, tuple)):
        return
    if not _fits(new, kind):
        raise ValueError(f"{where}: {key} must be {kind.__name__}, as now {old!r}")


def _registry_of(path: str) -> Registry | None:
    from zoo import registry

    places = {"networks": "NETWORKS", "game": "GAMES", "loss": "LOSSES", "penalties": "PENALTIES", "prior": "PRIORS"}
    for part in reversed(path.split(".")):
        if part in places:
            return getattr(registry, places[part])
    return None
