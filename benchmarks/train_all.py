"""Train a list of recipes in one folder, several at a time, on one card or on CPU cores; score them; pack the results.

    python benchmarks/train_all.py benchmarks/campaigns/full.txt --out runs/full --device cuda --processes 3
    python benchmarks/train_all.py '*-fashion-mnist' --out runs/all --processes 2 --seed 0 --seed 1
    python benchmarks/train_all.py '*-fashion-mnist' --out runs/all --status

A list is a file with a recipe a line, most important first: a name or a pattern, then ``seed=``, ``images=`` (a number,
or x10 for ten times the recipe's), ``dataset=folder:PATH``, ``precision=`` or ``cuda_graphs=yes``. Everything stops by
the deadline, by SIGTERM or by Ctrl-C; called again, also after a kill, the same command resumes the runs that were
stopped and leaves out those that are finished.

In the folder: RECIPE-seedS/ (a run), RECIPE-seedS.txt (its output), RECIPE-seedS.json (its scores once it is finished,
or why there are none: the next call tries again). With ``--max-file-mb`` these also go into ``results.tar.000``,
``.001``, ..., of so many MB: weights, logs, last grids, scores, and the checkpoints of the runs that are not finished.
With ``--max-files`` too there are at most so many; what does not fit is named, checkpoints first. A new folder with
nothing else is resumed from them; ``cat results.tar.* | tar x`` unpacks them anywhere.

``--data FOLDER`` has prepared files as ``$ZOO_HOME`` or ``$ZOO_HOME/data`` has them, NAME-RESOLUTION/SPLIT.safetensors
and pretrained/NAME.safetensors, also in numbered parts (.000, .001, ...), and the images of ``dataset=folder:PATH``.
Nothing is downloaded then: a recipe whose training images are missing is reported and left out; one that has no images
for its scores is trained, and ``zoo eval`` scores it elsewhere. ``measure.py runs`` puts the scores of finished runs
into the tables.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fnmatch
import io
import itertools
import json
import math
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
from typing import Any

import click
import quality
import rows
from speed import share_of_budget

import zoo
from zoo import settings
from zoo.data import facts as facts_of
from zoo.data.preparation import damage
from zoo.engine import checkpoint
from zoo.engine.run_folder import CHECKPOINT, LOG, RECIPE, SAMPLES, WEIGHTS
from zoo.files import beside
from zoo.recipe import Recipe, decode
from zoo.registry import DATASETS

PACK = "results.tar"

# The list of runs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One run: ``images`` is its budget in real images, ``options`` are those of ``zoo train`` beside it. ``dataset``:
    a folder of images instead of the recipe's data, ``folder:PATH``."""

    recipe: str
    seed: int
    images: int
    folder: Path
    options: tuple[str, ...] = ()
    dataset: str = ""

    @property
    def label(self) -> str:
        times = self.images / settings.find(self.recipe).images
        longer = f"-x{times:.0f}" if times > 1 and times == int(times) else ""
        data = f"-on-{Path(self.dataset.partition('?')[0].partition(':')[2]).stem}" if self.dataset else ""
        return f"{self.recipe}{data}{longer}-seed{self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / self.label

    @property
    def scores(self) -> Path:
        return self.folder / f"{self.label}.json"

    @property
    def budget(self) -> int:
        """``images`` as the stages share them, rounded."""
        return settings.find(self.recipe).rescaled(self.images).images

    def progress(self) -> int:
        """Real images at the last checkpoint, of all stages; 0 if there is none yet. A run with a file of scores is
        finished: its checkpoint may be gone."""
        if self.scores.exists():
            return self.budget
        path = self.run / CHECKPOINT
        return checkpoint.load(path)[1]["total_images"] if path.exists() else 0

    def finished(self) -> bool:
        return self.progress() >= self.budget

    def no_scores(self) -> str:
        """Why there are no scores; "" if there are."""
        if not self.scores.exists():
            return "not scored yet"
        return str(json.loads(self.scores.read_text(encoding="utf-8")).get("error", ""))

    def check_budget(self) -> None:
        """Raises ValueError if its run was started with another budget."""
        path = self.run / RECIPE
        images = decode(json.loads(path.read_text(encoding="utf-8"))["recipe"]).images if path.exists() else self.budget
        if images != self.budget:
            raise ValueError(f"{self.run}: its budget is {images:,} images, not {self.budget:,}; choose another --out")

    def command(self, minutes: float, device: str) -> list[str]:
        """Starts the run, or resumes it if its folder exists."""
        limit = ["--minutes", f"{minutes:g}"]
        if (self.run / RECIPE).exists():
            return ["resume", str(self.run), "--device", device, *limit]
        data = ["--dataset", self.dataset] if self.dataset else []
        facts = ["--seed", str(self.seed), "--images", str(self.images), "--device", device, "--out", str(self.run)]
        return ["train", self.recipe, *data, *facts, *self.options, *limit]

    def scoring(self, device: str, to: str = "") -> list[str]:
        """Scores the run, in a direction if it has several; a trial of a few images with fewer generated ones."""
        data = ["--dataset", self.dataset] if self.dataset else []
        count = ["-n", "200"] if self.images < settings.find(self.recipe).images else []
        return ["eval", str(self.run), "--json", "--device", device, *data, *count, *(["--to", to] if to else [])]


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
    images, options, dataset = settings.find(name).images, [], ""
    for key, value in values.items():
        if key == "dataset" and value.startswith("folder:"):
            dataset = value
        elif key == "images" and re.fullmatch(r"x?[1-9]\d*", value):
            images = images * int(value[1:]) if value[0] == "x" else int(value)
        elif key == "precision" and value in ("fp32", "tf32", "bf16"):
            options += ["--precision", value]
        elif (key, value) == ("cuda_graphs", "yes"):
            options.append("--cuda-graphs")
        elif key != "seed" or not value.isdigit():
            expected = "seed=N, images=N, images=xN, dataset=folder:PATH, precision=fp32|tf32|bf16 or cuda_graphs=yes"
            raise ValueError(f"must be {expected}, got {key}={value}")
    return Job(name, int(values.get("seed", 0)), images, out, tuple(options), dataset)


