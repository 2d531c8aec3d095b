"""A result line for each finished run: that its model has been seen to learn.

    python benchmarks/learned.py RUN [RUN ...] --trained-at COMMIT

Writes to benchmarks/results/learned.jsonl what the run's recipe, log and weights say, its scores at the start (the untrained
networks) and at the end, and what the trivial baselines of its data set score (see ``quality.py``, which scores shipped files
again); its log goes to benchmarks/results/logs/, its last grid to docs/images/.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import quality
import rows

import zoo
from zoo.data import facts as facts_of
from zoo.engine import plan
from zoo.engine.run import LOG, RECIPE, SAMPLES
from zoo.model import Model, build_model
from zoo.recipe import Recipe, decode


def untrained(model: Model, recipe: Recipe, seed: int) -> Model:
    """The model as the run began."""
    networks = plan.build_networks(plan.resolve(recipe, facts_of(recipe.dataset)), seed)
    return build_model(model.spec, {n: networks[n] for n in model.spec["networks"]}, model.card).eval()


def line(run: Path, trained_at: str) -> dict:
    """The result line of one run."""
    held = json.loads((run / RECIPE).read_text())
    recipe, seed = decode(held["recipe"]), held["seed"]
    log = [json.loads(text) for text in (run / LOG).read_text().splitlines()]
    log = [held for held in log if any(k.startswith("loss/") for k in held)]  # others hold warnings
    losses = [k for k in log[0] if k.startswith("loss/")]
    model, cost = zoo.load(run), plan.describe(recipe)
    shown = set(model.spec["networks"])
    variant = f" --variant {recipe.variant}" if recipe.variant else ""
    command = f"zoo train {recipe.model} --dataset {recipe.dataset}{variant} --seed {seed}"
    share = model.card["images"] / recipe.images
    # A translator's generators learn in one turn: it counts once.
    steps = sum(t["times"] * s["rounds"] for s in cost["stages"] for t in s["turns"] if set(t["players"]) & shown)
    ends = {"start": untrained(model, recipe, seed), "end": model}
    found = {k: {to: quality.score(m, to) for to in quality.ways(m)} for k, m in ends.items()}
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "images": model.card["images"],
        "budget": recipe.images,
        "rounds": log[-1]["round"],
        "g_steps": round(share * steps),
        "seconds": round(model.card["seconds"]),
        "parameters": cost["parameters"],
        "multiply_adds": share * sum(s["multiply_adds_a_round"] * s["rounds"] for s in cost["stages"]),
        "losses_start": {k: round(log[0][k], 4) for k in losses},
        "losses_end": {k: round(log[-1][k], 4) for k in losses},
        **{k: {to: r["scores"] for to, r in by.items()} for k, by in found.items()},
        "protocol": {to: r["protocol"] for to, r in found["end"].items()},
        **rows.facts(command, seed),
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
        rows.write("learned", row, ("recipe",))
        shutil.copyfile(max((run / SAMPLES).glob("*.png")), images / f"{row['recipe']}.png")
        shutil.copyfile(run / LOG, logs / f"{row['recipe']}.jsonl")
        print(json.dumps({k: row[k] for k in ("recipe", "images", "seconds", "start", "end")}))


if __name__ == "__main__":
    main()
