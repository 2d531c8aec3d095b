"""The training loop. One for every model, on every device, with any number of processes.

A round plays the game's turns in order (:meth:`zoo.engine.stage.StageRun.play_round`); the clock is real images
consumed. Nothing is read back from the device but once a tick. All randomness of a round comes from (seed, stage,
round): noise from ``seed_for(seed, "noise", stage, round)``, the same on all processes, which slice it by rank; what
layers draw (dropout) from torch's own generator, seeded with ``seed_for(seed, "layers", stage, round, rank)``. So a
resumed run needs no generator's state.
"""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import parallel
from zoo.checks import check_number
from zoo.data import Facts
from zoo.data import facts as facts_of
from zoo.engine import checkpoint
from zoo.engine.dry_run import dry_run, equivalent_images, mistakes
from zoo.engine.export import card, export, finished_model, model_of, uses
from zoo.engine.extend import more_changes, recipe_of, write_changes
from zoo.engine.finetune import load_init
from zoo.engine.log import Clock, Log
from zoo.engine.run_folder import (
    CHECKPOINT,
    RECIPE,
    SAMPLES,
    WEIGHTS,
    RunFolder,
    needs_object,
    new_run,
    resume_command,
)
from zoo.engine.runtime import Runtime, machine_of
from zoo.engine.stage import (
    Progress,
    StageRun,
    build_networks,
    check_streams,
    load_pretrained,
    parameters,
    resolve,
    shipped,
)
from zoo.files import check_new, remove_partials
from zoo.own_code import Code
from zoo.pictures import write_grid
from zoo.recipe import Recipe
from zoo.seeds import MAX_SEED

EARLY_IMAGES = 1_000  # samples of a model that has had fewer are alike without a collapse
POLL_ROUNDS = 8  # rounds between two questions of several processes: does any want to stop, what is due on rank 0


