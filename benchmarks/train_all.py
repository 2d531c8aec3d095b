"""Train a list of recipes in one folder, several at a time, on one card or on CPU cores; score them; pack the results.

    python benchmarks/train_all.py benchmarks/campaigns/full.txt --out runs/full --device cuda --processes 3
    python benchmarks/train_all.py '*-fashion-mnist' --out runs/all --processes 2 --seed 0 --seed 1
    python benchmarks/train_all.py '*-fashion-mnist' --out runs/all --status

A list is a file with a recipe a line, most important first: a name or a pattern, then ``seed=``, ``images=`` (a number,
or x10 for ten times the recipe's), ``precision=`` or ``cuda_graphs=yes``. Everything stops by the deadline; called
again, also after a kill, the same command resumes the runs that were stopped and leaves out those that are finished.

In the folder: RECIPE-seedS/ (a run), RECIPE-seedS.txt (its output), RECIPE-seedS.json (its scores once it is finished).
With ``--max-file-mb`` these also go into ``results.tar.000``, ``.001``, ..., of so many MB: weights, logs, last grids,
scores, and the checkpoints of the runs that are not finished. A new folder with nothing else is resumed from them;
``cat results.tar.* | tar x`` unpacks them anywhere.

``--data FOLDER`` has prepared files, ``NAME-RESOLUTION/SPLIT.safetensors`` as under ``$ZOO_HOME/data``, also in
numbered parts (``SPLIT.safetensors.000``, ``.001``, ...). Nothing is downloaded then: a recipe whose images are missing
is reported and left out. ``measure.py runs`` puts the scores of finished runs into the tables.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fnmatch
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import rows
from speed import share_of_budget

from zoo import settings
from zoo.data import facts as facts_of
from zoo.engine import checkpoint
from zoo.engine.run_folder import CHECKPOINT, LOG, RECIPE, SAMPLES, WEIGHTS
from zoo.files import beside
from zoo.recipe import Recipe
from zoo.registry import DATASETS

PACK = "results.tar"

# The list of runs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One run: ``images`` is its budget in real images, ``options`` are those of ``zoo train`` beside it."""

    recipe: str
    seed: int
    images: int
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        times = self.images / settings.find(self.recipe).images
        longer = f"-x{times:.0f}" if times > 1 and times == int(times) else ""
        return f"{self.recipe}{longer}-seed{self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / self.label

    @property
    def scores(self) -> Path:
        return self.folder / f"{self.label}.json"

    def progress(self) -> int:
        """Real images at the last checkpoint, of all stages; 0 if there is none yet. A run with scores is finished: its
        checkpoint may be gone."""
        if self.scores.exists():
            return self.images
        path = self.run / CHECKPOINT
        return checkpoint.load(path)[1]["total_images"] if path.exists() else 0

    def finished(self) -> bool:
        return self.progress() >= self.images

    def command(self, minutes: float, device: str) -> list[str]:
        """Starts the run, or resumes it if its folder exists."""
        limit = ["--minutes", f"{minutes:g}"]
        if (self.run / RECIPE).exists():
            return ["resume", str(self.run), "--device", device, *limit]
        facts = ["--seed", str(self.seed), "--images", str(self.images), "--device", device, "--out", str(self.run)]
        return ["train", self.recipe, *facts, *self.options, *limit]


def select(patterns: Sequence[str]) -> list[str]:
    """The recipes that match any of the patterns, by name. Raises ValueError if a pattern matches none."""
    names = settings.names()
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no recipe matches '{pattern}' (zoo list recipes)")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def read_list(path: Path, out: Path) -> list[Job]:
    """The jobs of a list, in its order, each once. Raises ValueError, with file and line, for a mistake in it."""
    jobs: dict[str, Job] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        pattern, *pairs = text.partition("#")[0].split() or [""]
        if not pattern:
            continue
        try:
            for name in select([pattern]):
                job = job_of(name, dict(pair.split("=", 1) for pair in pairs if check_pair(pair)), out)
                jobs.setdefault(job.label, job)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return [*jobs.values()]


