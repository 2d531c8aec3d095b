"""Which setting of a model trains on data that it has no setting for: by the data alone, never by the machine.

Needs no torch for registered names, folders and archives.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import costs, settings
from zoo.checks import excerpt
from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.data.fields import Label
from zoo.data.folder import open_folder
from zoo.recipe import Recipe, Spec, Stream
from zoo.registry import DATASETS

REDUCED = 1e14  # multiply-adds; settings below it train on a CPU in minutes
MANY = 50_000  # images; a larger set is worth a full setting


@dataclass(frozen=True)
class Choice:
    """The recipe for some data, and the settings around it.

    ``note``: how it was chosen, '' if it is the model's own setting for the data. ``larger``, ``smaller``: names of the
    settings with the next larger and smaller cost that fit the data, '' if there is none.
    """

    recipe: Recipe
    note: str = ""
    larger: str = ""
    smaller: str = ""


def choose(model: str, dataset: Any = None, variant: str = "") -> Choice:
    """The setting for a data set: the model's own if it has one, otherwise the one that fits the data best.

    These rank the model's settings, the first that differ decide: fields, and domains, that the setting needs and the
    data have; as many channels; a reduced setting for fewer than 50,000 images, a full one for more; no larger
    resolution than the images; the nearest resolution.

    Args:
        model: a model's id, a recipe's name (which is then taken, whatever the data), or the path of a recipe file.
        dataset: as :func:`zoo.data.open_data` takes it; None: that of the setting.
        variant: only settings of this variant; by default all, if the model has no setting for the data.

    Raises ValueError for an unknown model, variant or data set.
    """
    if not isinstance(model, (str, Path)):
        raise ValueError(f"model={excerpt(model)}: must be a model's name or the path of a recipe file")
    name, model = dataset if isinstance(dataset, str) else None, str(model)
    if dataset is None:
        return Choice(settings.find(model, None, variant))
    if model.endswith(".py"):
        model = settings.load_file(model)
    entries = {n: e for n in settings.names() if (e := settings.RECIPES[n])["model"] == model}
    if not entries and model in settings.RECIPES and not variant:
        entry = settings.RECIPES[model]
        if name == entry["dataset"]:
            return Choice(settings.find(model))
        return Choice(
            with_data(entry["build"](), name or unnamed(dataset)), f"the setting {model} is used for {title(dataset)}"
        )
    if not entries or any((e["dataset"], e["variant"]) == (name, variant) for e in entries.values()):
        return Choice(settings.find(model, name, variant))
    if variant:
        settings.find(model, None, variant)  # an unknown variant is an error
        entries = {n: e for n, e in entries.items() if e["variant"] == variant}
    own = {n: e for n, e in entries.items() if e["dataset"] == name}
    facts = facts_of(dataset)
    side = side_of(dataset, facts)
    ranked = sorted(own or entries, key=lambda n: rank(entries[n]["build"](), facts, side))
    best = ranked[0]
    recipe = entries[best]["build"]()
    if own:
        text = f"{model} has no full setting for {name}: its setting '{recipe.variant}' is used"
        return Choice(recipe, text, *around(best, entries, facts))
    text = f"{model} has no setting of its own for {title(dataset)}: its setting for {recipe.dataset} is used"
    if recipe.stages[-1].resolution:
        count = sum(facts.splits.values())
        kind = {1: "gray", 3: "color"}.get(facts.channels, f"{facts.channels}-channel")
        images = f"{count:,} {kind} images" if count else f"{kind} images"
        sides = str(side or "many")
        if side and facts.resolution is None and several_sizes(dataset):
            sides = f"many sizes, the median of their shorter sides {side}"
        text += f" ({best}, chosen by the data: {images} of {sides} pixels)"
    if "y" not in facts.keys and not any(has_classes(spec) for spec in recipe.networks.values()):
        recipe = without_labels(recipe)
    return Choice(with_data(recipe, name or unnamed(dataset)), text, *around(best, entries, facts))


def title(dataset: Any) -> str:
    return dataset if isinstance(dataset, str) else f"a {type(dataset).__name__}"


def unnamed(dataset: Any) -> str:
    """What a recipe has as its data set if that is an object."""
    return f"object:{facts_of(dataset).name}"


def with_data(recipe: Recipe, name: str) -> Recipe:
    """The recipe for another data set. ``name``: ``object:KIND`` for data without a name.

    Nothing else changes but zero-padding and the names of the rows' domains, which are dropped, and their order: of two
    streams, one a domain, the first reads the data's first.
    """
    stages = []
    for stage in recipe.stages:
        kwargs = dict(stage.game.kwargs)
        if any(stream.where for stream in stage.data.streams.values()):
            kwargs.pop("domains", None)
        data = dataclasses.replace(stage.data, pad=False, streams=first_domain_first(stage.data.streams))
        stages.append(dataclasses.replace(stage, data=data, game=Spec(stage.game.name, **kwargs)))
    return recipe.replace(dataset=name, stages=tuple(stages))


def without_labels(recipe: Recipe) -> Recipe:
    """The recipe, whose streams name no labels that no network reads. A game that needs them says so."""

    def unlabeled(stream: Stream) -> Stream:
        return dataclasses.replace(stream, keys={k: v for k, v in stream.keys.items() if k != "y"})

    stages = []
    for stage in recipe.stages:
        streams = {name: unlabeled(stream) for name, stream in stage.data.streams.items()}
        stages.append(dataclasses.replace(stage, data=dataclasses.replace(stage.data, streams=streams)))
    return recipe.replace(stages=tuple(stages))


def first_domain_first(streams: Mapping[str, Stream]) -> Mapping[str, Stream]:
    """The streams; two that read ``domain`` 1 and 0 change places."""
    if [dict(stream.where) for stream in streams.values()] != [{"domain": 1}, {"domain": 0}]:
        return streams
    return {name: dataclasses.replace(s, where={"domain": i}) for i, (name, s) in enumerate(streams.items())}


def rank(recipe: Recipe, facts: Facts, side: int | None) -> tuple[float, ...]:
    """How badly a setting fits the data: smaller is better."""
    own = facts_of(recipe.dataset)
    stage = recipe.stages[-1]
    count = sum(facts.splits.values())
    points = (stage.resolution == 0) != (facts.resolution == 0)
    reduced = recipe.variant.split("-")[-1] == "small" or work(recipe.name) <= REDUCED
    distance = math.log2(stage.resolution / side) if side and stage.resolution else 0.0
    return (
        points,
        sum(key.partition(".")[0] not in facts.keys for key in needs(recipe)) + missing_values(recipe, facts),
        own.channels != facts.channels,
        reduced if count >= MANY else not reduced,
        distance > 0,
        abs(distance),
    )


def needs(recipe: Recipe) -> Iterator[str]:
    """The fields of a data set that a recipe reads."""
    for stage in recipe.stages:
        for stream in stage.data.streams.values():
            if stream.dataset is None:
                yield from (*stream.keys, *stream.where)
                yield from ["y"] * bool(stream.balanced or stream.labeled)
    if any(has_classes(spec) for spec in recipe.networks.values()):
        yield "y"


def missing_values(recipe: Recipe, facts: Facts) -> int:
    """How often a recipe reads the rows of a label's value (a third domain) for which the data have no name."""
    filters = [stream.where for stage in recipe.stages for stream in stage.data.streams.values() if not stream.dataset]
    count = 0
    for key, value in (item for where in filters for item in where.items()):
        label = facts.fields.get(key)
        values = (value,) if isinstance(value, int) else value
        if isinstance(label, Label) and label.names:
            count += sum(v >= len(label.names) for v in values)
    return count