# Data without a network -----------------------------------------------------------------------------------------------

PORT = "http://127.0.0.1:9"  # no proxy listens there, so that every download fails at once
OFFLINE = {name: PORT for key in ("http_proxy", "https_proxy", "all_proxy") for name in (key, key.upper())}
OFFLINE |= {"no_proxy": "", "NO_PROXY": "", "HF_HUB_OFFLINE": "1"}
AT_HOME = ("pretrained", "references")  # folders of $ZOO_HOME beside data

Store = tuple[tuple[str, ...], str]  # a prepared file: folders of which one is enough, and the split


def store(name: str, size: int | None, split: str) -> list[Store]:
    """The prepared file of a data set for images of ``size``: of this size, of the set's own, or at native size. None
    if the set is embedded or generated."""
    entry, own = DATASETS.build(name), facts_of(name).resolution
    if not getattr(entry, "sources", ()):
        return []
    sizes = ["native"] if entry.large else [str(s) for s in dict.fromkeys((size or own, own)) if s]
    return [(tuple(f"{name}-{s}" for s in sizes), split)]


def training_stores(recipe: Recipe) -> list[Store]:
    """What every stage and stream reads."""
    result = []
    for stage in recipe.stages:
        size = None if stage.data.pad or not stage.resolution else stage.data.load or stage.resolution
        for stream in stage.data.streams.values():
            result += store(stream.dataset or recipe.dataset, size, stream.split)
    return list(dict.fromkeys(result))


def score_stores(recipe: Recipe) -> list[Store]:
    """What the scores compare with: training images and held-out ones, at the model's size or the set's own, as the
    task has it; if the one at hand is the other one, ``zoo eval`` says so."""
    dataset, stage = facts_of(recipe.dataset).scored_on or recipe.dataset, recipe.stages[-1]
    facts = facts_of(dataset)
    size = None if stage.data.pad else stage.resolution
    test_splits = [split for split in ("test", *facts.splits) if split in facts.splits and split != "train"][:1]
    splits = [split for split in ("train", *test_splits) if split in facts.splits]
    return [each for split in splits for each in store(dataset, size, split)]


