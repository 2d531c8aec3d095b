"""Checks of a recipe, and ``--set``: one field of a recipe changed. No torch here."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from zoo.recipe import Pretrained, Recipe, Rounds, Schedule, Stage, Stream, decode
from zoo.registry import FrozenDict, Registry, Spec, nearest

MAX_NUMBER = 10**15  # of whole numbers in a recipe
POINT = r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?"  # numbers as people write them, but JSON does not: .5 and 5.


def fits(value: object, hint: Any) -> bool:
    """Whether a value has the type of a type hint."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if args[-1] is ...:
            return all(fits(v, args[0]) for v in value)
        return len(value) == len(args) and all(map(fits, value, args))
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def type_name(hint: Any) -> str:
    """A type hint in words."""
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint).replace("typing.", "")


def _check_types(value: Any, path: str) -> None:
    hints = typing.get_type_hints(type(value))
    for f in dataclasses.fields(value):
        field, where = getattr(value, f.name), f"{path}.{f.name}".lstrip(".")
        if not fits(field, hints[f.name]):
            raise ValueError(f"{where}={field!r}: must be {type_name(hints[f.name])}")
        for key, part in _parts(field):
            if dataclasses.is_dataclass(part) and not isinstance(part, Spec):
                _check_types(part, f"{where}.{key}" if key != "" else where)


def _parts(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, tuple) else [("", value)]


