"""Which setting of a model trains on data that it has no setting for: by the data alone, never by the machine.

Needs no torch for registered names, folders and archives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import costs, hub, settings
from zoo.adapt import adapt, domain_streams, label_names, omission, with_examples, without_labels
from zoo.checks import excerpt
from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.data.fields import Text
from zoo.data.folder import open_folder
from zoo.recipe import Recipe, Spec
from zoo.registry import DATASETS

REDUCED = 1e14  # multiply-adds; settings below it train on a CPU in minutes
LETTERS = 200  # of a caption that is an example
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
    data have; no weights that the user must bring; texts are read if there are captions; as many channels; a reduced
    setting for fewer than 50,000 images, a full one for more, unless its resolution is larger than the images'; no
    larger resolution than the images; the nearest resolution; the first domains.

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
        if name == settings.RECIPES[model]["dataset"]:
            return Choice(settings.find(model))
        recipe, facts = recipe_for(model, dataset)
        text = f"the setting {model} is used for {title(dataset)}"
        return Choice(recipe, "; ".join(filter(None, (text, omission(recipe, facts)))))
    if not entries or any((e["dataset"], e["variant"]) == (name, variant) for e in entries.values()):
        return Choice(settings.find(model, name, variant))
    if variant:
        settings.find(model, None, variant)  # an unknown variant is an error
        entries = {n: e for n, e in entries.items() if e["variant"] == variant}
    own = {n: e for n, e in entries.items() if e["dataset"] == name}
    facts = facts_of(dataset)
    side = side_of(dataset, facts)
    best = min(own or entries, key=lambda n: rank(entries[n], facts, side))
    if own:
        recipe = entries[best]["build"]()
        text = f"{model} has no full setting for {name}: its setting '{recipe.variant}' is used"
        return Choice(recipe, text, *around(best, entries, facts))
    recipe, facts = recipe_for(best, dataset)
    return Choice(recipe, note(best, recipe, dataset, facts, side), *around(best, entries, facts))


def recipe_for(name: str, dataset: Any) -> tuple[Recipe, Facts]:
    """The recipe of a setting, by its name, for a data set of which it is not the setting, and the facts of that.
    Raises ValueError if one has images and the other points."""
    facts, entry = facts_of(dataset), settings.RECIPES[name]
    recipe = adapt(entry, facts)
    if misfits(recipe, facts)[0]:
        if facts.resolution == 0:
            others = [n for n in settings.names() if facts_of(settings.RECIPES[n]["dataset"]).resolution == 0]
            raise ValueError(f"{name} is for images, but {title(dataset)} has points; for points: {', '.join(others)}")
        raise ValueError(f"{name} is for points, but {title(dataset)} has images; for images: see `zoo list recipes`")
    if "y" not in facts.keys and not any(has_classes(spec) for spec in recipe.networks.values()):
        recipe = without_labels(recipe)
    recipe = with_examples(recipe, captions(dataset))
    return recipe.replace(dataset=dataset if isinstance(dataset, str) else unnamed(dataset)), facts


def captions(dataset: Any) -> tuple[str, ...]:
    """Eight captions of a folder, spread over its images; () of other data."""
    if not isinstance(dataset, str) or not dataset.startswith("folder:"):
        return ()
    texts = [text for row in open_folder(dataset).annotations.values.values() for text in row.get("caption", ())[:1]]
    texts = [text for text in dict.fromkeys(texts) if len(text) <= LETTERS]
    return tuple(texts[:: max(1, len(texts) // 8)][:8])


def note(name: str, recipe: Recipe, dataset: Any, facts: Facts, side: int | None) -> str:
    """How the setting ``name`` was chosen, in words, and which domains its ``recipe`` leaves out."""
    entry = settings.RECIPES[name]
    text = f"{entry['model']} has no setting of its own for {title(dataset)}"
    text += f": its setting for {entry['dataset']} is used"
    if recipe.stages[-1].resolution:
        count = sum(facts.splits.values())
        kind = {1: "gray", 3: "color"}.get(facts.channels, f"{facts.channels}-channel")
        images = f"{count:,} {kind} images" if count else f"{kind} images"
        sides = str(side or "many")
        if side and facts.resolution is None and several_sizes(dataset):
            sides = f"many sizes, the median of their shorter sides {side}"
        text += f" ({name}, chosen by the data: {images} of {sides} pixels)"
    return "; ".join(filter(None, (text, omission(recipe, facts))))


def title(dataset: Any) -> str:
    return dataset if isinstance(dataset, str) else f"a {type(dataset).__name__}"


def unnamed(dataset: Any) -> str:
    """What a recipe has as its data set if that is an object."""
    return f"object:{facts_of(dataset).name}"


def rank(setting: settings.Setting, facts: Facts, side: int | None) -> tuple[float, ...]:
    """How badly a setting fits the data: smaller is better."""
    own, recipe = facts_of(setting["dataset"]), adapt(setting, facts)
    stage = recipe.stages[-1]
    full = not is_reduced(recipe)
    many = sum(facts.splits.values()) >= MANY
    distance = math.log2(stage.resolution / side) if side and stage.resolution else 0.0
    return (
        *misfits(recipe, facts),
        own.channels != facts.channels,
        full and many and distance > 0,
        full != many,
        distance > 0,
        abs(distance),
        sum(value for _, value in domain_streams(setting["build"]())),
    )


def misfits(recipe: Recipe, facts: Facts) -> tuple[int, int, int]:
    """Why a setting, adapted to the data, does not train on them, or should not: images and points; the number of
    fields and weights that it lacks; captions that it does not read."""
    points = (recipe.stages[-1].resolution == 0) != (facts.resolution == 0)
    keys = [*needs(recipe)]
    missing = sum(key.partition(".")[0] not in facts.keys for key in keys) + missing_values(recipe, facts)
    texts = {key for key, field in facts.fields.items() if isinstance(field, Text)}
    return int(points), missing + missing_weights(recipe), int(bool(texts) and not texts & {*keys})


def is_reduced(recipe: Recipe) -> bool:
    """Whether a setting is small by name, or trains on a CPU in minutes."""
    return settings.is_small(recipe.variant) or work(recipe.name) <= REDUCED


def missing_weights(recipe: Recipe) -> int:
    """How many pretrained networks have weights that neither the package has nor anybody fetches."""
    sources = [p.source for p in recipe.pretrained.values()]
    return sum(source != "" and ":" not in source and source not in hub.index() for source in sources)


def needs(recipe: Recipe) -> Iterator[str]:
    """The fields of a data set that a recipe reads."""
    for stage in recipe.stages:
        for stream in stage.data.streams.values():
            if stream.dataset is None:
                yield from (*stream.keys, *stream.where, *(derived.of for derived in stream.derived.values()))
                yield from ["y"] * bool(stream.balanced or stream.labeled)
    if any(has_classes(spec) for spec in recipe.networks.values()):
        yield "y"


def missing_values(recipe: Recipe, facts: Facts) -> int:
    """How often a recipe reads the rows of a label's value (a third domain) for which the data have no name."""
    filters = [stream.where for stage in recipe.stages for stream in stage.data.streams.values() if not stream.dataset]
    count = 0
    for key, value in (item for where in filters for item in where.items()):
        names = label_names(key, facts)
        count += sum(v >= len(names) for v in ((value,) if isinstance(value, int) else value)) if names else 0
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
    """The multiply-adds of a setting on its own data; 0 if it has an error. One that the table of costs does not have,
    of a user's recipe file, needs a dry run, and torch."""
    if entry := costs.table().get(name):
        return costs.total(entry["cost"])
    try:
        return costs.multiply_adds(settings.find(name))
    except ValueError:
        return 0.0