def link_data(source: Path, home: Path) -> None:
    """Put the prepared files of a folder under ``home``: links, and files joined from their parts. Raises ValueError if
    a part is missing."""
    files = [path for folder in (source, source / "data") for path in folder.glob("*/*") if path.is_file()]
    for path in sorted(files):
        base = path.parent.name
        name, number = re.fullmatch(r"(.*?)(?:\.(\d+))?", path.name).groups()  # type: ignore[union-attr]
        target = home / base / name if base in AT_HOME else home / "data" / base / name
        if not name.endswith((".safetensors", ".pth")) or (number and int(number)):
            continue
        if target.is_symlink() and (number or target.resolve() != path.resolve()):
            target.unlink()  # of a folder that was elsewhere
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if number is None:
            target.symlink_to(path.resolve())
        else:
            with beside(target) as partial:
                join(parts_of(path.parent / name), partial)


def parts_of(path: Path) -> list[Path]:
    """The numbered parts of a file, in order. Raises ValueError if one is missing."""
    parts = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
    parts.sort(key=lambda p: int(p.suffix[1:]))
    numbers = [int(p.suffix[1:]) for p in parts]
    if numbers != [*range(len(parts))]:
        raise ValueError(f"{path}: parts must be numbered 000, 001, ... without a gap, got {[p.name for p in parts]}")
    return parts


def join(parts: Sequence[Path], path: Path) -> None:
    """Write a file from its parts."""
    with open(path, "wb") as file:
        for part in parts:
            with open(part, "rb") as content:
                shutil.copyfileobj(content, file)


def missing_data(job: Job, home: Path, scores: bool = False) -> list[str]:
    """The files that a job needs for its training or its ``scores`` and that are not under ``home``, or are damaged."""
    if job.dataset:
        path = Path(job.dataset.partition("?")[0].partition(":")[2])
        return [] if path.exists() else [str(path)]
    missing, recipe = [], settings.find(job.recipe)
    for folders, split in score_stores(recipe) if scores else training_stores(recipe):
        paths = [home / "data" / folder / f"{split}.safetensors" for folder in folders]
        problems = {path: damage(path, full=False) for path in paths if path.exists()}
        if not any(not problem for problem in problems.values()):
            details = f" ({'; '.join(problems.values())})" if problems else ""
            missing.append(f"{folders[0]}/{split}.safetensors{details}")
    return missing


def with_path(job: Job, data: Path | None) -> Job:
    """The job with the absolute path of its folder of images: in ``data``, or in the current folder."""
    if not job.dataset:
        return job
    path, mark, options = job.dataset.partition(":")[2].partition("?")
    return dataclasses.replace(job, dataset=f"folder:{((data or Path()) / path).absolute()}{mark}{options}")


# Training and scores --------------------------------------------------------------------------------------------------


