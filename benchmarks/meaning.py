"""What trained models say of images, and whether their images show the class that was asked for: a result line for each run.

    python benchmarks/meaning.py RUN [RUN ...] --trained-at COMMIT

A line holds those scores that the model can have (:data:`zoo.metrics.evaluate.LABEL_METRICS`): of a classifier its error on the test
split; of a model with codes the bound on their information and the first one's accuracy; of a class-conditional one how often
the data set's feature network names the class asked for, and beside it the feature network's accuracy on the test split. What a semi-supervised
model's line is to be compared with, the same classifier taught by the same labels alone, is another run's line: the table
finds it by network, labels and seed. Writes benchmarks/results/meaning.jsonl; the run's log goes to benchmarks/results/logs/.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import quality
import rows

import zoo
from zoo.data import open_data
from zoo.engine.run_folder import LOG, RECIPE
from zoo.metrics import features, label_scores
from zoo.metrics.evaluate import LABEL_METRICS, lacking
from zoo.metrics.image_source import find
from zoo.metrics.images import from_data
from zoo.metrics.statistics import see
from zoo.recipe import Recipe, decode


def labels(recipe: Recipe) -> int:
    """How many labeled images the run has seen; 0 where all are labeled, or none."""
    return max((s.balanced or 0 for s in recipe.stages[-1].data.streams.values()), default=0)


def feature_network(dataset: str) -> dict:
    """The feature network of a data set, and how often it names the class of a real image of the test split."""
    network, data = features.find(features.default(dataset)), open_data(dataset, split="test")
    accuracy, error = label_scores.class_accuracy(see(network, from_data(data)).predictions.likeliest, data.labels("y"))
    return {"name": network.name, **quality.rounded({"accuracy": accuracy, "error": error}), "images": len(data)}


def line(run: Path, trained_at: str) -> dict:
    """The result line of one run. ValueError where its model says nothing that has a score."""
    holdout = json.loads((run / RECIPE).read_text())
    recipe, seed, source = decode(holdout["recipe"]), holdout["seed"], find(run)
    chosen = [m for m in LABEL_METRICS if not lacking(source, m)]
    if not chosen:
        raise ValueError(f"{run}: a model without classifier, codes or classes; there is nothing to score here")
    found, spec = zoo.evaluate(run, chosen), source.model.spec
    return {
        "recipe": recipe.name,
        "model": recipe.model,
        "dataset": recipe.dataset,
        "images": source.card["images"],
        "seconds": round(source.card["seconds"]),
        "labels": labels(recipe),
        "verb": source.model.verb,
        "classifier": spec["networks"][spec["classifier"]] if source.classifies else None,
        "codes": source.model.codes if source.recognizes else {},
        "scores": quality.rounded(found["scores"]),
        "errors": quality.rounded(found["errors"]),
        "feature network": feature_network(recipe.dataset) if source.classes else None,
        "protocol": found["protocol"],
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
    logs = rows.RESULTS / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for run in arguments.runs:
        row = line(run, arguments.trained_at)
        rows.write("meaning", row, ("recipe", "seed"))
        shutil.copyfile(run / LOG, logs / f"{rows.label(row)}.jsonl")
        print(
            json.dumps(
                {
                    k: row[k]
                    for k in ("recipe", "seed", "images", "seconds", "labels", "scores", "errors", "feature network")
                }
            )
        )


if __name__ == "__main__":
    rows.run(main)
