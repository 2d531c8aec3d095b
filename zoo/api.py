"""The Python API except ``zoo.load``: lists, untrained models, training. No torch until it is needed."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import hub, overrides, own_code
from zoo.checks import check_whole, excerpt
from zoo.choice import choose
from zoo.own_code import Code
from zoo.recipe import Recipe, encode
from zoo.registry import DATASETS, NETWORKS, matching, nearest
from zoo.seeds import own_random_state
from zoo.settings import models, names

if TYPE_CHECKING:
    from zoo.models import Model


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
    """The weights in the package, which ``zoo.load`` takes by name."""
    return matching(pattern, hub.index())


def create(model: str, dataset: Any = None, variant: str = "", seed: int = 0, **changes: Any) -> Model:
    """An untrained Model: the networks of a recipe, initialized from ``seed``, with their prior, range and verb.

        zoo.create("dcgan", "folder:photos", width=16, resolution=64)

    Args:
        model: a model's id, a recipe's name, or the path of a recipe file.
        dataset: as for :func:`train`; without a setting of the model's own the data choose one
            (:func:`zoo.choice.choose`).
        variant: a setting other than the main one, such as ``small``.
        seed: of the first weights.
        changes: ``resolution`` of the images in pixels; anything else is an argument of all networks that have it,
            except ``channels`` and ``classes``, which are those of the data set.

    Raises ValueError for an unknown name, a data set without a field that the recipe needs, or an argument that no
    network has or the data set fixes.
    """
    from torch import random

    from zoo.data import facts as facts_of
    from zoo.engine.stage import build_game, build_networks, resolve, shipped
    from zoo.models import build_model
    from zoo.pretrained import attach

    check_whole("seed", seed, least=0)
    recipe = change(choose(model, dataset, variant).recipe, changes)
    facts = facts_of(recipe.dataset if dataset is None else dataset)
    recipe = resolve(recipe, facts)
    with random.fork_rng(devices=[]):
        networks = build_networks(recipe, seed)
        stage = recipe.stages[-1]
        game = build_game(stage, networks, facts)
    spec = shipped(game, recipe, stage, facts)
    untrained = build_model(spec, {name: game.get_submodule(name) for name in spec["networks"]})
    attach(untrained, spec, hub.load_pretrained({name: recipe.pretrained[name] for name in spec.get("pretrained", ())}))
    return untrained.eval()


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other arguments of its networks, and another ``resolution``. Raises ValueError for an argument
    that no network has, or that the data set fixes."""
    for key in ("channels", "classes"):
        if key in changes:
            raise ValueError(f"{key}={changes[key]}: must be those of the data set; leave it out, or choose another "
                             f"dataset")  # fmt: skip
    resolution = changes.get("resolution")
    if resolution is not None:
        if len({stage.resolution for stage in recipe.stages}) > 1:
            raise ValueError(f"resolution={resolution}: '{recipe.name}' has stages of several; change them with "
                             f"settings={{'stages.0.resolution': ...}}")  # fmt: skip
        for i in range(len(recipe.stages)):
            recipe = overrides.override(recipe, f"stages.{i}.resolution", json.dumps(resolution))
    taken = {name: NETWORKS.parameters(spec.name) for name, spec in recipe.networks.items()}
    for key, value in changes.items():
        names = [name for name, parameters in taken.items() if key in parameters]
        if key != "resolution" and not names:
            known = sorted({k for parameters in taken.values() for k in parameters})
            raise ValueError(f"{key}={value}: no network of '{recipe.name}' has it{nearest(key, known)}; "
                             f"they have {', '.join(known)}")  # fmt: skip
        own = {} if key == "resolution" else {n: recipe.networks[n].replace(**{key: value}) for n in names}
        recipe = recipe.replace(networks={**recipe.networks, **own})
    return recipe


def train(
    model: str,
    dataset: object = None,
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
    cuda_graphs: bool = False,
    deterministic: bool = False,
    eval_every: int | None = None,
    micro_batch: int | None = None,
    log: str | None = None,
    progress: Callable[..., None] | bool | None = True,
) -> Path:
    """Train a model and return the run's folder, which :func:`zoo.load` takes.

    Args:
        model: a model's id, a recipe's name, or the path of a recipe file.
        dataset: a registered name, ``folder:PATH``, any map-style torch Dataset, or an image tensor; by default that of
            the model's first recipe. Without a setting of the model's own the data choose one
            (:func:`zoo.choice.choose`).
        variant: a setting other than the main one, such as ``small``.
        out: a new folder; by default ``runs/NAME-seedS``.
        images: the budget in real images; stages and schedules are rescaled to it.
        minutes: stop early, after so many minutes.
        seed: of the first weights, the noise and the order of the images.
        settings: recipe fields by dotted path, ``{"optimizers.D.lr": 1e-4}``.
        init: weights to start from: a name, a file or a run's folder.
        device, precision, compile, cuda_graphs, deterministic: how this machine trains.
        eval_every: score the model each time so many images were seen, with the data set's feature network, into
            log.jsonl.
        micro_batch: at most so many samples of a process in memory at a time; their gradients add up to the batch's.
        log: ``tensorboard`` writes curves, scores and grids into the run's folder ``tensorboard``.
        progress: True prints what the command line prints; None or False nothing; a function is called as
            ``progress(event, **facts)`` with note, start, rate, tick, grid, checkpoint, warning, done.

    Raises ValueError for a mistake in any of these, before anything is written.
    """
    from zoo.engine.runtime import Runtime
    from zoo.engine.train import train as run
    from zoo.reports.board import listen

    check_budget(images, seed)
    seed = operator.index(seed)  # JSON takes no integers of NumPy
    if out is not None and not isinstance(out, (str, os.PathLike)):
        raise ValueError(f"out={excerpt(out)}: must be the path of a new folder")
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"settings={excerpt(settings)}: must be values by the paths of fields, {{'batch': 8}}")
    listener, close = progress_listener(progress, minutes)
    name = dataset if isinstance(dataset, str) else None
    choice = choose(model, dataset, variant)
    recipe = choice.recipe
    if choice.note and listener is not None:
        listener("note", text=choice.note)
    values = {k: v if isinstance(v, str) else value_text(k, v) for k, v in (settings or {}).items()}
    recipe = overrides.override_all(recipe, [f"{key}={value}" for key, value in values.items()], images)
    with close, own_random_state(cuda_numbers(device)):
        return run(
            recipe,
            out,
            runtime=Runtime(
                device,
                precision,
                compile=compile,
                cuda_graphs=cuda_graphs,
                deterministic=deterministic,
                eval_every=eval_every,
                micro_batch=micro_batch,
            ),
            seed=seed,
            images=images,
            minutes=minutes,
            init=init,
            dataset=dataset if name is None else None,
            code=Code.of(model),
            progress=listen(listener, log),
        )