def train(
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    runtime: Runtime = Runtime(),
    seed: int = 0,
    images: int | None = None,
    minutes: float | None = None,
    init: str | Path | None = None,
    dataset: Any = None,
    code: Code | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a recipe into the new folder ``out`` and return it.

    Args:
        out: by default the first of :func:`zoo.engine.run_folder.default_folders` that is new.
        images: a total budget in real images; stages and schedules are rescaled with it.
        minutes: stop early.
        init: weights to begin from (a name, a file or a run's folder).
        dataset: anything that :func:`zoo.data.open_data` takes, instead of the recipe's.
        code: the user's recipe file that the recipe is from.
        progress: called as ``progress(event, **facts)`` with data, start, rate, tick, grid, checkpoint, warning, done.

    Raises ValueError for a mistake in the arguments, before anything is written; RuntimeError for a NaN or if memory
    runs out.
    """
    check_minutes(minutes)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed={seed}: must be from 0 to {MAX_SEED}")
    if images is not None:
        recipe = recipe.rescaled(images)
    device = runtime.prepare_device()
    parallel.start(device)
    main = parallel.rank() == 0
    if main and out is not None:
        check_new(out)
    source = recipe.dataset if dataset is None else dataset
    facts = facts_of(source)
    with mistakes():
        recipe = resolve(recipe, facts)
    costs = dry_run(recipe, facts, runtime.micro_batch)
    if runtime.eval_every:
        from zoo.metrics.evaluate import check_watch

        check_watch(facts, source)
    if init is not None:
        load_init(build_networks(recipe, seed), init)
        init = str(Path(init).resolve() if Path(init).exists() else init)
    recipe, pretrained = load_pretrained(recipe)
    tell = progress if progress is not None and main else _silent
    check_streams(recipe, source, _fetch_progress(tell))
    with contextlib.ExitStack() as stack:
        if main:
            name = recipe.name if out is None else str(out)
            stack.enter_context(checkpoint.disk(Path(name)))
            own = {"init": init, "dataset_object": dataset is not None, "code": code.hash if code else None}
            out = stack.enter_context(new_run(out, recipe, runtime, seed, **own)).path
            if code is not None:
                code.remember()
        folder = RunFolder(parallel.share("run", str(out)))
        return training_loop(
            recipe,
            source,
            facts,
            runtime,
            device,
            seed,
            folder,
            tell,
            costs,
            pretrained=pretrained,
            init=init,
            minutes=minutes,
        )


def resume(
    run: str | Path,
    *,
    runtime: Runtime | None = None,
    minutes: float | None = None,
    images: int | None = None,
    dataset: Any = None,
    progress: Progress | None = None,
) -> Path:
    """Continue a run that was stopped or killed, from its last checkpoint, as if nothing had happened. One that was
    killed before its first checkpoint begins anew.

    ``runtime``: another machine's choices; by default those it was started with. ``images``: another budget.
    ``dataset``: the data set that was given as an object, or the name of another place of the same images. Budget and
    name are kept in the run's folder, if it can go on with them.
    """
    check_minutes(minutes)
    folder = RunFolder(run)
    check_checkpoint(folder)
    facts_of_run = folder.facts()
    changes = more_changes(folder, images, dataset if isinstance(dataset, str) else None)
    recipe, seed, init = recipe_of(folder, changes), facts_of_run["seed"], facts_of_run["init"]
    runtime = runtime or folder.runtime()
    device = runtime.prepare_device()
    parallel.start(device)
    main = parallel.rank() == 0
    with contextlib.ExitStack() as stack:
        if main:
            stack.enter_context(folder.lock())
        parallel.barrier()
        path = folder.path / CHECKPOINT
        tensors, state = checkpoint.load(path) if path.exists() else (None, None)
        if state is not None:
            check_recipe(state["recipe"], folder)
        if needs_object(facts_of_run) and dataset is None:
            raise ValueError(f"run '{run}': was trained on a data set given as an object; pass it again as dataset=")
        source = recipe.dataset if dataset is None else dataset
        facts = facts_of(source)
        costs = dry_run(recipe, facts, runtime.micro_batch)
        recipe, pretrained = load_pretrained(recipe)
        if state is None and init is not None:
            load_init(build_networks(recipe, seed), init)
        if main:
            remove_partials(folder.path)
            with checkpoint.disk(folder.path):
                folder.cut_log(-1 if state is None else state["total_images"])
        parallel.barrier()
        tell = progress if progress is not None and main else _silent
        return training_loop(
            recipe,
            source,
            facts,
            runtime,
            device,
            seed,
            folder,
            tell,
            costs,
            pretrained=pretrained,
            init=init,
            minutes=minutes,
            tensors=tensors,
            state=state,
            changes=changes,
        )


def training_loop(
    recipe: Recipe,
    source: Any,
    facts: Facts,
    runtime: Runtime,
    device: torch.device,
    seed: int,
    folder: RunFolder,
    tell: Progress,
    costs: Sequence[Mapping[str, Any]],
    *,
    pretrained: Mapping[str, nn.Module] | None = None,
    init: str | Path | None = None,
    minutes: float | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Train all stages, or the rest of them from a checkpoint's ``tensors`` and ``state``. ``costs``: of the stages, by
    :func:`zoo.engine.dry_run.dry_run`. ``pretrained``: the frozen networks of the recipe. ``changes``: of the run's
    recipe.json. Returns the run's folder."""
    start_time = time.monotonic()
    deadline = math.inf if minutes is None else start_time + minutes * 60
    seconds_before = state["seconds"] if state is not None else 0.0
    main = parallel.rank() == 0
    stop = StopRequest()

    def seconds() -> float:
        return seconds_before + time.monotonic() - start_time

    run: StageRun | None = None
    with stop.signals(), checkpoint.disk(folder.path):
        if main:
            folder.record_machine(machine_of(device), 0 if state is None else state["total_images"])
        for index in range(0 if state is None else state["stage"], len(recipe.stages)):
            # Build the stage: networks and EMA weights of the stage before, optimizers anew
            machine = (runtime, device, seed)
            fetch = _fetch_progress(tell)
            run = StageRun(recipe, index, source, facts, *machine, before=run, pretrained=pretrained, progress=fetch)
            first = run.total_images == 0
            if tensors is not None and state is not None:
                check_data(run, state["data"], folder)
                checkpoint.restore(tensors, run.game, run.learner, run.ema_networks)
                run.round, run.images, run.total_images = state["round"], state["images"], state["total_images"]
                for name, position in state["positions"].items():
                    run.loaders[name].position = position
                tensors = None
            else:
                run.prepare(init)
            if changes is not None and main:  # the run can go on with them
                write_changes(folder, changes)
            changes = None
            if first:
                tell(
                    "start",
                    recipe=recipe.name,
                    dataset=facts.name,
                    device=str(device),
                    parameters=parameters(run.networks),
                    images=recipe.images,
                    images_before=run.total_images,
                    processes=parallel.world(),
                )

            # A checkpoint before the first round, so that there is always one to go back to
            log = Log(
                folder,
                run.learner.players,
                tell,
                total=recipe.images,
                images=run.total_images,
                end=run.total_images - run.images + equivalent_images(costs, index),
                deadline=deadline,
            )
            record = log.record if main else ignore
            with parallel.main_process_only() as works:
                if works:
                    save(run, folder, seconds(), tell)
                    if run.total_images == 0:
                        draw_grid(run, folder, tell)
            clock = Clock()

            while run.images < run.stage.images and stop.reason is None:
                # Next batch, turns, schedules, EMA weights
                images_before = run.total_images
                try:
                    run.play_round(record)
                except RuntimeError as error:
                    explain_memory(error, run.stage)
                    raise

                # Stop? Is anything due? Several processes decide together, every few rounds
                last = run.images >= run.stage.images
                scoring = score_is_due(run, runtime.eval_every, images_before, last)
                asks = run.round % POLL_ROUNDS == 0 or parallel.world() == 1
                if main and time.monotonic() >= deadline:
                    stop.ask("minutes")
                drawing = main and asks and clock.due("grid")
                saving = main and asks and clock.due("save")
                if asks:
                    stopping, drawing, saving = parallel.any_true(stop.request is not None, drawing, saving)
                    stop.reason = (stop.request or "another process") if stopping else None

                # Maintenance, once a tick: log, scores, samples, checkpoint
                if main and clock.due("tick") and not scoring:
                    log.tick(run.clock, seconds())
                if scoring or drawing or saving:
                    with parallel.main_process_only() as works:
                        if works:
                            log.tick(
                                run.clock, seconds(), functools.partial(score, run, source, tell) if scoring else dict
                            )
                            if drawing:
                                draw_grid(run, folder, tell)
                            if saving:
                                save(run, folder, seconds(), tell)

            # The end of the stage, or of this process
            with parallel.main_process_only() as works:
                if works:
                    log.tick(run.clock, seconds())
                    draw_grid(run, folder, tell)
                    save(run, folder, seconds(), tell)
                    if stop.reason is None and index + 1 < len(recipe.stages):
                        folder.copy_stage_weights(index)
            if stop.reason:
                break
    assert run is not None
    tell(
        "done",
        path=str(folder.path),
        images=run.total_images,
        seconds=time.monotonic() - start_time,
        stopped_by=stop.reason or "budget",
        resume=resume_command(folder.path, needs_object(folder.facts())) if stop.reason else None,
        use=uses(shipped(run.game, recipe, run.stage, facts), folder.path),
    )
    parallel.stop()
    return folder.path


# What is done once a tick, on one process ----------------------------------------------------------------------------


def draw_grid(run: StageRun, folder: RunFolder, tell: Progress) -> None:
    """Draw samples of the model as it is now; warn if they are all alike beside real images."""
    model = model_of(run.game, run.ema_networks, shipped(run.game, run.recipe, run.stage, run.facts))
    with torch.no_grad():
        reals: dict[str, Tensor] = {}
        for name in run.loaders:
            rows = run.loader(name, rank=0, world=1, device=torch.device("cpu")).next(8)
            reals.update({k: v.to(run.device) for k, v in rows.items() if isinstance(v, Tensor)})
        images, columns = model.preview(reals)
        spread = images.float().std(0).mean().item()
        real = next((v for v in reals.values() if v.ndim == 4 or not run.stage.resolution), None)
        share = 1.0 if real is None else spread / max(model.to_unit(real).std(0).mean().item(), 1e-12)
    path = folder.path / SAMPLES / f"{run.total_images:010d}.png"
    path.parent.mkdir(exist_ok=True)
    write_grid(path, images.float().cpu(), columns)
    tell("grid", path=str(path))
    if run.total_images >= EARLY_IMAGES and share < 0.03:
        text = (
            f"collapse: after {run.total_images:,} images all samples are alike "
            f"(they differ {share:.0%} as much as real ones)"
        )
        folder.log({**run.clock, "warning": text})
        tell("warning", text=text)


def save(run: StageRun, folder: RunFolder, seconds: float, tell: Progress) -> None:
    """Write the checkpoint and the weights file."""
    state = {
        "recipe": folder.fingerprint,
        "stage": run.index,
        "round": run.round,
        "images": run.images,
        "total_images": run.total_images,
        "seconds": seconds,
        "positions": {name: loader.position for name, loader in run.loaders.items()},
        "data": {name: data.hash for name, data in run.data.items()},
    }
    path = folder.path / CHECKPOINT
    checkpoint.save(path, checkpoint.collect(run.game, run.learner, run.ema_networks), state)
    facts: dict[str, Any] = {"images": run.total_images, "seconds": round(seconds, 1), "seed": run.seed}
    facts |= {"code": folder.code} if folder.code else {}
    with run.extra_batches() as draw:
        export(folder.path / WEIGHTS, run.game, run.ema_networks, run.recipe, run.index, run.facts, draw, facts)
    tell("checkpoint", path=str(path))


def score(run: StageRun, source: Any, tell: Progress) -> dict[str, Any]:
    """The scores of the model as it would be shipped now, and what they depend on. An error becomes a warning and does
    not stop the run."""
    from zoo.metrics.evaluate import watch

    spec = shipped(run.game, run.recipe, run.stage, run.facts)
    try:
        with run.extra_batches() as draw:
            model = finished_model(run.game, run.ema_networks, spec, draw)
            model.card = card(run.recipe, run.facts, spec, {"images": run.total_images})
            return watch(model, source)
    except (OSError, RuntimeError, ValueError) as error:
        tell("warning", text=f"no scores after {run.total_images:,} images: {error}")
        return {}


def score_is_due(run: StageRun, every: int | None, before: int, last: bool) -> bool:
    """Whether the round that began at ``before`` images passed a multiple of ``every``, or was the run's last."""
    if not every:
        return False
    final = last and run.index + 1 == len(run.recipe.stages)
    return final or run.total_images // every > before // every


# Starting and stopping -----------------------------------------------------------------------------------------------


class StopRequest:
    """``request``: why this process wants to stop, from a signal or the deadline. ``reason``: why all of them do."""

    def __init__(self) -> None:
        self.request: str | None = None
        self.reason: str | None = None

    def ask(self, why: str) -> None:
        """Finish the round, write a checkpoint, stop."""
        self.request = why

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask to stop; outside the main thread nothing is installed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        for s in handlers:
            signal.signal(s, lambda number, frame: self.ask(signal.Signals(number).name))
        try:
            yield
        finally:
            for s, handler in handlers.items():
                signal.signal(s, handler)


def check_minutes(minutes: float | None) -> None:
    """Raises ValueError unless it is a time, or None."""
    if minutes is None:
        return
    check_number("minutes", minutes)
    if minutes < 0:
        raise ValueError(f"minutes={minutes}: must be a finite number of at least 0")


def check_checkpoint(folder: RunFolder) -> None:
    """Raises ValueError if a run has weights and no checkpoint: it would begin anew and write over them."""
    if (folder.path / WEIGHTS).exists() and not (folder.path / CHECKPOINT).exists():
        raise ValueError(
            f"run '{folder.path}': has weights but no {CHECKPOINT} to go on from; bring it back, or begin a new run "
            f"with --init {folder.path}"
        )


def check_recipe(fingerprint: str, folder: RunFolder) -> None:
    """Raises ValueError if a run's checkpoint is of another recipe or seed than its recipe.json. ``fingerprint``: the
    checkpoint's."""
    if fingerprint != folder.fingerprint:
        raise ValueError(
            f"run '{folder.path}': {RECIPE} is not that of its checkpoint: it was edited, or one of the two is another "
            f"run's; bring it back, or begin a new run with --init {folder.path}"
        )


def check_data(run: StageRun, hashes: Mapping[str, str], folder: RunFolder) -> None:
    """Raises ValueError if a resumed run would continue with other images than it began with."""
    for name, data in run.data.items():
        if data.hash != hashes[name]:
            raise ValueError(
                f"run '{folder.path}': the images of '{data.facts.name}' ({name}) are not those that it began "
                f"with; bring them back, or begin a new run with --init {folder.path}"
            )


def explain_memory(error: RuntimeError, stage: Any) -> None:
    """Turn an out-of-memory error into one that says what to lower."""
    message = str(error)
    if not (
        isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in message or "out of memory" in message
    ):
        return
    half = max(1, stage.batch // 2)
    own = {k: v for k, v in stage.game.kwargs.items() if k.endswith("batch") and isinstance(v, int) and v > half}
    more = "".join(f" --set game.{k}={half}" for k in own)
    raise RuntimeError(
        f"out of memory at batch={stage.batch}: try --set batch={half}{more}, --precision bf16 or a smaller network"
    ) from error


def ignore(round: int, name: str, value: Tensor) -> None:
    """What other processes than rank 0 do with a scalar."""


def _silent(event: str, **facts: Any) -> None:
    """No progress is wanted, or this is not rank 0."""


def _fetch_progress(tell: Progress) -> Callable[[int, int, str], None]:
    return lambda done, total, what: tell("data", done=done, total=total, what=what)


__all__ = ["resume", "train", "training_loop"]