@dataclass
class Campaign:
    """What all runs share. ``deadline``: a time of time.monotonic. ``home``: the only place of data, if nothing may be
    downloaded."""

    device: str
    deadline: float
    environment: dict[str, str]
    reserve: float  # seconds before the deadline in which runs write their checkpoints and results are packed
    home: Path | None = None

    def left(self) -> float:
        """Seconds until the runs must stop."""
        return self.deadline - self.reserve - time.monotonic()

    def call(self, arguments: Sequence[str], output: Path) -> int:
        """Run ``zoo`` in a process of its own on one thread, its output at the end of a file; the exit status. If it
        has not stopped by itself some time after the end, it is asked to, and later it is killed."""
        environment = {**os.environ, **self.environment, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with open(output, "a", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "zoo", *arguments],
                stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=rows.ROOT, preexec_fn=die_with_parent,
            )  # fmt: skip
            request_time = 0.0
            while True:
                try:
                    return process.wait(0.2)
                except subprocess.TimeoutExpired:
                    if not request_time and self.left() <= -self.reserve / 4:
                        process.terminate()
                        request_time = time.monotonic()
                    elif request_time and time.monotonic() > request_time + self.reserve / 2:
                        process.kill()

    def train(self, job: Job) -> int:
        """Train or resume one run, then score it if it is finished; 1 if the training failed."""
        try:
            return self.train_and_score(job)
        except (ValueError, OSError) as error:  # such as a damaged checkpoint: the other runs go on
            print(f"{job.label}: {error}", flush=True)
            return 1

    def train_and_score(self, job: Job) -> int:
        output, code = job.folder / f"{job.label}.txt", 0
        if not job.finished():
            if self.left() <= 0:
                return 0
            code = self.call(job.command(self.left() / 60, self.device), output)
        if job.finished() and job.no_scores():
            self.score(job)
        print(f"{job.label}: {status(job)}, exit status {code}", flush=True)
        # A run that was ended at the deadline has not failed: it has a checkpoint, if only of its start.
        return int(code != 0 and self.left() > 0)

    def score(self, job: Job) -> None:
        """Write the scores of a finished run by direction ("" if it has none), or why there are none."""
        missing = missing_data(job, self.home, scores=True) if self.home else []
        results: dict[str, Any] = {"error": f"the data have no {', '.join(missing)}"} if missing else {}
        for to in () if missing else directions(job):
            if self.left() <= 0:
                results = {"error": "no time was left"}
                break
            partial = job.folder / f"{job.label}.eval"
            partial.unlink(missing_ok=True)
            code = self.call(job.scoring(self.device, to), partial)
            text = partial.read_text(encoding="utf-8")
            partial.unlink()
            begin = text.find("{\n")
            if code or begin < 0:
                results = {"error": "no time was left" if self.left() <= 0 else text.strip()[-500:]}
                break
            results[to] = json.loads(text[begin:])
        with beside(job.scores) as partial:
            partial.write_text(json.dumps(results, indent=1), encoding="utf-8")


def directions(job: Job) -> Sequence[str]:
    """The directions or domains in which a finished run is scored, "" if it has none."""
    return quality.directions(zoo.load(job.run))