def has_classes(spec: Spec) -> bool:
    """Whether a network, or one inside it, is for the data's classes."""
    return any(v == "data" or (isinstance(v, Spec) and has_classes(v)) for v in spec.kwargs.values())


def side_of(dataset: Any, facts: Facts) -> int | None:
    """The side of the images in pixels, of a folder of many sizes the median; None if nothing says it."""
    if facts.resolution is None and isinstance(dataset, str) and dataset.startswith("folder:"):
        sides = open_folder(dataset).sides()
        return sides[len(sides) // 2] if sides else None
    return facts.resolution


def several_sizes(dataset: Any) -> bool:
    """Whether the images of a folder differ in their shorter side."""
    return isinstance(dataset, str) and dataset.startswith("folder:") and len(set(open_folder(dataset).sides())) > 1


def work(name: str) -> float:
    """The multiply-adds of a setting on its own data; 0 if the table of costs does not have it."""
    entry = costs.table().get(name)
    return sum(s["multiply_adds_a_round"] * s["rounds"] for s in entry["cost"]["stages"]) if entry else 0.0


def around(name: str, entries: dict[str, settings.Setting], facts: Facts) -> tuple[str, str]:
    """The settings of the next larger and the next smaller cost, of images with as many channels."""
    fits = [
        n
        for n, e in entries.items()
        if e["dataset"] in DATASETS and facts_of(e["dataset"]).channels == facts.channels
        if all(key.partition(".")[0] in facts.keys for key in needs(e["build"]()))
    ]
    own = work(name)
    larger = min((n for n in fits if work(n) > 1.05 * own), key=work, default="")
    smaller = max((n for n in fits if work(n) < own / 1.05), key=work, default="")
    return larger, smaller