def around(name: str, entries: dict[str, settings.Setting], facts: Facts) -> tuple[str, str]:
    """The settings of the next larger and the next smaller cost, of images with as many channels."""
    fits = [
        n
        for n, e in entries.items()
        if e["dataset"] in DATASETS and facts_of(e["dataset"]).channels == facts.channels
        if not any(misfits(adapt(e, facts), facts))
    ]
    total, own = {n: work(n) for n in fits}, work(name)
    larger = min((n for n in fits if total[n] > 1.05 * own), key=total.__getitem__, default="")
    smaller = max((n for n in fits if 0 < total[n] < own / 1.05), key=total.__getitem__, default="")
    return larger, smaller


def reduced(recipe: Recipe) -> str:
    """The name of a setting of a recipe's model for the same data with at most a third of the multiply-adds; '' if none
    fits them. A reduced one of the same data set and kind (``conditional``), or of no kind, is preferred."""
    facts = facts_of(recipe.dataset)
    side = side_of(recipe.dataset, facts)
    options, own = [], costs.multiply_adds(recipe)
    for name in settings.names():
        entry = settings.RECIPES[name]
        if entry["model"] != recipe.model or name == recipe.name:
            continue
        small, other_data = settings.is_small(entry["variant"]), entry["dataset"] != recipe.dataset
        if other_data and any(misfits(adapt(entry, facts), facts)):
            continue
        if not 0 < 3 * work(name) <= own:
            continue
        kind = settings.kind(entry["variant"])
        other_kind = 0 if other_data else [recipe.variant, "", kind].index(kind)
        options.append(((not small, other_data, other_kind, *rank(entry, facts, side)), name))
    return min(options, default=((), ""))[1]