def die_with_parent() -> None:
    """On Linux a run is killed with the script: otherwise it would go on beside the one that resumes it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def status(job: Job) -> str:
    """How far a run is: "finished", "finished, no scores: ..." or "1,024 of 64,000 images"."""
    images, reason = job.progress(), job.no_scores()
    if images < job.budget:
        return f"{images:,} of {job.budget:,} images"
    return f"finished, no scores: {reason}" if reason else "finished"


def summary(jobs: Sequence[Job]) -> str:
    """How many runs are finished, and begun."""
    images = [job.progress() for job in jobs]
    finished = sum(n >= job.budget for n, job in zip(images, jobs, strict=True))
    return f"{finished} of {len(jobs)} runs are finished, {sum(n > 0 for n in images) - finished} are begun"


# Packing --------------------------------------------------------------------------------------------------------------


def contents(job: Job) -> list[Path]:
    """The files of a run that are packed first."""
    grids = sorted((job.run / SAMPLES).glob("*.png"))[-1:]
    files = [job.run / RECIPE, job.run / LOG, job.run / WEIGHTS, *grids, job.scores, job.folder / f"{job.label}.txt"]
    return [path for path in files if path.exists()]


def checkpoints(job: Job) -> list[Path]:
    """The checkpoint of a run that is not finished."""
    path = job.run / CHECKPOINT
    return [path] if path.exists() and not job.finished() else []


def fitting(files: Sequence[Path], limit: float) -> tuple[list[Path], list[Path]]:
    """Those files of which an archive has at most ``limit`` bytes, and the others. The first ones come first."""
    inside, others, size = [], [], 2 * tarfile.RECORDSIZE  # the end of the archive
    for path in files:
        own = path.stat().st_size + 6 * tarfile.BLOCKSIZE  # with headers, also of a long name, and up to a whole block
        (inside if size + own <= limit else others).append(path)
        size += own if size + own <= limit else 0
    return inside, others


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


def pack(jobs: Sequence[Job], out: Path, max_file_mb: float, max_files: int | None = None) -> None:
    """Write the files of all runs into parts; those of an earlier call go once the new ones are complete. A kill while
    they are replaced leaves parts with a gap, which :func:`unpack` refuses."""
    limit = int(max_file_mb * 1e6)
    files = [
        *itertools.chain.from_iterable(map(contents, jobs)),
        *itertools.chain.from_iterable(map(checkpoints, jobs)),
    ]
    inside, others = fitting(files, math.inf if max_files is None else max_files * limit)
    for path in others:
        print(f"{path.relative_to(out)}: {path.stat().st_size / 1e6:.1f} MB do not fit into {PACK}.*", flush=True)
    fresh = out / ".packing"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with (
        contextlib.closing(Parts(fresh / PACK, limit)) as stream,
        tarfile.open(fileobj=stream, mode="w|") as tar,
    ):
        for path in inside:
            tar.add(path, path.relative_to(out))
    for old in out.glob(f"{PACK}.*"):
        old.unlink()
    for new in sorted(fresh.iterdir(), reverse=True):
        os.replace(new, out / new.name)
    fresh.rmdir()


def unpack(out: Path) -> None:
    """Restore the runs of a folder that has only the parts. Raises ValueError if they are incomplete."""
    whole = out / f"{PACK}.whole"  # is there until all of it is unpacked
    if not whole.exists() and any(out.glob(f"*/{RECIPE}")):
        return
    parts = parts_of(out / PACK)
    if not parts:
        return
    join(parts, whole)
    if whole.stat().st_size % tarfile.RECORDSIZE:
        whole.unlink()
        raise ValueError(f"{out}: the last of the {len(parts)} parts of {PACK} are missing")
    with tarfile.open(whole) as tar:
        tar.extractall(out, filter="data")
    whole.unlink()


# The command ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stop_on_signals(campaign: Campaign) -> Iterator[None]:
    """SIGTERM and SIGINT end the time of all runs: they write their checkpoints. A second one ends this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        campaign.deadline = 0.0
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


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
@click.option("--max-files", type=click.IntRange(min=1), help="With --max-file-mb: at most so many files.")
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
    max_files: int | None,
    only_status: bool,
) -> int:
    """Train every recipe of the lists, or whose name matches RECIPE (wildcards are allowed). Exit status 1 if a run
    failed."""
    deadline = time.monotonic() + 60 * minutes
    if max_files is not None and max_file_mb is None:
        raise ValueError("--max-files: give --max-file-mb too")
    out = out.absolute()
    jobs = [with_path(job, data) for job in list_jobs(lists, out, seeds, images, budget)]
    unpack(out)
    if only_status:
        print("\n".join(f"{job.label}: {status(job)}" for job in jobs))
        return 0
    for job in jobs:
        job.check_budget()
    out.mkdir(parents=True, exist_ok=True)
    home, environment = out / "home" if data is not None else None, {}
    if data is not None and home is not None:
        environment = {"ZOO_HOME": str(home), **OFFLINE}
        link_data(data, home)
    todo = []
    for job in jobs:
        missing = missing_data(job, home) if home is not None and not job.finished() else []
        if missing:
            print(f"{job.label}: left out, {data} has no {', '.join(missing)}", flush=True)
        elif not job.finished() or job.no_scores():
            todo.append(job)
    print(summary(jobs), flush=True)
    campaign = Campaign(device, deadline, environment, min(60.0, 0.1 * 60 * minutes), home)
    with stop_on_signals(campaign), ThreadPoolExecutor(processes) as pool:
        results = list(pool.map(campaign.train, todo))
    stopped = campaign.deadline != deadline
    print(summary(jobs) + "; stopped, the same command continues" * stopped, flush=True)
    if max_file_mb is not None:
        pack(jobs, out, max_file_mb, max_files)
    return 130 if stopped else int(any(results))


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