def resume(
    run: str | Path,
    *,
    images: int | None = None,
    minutes: float | None = None,
    dataset: Any = None,
    device: str | None = None,
    precision: str | None = None,
    micro_batch: int | None = None,
    code: str | Path | None = None,
    log: str | None = None,
    progress: Callable[..., None] | bool | None = True,
) -> Path:
    """Continue a run that was stopped, from its last checkpoint, and return its folder. The result is that of a run
    without a stop.

    Args:
        run: its folder.
        images: another budget, past the first one too: the last stage goes on, schedules keep their last values.
        minutes, log, progress: as for :func:`train`.
        dataset: the Dataset or tensor that the run was trained on, if it has no name; or the same images at another
            place, ``folder:PATH``.
        device, precision, micro_batch: by default those of the run's start.
        code: as for :func:`zoo.load`.

    Raises ValueError if ``run`` is not the folder of a run, or another process trains it.
    """
    from zoo.engine.run_folder import RunFolder
    from zoo.engine.train import resume as continue_run
    from zoo.reports.board import listen

    check_budget(images)
    images = None if images is None else operator.index(images)
    folder = RunFolder(run)
    runtime = folder.runtime(device=device, precision=precision, micro_batch=micro_batch)
    if code is not None:
        own_code.run(code)
    reason = own_code.recall(folder.code) if code is None else ""
    listener, close = progress_listener(progress, minutes)
    try:
        with close, own_random_state(cuda_numbers(runtime.device)):
            options: dict[str, Any] = {"runtime": runtime, "minutes": minutes, "images": images, "dataset": dataset}
            return continue_run(run, **options, progress=listen(listener, log))
    except ValueError as error:
        raise (error if code is not None else own_code.explain(error, reason)) from error


def cuda_numbers(device: str) -> list[int]:
    """The number of the CUDA device that a training on ``device`` uses, as :meth:`Runtime.prepare_device` chooses it;
    empty for another device, or for a name that is wrong."""
    import torch

    from zoo import parallel

    match = re.fullmatch(r"auto|cuda(?::([0-9]+))?", str(device))
    if match is None or not torch.cuda.is_available():
        return []
    number = int(match[1]) if match[1] else parallel.local_rank()
    return [number] if number < torch.cuda.device_count() else []


def value_text(key: str, value: object) -> str:
    """A value of ``settings`` as ``--set`` takes it. Raises ValueError if it is none of a recipe's."""

    def number(part: Any) -> Any:
        """A number of NumPy or a tensor of one as Python's."""
        if getattr(part, "shape", None) != ():
            raise TypeError
        return part.item()

    try:
        return json.dumps(encode(value), default=number)
    except TypeError:
        raise ValueError(
            f"settings: {key}={excerpt(value)}: must be a number, a text, a list or a part of a recipe"
        ) from None


def check_budget(images: int | None, seed: int = 0) -> None:
    """Raises ValueError unless they are whole numbers. ``images``: None is the recipe's budget."""
    if images is not None:
        check_whole("images", images)
    check_whole("seed", seed, least=0)


def progress_listener(
    progress: Callable[..., None] | bool | None, minutes: float | None
) -> tuple[Callable[..., None] | None, contextlib.AbstractContextManager[object]]:
    """The function to call with events, and a context that ends it. Raises ValueError for another ``progress``."""
    from zoo.reports.progress import Progress

    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise ValueError(f"progress={excerpt(progress)}: must be True, False or a function")
    if progress is True:
        listener = Progress(minutes=minutes)
        return listener, contextlib.closing(listener)
    return progress or None, contextlib.nullcontext()


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page of the run in folder ``run`` (curves, scores, grids over time, recipe, Card,
    machine) and return its path, by default ``RUN/report.html``. The run may be finished, still training, or killed.
    Raises ValueError if ``run`` is not the folder of a run."""
    from zoo.reports.page import report as write

    return write(run, out)
