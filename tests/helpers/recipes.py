"""The recipes of the registry with small networks, and images to train them on. Only widths, batches and budgets are
reduced: turns, losses, penalties, optimizers, schedules and data are the recipe's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
import torch
from safetensors.torch import save_file

from zoo import settings
from zoo.data import Facts, ImageData, open_data
from zoo.data import facts as facts_of
from zoo.data.fields import Attributes, Captions, Label, Text, pack_text
from zoo.files import beside
from zoo.pretrained import folder
from zoo.recipe import Pretrained, Recipe, Rounds, Stage
from zoo.registry import NETWORKS, Spec

NAMES = settings.names()
STAGES = [(name, i) for name in NAMES for i in range(len(settings.find(name).stages))]


def one_a_game() -> dict[str, tuple[str, int]]:
    """For each game a stage of a recipe, a reduced one if there is one: of the adversarial game one with a penalty."""
    first = {}
    order = ["wgan-gp-mnist-small", *sorted(NAMES, key=lambda n: (not n.endswith(("small", "fashion-mnist")), n))]
    for name in order:
        for i, stage in enumerate(settings.find(name).stages):
            first.setdefault(stage.game.name, (name, i))
    return first


STEPS = 2  # of a player in a round, at most
LARGE = 256  # larger images have batches of 2
SIZES = {"width": 8, "widths": 8, "hidden": 16, "units": 16, "maps": 8, "embed": 8, "blocks": 1}

every_recipe = pytest.mark.parametrize("name", NAMES)
every_stage = pytest.mark.parametrize(("name", "stage"), STAGES, ids=[f"{n}-{i + 1}" if i else n for n, i in STAGES])


def at_most(value: Any, limit: int) -> Any:
    """A number, or all numbers of a sequence, cut to a limit; anything else as it is."""
    if isinstance(value, (tuple, list)):
        return tuple(at_most(v, limit) for v in value)
    return min(value, limit) if type(value) is int else value


def small_network(spec: Spec) -> Spec:
    """The same network with few channels: the arguments that are sizes, given or by default."""
    parameters = NETWORKS.parameters(spec.name)
    sizes = {k: spec.kwargs.get(k, parameters[k].default) for k in SIZES if k in parameters}
    inner = {k: small_network(v) for k, v in spec.kwargs.items() if isinstance(v, Spec)}
    return spec.replace(**inner, **{k: at_most(v, limit(k, v)) for k, v in sizes.items()})


def limit(key: str, value: Any) -> int:
    """The largest number of a size; of widths for more than seven resolutions 2, since the images are large."""
    return 2 if isinstance(value, (tuple, list)) and len(value) > 7 else SIZES[key]


def fewer(times: int | Callable[[int], int]) -> Any:
    """Fewer steps of the same kind: bursts of 3 instead of bursts of 100."""
    if not isinstance(times, Rounds):
        return at_most(times, STEPS)
    bursts = {
        k: (getattr(times, k)[0], at_most(getattr(times, k)[1], STEPS + 1))
        for k in ("first", "every")
        if getattr(times, k)
    }
    return dataclasses.replace(times, base=at_most(times.base, STEPS), **bursts)


def small(name: str, batch: int = 4) -> Recipe:
    """A recipe with small networks and batches and few steps a round."""
    recipe = settings.find(name)

    def reduce(stage: Stage) -> Stage:
        most = batch if stage.resolution <= LARGE else 2
        kwargs = stage.game.kwargs
        sizes = {k: at_most(v, most) for k, v in kwargs.items() if k.endswith("batch")}
        times = {k: fewer(v) for k, v in kwargs.items() if k.startswith("n_")}
        classes = len(facts_of(recipe.dataset).classes)
        streams = {
            n: dataclasses.replace(s, batch=s.batch and min(s.batch, most), balanced=s.balanced and classes)
            for n, s in stage.data.streams.items()
        }
        data = dataclasses.replace(stage.data, streams=streams)
        game = stage.game.replace(**sizes, **times)
        parts = min(stage.accumulate, 2)
        return dataclasses.replace(stage, batch=min(stage.batch, most), data=data, game=game, accumulate=parts)

    networks = {n: small_network(spec) for n, spec in recipe.networks.items()}
    pretrained = {n: generated(small_network(p.network)) if p.source else p for n, p in recipe.pretrained.items()}
    sampling = recipe.sampling
    if sampling.standing:
        sampling = dataclasses.replace(sampling, chunk=batch)
    stages = tuple(map(reduce, recipe.stages))
    return recipe.replace(networks=networks, stages=stages, pretrained=pretrained, sampling=sampling)


def generated(spec: Spec) -> Pretrained:
    """A pretrained network with generated weights, which are put where the zoo looks for weights."""
    name = f"generated-for-tests-{spec.name}-{crc32(repr(spec).encode()):08x}"
    path = folder() / f"{name}.safetensors"
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = NETWORKS.build(spec)
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as partial:
            save_file(network.state_dict(), partial)
    return Pretrained(spec, source=name)


@functools.cache
def garments() -> ImageData:
    """The embedded set: real images that need no network."""
    return open_data("fashion-mnist-10k")


def stand_in(recipe: Recipe, stage: int = 0) -> ImageData:
    """Real images with the facts of the recipe's data set, of the size that a stage reads: nothing is fetched. Points
    come from the set itself."""
    facts, data = facts_of(recipe.dataset), recipe.stages[stage].data
    resolution = recipe.stages[stage].resolution
    if not resolution:
        return open_data(recipe.dataset)
    side = facts.resolution if data.pad else data.load or resolution
    count = 24 if side <= 256 else 8
    x = garments().arrays["x"][:count].float()
    x = torch.nn.functional.interpolate(x, (side, side)).round().byte().expand(-1, facts.channels, -1, -1).contiguous()
    arrays = {"x": x, **numbers(facts, count)}
    return ImageData(dataclasses.replace(facts, resolution=side), arrays, "stand-in", texts=captions(facts, count))


def stand_in_of_all_stages(recipe: Recipe) -> Any:
    """The same for a run of all stages: rows, which open at any size, if the stages read images of several sizes."""
    sides = {stage.data.load or stage.resolution for stage in recipe.stages if not stage.data.pad}
    data = stand_in(recipe, len(recipe.stages) - 1)
    if len(sides) < 2:
        return data
    texts = {key: list(captions) for key, captions in data.texts.items()}
    columns = {key: [*values] for key, values in data.arrays.items()} | texts
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def numbers(facts: Facts, n: int) -> dict[str, torch.Tensor]:
    """Values for n rows of all labels and attributes."""
    arrays = {}
    for key, field in facts.fields.items():
        if isinstance(field, Label):
            arrays[key] = torch.arange(n) % (len(field.names) or 2)
            if key == facts.pair_key:  # each number once a domain
                arrays[key] = torch.arange(n) // len(facts.fields["domain"].names)
        elif isinstance(field, Attributes):
            arrays[key] = (torch.arange(n)[:, None] // (1 + torch.arange(len(field.names))) % 2).byte()  # [n, K]
    return arrays


def captions(facts: Facts, n: int) -> dict[str, Captions]:
    """Captions for n rows of all texts."""
    keys = [key for key, field in facts.fields.items() if isinstance(field, Text)]
    texts = {key: pack_text(key, [f"number {i}" for i in range(n)]) for key in keys}
    return {key: Captions(*map(torch.from_numpy, arrays.values())) for key, arrays in texts.items()}
