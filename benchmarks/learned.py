"""A result line for each finished run, by recipe and seed: that its model has been seen to learn.

    python benchmarks/learned.py RUN [RUN ...] --trained-at COMMIT

Writes to benchmarks/results/learned.jsonl what the run's recipe, log and weights say, and its scores at the start (the untrained
networks) and at the end (``quality.py`` scores shipped files again, and what stands beside them); its log goes to benchmarks/results/logs/, its last grid to docs/images/.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import quality
import rows
from torch.nn import Module

import zoo
from zoo import settings
from zoo.data import facts as facts_of
from zoo.engine.dry_run import dry_run, times_played
from zoo.engine.run_folder import LOG, RECIPE, SAMPLES
from zoo.engine.stage import build_networks, parameters, resolve
from zoo.model import Model, build_model
from zoo.recipe import Recipe, decode


def untrained(model: Model, recipe: Recipe, seed: int) -> Model:
    """The model as the run began."""
    networks = build_networks(resolve(recipe, facts_of(recipe.dataset)), seed)
    return build_model(model.spec, {n: networks[n] for n in model.spec["networks"]}, model.card).eval()


def played(recipe: Recipe, networks: Mapping[str, Module], stage: int, rounds: int) -> list[list[tuple[dict, int]]]:
    """Of each stage its turns, and how often each had been played when ``rounds`` of ``stage`` had been."""
    facts, found = facts_of(recipe.dataset), []
    for i, (each, told) in enumerate(zip(recipe.stages, dry_run(recipe, facts), strict=True)):
        count = rounds if i == stage else told["rounds"] if i < stage else 0
        found.append(list(zip(told["turns"], times_played(each, networks, facts, count), strict=True)))
    return found


def line(run: Path, trained_at: str) -> dict:
    """The result line of one run."""
    holdout = json.loads((run / RECIPE).read_text())
    recipe, seed = decode(holdout["recipe"]), holdout["seed"]
    log = [json.loads(text) for text in (run / LOG).read_text().splitlines()]
    log = [holdout for holdout in log if any(k.startswith("loss/") for k in holdout)]  # others hold warnings
    losses = [k for k in log[0] if k.startswith("loss/")]
    model = zoo.load(run)
    makers = set(model.spec["to"].values()) if "to" in model.spec else {next(iter(model.spec["networks"]))}
    resolved = resolve(recipe, facts_of(recipe.dataset))
    networks = build_networks(resolved, device="meta")
    turns = played(resolved, networks, log[-1]["stage"], log[-1]["round"])
    # A translator's generators learn in one turn: it counts once. "G.levels.2" is a part of G.
    mine = [(t, times) for stage in turns for t, times in stage if {p.split(".")[0] for p in t["players"]} & makers]
    scored = {"start": untrained(model, recipe, seed), "end": run}
    found = {k: {to: quality.score(what, to) for to in quality.ways(model)} for k, what in scored.items()}
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "images": model.card["images"],
        "budget": settings.find(recipe.name).images,
        "rounds": log[-1]["round"],
        "g_steps": sum(times for _, times in mine),
        "seconds": round(model.card["seconds"]),
        "parameters": parameters(networks),
        "multiply_adds": sum(t["multiply_adds"] * times for stage in turns for t, times in stage),
        "losses_start": {k: round(log[0][k], 4) for k in losses},
        "losses_end": {k: round(log[-1][k], 4) for k in losses if k in log[-1]},
        **{k: {to: r["scores"] for to, r in by.items()} for k, by in found.items()},
        "protocol": {to: r["protocol"] for to, r in found["end"].items()},
        **rows.facts(rows.training(recipe, seed), seed),
        "trained_on": rows.trained_on(holdout),
        "commit": trained_at,
        "scored_at": rows.commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--trained-at", required=True, help="the commit that the runs were trained at")
    arguments = parser.parse_args()
    images, logs = rows.ROOT / "docs" / "images", rows.RESULTS / "logs"
    for folder in (images, logs):
        folder.mkdir(parents=True, exist_ok=True)
    for run in arguments.runs:
        row = line(run, arguments.trained_at)
        rows.write("learned", row, ("recipe", "seed"))
        shutil.copyfile(max((run / SAMPLES).glob("*.png")), images / f"{rows.label(row)}.png")
        shutil.copyfile(run / LOG, logs / f"{rows.label(row)}.jsonl")
        print(json.dumps({k: row[k] for k in ("recipe", "seed", "images", "seconds", "start", "end")}))


if __name__ == "__main__":
    rows.run(main)