def check_pair(pair: str) -> bool:
    """True. Raises ValueError unless it is ``KEY=VALUE``."""
    if not re.fullmatch(r"\w+=\S+", pair):
        raise ValueError(f"must be KEY=VALUE, got '{pair}'")
    return True


def job_of(name: str, values: dict[str, str], out: Path) -> Job:
    """A job from the values of its line. Raises ValueError for a wrong key or value."""
    images, options = settings.find(name).images, []
    for key, value in values.items():
        if key == "images" and re.fullmatch(r"x?[1-9]\d*", value):
            images = images * int(value[1:]) if value[0] == "x" else int(value)
        elif key == "precision" and value in ("fp32", "tf32", "bf16"):
            options += ["--precision", value]
        elif (key, value) == ("cuda_graphs", "yes"):
            options.append("--cuda-graphs")
        elif key != "seed" or not value.isdigit():
            expected = "seed=N, images=N, images=xN, precision=fp32|tf32|bf16 or cuda_graphs=yes"
            raise ValueError(f"must be {expected}, got {key}={value}")
    return Job(name, int(values.get("seed", 0)), images, out, tuple(options))


# Data without a network -----------------------------------------------------------------------------------------------


def stores(recipe: Recipe) -> list[tuple[str, str]]:
    """The prepared files that training and scores read, as (folder, split): of every stage and stream, and the
    reference's."""
    result = []
    for stage in recipe.stages:
        size = None if stage.data.pad or not stage.resolution else stage.data.load or stage.resolution
        for stream in stage.data.streams.values():
            name = stream.dataset or recipe.dataset
            facts = facts_of(name)
            if getattr(DATASETS.build(name), "sources", ()):  # others are embedded or generated
                result.append((f"{name}-{size or facts.resolution}", stream.split))
    return list(dict.fromkeys(result))


def link_data(source: Path, home: Path) -> None:
    """Put the prepared files of a folder under ``home``/data: links, and files joined from their parts."""
    for path in sorted(source.glob("*/*.safetensors*")):
        name, _, part = path.name.partition(".safetensors")
        name += ".safetensors"
        target = home / "data" / path.parent.name / name
        if target.exists() or (part and path != sorted(path.parent.glob(f"{name}.*"))[0]):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not part:
            target.symlink_to(path.resolve())
            continue
        with beside(target) as partial, open(partial, "wb") as file:
            for piece in sorted(path.parent.glob(f"{name}.*"), key=lambda p: int(p.suffix[1:])):
                with open(piece, "rb") as content:
                    shutil.copyfileobj(content, file)


def missing_data(job: Job, home: Path) -> list[str]:
    """The prepared files that a job needs and that are not under ``home``: of its own size or of the set's."""
    recipe, missing = settings.find(job.recipe), []
    for folder, split in stores(recipe):
        name, _, size = folder.rpartition("-")
        sizes = {size, str(facts_of(name).resolution)}
        if not any((home / "data" / f"{name}-{s}" / f"{split}.safetensors").exists() for s in sizes):
            missing.append(f"{folder}/{split}.safetensors")
    return missing


# Training and scores --------------------------------------------------------------------------------------------------