def _check_finite(value: Any, path: str) -> None:
    """Raises ValueError for a number, at any depth, that is NaN, infinite or too large to count with."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}={value}: must be a finite number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ValueError(f"{path}={str(value)[:50]}: must be at most {MAX_NUMBER:.0e}")
    if isinstance(value, Spec):
        value = value.kwargs
    elif dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (Mapping, tuple, list)):
        for key, part in _parts(tuple(value) if isinstance(value, list) else value):
            _check_finite(part, f"{path}.{key}".lstrip("."))


def check(recipe: Recipe) -> None:
    """Check what needs no network and no data. Raises ValueError with the key, the value and the expected one."""
    _check_types(recipe, "")
    _check_finite(recipe, "")
    if not recipe.stages:
        raise ValueError("stages=(): a recipe needs at least one stage")
    for i, stage in enumerate(recipe.stages):
        _check_stage(stage, f"stages.{i}")
    for key, ema in recipe.ema.items():
        if ema.halflife <= 0:
            raise ValueError(f"ema.{key}.halflife={ema.halflife}: must be above 0 images")
        if ema.rampup is not None and ema.rampup <= 0:
            raise ValueError(f"ema.{key}.rampup={ema.rampup}: must be above 0, or null for none")
        if key not in recipe.networks:
            raise ValueError(f"ema.{key}: must name a network{nearest(key, recipe.networks)}")
    for name, pretrained in recipe.pretrained.items():
        check_pretrained(name, pretrained)
        if name in recipe.networks:
            raise ValueError(
                f"pretrained.{name}: must have another name than the networks {', '.join(recipe.networks)}"
            )
    for i, stage in enumerate(recipe.stages):
        _check_use_of_pretrained(stage, recipe.pretrained, f"stages.{i}")


# A segment never begins with a dot, so that no source leaves its folder.
_SOURCE = re.compile(
    r"(?:timm|torchvision):\w[\w.-]*|hf:\w[\w.-]*/\w[\w.-]*(?:(?:/\w[\w.-]*)+\.safetensors)?|"
    r"package:\w+(?:/\w[\w.-]*)+\.safetensors|\w[\w.-]*"
)


def check_pretrained(name: str, pretrained: Pretrained) -> None:
    """Raises ValueError if the field has another type than declared, or the source another form."""
    _check_types(pretrained, f"pretrained.{name}")
    if pretrained.source and not _SOURCE.fullmatch(pretrained.source):
        forms = (
            "NAME, hf:OWNER/NAME, hf:OWNER/NAME/FILE.safetensors, timm:NAME, torchvision:WEIGHTS or "
            "package:MODULE/FILE.safetensors"
        )
        raise ValueError(f"pretrained.{name}.source='{pretrained.source}': must be {forms}")


def _check_use_of_pretrained(stage: Stage, pretrained: Mapping[str, Pretrained], where: str) -> None:
    for player in stage.optimizers:
        if player.partition(".")[0] in pretrained:
            raise ValueError(f"{where}.optimizers.{player}: a pretrained network does not learn; leave it out")
    for name, stream in stage.data.streams.items():
        for key, derived in stream.derived.items():
            field = f"{where}.data.streams.{name}.derived.{key}"
            if derived.network not in pretrained:
                near = nearest(derived.network, pretrained)
                raise ValueError(f"{field}.network='{derived.network}': must name a pretrained network{near}")
            if key in stream.keys.values():
                raise ValueError(f"{field}: must have another name than the stream's fields")
            if derived.mean < 1:
                raise ValueError(f"{field}.mean={derived.mean}: must be at least 1 caption")


def _check_stage(stage: Stage, where: str) -> None:
    data = stage.data
    for key in ("images", "batch", "accumulate"):
        if getattr(stage, key) < 1:
            raise ValueError(f"{where}.{key}={getattr(stage, key)}: must be at least 1")
    if stage.level is not None and stage.level < 0:
        raise ValueError(f"{where}.level={stage.level}: must be 0 or more")
    if stage.resolution < 0:
        raise ValueError(f"{where}.resolution={stage.resolution}: must be at least 1 (0 for points)")
    if data.load is not None and data.pad:
        raise ValueError(f"{where}.data.load={data.load}: must be left out with data.pad, which crops nothing")
    if data.load is not None and data.load < stage.resolution:
        raise ValueError(f"{where}.data.load={data.load}: must be at least resolution={stage.resolution}")
    if data.range[0] >= data.range[1]:
        raise ValueError(f"{where}.data.range={data.range}: must ascend")
    if not data.streams:
        raise ValueError(f"{where}.data.streams: must name at least one stream")
    for name, stream in data.streams.items():
        for key in ("balanced", "batch"):
            value = getattr(stream, key)
            if value is not None and value < 1:
                raise ValueError(f"{where}.data.streams.{name}.{key}={value}: must be at least 1")
        if stream.labeled is not None and not 0 < stream.labeled <= 1:
            raise ValueError(f"{where}.data.streams.{name}.labeled={stream.labeled}: must be above 0 and at most 1")
        if stream.aligned is not None:
            _check_aligned(data.streams, name, f"{where}.data.streams.{name}")
    for player, optimizer in stage.optimizers.items():
        for key in ("lr", "eps", "weight_decay", "momentum"):
            if getattr(optimizer, key, 0) < 0:
                raise ValueError(f"{where}.optimizers.{player}.{key}={getattr(optimizer, key)}: must be 0 or more")
        for k, beta in enumerate(getattr(optimizer, "betas", ())):
            if not 0 <= beta < 1:
                raise ValueError(f"{where}.optimizers.{player}.betas.{k}={beta}: must be at least 0 and below 1")
        for key in ("clip", "nan_to_num"):
            value = getattr(optimizer, key)
            if value is not None and value <= 0:
                raise ValueError(f"{where}.optimizers.{player}.{key}={value}: must be above 0")
    for j, schedule in enumerate(stage.schedules):
        field = f"{where}.schedules.{j}"
        at = [images for images, _ in schedule.points]
        if not at or at != sorted(set(at)):
            raise ValueError(f"{field}.points={schedule.points}: must have ascending images")
        if schedule.shape == "geometric" and min(v for _, v in schedule.points) <= 0:
            raise ValueError(f"{field}.points={schedule.points}: must have values above 0 if the shape is geometric")
        if schedule.target.split(".")[0] not in ("optimizers", "game", "ema"):
            raise ValueError(f"{field}.target='{schedule.target}': must begin with optimizers., game. or ema.")


def _check_aligned(streams: Mapping[str, Stream], name: str, where: str) -> None:
    """Raises ValueError unless the stream can be drawn together with the one that it names in ``aligned``."""
    stream, aligned = streams[name], streams[name].aligned
    assert aligned is not None
    others = [n for n, s in streams.items() if n != name and s.aligned is None]
    if aligned not in others:
        raise ValueError(
            f"{where}.aligned='{aligned}': must name another stream that is not aligned itself"
            f"{nearest(aligned, others)}"
        )
    for key in ("batch", "part", "balanced"):
        own, other = getattr(stream, key), getattr(streams[aligned], key)
        if own != other:
            raise ValueError(f"{where}.{key}={own}: must be that of '{aligned}', {other}")


def override(recipe: Recipe, key: str, text: str) -> Recipe:
    """The recipe with one field changed (``zoo train --set key=text``), as by :func:`override_all`."""
    return override_all(recipe, [f"{key}={text}"])


def override_all(recipe: Recipe, texts: Iterable[str], images: int | None = None) -> Recipe:
    """The recipe with the changes ``KEY=VALUE`` of ``--set``, one after the other. ``images``: the budget that it will
    be rescaled to, if any.

    ``KEY``: a dotted path (``optimizers.D.lr``, ``batch``, ``networks.G.width``, ``stages.1.game.loss``); a path that
    does not start with a field of the recipe is one of the first stage. ``VALUE``: JSON, a number such as ``.5``, else
    a string.
    Raises ValueError for another text, if there is no such field, the value does not fit, or a schedule would replace
    it at once.
    """
    result = recipe
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {text}: must be KEY=VALUE, as in --set optimizers.D.lr=1e-4")
        result = _override(result, key, value)
    if result is not recipe:
        check(result)
        _check_schedules(recipe, result)
        budget = [stage.images for stage in result.stages]
        if images is not None and len(budget) == 1 and budget != [stage.images for stage in recipe.stages]:
            raise ValueError(f"--set images={budget[0]}: has no effect with --images {images}; give one of them")
    return result


def _override(recipe: Recipe, key: str, text: str) -> Recipe:
    path = key.split(".")
    where = f"--set {key}={text}"
    try:
        value = decode(json.loads(text))
    except json.JSONDecodeError:
        value = float(text) if re.fullmatch(POINT, text) else text
    except (ValueError, RecursionError) as error:  # an unknown kind, a number of too many digits, deep nesting
        raise ValueError(f"{where[:200]}: {error}") from None
    if path[0] in ("model", "dataset", "variant"):
        raise ValueError(f"{where}: must be a field of the recipe; '{path[0]}' is chosen on the command line")
    top = {f.name for f in dataclasses.fields(Recipe)}
    in_stage = {f.name for f in dataclasses.fields(Stage)}
    if path[0] not in top:
        if path[0] not in in_stage:
            raise ValueError(f"{where}: no such key{nearest(path[0], top | in_stage)}")
        path = ["stages", "0", *path]
    return _replace(recipe, path, value, "", where)


def _check_schedules(before: Recipe, after: Recipe) -> None:
    """Raises ValueError if a value was changed that a schedule sets in all stages, so that the change has no effect."""
    if len(before.stages) != len(after.stages):
        return
    for i, (old, new) in enumerate(zip(before.stages, after.stages, strict=True)):
        for j, schedule in enumerate(new.schedules):
            if schedule not in old.schedules:
                continue  # it was changed too
            of_recipe = schedule.target.startswith("ema.")
            if of_recipe and not all(schedule.target in (s.target for s in stage.schedules) for stage in after.stages):
                continue
            roots = (before, after) if of_recipe else (old, new)
            for path in _places(schedule, new):
                was, value = (_value(root, path) for root in roots)
                if value != was:
                    key = ".".join(path if of_recipe or not i else ("stages", str(i), *path))
                    name, points = f"{f'stages.{i}.' if i else ''}schedules.{j}", json.dumps(schedule.points)
                    raise ValueError(
                        f"--set {key}={value}: has no effect, since {name} sets it; change {name}.points, {points}"
                    )


def at_start(recipe: Recipe) -> Recipe:
    """The recipe with the values of optimizers that its schedules write before the first image. Recipes that differ
    only in what a schedule replaces at once are equal then."""
    for i, stage in enumerate(recipe.stages):
        for schedule in stage.schedules:
            for path in _places(schedule, stage) if schedule.optimizers(stage.optimizers) else ():
                keys = ["stages", str(i), *".".join(path).split(".")]
                recipe = _replace(recipe, keys, schedule.at(0), "", schedule.target)
    return recipe


def _places(schedule: Schedule, stage: Stage) -> list[tuple[str, ...]]:
    """The paths of the fields that a schedule writes; a player's name is one part of it."""
    target = schedule.optimizers(stage.optimizers)
    if target is None:
        return [tuple(schedule.target.split("."))]
    players, field = target
    return [("optimizers", player, *field.split(".")) for player in players]


