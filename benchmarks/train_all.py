"""Train many recipes: a run folder for each recipe and seed in one folder, several at a time, one thread each.

    python benchmarks/train_all.py '*-fashion-mnist' --out runs/all --processes 2 --seed 0 --seed 1
    python benchmarks/train_all.py '*-fashion-mnist' --out runs/all --status

Called again, it resumes the runs that were stopped and leaves out those that are finished, so it may be stopped at any
time: Ctrl-C lets each run finish its round and write a checkpoint. The output of a run is in FOLDER/NAME-seedS.txt.
``measure.py runs`` scores finished runs.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import rows

from zoo import settings
from zoo.engine import checkpoint
from zoo.engine.run_folder import CHECKPOINT, RECIPE


@dataclass(frozen=True)
class Job:
    """One run: ``images`` is its budget in real images."""

    recipe: str
    seed: int
    images: int
    folder: Path

    @property
    def label(self) -> str:
        return f"{self.recipe}-seed{self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / self.label

    def progress(self) -> int:
        """Real images at the last checkpoint, of all stages; 0 if there is none yet."""
        path = self.run / CHECKPOINT
        return checkpoint.load(path)[1]["total_images"] if path.exists() else 0

    def finished(self) -> bool:
        return self.progress() >= self.images

    def command(self, minutes: float | None) -> list[str]:
        """Starts the run, or resumes it if its folder exists."""
        limit = [] if minutes is None else ["--minutes", f"{minutes:g}"]
        if (self.run / RECIPE).exists():
            return ["resume", str(self.run), *limit]
        return [
            "train",
            self.recipe,
            "--seed",
            str(self.seed),
            "--images",
            str(self.images),
            "--out",
            str(self.run),
            *limit,
        ]


def select(patterns: Sequence[str]) -> list[str]:
    """The recipes that match any of the patterns, by name. Raises ValueError if a pattern matches none."""
    names = settings.names()
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no recipe matches '{pattern}' (zoo list recipes)")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def train(job: Job, minutes: float | None) -> int:
    """Train or resume one run in a process of its own, on one thread; its exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with open(job.folder / f"{job.label}.txt", "a", encoding="utf-8") as output:
        command = [sys.executable, "-m", "zoo", *job.command(minutes)]
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=rows.ROOT)
    print(f"{job.label}: {status(job)}, exit status {done.returncode}", flush=True)
    return done.returncode


def status(job: Job) -> str:
    """How far a run is: "finished" or "1,024 of 64,000 images"."""
    images = job.progress()
    return "finished" if images >= job.images else f"{images:,} of {job.images:,} images"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("patterns", nargs=-1, required=True, metavar="RECIPE...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of all runs.")
@click.option("--processes", default=1, type=click.IntRange(min=1), show_default=True, help="Runs at a time.")
@click.option("--seed", "seeds", multiple=True, default=(0,), type=click.IntRange(min=0), help="May be repeated.")
@click.option("--images", type=click.IntRange(min=1), help="Budget of each run.  [default: the recipe's]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Stop each run after so many minutes.")
@click.option("--status", "only_status", is_flag=True, help="Print how far each run is, and train nothing.")
def command(
    patterns: tuple[str, ...],
    out: Path,
    processes: int,
    seeds: tuple[int, ...],
    images: int | None,
    minutes: float | None,
    only_status: bool,
) -> int:
    """Train every recipe whose name matches RECIPE (wildcards are allowed). Exit status 1 if a run failed."""
    out = out.absolute()
    names = select(patterns)
    jobs = [Job(n, s, images or settings.find(n).images, out) for n, s in itertools.product(names, seeds)]
    if only_status:
        print("\n".join(f"{job.label}: {status(job)}" for job in jobs))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not job.finished()]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are finished", flush=True)
    pool = ThreadPoolExecutor(processes)
    try:
        results = list(pool.map(lambda job: train(job, minutes), todo))
    except KeyboardInterrupt:  # the runs get it too, and write their checkpoints
        pool.shutdown(cancel_futures=True)
        print("stopped; the same command continues", flush=True)
        return 130
    return int(any(results))


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