@dataclass
class Campaign:
    """What all runs share. ``deadline``: a time of time.monotonic. ``processes``: those that run now."""

    device: str
    deadline: float
    environment: dict[str, str]
    reserve: float  # seconds before the deadline in which runs write their checkpoints and results are packed
    processes: set[subprocess.Popen] = dataclasses.field(default_factory=set)

    def left(self) -> float:
        """Seconds until the runs must stop."""
        return self.deadline - self.reserve - time.monotonic()

    def call(self, arguments: Sequence[str], output: Path) -> int:
        """Run ``zoo`` in a process of its own on one thread, its output at the end of a file; the exit status. At the
        deadline it is asked to stop, a little later it is killed."""
        environment = {**os.environ, **self.environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with open(output, "a", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "zoo", *arguments],
                stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=rows.ROOT, preexec_fn=die_with_parent,
            )  # fmt: skip
            self.processes.add(process)
            try:
                for patience, ask in ((max(self.left(), 0), process.terminate), (self.reserve / 2, process.kill)):
                    try:
                        return process.wait(patience)
                    except subprocess.TimeoutExpired:
                        ask()
                return process.wait()
            finally:
                self.processes.discard(process)

    def train(self, job: Job) -> int:
        """Train or resume one run, then score it if it is finished; 1 if that failed."""
        output, code = job.folder / f"{job.label}.txt", 0
        if not job.finished():
            if self.left() <= 0:
                print(f"{job.label}: {status(job)}, no time is left", flush=True)
                return 0
            code = self.call(job.command(self.left() / 60, self.device), output)
        if job.finished() and not job.scores.exists() and self.left() > 0:
            self.score(job)
        print(f"{job.label}: {status(job)}, exit status {code}", flush=True)
        # A run that was ended at the deadline has not failed: it has a checkpoint, if only of its start.
        return int(code != 0 and self.left() > 0)

    def score(self, job: Job) -> None:
        """Write the scores of a finished run, or why there are none."""
        partial = job.folder / f"{job.label}.eval"
        partial.unlink(missing_ok=True)
        code = self.call(["eval", str(job.run), "--json", "--device", self.device, *count_of(job)], partial)
        text = partial.read_text(encoding="utf-8")
        partial.unlink()
        if code and self.left() <= 0:
            return  # next time
        begin = text.find("{\n")
        content = json.loads(text[begin:]) if not code and begin >= 0 else {"error": text.strip().splitlines()[-1:]}
        with beside(job.scores) as file:
            file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def count_of(job: Job) -> list[str]:
    """Fewer generated images for the trials of a few images."""
    return [] if job.images >= settings.find(job.recipe).images else ["-n", "200"]