def _value(node: Any, path: Sequence[str]) -> Any:
    """What a recipe has at a path, None if it has nothing there."""
    for part in path:
        if isinstance(node, Spec):
            node = node.kwargs
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, (list, tuple)):
            node = node[int(part)] if part.isdigit() and int(part) < len(node) else None
        else:
            node = getattr(node, part, None)
    return node


def _replace(node: Any, path: list[str], value: Any, parent: str, where: str) -> Any:
    """``node``, which is at the path ``parent`` of the recipe, with ``value`` at ``path`` inside it."""
    if not path:
        part = isinstance(node, Spec) or (node is None and parent.rpartition(".")[2] in PLACES)
        return Spec(value) if part and isinstance(value, str) else value
    head, rest = path[0], path[1:]

    def inner(child: Any) -> Any:
        return _replace(child, rest, value, f"{parent}.{head}".lstrip("."), where)

    if isinstance(node, Spec):
        old = _argument(node, head, parent, where)
        new = inner(old)
        if not rest:
            _check_same_type(where, head, old, new)
        # A default that is given stays a default: the recipe is the same
        return node if type(new) is type(old) and new == old else node.replace(**{head: new})
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {f.name for f in dataclasses.fields(node)}
        if head not in fields:
            raise ValueError(f"{where}: {type(node).__name__} has no '{head}'{nearest(head, fields)}")
        return dataclasses.replace(node, **{head: inner(getattr(node, head))})
    if isinstance(node, Mapping):
        names = [".".join(path[:n]) for n in range(len(path), 0, -1)]  # the name of a player may have dots
        name = next((n for n in names if n in node), None)
        if name is None:
            raise ValueError(f"{where}: '{head}' is not in {parent}{nearest(head, node) or ': ' + ', '.join(node)}")
        rest = path[name.count(".") + 1 :]
        new = _replace(node[name], rest, value, f"{parent}.{name}".lstrip("."), where)
        return FrozenDict({**node, name: new})
    if isinstance(node, (list, tuple)):
        if not head.isdigit() or int(head) >= len(node):
            raise ValueError(f"{where}: {parent} must have an index from 0 to {len(node) - 1}, got '{head}'")
        i = int(head)
        return (*node[:i], inner(node[i]), *node[i + 1 :])
    raise ValueError(f"{where}: {parent} is {node!r} and has no '{head}'")


