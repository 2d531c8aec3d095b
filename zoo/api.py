"""The Python API beside ``zoo.load``: what there is, untrained models, training. No torch until it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import hub, overrides, recipe
from zoo.registry import DATASETS, matching
from zoo.settings import find as find_recipe
from zoo.settings import models, names

if TYPE_CHECKING:
    from zoo.model import Model


def list_models(pattern: str = "*") -> list[str]:
    """The models that have a recipe. A pattern without wildcards matches inside names, here and below."""
    return models(pattern)


def list_recipes(pattern: str = "*") -> list[str]:
    """The recipes: ``model-dataset[-variant]``."""
    return names(pattern)


def list_datasets(pattern: str = "*") -> list[str]:
    """The registered data sets. Besides them ``folder:PATH`` takes your own images."""
    return DATASETS.names(pattern)


def list_weights(pattern: str = "*") -> list[str]:
    """The weights that come with the package: what ``zoo.load`` takes by name."""
    return matching(pattern, hub.index())


def create(model: str, dataset: Any = None, variant: str = "", seed: int = 0) -> Model:
    """An untrained Model: the networks of a recipe, initialized from ``seed``, with their prior, range and verb.

    ``model``: a model's id, a recipe's name, or the path of a recipe file. ``dataset``: as for :func:`train`.
    ValueError for names that are none, and for a data set that lacks what the recipe needs.
    """
    from torch import random

    from zoo.data import facts as facts_of
    from zoo.engine.stage import build_game, build_networks, resolve, shipped
    from zoo.model import build_model

    found = find_recipe(model, dataset if isinstance(dataset, str) else None, variant)
    facts = facts_of(found.dataset if dataset is None else dataset)
    found = resolve(found, facts)
    with random.fork_rng(devices=[]):
        networks = build_networks(found, seed)
        stage = found.stages[-1]
        game = build_game(stage, networks, facts)
    spec = shipped(game, found, stage, facts)
    return build_model(spec, {name: game.get_submodule(name) for name in spec["networks"]}).eval()


def train(
    model: str,
    dataset: Any = None,
    variant: str = "",
    *,
    out: str | Path | None = None,
    images: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    init: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    compile: bool = False,
    deterministic: bool = False,
    eval_every: int | None = None,
    progress: Callable[..., None] | None = None,
) -> Path:
    """Train a model and return the run's folder, which :func:`zoo.load` takes.

    ``model``: a model's id, a recipe's name, or the path of a recipe file. ``dataset``: a registered name,
    ``folder:PATH``, any map-style torch Dataset, or an image tensor; by default that of the model's first recipe.
    ``out``: a new folder (``runs/NAME-SEED``). ``images``: the budget, to which stages and schedules are rescaled;
    ``minutes`` only stops early. ``settings``: recipe fields by dotted path, ``{"optimizers.D.lr": 1e-4}``.
    ``init``: weights to begin from. ``device`` to ``deterministic``: the machine's choices. ``eval_every``: score the model
    each time so many images have been consumed: ``scores`` in log.jsonl, by the data set's feature network.
    ``progress(event, **facts)``: called with start, rate, tick, grid, checkpoint, warning, done.
    ValueError for a mistake in any of these, before anything is written.
    """
    import json

    from zoo.engine.runtime import Runtime
    from zoo.engine.train import train as run

    named = isinstance(dataset, str)
    found = find_recipe(model, dataset if named else None, variant)
    for key, value in (settings or {}).items():
        found = overrides.override(found, key, value if isinstance(value, str) else json.dumps(recipe.encode(value)))
    return run(
        found,
        out or fresh_folder(found.name, seed),
        runtime=Runtime(device, precision, compile=compile, deterministic=deterministic, eval_every=eval_every),
        seed=seed,
        images=images,
        minutes=minutes,
        init=init,
        dataset=None if named else dataset,
        progress=progress,
    )


def resume(
    run: str | Path,
    *,
    minutes: float | None = None,
    dataset: Any = None,
    device: str | None = None,
    precision: str | None = None,
    progress: Callable[..., None] | None = None,
) -> Path:
    """Go on with a run that was stopped, from its last checkpoint, as if nothing had happened. Returns its folder.
    ``dataset``: the Dataset or tensor that it was trained on, where it had no name. ``device``, ``precision``: by default as it
    was begun."""
    from zoo.engine.run_folder import RunFolder
    from zoo.engine.train import resume as go_on

    runtime = RunFolder(run).runtime(device=device, precision=precision)
    return go_on(run, runtime=runtime, minutes=minutes, dataset=dataset, progress=progress)


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page of the run in folder ``run`` (curves, scores, grids over time, recipe, Card,
    machine) and return its path, by default ``RUN/report.html``. The run may be going on, or have been killed.
    ValueError where ``run`` is no run's folder."""
    from zoo.reports.page import report as write

    return write(run, out)


def fresh_folder(name: str, seed: int) -> Path:
    """``runs/NAME-seedS``, or with -2, -3, ... the first that does not exist."""
    first = Path("runs") / f"{name}-seed{seed}"
    path, count = first, 1
    while path.exists():
        count += 1
        path = first.with_name(f"{first.name}-{count}")
    return path
