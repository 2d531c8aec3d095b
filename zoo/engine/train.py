"""The loop. One for every model, on every device, with any number of processes.

A round plays the game's turns in order; the clock is real images consumed. Nothing is read back from the device but
once a tick. All randomness of a round comes from (seed, stage, round): noise from ``seed_for(seed, "noise", stage, round)``,
the same on all processes, which slice it by rank; what layers draw (dropout) from torch's own generator, seeded with
``seed_for(seed, "layers", stage, round, rank)``. So a resumed run needs no generator's state.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import hub, parallel
from zoo.data import Facts, Loader, open_data
from zoo.data import facts as facts_of
from zoo.engine import checkpoint
from zoo.engine.dry_run import dry_run
from zoo.engine.ema import EmaNetworks
from zoo.engine.export import card, export, finished, model_of, uses
from zoo.engine.run_folder import CHECKPOINT, SAMPLES, WEIGHTS, RunFolder
from zoo.engine.runtime import Runtime, machine_of
from zoo.engine.schedules import Schedules
from zoo.engine.stage import build_game, build_networks, check_batches, parameters, resolve, shipped
from zoo.engine.step import Learner
from zoo.files import remove_partials
from zoo.game import Batch, Game
from zoo.pictures import write_grid
from zoo.recipe import Recipe, Stage, decode
from zoo.seeds import seed_for

Progress = Callable[..., None]
POLL_ROUNDS = 8  # rounds between two questions whether any process wants to stop
PRECOMPUTE_STEPS = 8  # steps of a repeated turn whose fakes are made in one pass, at most: they are held until then
READ_THREADS = 4  # threads that read ahead where a data set does not fit on the device


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    runtime: Runtime = Runtime(),
    seed: int = 0,
    images: int | None = None,
    minutes: float | None = None,
    init: str | Path | None = None,
    dataset: Any = None,
    progress: Progress | None = None,
) -> Path:
    """Train a recipe into the new folder ``out`` and return it.

    ``images``: a total budget in real images; stages and schedules are rescaled with it. ``minutes``: stop early.
    ``init``: weights (a name, file or run folder) to begin from. ``dataset``: anything :func:`zoo.data.open_data` takes, instead
    of the recipe's. ``progress(event, **facts)`` is called with data, start, rate, tick, grid, checkpoint, warning, done.
    ValueError for a mistake in what was asked, before anything is written; RuntimeError for a NaN or lack of memory.
    """
    if images is not None:
        recipe = recipe.rescaled(images)
    device = runtime.settle()
    parallel.start(device)
    folder = RunFolder(out)
    if parallel.rank() == 0:
        folder.check_new()
    source = recipe.dataset if dataset is None else dataset
    facts = facts_of(source)
    recipe = resolve(recipe, facts)
    dry_run(recipe, facts)
    if runtime.eval_every:
        from zoo.metrics.evaluate import check_watch

        check_watch(facts.name)
    session = Session(recipe, source, facts, runtime, device, seed, progress)
    session.begin_from(init)
    session.open_data(0)
    session.folder = folder
    if parallel.rank() == 0:
        with checkpoint.disk(folder.path):
            RunFolder.create(out, recipe, runtime, seed=seed, init=session.init, given=dataset is not None)
    parallel.barrier()
    return session.run(minutes)


def resume(
    run: str | Path,
    *,
    runtime: Runtime | None = None,
    minutes: float | None = None,
    dataset: Any = None,
    progress: Progress | None = None,
) -> Path:
    """Go on with a run that was stopped or killed, from its last checkpoint, as if nothing had happened. One that was
    killed before its first checkpoint begins anew.

    ``runtime``: another machine's choices; by default those it was started with.
    """
    folder = RunFolder(run)
    held = folder.facts()
    recipe, seed = decode(held["recipe"]), held["seed"]
    if held["given"] and dataset is None:
        raise ValueError(f"run '{run}': was trained on a data set given as an object; pass it again as dataset=")
    runtime = runtime or folder.runtime()
    begun = (folder.path / CHECKPOINT).exists()
    tensors, state = checkpoint.load(folder.path / CHECKPOINT) if begun else (None, None)
    device = runtime.settle()
    source = recipe.dataset if dataset is None else dataset
    parallel.start(device)
    session = Session(recipe, source, facts_of(source), runtime, device, seed, progress)
    session.folder = folder
    if not begun:
        session.begin_from(held["init"])
    if parallel.rank() == 0:
        remove_partials(folder.path)
        with checkpoint.disk(folder.path):
            folder.cut_log(state["seen"] if begun else -1)
    parallel.barrier()
    return session.run(minutes, tensors, state)


class Session:
    """The state of a run between rounds."""

    def __init__(
        self,
        recipe: Recipe,
        source: Any,
        facts: Facts,
        runtime: Runtime,
        device: torch.device,
        seed: int,
        progress: Progress | None,
    ):
        self.recipe, self.source, self.facts, self.runtime = recipe, source, facts, runtime
        self.device, self.seed = device, seed
        self.channels_last = runtime.layout == "channels_last" and device.type != "mps"
        self.main = parallel.rank() == 0
        self.tell: Progress = progress if progress is not None and self.main else (lambda event, **facts: None)
        self.folder: RunFolder
        self.networks = build_networks(recipe, seed)
        self.stage_index = self.images = self.round = self.seen = 0
        self.seconds = 0.0
        self.data: dict[str, Any] = {}
        self.stop: str | None = None
        self.deadline = float("inf")
        self.init: str | None = None

    def begin_from(self, init: str | Path | None) -> None:
        """Give the networks the weights of a run, a file or a name. ValueError where they do not fit."""
        if init is not None:
            self.init = str(Path(init).resolve() if Path(init).exists() else init)
            _apply_init(self.networks, _read_init(init), str(init))

    # One stage ----------------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        return self.recipe.stages[self.stage_index]

    def open_data(self, index: int) -> None:
        """Fetch and open what the stage's streams read, before anything else is done."""
        stage = self.recipe.stages[index]
        size = None if stage.data.pad or not stage.resolution else stage.data.load or stage.resolution
        for split in {s.split for s in stage.data.streams.values()}:
            self.data[split] = open_data(self.source, resolution=size, split=split, progress=self._fetching)

    def _fetching(self, done: int, total: int, what: str) -> None:
        self.tell("data", done=done, total=total, what=what)

    def loader(self, name: str, **share: Any) -> Loader:
        """A loader of one stream of the stage, each stream in an order of its own."""
        stage, stream = self.stage, self.stage.data.streams[name]
        return Loader(
            self.data[stream.split],
            seed=seed_for(self.seed, "data", self.stage_index, name),
            keys=stream.keys,
            where=stream.where,
            part=stream.part,
            view=stream.view,
            balanced=(stream.balanced, seed_for(self.seed, "balanced")) if stream.balanced else None,
            range=stage.data.range,
            pad=stage.resolution if stage.data.pad else None,
            crop=stage.resolution if stage.data.load else None,
            flip=stage.data.flip,
            dequantize=stage.data.dequantize,
            **{"device": self.device, "rank": parallel.rank(), "world": parallel.world(), **share},
        )

    def build_stage(self) -> None:
        stage = self.stage
        self.open_data(self.stage_index)
        self.game = build_game(stage, self.networks, self.facts).to(self.device)
        if self.channels_last:
            self.game.to(memory_format=torch.channels_last)
        self.learner = Learner(
            self.game,
            stage,
            device=self.device,
            precision=self.runtime.precision,
            compile=self.runtime.compile,
        )
        check_batches(stage, self.learner.turns)
        if not hasattr(self, "shadows"):
            self.ema_networks = EmaNetworks({n: self.game.get_submodule(n) for n in self.recipe.ema}, self.recipe.ema)
        for name, ema in self.recipe.ema.items():
            self.ema_networks[name].halflife = ema.halflife  # a schedule of the stage before ends with it
        self.schedules = Schedules(stage.schedules, self.learner, self.ema_networks)
        self.loaders = {name: self.loader(name, workers=READ_THREADS) for name in stage.data.streams}
        self.noise = torch.Generator(self.device)
        self._statistics = [
            b
            for n, b in self.game.named_buffers()
            if n.endswith(("running_mean", "running_var")) and b.is_floating_point()
        ]

    def new_batch(self) -> Batch:
        size = self.stage.batch // parallel.world()
        return Batch(size, device=self.device, generator=self.noise, rank=parallel.rank(), world=parallel.world())

    def draw(self, batch: Batch) -> int:
        """Fresh reals of every stream into the batch. Returns how many images the clock has gone on by: all processes'
        from the first stream."""
        world, sizes = parallel.world(), []
        for name, loader in self.loaders.items():
            own = self.stage.data.streams[name].batch
            sizes.append(own // world if own else batch.size)
            for key, value in loader.next(sizes[-1], batch.generator).items():
                batch[key] = self._lay(value)
        return sizes[0] * world

    def _lay(self, value: Any) -> Any:
        if self.channels_last and isinstance(value, Tensor) and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def seed_round(self) -> None:
        seed = seed_for(self.seed, "layers", self.stage_index, self.round, parallel.rank())
        # torch.manual_seed would also queue a call, with its traceback, for each kind of device that is never used.
        torch.default_generator.manual_seed(seed)
        if self.device.type in ("cuda", "mps"):
            getattr(torch, self.device.type).manual_seed(seed)
        self.noise.manual_seed(seed_for(self.seed, "noise", self.stage_index, self.round))

    @torch.no_grad()
    def prepare(self) -> None:
        """The game's data-dependent initialization, on the same images in every process. It comes before weights to
        begin from, and the averages begin where both have left the players."""
        torch.manual_seed(seed_for(self.seed, "prepare", self.stage_index))
        self.noise.manual_seed(seed_for(self.seed, "prepare noise", self.stage_index))
        batch = Batch(self.stage.batch, device=self.device, generator=self.noise)
        for name in self.loaders:
            size = min(1024, len(self.data[self.stage.data.streams[name].split]))
            once = self.loader(name, rank=0, world=1, device=torch.device("cpu"))
            for key, value in once.next(size).items():
                batch[key] = self._lay(value.to(self.device) if isinstance(value, Tensor) else value)
        self.game.prepare(batch)
        if self.seen == 0:
            self.begin_from(self.init)
        parallel.broadcast(self.game)  # devices may have rounded differently
        if self.seen == 0:
            for name, ema_network in self.ema_networks.items():
                ema_network.network.load_state_dict(self.game.get_submodule(name).state_dict())

    # One round ----------------------------------------------------------------------------------------------------

    def play_round(self, record: Callable[[str, Tensor], None]) -> None:
        """Every turn of the game as often as it is due; then the averages. No value is read from the device."""
        self.seed_round()
        self.schedules.write(self.images)
        batch, consumed = self.new_batch(), 0
        world = parallel.world()
        draw = False
        for turn in self.learner.turns:
            times = turn.times(self.round)
            batch.size = (turn.batch or self.stage.batch) // world
            for step in range(times):
                if step % PRECOMPUTE_STEPS == 0:
                    precompute = self.learner.precompute(turn, batch, min(PRECOMPUTE_STEPS, times - step))
                batch.update(precompute[step % PRECOMPUTE_STEPS])
                if turn.draw == "fresh" or (turn.draw == "last" and not draw):
                    consumed += self.draw(batch)
                    draw = True
                for name, value in self.learner.play(turn, batch, self.round).items():
                    record(f"loss/{name}", value)
        for name, value in batch.logs.items():
            record(name, value)
        parallel.mean_in_place(self._statistics)
        self.round += 1
        self.images += consumed
        self.seen += consumed
        self.ema_networks.update(self.game, self.learner.players, consumed, self.seen)

    # The whole run ------------------------------------------------------------------------------------------------

    def run(
        self,
        minutes: float | None,
        tensors: Mapping[str, Tensor] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Path:
        began = time.monotonic()
        if minutes is not None:
            self.deadline = began + minutes * 60
        if state is not None:
            self.stage_index, self.images, self.round = state["stage"], state["images"], state["round"]
            self.seen, self.seconds = state["seen"], state["seconds"]
        with self._signals(), checkpoint.disk(self.folder.path):
            if self.main:
                self.folder.record_machine(machine_of(self.device), self.seen)
            while self.stage_index < len(self.recipe.stages):
                self.build_stage()
                if tensors is not None:
                    self._check_data(state["data"])
                    checkpoint.restore(tensors, self.game, self.learner, self.ema_networks)
                    for name, position in state["positions"].items():
                        self.loaders[name].position = position
                    tensors = None
                else:
                    self.prepare()
                if self.seen == 0 or state is not None:
                    self.tell(
                        "start",
                        recipe=self.recipe.name,
                        dataset=self.facts.name,
                        device=str(self.device),
                        parameters=parameters(self.networks),
                        images=self.recipe.images,
                        seen=self.seen,
                        processes=parallel.world(),
                    )
                    state = None
                self._loop(began)
                if self.stop or self.stage_index + 1 == len(self.recipe.stages):
                    break
                self.stage_index, self.images, self.round = self.stage_index + 1, 0, 0
        seconds = time.monotonic() - began
        self.tell(
            "done",
            path=str(self.folder.path),
            images=self.seen,
            seconds=seconds,
            stopped_by=self.stop or "budget",
            resume=f"zoo resume {self.folder.path}" if self.stop else None,
            use=uses(shipped(self.game, self.recipe, self.stage, self.facts), self.folder.path),
        )
        parallel.stop()
        return self.folder.path

    def _loop(self, began: float) -> None:
        stage = self.stage
        log = Log(self)
        record = log.record if self.main else lambda name, value: None
        if self.main:
            self._save(began)  # before the first round, so that there is always one to go back to
        if self.main and self.seen == 0:
            self._grid()
        clock = Clock()
        while self.images < stage.images and not self.stop:
            before = self.seen
            try:
                self.play_round(record)
            except RuntimeError as error:
                self._explain_memory(error)
                raise
            if self.main and time.monotonic() >= self.deadline:
                self.ask_to_stop("minutes")
            if parallel.world() > 1 and self.round % POLL_ROUNDS == 0:
                stop = parallel.any_true(self._asked is not None)
                self.stop = (self._asked or "another process") if stop else None
            elif parallel.world() == 1:
                self.stop = self._asked
            if not self.main:
                continue
            scoring = self._score_is_due(before)
            if scoring or clock.due("tick"):
                log.tick(began, self._score if scoring else dict)
            if clock.due("grid"):
                log.tick(began)
                self._grid()
            if clock.due("save"):
                log.tick(began)
                self._save(began)
        if self.main:
            log.tick(began)
            self._grid()
            self._save(began)
        parallel.barrier()

    def _grid(self) -> None:
        """Draw the model as it is now; warn where its images are all alike beside real ones."""
        model = model_of(self.game, self.ema_networks, shipped(self.game, self.recipe, self.stage, self.facts))
        with torch.no_grad():
            reals: dict[str, Tensor] = {}
            for name in self.loaders:
                draw = self.loader(name, rank=0, world=1, device=torch.device("cpu")).next(8)
                reals.update({k: v.to(self.device) for k, v in draw.items()})
            images, columns = model.preview(reals)
            spread = images.float().std(0).mean().item()
            real = next(v for v in reals.values() if v.is_floating_point())
            share = spread / max(model.to_unit(real).std(0).mean().item(), 1e-12)
        path = self.folder.path / SAMPLES / f"{self.seen:010d}.png"
        path.parent.mkdir(exist_ok=True)
        write_grid(path, images.float().cpu(), columns)
        self.tell("grid", path=str(path))
        if self.seen and share < 0.03:
            text = f"collapse: after {self.seen:,} images all samples are alike (they differ {share:.0%} as much as real ones)"
            self.folder.log({**self.clock(), "warning": text})
            self.tell("warning", text=text)

    def clock(self) -> dict[str, int]:
        """Where the run stands, as every line of the log says it."""
        return {"images": self.seen, "round": self.round, "stage": self.stage_index}

    def _save(self, began: float) -> None:
        facts = {
            "stage": self.stage_index,
            "images": self.images,
            "round": self.round,
            "seen": self.seen,
            "seconds": self.seconds + time.monotonic() - began,
            "positions": {name: loader.position for name, loader in self.loaders.items()},
            "data": {split: data.hash for split, data in self.data.items()},
        }
        path = self.folder.path / CHECKPOINT
        checkpoint.save(path, checkpoint.collect(self.game, self.learner, self.ema_networks), facts)
        with self._aside() as draw:
            export(
                self.folder.path / WEIGHTS,
                self.game,
                self.ema_networks,
                self.recipe,
                self.stage_index,
                self.facts,
                draw,
                {"images": self.seen, "seconds": round(facts["seconds"], 1), "seed": self.seed},
            )
        self.tell("checkpoint", path=str(path))

    @contextlib.contextmanager
    def _aside(self) -> Iterator[Callable[[], Batch]]:
        """A function that draws real batches for what is no part of the training: afterwards the data stand where they
        stood. (Noise begins anew with each round.)"""
        positions = {name: loader.position for name, loader in self.loaders.items()}
        alone = Batch(self.stage.batch // parallel.world(), device=self.device, generator=self.noise)

        def draw() -> Batch:
            self.draw(alone)
            return alone

        try:
            yield draw
        finally:
            for name, position in positions.items():
                self.loaders[name].position = position

    # Scores -------------------------------------------------------------------------------------------------------

    def _score_is_due(self, before: int) -> bool:
        """Whether the last round, which began at ``before`` images, passed a multiple of ``eval_every`` or was the last."""
        every = self.runtime.eval_every
        if not every:
            return False
        last = self.stage_index + 1 == len(self.recipe.stages) and self.images >= self.stage.images
        return last or self.seen // every > before // every

    def _score(self) -> dict[str, Any]:
        """The model's scores as it would be shipped now, and what they depend on. What goes wrong is told and does not stop
        the run."""
        from zoo.metrics.evaluate import watch

        spec = shipped(self.game, self.recipe, self.stage, self.facts)
        try:
            with self._aside() as draw, parallel.alone():
                model = finished(self.game, self.ema_networks, spec, draw)
                model.card = card(self.recipe, self.facts, spec, {"images": self.seen})
                return watch(model, self.source)
        except (OSError, RuntimeError, ValueError) as error:
            self.tell("warning", text=f"no scores after {self.seen:,} images: {error}")
            return {}

    def _check_data(self, hashes: Mapping[str, str]) -> None:
        """ValueError where a resumed run would go on with other images than it began with."""
        for split, data in self.data.items():
            if data.hash != hashes[split]:
                raise ValueError(
                    f"run '{self.folder.path}': the images of '{self.facts.name}' ({split}) are not those that it began "
                    f"with; bring them back, or begin a new run with --init {self.folder.path}"
                )

    # Stopping -----------------------------------------------------------------------------------------------------

    _asked: str | None = None

    def ask_to_stop(self, why: str) -> None:
        """Finish the round, write a checkpoint, stop."""
        self._asked = why

    @contextlib.contextmanager
    def _signals(self):
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        held = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        for s in held:
            signal.signal(s, lambda number, frame: self.ask_to_stop(signal.Signals(number).name))
        try:
            yield
        finally:
            for s, handler in held.items():
                signal.signal(s, handler)

    def _explain_memory(self, error: RuntimeError) -> None:
        """Turn an out-of-memory error into one that names the largest batch, by halves, that plays a round."""
        said = str(error)
        if not (
            isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said or "out of memory" in said
        ):
            return
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the turn that failed
        whole = self.stage.batch
        if parallel.world() > 1:  # the others wait in a collective: there is no trying together
            raise RuntimeError(f"out of memory at batch={whole} over {parallel.world()} processes: lower it") from error
        batch = whole
        while batch > 1:
            batch //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if self._fits(batch):
                own = {k: v for k, v in self.stage.game.kwargs.items() if k.endswith("batch") and isinstance(v, int)}
                more = "".join(f" --set game.{k}={batch}" for k, v in own.items() if v > batch)
                raise RuntimeError(
                    f"out of memory at batch={whole}; batch={batch} fits: --set batch={batch}{more}"
                ) from error
        raise RuntimeError(f"out of memory at batch={whole}, and at batch=1 too: use a smaller network") from error

    def _fits(self, batch: int) -> bool:
        """Whether each turn can be played on ``batch`` samples; the weights it changes are not used again."""
        trial = self.new_batch()
        try:
            for turn in self.learner.turns:
                trial.size = min(batch, (turn.batch or batch))
                self.draw(trial)
                self.learner.play(turn, trial, self.round)
        except (RuntimeError, ValueError):  # batch norm refuses a batch of 1
            return False
        return True


class Clock:
    """When the next tick, grid and checkpoint are due: often at first, then more and more rarely."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.at = {"tick": 1.0, "grid": 10.0, "save": 60.0}
        self.most = {"tick": 60.0, "grid": 1800.0, "save": 600.0}
        self.grow = {"tick": 0.01, "grid": 0.5, "save": 0.25}

    def due(self, what: str) -> bool:
        now = time.monotonic() - self.began
        if now < self.at[what]:
            return False
        self.at[what] = now + min(
            self.most[what], max({"tick": 1.0, "grid": 5.0, "save": 60.0}[what], now * self.grow[what])
        )
        return True


class Log:
    """Scalars on the device between ticks; once a tick their means in a line of log.jsonl. Stops the run at a NaN."""

    def __init__(self, session: Session):
        self.session = session
        self.held: dict[str, list[tuple[int, Tensor]]] = {}
        self.last_time, self.last_seen = time.monotonic(), session.seen
        self.rated = False

    def record(self, name: str, value: Tensor) -> None:
        self.held.setdefault(name, []).append((self.session.round, value))

    def tick(self, began: float, score: Callable[[], dict[str, Any]] = dict) -> None:
        """Read what was recorded since the last tick; ``score`` adds scores and their protocol to its line (to each: a run may go
        on elsewhere, and its log be cut anywhere). RuntimeError with round, player and checkpoint at a NaN or Inf."""
        session, now = self.session, time.monotonic()
        if not self.held:
            return
        read = {name: torch.stack([v.float() for _, v in held]).cpu() for name, held in self.held.items()}
        rounds = {name: [round for round, _ in held] for name, held in self.held.items()}
        self.held.clear()
        try:
            self._check(read, rounds)
        except RuntimeError as error:
            session.folder.log({**session.clock(), "stopped": str(error)})
            raise
        means = {name: values.mean().item() for name, values in read.items()}
        rate = (session.seen - self.last_seen) / max(now - self.last_time, 1e-9)
        whole = (session.recipe.images - session.seen) / max(rate, 1e-9)
        left = min(whole, max(session.deadline - now, 0.0))
        self.last_time, self.last_seen = now, session.seen
        facts = {
            **session.clock(),
            "seconds": round(session.seconds + now - began, 2),
            "images_per_second": round(rate, 2),
        }
        scored = score()
        if scored:
            facts |= scored
            self.last_time = time.monotonic()  # the rate is that of the training
        # JSON has no NaN: what a game logs beside its losses may be what it likes
        session.folder.log({**facts, **{k: round(v, 6) if math.isfinite(v) else None for k, v in means.items()}})
        if not self.rated:
            self.rated = True
            session.tell("rate", images_per_second=rate, seconds_left=whole)
        session.tell(
            "tick",
            images=session.seen,
            total=session.recipe.images,
            images_per_second=rate,
            seconds_left=left,
            round=session.round,
            logs=means,
            scores=scored.get("scores", {}),
        )

    def _check(self, read: Mapping[str, Tensor], rounds: Mapping[str, list[int]]) -> None:
        """RuntimeError at the first loss, or at a weight, that is not finite."""
        session = self.session
        where = f"of stage {session.stage_index + 1}"
        last = f"the last good checkpoint is {session.folder.path / CHECKPOINT}"
        bad = [
            (rounds[name][i], name, values[i].item())
            for name, values in read.items()
            if name.startswith("loss/")
            for i in (~torch.isfinite(values)).nonzero()[:1].flatten().tolist()
        ]
        if bad:
            round, name, value = min(bad, key=lambda b: b[0])
            raise RuntimeError(f"{name} is {value} in round {round} {where} (player {name.partition('/')[2]}); {last}")
        for player, named in session.learner.players.items():
            if not all(bool(torch.isfinite(p).all()) for p in named.values()):
                raise RuntimeError(
                    f"a weight of player {player} is not finite after round {session.round} {where}; {last}"
                )


def _read_init(init: str | Path) -> dict[str, dict[str, Tensor]]:
    """Weights to begin from, by network: of a run folder all its players, of a weights file what it ships."""
    path = Path(init) / CHECKPOINT
    if path.is_file():
        tensors, _ = checkpoint.load(path)
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in sorted(tensors.items()):
            kind, _, rest = key.partition(".")
            name, dot, inside = rest.partition(".")
            if kind == "game" and dot:  # a buffer of the game itself has no name inside
                found.setdefault(name, {})[inside] = value
        return found
    model = hub.load(str(init))
    return {name: child.state_dict() for name, child in model.networks.items()}


def _apply_init(networks: Mapping[str, nn.Module], weights: Mapping[str, dict[str, Tensor]], init: str) -> None:
    """Load the networks that both sides have. ValueError where one does not fit, or none is common."""
    common = [n for n in networks if n in weights]
    if not common:
        raise ValueError(
            f"init='{init}': holds {', '.join(weights)}, the recipe has {', '.join(networks)}: none in common"
        )
    for name in common:
        try:
            networks[name].load_state_dict(weights[name])
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise ValueError(f"init='{init}': network {name} does not fit the recipe's: {first}") from None


__all__ = ["Game", "Session", "resume", "train"]