def _argument(spec: Spec, name: str, parent: str, where: str) -> Any:
    """The value of an argument of a spec, or its default. Raises ValueError if the builder takes no such argument."""
    registry = _registry_of(parent)
    if registry is None:
        return spec.kwargs.get(name)
    parameters = registry.parameters(spec.name)
    if name in spec.kwargs:
        return spec.kwargs[name]
    if name in parameters:
        default = parameters[name].default
        return None if default is inspect.Parameter.empty else default
    if parameters:
        message = f"{registry.kind} '{spec.name}' takes no argument '{name}'{nearest(name, parameters)}"
        raise ValueError(f"{where}: {message}")
    return None


def _check_same_type(where: str, key: str, old: object, new: object) -> None:
    if old is None or isinstance(old, (Spec, Mapping)) or dataclasses.is_dataclass(old):
        return
    kind = float if isinstance(old, float) else int if isinstance(old, int) and not isinstance(old, bool) else type(old)
    if isinstance(new, Rounds) or (kind is tuple and isinstance(new, tuple)):
        return
    if not fits(new, kind):
        raise ValueError(f"{where}: {key} must be {kind.__name__}, as {old!r} is")


PLACES = {  # fields with the specs of a registry
    "networks": "NETWORKS",
    "pretrained": "NETWORKS",
    "game": "GAMES",
    "loss": "LOSSES",
    "penalties": "PENALTIES",
    "heads": "HEADS",
    "prior": "PRIORS",
    "augment": "AUGMENTATIONS",
}


def _registry_of(path: str) -> Registry | None:
    from zoo import registry

    for part in reversed(path.split(".")):
        if part in PLACES:
            return getattr(registry, PLACES[part])
    return None