def die_with_parent() -> None:
    """On Linux a run is killed with the script: otherwise it would go on beside the one that resumes it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def status(job: Job) -> str:
    """How far a run is: "finished" or "1,024 of 64,000 images"."""
    images = job.progress()
    return "finished" if images >= job.images else f"{images:,} of {job.images:,} images"


# Packing --------------------------------------------------------------------------------------------------------------


def contents(job: Job) -> list[Path]:
    """The files of a run that are packed."""
    grids = sorted((job.run / SAMPLES).glob("*.png"))[-1:]
    files = [job.run / RECIPE, job.run / LOG, job.run / WEIGHTS, *grids, job.scores, job.folder / f"{job.label}.txt"]
    if not (job.finished() and job.scores.exists()):
        files.append(job.run / CHECKPOINT)
    return [path for path in files if path.exists()]


class Parts(io.RawIOBase):
    """A stream into numbered files of ``limit`` bytes at most."""

    def __init__(self, path: Path, limit: int):
        self.path, self.limit, self.count, self.size = path, limit, 0, 0
        self.file = open(f"{path}.{0:03d}", "wb")  # noqa: SIM115

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        while view:
            if self.size == self.limit:
                self.file.close()
                self.count, self.size = self.count + 1, 0
                self.file = open(f"{self.path}.{self.count:03d}", "wb")  # noqa: SIM115
            piece = view[: self.limit - self.size]
            self.file.write(piece)
            self.size, view = self.size + len(piece), view[len(piece) :]
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def pack(jobs: Sequence[Job], out: Path, max_file_mb: float) -> None:
    """Write the files of all runs into parts; those of an earlier call go once the new ones are complete."""
    fresh = out / ".packing"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with (
        contextlib.closing(Parts(fresh / PACK, int(max_file_mb * 1e6))) as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,
    ):
        for path in itertools.chain.from_iterable(map(contents, jobs)):
            tar.add(path, path.relative_to(out))
    for old in out.glob(f"{PACK}.*"):
        old.unlink()
    for new in sorted(fresh.iterdir()):
        os.replace(new, out / new.name)
    fresh.rmdir()


def unpack(out: Path) -> None:
    """Restore the runs of a folder that has only the parts."""
    parts = sorted(out.glob(f"{PACK}.*"), key=lambda p: int(p.suffix[1:]))
    if not parts or any(out.glob(f"*/{RECIPE}")):
        return
    whole = out / f"{PACK}.whole"
    with open(whole, "wb") as file:
        for part in parts:
            with open(part, "rb") as content:
                shutil.copyfileobj(content, file)
    with tarfile.open(whole) as tar:
        tar.extractall(out, filter="data")
    whole.unlink()


# The command ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stop_on_signals(campaign: Campaign) -> Iterator[None]:
    """SIGTERM as Ctrl-C: the runs get it too, and write their checkpoints."""

    def stop(number: int, frame: object) -> None:
        campaign.deadline = 0.0
        for process in list(campaign.processes):
            process.terminate()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("lists", nargs=-1, required=True, metavar="RECIPE|LIST...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of all runs.")
@click.option("--processes", default=1, type=click.IntRange(min=1), show_default=True, help="Runs at a time.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(min=0), help="Of recipes; may be repeated.")
@click.option("--images", type=click.IntRange(min=1), help="Budget of each run.  [default: the recipe's or list's]")
@click.option("--budget", default="100%", callback=share_of_budget, show_default=True, help="A share of each budget.")
@click.option("--device", default="auto", show_default=True, help="As for zoo train.")
@click.option(
    "--minutes", default=12.0, type=click.FloatRange(min=0, min_open=True), show_default=True,
    help="Stop everything by then; the same command continues.",
)  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Prepared files.")
@click.option("--max-file-mb", type=click.FloatRange(min=0.1), help="Pack the results into files of so many MB.")
@click.option("--status", "only_status", is_flag=True, help="Print how far each run is, and train nothing.")
def command(
    lists: tuple[str, ...],
    out: Path,
    processes: int,
    seeds: tuple[int, ...],
    images: int | None,
    budget: float,
    device: str,
    minutes: float,
    data: Path | None,
    max_file_mb: float | None,
    only_status: bool,
) -> int:
    """Train every recipe of the lists, or whose name matches RECIPE (wildcards are allowed). Exit status 1 if a run
    failed."""
    deadline = time.monotonic() + 60 * minutes
    out = out.absolute()
    jobs = list_jobs(lists, out, seeds, images, budget)
    unpack(out)
    if only_status:
        print("\n".join(f"{job.label}: {status(job)}" for job in jobs))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    environment = {}
    if data is not None:
        environment["ZOO_HOME"] = str(out / "home")
        link_data(data, out / "home")
    todo = []
    for job in jobs:
        missing = missing_data(job, out / "home") if data is not None else []
        if missing:
            print(f"{job.label}: left out, {data} has no {', '.join(missing)}", flush=True)
        elif not (job.finished() and job.scores.exists()):
            todo.append(job)
    print(f"{sum(job.finished() for job in jobs)} of {len(jobs)} runs are finished", flush=True)
    campaign = Campaign(device, deadline, environment, reserve=min(60.0, 0.1 * 60 * minutes))
    pool = ThreadPoolExecutor(processes)
    try:
        with stop_on_signals(campaign):
            results = list(pool.map(campaign.train, todo))
    except KeyboardInterrupt:  # the runs get it too, and write their checkpoints
        campaign.deadline = 0.0
        pool.shutdown(cancel_futures=True)
        print("stopped; the same command continues", flush=True)
        return 130
    if max_file_mb is not None:
        pack(jobs, out, max_file_mb)
    return int(any(results))


def list_jobs(lists: Sequence[str], out: Path, seeds: Sequence[int], images: int | None, budget: float) -> list[Job]:
    """The jobs of all arguments, each once. Raises ValueError for one that is neither a list nor a recipe's name."""
    jobs: list[Job] = []
    for text in lists:
        if Path(text).is_file():
            listed = read_list(Path(text), out)
            jobs += [dataclasses.replace(j, seed=s) for s in seeds for j in listed] if seeds else listed
        else:
            jobs += [Job(n, s, settings.find(n).images, out) for n in select([text]) for s in seeds or (0,)]
    if images or budget < 1:
        jobs = [dataclasses.replace(j, images=images or max(1, round(j.images * budget))) for j in jobs]
    return [*{job.label: job for job in jobs}.values()]


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
