"""Searches of settings: what a paper leaves free, for a quarter of the budget, compared with images that the tables do
not use.

    python benchmarks/search.py benchmarks/searches/s3gan-fashion-mnist.txt --out runs/search --processes 2

A search is a file of the recipe's name. It has a setting a line: the values of the same fields, as ``zoo train --set``
takes them, separated by spaces; after an empty line the fields may be others. Each setting is trained for a quarter of
the recipe's multiply-adds, so that smaller networks see more images, and compared with images of the training split;
the tables compare with the test split. Called again, also after a kill, the same command resumes the runs that were
stopped and leaves out those that are finished. A line for each setting goes to results/search.jsonl, for
docs/results.md; the recipe has the one that was chosen.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import quality
import rows
from train_all import Campaign, Job, status, stop_on_signals

import zoo
from zoo import settings
from zoo.costs import multiply_adds
from zoo.overrides import override_all
from zoo.recipe import Recipe

SHARE = 0.25  # of the recipe's multiply-adds
METRICS = "fd,precision,recall"  # of generators; of models with inputs all that they have


@dataclass(frozen=True)
class Trial(Job):
    """A run of a setting. ``fields``: the values that it has in place of the recipe's."""

    fields: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        digest = hashlib.sha256(" ".join(self.fields).encode()).hexdigest()[:8]
        return f"{self.recipe}-{digest}-seed{self.seed}"

    @functools.cached_property
    def changed(self) -> Recipe:
        return override_all(settings.find(self.recipe), self.fields)

    @property
    def budget(self) -> int:
        return self.changed.rescaled(self.images).images

    def scoring(self, device: str, to: str = "") -> list[str]:
        metrics = ["--metrics", METRICS] if zoo.load(self.run).seeded else []
        protocol = [*metrics, "--split", "train", "-n", str(quality.COUNT), "--device", device]
        return ["eval", str(self.run), "--json", *protocol, *(["--to", to] if to else [])]

    def line(self) -> dict[str, Any]:
        """The result line of a finished run that is scored."""
        scores = json.loads(self.scores.read_text(encoding="utf-8"))
        about = json.loads((self.run / "recipe.json").read_text(encoding="utf-8"))
        compiled = " --compile" if "--compile" in self.options else ""
        command = f"python benchmarks/search.py benchmarks/searches/{self.recipe}.txt{compiled}"
        return {
            "recipe": self.recipe,
            "fields": " ".join(self.fields),
            "images": self.budget,
            "multiply_adds": multiply_adds(self.changed.rescaled(self.images)),
            "seconds": round(zoo.load(self.run).card["seconds"]),
            "scores": {to: quality.round_scores(result["scores"]) for to, result in scores.items()},
            "protocol": {to: result["protocol"] for to, result in scores.items()},
            **rows.facts(command, self.seed),
            "trained_on": rows.machines_of(about),
        }


def read_search(path: Path, out: Path, seed: int = 0, compiled: bool = False) -> list[Trial]:
    """The runs of a search, in its order. ``compiled``: with ``zoo train --compile``. Raises ValueError, with file and
    line, for a mistake in it."""
    recipe, trials = settings.find(path.stem), list[Trial]()
    budget, keys = SHARE * multiply_adds(recipe), None
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = tuple(text.partition("#")[0].split())
        if not fields:
            keys = keys if text.strip() else None
            continue
        try:
            changed = override_all(recipe, fields)
            own = [field.partition("=")[0] for field in fields]
            if keys not in (None, own):
                raise ValueError(
                    f"must have the fields {' '.join(keys or ())}, as the line before, got {' '.join(own)}"
                )
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        keys, images = own, round(budget / multiply_adds(changed) * changed.images)
        options = (*(part for field in fields for part in ("--set", field)), *["--compile"] * compiled)
        trials.append(Trial(recipe.name, seed, images, out, options, fields=fields))
    if not trials:
        raise ValueError(f"{path}: has no settings")
    return trials


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("searches", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of all runs.")
@click.option("--processes", default=1, type=click.IntRange(min=1), show_default=True, help="Runs at a time.")
@click.option("--seed", default=0, type=click.IntRange(min=0), show_default=True)
@click.option("--device", default="auto", show_default=True, help="As for zoo train.")
@click.option("--compile", "compiled", is_flag=True, help="As for zoo train: faster for small batches of long runs.")
@click.option(
    "--minutes", default=600.0, type=click.FloatRange(min=0, min_open=True), show_default=True,
    help="Stop everything by then; the same command continues.",
)  # fmt: skip
def command(
    searches: tuple[Path, ...], out: Path, processes: int, seed: int, device: str, compiled: bool, minutes: float
) -> int:
    """Train and score every setting of the searches. Exit status 1 if a run failed."""
    deadline, out = time.monotonic() + 60 * minutes, out.absolute()
    trials = [trial for path in searches for trial in read_search(path, out, seed, compiled)]
    for trial in trials:
        trial.check_budget()
    out.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(device, deadline, {}, min(60.0, 0.1 * 60 * minutes))
    todo = [trial for trial in trials if not trial.finished() or trial.no_scores()]
    with stop_on_signals(campaign), ThreadPoolExecutor(processes) as pool:
        failed = any(list(pool.map(campaign.train, todo)))
    for trial in trials:
        if trial.finished() and not trial.no_scores():
            rows.write("search", trial.line(), ("recipe", "fields", "seed"))
        print(f"{trial.recipe} {' '.join(trial.fields)}: {status(trial)}", flush=True)
    return 130 if campaign.deadline != deadline else int(failed)


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
