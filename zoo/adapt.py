"""A setting for other data than its own: the names of their domains and attributes, the labels that they have.

Needs no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.data.fields import Attributes, Label
from zoo.data.files import listed
from zoo.recipe import Data, Recipe, Spec, Stream
from zoo.settings import Setting

Values = Mapping[str, Mapping[int, int]]  # by label: from the values that the setting reads to those of other data


def adapt(setting: Setting, facts: Facts) -> Recipe:
    """The recipe of a setting for data with these facts. Its ``dataset`` remains the setting's own.

    - A setting that is built for names of domains or attributes (:func:`zoo.settings.setting`) gets those of the data.
    - Streams that read the rows of one value each of a label, such as two domains, read those of the same names or, if
      the data lack one, of the first values, in the order of the streams. Disjoint parts, which keep the pairs of the
      setting's own data apart, become whole if the data have no pairs.
    - The label of the pairs of its own data becomes that of the data's pairs, and is not read if there is none.
    - Images are not zero-padded, and names of domains that the data do not have are dropped.
    """
    recipe = setting["build"](**names_for(setting, facts))
    own = facts_of(setting["dataset"])
    values = new_values(recipe, own, facts)
    stages = []
    for stage in recipe.stages:
        kwargs = dict(stage.game.kwargs)
        if "domains" in kwargs and not has_names(kwargs["domains"], stage.data, facts):
            del kwargs["domains"]
        whole = not facts.paired and len({stream.where for stream in stage.data.streams.values()}) > 1
        streams = {
            name: stream if stream.dataset else adapt_stream(stream, values, own, facts, whole)
            for name, stream in stage.data.streams.items()
        }
        data = dataclasses.replace(stage.data, pad=False, streams=streams)
        stages.append(dataclasses.replace(stage, data=data, game=Spec(stage.game.name, **kwargs)))
    return recipe.replace(stages=tuple(stages))


def names_for(setting: Setting, facts: Facts) -> dict[str, tuple[str, ...]]:
    """The names that a setting is built for, by the data's field: all of a label; all attributes, unless the data have
    those of the setting."""
    names: dict[str, tuple[str, ...]] = {}
    for key, own in setting["names"].items():
        field = facts.fields.get(key)
        if (isinstance(field, Label) and field.names) or (
            isinstance(field, Attributes) and not {*own} <= {*field.names}
        ):
            names[key] = field.names
    return names


def domain_streams(recipe: Recipe) -> Iterator[tuple[str, int]]:
    """The label and its value of each stream that reads the rows of one value, without the columns of attributes."""
    for stage in recipe.stages:
        for stream in stage.data.streams.values():
            for key, value in stream.where.items() if stream.dataset is None else ():
                if isinstance(value, int) and "." not in key:
                    yield key, value


def new_values(recipe: Recipe, own: Facts, facts: Facts) -> Values:
    """For each label of which streams read two values or more one by one: the data's values instead of them."""
    read: dict[str, dict[int, int]] = {}
    for key, value in domain_streams(recipe):
        values = read.setdefault(key, {})
        values.setdefault(value, len(values))
    result: dict[str, dict[int, int]] = {}
    for key, values in read.items():
        if len(values) < 2:
            continue
        old, new = (label_names(key, f) for f in (own, facts))
        names = {v: old[v] for v in values if v < len(old)}
        same = len(names) == len(values) and {*names.values()} <= {*new}
        result[key] = {v: new.index(name) for v, name in names.items()} if same else values
    return result


def label_names(key: str, facts: Facts) -> tuple[str, ...]:
    """The names of a label's values; () if the data have no such label, or no names."""
    label = facts.fields.get(key)
    return label.names if isinstance(label, Label) else ()


def has_names(domains: object, data: Data, facts: Facts) -> bool:
    """Whether all ``domains`` of a game are names of values of the label by which its streams differ, if they do."""
    keys = {key for stream in data.streams.values() for key in stream.where}
    names = {name for key in keys for name in label_names(key, facts)}
    return not keys or (isinstance(domains, tuple) and {*domains} <= names)


def adapt_stream(stream: Stream, values: Values, own: Facts, facts: Facts, whole: bool) -> Stream:
    """One stream of the recipe's data set. ``whole``: it reads all of its rows, not a part."""

    def new(key: str, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        return values.get(key, {}).get(value, value) if isinstance(value, int) else value

    keys = {}
    for key, name in stream.keys.items():
        if own.pair_key and key == own.pair_key and key not in facts.keys:
            key = facts.pair_key
        if key:
            keys[key] = name
    where = {key: new(key, value) for key, value in stream.where.items()}
    return dataclasses.replace(stream, keys=keys, where=where, part=(0, 1) if whole else stream.part)


def without_labels(recipe: Recipe) -> Recipe:
    """The recipe, whose streams name no labels that no network reads. A game that needs them says so."""
    stages = []
    for stage in recipe.stages:
        streams = {
            name: dataclasses.replace(stream, keys={k: v for k, v in stream.keys.items() if k != "y"})
            for name, stream in stage.data.streams.items()
        }
        stages.append(dataclasses.replace(stage, data=dataclasses.replace(stage.data, streams=streams)))
    return recipe.replace(stages=tuple(stages))


def with_examples(recipe: Recipe, texts: tuple[str, ...]) -> Recipe:
    """The recipe, whose games that have texts as examples have these."""
    stages = []
    for stage in recipe.stages:
        game = stage.game.replace(examples=texts) if texts and "examples" in stage.game.kwargs else stage.game
        stages.append(dataclasses.replace(stage, game=game))
    return recipe.replace(stages=tuple(stages))


def omission(recipe: Recipe, facts: Facts) -> str:
    """Which values of a label no stream reads, in words; '' if there are none."""
    pairs = [*domain_streams(recipe)]
    count = sum(stream.dataset is None for stage in recipe.stages for stream in stage.data.streams.values())
    for key in dict.fromkeys(key for key, _ in pairs):
        values, names = [v for k, v in pairs if k == key], label_names(key, facts)
        own = [name for value, name in enumerate(names) if value in values]
        rest = [name for value, name in enumerate(names) if value not in values]
        if own and rest and len(values) == count:
            last = [*recipe.stages[0].data.streams][-1]
            option = f"--set data.streams.{last}.where.{key}={names.index(rest[0])}"
            return f"it reads {listed(own)} and leaves out {listed(rest)} ({option} reads {rest[0]} as '{last}')"
    return ""
